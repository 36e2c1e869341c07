//! The output of a box on stdout and stderr, with the limits of the engine's `local` log driver.

use std::collections::VecDeque;

/// `max-size` times `max-file` of the host's container spec.
const KEPT: usize = 2 << 20;
/// The engine cuts longer lines into records of this size.
const RECORD: usize = 16 << 10;

/// The two output streams. The value is the stream's number in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout = 1,
    Stderr = 2,
}

/// The newest output of a box.
#[derive(Debug, Default)]
pub(super) struct Log {
    records: VecDeque<(Stream, Vec<u8>)>,
    bytes: usize,
}

impl Log {
    /// Adds a complete line, or a part of a line that is too long.
    pub(super) fn push(&mut self, stream: Stream, record: Vec<u8>) {
        self.bytes += record.len();
        self.records.push_back((stream, record));
        while self.bytes > KEPT {
            let Some((_, oldest)) = self.records.pop_front() else { return };
            self.bytes -= oldest.len();
        }
    }

    /// Returns the newest `tail` records as frames: the stream's number, three zeros, the length (big-endian), the
    /// bytes.
    pub(super) fn frames(&self, wanted: impl Fn(Stream) -> bool, tail: Option<usize>) -> Vec<u8> {
        let wanted: Vec<_> = self.records.iter().filter(|(stream, _)| wanted(*stream)).collect();
        let skip = tail.map_or(0, |tail| wanted.len().saturating_sub(tail));
        let mut frames = Vec::new();
        for (stream, record) in wanted.into_iter().skip(skip) {
            frames.extend_from_slice(&[*stream as u8, 0, 0, 0]);
            frames.extend_from_slice(&u32::try_from(record.len()).unwrap_or(u32::MAX).to_be_bytes());
            frames.extend_from_slice(record);
        }
        frames
    }
}

/// Cuts a stream into records.
#[derive(Debug, Default)]
pub(super) struct Lines(Vec<u8>);

impl Lines {
    /// Adds bytes, and returns the records that are now complete.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.0.extend_from_slice(bytes);
        let mut complete = Vec::new();
        loop {
            let line = self.0.iter().take(RECORD).position(|b| *b == b'\n').map(|at| at + 1);
            let Some(end) = line.or((self.0.len() >= RECORD).then_some(RECORD)) else { return complete };
            let rest = self.0.split_off(end);
            complete.push(std::mem::replace(&mut self.0, rest));
        }
    }

    /// Returns the last line if the stream ended without a newline.
    pub(super) fn rest(self) -> Option<Vec<u8>> {
        (!self.0.is_empty()).then_some(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_framed_per_stream() {
        let mut log = Log::default();
        for (stream, line) in
            [(Stream::Stdout, "one\n"), (Stream::Stderr, "two\n"), (Stream::Stdout, "three")]
        {
            log.push(stream, line.into());
        }
        assert_eq!(log.frames(|_| true, Some(2)), b"\x02\0\0\0\0\0\0\x04two\n\x01\0\0\0\0\0\0\x05three");
        assert_eq!(log.frames(|s| s == Stream::Stderr, None), b"\x02\0\0\0\0\0\0\x04two\n");
    }

    #[test]
    fn a_flood_keeps_its_end() {
        let mut log = Log::default();
        for i in 0..200u8 {
            log.push(Stream::Stdout, vec![i; RECORD]);
        }
        assert!(log.bytes <= KEPT);
        assert_eq!(log.records.back().map(|(_, r)| r[0]), Some(199));
    }

    #[test]
    fn lines_come_whole_and_endless_ones_in_pieces() {
        let mut lines = Lines::default();
        assert!(lines.take(b"ha").is_empty());
        assert_eq!(lines.take(b"lf\nnext\nre"), [b"half\n".to_vec(), b"next\n".to_vec()]);
        assert_eq!(lines.take(&[b'x'; RECORD]).len(), 1);
        assert_eq!(lines.rest(), Some(b"xx".to_vec()));
    }
}
