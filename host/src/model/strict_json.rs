//! Reads the JSON of a box strictly: a field is known and given once, and its value has one type. `request` calls it.
//!
//! Nothing becomes a tree: objects and lists hold their elements as raw text. A refusal names the place, such as
//! `messages[3].content[1].source.type`, and what the gateway passes there.

use std::borrow::Cow;
use std::fmt;

use ipc_schema::refusal::quote;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::error::ApiError;

/// The most fields of one object. No object of the wire has as many.
const FIELDS_MAX: usize = 40;

/// The most characters of the parser's words that a refusal repeats. Some quote the text that could not be read, which
/// may be all of a body.
const WORDS_MAX: usize = 400;

/// The most levels of JSON that a tool's schema or the arguments of a call have.
pub(super) const LEVELS_MAX: usize = 100;

/// Where in the request a value stands.
#[derive(Clone, Copy)]
pub(super) enum Place<'p> {
    Request,
    Field(&'p Place<'p>, &'static str),
    Element(&'p Place<'p>, usize),
}

impl Place<'_> {
    fn path(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request => Ok(()),
            Self::Field(Self::Request, name) => f.write_str(name),
            Self::Field(above, name) => above.path(f).and_then(|()| write!(f, ".{name}")),
            Self::Element(above, n) => above.path(f).and_then(|()| write!(f, "[{n}]")),
        }
    }

    pub fn refuse(&self, why: impl fmt::Display) -> ApiError {
        ApiError::invalid(format!("{self} {why}"))
    }

    fn unreadable(&self, error: &serde_json::Error) -> ApiError {
        let why: String = error.to_string().chars().take(WORDS_MAX).collect();
        self.refuse(format_args!("is not of the Messages wire as the gateway passes it: {why}"))
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request => f.write_str("the request"),
            _ => f.write_str("`").and_then(|()| self.path(f)).and_then(|()| f.write_str("`")),
        }
    }
}

/// A text as its token in the JSON. It is written as it came, so that a long text is not copied.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(transparent)]
pub struct Text<'a>(&'a RawValue);

#[derive(Deserialize)]
struct Decoded<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Text<'a> {
    pub(super) fn of(raw: &'a RawValue, place: &Place<'_>) -> Result<Self, ApiError> {
        serde_json::from_str::<Decoded<'_>>(raw.get())
            .map(|_| Self(raw))
            .map_err(|error| place.unreadable(&error))
    }

    /// The words, without quotes and escapes.
    pub fn read(self) -> Cow<'a, str> {
        // `of` has decoded it.
        serde_json::from_str::<Decoded<'_>>(self.0.get()).map(|text| text.0).unwrap_or_default()
    }
}

/// A value of a type without parts, such as a number.
pub(super) fn plain<'a, T: Deserialize<'a>>(raw: &'a RawValue, place: &Place<'_>) -> Result<T, ApiError> {
    serde_json::from_str(raw.get()).map_err(|error| place.unreadable(&error))
}

pub(super) fn is_list(raw: &RawValue) -> bool {
    raw.get().starts_with('[')
}

/// The elements of a list of at most `most`.
pub(super) fn list<'a>(
    raw: &'a RawValue,
    place: &Place<'_>,
    most: usize,
) -> Result<Vec<&'a RawValue>, ApiError> {
    struct Elements(usize);
    impl<'de> Visitor<'de> for Elements {
        type Value = Vec<&'de RawValue>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {} elements", self.0)
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut elements = Vec::new();
            while let Some(element) = seq.next_element()? {
                if elements.len() == self.0 {
                    return Err(serde::de::Error::invalid_length(self.0 + 1, &self));
                }
                elements.push(element);
            }
            Ok(elements)
        }
    }
    let mut json = serde_json::Deserializer::from_str(raw.get());
    json.deserialize_seq(Elements(most)).map_err(|error| place.unreadable(&error))
}

/// An object while its fields are taken out of it.
pub(super) struct Object<'a, 'p> {
    place: &'p Place<'p>,
    fields: Vec<(Cow<'a, str>, &'a RawValue)>,
    /// The fields that were asked for: those that may pass.
    known: Vec<&'static str>,
}

impl<'a, 'p> Object<'a, 'p> {
    pub fn of(raw: &'a RawValue, place: &'p Place<'p>) -> Result<Self, ApiError> {
        Self::from(serde_json::from_str(raw.get()), place)
    }

    pub fn of_body(body: &'a [u8], place: &'p Place<'p>) -> Result<Self, ApiError> {
        Self::from(serde_json::from_slice(body), place)
    }

    fn from(read: serde_json::Result<Fields<'a>>, place: &'p Place<'p>) -> Result<Self, ApiError> {
        let Fields(fields) = read.map_err(|error| place.unreadable(&error))?;
        Ok(Self { place, fields, known: Vec::new() })
    }

    pub fn place(&self) -> &'p Place<'p> {
        self.place
    }

    /// The value of a field that may be left out.
    pub fn take(&mut self, name: &'static str) -> Option<&'a RawValue> {
        self.known.push(name);
        let at = self.fields.iter().position(|(known, _)| known == name)?;
        Some(self.fields.swap_remove(at).1)
    }

    /// The value of a field that may be left out, as `read` makes it.
    pub fn maybe<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&'a RawValue, &Place<'_>) -> Result<T, ApiError>,
    ) -> Result<Option<T>, ApiError> {
        let place = Place::Field(self.place, name);
        self.take(name).map(|raw| read(raw, &place)).transpose()
    }

    /// The value of a field that must be there.
    pub fn needed<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&'a RawValue, &Place<'_>) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let value = self.maybe(name, read)?;
        value.ok_or_else(|| Place::Field(self.place, name).refuse("is missing"))
    }

    /// A text that is one of `allowed`.
    pub fn one_of(
        &mut self,
        name: &'static str,
        allowed: &'static [&'static str],
    ) -> Result<&'static str, ApiError> {
        self.needed(name, |raw, place| one_of(raw, place, allowed))
    }

    /// Refuses the fields that were not taken.
    pub fn end(self) -> Result<(), ApiError> {
        match self.fields.first() {
            None => Ok(()),
            Some((name, _)) => Err(self.place.refuse(format_args!(
                "has the field {}; the gateway passes only {}",
                quote(name, 80),
                self.known.join(", ")
            ))),
        }
    }
}

pub(super) fn one_of(
    raw: &RawValue,
    place: &Place<'_>,
    allowed: &'static [&'static str],
) -> Result<&'static str, ApiError> {
    let given = Text::of(raw, place)?.read();
    allowed.iter().find(|known| **known == given).copied().ok_or_else(|| {
        place.refuse(format_args!("is {}; the gateway passes only {}", quote(&given, 80), allowed.join(", ")))
    })
}

/// The fields of an object, each once.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an object of at most {FIELDS_MAX} fields, each once")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields: Self::Value = Vec::new();
                while let Some((Decoded(name), value)) = map.next_entry()? {
                    if fields.len() == FIELDS_MAX || fields.iter().any(|(known, _)| *known == name) {
                        return Err(serde::de::Error::invalid_length(fields.len() + 1, &self));
                    }
                    fields.push((name, value));
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Map).map(Fields)
    }
}

/// Checks JSON that passes as it is, because only the tool or the model reads it: the arguments of a call, a tool's
/// schema, what belongs to a provider.
#[derive(Clone, Copy)]
pub(super) struct Passed {
    /// The most levels of objects and lists.
    pub levels: usize,
    /// Whether it is a schema. A server that resolves references would fetch one that leaves the schema.
    pub schema: bool,
}

/// The fields by which a schema refers to another one.
const REFERENCES: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];

impl Passed {
    pub fn check(self, raw: &RawValue) -> serde_json::Result<()> {
        self.deserialize(&mut serde_json::Deserializer::from_str(raw.get()))
    }

    /// An object that passes as it is.
    pub fn object<'a>(self, raw: &'a RawValue, place: &Place<'_>) -> Result<&'a RawValue, ApiError> {
        if !raw.get().starts_with('{') {
            return Err(place.refuse("is not an object"));
        }
        self.check(raw).map(|()| raw).map_err(|error| place.unreadable(&error))
    }

    fn below<E: serde::de::Error>(self) -> Result<Self, E> {
        let levels = self.levels.checked_sub(1).ok_or_else(|| E::custom("it has too many levels"))?;
        Ok(Self { levels, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Passed {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Passed {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let below = self.below()?;
        while seq.next_element_seed(below)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let below = self.below()?;
        while let Some(Decoded(name)) = map.next_key()? {
            if !self.schema || !REFERENCES.contains(&&*name) {
                map.next_value_seed(below)?;
                continue;
            }
            // A property of this name has a schema as its value.
            let value: &RawValue = map.next_value()?;
            if !value.get().starts_with(['"', '{']) || value.get().starts_with('"') && !is_within(value) {
                return Err(serde::de::Error::custom(format_args!(
                    "{name} leads out of the schema; it must begin with #"
                )));
            }
            below.check(value).map_err(serde::de::Error::custom)?;
        }
        Ok(())
    }
}

/// Whether a reference stays within its schema.
fn is_within(reference: &RawValue) -> bool {
    serde_json::from_str::<Decoded<'_>>(reference.get()).is_ok_and(|text| text.0.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn a_refusal_names_the_place_and_what_passes_there() {
        let (messages, third) = (Place::Field(&Place::Request, "messages"), raw(r#"{"type":"url","x":1}"#));
        let entry = Place::Element(&messages, 3);
        let source = Place::Field(&entry, "source");
        let mut object = Object::of(&third, &source).unwrap();
        let refused = object.one_of("type", &["base64"]).unwrap_err().message;
        assert_eq!(refused, "`messages[3].source.type` is \"url\"; the gateway passes only base64");
        let refused = object.end().unwrap_err().message;
        assert_eq!(refused, "`messages[3].source` has the field \"x\"; the gateway passes only type");
        let mut object = Object::of(&third, &source).unwrap();
        let missing = object.needed("data", Text::of).unwrap_err().message;
        assert_eq!(missing, "`messages[3].source.data` is missing");
    }

    #[test]
    fn a_field_is_given_once_however_it_is_spelled() {
        for twice in [r#"{"a":1,"a":1}"#, r#"{"type":1,"\u0074ype":2}"#] {
            assert!(Object::of(&raw(twice), &Place::Request).is_err(), "{twice}");
        }
    }

    #[test]
    fn what_passes_as_it_is_has_bounded_levels_and_fetches_nothing() {
        let passes = |schema, json: &str| Passed { levels: 3, schema }.check(&raw(json)).is_ok();
        assert!(passes(false, r#"{"a":[[1,2.5,"x",null,true]]}"#) && !passes(false, r#"{"a":[[[]]]}"#));
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(Passed { levels: usize::MAX, schema: false }.check(&raw(&deep)).is_err());
        assert!(passes(true, r##"{"$ref":"#/$defs/a","properties":{"$ref":{"type":"string"}}}"##));
        for out in [
            r#"{"$ref":"http://evil.example/?d=1"}"#,
            r#"{"\u0024ref":"\u0068ttp://evil.example"}"#,
            r#"{"a":[{"$dynamicRef":"other.json"}]}"#,
            r#"{"$ref":["http://evil.example"]}"#,
            r#"{"$ref":{"$ref":"//evil.example"}}"#,
        ] {
            assert!(!passes(true, out) && passes(false, out), "{out}");
        }
    }
}
