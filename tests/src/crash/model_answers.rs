//! The model's side of the crash tests: a fixed function from a conversation to the next step, so that a repeated
//! request gets the same answer.

use serde_json::json;

use super::token::{ANSWER, INTERIM, REST, Token, naming, tokens};
use crate::model::{Conversation, Does, Role, TalkEntry};

/// The runner writes these words before the messages that an ended turn left without an answer.
const STILL_WAITING: &str = "Still waiting for an answer:";

/// Returns the model's next step.
///
/// It answers the messages after its last answer, and only those of the newest message's chat: all chats of a group
/// share a session, and a message of another chat must not be answered here. The number of the newest message decides
/// what it does before it answers.
pub fn next_step(conversation: &Conversation) -> Does {
    if conversation.system.contains("You summarise the older part of a conversation") {
        return Does::Says("Earlier messages were answered.".to_owned());
    }
    let entries = &conversation.entries;
    let answered = |entry: &TalkEntry| entry.role == Role::Assistant && entry.calls().next().is_none();
    let from = entries.iter().rposition(answered).map_or(0, |at| at + 1);
    let open = entries.get(from..).unwrap_or_default();
    let asked = asked(entries, open);
    let Some(newest) = asked.last().cloned() else {
        return Does::Says("Nothing was asked.".to_owned());
    };
    let mut named: Vec<Token> = asked.into_iter().filter(|token| token.label == newest.label).collect();
    named.sort();
    named.dedup();
    let begun = open.iter().any(|entry| entry.role == Role::Assistant);
    match newest.n % 10 {
        _ if begun => Does::Says(answer(&named)),
        1 | 6 => Does::Runs("run_command", json!({ "command": format!("echo {newest}; sleep 0.05") })),
        3 => Does::Runs("send_message", json!({ "text": naming(INTERIM, &named) })),
        8 => Does::Runs("update_personality", json!({ "text": format!("You know {newest}.\n") })),
        _ => Does::Says(answer(&named)),
    }
}

/// Returns the tokens of messages after the last answer, and of messages that the runner lists as still waiting.
fn asked(all: &[TalkEntry], open: &[TalkEntry]) -> Vec<Token> {
    let mut found = Vec::new();
    for entry in open.iter().filter(|entry| entry.role == Role::User) {
        let text = entry.text();
        for id in text.split(STILL_WAITING).skip(1).flat_map(|rest| {
            rest.split(']').next().unwrap_or_default().split([',', ' ']).filter(|word| word.starts_with("m-"))
        }) {
            let frame = format!("id=\"{id}\"");
            let told = all
                .iter()
                .map(TalkEntry::text)
                .find_map(|text| Some(tokens(text.split(&frame).nth(1)?.split("</message>").next()?)));
            found.extend(told.unwrap_or_default());
        }
        found.extend(tokens(&text));
    }
    found
}

/// Makes every twelfth answer too long for one part on a platform that has a limit.
fn answer(named: &[Token]) -> String {
    let first = naming(ANSWER, named);
    if named.last().is_some_and(|newest| newest.n % 12 == 5) {
        let padding = "so it goes, ".repeat(250);
        return format!("{first}\n\n{padding}\n\n{} {padding}", naming(REST, named));
    }
    first
}
