//! Counts the tokens of one call from the answer as it passes.

use std::cell::Cell;

use ipc_schema::lenient_json::Fields;
use ipc_schema::server_sent_events::EventParser;

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

impl TokenMeter {
    /// Reads the next bytes of a stream. It does not count what it cannot parse.
    pub fn stream(&mut self, bytes: &[u8]) {
        for event in self.parser.feed(bytes).unwrap_or_default() {
            self.count(&event);
        }
    }

    /// Reads a message that was not streamed.
    pub fn whole(&mut self, message: &[u8]) {
        self.count(&String::from_utf8_lossy(message));
        self.begun = true;
        self.ended = true;
    }

    /// Whether the stream ended as the wire defines it: with `message_stop` or an error event.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Counts at least this many characters: what a provider sent and the box has not received yet costs, too.
    pub fn at_least(&mut self, characters: usize) {
        self.characters = self.characters.max(characters);
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

    /// Reads one event or message. A count that cannot be read keeps its value from an earlier event.
    fn count(&mut self, json: &str) {
        let skipped = Cell::new(0);
        let Some(counted) = Fields::read(json, &skipped) else { return };
        match counted.string("type").as_deref() {
            Some("message_start") => self.begun = true,
            Some("message_stop" | "error") => self.ended = true,
            _ => {}
        }
        if let Some(delta) = counted.object("delta") {
            let pieces =
                ["text", "thinking", "partial_json"].into_iter().filter_map(|name| delta.string(name));
            self.characters += pieces.map(|piece| piece.chars().count()).sum::<usize>();
        }
        let of_message = counted.object("message").and_then(|message| message.object("usage"));
        for usage in of_message.into_iter().chain(counted.object("usage")) {
            self.take(&usage);
        }
    }

    /// In a stream the later event is cumulative and may name fewer fields.
    fn take(&mut self, usage: &Fields<'_>) {
        let set = |count: &mut u64, new: Option<u64>| *count = new.unwrap_or(*count);
        set(&mut self.tokens.input, usage.count("input_tokens"));
        set(&mut self.tokens.output, usage.count("output_tokens"));
        set(&mut self.tokens.cache_read, usage.count("cache_read_input_tokens"));
        set(&mut self.tokens.cache_write, usage.count("cache_creation_input_tokens"));
        let hour =
            usage.object("cache_creation").and_then(|written| written.count("ephemeral_1h_input_tokens"));
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
    fn one_odd_count_costs_itself_alone() {
        let odd = r#"data: {"type":"message_delta","usage":{"output_tokens":42.0,"input_tokens":null,"cache_read_input_tokens":-1}}"#;
        let (tokens, _) = metered(&[START, odd, STOP]).total(None);
        assert_eq!((tokens.input, tokens.output, tokens.cache_read), (10, 42, 7));
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
