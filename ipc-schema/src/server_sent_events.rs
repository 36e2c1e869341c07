//! Cuts a byte stream into server-sent events. The model's answers cross the boundary in this format: the host reads
//! the provider's stream with it, and the runner reads the gateway's.
//!
//! The format is the HTML standard's
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation>): a byte order mark
//! may come first; lines end in LF, CR or CRLF; a line is `field: value`; a line that begins with a colon is a comment;
//! an empty line ends the event. Only `data` is read: both model wires repeat the event's name in the data, and neither
//! reconnects by `id` and `retry`.
//!
//! Published parsers buffer a line without a limit, and lose an event that has no empty line after it. The bytes are
//! hostile on both sides, so the limit here is the reason to have a parser.

/// The greatest size of one event. A longer one is refused: no model's answer needs it, and it fills the memory.
const EVENT_MAX_BYTES: usize = 8 * 1024 * 1024;

/// An event is longer than a reader holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the model's answer is larger than {EVENT_MAX_BYTES} bytes")]
pub struct EventTooLong;

/// Returns the same events wherever the network splits the bytes.
#[derive(Debug, Default)]
pub struct EventParser {
    line: Vec<u8>,
    data: Option<String>,
    /// The last byte was CR: an LF right after it belongs to the same line end.
    after_cr: bool,
    /// The first line has ended.
    begun: bool,
}

impl EventParser {
    /// Takes the next bytes and returns the data of the events that they complete: its lines, joined by LF.
    ///
    /// # Errors
    /// [`EventTooLong`]. The parser then forgets what it holds and reads on, for a caller that ignores the error.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<String>, EventTooLong> {
        let mut events = Vec::new();
        for piece in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            let (line, end) = match piece.split_last() {
                Some((end @ (b'\n' | b'\r'), line)) => (line, Some(*end)),
                _ => (piece, None),
            };
            let belongs_to_cr = self.after_cr && piece == b"\n";
            self.after_cr = end == Some(b'\r');
            if belongs_to_cr {
                continue;
            }
            self.line.extend_from_slice(line);
            if self.line.len() + self.data.as_ref().map_or(0, String::len) > EVENT_MAX_BYTES {
                *self = Self::default();
                return Err(EventTooLong);
            }
            if end.is_some() {
                events.extend(self.end_line());
            }
        }
        Ok(events)
    }

    /// Returns the event that the end of the stream completes: some servers leave out the last empty line.
    pub fn finish(&mut self) -> Option<String> {
        self.end_line().or_else(|| self.data.take())
    }

    fn end_line(&mut self) -> Option<String> {
        let mut line = std::mem::take(&mut self.line);
        if !std::mem::replace(&mut self.begun, true) && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        if line.is_empty() {
            return self.data.take();
        }
        let line = String::from_utf8_lossy(&line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        if field == "data" {
            let value = value.strip_prefix(' ').unwrap_or(value);
            match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(stream: &[u8], cuts: &[usize]) -> Vec<String> {
        let mut parser = EventParser::default();
        let mut events = Vec::new();
        let mut from = 0;
        for cut in cuts.iter().copied().chain([stream.len()]) {
            events.extend(parser.feed(&stream[from..cut]).unwrap());
            from = cut;
        }
        events.extend(parser.finish());
        events
    }

    const STREAM: &str = "event: a\r\ndata: {\"x\":\"ä€\"}\r\n\r\n: note\ndata:one\ndata: two\n\ndata\rid: 4\r\rdata:  sp\n\nevent: alone\n\ndata: last";

    #[test]
    fn events_are_the_same_wherever_the_stream_is_split() {
        let stream = STREAM.as_bytes();
        let expected = ["{\"x\":\"ä€\"}", "one\ntwo", "", " sp", "last"];
        assert_eq!(all(stream, &[]), expected);
        for a in 0..=stream.len() {
            assert_eq!(all(stream, &[a]), expected, "split at {a}");
            for b in a..=stream.len() {
                assert_eq!(all(stream, &[a, b]), expected, "split at {a} and {b}");
            }
        }
    }

    #[test]
    fn a_byte_order_mark_before_the_first_line_is_no_part_of_it() {
        let stream = "\u{feff}data: one\n\ndata: \u{feff}two\n\n".as_bytes();
        for cut in 0..=stream.len() {
            assert_eq!(all(stream, &[cut]), ["one", "\u{feff}two"], "split at {cut}");
        }
    }

    #[test]
    fn an_endless_line_is_refused_before_it_fills_the_memory() {
        let mut parser = EventParser::default();
        let chunk = vec![b'x'; 1024 * 1024];
        let refused = (0..16).position(|_| parser.feed(&chunk) == Err(EventTooLong));
        assert_eq!(refused, Some(8));
        assert_eq!(parser.feed(b"\n\ndata: next\n\n"), Ok(vec!["next".to_owned()]), "and it reads on");
    }
}
