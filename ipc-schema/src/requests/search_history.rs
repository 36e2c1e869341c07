//! `search_history`: the group's own stored messages and replies, by words, by time, or both.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{RequestArgs, grouped};
use crate::{Refusal, RefusalCode};

/// Searches what was said in the group's chats. Without a query, the answer holds everything of the time, the oldest
/// first; with one, what fits best comes first. Since minor version 2.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchHistory {
    /// The words that are looked for, in any order and inflection; absent: everything of the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The time, as a phrase: `today`, `last week`, `2026-11-03`, `1 nov to 5 nov`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<String>,
    /// Only one of the group's chats: its id, such as `telegram:-100123`, or its title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<String>,
    /// How many entries a page has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(description = format!("How many entries a page has, at most {}; absent: {}.",
        SearchHistory::COUNT_MAX, SearchHistory::COUNT))]
    pub count: Option<u32>,
    /// Which page, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<u32>,
}

impl SearchHistory {
    /// The longest query, in characters.
    pub const QUERY_MAX_CHARS: usize = 1_000;
    /// The longest range and chat, in bytes.
    pub const SHORT_MAX_BYTES: usize = 200;
    /// The entries of a page unless the agent says otherwise.
    pub const COUNT: u32 = 20;
    /// The most entries of a page.
    pub const COUNT_MAX: u32 = 50;
    /// The last page that can be asked for.
    pub const PAGE_MAX: u32 = 1_000;
}

impl RequestArgs for SearchHistory {
    const KIND: &'static str = "search_history";

    fn check(&self) -> Result<(), Refusal> {
        let too_big = |what: &str, has: usize, most: usize, unit: &str| {
            let (has, most) = (grouped(has), grouped(most));
            let why = format!("the {what} has {has} {unit}, at most {most} are allowed");
            Err(Refusal::new(RefusalCode::TooBig, why))
        };
        let is_blank = |text: &Option<String>| text.as_ref().is_none_or(|text| text.trim().is_empty());
        if is_blank(&self.query) && is_blank(&self.range) {
            let why = "say what to look for in `query`, or when in `range`, or both";
            return Err(Refusal::new(RefusalCode::Forbidden, why));
        }
        let chars = self.query.as_ref().map_or(0, |query| query.chars().count());
        if chars > Self::QUERY_MAX_CHARS {
            return too_big("query", chars, Self::QUERY_MAX_CHARS, "characters");
        }
        for (what, text) in [("range", &self.range), ("chat", &self.chat)] {
            let bytes = text.as_ref().map_or(0, String::len);
            if bytes > Self::SHORT_MAX_BYTES {
                return too_big(what, bytes, Self::SHORT_MAX_BYTES, "bytes");
            }
        }
        for (what, number, most) in
            [("count", self.count, Self::COUNT_MAX), ("page", self.page, Self::PAGE_MAX)]
        {
            if number.is_some_and(|n| n == 0 || n > most) {
                let why = format!("`{what}` is between 1 and {most}");
                return Err(Refusal::new(RefusalCode::Forbidden, why));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_needs_words_or_a_time_and_has_limits() {
        let search = |change: fn(&mut SearchHistory)| {
            let mut search = SearchHistory { query: Some("boiler".into()), ..SearchHistory::default() };
            change(&mut search);
            search.check().map_err(|refusal| refusal.code)
        };
        assert_eq!(search(|_| {}), Ok(()));
        assert_eq!(search(|s| (s.query, s.range) = (None, Some("today".into()))), Ok(()));
        assert_eq!(search(|s| s.query = Some(" \n".into())), Err(RefusalCode::Forbidden));
        assert_eq!(search(|s| s.query = Some("é".repeat(1_000))), Ok(()));
        assert_eq!(search(|s| s.query = Some("\" OR *".repeat(10_000))), Err(RefusalCode::TooBig));
        assert_eq!(search(|s| s.range = Some("x".repeat(201))), Err(RefusalCode::TooBig));
        assert_eq!(search(|s| s.chat = Some("x".repeat(201))), Err(RefusalCode::TooBig));
        assert_eq!(search(|s| s.count = Some(51)), Err(RefusalCode::Forbidden));
        assert_eq!(search(|s| s.page = Some(0)), Err(RefusalCode::Forbidden));
    }
}
