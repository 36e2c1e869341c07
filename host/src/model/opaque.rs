//! What an answer of chat completions holds for its own provider only: DeepSeek's and Kimi's `reasoning_content`,
//! OpenRouter's `reasoning_details`, Gemini's signature in `extra_content` of a call. Such a provider refuses a
//! conversation that lacks them, and every other provider refuses one that has them.
//!
//! The host hands them to the box in a block of its own, `{"type":"opaque","maker":…,"message":{…},"calls":{…}}`.
//! The runner stores the block and sends it back, and the host gives it to its maker: the same model of the same
//! provider.
//!
//! The box could change the block. So only fields pass whose names providers use for this, with values of few levels,
//! and none that could make the provider open a connection.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::strict_json::{Passed, Place, plain};

/// The fields of a message and of a call that the wire defines.
pub(super) const MESSAGE_FIELDS: [&str; 9] = [
    "role",
    "content",
    "refusal",
    "tool_calls",
    "function_call",
    "audio",
    "annotations",
    "name",
    "tool_call_id",
];
pub(super) const CALL_FIELDS: [&str; 5] = ["id", "type", "index", "function", "custom"];

/// The most bytes that are gathered of one answer; the longest thoughts of models are some hundred kilobytes.
const GATHERED_MAX_BYTES: usize = 1024 * 1024;

/// The most bytes of a block as it comes back. JSON may spell a byte with six.
const BLOCK_MAX_BYTES: usize = 8 * GATHERED_MAX_BYTES;

/// The most fields of one message or call, and the most calls, that are read back.
const FIELDS_MAX: usize = 1_000;

/// The most levels of a value: a list of details, each an object with lists.
const LEVELS_MAX: usize = 3;

/// Whether a field is a thought. Thoughts may name an address: they are read, and nothing is fetched for them.
fn is_thought(name: &str) -> bool {
    ["reasoning", "thinking", "thought"].iter().any(|kind| name.starts_with(kind))
}

/// Whether a field of an answer goes back to its provider. The two names hold signatures: Google's, and LiteLLM's copy
/// of them.
fn goes_back(name: &str) -> bool {
    is_thought(name) || matches!(name, "extra_content" | "provider_specific_fields")
}

/// Names the model of a provider that made an answer.
pub(super) fn maker(provider: &str, model: &str) -> String {
    format!("{provider}/{model}")
}

/// Gathers the fields while an answer arrives.
#[derive(Default)]
pub(super) struct Gathered {
    message: Map<String, Value>,
    calls: Map<String, Value>,
    bytes: usize,
}

impl Gathered {
    /// Takes the fields of a message, or of a piece of it, that are not read otherwise.
    pub fn message(&mut self, mut fields: Map<String, Value>) {
        fields.retain(|name, _| goes_back(name));
        self.bytes += join(&mut self.message, fields, &MESSAGE_FIELDS);
    }

    /// Takes the fields of a call. `id` is the id that the box knows the call by.
    pub fn call(&mut self, id: &str, mut fields: Map<String, Value>) {
        fields.retain(|name, _| goes_back(name));
        let mut known = match self.calls.remove(id) {
            Some(Value::Object(known)) => known,
            _ => Map::new(),
        };
        self.bytes += join(&mut known, fields, &CALL_FIELDS);
        if !known.is_empty() {
            self.calls.insert(id.to_owned(), Value::Object(known));
        }
    }

    /// The block for the box. Half a thought is worse than none, so there is no block if it became too long.
    pub fn block(&mut self, maker: &str) -> Option<Value> {
        let Self { message, calls, bytes } = std::mem::take(self);
        let holds = !(message.is_empty() && calls.is_empty()) && bytes <= GATHERED_MAX_BYTES;
        holds.then(|| json!({ "type": "opaque", "maker": maker, "message": message, "calls": calls }))
    }
}

/// Joins the pieces of fields: texts and lists grow, objects are joined field by field, and the newest of other values
/// counts. Returns the size of what came.
pub(super) fn join(known: &mut Map<String, Value>, fields: Map<String, Value>, ours: &[&str]) -> usize {
    let mut bytes = 0;
    for (name, value) in fields.into_iter().filter(|(name, _)| !ours.contains(&name.as_str())) {
        bytes += name.len() + value.to_string().len();
        if bytes > GATHERED_MAX_BYTES {
            break;
        }
        match (known.get_mut(&name), value) {
            (_, Value::Null) => {}
            (Some(Value::String(text)), Value::String(more)) => text.push_str(&more),
            (Some(Value::Array(list)), Value::Array(more)) => list.extend(more),
            (Some(Value::Object(object)), Value::Object(more)) => {
                join(object, more, &[]);
            }
            (_, value) => {
                known.insert(name, value);
            }
        }
    }
    bytes
}

/// The block as it comes back. The values stay raw text.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opaque<'a> {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    #[serde(default)]
    maker: String,
    #[serde(borrow, default)]
    message: Fields<&'a RawValue>,
    #[serde(borrow, default)]
    calls: Fields<Fields<&'a RawValue>>,
}

impl<'a> Opaque<'a> {
    pub(super) fn of(raw: &'a RawValue, place: &Place<'_>) -> Result<Self, ApiError> {
        if raw.get().len() > BLOCK_MAX_BYTES {
            return Err(place.refuse(format_args!("has more than {BLOCK_MAX_BYTES} bytes")));
        }
        plain(raw, place)
    }

    pub fn made_by(&self, maker: &str) -> bool {
        self.maker == maker
    }

    /// The number of its fields, for the bound on the parts of a request.
    pub fn parts(&self) -> usize {
        self.message.0.len() + self.calls.0.iter().map(|(_, fields)| 1 + fields.0.len()).sum::<usize>()
    }

    /// The fields of the message that go back.
    pub fn message(&self) -> Fields<&'a RawValue> {
        self.message.harmless()
    }

    /// The fields of a call that go back.
    pub fn call(&self, id: &str) -> Fields<&'a RawValue> {
        let call = self.calls.0.iter().find(|(known, _)| known == id);
        call.map(|(_, fields)| fields.harmless()).unwrap_or_default()
    }
}

/// The fields of an object in their order, without its tree.
#[derive(Debug, Clone)]
pub struct Fields<T>(Vec<(String, T)>);

impl<T> Default for Fields<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'a> Fields<&'a RawValue> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    pub fn push(&mut self, name: &'static str, value: &'a RawValue) {
        self.0.push((name.to_owned(), value));
    }

    /// The fields that go back and name no address. A signature holds no escaped character, so one could only hide an
    /// address.
    fn harmless(&self) -> Self {
        let plain = |value: &RawValue| !value.get().contains('\\') && !value.get().contains("://");
        let passed = Passed { levels: LEVELS_MAX, schema: false };
        let fields = self.0.iter().filter(|(name, value)| {
            goes_back(name) && (is_thought(name) || plain(value)) && passed.check(value).is_ok()
        });
        Self(fields.cloned().collect())
    }
}

impl<T: Serialize> Serialize for Fields<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Fields<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
            type Value = Fields<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an object of at most {FIELDS_MAX} fields, each once")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields: Vec<(String, T)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, T>()? {
                    if fields.len() == FIELDS_MAX || fields.iter().any(|(known, _)| *known == name) {
                        return Err(serde::de::Error::invalid_length(fields.len() + 1, &self));
                    }
                    fields.push((name, value));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(object) => object,
            other => panic!("{other}"),
        }
    }

    fn returned(block: &Value, call: &str) -> (Value, Value) {
        let raw = RawValue::from_string(block.to_string()).unwrap();
        let opaque = Opaque::of(&raw, &Place::Request).unwrap();
        let value = |fields| serde_json::to_value::<Fields<_>>(fields).unwrap();
        (value(opaque.message()), value(opaque.call(call)))
    }

    #[test]
    fn pieces_are_joined_and_come_back_as_they_were() {
        let mut gathered = Gathered::default();
        gathered
            .message(object(json!({ "reasoning_content": "see http", "role": "assistant", "content": "x" })));
        gathered
            .message(object(json!({ "reasoning_content": "://x \\", "reasoning_details": [{ "a": 1 }] })));
        gathered.message(object(json!({ "reasoning_content": null, "reasoning_details": [{ "b": "\n" }] })));
        let signature = json!({ "google": { "thought_signature": "AbC+/=" } });
        gathered.call("c", object(json!({ "index": 0, "id": "x", "extra_content": signature })));
        let block = gathered.block(&maker("p", "m")).unwrap();
        assert_eq!(block["maker"], "p/m");
        let (message, call) = returned(&block, "c");
        assert_eq!(
            message,
            json!({ "reasoning_content": "see http://x \\", "reasoning_details": [{ "a": 1 }, { "b": "\n" }] })
        );
        assert_eq!(call, json!({ "extra_content": signature }));
        assert_eq!(returned(&block, "d").1, json!({}));
        assert_eq!(gathered.block("p/m"), None, "it was taken");
    }

    #[test]
    fn a_box_cannot_write_what_the_provider_reads_or_fetches() {
        let forged = json!({
            "type": "opaque", "maker": "p/m",
            "message": {
                "role": "system", "content": [{ "type": "image_url" }], "tool_calls": [],
                "images": [{ "image_url": { "url": "https://evil.example/?d=1" } }],
                "prefix": true, "tools": [{ "type": "web_search" }], "files": "f-1",
                "reasoning_details": [[[[1]]]],
            },
            "calls": { "c": { "function": { "name": "x" }, "id": "y", "extra_content": { "u": "gs://evil" } } },
        });
        assert_eq!(returned(&forged, "c"), (json!({}), json!({})));
        let hidden = r#"{"type":"opaque","message":{"extra_content":"https:\/\/evil.example"}}"#;
        let raw = RawValue::from_string(hidden.to_owned()).unwrap();
        assert!(Opaque::of(&raw, &Place::Request).unwrap().message().is_empty());
        for wrong in [r#"{"type":"opaque","tools":[]}"#, r#"{"type":"opaque","message":[]}"#] {
            let raw = RawValue::from_string(wrong.to_owned()).unwrap();
            assert!(Opaque::of(&raw, &Place::Request).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_thought_without_end_is_left_out() {
        let mut gathered = Gathered::default();
        for _ in 0..3 {
            gathered.message(object(json!({ "reasoning_content": "x".repeat(GATHERED_MAX_BYTES / 2) })));
        }
        assert_eq!(gathered.block("p/m"), None);
    }
}
