//! `send_file`: the host copies a file of the workspace and sends it to the chat.

use ipc_schema::requests::{RequestArgs, SendFile, grouped};
use serde_json::{Value, json};

use super::{Output, RequestTool, args, define};

pub(super) static TOOL: RequestTool = RequestTool {
    definition: define(
        SendFile::KIND,
        "Sends one file below /workspace to the chat of this turn, now, in order with what you say there. It must be a regular file, not a link; the host refuses one that is too large. What it holds at the call is what is sent.",
        properties,
        &["path"],
    ),
    needs_files: true,
    read: |input| args::<SendFile>(SendFile::KIND, input).map(Into::into),
    told,
};

fn properties() -> Value {
    let caption =
        format!("Markdown below the file, at most {} characters", grouped(SendFile::CAPTION_MAX_CHARS));
    json!({
        "path": { "type": "string", "description": "below /workspace" },
        "caption": { "type": "string", "description": caption },
        "name": { "type": "string", "description": "what it is called in the chat; the file's own name by default" },
    })
}

fn told(result: &Value) -> Output {
    Output::ok(match result.get("bytes").and_then(Value::as_u64) {
        Some(bytes) => format!("sent, {bytes} bytes"),
        None => "sent".into(),
    })
}
