//! Counting what one call used.

use std::time::Duration;

use ipc_schema::{GroupName, RunId, TurnId};
use serde::Deserialize;

use super::{price, sse};

/// One model call, as it is booked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The run that called.
    pub run: RunId,
    /// Its group.
    pub group: GroupName,
    /// The turn that was open when the call began, if one was.
    pub turn: Option<TurnId>,
    /// The provider that answered, or was tried last.
    pub provider: String,
    /// The model that answered, or was tried last.
    pub model: String,
    /// Input tokens that were neither read from nor written to the provider's cache.
    pub input: u64,
    /// Output tokens.
    pub output: u64,
    /// Input tokens read from the cache.
    pub cache_read: u64,
    /// Input tokens written to the cache.
    pub cache_write: u64,
    /// The cost in micro-dollars; `None` when the model's price is not known.
    pub cost_micros: Option<u64>,
    /// Whether the counts are estimates (a token per four characters): the provider told none, or was cut off.
    pub estimated: bool,
    /// How it ended: 200 whole; 499 the runner hung up or the run ended; 502 cut after the first byte of the
    /// answer; otherwise the status of the error that the runner was told.
    pub status: u16,
    /// From the whole request to the last byte of the answer.
    pub took: Duration,
}

/// Token counts, in Anthropic's division of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tokens {
    /// As in [`Usage`].
    pub input: u64,
    /// As in [`Usage`].
    pub output: u64,
    /// As in [`Usage`].
    pub cache_read: u64,
    /// As in [`Usage`].
    pub cache_write: u64,
    /// The part of `cache_write` that is kept for an hour.
    pub cache_write_hour: u64,
}

impl Tokens {
    /// What they cost at `model`, in micro-dollars.
    pub fn cost(&self, model: &str) -> Option<u64> {
        price::cost(model, self)
    }
}

/// A token per four characters: a usual estimate, right within a third for prose.
pub(super) fn estimate(characters: usize) -> u64 {
    characters.div_ceil(4) as u64
}

/// Reads the counts off an answer on its way to the box. It sees the Anthropic wire only: what another kind of
/// provider says has been translated before.
#[derive(Default)]
pub(super) struct Meter {
    tokens: Tokens,
    parser: sse::Parser,
    characters: usize,
    begun: bool,
    ended: bool,
}

/// What the meter reads of a message or an event.
#[derive(Deserialize)]
struct Counted {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    message: Option<CountedMessage>,
    #[serde(default)]
    usage: Option<WireUsage>,
    #[serde(default)]
    delta: Option<Delta>,
}

#[derive(Deserialize)]
struct CountedMessage {
    #[serde(default)]
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
struct Delta {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    thinking: Option<String>,
    #[serde(default)]
    partial_json: Option<String>,
}

/// `usage` of the Messages wire. In a stream the later event is cumulative and may name fewer fields.
#[derive(Deserialize)]
struct WireUsage {
    #[serde(default)]
    input_tokens: Option<u64>,
    #[serde(default)]
    output_tokens: Option<u64>,
    #[serde(default)]
    cache_read_input_tokens: Option<u64>,
    #[serde(default)]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default)]
    cache_creation: Option<CacheCreation>,
}

#[derive(Deserialize)]
struct CacheCreation {
    #[serde(default)]
    ephemeral_1h_input_tokens: u64,
}

impl Meter {
    /// Looks at the next bytes of a stream. What it cannot read it does not count.
    pub fn stream(&mut self, bytes: &[u8]) {
        for event in self.parser.feed(bytes).unwrap_or_default() {
            if let Ok(counted) = serde_json::from_str(&event.data) {
                self.count(counted);
            }
        }
    }

    /// Looks at a whole message.
    pub fn whole(&mut self, message: &[u8]) {
        if let Ok(counted) = serde_json::from_slice(message) {
            self.count(counted);
        }
        self.begun = true;
        self.ended = true;
    }

    /// Whether the stream reached its end as the wire defines it: `message_stop`, or an error told as an event.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The counts, and whether they are estimates. `sent` is the characters of a request that a provider got but
    /// did not answer with counts: it may well charge for them, and a box that hangs up early must not be free.
    pub fn settle(&self, sent: Option<usize>) -> (Tokens, bool) {
        let mut tokens = self.tokens;
        if !self.begun {
            tokens.input = sent.map_or(0, estimate);
            return (tokens, sent.is_some());
        }
        if !self.ended {
            tokens.output = tokens.output.max(estimate(self.characters));
        }
        (tokens, !self.ended)
    }

    fn count(&mut self, counted: Counted) {
        match counted.kind.as_str() {
            "message_start" => self.begun = true,
            "message_stop" | "error" => self.ended = true,
            _ => {}
        }
        if let Some(Delta { text, thinking, partial_json }) = counted.delta {
            let lengths = [text, thinking, partial_json].into_iter().flatten().map(|t| t.chars().count());
            self.characters += lengths.sum::<usize>();
        }
        for usage in counted.message.and_then(|message| message.usage).into_iter().chain(counted.usage) {
            self.take(&usage);
        }
    }

    fn take(&mut self, usage: &WireUsage) {
        let set = |count: &mut u64, told: Option<u64>| *count = told.unwrap_or(*count);
        set(&mut self.tokens.input, usage.input_tokens);
        set(&mut self.tokens.output, usage.output_tokens);
        set(&mut self.tokens.cache_read, usage.cache_read_input_tokens);
        set(&mut self.tokens.cache_write, usage.cache_creation_input_tokens);
        let hour = usage.cache_creation.as_ref().map(|made| made.ephemeral_1h_input_tokens);
        set(&mut self.tokens.cache_write_hour, hour);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = r#"data: {"type":"message_start","message":{"usage":{"input_tokens":10,"cache_read_input_tokens":7,"cache_creation_input_tokens":5,"cache_creation":{"ephemeral_1h_input_tokens":2},"output_tokens":1}}}"#;
    const TEXT: &str =
        r#"data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"twelve chars"}}"#;
    const END: &str =
        r#"data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":42}}"#;
    const STOP: &str = r#"data: {"type":"message_stop"}"#;

    fn metered(lines: &[&str]) -> Meter {
        let mut meter = Meter::default();
        for line in lines {
            meter.stream(format!("{line}\n\n").as_bytes());
        }
        meter
    }

    #[test]
    fn a_stream_is_counted_from_its_first_and_last_event() {
        let meter = metered(&[START, TEXT, END, STOP]);
        let expected = Tokens { input: 10, output: 42, cache_read: 7, cache_write: 5, cache_write_hour: 2 };
        assert_eq!(meter.settle(Some(400)), (expected, false));
        assert!(meter.ended());
    }

    #[test]
    fn a_cut_stream_is_charged_for_what_came() {
        let (tokens, estimated) = metered(&[START, TEXT]).settle(Some(400));
        assert_eq!((tokens.input, tokens.output, estimated), (10, 3, true));
    }

    #[test]
    fn a_request_that_was_sent_and_never_answered_is_not_free() {
        assert_eq!(metered(&[]).settle(Some(400)).0.input, 100);
        assert_eq!(metered(&[]).settle(None), (Tokens::default(), false));
    }

    #[test]
    fn a_whole_message_is_counted_from_its_usage() {
        let mut meter = Meter::default();
        meter.whole(br#"{"type":"message","usage":{"input_tokens":3,"output_tokens":4}}"#);
        assert_eq!(meter.settle(None), (Tokens { input: 3, output: 4, ..Tokens::default() }, false));
    }
}
