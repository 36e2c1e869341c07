//! Assembles one streamed answer from its events ("Streaming Messages" in Anthropic's API reference).
//! [`super::gateway_client`] feeds it.
//!
//! A block's fields stay raw JSON; only fields that arrive in pieces (text, thinking, signature, arguments,
//! citations) are joined. Each field is read by itself: what cannot be read is left out and counted, and only a stream
//! without any answer is an error.

use std::cell::Cell;
use std::collections::BTreeMap;

use ipc_schema::lenient_json::{Fields, TextJoin, WireText};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use super::{Answer, CallError, Draft, error_codes, thought_tags};
use crate::transcript::{Assistant, Block, Usage};

/// The answer so far.
#[derive(Debug, Default)]
pub struct Assembly {
    /// In the order in which the blocks began.
    blocks: Vec<Part>,
    stop_reason: Option<String>,
    usage: Usage,
    skipped: u64,
}

/// A block. Its index says which open block a delta belongs to: some servers give every block the same one.
#[derive(Debug)]
struct Part {
    index: Option<u64>,
    state: State,
}

#[derive(Debug)]
enum State {
    Open(Box<Open>),
    Done(Closed),
}

#[derive(Debug)]
struct Closed {
    block: Block,
    /// What the model thought in tags before the text of this block.
    thought: Option<Block>,
    /// The parse error of a call's arguments that are no JSON object.
    bad_input: Option<String>,
}

#[derive(Debug, Default)]
struct Open {
    fields: BTreeMap<String, Box<RawValue>>,
    text: Option<String>,
    thinking: Option<String>,
    signature: Option<String>,
    input: String,
    citations: Vec<Box<RawValue>>,
    join: TextJoin,
}

impl Assembly {
    /// Takes one event's data. Returns the answer when the event is `message_stop`.
    ///
    /// # Errors
    /// [`CallError::Failed`] or [`CallError::Cut`] for an `error` event, `Cut` for an answer that is none.
    pub fn event(&mut self, data: &str, draft: &Draft) -> Result<Option<Answer>, CallError> {
        let skipped = Cell::new(0);
        let taken = match Fields::read(data, &skipped) {
            _ if data.trim().is_empty() => return Ok(None),
            Some(event) => self.take(&event, draft),
            None => Ok(None),
        };
        self.skipped += skipped.get();
        taken
    }

    fn take(&mut self, event: &Fields<'_>, draft: &Draft) -> Result<Option<Answer>, CallError> {
        match event.string("type").as_deref() {
            Some("message_start") => {
                if let Some(usage) = event.object("message").and_then(|message| message.object("usage")) {
                    self.count(&usage);
                }
            }
            Some("content_block_start") => self.start(event)?,
            Some("content_block_delta") => self.delta(event, draft)?,
            Some("content_block_stop") => match self.open_block(event.count("index")) {
                Some(part) => part.close()?,
                None => event.skip(),
            },
            Some("message_delta") => {
                let told = event.object("delta").and_then(|delta| delta.string("stop_reason"));
                self.stop_reason = told.filter(|reason| !reason.is_empty()).or(self.stop_reason.take());
                if let Some(usage) = event.object("usage") {
                    self.count(&usage);
                }
            }
            Some("message_stop") => return self.finish().map(Some),
            Some("error") => {
                return Err(error_codes::in_stream(event.get("error").map_or("", RawValue::get)));
            }
            // `ping` and future events: the API's versioning rules say to ignore unknown events.
            _ => {}
        }
        Ok(None)
    }

    /// Missing counts keep their value from an earlier event.
    fn count(&mut self, seen: &Fields<'_>) {
        let usage = &mut self.usage;
        for (name, count) in [
            ("input_tokens", &mut usage.input_tokens),
            ("output_tokens", &mut usage.output_tokens),
            ("cache_creation_input_tokens", &mut usage.cache_creation_input_tokens),
            ("cache_read_input_tokens", &mut usage.cache_read_input_tokens),
        ] {
            *count = seen.count(name).unwrap_or(*count);
        }
    }

    /// The open block of this index; without an index, the last open one.
    fn open_block(&mut self, index: Option<u64>) -> Option<&mut Part> {
        let of_index = |part: &&mut Part| index.is_none() || part.index.is_none() || part.index == index;
        self.blocks.iter_mut().rev().filter(|part| matches!(part.state, State::Open(_))).find(of_index)
    }

    fn start(&mut self, event: &Fields<'_>) -> Result<(), CallError> {
        let index = event.count("index");
        // A server that gives every block one index, and forgets where the one before ends.
        if let Some(before) = self.open_block(index).filter(|before| before.index == index) {
            before.close()?;
        }
        match event.get("content_block").and_then(|block| serde_json::from_str(block.get()).ok()) {
            Some(fields) => self.blocks.push(Part::of(index, fields)),
            None => event.skip(),
        }
        Ok(())
    }

    fn delta(&mut self, event: &Fields<'_>, draft: &Draft) -> Result<(), CallError> {
        let index = event.count("index");
        let Some(delta) = event.object("delta") else { return Ok(()) };
        let kind = delta.string("type").unwrap_or_default();
        let whose = match kind.as_str() {
            "text_delta" => Some("text"),
            "thinking_delta" => Some("thinking"),
            _ => None,
        };
        // The beginning of a text or a thought may be what could not be read.
        if let Some(whose) = whose.filter(|_| self.open_block(index).is_none()) {
            let fields = BTreeMap::from([("type".to_owned(), raw(to_raw_value(whose))?)]);
            self.blocks.push(Part::of(index, fields));
        }
        let open = self.open_block(index).and_then(|part| match &mut part.state {
            State::Open(open) => Some(open),
            State::Done(_) => None,
        });
        let Some(open) = open else {
            delta.skip();
            return Ok(());
        };
        let mut piece = |name| open.join.push(&delta.wire_text(name).unwrap_or_default());
        match kind.as_str() {
            "text_delta" => {
                let more = piece("text");
                draft.push(&more);
                open.joined("text").push_str(&more);
            }
            "thinking_delta" => {
                let more = piece("thinking");
                open.joined("thinking").push_str(&more);
            }
            "signature_delta" => {
                let more = piece("signature");
                open.joined("signature").push_str(&more);
            }
            "input_json_delta" => {
                let raw = delta.get("partial_json").filter(|raw| !raw.get().starts_with('"'));
                let more = match raw {
                    Some(object) => open.join.push(&WireText::of_json(object)),
                    None => piece("partial_json"),
                };
                open.input.push_str(&more);
            }
            "citations_delta" => open.citations.extend(delta.get("citation").map(ToOwned::to_owned)),
            _ => {}
        }
        Ok(())
    }

    /// The end of the message ends every block. Of two calls with the same id, name and arguments one is kept.
    fn finish(&mut self) -> Result<Answer, CallError> {
        let (mut blocks, mut bad_inputs) = (Vec::<Block>::new(), BTreeMap::new());
        for mut part in std::mem::take(&mut self.blocks) {
            part.close()?;
            let State::Done(Closed { block, thought, bad_input }) = part.state else { continue };
            let only_thought = thought.is_some() && block.text().is_some_and(|text| text.is_empty());
            blocks.extend(thought);
            if only_thought {
                continue;
            }
            if block.is_tool_use() && blocks.iter().any(|earlier| earlier.raw().get() == block.raw().get()) {
                self.skipped += 1;
                continue;
            }
            bad_inputs.extend(bad_input.map(|why| (blocks.len() as u32, why)));
            blocks.push(block);
        }
        if self.skipped > 0 {
            tracing::warn!(skipped = self.skipped, "elements of the model's answer could not be read");
        }
        if blocks.is_empty() && self.stop_reason.is_none() {
            return Err(garbage("it holds nothing"));
        }
        let stop_reason = self.stop_reason.take();
        Ok(Assistant { blocks, stop_reason, usage: self.usage, model: None, bad_inputs })
    }
}

impl Part {
    fn of(index: Option<u64>, fields: BTreeMap<String, Box<RawValue>>) -> Self {
        Self { index, state: State::Open(Box::new(Open { fields, ..Open::default() })) }
    }

    fn close(&mut self) -> Result<(), CallError> {
        if let State::Open(open) = &mut self.state {
            self.state = State::Done(std::mem::take(&mut **open).close()?);
        }
        Ok(())
    }
}

impl Open {
    /// The joined text of a field that arrives in pieces, including what the block started with.
    fn joined(&mut self, field: &'static str) -> &mut String {
        let slot = match field {
            "text" => &mut self.text,
            "thinking" => &mut self.thinking,
            _ => &mut self.signature,
        };
        slot.get_or_insert_with(|| {
            let start = self.fields.get(field);
            start.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
        })
    }

    fn close(mut self) -> Result<Closed, CallError> {
        let (mut bad_input, mut thought) = (None, None);
        if self.fields.get("type").is_some_and(|kind| kind.get() == "\"text\"") {
            let (thoughts, words) = thought_tags::separate(self.joined("text"));
            if !thoughts.is_empty() {
                let block = json!({ "type": "thinking", "thinking": thoughts, "signature": "" });
                thought = Some(made(&block.to_string())?);
            }
            let words = words.to_owned();
            self.text = Some(words);
        }
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
        Ok(Closed { block: made(&json)?, thought, bad_input })
    }
}

fn made(json: &str) -> Result<Block, CallError> {
    Block::new(json).map_err(|e| garbage(&e.to_string()))
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
    fn one_odd_event_costs_itself_alone() {
        let odd = [
            "data: \n\n",
            "data: {\n\n",
            "data: {\"type\":\"content_block_stop\",\"index\":9}\n\n",
            "data: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"input_tokens\":null,\"output_tokens\":-1}}\n\n",
            "data: {\"type\":7}\n\n",
        ];
        let whole = assemble(&[STREAM.as_bytes()]).unwrap().unwrap();
        for odd in odd {
            let stream = STREAM.replace("data: {\"type\":\"ping\"}\n\n", odd);
            let answer = assemble(&[stream.as_bytes()]).unwrap().unwrap();
            assert_eq!(format!("{:?}", answer.blocks), format!("{:?}", whole.blocks), "{odd}");
            assert_eq!((answer.usage.read(), answer.usage.output_tokens), (109, 42), "{odd}");
        }
    }

    #[test]
    fn blocks_of_one_index_or_none_and_blocks_without_an_end_are_read() {
        let block = |kind: &str, delta: &str, more: &str, index: &str| {
            format!(
                "data: {{\"type\":\"content_block_start\"{index},\"content_block\":{{\"type\":\"{kind}\"}}}}\n\n\
                 data: {{\"type\":\"content_block_delta\"{index},\"delta\":{{\"type\":\"{delta}\",\"{kind}\":\"{more}\"}}}}\n\n"
            )
        };
        for index in ["", ",\"index\":0", ",\"index\":\"0\"", ",\"index\":-1"] {
            let stream = [
                block("thinking", "thinking_delta", "hm", index),
                block("text", "text_delta", "Hi \\ud83d", index),
                format!(
                    "data: {{\"type\":\"content_block_delta\"{index},\"delta\":{{\"type\":\"text_delta\",\"text\":\"\\ude00\"}}}}\n\n"
                ),
                "data: {\"type\":\"message_stop\"}\n\n".to_owned(),
            ];
            let answer = assemble(&[stream.concat().as_bytes()]).unwrap().unwrap();
            let texts: Vec<_> = answer.blocks.iter().map(|block| block.text()).collect();
            assert_eq!(texts, [None, Some("Hi \u{1f600}".to_owned())], "{index}");
        }
    }

    #[test]
    fn a_call_that_comes_twice_is_one_call() {
        let (head, rest) = STREAM.split_once("data: {\"type\":\"content_block_start\",\"index\":2").unwrap();
        let (call, end) = rest.split_once("data: {\"type\":\"something_new\"").unwrap();
        let start = "data: {\"type\":\"content_block_start\",\"index\":2";
        let again = format!("{head}{start}{call}{start}{call}data: {{\"type\":\"something_new\"{end}");
        assert_eq!(assemble(&[again.as_bytes()]).unwrap().unwrap().blocks.len(), 3);
    }

    #[test]
    fn thoughts_in_tags_are_blocks_of_their_own_wherever_the_stream_is_cut() {
        let text = |piece: &str| {
            let delta = serde_json::json!({ "type": "text_delta", "text": piece });
            format!(
                "data: {}\n\n",
                serde_json::json!({ "type": "content_block_delta", "index": 0, "delta": delta })
            )
        };
        let thought = r#"{"signature":"","thinking":"hm\n","type":"thinking"}"#;
        let words = r#"{"text":"Hello!","type":"text"}"#;
        for (answer, expected) in [
            ("<think>hm\n</think>\n\nHello!", vec![thought, words]),
            ("hm\n</think>\n\nHello!", vec![thought, words]),
            ("<think>hm\n", vec![thought]),
            ("Hello!", vec![words]),
        ] {
            for at in 0..answer.len() {
                let stream =
                    [&text(&answer[..at]), &text(&answer[at..]), "data: {\"type\":\"message_stop\"}\n\n"]
                        .concat();
                let blocks = assemble(&[stream.as_bytes()]).unwrap().unwrap().blocks;
                let blocks: Vec<_> = blocks.iter().map(|block| block.raw().get().to_owned()).collect();
                assert_eq!(blocks, expected, "{answer:?} cut at {at}");
            }
        }
    }

    #[test]
    fn a_stream_without_any_answer_is_a_cut_answer() {
        for nothing in [
            "data: {\"type\":\"message_stop\"}\n\n",
            "data: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":7}\n\ndata: {\"type\":\"message_stop\"}\n\n",
        ] {
            assert!(matches!(assemble(&[nothing.as_bytes()]), Err(CallError::Cut { .. })), "{nothing}");
        }
    }
}
