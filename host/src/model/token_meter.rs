//! Counts the tokens of one call from the answer as it passes.

use ipc_schema::server_sent_events::EventParser;
use serde::Deserialize;

/// Token counts, divided as Anthropic divides them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Input tokens that the provider neither read from its cache nor wrote to it.
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    pub cache_write: u64,
    /// The part of `cache_write` that the provider keeps for an hour.
    pub cache_write_hour: u64,
}

/// Counts one token per four characters: the usual estimate, right within a third for prose.
pub fn estimate(characters: usize) -> u64 {
    characters.div_ceil(4) as u64
}

/// Reads the token counts from an answer on its way to the box. It reads the Messages wire only: answers of other wires
/// are translated before.
#[derive(Default)]
pub struct TokenMeter {
    tokens: Tokens,
    parser: EventParser,
    characters: usize,
    begun: bool,
    ended: bool,
}

/// The fields that the meter reads of a message or an event.
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

impl TokenMeter {
    /// Reads the next bytes of a stream. It does not count what it cannot parse.
    pub fn stream(&mut self, bytes: &[u8]) {
        for event in self.parser.feed(bytes).unwrap_or_default() {
            if let Ok(counted) = serde_json::from_str(&event) {
                self.count(counted);
            }
        }
    }

    /// Reads a message that was not streamed.
    pub fn whole(&mut self, message: &[u8]) {
        if let Ok(counted) = serde_json::from_slice(message) {
            self.count(counted);
        }
        self.begun = true;
        self.ended = true;
    }

    /// Whether the stream ended as the wire defines it: with `message_stop` or an error event.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Returns the counts, and whether they are estimates. `sent` is the length of a request that a provider received
    /// without answering with counts: it may charge for it, and a box that hangs up early must not call for free.
    pub fn total(&self, sent: Option<usize>) -> (Tokens, bool) {
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
        let set = |count: &mut u64, new: Option<u64>| *count = new.unwrap_or(*count);
        set(&mut self.tokens.input, usage.input_tokens);
        set(&mut self.tokens.output, usage.output_tokens);
        set(&mut self.tokens.cache_read, usage.cache_read_input_tokens);
        set(&mut self.tokens.cache_write, usage.cache_creation_input_tokens);
        let hour = usage.cache_creation.as_ref().map(|written| written.ephemeral_1h_input_tokens);
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

    fn metered(lines: &[&str]) -> TokenMeter {
        let mut meter = TokenMeter::default();
        for line in lines {
            meter.stream(format!("{line}\n\n").as_bytes());
        }
        meter
    }

    #[test]
    fn a_stream_is_counted_from_its_first_and_last_event() {
        let meter = metered(&[START, TEXT, END, STOP]);
        let expected = Tokens { input: 10, output: 42, cache_read: 7, cache_write: 5, cache_write_hour: 2 };
        assert_eq!(meter.total(Some(400)), (expected, false));
        assert!(meter.ended());
    }

    #[test]
    fn a_cut_stream_is_charged_for_what_came() {
        let (tokens, estimated) = metered(&[START, TEXT]).total(Some(400));
        assert_eq!((tokens.input, tokens.output, estimated), (10, 3, true));
    }

    #[test]
    fn a_request_that_was_sent_and_never_answered_is_not_free() {
        assert_eq!(metered(&[]).total(Some(400)).0.input, 100);
        assert_eq!(metered(&[]).total(None), (Tokens::default(), false));
    }

    #[test]
    fn a_whole_message_is_counted_from_its_usage() {
        let mut meter = TokenMeter::default();
        meter.whole(br#"{"type":"message","usage":{"input_tokens":3,"output_tokens":4}}"#);
        assert_eq!(meter.total(None), (Tokens { input: 3, output: 4, ..Tokens::default() }, false));
    }
}
