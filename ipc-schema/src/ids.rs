//! Ids and names that both sides compare: groups, runs, turns, messages, letters.
//!
//! Each is a newtype that only its parser can make, deserialization included: a value of the type proves that the
//! text was checked.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The text is not a valid id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} is not valid: {rule}")]
pub struct BadId {
    /// The expected kind: "group name", "turn id", …
    pub what: &'static str,
    /// The text, cut to 80 characters.
    pub text: String,
    /// The rule that the text breaks.
    pub rule: &'static str,
}

impl BadId {
    fn new(what: &'static str, text: &str, rule: &'static str) -> Self {
        Self { what, text: text.chars().take(80).collect(), rule }
    }
}

/// Implements serde and schema for a newtype with `FromStr` and `Display`, so that deserialization uses the one
/// parser.
macro_rules! checked_text {
    ($type:ident, $pattern:expr, $about:expr) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "description": $about })
            }
        }
    };
}

/// A group's name, which is also its folder's name: `[a-z0-9-]{1,32}`, without a leading or trailing dash.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupName(String);

impl GroupName {
    /// The name of the owner's group.
    pub const MAIN: &'static str = "main";

    /// Folders under `groups/` that are not groups.
    pub const RESERVED: [&'static str; 2] = ["global", "template"];

    /// The name without a copy.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the owner's group.
    pub fn main() -> Self {
        Self(Self::MAIN.to_owned())
    }

    /// Whether this is the owner's group, which has more rights than others.
    pub fn is_main(&self) -> bool {
        self.0 == Self::MAIN
    }
}

impl FromStr for GroupName {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        const RULE: &str = "1 to 32 of a-z, 0-9 and '-', no '-' at either end";
        let fits = (1..=32).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-');
        if !fits {
            return Err(BadId::new("group name", text, RULE));
        }
        if Self::RESERVED.contains(&text) {
            return Err(BadId::new("group name", text, "'global' and 'template' are folders, not groups"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

checked_text!(GroupName, "^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$", "A group's name and folder");

/// The id of a run (one container's life): a UUID of version 7 in lower case, so that ids sort by the start of the
/// run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(String);

impl RunId {
    /// The id as it stands in names of directories and containers.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RunId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let fits = text.len() == 36
            && text.bytes().enumerate().all(|(i, b)| match i {
                8 | 13 | 18 | 23 => b == b'-',
                _ => b.is_ascii_digit() || (b'a'..=b'f').contains(&b),
            });
        if fits { Ok(Self(text.to_owned())) } else { Err(BadId::new("run id", text, "a lower-case UUID")) }
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

checked_text!(
    RunId,
    "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
    "One box's life, a UUID of version 7"
);

/// Parses a prefix and a positive number. Leading zeros and signs are refused, so that each id has one spelling.
fn prefixed_number(what: &'static str, prefix: &str, text: &str) -> Result<u64, BadId> {
    const RULE: &str = "a prefix, a dash and a positive number without leading zeros";
    text.strip_prefix(prefix)
        .filter(|digits| !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| BadId::new(what, text, RULE))
}

/// The id of a turn: `t-41`. Numbers grow within one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TurnId(pub u64);

impl FromStr for TurnId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        prefixed_number("turn id", "t-", text).map(Self)
    }
}

impl fmt::Display for TurnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t-{}", self.0)
    }
}

checked_text!(TurnId, "^t-[1-9][0-9]*$", "A turn");

/// The id of a message: `m-12`, its place in the store's order. It identifies the message in every log, letter and
/// trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageSeq(pub u64);

impl FromStr for MessageSeq {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        prefixed_number("message id", "m-", text).map(Self)
    }
}

impl fmt::Display for MessageSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m-{}", self.0)
    }
}

checked_text!(MessageSeq, "^m-[1-9][0-9]*$", "A message, by its place in the store's order");

/// The id of a letter. It is *derived* and never random, so that a letter that is written again after a crash has the
/// same id and the reader recognizes the repeat:
///
/// | letter | id |
/// |---|---|
/// | the content of a transcript entry's block | `t-41:7.0` (turn, entry, block) |
/// | a request | `t-41:toolu_01A…` (turn, the model's `tool_use` id) |
/// | a letter between turns, a draft, a status | `run:5` (its number in this run) |
/// | a letter of the host | `host:5` (its number in this run) |
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LetterId(String);

impl LetterId {
    /// The shortest id in bytes.
    pub const MIN_LEN: usize = 3;
    /// The longest id in bytes.
    pub const MAX_LEN: usize = 160;

    /// The id of a letter that carries content block `block` of transcript entry `entry`.
    pub fn of_block(turn: TurnId, entry: u64, block: u32) -> Self {
        Self(format!("{turn}:{entry}.{block}"))
    }

    /// The id of a request. `tool_use` is the model's id of the tool call.
    ///
    /// # Errors
    /// When the call's id does not fit into a letter id (length, characters).
    pub fn of_request(turn: TurnId, tool_use: &str) -> Result<Self, BadId> {
        format!("{turn}:{tool_use}").parse()
    }

    /// The id of a letter that is never repeated: `ready`, `draft`, `status`, `failed`. `n` is its number in this
    /// run.
    pub fn of_run(n: u64) -> Self {
        Self(format!("run:{n}"))
    }

    /// The id of the host's letter number `n`.
    pub fn of_host(n: u64) -> Self {
        Self(format!("host:{n}"))
    }

    /// The id without a copy.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number of the transcript's entry, in the id of a content block.
    pub fn entry(&self) -> Option<u64> {
        self.0.split_once(':')?.1.split_once('.')?.0.parse().ok()
    }

    /// Whether this id belongs to `turn`. The trailing colon keeps `t-4` from owning `t-41:…`.
    pub fn belongs_to(&self, turn: TurnId) -> bool {
        self.0.strip_prefix(&turn.to_string()).is_some_and(|rest| rest.starts_with(':'))
    }
}

impl FromStr for LetterId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let fits = (Self::MIN_LEN..=Self::MAX_LEN).contains(&text.len())
            && text.contains(':')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:".contains(&b));
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadId::new("letter id", text, "OWNER:PART of at most 160 letters, digits, '_', '-', '.'"))
        }
    }
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

checked_text!(
    LetterId,
    "^[A-Za-z0-9_.-]*:[A-Za-z0-9_.:-]*$",
    "A letter's id, derived so that a repeat has the same"
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_group_name_is_a_folder_name_and_nothing_else() {
        for good in ["main", "a", "family-2", &"x".repeat(32)] {
            assert_eq!(good.parse::<GroupName>().unwrap().as_str(), good);
        }
        for bad in
            ["", "-a", "a-", "A", "a b", "../x", "a/b", "a.b", "ä", "global", "template", &"x".repeat(33)]
        {
            assert!(bad.parse::<GroupName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_id_has_exactly_one_spelling() {
        assert_eq!("t-7".parse::<TurnId>().unwrap(), TurnId(7));
        for bad in ["t-0", "t-07", "t-+7", "t-", "7", "m-7", "t-18446744073709551616", "t-7 "] {
            assert!(bad.parse::<TurnId>().is_err(), "{bad:?}");
        }
        assert!("019a-zz".parse::<RunId>().is_err());
        assert!("019AB000-0000-7000-8000-000000000001".parse::<RunId>().is_err(), "upper case");
        assert!("019ab000-0000-7000-8000-000000000001".parse::<RunId>().is_ok());
    }

    #[test]
    fn a_letter_belongs_to_its_own_turn_only() {
        let id = LetterId::of_block(TurnId(41), 7, 0);
        assert_eq!(id.as_str(), "t-41:7.0");
        assert!(id.belongs_to(TurnId(41)));
        assert_eq!(id.entry(), Some(7));
        assert_eq!(LetterId::of_run(3).entry(), None);
        assert!(!id.belongs_to(TurnId(4)));
        assert!(LetterId::of_request(TurnId(1), "toolu_01AbC").unwrap().belongs_to(TurnId(1)));
        assert!(LetterId::of_request(TurnId(1), "evil\nid").is_err());
        assert!(LetterId::of_request(TurnId(1), &"x".repeat(200)).is_err());
    }

    proptest! {
        #[test]
        fn whatever_parses_prints_back_to_itself(text in "[a-z0-9:._-]{0,40}|t-[0-9]{1,22}|m-[0-9]{1,22}") {
            if let Ok(id) = text.parse::<TurnId>() { prop_assert_eq!(id.to_string(), text.clone()); }
            if let Ok(id) = text.parse::<MessageSeq>() { prop_assert_eq!(id.to_string(), text.clone()); }
            if let Ok(id) = text.parse::<LetterId>() { prop_assert_eq!(id.to_string(), text.clone()); }
            if let Ok(id) = text.parse::<GroupName>() { prop_assert_eq!(id.to_string(), text); }
        }
    }
}
