//! What a test of the host needs of the runner: the request that a transcript makes. Both sides write a part of what a
//! provider gets, so only a test of both can say that no transcript makes a request that it refuses.

use ipc_schema::letters::to_agent::Model;

use crate::model::request;
use crate::prompt::SystemPrompt;
use crate::transcript::{Entry, Omissions};

/// The request for `provider/model` after these lines of a transcript.
///
/// # Errors
/// When a line is no entry.
pub fn request_after(lines: &[String], provider: &str, model: &str) -> serde_json::Result<String> {
    let entries: Vec<Entry> =
        lines.iter().map(|line| Entry::parse(line.as_bytes())).collect::<Result<_, _>>()?;
    let model =
        Model { name: model.into(), provider: Some(provider.into()), max_tokens: 1_000, window: 100_000 };
    let system = SystemPrompt { stable: "who".into(), facts: "now".into() };
    let tools =
        serde_json::json!([{ "name": "ls", "description": "lists", "input_schema": { "type": "object" } }]);
    request::request(&model, &system, &tools, &entries, &Omissions::of(&entries))
}

/// What finds a memory, for the table of what it finds.
pub use crate::memory::index::{FileStamp, Hit, Index};
