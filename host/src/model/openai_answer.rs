//! Reads the answers of OpenAI-compatible servers: what one chunk of a stream or one whole completion holds.
//!
//! The servers speak dialects, so each field is read by itself ([`ipc_schema::lenient_json`]): what cannot be read is
//! left out and counted, and the text beside it is kept.

use std::cell::Cell;

use ipc_schema::lenient_json::{Fields, TextJoin, WireText, items, wire_text};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::opaque::{self, Gathered, maker};
use super::token_meter::estimate;

/// How deep the lists of a content may lie in each other.
const CONTENT_DEPTH: u32 = 4;

/// One part of an answer.
pub(super) enum Part {
    Text(WireText),
    Thought(WireText),
    Call(CallPiece),
    /// Fields that only the provider can read.
    Opaque(Map<String, Value>),
}

/// A tool call, or a piece of one.
#[derive(Default)]
pub(super) struct CallPiece {
    index: Option<u64>,
    id: Option<String>,
    name: Option<String>,
    arguments: WireText,
    /// Fields that only the provider can read.
    rest: Map<String, Value>,
}

/// Why the model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    Stop,
    Length,
    /// The provider's filter withheld the answer, or the rest of it.
    Filtered,
    /// The server broke off: what came is half an answer.
    Broken,
}

/// Token counts, as far as the server tells them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ChatUsage {
    input: Option<u64>,
    output: Option<u64>,
    cached: Option<u64>,
}

/// The first choice of a chunk or a completion.
pub(super) struct Choice {
    pub parts: Vec<Part>,
    pub finish: Option<Finish>,
    /// The parts come from `message`: they are a whole answer, or the repetition of one.
    pub whole: bool,
}

impl Choice {
    pub fn read(chunk: &Fields<'_>) -> Option<Self> {
        let json = chunk.items("choices").into_iter().next()?.get();
        let choice = chunk.nested(json)?;
        let delta = choice.object("delta");
        let whole = delta.is_none();
        let mut parts =
            delta.or_else(|| choice.object("message")).map_or_else(Vec::new, |body| parts(&body, whole));
        // Servers of plain completions have the text in the choice itself.
        let bare = choice.wire_text("text").filter(|_| parts.is_empty()).map(Part::Text);
        parts.extend(bare);
        Some(Self {
            parts,
            finish: choice.string("finish_reason").and_then(|told| Finish::read(&told)),
            whole,
        })
    }
}

impl Finish {
    /// Reads a reason to stop. An empty one is none.
    fn read(told: &str) -> Option<Self> {
        match told.trim().to_ascii_lowercase().as_str() {
            "" | "null" => None,
            "length"
            | "max_tokens"
            | "max_output_tokens"
            | "model_length"
            | "model_context_window_exceeded" => Some(Self::Length),
            "content_filter" | "sensitive" | "safety" | "recitation" | "prohibited_content" | "blocklist"
            | "refusal" => Some(Self::Filtered),
            "error"
            | "abort"
            | "aborted"
            | "cancelled"
            | "canceled"
            | "timeout"
            | "network_error"
            | "insufficient_system_resource"
            | "malformed_function_call" => Some(Self::Broken),
            _ => Some(Self::Stop),
        }
    }

    /// The reason to stop of the Messages wire. Some servers say `stop` after tool calls.
    pub fn stop_reason(finish: Option<Self>, calls: bool) -> &'static str {
        match finish {
            Some(Self::Length) => "max_tokens",
            Some(Self::Filtered) => "refusal",
            _ if calls => "tool_use",
            _ => "end_turn",
        }
    }
}

fn parts(body: &Fields<'_>, whole: bool) -> Vec<Part> {
    let mut parts = Vec::new();
    // The provider's own fields, its thoughts among them. They go back to it as they came.
    let opaque = body.others(&opaque::MESSAGE_FIELDS);
    if !opaque.is_empty() {
        parts.push(Part::Opaque(opaque));
    }
    if let Some(raw) = body.get("content") {
        content(body, raw, false, 0, &mut parts);
    }
    parts.extend(body.wire_text("refusal").map(Part::Text));
    for (position, raw) in body.items("tool_calls").into_iter().enumerate() {
        let Some(call) = body.nested(raw.get()) else { continue };
        let mut piece = CallPiece::read(&call);
        // In a whole answer, each element is a call of its own.
        piece.index = piece.index.or_else(|| u64::try_from(position).ok().filter(|_| whole));
        parts.push(Part::Call(piece));
    }
    // The form before `tool_calls`.
    if let Some(function) = body.object("function_call") {
        let mut piece = CallPiece::default();
        piece.function(&function);
        parts.push(Part::Call(piece));
    }
    parts
}

/// Reads a content: a text, a list of parts, or one part.
fn content(of: &Fields<'_>, raw: &RawValue, thought: bool, depth: u32, parts: &mut Vec<Part>) {
    match raw.get().as_bytes().first() {
        Some(b'"') => match wire_text(raw) {
            Some(text) if thought => parts.push(Part::Thought(text)),
            Some(text) => parts.push(Part::Text(text)),
            None => of.skip(),
        },
        Some(b'[') if depth < CONTENT_DEPTH => {
            for part in items(raw) {
                content(of, part, thought, depth + 1, parts);
            }
        }
        Some(b'{') if depth < CONTENT_DEPTH => {
            let Some(part) = of.nested(raw.get()) else { return };
            let kind = part.string("type").unwrap_or_default();
            let thought = thought || kind.contains("think") || kind.contains("reason");
            match ["thinking", "text", "content", "reasoning", "value"]
                .into_iter()
                .find_map(|name| part.get(name))
            {
                Some(body) => content(of, body, thought, depth + 1, parts),
                None => of.skip(),
            }
        }
        Some(b'n') => {}
        _ => of.skip(),
    }
}

impl CallPiece {
    fn read(call: &Fields<'_>) -> Self {
        let index = call.get("index").and_then(ipc_schema::lenient_json::count);
        let id = call.string("id").filter(|id| !id.is_empty());
        let mut piece = Self { index, id, rest: call.others(&opaque::CALL_FIELDS), ..Self::default() };
        piece.function(call.object("function").as_ref().unwrap_or(call));
        piece
    }

    fn function(&mut self, function: &Fields<'_>) {
        self.name = function.string("name").filter(|name| !name.is_empty());
        let arguments = function.get("arguments");
        self.arguments =
            arguments.map(|raw| wire_text(raw).unwrap_or_else(|| WireText::of_json(raw))).unwrap_or_default();
    }
}

impl ChatUsage {
    pub fn read(chunk: &Fields<'_>) -> Option<Self> {
        let usage = chunk.object("usage")?;
        let told = Self {
            input: usage.count("prompt_tokens"),
            output: usage.count("completion_tokens"),
            cached: usage.object("prompt_tokens_details").and_then(|details| details.count("cached_tokens")),
        };
        (told.input.is_some() || told.output.is_some()).then_some(told)
    }

    /// Whether a count is missing.
    pub fn estimated(counted: Option<Self>) -> bool {
        counted.is_none_or(|counted| counted.input.is_none() || counted.output.is_none())
    }

    /// Divides the counts as the Messages wire does. It estimates from characters what the server did not tell.
    pub fn of_messages(counted: Option<Self>, sent: usize, answered: usize) -> Value {
        let Self { input, output, cached } = counted.unwrap_or_default();
        let mut usage = json!({ "output_tokens": output.unwrap_or_else(|| estimate(answered)) });
        match input {
            Some(input) => {
                let cached = cached.unwrap_or(0);
                usage["input_tokens"] = json!(input.saturating_sub(cached));
                usage["cache_read_input_tokens"] = json!(cached);
            }
            None => usage["input_tokens"] = json!(estimate(sent)),
        }
        usage
    }
}

/// One tool call as it grows.
#[derive(Default)]
pub(super) struct Call {
    index: Option<u64>,
    id: Option<String>,
    pub name: String,
    pub arguments: String,
    /// Fields that only the provider can read.
    pub rest: Map<String, Value>,
    /// How many brackets of the arguments are open. When the last one closes, the arguments are whole.
    depth: u32,
    in_string: bool,
    escaped: bool,
    whole: bool,
}

/// The tool calls of one answer.
///
/// A call is known by its id, and without one by its index, and without both it is the last one. But some servers give
/// one id or one index to all calls. So a piece also begins a new call if it has another name, a name with another id,
/// or arguments after arguments that are whole. Nothing runs twice: a repetition of whole arguments adds nothing, and
/// of two calls with the same id, name and arguments one is kept.
#[derive(Default)]
pub(super) struct Calls {
    calls: Vec<Call>,
    join: TextJoin,
    /// What the calls took so far.
    pub bytes: usize,
    pub skipped: u64,
}

impl Calls {
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Takes a piece. Returns the length of its arguments in characters.
    pub fn take(&mut self, piece: CallPiece) -> usize {
        let text = self.join.push(&piece.arguments);
        self.bytes += text.len();
        let at = self.find(&piece);
        match at.and_then(|at| self.calls.get_mut(at)) {
            Some(call) if !call.is_other(&piece) => {
                let more = text.trim();
                if !call.whole || more.is_empty() {
                    self.skipped += u64::from(call.grow(&piece, &text));
                } else if call.arguments.trim() == "{}" && more.starts_with('{') && piece.name.is_none() {
                    // Some servers begin with empty arguments and then send the real ones.
                    call.arguments.clear();
                    call.whole = false;
                    self.skipped += u64::from(call.grow(&piece, &text));
                } else if more.starts_with('{') && more != call.arguments.trim() {
                    let (name, id) = (call.name.clone(), call.id.clone());
                    self.begin(
                        CallPiece { name: piece.name.or(Some(name)), id: piece.id.or(id), ..piece },
                        &text,
                    );
                } else if more != call.arguments.trim() {
                    self.skipped += 1;
                }
            }
            _ => self.begin(piece, &text),
        }
        text.chars().count()
    }

    /// The calls in their order.
    pub fn finish(self) -> (Vec<Call>, u64) {
        let (mut kept, mut skipped) = (Vec::<Call>::new(), self.skipped);
        for call in self.calls {
            // A call without a name is no call.
            let empty = call.name.is_empty();
            if empty || kept.iter().any(|earlier| earlier.is_same(&call)) {
                skipped += 1;
            } else {
                kept.push(call);
            }
        }
        (kept, skipped)
    }

    fn find(&self, piece: &CallPiece) -> Option<usize> {
        let last = |of: &dyn Fn(&Call) -> bool| self.calls.iter().rposition(of);
        let by_id = piece.id.as_ref().and_then(|id| last(&|call| call.id.as_ref() == Some(id)));
        let by_index = piece.index.and_then(|index| last(&|call| call.index == Some(index)));
        let begins = match piece.index {
            Some(_) => piece.id.is_some() || piece.name.is_some(),
            None => piece.id.is_some() && piece.name.is_some(),
        };
        by_id.or(by_index).or_else(|| self.calls.len().checked_sub(1).filter(|_| !begins))
    }

    fn begin(&mut self, piece: CallPiece, text: &str) {
        let mut call = Call::default();
        self.skipped += u64::from(call.grow(&piece, text));
        self.calls.push(call);
    }
}

impl Call {
    fn is_other(&self, piece: &CallPiece) -> bool {
        let Some(name) = &piece.name else { return false };
        let other_name = !self.name.is_empty() && *name != self.name;
        other_name || piece.id.is_some() && self.id.is_some() && piece.id != self.id
    }

    fn is_same(&self, other: &Self) -> bool {
        self.id.is_some()
            && self.id == other.id
            && self.name == other.name
            && self.arguments == other.arguments
    }

    /// Adds a piece. Returns whether something came after the arguments were whole.
    fn grow(&mut self, piece: &CallPiece, text: &str) -> bool {
        self.index = piece.index.or(self.index);
        if self.id.is_none() {
            self.id.clone_from(&piece.id);
        }
        if let Some(name) = &piece.name {
            self.name.clone_from(name);
        }
        opaque::join(&mut self.rest, piece.rest.clone(), &[]);
        let mut more = text.char_indices();
        while let Some((at, character)) = more.next().filter(|_| !self.whole) {
            self.read(character);
            if self.whole {
                let (arguments, rest) = text.split_at(at + character.len_utf8());
                self.arguments.push_str(arguments);
                return !rest.trim().is_empty();
            }
        }
        if !self.whole {
            self.arguments.push_str(text);
        }
        false
    }

    fn read(&mut self, character: char) {
        match character {
            _ if std::mem::take(&mut self.escaped) => {}
            '\\' if self.in_string => self.escaped = true,
            '"' => self.in_string = !self.in_string,
            '{' | '[' if !self.in_string => self.depth += 1,
            '}' | ']' if !self.in_string => {
                self.depth = self.depth.saturating_sub(1);
                self.whole = self.depth == 0;
            }
            _ => {}
        }
    }
}

/// Makes an id for a tool call. It replaces the provider's, because some servers start to count anew with every answer
/// and the transcript needs unique ids. It has 37 characters: OpenAI accepts 40.
pub(super) fn call_id() -> String {
    format!("call_{}", Uuid::now_v7().simple())
}

pub(super) fn message_id() -> String {
    format!("msg_{}", Uuid::now_v7().simple())
}

/// A completion, translated.
pub(super) struct Message {
    pub message: Value,
    /// Whether its counts are estimates.
    pub estimated: bool,
    /// What could not be read.
    pub skipped: u64,
}

/// Translates a completion into a message of the Messages wire. `None` if it holds no answer, or half of one.
pub(super) fn message(body: &str, provider: &str, model: &str, sent: usize) -> Option<Message> {
    let skipped = Cell::new(0);
    let completion = Fields::read(body.trim_start_matches('\u{feff}').trim(), &skipped)?;
    let Choice { parts, finish, .. } = Choice::read(&completion)?;
    let nothing = parts.is_empty() && (finish.is_none() || skipped.get() > 0);
    if finish == Some(Finish::Broken) || nothing {
        return None;
    }
    let (mut content, mut calls, mut answered) = (Vec::new(), Calls::default(), 0);
    let mut gathered = Gathered::default();
    let (mut text, mut thought) = (TextJoin::default(), TextJoin::default());
    for part in parts {
        match part {
            Part::Text(piece) => answered += add(&mut content, "text", &text.push(&piece)),
            Part::Thought(piece) => answered += add(&mut content, "thinking", &thought.push(&piece)),
            Part::Call(piece) => answered += calls.take(piece),
            Part::Opaque(fields) => gathered.message(fields),
        }
    }
    let (calls, unread) = calls.finish();
    let reason = Finish::stop_reason(finish, !calls.is_empty());
    for call in calls {
        let id = call_id();
        gathered.call(&id, call.rest);
        content.push(
            json!({ "type": "tool_use", "id": id, "name": call.name, "input": input(&call.arguments) }),
        );
    }
    content.extend(gathered.block(&maker(provider, model)));
    let usage = ChatUsage::read(&completion);
    let message = json!({
        "id": message_id(), "type": "message", "role": "assistant", "model": model, "content": content,
        "stop_reason": reason, "stop_sequence": null, "usage": ChatUsage::of_messages(usage, sent, answered),
    });
    Some(Message { message, estimated: ChatUsage::estimated(usage), skipped: skipped.get() + unread })
}

/// Adds to the last block, or begins one: a `text` or a `thinking`. Returns the length in characters.
fn add(content: &mut Vec<Value>, kind: &'static str, more: &str) -> usize {
    match content.last_mut().filter(|last| last["type"] == kind) {
        Some(last) => last[kind] = json!(last[kind].as_str().unwrap_or_default().to_owned() + more),
        None if more.is_empty() => {}
        None if kind == "text" => content.push(json!({ "type": "text", "text": more })),
        None => content.push(json!({ "type": "thinking", "thinking": more, "signature": "" })),
    }
    more.chars().count()
}

/// The arguments of a call. The tool receives arguments that are no JSON object as a text, and reports what it misses.
fn input(arguments: &str) -> Value {
    match serde_json::from_str(arguments) {
        Ok(Value::Object(object)) => Value::Object(object),
        _ if arguments.trim().is_empty() => json!({}),
        _ => json!({ "unreadable_arguments": arguments }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(body: &Value) -> Message {
        message(&body.to_string(), "p", "gpt", 400).unwrap()
    }

    #[test]
    fn a_whole_completion_becomes_a_message() {
        let call = json!({ "id": "1", "function": { "name": "ls", "arguments": "{\"a\":1}" } });
        let broken = json!({ "id": "1", "function": { "name": "ls", "arguments": "{\"a\"" } });
        let Message { message, estimated, .. } = translated(&json!({
            "choices": [{ "message": { "content": "so", "tool_calls": [call, broken] }, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": { "cached_tokens": 4 } },
        }));
        assert!(!estimated);
        assert_eq!(message["stop_reason"], "tool_use");
        assert_eq!(message["content"][0]["text"], "so");
        assert_eq!(message["content"][1]["input"], json!({ "a": 1 }));
        assert_eq!(message["content"][2]["input"], json!({ "unreadable_arguments": "{\"a\"" }));
        assert_ne!(message["content"][1]["id"], message["content"][2]["id"]);
        let usage = json!({ "input_tokens": 6, "output_tokens": 5, "cache_read_input_tokens": 4 });
        assert_eq!(message["usage"], usage);
    }

    #[test]
    fn counts_that_are_not_told_are_estimated() {
        let usages = [
            json!(null),
            json!({ "prompt_tokens": null, "completion_tokens": -1 }),
            json!([1]),
            json!({ "prompt_tokens": 1e300 }),
        ];
        for usage in usages {
            let Message { message, estimated, .. } = translated(
                &json!({ "choices": [{ "message": { "content": "eight ch" }, "finish_reason": "length" }], "usage": usage }),
            );
            assert!(estimated);
            assert_eq!(message["usage"], json!({ "input_tokens": 100, "output_tokens": 2 }));
            assert_eq!(message["stop_reason"], "max_tokens");
        }
        let half = json!({ "prompt_tokens": 10.0, "completion_tokens": null });
        let Message { message, estimated, .. } =
            translated(&json!({ "choices": [{ "message": { "content": "eight ch" } }], "usage": half }));
        assert!(estimated);
        assert_eq!(
            (&message["usage"]["input_tokens"], &message["usage"]["output_tokens"]),
            (&json!(10), &json!(2))
        );
    }

    #[test]
    fn thoughts_are_blocks_of_their_own() {
        let listed = json!([
            { "type": "thinking", "thinking": [{ "type": "text", "text": "a" }] },
            { "type": "text", "text": "so" },
            { "type": "image_url", "image_url": {} },
            null,
        ]);
        let body = json!({ "content": listed });
        let answer = translated(&json!({ "choices": [{ "message": body, "finish_reason": "stop" }] }));
        let blocks = json!([
            { "type": "thinking", "thinking": "a", "signature": "" }, { "type": "text", "text": "so" } ]);
        assert_eq!((&answer.message["content"], answer.skipped), (&blocks, 1));
        let body = json!({ "content": "so", "reasoning_content": "a" });
        let translated = translated(&json!({ "choices": [{ "message": body, "finish_reason": "stop" }] }));
        let opaque = &translated.message["content"][1];
        assert_eq!(opaque["message"], json!({ "reasoning_content": "a" }), "it goes back as it came");
    }

    #[test]
    fn a_text_is_found_where_servers_put_it_and_an_unreadable_answer_is_none() {
        let value = json!([{ "type": "text", "text": { "value": "so", "annotations": [] } }]);
        for choice in [
            json!({ "text": "so", "finish_reason": "stop" }),
            json!({ "message": { "content": value }, "finish_reason": "stop" }),
        ] {
            let answer = translated(&json!({ "choices": [choice] }));
            assert_eq!(answer.message["content"], json!([{ "type": "text", "text": "so" }]), "{choice}");
        }
        let unread = json!({ "choices": [{ "message": { "content": [7] }, "finish_reason": "stop" }] });
        assert!(message(&unread.to_string(), "p", "gpt", 0).is_none());
        let empty = json!({ "choices": [{ "message": { "content": "" }, "finish_reason": "stop" }] });
        assert_eq!(translated(&empty).message["content"], json!([]), "nothing to say");
    }

    #[test]
    fn half_an_answer_is_none() {
        for (content, reason) in [(json!("half"), "error"), (Value::Null, ""), (json!("half"), "ABORT")] {
            let body = json!({ "choices": [{ "message": { "content": content }, "finish_reason": reason }] });
            assert!(message(&body.to_string(), "p", "gpt", 0).is_none(), "{body}");
        }
        for body in ["", "{}", "[]", r#"{"choices":[]}"#, r#"{"choices":[7]}"#, "<html>"] {
            assert!(message(body, "p", "gpt", 0).is_none(), "{body}");
        }
    }

    #[test]
    fn a_content_of_lists_in_lists_ends_early() {
        let body = format!(
            r#"{{"choices":[{{"message":{{"content":{}{}}}}}]}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        let _ = message(&body, "p", "gpt", 0);
    }
}
