//! Fuzz targets for everything that parses bytes of a box or a provider, with the properties that must hold.

use bytes::Bytes;
use ipc_schema::server_sent_events::EventParser;
use serde_json::Value;

use super::anthropic::{self, PassThrough, Thoughts};
use super::configured_providers::ProviderSettings;
use super::dialect::Dialect;
use super::openai_stream::Translator;
use super::redact::{self, Redactor};
use super::request::ModelRequest;
use super::token_meter::TokenMeter;
use super::{known_keys, openai, openai_answer, price, refusal, retry_policy, write_events};
use crate::domain::{ProviderKind, Secret};

/// Splits the bytes as a network would: the first byte is the length of a piece.
fn pieces(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (step, rest) = data.split_first().map_or((1, data), |(step, rest)| (usize::from(*step).max(1), rest));
    rest.chunks(step)
}

/// What is written of a request that passes has known fields only, for each kind of provider, and passes again.
pub fn model_request(data: &[u8]) {
    let Ok(request) = ModelRequest::parse(data) else { return };
    let settings = ProviderSettings::new("p", ProviderKind::Openai);
    for thoughts in [Thoughts::None, Thoughts::Signed, Thoughts::All] {
        let Ok(body) = anthropic::body(&request, "m", 100, thoughts) else { panic!("it cannot be written") };
        let value = checked(&body, known_keys::MESSAGES);
        assert!(value["max_tokens"].as_u64().is_some_and(|most| most <= 100));
        let again = ModelRequest::parse(&body).map_err(|error| error.message);
        let again = again
            .and_then(|again| anthropic::body(&again, "m", 100, thoughts).map_err(|error| error.message));
        assert_eq!(again.as_deref(), Ok(&body[..]), "what was forwarded does not pass again");
    }
    let Ok(body) = openai::body(&request, &settings, "m", 100, Dialect::default()) else {
        panic!("it cannot be written")
    };
    checked(&body, known_keys::CHAT);
}

fn checked(body: &[u8], table: &known_keys::Table) -> Value {
    let Ok(value) = serde_json::from_slice::<Value>(body) else { panic!("what is forwarded is no JSON") };
    assert_eq!(value["model"], "m", "the host chooses the model");
    let strays = known_keys::strays(&value, table);
    assert!(strays.is_empty(), "{strays:#?} in {value:#}");
    value
}

/// Server-sent events are the same however the network cuts them.
pub fn events(data: &[u8]) {
    let whole = {
        let mut parser = EventParser::default();
        let mut events = parser.feed(data.get(1..).unwrap_or_default()).unwrap_or_default();
        events.extend(parser.finish());
        events
    };
    let mut parser = EventParser::default();
    let mut cut: Vec<_> = pieces(data).flat_map(|piece| parser.feed(piece).unwrap_or_default()).collect();
    cut.extend(parser.finish());
    assert_eq!(cut, whole);
}

/// An Anthropic stream loses and gains nothing on its way to the box, and the meter can read it.
pub fn anthropic_stream(data: &[u8]) {
    let (mut pass, mut meter, mut passed) = (PassThrough::default(), TokenMeter::default(), Vec::new());
    for piece in pieces(data) {
        let Ok(bytes) = pass.feed(Bytes::copy_from_slice(piece)) else { return };
        meter.stream(&bytes);
        passed.extend_from_slice(&bytes);
    }
    let sent = data.get(1..).unwrap_or_default();
    assert!(passed.is_empty() || passed == sent, "bytes were lost on the way");
    let (tokens, _) = meter.total(Some(sent.len()));
    let _ = price::cost("claude-sonnet-4-5", &tokens);
}

/// A stream of chat completion chunks always becomes the Messages wire, block after block, and says the same however
/// the network cuts it.
pub fn openai_stream(data: &[u8]) {
    let bytes = data.get(1..).unwrap_or_default();
    let (whole, cut) = (translated(std::iter::once(bytes)), translated(pieces(data)));
    assert_eq!(whole.is_some(), cut.is_some());
    let (Some(whole), Some(cut)) = (whole, cut) else { return };
    assert_eq!(said(&whole), said(&cut));
    let kinds: Vec<&str> = cut.iter().filter_map(|event| event["type"].as_str()).collect();
    assert_eq!(kinds.len(), cut.len());
    assert!(kinds.first().is_none_or(|kind| *kind == "message_start"), "{kinds:?}");
    let ends = kinds.iter().filter(|kind| **kind == "message_stop").count();
    assert!(ends <= 1 && (ends == 0 || kinds.last() == Some(&"message_stop")), "{kinds:?}");
    let (mut open, mut next) = (None, 0);
    for event in &cut {
        let index = event["index"].as_u64();
        match event["type"].as_str().unwrap_or_default() {
            "content_block_start" => {
                assert_eq!((open, index), (None, Some(next)), "blocks overlap");
                open = index;
            }
            "content_block_delta" => assert_eq!(index, open),
            "content_block_stop" => {
                assert_eq!(index, open.take());
                next += 1;
            }
            _ => {}
        }
    }
    assert!(ends == 0 || open.is_none(), "a block stayed open");
}

/// The events of a stream; `None` after an error.
fn translated<'a>(mut pieces: impl Iterator<Item = &'a [u8]>) -> Option<Vec<Value>> {
    let (mut translator, mut out) = (Translator::new("p", "m", 40), Vec::new());
    pieces.try_for_each(|piece| translator.feed(piece).map(|bytes| out.extend_from_slice(&bytes))).ok()?;
    out.extend_from_slice(&translator.finish().ok()?);
    Some(as_events(&out))
}

/// Texts, thoughts and arguments, and the names of the calls.
fn said(events: &[Value]) -> [String; 4] {
    let joined = |field: &str| events.iter().filter_map(|event| event["delta"][field].as_str()).collect();
    let names = events.iter().filter_map(|event| event["content_block"]["name"].as_str());
    [joined("text"), joined("thinking"), joined("partial_json"), names.collect::<Vec<_>>().join(" ")]
}

fn as_events(wire: &[u8]) -> Vec<Value> {
    let events = EventParser::default().feed(wire).unwrap_or_default();
    events.iter().map(|event| serde_json::from_str(event).unwrap_or(Value::Null)).collect()
}

/// A completion that was not streamed becomes a message, and its events carry the same counts.
pub fn openai_answer(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Some(openai_answer::Message { message, .. }) = openai_answer::message(&text, "p", "m", 40) else {
        return;
    };
    let (mut streamed, mut whole) = (TokenMeter::default(), TokenMeter::default());
    streamed.stream(&write_events::of_message(&message));
    whole.whole(message.to_string().as_bytes());
    assert!(streamed.ended());
    assert_eq!(streamed.total(None), whole.total(None));
    let _ = price::cost("gpt-5", &whole.total(None).0);
}

/// A provider's error gets a meaning and a message, and its `retry-after` becomes a duration.
pub fn provider_error(data: &[u8]) {
    for refusal in [400, 404, 429, 500].map(|status| refusal::classify(status, None, data)) {
        assert!(refusal.said.len() <= data.len().max(1_000));
        let error = refusal.error(refusal.said.clone());
        assert!((400..600).contains(&error.status) && !error.kind.is_empty());
    }
    let _ = refusal::in_answer(data);
    let text = String::from_utf8_lossy(data);
    let (value, date) = text.split_once('\n').unwrap_or((&text, ""));
    let _ = retry_policy::parse_retry_after(Some(value), Some(date));
}

/// No key passes, however the stream is cut, and bytes without a key stay as they are.
pub fn redaction(data: &[u8]) {
    const KEYS: [&str; 3] = ["sk-ant-0123456789", "0123456789-sk-ant-", "aaaaaaaaaaaab"];
    let keys = KEYS.map(Secret::new);
    let mut redactor = Redactor::new(&keys);
    let mut out = Vec::new();
    for piece in pieces(data) {
        out.extend_from_slice(&redactor.feed(Bytes::copy_from_slice(piece)));
    }
    out.extend_from_slice(&redactor.finish());
    let forms: Vec<_> = KEYS.iter().flat_map(|key| redact::forms(key.as_bytes())).collect();
    let is_in =
        |bytes: &[u8], form: &[u8]| bytes.windows(form.len()).any(|bytes| bytes.eq_ignore_ascii_case(form));
    let holds = |bytes: &[u8]| forms.iter().any(|form| is_in(bytes, form));
    let sent = data.get(1..).unwrap_or_default();
    assert!(!holds(&out), "a key went out");
    assert!(!holds(&redactor.whole(Bytes::copy_from_slice(sent))), "a key went out whole");
    assert!(holds(sent) || out == sent, "bytes were changed that are no key");
}
