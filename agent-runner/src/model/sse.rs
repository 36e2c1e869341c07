//! Server-sent events, cut out of a byte stream that may be split anywhere.
//!
//! The format is the HTML standard's ("Server-sent events", 9.2.6): lines end in LF, CR or CRLF; `field: value`;
//! a line that begins with a colon is a comment; an empty line ends the event.

/// The greatest size of one event. The model's side has no reason for more, and memory is the box's.
const EVENT_MAX_BYTES: usize = 8 * 1024 * 1024;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its data lines, joined by line breaks.
    pub data: String,
}

/// An event that is larger than this runner holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the model's answer is larger than {EVENT_MAX_BYTES} bytes")]
pub struct TooBig;

/// A stream being cut.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    data: Option<String>,
    /// The last byte was CR: an LF right after it belongs to it.
    after_cr: bool,
}

impl Parser {
    /// Takes the next bytes and returns the events that they complete.
    ///
    /// # Errors
    /// [`TooBig`].
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooBig> {
        let mut events = Vec::new();
        for byte in bytes {
            let ends = match byte {
                b'\n' if self.after_cr => {
                    self.after_cr = false;
                    continue;
                }
                b'\n' | b'\r' => true,
                _ => false,
            };
            self.after_cr = *byte == b'\r';
            if ends {
                events.extend(self.end_line());
            } else {
                self.line.push(*byte);
            }
            if self.line.len() + self.data.as_ref().map_or(0, String::len) > EVENT_MAX_BYTES {
                return Err(TooBig);
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return self.data.take().map(|data| Event { data });
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
        // `event` repeats the data's own `type`; `id` and `retry` are for reconnecting, which this wire does not.
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(stream: &[u8], cuts: &[usize]) -> Vec<String> {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        let mut from = 0;
        for cut in cuts.iter().copied().chain([stream.len()]) {
            events.extend(parser.feed(&stream[from..cut]).unwrap());
            from = cut;
        }
        events.into_iter().map(|e| e.data).collect()
    }

    const STREAM: &str = "event: a\r\ndata: {\"x\":\"ä€\"}\r\n\r\n: note\ndata:one\ndata: two\n\ndata\rid: 4\r\rdata:  sp\n\nevent: alone\n\ndata: cut";

    #[test]
    fn events_are_the_same_wherever_the_stream_is_split() {
        let stream = STREAM.as_bytes();
        let expected = ["{\"x\":\"ä€\"}", "one\ntwo", "", " sp"];
        assert_eq!(all(stream, &[]), expected);
        for a in 0..=stream.len() {
            assert_eq!(all(stream, &[a]), expected, "split at {a}");
            for b in a..=stream.len() {
                assert_eq!(all(stream, &[a, b]), expected, "split at {a} and {b}");
            }
        }
    }

    #[test]
    fn an_endless_line_is_refused_not_stored() {
        let mut parser = Parser::default();
        let chunk = vec![b'x'; 1024 * 1024];
        let refused = (0..9).map(|_| parser.feed(&chunk)).find(Result::is_err);
        assert_eq!(refused, Some(Err(TooBig)));
    }
}
