//! Translates a stream of chat completion chunks into events of the Messages wire.
//!
//! Texts and thoughts pass on as they come. Tool calls wait until the end of the answer: only then is it known which
//! pieces are one call. Meanwhile the box gets a `ping` for each piece, so that it does not take a long call for
//! silence.
//!
//! The message begins with the first part of an answer. Until then the gateway may repeat the attempt.

use std::cell::Cell;

use bytes::Bytes;
use ipc_schema::lenient_json::{Fields, TextJoin};
use ipc_schema::server_sent_events::EventParser;
use serde_json::{Value, json};

use super::error::ApiError;
use super::opaque::{Gathered, maker};
use super::openai_answer::{Calls, ChatUsage, Choice, Finish, Part, call_id, message_id};
use super::{refusal, write_events};

/// The most tool calls of one answer, and bytes of their arguments, that are kept until its end. The longest answers of
/// models are some hundred kilobytes; a server that sends without end is broken.
const CALLS_MAX: usize = 1_000;
const ARGUMENTS_MAX_BYTES: usize = 8 * 1024 * 1024;

/// The one open block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Nothing,
    Text,
    Thought,
}

pub(super) struct Translator {
    provider: String,
    model: String,
    sent: usize,
    parser: EventParser,
    out: Vec<u8>,
    begun: bool,
    done: bool,
    open: Open,
    blocks: usize,
    text: TextJoin,
    thought: TextJoin,
    calls: Calls,
    /// The answer comes in `delta`s. Then a `message` at the end repeats it.
    by_deltas: bool,
    /// The characters of the answer so far.
    answered: usize,
    opaque: Gathered,
    skipped: u64,
    finish: Option<Finish>,
    counted: Option<ChatUsage>,
}

impl Translator {
    /// For an answer of `provider`'s `model` to a request of `sent` characters.
    pub fn new(provider: &str, model: &str, sent: usize) -> Self {
        Self {
            provider: provider.to_owned(),
            model: model.to_owned(),
            sent,
            parser: EventParser::default(),
            out: Vec::new(),
            begun: false,
            done: false,
            open: Open::Nothing,
            blocks: 0,
            text: TextJoin::default(),
            thought: TextJoin::default(),
            calls: Calls::default(),
            by_deltas: false,
            answered: 0,
            opaque: Gathered::default(),
            skipped: 0,
            finish: None,
            counted: None,
        }
    }

    /// Translates the events that these bytes complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Bytes, ApiError> {
        let too_long = |_| ApiError::of_status(502, "an event of the stream is too long");
        for event in self.parser.feed(bytes).map_err(too_long)? {
            self.event(&event)?;
        }
        Ok(std::mem::take(&mut self.out).into())
    }

    /// Ends the message when the server has closed the stream. Without a reason to stop and without `[DONE]` the stream
    /// was cut, and no end is written.
    pub fn finish(&mut self) -> Result<Bytes, ApiError> {
        if let Some(event) = self.parser.finish() {
            self.event(&event)?;
        }
        if self.finish.is_some() {
            self.end()?;
        }
        Ok(std::mem::take(&mut self.out).into())
    }

    /// Whether the counts are estimates.
    pub fn estimated(&self) -> bool {
        ChatUsage::estimated(self.counted)
    }

    /// The characters of the answer so far, those included that the box has not received.
    pub fn answered(&self) -> usize {
        self.answered
    }

    /// How many elements of the stream could not be read.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    fn event(&mut self, event: &str) -> Result<(), ApiError> {
        let event = event.trim().trim_start_matches('\u{feff}');
        if self.done || event.is_empty() {
            return Ok(());
        }
        if event == "[DONE]" {
            if self.begun || self.finish.is_some() {
                self.end()?;
            }
            return Ok(());
        }
        let skipped = Cell::new(0);
        let chunk = Fields::read(event, &skipped);
        let read = chunk.map(|chunk| {
            let may_be_error = chunk.get("error").is_some() || chunk.get("choices").is_none();
            let error = may_be_error.then(|| refusal::in_answer(event.as_bytes())).flatten();
            (error, Choice::read(&chunk), ChatUsage::read(&chunk))
        });
        self.skipped += skipped.get();
        let Some((error, choice, counted)) = read else { return Ok(()) };
        if let Some(refusal) = error {
            return Err(refusal.error(format!("the provider reported an error: {}", refusal.said)));
        }
        self.counted = counted.or(self.counted);
        choice.map_or(Ok(()), |choice| self.choice(choice))
    }

    fn choice(&mut self, choice: Choice) -> Result<(), ApiError> {
        if choice.finish == Some(Finish::Broken) {
            return Err(ApiError::of_status(502, "the provider broke off its answer"));
        }
        self.finish = choice.finish.or(self.finish);
        self.by_deltas |= !choice.whole && !choice.parts.is_empty();
        if choice.whole && self.by_deltas {
            return Ok(());
        }
        for part in choice.parts {
            match part {
                Part::Text(piece) => {
                    let text = self.text.push(&piece);
                    self.pass_on(Open::Text, &text);
                }
                Part::Thought(piece) => {
                    let thought = self.thought.push(&piece);
                    self.pass_on(Open::Thought, &thought);
                }
                Part::Opaque(fields) => self.opaque.message(fields),
                Part::Call(piece) => {
                    self.answered += self.calls.take(piece);
                    self.begin();
                    self.write("ping", &json!({ "type": "ping" }));
                }
            }
        }
        if self.calls.len() > CALLS_MAX || self.calls.bytes > ARGUMENTS_MAX_BYTES {
            return Err(ApiError::of_status(502, "the answer calls tools without end"));
        }
        Ok(())
    }

    fn begin(&mut self) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let message = json!({
            "id": message_id(), "type": "message", "role": "assistant", "model": self.model, "content": [],
            "stop_reason": null, "stop_sequence": null, "usage": ChatUsage::of_messages(None, self.sent, 0),
        });
        self.write("message_start", &json!({ "type": "message_start", "message": message }));
    }

    fn pass_on(&mut self, kind: Open, text: &str) {
        if text.is_empty() {
            return;
        }
        self.answered += text.chars().count();
        if self.open != kind {
            self.begin();
            self.close();
            self.open = kind;
            self.start(&match kind {
                Open::Thought => json!({ "type": "thinking", "thinking": "", "signature": "" }),
                _ => json!({ "type": "text", "text": "" }),
            });
        }
        self.block_delta(&match kind {
            Open::Thought => json!({ "type": "thinking_delta", "thinking": text }),
            _ => json!({ "type": "text_delta", "text": text }),
        });
    }

    fn start(&mut self, block: &Value) {
        let start = json!({ "type": "content_block_start", "index": self.blocks, "content_block": block });
        self.write("content_block_start", &start);
    }

    fn block_delta(&mut self, delta: &Value) {
        let delta = json!({ "type": "content_block_delta", "index": self.blocks, "delta": delta });
        self.write("content_block_delta", &delta);
    }

    /// Closes the open block, if there is one.
    fn close(&mut self) {
        if std::mem::replace(&mut self.open, Open::Nothing) != Open::Nothing {
            self.stop();
        }
    }

    fn stop(&mut self) {
        self.write("content_block_stop", &json!({ "type": "content_block_stop", "index": self.blocks }));
        self.blocks += 1;
    }

    /// Ends the message. An answer that is empty because nothing in it could be read is none.
    fn end(&mut self) -> Result<(), ApiError> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(());
        }
        if !self.begun && self.skipped > 0 {
            return Err(ApiError::no_answer("nothing in the answer could be read"));
        }
        self.begin();
        self.close();
        let (calls, skipped) = std::mem::take(&mut self.calls).finish();
        self.skipped += skipped;
        let called = !calls.is_empty();
        for call in calls {
            let id = call_id();
            self.start(&json!({ "type": "tool_use", "id": id, "name": call.name, "input": {} }));
            self.opaque.call(&id, call.rest);
            if !call.arguments.is_empty() {
                self.block_delta(&json!({ "type": "input_json_delta", "partial_json": call.arguments }));
            }
            self.stop();
        }
        if let Some(block) = self.opaque.block(&maker(&self.provider, &self.model)) {
            self.start(&block);
            self.stop();
        }
        let reason = Finish::stop_reason(self.finish, called);
        let usage = ChatUsage::of_messages(self.counted, self.sent, self.answered);
        let end = json!({ "stop_reason": reason, "stop_sequence": null });
        self.write("message_delta", &json!({ "type": "message_delta", "delta": end, "usage": usage }));
        self.write("message_stop", &json!({ "type": "message_stop" }));
        Ok(())
    }

    fn write(&mut self, name: &str, data: &Value) {
        self.out.extend(write_events::event(name, data));
    }
}

#[cfg(test)]
mod tests;
