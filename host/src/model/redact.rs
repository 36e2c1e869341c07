//! Hides keys in bytes on their way to a box or a record: a provider, or a server in between, may echo its request.
//!
//! It finds a key as it is, reversed, in hexadecimal, in base64 (both alphabets, at any place of a longer text), and
//! percent-encoded, in letters of either case, with `/` or `\/`. It does not find another encoding. A key in
//! pieces between which other bytes stand is found by `redact_events`, in streamed answers alone.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use bytes::{Bytes, BytesMut};

use crate::domain::secret::Secret;

const MARK: &[u8] = b"[redacted]";

/// Shorter keys are dummies for local servers ("ollama", "none"): hiding them would damage ordinary words.
const SHORTEST_KEY: usize = 12;

/// Replaces keys in whole or streamed bytes. It holds back a tail that may be the start of a key until the next bytes
/// decide, so that it also finds a key that the network splits.
#[derive(Clone, Default)]
pub struct Redactor {
    forms: Arc<Forms>,
    held: BytesMut,
}

/// All forms of all keys, in small letters, the longest first.
#[derive(Default)]
struct Forms(Vec<Vec<u8>>);

impl Redactor {
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a Secret>) -> Self {
        let keys = keys.into_iter().map(|key| key.expose().as_bytes());
        let mut forms: Vec<_> = keys.filter(|key| key.len() >= SHORTEST_KEY).flat_map(forms).collect();
        forms.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        forms.dedup();
        Self { forms: Arc::new(Forms(forms)), held: BytesMut::new() }
    }

    /// Whether there is no key to hide.
    pub fn is_idle(&self) -> bool {
        self.forms.0.is_empty()
    }

    /// The length of the longest tail that may be the beginning of a key.
    pub fn beginning(&self, bytes: &[u8]) -> usize {
        self.forms.longest_start(bytes)
    }

    /// Returns the bytes of a stream that may pass now.
    pub fn feed(&mut self, chunk: Bytes) -> Bytes {
        if self.is_idle() {
            return chunk;
        }
        let mut bytes = std::mem::take(&mut self.held);
        bytes.extend_from_slice(&chunk);
        let mut clean = self.forms.replace(bytes);
        self.held = clean.split_off(clean.len() - self.beginning(&clean));
        clean.freeze()
    }

    /// Returns what was held back, at the end of the stream.
    pub fn finish(&mut self) -> Bytes {
        std::mem::take(&mut self.held).freeze()
    }

    pub fn whole(&self, body: Bytes) -> Bytes {
        if self.forms.find(&body).is_some() {
            self.forms.replace(BytesMut::from(&body[..])).freeze()
        } else {
            body
        }
    }

    pub fn text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.whole(Bytes::copy_from_slice(text.as_bytes()))).into_owned()
    }
}

impl Forms {
    fn replace(&self, mut bytes: BytesMut) -> BytesMut {
        let mut clean = BytesMut::new();
        while let Some((at, length)) = self.find(&bytes) {
            clean.extend_from_slice(&bytes.split_to(at));
            clean.extend_from_slice(MARK);
            let _ = bytes.split_to(length);
        }
        clean.unsplit(bytes);
        clean
    }

    /// The place and length of the first key.
    fn find(&self, bytes: &[u8]) -> Option<(usize, usize)> {
        let mut begins = [false; 256];
        for form in &self.0 {
            begins[usize::from(form[0])] = true;
        }
        let places =
            bytes.iter().enumerate().filter(|(_, byte)| begins[usize::from(byte.to_ascii_lowercase())]);
        places.into_iter().find_map(|(at, _)| {
            let here = &bytes[at..];
            let is_here =
                |form: &&Vec<u8>| here.get(..form.len()).is_some_and(|b| b.eq_ignore_ascii_case(form));
            self.0.iter().find(is_here).map(|form| (at, form.len()))
        })
    }

    /// Returns the length of the longest tail of `bytes` that a key starts with.
    fn longest_start(&self, bytes: &[u8]) -> usize {
        let start_of = |form: &Vec<u8>| {
            let most = (form.len() - 1).min(bytes.len());
            let begins = |n: &usize| bytes[bytes.len() - n..].eq_ignore_ascii_case(&form[..*n]);
            (1..=most).rev().find(begins).unwrap_or(0)
        };
        self.0.iter().map(start_of).max().unwrap_or(0)
    }
}

/// The forms of a key, in small letters.
pub(super) fn forms(key: &[u8]) -> Vec<Vec<u8>> {
    let spelled = |each: &dyn Fn(u8) -> String| key.iter().map(|byte| each(*byte)).collect::<String>();
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let mut forms = vec![
        key.to_vec(),
        key.iter().rev().copied().collect(),
        spelled(&|byte| format!("{byte:02x}")).into_bytes(),
        spelled(&|byte| format!("%{byte:02x}")).into_bytes(),
        spelled(&|byte| if unreserved(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") })
            .into_bytes(),
    ];
    for before in 0..3 {
        // The characters that hold bits of the key alone, whatever stands before and after it.
        let text = [&[0; 2][..before], key].concat();
        let (first, end) = ((before * 8).div_ceil(6), text.len() * 8 / 6);
        for encoded in [BASE64_STANDARD_NO_PAD.encode(&text), BASE64_URL_SAFE_NO_PAD.encode(&text)] {
            forms.push(encoded.as_bytes()[first..end].to_vec());
        }
    }
    // JSON may write a slash so.
    let slashes = forms.iter().filter(|form| form.contains(&b'/'));
    let escaped: Vec<_> =
        slashes.map(|form| form.split(|byte| *byte == b'/').collect::<Vec<_>>().join(&b"\\/"[..])).collect();
    forms.extend(escaped);
    forms.iter_mut().for_each(|form| form.make_ascii_lowercase());
    forms
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

    /// Every form of a key, alone and within a longer text.
    fn echoes(key: &str) -> Vec<String> {
        let hex: String = key.bytes().map(|byte| format!("{byte:02x}")).collect();
        let percent: String = key.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let mut all = vec![
            key.chars().rev().collect(),
            hex.to_uppercase(),
            hex,
            percent.to_lowercase(),
            percent,
            key.replace('/', "%2F").replace('+', "%2b"),
            key.to_uppercase(),
            key.replace('/', "\\/"),
        ];
        for before in ["", "u", "u:", "Bearer "] {
            for after in ["", "\n", ":p", " and more"] {
                let text = format!("{before}{key}{after}");
                all.push(BASE64_STANDARD_NO_PAD.encode(&text));
                all.push(base64::prelude::BASE64_STANDARD.encode(&text).replace('/', "\\/"));
                all.push(base64::prelude::BASE64_URL_SAFE.encode(&text));
            }
        }
        all
    }

    #[test]
    fn a_key_is_hidden_in_every_form_wherever_the_stream_cuts_it() {
        for key in [KEY, "sk/test+key/0123456789~~", "abcdefghijkl"] {
            let redactor = Redactor::new([&Secret::new(key)]);
            for echo in echoes(key) {
                let text = format!("told {{\"{echo}\"}}, so");
                let hidden = redactor.text(&text);
                assert!(hidden.contains("[redacted]"), "{echo}");
                // Of base64, up to three characters before and after hold a part of one byte of the key.
                assert!(hidden.len() <= "told {\"[redacted]\"}, so".len() + 26, "{hidden}");
                for cut in 0..=text.len() {
                    let mut redactor = redactor.clone();
                    let mut out = redactor.feed(Bytes::copy_from_slice(&text.as_bytes()[..cut])).to_vec();
                    out.extend(redactor.feed(Bytes::copy_from_slice(&text.as_bytes()[cut..])));
                    out.extend(redactor.finish());
                    assert_eq!(String::from_utf8(out).unwrap(), hidden, "{echo} cut at {cut}");
                }
            }
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
