//! `ask_person`: the host asks the people of the chat, and the turn waits for the answer.

use ipc_schema::requests::{Answer, AskPerson, RequestArgs, grouped};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Output, RequestTool, args, define};

/// The tool's name.
pub const NAME: &str = AskPerson::KIND;

/// The result of a question when somebody wrote something else instead of an answer.
pub const PENDING: &str = "No answer yet: somebody wrote something else, which comes next; it may well be the \
     answer. An answer to this very question may still come, as a message of its own.";

pub(super) static TOOL: RequestTool = RequestTool {
    definition: define(
        NAME,
        "Asks the people of this chat one question and waits for the answer, which can take a day. Use it only when you cannot go on without them. What else they write instead arrives as the next message.",
        properties,
        &["question"],
    ),
    needs_files: false,
    read: |input| args::<AskPerson>(NAME, input).map(Into::into),
    told,
};

fn properties() -> Value {
    let question = format!("Markdown, at most {} characters", grouped(AskPerson::QUESTION_MAX_CHARS));
    let choices =
        format!("answers to choose from, at most {}; leave it out for a free answer", AskPerson::CHOICES_MAX);
    json!({
        "question": { "type": "string", "description": question },
        "choices": { "type": "array", "items": { "type": "string" }, "description": choices },
    })
}

fn told(result: &Value) -> Output {
    match Answer::deserialize(result) {
        Ok(Answer::Answered { text, from, name }) => Output::ok(format!("{name} ({from}) answers:\n{text}")),
        Ok(Answer::Pending) => Output::ok(PENDING),
        Ok(Answer::Expired) => Output::ok(
            "Nobody answered in time. Decide without it where that is safe, or end with what you need to know.",
        ),
        Err(_) => Output::error("the host answered in a way that this agent does not know; go on without it"),
    }
}
