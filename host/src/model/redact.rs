//! Hides keys in bytes on their way to a box or a record: a provider, or a server in between, may echo its request.

use bytes::{Bytes, BytesMut};

use crate::domain::secret::Secret;

const MARK: &[u8] = b"[redacted]";

/// Shorter keys are dummies for local servers ("ollama", "none"): hiding them would damage ordinary words.
const SHORTEST_KEY: usize = 12;

/// Replaces keys in whole or streamed bytes. It holds back a tail that may be the start of a key until the next bytes
/// decide, so that it also finds a key that the network splits.
#[derive(Clone, Default)]
pub struct Redactor {
    keys: Vec<Vec<u8>>,
    held: BytesMut,
}

impl Redactor {
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a Secret>) -> Self {
        let keys = keys.into_iter().map(|key| key.expose().as_bytes().to_vec());
        Self { keys: keys.filter(|key| key.len() >= SHORTEST_KEY).collect(), held: BytesMut::new() }
    }

    /// Returns the bytes of a stream that may pass now.
    pub fn feed(&mut self, chunk: Bytes) -> Bytes {
        if self.keys.is_empty() {
            return chunk;
        }
        let mut bytes = std::mem::take(&mut self.held);
        bytes.extend_from_slice(&chunk);
        let mut clean = self.replace(bytes);
        self.held = clean.split_off(clean.len() - self.longest_start(&clean));
        clean.freeze()
    }

    /// Returns what was held back, at the end of the stream.
    pub fn finish(&mut self) -> Bytes {
        std::mem::take(&mut self.held).freeze()
    }

    pub fn whole(&self, body: Bytes) -> Bytes {
        if self.keys.iter().any(|key| find(&body, key).is_some()) {
            self.replace(BytesMut::from(&body[..])).freeze()
        } else {
            body
        }
    }

    pub fn text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.whole(Bytes::copy_from_slice(text.as_bytes()))).into_owned()
    }

    fn replace(&self, mut bytes: BytesMut) -> BytesMut {
        for key in &self.keys {
            let mut clean = BytesMut::new();
            while let Some(at) = find(&bytes, key) {
                clean.extend_from_slice(&bytes.split_to(at));
                clean.extend_from_slice(MARK);
                let _ = bytes.split_to(key.len());
            }
            clean.unsplit(bytes);
            bytes = clean;
        }
        bytes
    }

    /// Returns the length of the longest tail of `bytes` that a key starts with.
    fn longest_start(&self, bytes: &[u8]) -> usize {
        let start_of =
            |key: &Vec<u8>| (1..key.len()).rev().find(|&n| bytes.ends_with(&key[..n])).unwrap_or(0);
        self.keys.iter().map(start_of).max().unwrap_or(0)
    }
}

fn find(bytes: &[u8], key: &[u8]) -> Option<usize> {
    bytes.windows(key.len()).position(|window| window == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sk-canary-0123456789";

    fn redactor() -> Redactor {
        Redactor::new([&Secret::new(KEY)])
    }

    #[test]
    fn a_key_is_hidden_wherever_the_stream_cuts_it() {
        let text = format!("sk-can not {KEY} and again {KEY}{KEY} sk-canary-");
        let expected = "sk-can not [redacted] and again [redacted][redacted] sk-canary-";
        assert_eq!(redactor().text(&text), expected);
        for cut in 0..=text.len() {
            let mut redactor = redactor();
            let mut out = redactor.feed(Bytes::copy_from_slice(&text.as_bytes()[..cut])).to_vec();
            out.extend(redactor.feed(Bytes::copy_from_slice(&text.as_bytes()[cut..])));
            out.extend(redactor.finish());
            assert_eq!(String::from_utf8(out).unwrap(), expected, "cut at {cut}");
        }
    }

    #[test]
    fn bytes_that_cannot_start_a_key_pass_at_once() {
        assert_eq!(redactor().feed(Bytes::from_static(b"data: {}\n\n")), "data: {}\n\n");
    }

    #[test]
    fn a_dummy_key_does_not_tear_words_out_of_answers() {
        let redactor = Redactor::new([&Secret::new("ollama")]);
        assert_eq!(redactor.text("ask ollama"), "ask ollama");
    }
}
