//! Reads the JSON of a model's answer field by field. The host reads the provider's stream with it, and the runner
//! reads the gateway's.
//!
//! Servers speak the wires of models in dialects: counts that are `null` or `10.0`, an index as a text, a key that
//! comes twice, half of a surrogate pair. A derived type refuses the whole object because of one such field, and with
//! it the text beside it. [`Fields`] leaves out what it cannot read, and counts it.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The greatest count that is believed: a float holds every whole number up to here.
const COUNT_MAX: u64 = 1 << 53;

/// The fields of one object. A field that is `null` is missing. Of a key that comes twice, the last value counts.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    values: BTreeMap<String, &'a RawValue>,
    skipped: &'a Cell<u64>,
}

/// A text as it came. It may begin or end with half of a surrogate pair; [`TextJoin`] makes a string of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WireText(Vec<u8>);

/// Joins the pieces of one text. Some servers cut a text within a surrogate pair.
#[derive(Debug, Default)]
pub struct TextJoin {
    high: Option<u16>,
}

impl<'a> Fields<'a> {
    /// Reads an object. Whatever it cannot read, here and later, it counts in `skipped`.
    pub fn read(json: &'a str, skipped: &'a Cell<u64>) -> Option<Self> {
        match serde_json::from_str(json) {
            Ok(Values(values)) => Some(Self { values, skipped }),
            Err(_) => {
                skipped.set(skipped.get() + 1);
                None
            }
        }
    }

    /// The raw value of a field.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.values.get(name).copied()
    }

    /// A field that is an object.
    pub fn object(&self, name: &str) -> Option<Self> {
        self.nested(self.get(name)?.get())
    }

    /// Reads another object, and counts what it cannot read together with this one's.
    pub fn nested(&self, json: &'a str) -> Option<Self> {
        Self::read(json, self.skipped)
    }

    /// The elements of a list. One element that stands without its list is a list of one.
    pub fn items(&self, name: &str) -> Vec<&'a RawValue> {
        self.get(name).map_or_else(Vec::new, |raw| items(raw))
    }

    /// A field that is a piece of a text.
    pub fn wire_text(&self, name: &str) -> Option<WireText> {
        self.or_skip(name, wire_text)
    }

    /// A short text. A number stands for its digits.
    pub fn string(&self, name: &str) -> Option<String> {
        let read = |raw: &RawValue| match raw.get().as_bytes().first() {
            Some(b'0'..=b'9' | b'-') => Some(raw.get().to_owned()),
            _ => wire_text(raw).map(|text| text.alone().into_owned()),
        };
        self.or_skip(name, read)
    }

    /// A whole number from 0: `10`, `10.0` or `"10"`.
    pub fn count(&self, name: &str) -> Option<u64> {
        self.or_skip(name, count)
    }

    /// The fields with other names than these, as far as they can be read.
    pub fn others(&self, known: &[&str]) -> serde_json::Map<String, serde_json::Value> {
        let others = self.values.iter().filter(|(name, _)| !known.contains(&name.as_str()));
        others.filter_map(|(name, raw)| Some((name.clone(), serde_json::from_str(raw.get()).ok()?))).collect()
    }

    /// Counts something that the caller cannot read.
    pub fn skip(&self) {
        self.skipped.set(self.skipped.get() + 1);
    }

    fn or_skip<T>(&self, name: &str, read: impl Fn(&'a RawValue) -> Option<T>) -> Option<T> {
        let value = read(self.get(name)?);
        if value.is_none() {
            self.skip();
        }
        value
    }
}

/// The elements of a list, or the value itself if it is none.
pub fn items(raw: &RawValue) -> Vec<&RawValue> {
    match raw.get().as_bytes().first() {
        Some(b'[') => serde_json::from_str(raw.get()).unwrap_or_default(),
        _ => vec![raw],
    }
}

/// A piece of a text.
pub fn wire_text(raw: &RawValue) -> Option<WireText> {
    serde_json::Deserializer::from_str(raw.get()).deserialize_bytes(Bytes).ok().map(WireText)
}

/// A whole number from 0: `10`, `10.0` or `"10"`.
pub fn count(raw: &RawValue) -> Option<u64> {
    let digits = raw.get().trim_matches('"');
    let count = digits.parse().ok().or_else(|| {
        let number: f64 = digits.parse().ok()?;
        (number >= 0.0 && number <= COUNT_MAX as f64 && number.fract() == 0.0).then_some(number as u64)
    });
    count.filter(|count| *count <= COUNT_MAX)
}

impl WireText {
    /// The JSON of a value that should be a text: arguments that come as an object.
    pub fn of_json(raw: &RawValue) -> Self {
        Self(raw.get().into())
    }

    /// The text alone: half of a surrogate pair becomes the replacement character.
    pub fn alone(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl TextJoin {
    /// The text of the next piece. It keeps a first half of a surrogate pair at the end for the piece after it.
    pub fn push(&mut self, piece: &WireText) -> String {
        let (mut text, mut rest) = (String::new(), piece.0.as_slice());
        loop {
            let at = rest.windows(3).position(|bytes| bytes[0] == 0xed && bytes[1] >= 0xa0);
            let (plain, tail) = rest.split_at(at.unwrap_or(rest.len()));
            if !plain.is_empty() {
                text.extend(self.high.take().map(|_| char::REPLACEMENT_CHARACTER));
                text.push_str(&String::from_utf8_lossy(plain));
            }
            let [_, second, third, after @ ..] = tail else { return text };
            rest = after;
            let half = 0xd000 | u16::from(second & 0x3f) << 6 | u16::from(third & 0x3f);
            let pair = self.high.take().into_iter().chain([half]);
            for character in char::decode_utf16(pair) {
                match character {
                    Ok(character) => text.push(character),
                    Err(error) if (0xd800..0xdc00).contains(&error.unpaired_surrogate()) => {
                        // Of two first halves, the second may still find its other half.
                        text.extend(self.high.replace(half).map(|_| char::REPLACEMENT_CHARACTER));
                    }
                    Err(_) => text.push(char::REPLACEMENT_CHARACTER),
                }
            }
        }
    }
}

struct Values<'a>(BTreeMap<String, &'a RawValue>);

impl<'de> Deserialize<'de> for Values<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Values<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut values = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    if value.get() != "null" {
                        values.insert(name, value);
                    }
                }
                Ok(Values(values))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// As bytes, `serde_json` accepts half of a surrogate pair; as a string it does not.
struct Bytes;

impl Visitor<'_> for Bytes {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(bytes.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_odd_field_costs_itself_alone() {
        let skipped = Cell::new(0);
        let json = r#"{"a": 10.0, "b": null, "c": -1, "d": "7", "e": [1], "a": 11.0, "f": "so", "g": 1e300, "h": 5}"#;
        let fields = Fields::read(json, &skipped).unwrap();
        let counts = ["a", "b", "c", "d", "e", "f", "g", "h", "z"].map(|name| fields.count(name));
        assert_eq!(counts, [Some(11), None, None, Some(7), None, None, None, Some(5), None]);
        assert_eq!(skipped.get(), 4, "c, e, f and g cannot be read; b and z are not there");
        assert_eq!(fields.string("f").as_deref(), Some("so"));
        assert_eq!(fields.string("h").as_deref(), Some("5"));
        assert_eq!((fields.items("e").len(), fields.items("f").len(), fields.items("z").len()), (1, 1, 0));
        assert!(Fields::read("{\"a\": ", &skipped).is_none() && Fields::read("7", &skipped).is_none());
    }

    fn joined(pieces: &[&str]) -> String {
        let mut join = TextJoin::default();
        let text = |json: &&str| wire_text(&RawValue::from_string((*json).to_owned()).unwrap()).unwrap();
        pieces.iter().map(|piece| join.push(&text(piece))).collect()
    }

    #[test]
    fn halves_of_a_surrogate_pair_find_each_other() {
        assert_eq!(joined(&[r#""Hi \ud83d""#, r#""\ude00!""#]), "Hi \u{1f600}!");
        assert_eq!(joined(&[r#""\ud83d""#, r#""""#, r#""\ude00""#]), "\u{1f600}");
        assert_eq!(joined(&[r#""ä\ud83d\ude00€""#]), "ä\u{1f600}€", "a pair in one piece");
        assert_eq!(joined(&[r#""a\ud83d""#, r#""b""#]), "a\u{fffd}b");
        assert_eq!(joined(&[r#""\ude00""#]), "\u{fffd}");
        assert_eq!(joined(&[r#""\ud83d\ud83d""#, r#""\ude00""#]), "\u{fffd}\u{1f600}");
    }
}
