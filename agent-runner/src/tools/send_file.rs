//! `send_file`: a file of the workspace to the chat, by a request. The host copies it and answers; what it does not
//! take it says why.

use ipc_schema::letters::request::SendFile;
use serde_json::{Value, json};

/// The tool's name.
pub const NAME: &str = "send_file";
/// What the model is told of it.
pub const ABOUT: &str = "Sends one file below /workspace to the chat of this turn, now, in order with what you say there. It must be a regular file of at most 20 MiB, not a link. What it holds at the call is what is sent.";

/// Its arguments, as JSON Schema.
pub fn properties() -> Value {
    json!({
        "path": { "type": "string", "description": "below /workspace" },
        "caption": { "type": "string", "description": "Markdown below the file, at most 1,000 characters" },
        "name": { "type": "string", "description": "what it is called in the chat; the file's own name by default" },
    })
}

/// The request, if a letter can carry it.
///
/// # Errors
/// What to do about it.
pub fn checked(file: SendFile) -> Result<SendFile, String> {
    let texts = [Some(&file.path), file.caption.as_ref(), file.name.as_ref()];
    if texts
        .into_iter()
        .flatten()
        .any(|text| text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')))
    {
        return Err("an argument holds control characters; leave them out, rename the file if need be".into());
    }
    if file.caption.as_ref().is_some_and(|caption| caption.chars().count() > 1_000) {
        return Err("a caption has at most 1,000 characters; say the rest with send_message".into());
    }
    Ok(file)
}

/// What the host answered, for the model.
pub fn told(result: &Value) -> String {
    match result.get("bytes").and_then(Value::as_u64) {
        Some(bytes) => format!("sent, {bytes} bytes"),
        None => "sent".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_letter_carries_is_told_before_it_is_asked() {
        let file = |path: &str, caption: &str| {
            checked(SendFile { path: path.into(), caption: Some(caption.into()), name: None })
        };
        assert!(file("a b/ü.pdf", "one\ntwo").is_ok());
        assert!(file("a\u{1b}[31m", "").unwrap_err().contains("control"));
        assert!(file("a", &"x".repeat(1_001)).unwrap_err().contains("1,000"));
    }
}
