//! The model's side of the crash tests: a fixed function from a conversation to the next step, so that a repeated
//! request gets the same answer.

use serde_json::json;

use super::token::{ANSWER, INTERIM, REST, Token, naming, tokens};
use crate::model::{Conversation, Does, Role, TalkEntry};

/// The runner writes these words before the messages that an ended turn left without an answer.
const STILL_WAITING: &str = "Still waiting for an answer:";

/// The words before the id of a fire: in the answer of its turn, and in the message that a task may send before it.
pub const DID: &str = "did";
pub const TELLS: &str = "telling about";
/// A message with this word before its token asks for a task, by the last digit of the token's number.
pub const PLAN: &str = "plan";

/// What the agent asks for every token whose number ends in 0.
pub const QUESTION: &str = "May I?";

/// The host says this when its store failed.
const AGAIN: &str = "try it again later";

/// A fire in the prompt of its turn.
struct Fire {
    id: String,
    prompt: String,
}

/// Returns the model's next step.
///
/// It answers the fire and the messages after its last answer, and only the messages of the newest message's chat: all
/// chats of a group share a session, and a message of another chat must not be answered here. The task's prompt, or the
/// number of the newest message, decides what it does before it answers.
pub fn next_step(conversation: &Conversation) -> Does {
    if is_summary(conversation) {
        return Does::Says("Earlier messages were answered.".to_owned());
    }
    let (entries, open) = (&conversation.entries, open(conversation));
    let asked = asked(entries, open);
    let newest = asked.last().cloned();
    let own = |token: &Token| newest.as_ref().is_some_and(|newest| newest.label == token.label);
    let mut named: Vec<Token> = asked.into_iter().filter(own).collect();
    if let Some(does) = named.iter().find_map(|token| plan(entries, open, token)) {
        return does;
    }
    named.sort();
    named.dedup();
    let begun = open.iter().any(|entry| entry.role == Role::Assistant);
    match (newest_fire(open), newest) {
        (None, None) => Does::Says("Nothing was asked.".to_owned()),
        (Some(fire), None) if !begun => work(&fire),
        (Some(fire), None) => Does::Says(format!("{DID} {}", fire.id)),
        (Some(fire), Some(_)) => Does::Says(format!("{} and {DID} {}", naming(ANSWER, &named), fire.id)),
        (None, Some(newest)) => match newest.n % 10 {
            _ if begun => Does::Says(answer(&named)),
            1 | 6 => Does::Runs("run_command", json!({ "command": format!("echo {newest}; sleep 0.05") })),
            3 => Does::Runs("send_message", json!({ "text": naming(INTERIM, &named) })),
            8 => Does::Runs("update_personality", json!({ "text": format!("You know {newest}.\n") })),
            9 => Does::Runs("react", json!({ "emoji": "👍" })),
            0 => Does::Runs("ask_person", json!({ "question": QUESTION, "choices": ["yes", "no"] })),
            _ => Does::Says(answer(&named)),
        },
    }
}

/// Returns the id of the fire for which the model is called.
pub fn fire_of(conversation: &Conversation) -> Option<String> {
    let fire = if is_summary(conversation) { None } else { newest_fire(open(conversation)) };
    fire.map(|fire| fire.id)
}

fn is_summary(conversation: &Conversation) -> bool {
    conversation.system.contains("You summarise the older part of a conversation")
}

/// Returns the entries after the last answer.
fn open(conversation: &Conversation) -> &[TalkEntry] {
    let entries = &conversation.entries;
    let answered = |entry: &TalkEntry| entry.role == Role::Assistant && entry.calls().next().is_none();
    let from = entries.iter().rposition(answered).map_or(0, |at| at + 1);
    entries.get(from..).unwrap_or_default()
}

/// A turn has at most one fire. An earlier one is of a turn that failed.
fn newest_fire(open: &[TalkEntry]) -> Option<Fire> {
    open.iter().rev().filter(|entry| entry.role == Role::User).find_map(|entry| {
        let text = entry.text();
        let (_, frame) = text.rsplit_once("<task id=\"")?;
        let (id, rest) = frame.split_once('"')?;
        let (_, rest) = rest.split_once('>')?;
        let (prompt, _) = rest.split_once("</task>")?;
        Some(Fire { id: id.to_owned(), prompt: prompt.to_owned() })
    })
}

/// The first step of a fire's turn.
fn work(fire: &Fire) -> Does {
    let Fire { id, prompt } = fire;
    match prompt.split(' ').next() {
        Some("run") => Does::Runs("run_command", json!({ "command": format!("echo {id}") })),
        Some("tell") => Does::Runs("send_message", json!({ "text": format!("{TELLS} {id}") })),
        _ => Does::Says(format!("{DID} {id}")),
    }
}

/// The task for which a message asks, unless the host has made it already. A request that failed is made again.
fn plan(all: &[TalkEntry], open: &[TalkEntry], token: &Token) -> Option<Does> {
    let asks = format!("{PLAN} {token}<");
    if !all.iter().any(|entry| entry.text().contains(&asks)) {
        return None;
    }
    // Each request names its token in this way.
    let mark = format!("{token}.");
    let request = |entry: &TalkEntry| entry.role == Role::Assistant && entry.raw.to_string().contains(&mark);
    if let Some(at) = open.iter().rposition(request) {
        let answer = open.get(at + 1).into_iter().flat_map(TalkEntry::results);
        if !answer.into_iter().any(|(_, text)| text.contains(AGAIN)) {
            return None;
        }
    }
    let named = |token: &Token| format!("work {token}");
    match token.n % 10 {
        1 => Some(Does::Runs(
            "schedule_task",
            json!({ "name": named(token), "schedule": "in 1 minute", "prompt": format!("say {mark}"),
                    "context": "group", "gate": "echo '{\"wake\": true}'" }),
        )),
        2 => {
            let text = format!("Stretch, as {token} wants. {mark}");
            Some(Does::Runs("remind", json!({ "text": text, "when": "in 1 minute" })))
        }
        3 => Some(Does::Runs(
            "schedule_task",
            json!({ "name": named(token), "schedule": "in 1 minute", "prompt": format!("say {mark}"),
                    "gate": "echo '{\"wake\": false}'" }),
        )),
        4 => {
            let first = Token { label: token.label.clone(), n: token.n - 3 };
            let prompt = format!("run for {first}, changed by {mark}");
            Some(Does::Runs("update_task", json!({ "task": named(&first), "prompt": prompt })))
        }
        _ => None,
    }
}

/// Returns a text without the frames of tasks, whose prompts may name tokens.
fn without_tasks(text: &str) -> String {
    let mut parts = text.split("<task ");
    let mut out = parts.next().unwrap_or_default().to_owned();
    parts.for_each(|part| out.push_str(part.split_once("</task>").map_or("", |(_, rest)| rest)));
    out
}

/// Returns the tokens of messages after the last answer, and of messages that the runner lists as still waiting.
fn asked(all: &[TalkEntry], open: &[TalkEntry]) -> Vec<Token> {
    let mut found = Vec::new();
    for entry in open.iter().filter(|entry| entry.role == Role::User) {
        let text = without_tasks(&entry.text());
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
