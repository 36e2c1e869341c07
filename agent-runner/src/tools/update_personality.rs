//! `update_personality`: the host replaces the group's `CLAUDE.md`.

use ipc_schema::requests::{RequestArgs, UpdatePersonality};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Output, RequestTool, args, define};

pub(super) static TOOL: RequestTool = RequestTool {
    definition: define(
        UpdatePersonality::KIND,
        "Replaces the whole text that stands under \"This group\" in your instructions, from the next turn on. Give the complete new text: what you leave out is gone. The host keeps the previous one and may refuse.",
        properties,
        &["text"],
    ),
    needs_files: false,
    read,
    told: |_| Output::ok("done; it holds from the next turn on"),
};

/// What the model gives. The turn adds the digest of the text that the change is based on.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    text: String,
}

fn properties() -> Value {
    let text =
        format!("the complete new text, Markdown, at most {} KiB", UpdatePersonality::TEXT_MAX_BYTES >> 10);
    json!({ "text": { "type": "string", "description": text } })
}

fn read(input: &str) -> Result<ipc_schema::letters::Request, String> {
    let Args { text } = args(UpdatePersonality::KIND, input)?;
    Ok(UpdatePersonality { text, base_sha256: None }.into())
}
