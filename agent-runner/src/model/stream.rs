//! Assembles one streamed answer from its events ("Streaming Messages" in Anthropic's API reference).
//! [`super::gateway_client`] feeds it.
//!
//! A block's fields stay raw JSON; only fields that arrive in pieces (text, thinking, signature, arguments,
//! citations) are joined.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{Answer, CallError, Draft, error_codes};
use crate::transcript::{Assistant, Block, Usage};

/// The answer so far.
#[derive(Debug, Default)]
pub struct Assembly {
    open: BTreeMap<u32, Open>,
    done: BTreeMap<u32, Block>,
    bad_inputs: BTreeMap<u32, String>,
    stop_reason: Option<String>,
    usage: Usage,
}

#[derive(Debug, Default)]
struct Open {
    fields: BTreeMap<String, Box<RawValue>>,
    text: Option<String>,
    thinking: Option<String>,
    signature: Option<String>,
    input: String,
    citations: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct EventIn<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    index: u32,
    #[serde(borrow, default)]
    content_block: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    thinking: Option<String>,
    #[serde(default)]
    signature: Option<String>,
    #[serde(default)]
    partial_json: Option<String>,
    #[serde(borrow, default)]
    citation: Option<&'a RawValue>,
    #[serde(default)]
    stop_reason: Option<String>,
}

#[derive(Deserialize)]
struct MessageStart {
    #[serde(default)]
    usage: UsageIn,
}

/// The counts of one event. Missing ones keep their value from an earlier event.
#[derive(Default, Deserialize)]
struct UsageIn {
    #[serde(default)]
    input_tokens: Option<u64>,
    #[serde(default)]
    output_tokens: Option<u64>,
    #[serde(default)]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default)]
    cache_read_input_tokens: Option<u64>,
}

impl Assembly {
    /// Takes one event's data. Returns the answer when the event is `message_stop`.
    ///
    /// # Errors
    /// [`CallError::Cut`] for what is not this wire, [`CallError::Failed`] or `Cut` for an `error` event.
    pub fn event(&mut self, data: &str, draft: &Draft) -> Result<Option<Answer>, CallError> {
        let event: EventIn<'_> = read(data)?;
        match event.kind.as_str() {
            "message_start" => {
                if let Some(message) = event.message {
                    self.count(read::<MessageStart>(message.get())?.usage);
                }
            }
            "content_block_start" => self.start(event.index, event.content_block)?,
            "content_block_delta" => self.delta(event.index, event.delta, draft)?,
            "content_block_stop" => self.stop(event.index)?,
            "message_delta" => {
                if let Some(delta) = event.delta {
                    let delta: Delta<'_> = read(delta.get())?;
                    self.stop_reason = delta.stop_reason.or(self.stop_reason.take());
                }
                if let Some(usage) = event.usage {
                    self.count(read(usage.get())?);
                }
            }
            "message_stop" => return self.finish().map(Some),
            "error" => return Err(error_codes::in_stream(event.error.map_or("", RawValue::get))),
            // `ping` and future events: the API's versioning rules say to ignore unknown events.
            _ => {}
        }
        Ok(None)
    }

    fn count(&mut self, seen: UsageIn) {
        let usage = &mut self.usage;
        usage.input_tokens = seen.input_tokens.unwrap_or(usage.input_tokens);
        usage.output_tokens = seen.output_tokens.unwrap_or(usage.output_tokens);
        usage.cache_creation_input_tokens =
            seen.cache_creation_input_tokens.unwrap_or(usage.cache_creation_input_tokens);
        usage.cache_read_input_tokens = seen.cache_read_input_tokens.unwrap_or(usage.cache_read_input_tokens);
    }

    fn start(&mut self, index: u32, block: Option<&RawValue>) -> Result<(), CallError> {
        let block = block.ok_or_else(|| garbage("a block starts without content"))?;
        let fields = read(block.get())?;
        if self.done.contains_key(&index)
            || self.open.insert(index, Open { fields, ..Open::default() }).is_some()
        {
            return Err(garbage("a block starts twice"));
        }
        Ok(())
    }

    fn delta(&mut self, index: u32, delta: Option<&RawValue>, draft: &Draft) -> Result<(), CallError> {
        let open = self.open.get_mut(&index).ok_or_else(|| garbage("a delta belongs to no block"))?;
        let Some(delta) = delta else { return Ok(()) };
        let delta: Delta<'_> = read(delta.get())?;
        match delta.kind.as_deref() {
            Some("text_delta") => {
                let more = delta.text.unwrap_or_default();
                draft.push(&more);
                open.joined("text")?.push_str(&more);
            }
            Some("thinking_delta") => {
                open.joined("thinking")?.push_str(&delta.thinking.unwrap_or_default());
            }
            Some("signature_delta") => {
                open.joined("signature")?.push_str(&delta.signature.unwrap_or_default());
            }
            Some("input_json_delta") => open.input.push_str(&delta.partial_json.unwrap_or_default()),
            Some("citations_delta") => open.citations.extend(delta.citation.map(ToOwned::to_owned)),
            _ => {}
        }
        Ok(())
    }

    fn stop(&mut self, index: u32) -> Result<(), CallError> {
        let open = self.open.remove(&index).ok_or_else(|| garbage("a block ends that never began"))?;
        let (block, bad_input) = open.close()?;
        self.bad_inputs.extend(bad_input.map(|why| (index, why)));
        self.done.insert(index, block);
        Ok(())
    }

    /// Refuses an answer with a block that never ended.
    fn finish(&mut self) -> Result<Answer, CallError> {
        let contiguous = self.done.keys().copied().eq(0..self.done.len() as u32);
        if !contiguous || !self.open.is_empty() {
            return Err(garbage("the answer ends in the middle of a block"));
        }
        Ok(Assistant {
            blocks: std::mem::take(&mut self.done).into_values().collect(),
            stop_reason: self.stop_reason.take(),
            usage: self.usage,
            model: None,
            bad_inputs: std::mem::take(&mut self.bad_inputs),
        })
    }
}

impl Open {
    /// The joined text of a field that arrives in pieces, including what the block started with.
    fn joined(&mut self, field: &'static str) -> Result<&mut String, CallError> {
        let slot = match field {
            "text" => &mut self.text,
            "thinking" => &mut self.thinking,
            _ => &mut self.signature,
        };
        if slot.is_none() {
            let start = self.fields.get(field).map_or("\"\"", |raw| raw.get());
            *slot = Some(read::<Option<String>>(start)?.unwrap_or_default());
        }
        Ok(slot.get_or_insert_default())
    }

    /// The complete block, and the parse error of its arguments if they are no JSON object.
    fn close(mut self) -> Result<(Block, Option<String>), CallError> {
        let mut bad_input = None;
        let is_call = self.fields.get("type").is_some_and(|kind| kind.get() == "\"tool_use\"");
        if is_call || !self.input.is_empty() {
            let (input, problem) = arguments(&self.input, self.fields.get("input").map(|raw| raw.get()))?;
            self.fields.insert("input".into(), input);
            bad_input = problem;
        }
        for (field, joined) in
            [("text", &self.text), ("thinking", &self.thinking), ("signature", &self.signature)]
        {
            if let Some(joined) = joined {
                self.fields.insert(field.into(), raw(to_raw_value(joined))?);
            }
        }
        if !self.citations.is_empty() {
            self.fields.insert("citations".into(), raw(to_raw_value(&self.citations))?);
        }
        let json = serde_json::to_string(&self.fields).map_err(|e| garbage(&e.to_string()))?;
        Ok((Block::new(&json).map_err(|e| garbage(&e.to_string()))?, bad_input))
    }
}

/// The arguments of a call, and why they are no JSON object. The API defines them as an object, and would refuse
/// anything else in the next request. `joined` came in pieces, `given` with the start of the block; some servers send
/// the object as a text.
fn arguments(joined: &str, given: Option<&str>) -> Result<(Box<RawValue>, Option<String>), CallError> {
    let given = given.unwrap_or_default();
    let text = if joined.is_empty() {
        serde_json::from_str(given).unwrap_or_else(|_| given.to_owned())
    } else {
        joined.to_owned()
    };
    let empty = || raw(to_raw_value(&serde_json::Map::new()));
    if matches!(text.trim(), "" | "null") {
        return Ok((empty()?, None));
    }
    match serde_json::from_str::<BTreeMap<String, &RawValue>>(&text) {
        Ok(_) => Ok((raw(RawValue::from_string(text))?, None)),
        Err(error) => Ok((empty()?, Some(error.to_string()))),
    }
}

fn raw(made: serde_json::Result<Box<RawValue>>) -> Result<Box<RawValue>, CallError> {
    made.map_err(|e| garbage(&e.to_string()))
}

fn read<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, CallError> {
    serde_json::from_str(json).map_err(|e| garbage(&e.to_string()))
}

fn garbage(why: &str) -> CallError {
    CallError::Cut { reason: format!("the model's answer is not understood: {why}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc_schema::server_sent_events::EventParser;

    const STREAM: &str = concat!(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"usage\":{\"input_tokens\":9,\"cache_read_input_tokens\":100,\"output_tokens\":1}}}\n\n",
        "data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}}\n\n",
        "data: {\"type\":\"ping\"}\n\n",
        "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"hm \\u00e4\"}}\n\n",
        "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"signature_delta\",\"signature\":\"c2ln\"}}\n\n",
        "data: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
        "data: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"text\",\"text\":\"\",\"novel\":1.0}}\n\n",
        "data: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hel\"}}\n\n",
        "data: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"text_delta\",\"text\":\"lo\"}}\n\n",
        "data: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"citations_delta\",\"citation\":{\"a\":1}}}\n\n",
        "data: {\"type\":\"content_block_stop\",\"index\":1}\n\n",
        "data: {\"type\":\"content_block_start\",\"index\":2,\"content_block\":{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"run_command\",\"input\":{}}}\n\n",
        "data: {\"type\":\"content_block_delta\",\"index\":2,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"\"}}\n\n",
        "data: {\"type\":\"content_block_delta\",\"index\":2,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"command\\\": \\\"l\"}}\n\n",
        "data: {\"type\":\"content_block_delta\",\"index\":2,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"s\\\"}\"}}\n\n",
        "data: {\"type\":\"content_block_stop\",\"index\":2}\n\n",
        "data: {\"type\":\"something_new\",\"x\":[1]}\n\n",
        "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":42}}\n\n",
        "data: {\"type\":\"message_stop\"}\n\n",
    );

    fn assemble(chunks: &[&[u8]]) -> Result<Option<Answer>, CallError> {
        let (mut parser, mut assembly, draft) =
            (EventParser::default(), Assembly::default(), Draft::default());
        for chunk in chunks {
            for event in parser.feed(chunk).unwrap() {
                if let Some(answer) = assembly.event(&event, &draft)? {
                    return Ok(Some(answer));
                }
            }
        }
        Ok(None)
    }

    #[test]
    fn an_answer_is_the_same_wherever_it_is_split() {
        let stream = STREAM.as_bytes();
        let blocks =
            |answer: &Answer| answer.blocks.iter().map(|b| b.raw().get().to_owned()).collect::<Vec<_>>();
        let whole = assemble(&[stream]).unwrap().unwrap();
        assert_eq!(
            blocks(&whole),
            [
                r#"{"signature":"c2ln","thinking":"hm ä","type":"thinking"}"#,
                r#"{"citations":[{"a":1}],"novel":1.0,"text":"Hello","type":"text"}"#,
                r#"{"id":"toolu_1","input":{"command": "ls"},"name":"run_command","type":"tool_use"}"#,
            ]
        );
        assert_eq!(whole.stop_reason.as_deref(), Some("tool_use"));
        assert_eq!(whole.usage.read(), 109);
        assert_eq!(whole.usage.output_tokens, 42);
        for at in 0..=stream.len() {
            let (a, b) = stream.split_at(at);
            assert_eq!(blocks(&assemble(&[a, b]).unwrap().unwrap()), blocks(&whole), "split at {at}");
        }
    }

    #[test]
    fn a_stream_that_ends_early_is_no_answer() {
        let stream = STREAM.as_bytes();
        for at in 0..stream.len() - 1 {
            assert!(assemble(&[&stream[..at]]).unwrap().is_none(), "cut at {at}");
        }
    }

    #[test]
    fn arguments_that_are_no_object_are_kept_out_and_named() {
        for arguments in ["{\\\"command\\\": \\\"l", "[1]", "7"] {
            let stream = STREAM
                .replace("{\\\"command\\\": \\\"l\"", &format!("{arguments}\""))
                .replace("\"s\\\"}\"", "\"\"");
            let answer = assemble(&[stream.as_bytes()]).unwrap().unwrap();
            assert!(answer.bad_inputs.contains_key(&2), "{arguments}");
            assert!(answer.blocks[2].raw().get().contains(r#""input":{}"#));
        }
    }

    #[test]
    fn an_error_in_the_stream_is_not_an_answer() {
        let overloaded =
            "data: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"}}\n\n";
        assert!(matches!(assemble(&[overloaded.as_bytes()]), Err(CallError::Cut { .. })));
        let refused = overloaded.replace("overloaded_error", "invalid_request_error");
        assert!(
            matches!(assemble(&[refused.as_bytes()]), Err(CallError::Failed(e)) if e.trouble.code == "model.invalid_request")
        );
    }

    #[test]
    fn arguments_are_an_object_or_none_and_the_reason() {
        for (given, kept, is_bad) in [
            ("null", "{}", false),
            ("\"\"", "{}", false),
            ("{}", "{}", false),
            (r#"{"a":1.50}"#, r#"{"a":1.50}"#, false),
            (r#""{\"a\":1}""#, r#"{"a":1}"#, false),
            ("[1]", "{}", true),
            ("7", "{}", true),
        ] {
            let (input, problem) = arguments("", Some(given)).unwrap();
            assert_eq!((input.get(), problem.is_some()), (kept, is_bad), "{given}");
        }
        assert_eq!(arguments("", None).unwrap().0.get(), "{}");
    }

    #[test]
    fn nonsense_is_a_cut_answer() {
        for nonsense in [
            "data: {\n\n",
            "data: {\"type\":\"content_block_delta\",\"index\":4,\"delta\":{}}\n\n",
            "data: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
            "data: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"text\"}}\n\ndata: {\"type\":\"message_stop\"}\n\n",
        ] {
            assert!(matches!(assemble(&[nonsense.as_bytes()]), Err(CallError::Cut { .. })), "{nonsense}");
        }
    }
}
