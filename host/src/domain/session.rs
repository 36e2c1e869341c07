//! The names of sessions. A session is a transcript that a lane continues, in a folder of its own.
//!
//! A name is readable (`conversation-7-k3v9…`: the lane and the session's number; for an isolated task also the turn),
//! and its end cannot be guessed, so nothing can wait under the name before the session begins. Earlier versions gave
//! names without such an end; their sessions keep them.

use super::{Lane, TurnId};

/// Letters of a name's end. None looks like another one.
const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";
/// How many of them a name has: 60 random bits.
const LENGTH: usize = 12;
const CONVERSATION: &str = "conversation-";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub name: String,
    /// Whether a run has used it. Whatever lies under the name of any other session is no transcript of it.
    pub begun: bool,
}

impl Session {
    /// For a box in which no agent works. It has a folder, and never a transcript.
    pub fn of_helpers() -> Self {
        Self { name: "helpers".into(), begun: true }
    }

    /// A session that begins: `stem` and an end made of random bytes.
    pub fn new(stem: &str, random: &[u8; 16]) -> Self {
        // The other bytes of a random UUID hold its version.
        let bytes = random.iter().take(6).chain(random.iter().skip(10));
        let end = bytes.map(|b| char::from(LETTERS[usize::from(b % 32)])).take(LENGTH).collect::<String>();
        Self { name: format!("{stem}-{end}"), begun: false }
    }
}

/// The beginning of a name. Each turn of an isolated task has a session of its own.
pub fn stem(lane: &Lane, number: u64, turn: Option<TurnId>) -> String {
    match lane.task_id() {
        None => format!("{CONVERSATION}{number}"),
        Some(task) => format!("{task}-{}", turn.unwrap_or(TurnId(0))),
    }
}

/// The number in the name of a conversation's session.
pub fn number(name: &str) -> Option<u64> {
    name.strip_prefix(CONVERSATION)?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{GroupName, TaskId};
    use std::collections::BTreeSet;

    #[test]
    fn a_name_is_readable_and_its_end_is_not_known_before() {
        let lanes = [
            (Lane::conversation(GroupName::main()), "conversation-7-"),
            (Lane::task(GroupName::main(), TaskId(3)), "task-3-t-12-"),
        ];
        for (lane, begins) in lanes {
            let fresh = || Session::new(&stem(&lane, 7, Some(TurnId(12))), uuid::Uuid::new_v4().as_bytes());
            let names: BTreeSet<String> = (0..100).map(|_| fresh().name).collect();
            assert_eq!(names.len(), 100);
            for name in names {
                let end = name.strip_prefix(begins).unwrap();
                assert!(end.len() == LENGTH && name.len() <= 64, "{name}");
                assert!(end.bytes().all(|b| LETTERS.contains(&b)), "{name}");
            }
        }
    }

    #[test]
    fn the_number_of_a_conversation_is_read_from_names_of_every_version() {
        for (name, found) in [
            ("conversation-7", Some(7)),
            ("conversation-7-k3v9k3v9k3v9", Some(7)),
            ("conversation-70-222222222222", Some(70)),
            ("conversation-x", None),
            ("task-3-t-12-k3v9k3v9k3v9", None),
            ("helpers", None),
        ] {
            assert_eq!(number(name), found, "{name}");
        }
    }
}
