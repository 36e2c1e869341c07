//! `search_history`: the agent searches what was said in the chats of its own group. The index finds it, and the store
//! decides again whose it is and gives the text.

use std::time::Duration;

use ipc_schema::requests::SearchHistory;
use ipc_schema::text_sanitize::{clean, line};
use serde_json::{Value, json};

use super::{Asker, Outcome};
use crate::domain::WallMs;
use crate::policy::authorize_request::Allowed;
use crate::schedule::{local, past_range};
use crate::store::{Found, OwnChat, Reach, Said, StoreError, Wanted};

/// How long a search brings the index up to date. The agent is told if that was not enough.
const CATCH_UP: Duration = Duration::from_secs(3);
/// The characters of a page, shared by its entries: fewer entries are shown with more of their text.
const PAGE_CHARS: usize = 20_000;
/// The longest name of a person, chat or file.
const NAME_CHARS: usize = 100;
/// How many of a message's files are named.
const FILES: usize = 3;

pub(super) async fn perform(asker: &Asker<'_>, allowed: Allowed<SearchHistory>) -> Outcome {
    let (ask, group) = allowed.into_parts();
    let services = asker.services;
    let (zone, now) = (&asker.group.zone, services.clock.wall());
    let range = match ask.range.as_deref().filter(|range| !range.trim().is_empty()) {
        None => None,
        Some(text) => match past_range(text, zone, now) {
            Ok(range) => Some(range),
            Err(e) => return Outcome::refused("history.range", e.to_string()),
        },
    };
    let own = match services.store.chats_of(&group).await {
        Ok(own) => own,
        Err(e) => return failed(&e),
    };
    let chat = match ask.chat.as_deref().map(|name| chat_named(&own, name)) {
        None => None,
        Some(Ok(chat)) => Some(chat.chat.clone()),
        Some(Err(why)) => return Outcome::refused("history.chat", why),
    };
    let count = ask.count.unwrap_or(SearchHistory::COUNT);
    let page = ask.page.unwrap_or(1);
    let wanted = Wanted {
        group: group.clone(),
        own,
        chat,
        query: ask.query,
        from: range.map_or(WallMs(i64::MIN), |range| range.from),
        to: range.map_or(WallMs(i64::MAX), |range| range.to),
        skip: (page - 1).saturating_mul(count),
        count,
    };
    let (found, reach) = match searched(asker, wanted).await {
        Ok(found) => found,
        Err(e) => return failed(&e),
    };
    let asked_for = found.keys.len();
    let said = match services.store.said(&group, found.keys, asker.turn).await {
        Ok(said) => said,
        Err(e) => return failed(&e),
    };
    let chars = PAGE_CHARS / usize::try_from(count).unwrap_or(1).max(1);
    Outcome::Done(json!({
        "range": range.map(|range| {
            format!("{} to {}", local(range.from, zone), local(WallMs(range.to.0 - 1), zone))
        }),
        "total": found.total,
        "page": page,
        "pages": found.total.div_ceil(count.into()),
        "left_out": asked_for - said.len(),
        "indexed_from": reach.back_to.map(|at| local(at, zone)),
        "indexed_to": reach.up_to.map(|at| local(at, zone)),
        "entries": said.iter().map(|said| entry(said, chars, &local(said.at, zone))).collect::<Vec<_>>(),
    }))
}

/// Searches an index that is up to date, or as far as time allows. Returns also what is indexed.
async fn searched(asker: &Asker<'_>, wanted: Wanted) -> Result<(Found, Reach), StoreError> {
    let (history, store) = (&asker.services.history, &asker.services.store);
    let reach = history.catch_up(store, CATCH_UP).await?;
    match history.search(wanted.clone()).await {
        // A damaged index was removed. It is made anew, as far as time allows.
        Err(StoreError::Corrupt(_) | StoreError::Sql(_)) => {
            let reach = history.catch_up(store, CATCH_UP).await?;
            Ok((history.search(wanted).await?, reach))
        }
        found => Ok((found?, reach)),
    }
}

fn failed(e: &StoreError) -> Outcome {
    tracing::warn!(code = e.code(), "the history was not searched: {e}");
    Outcome::refused(
        e.code(),
        "the host cannot read its history now; go on without it, or try it again later",
    )
}

/// The group's chat with this id or title.
fn chat_named<'a>(own: &'a [OwnChat], name: &str) -> Result<&'a OwnChat, String> {
    let name = name.trim();
    let titled = |chat: &&OwnChat| chat.title.trim().to_lowercase() == name.to_lowercase();
    let by_id = own.iter().find(|chat| chat.chat.as_str() == name);
    let mut by_title = own.iter().filter(titled);
    match (by_id, by_title.next(), by_title.next()) {
        (Some(chat), ..) | (None, Some(chat), None) => Ok(chat),
        (None, first, _) => {
            let known: Vec<_> =
                own.iter().take(30).map(|chat| format!("{} ({:?})", chat.chat, chat.title)).collect();
            let what = if first.is_some() { "several chats have" } else { "no chat of this group has" };
            Err(format!("{what} the id or title {name:?}; this group's chats are: {}", known.join(", ")))
        }
    }
}

/// An entry as the agent gets it, with at most so many characters of the text. Everything that people chose is
/// bounded, because all entries must fit into one letter.
fn entry(said: &Said, chars: usize, at: &str) -> Value {
    let whole = clean(&said.text);
    let text: String = whole.chars().take(chars).collect();
    let cut = whole.chars().count().saturating_sub(chars);
    let by = said.by.as_ref();
    let name = |text: &String| line(text, NAME_CHARS);
    json!({
        "id": by.map(|by| by.seq.to_string()),
        "from": by.map(|by| name(&by.name)),
        "sender": by.map(|by| &by.sender),
        "origin": by.and_then(|by| by.origin.as_ref()).map(name),
        "answers": said.answers.map(|seq| seq.to_string()),
        "undelivered": said.undelivered,
        "at": at,
        "chat": said.chat,
        "title": name(&said.title),
        "text": text,
        "cut": cut,
        "files": said.files.iter().take(FILES).map(name).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use ipc_schema::LETTER_MAX_BYTES;

    use super::*;
    use crate::domain::MessageSeq;
    use crate::store::SaidBy;

    #[test]
    fn the_longest_page_fits_into_a_letter() {
        for count in [1, SearchHistory::COUNT, SearchHistory::COUNT_MAX] {
            let long = || "\u{1}🎂\"".repeat(20_000);
            let by = SaidBy {
                seq: MessageSeq(1),
                sender: "telegram:5".into(),
                name: long(),
                origin: Some(long()),
            };
            let said = Said {
                by: Some(by),
                chat: "telegram:-100123/42".into(),
                title: long(),
                at: WallMs(0),
                text: long(),
                files: vec![long(); 10],
                answers: None,
                undelivered: false,
            };
            let chars = PAGE_CHARS / count as usize;
            let page: Vec<Value> =
                (0..count).map(|_| entry(&said, chars, "Mon 30 Nov 2026 16:17 UTC")).collect();
            let bytes = json!(page).to_string().len() as u64;
            assert!(bytes < LETTER_MAX_BYTES - 10_000, "{count} entries have {bytes} bytes");
            assert!(page[0]["cut"].as_u64().is_some_and(|cut| cut > 0));
        }
    }
}
