//! What the fuzz targets do to what the model's side sends, and what must hold of it.

use ipc_schema::server_sent_events::EventParser;

use super::error_codes;
use super::stream::Assembly;
use super::{Answer, CallError, Draft};

/// A stream gives the same answer however the network cuts it (the first byte says how many bytes at a time), and what
/// is kept of it is JSON that the transcript can hold in one line.
pub fn answer_stream(data: &[u8]) {
    let (step, bytes) =
        data.split_first().map_or((1, data), |(step, rest)| (usize::from(*step).max(1), rest));
    let whole = answer(std::iter::once(bytes));
    let cut = answer(bytes.chunks(step));
    assert_eq!(blocks(&whole), blocks(&cut));
    for block in blocks(&whole).into_iter().flatten() {
        assert!(!block.contains('\n'), "{block}");
        assert!(serde_json::from_str::<serde_json::Value>(&block).is_ok(), "{block}");
    }
}

fn answer<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Option<Answer>, CallError> {
    let (mut parser, mut assembly, draft) = (EventParser::default(), Assembly::default(), Draft::default());
    for piece in pieces {
        for event in parser.feed(piece).unwrap_or_default() {
            if let Some(answer) = assembly.event(&event, &draft)? {
                return Ok(Some(answer));
            }
        }
    }
    Ok(None)
}

fn blocks(answer: &Result<Option<Answer>, CallError>) -> Option<Vec<String>> {
    let answer = answer.as_ref().ok()?.as_ref()?;
    let _ = answer.usage.read();
    Some(answer.blocks.iter().map(|block| block.raw().get().to_owned()).collect())
}

/// An error has a code whatever its body says.
pub fn model_error(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for status in [400, 401, 413, 429, 500, 529] {
        let CallError::Failed(failure) = error_codes::of_status(status, &text) else {
            panic!("{status} passes")
        };
        assert!(failure.trouble.code.starts_with("model."));
    }
    let _ = error_codes::in_stream(&text);
}
