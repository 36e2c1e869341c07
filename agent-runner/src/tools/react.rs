//! `react`: the host puts an emoji at a message of the chat.

use ipc_schema::requests::{React, RequestArgs};
use serde_json::{Value, json};

use super::{Output, RequestTool, args, define};

/// The tool's name. It is offered where the chat has reactions.
pub(super) const NAME: &str = React::KIND;

pub(super) static TOOL: RequestTool = RequestTool {
    definition: define(
        NAME,
        "Reacts to a message of this chat with an emoji, now. It replaces your earlier reaction there. Use it where a reaction says enough, such as thanks or agreement; then end with an empty answer if there is nothing to add.",
        properties,
        &["emoji"],
    ),
    needs_files: false,
    read: |input| args::<React>(NAME, input).map(Into::into),
    told,
};

fn properties() -> Value {
    json!({
        "emoji": { "type": "string", "description": "one emoji; empty takes your reaction back" },
        "message": { "type": "string", "pattern": "^m-[0-9]+$", "description": "the message's id, such as m-12; the newest one that you answer by default" },
    })
}

fn told(result: &Value) -> Output {
    let message = result.get("message").and_then(Value::as_str).unwrap_or("the message");
    Output::ok(format!("done, at {message}"))
}
