//! The envelope around every letter, and its two parsers: a strict one for letters of the box, a lenient one for
//! letters of the host.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ids::{LetterId, RunId, TurnId};
use crate::letters::{FromAgent, ToAgent};
use crate::refusal::{Refusal, RefusalCode, quote};
use crate::{LETTER_MAX_BYTES, VERSION, names_and_paths};

/// One letter: the envelope's fields and a body of one direction.
#[derive(Debug, Clone, PartialEq)]
pub struct Letter<B> {
    /// Derived from the content, so that a repeat has the same id.
    pub id: LetterId,
    /// The run. The reader checks it against the directory and never trusts it.
    pub run: RunId,
    /// The turn; absent in `begin`, `ready`, `failed`, `_close` and an idle `status`.
    pub turn: Option<TurnId>,
    /// The letter's number in its direction, from 1. In `_close`: the highest number that the host wrote.
    pub n: u64,
    /// Acknowledges letters of the other direction: the highest number such that it and all before it are handled.
    pub ack: u64,
    /// The writer's wall clock, RFC 3339. It is for people, and no decision depends on it.
    pub at: String,
    /// The content, by the letter's type.
    pub body: B,
}

/// A letter from the host to the box.
pub type ToAgentLetter = Letter<ToAgent>;
/// A letter from the box to the host.
pub type FromAgentLetter = Letter<FromAgent>;

#[derive(Serialize)]
struct Out<'a, B> {
    v: u32,
    id: &'a LetterId,
    run: &'a RunId,
    #[serde(skip_serializing_if = "Option::is_none")]
    turn: Option<TurnId>,
    n: u64,
    ack: u64,
    at: &'a str,
    #[serde(flatten)]
    body: &'a B,
}

/// The envelope as the strict parser reads it: `deny_unknown_fields`, and the derive refuses duplicate fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StrictIn<'a> {
    v: u32,
    id: LetterId,
    run: RunId,
    #[serde(default)]
    turn: Option<TurnId>,
    n: u64,
    ack: u64,
    at: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    body: &'a RawValue,
}

#[derive(Deserialize)]
struct LenientIn<'a> {
    v: u32,
    id: LetterId,
    run: RunId,
    #[serde(default)]
    turn: Option<TurnId>,
    n: u64,
    ack: u64,
    at: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    body: &'a RawValue,
}

impl<B: Serialize> Letter<B> {
    /// The letter's bytes: indented JSON and a newline, because people read these files too.
    ///
    /// # Errors
    /// [`RefusalCode::TooBig`] when the letter exceeds [`LETTER_MAX_BYTES`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, Refusal> {
        let Self { id, run, turn, n, ack, at, body } = self;
        let out = Out { v: VERSION, id, run, turn: *turn, n: *n, ack: *ack, at, body };
        let mut bytes = serde_json::to_vec_pretty(&out)
            .map_err(|e| Refusal::new(RefusalCode::Json, format!("cannot write the letter as JSON: {e}")))?;
        bytes.push(b'\n');
        if bytes.len() as u64 > LETTER_MAX_BYTES {
            return Err(too_big(bytes.len() as u64));
        }
        Ok(bytes)
    }
}

impl ToAgentLetter {
    /// The file name under which this letter is written.
    pub fn file_name(&self) -> String {
        match self.body {
            ToAgent::Close(_) => names_and_paths::CLOSE.to_owned(),
            _ => names_and_paths::letter_name(self.n, self.body.kind()),
        }
    }

    /// Parses a letter of the host. Unknown fields are ignored.
    ///
    /// # Errors
    /// [`RefusalCode::Json`], [`RefusalCode::Schema`], [`RefusalCode::Version`], or [`RefusalCode::Unsupported`]
    /// for a type this runner does not know: it may pass over such a letter.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let text = utf8(bytes)?;
        let LenientIn { v, id, run, turn, n, ack, at, kind, body } = one_value(text)?;
        same_version(v)?;
        let body = match kind.as_str() {
            "begin" => ToAgent::Begin(Box::new(one_value(body.get())?)),
            "input" => ToAgent::Input(one_value(body.get())?),
            "response" => ToAgent::Response(one_value(body.get())?),
            "interrupt" => ToAgent::Interrupt(one_value(body.get())?),
            "close" => ToAgent::Close(one_value(body.get())?),
            other => {
                let reason = format!("unknown letter type {}", quote(other, 40));
                return Err(Refusal::new(RefusalCode::Unsupported, reason));
            }
        };
        Ok(Self { id, run, turn, n, ack, at, body })
    }
}

impl FromAgentLetter {
    /// The file name under which this letter is written.
    pub fn file_name(&self) -> String {
        names_and_paths::letter_name(self.n, self.body.kind())
    }

    /// Reads a letter of the box, strictly: unknown or doubled fields, NUL and trailing bytes are refused, and so
    /// is an envelope that needs a turn and has none, or has one where there is none.
    ///
    /// The caller still has to hold the envelope against what only it knows: the directory's run and number, the
    /// open turn, what was consumed.
    ///
    /// # Errors
    /// [`RefusalCode::TooBig`], [`RefusalCode::Json`], [`RefusalCode::Schema`], [`RefusalCode::Version`] or
    /// [`RefusalCode::Envelope`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() as u64 > LETTER_MAX_BYTES {
            return Err(too_big(bytes.len() as u64));
        }
        let text = utf8(bytes)?;
        let StrictIn { v, id, run, turn, n, ack, at, kind, body } = one_value(text)?;
        same_version(v)?;
        no_nul(text)?;
        let body = match kind.as_str() {
            "ready" => FromAgent::Ready(one_value(body.get())?),
            "draft" => FromAgent::Draft(one_value(body.get())?),
            "message" => FromAgent::Message(one_value(body.get())?),
            "request" => FromAgent::Request(one_value(body.get())?),
            "status" => FromAgent::Status(one_value(body.get())?),
            "turn_done" => FromAgent::TurnDone(one_value(body.get())?),
            "failed" => FromAgent::Failed(one_value(body.get())?),
            other => {
                let reason = format!("unknown letter type {}", quote(other, 40));
                return Err(Refusal::new(RefusalCode::Schema, reason));
            }
        };
        let letter = Self { id, run, turn, n, ack, at, body };
        letter.check_turn()?;
        if !is_time(&letter.at) {
            return Err(Refusal::new(RefusalCode::Schema, "`at` is not an RFC 3339 time"));
        }
        Ok(letter)
    }

    /// A letter inside a turn must name the turn, and its id must belong to it. A letter between turns must not name
    /// one.
    fn check_turn(&self) -> Result<(), Refusal> {
        let refused =
            |why: &str| Err(Refusal::new(RefusalCode::Envelope, format!("{}: {why}", self.body.kind())));
        match (&self.body, self.turn) {
            (FromAgent::Ready(_) | FromAgent::Failed(_), Some(_)) => refused("must not name a turn"),
            (FromAgent::Ready(_) | FromAgent::Failed(_) | FromAgent::Status(_), _) => Ok(()),
            (_, None) => refused("must name a turn"),
            (FromAgent::Draft(_), Some(_)) => Ok(()),
            (_, Some(turn)) if !self.id.belongs_to(turn) => refused("the id belongs to another turn"),
            (_, Some(_)) => Ok(()),
        }
    }
}

fn too_big(bytes: u64) -> Refusal {
    Refusal::new(
        RefusalCode::TooBig,
        format!("{bytes} bytes, at most {LETTER_MAX_BYTES}; put large things into a file and name it"),
    )
}

fn same_version(v: u32) -> Result<(), Refusal> {
    if v == VERSION {
        return Ok(());
    }
    Err(Refusal::new(RefusalCode::Version, format!("version {v}; this side speaks {VERSION}")))
}

fn utf8(bytes: &[u8]) -> Result<&str, Refusal> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(Refusal::new(RefusalCode::Schema, "starts with a byte order mark"));
    }
    std::str::from_utf8(bytes).map_err(|e| Refusal::new(RefusalCode::Json, format!("not UTF-8: {e}")))
}

/// Whether `text` has the shape of an RFC 3339 time in capitals with at most nine digits of a second. It does not
/// check that the day exists: people read the field in terminals, so it must hold nothing but a time.
fn is_time(text: &str) -> bool {
    let shaped = |text: &str, shape: &str| {
        let fits = |(c, s): (u8, u8)| if s == b'0' { c.is_ascii_digit() } else { c == s };
        text.len() == shape.len() && text.bytes().zip(shape.bytes()).all(fits)
    };
    let Some((moment, rest)) = text.split_at_checked(19) else { return false };
    let offset = rest.strip_prefix('.').map_or(rest, |fraction| {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        // A point without digits, or with too many, leaves a rest that is no offset.
        if (1..=9).contains(&digits) { fraction.get(digits..).unwrap_or_default() } else { rest }
    });
    shaped(moment, "0000-00-00T00:00:00") && ["Z", "+00:00", "-00:00"].iter().any(|o| shaped(offset, o))
}

/// Parses exactly one JSON object. serde_json stops at depth 128. An array is refused first, because the derive would
/// read it as a struct by position.
fn one_value<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Refusal> {
    if text.trim_ascii_start().starts_with('[') {
        return Err(Refusal::new(RefusalCode::Schema, "expected an object, found an array"));
    }
    let mut de = serde_json::Deserializer::from_str(text);
    let value = T::deserialize(&mut de).map_err(|e| {
        let code = if e.is_data() { RefusalCode::Schema } else { RefusalCode::Json };
        // serde quotes unknown field names verbatim, and the box chose them.
        Refusal::new(code, quote(&e.to_string(), 200))
    })?;
    de.end().map_err(|_| Refusal::new(RefusalCode::Schema, "extra bytes after the end of the letter"))?;
    Ok(value)
}

/// Refuses `\u0000`, which serde_json accepts but C programs, SQLite and terminals treat differently. In valid JSON a
/// backslash stands only inside a string, so escapes can be found without a parser.
fn no_nul(text: &str) -> Result<(), Refusal> {
    let bytes = text.as_bytes();
    let mut i = 0;
    while let Some(offset) = bytes.get(i..).and_then(|rest| rest.iter().position(|b| *b == b'\\')) {
        let escape = i + offset + 1;
        if bytes.get(escape..escape + 5) == Some(b"u0000") {
            return Err(Refusal::new(RefusalCode::Json, "contains a NUL character"));
        }
        i = escape + 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "019ab000-0000-7000-8000-000000000001";

    fn message(body: &str) -> String {
        format!(
            r#"{{"v":1,"id":"t-1:2.0","run":"{RUN}","turn":"t-1","n":2,"ack":2,"at":"2026-11-21T10:00:00Z","type":"message","body":{body}}}"#
        )
    }

    fn code(text: &str) -> RefusalCode {
        FromAgentLetter::parse(text.as_bytes()).unwrap_err().code
    }

    #[test]
    fn a_plain_letter_is_taken() {
        let letter = FromAgentLetter::parse(message(r#"{"text":"hi"}"#).as_bytes()).unwrap();
        assert_eq!(letter.file_name(), "0000000002-message.json");
        assert!(matches!(letter.body, FromAgent::Message(m) if m.text == "hi"));
    }

    #[test]
    fn a20_depth_of_a_million_stops_early() {
        let deep = "[".repeat(100_000);
        assert_eq!(code(&deep), RefusalCode::Schema);
        assert!(matches!(code(&message(&deep)), RefusalCode::Json | RefusalCode::Schema));
        let nested = r#"{"a":"#.repeat(40_000);
        assert!(matches!(code(&nested), RefusalCode::Json | RefusalCode::Schema));
        let closed = format!(r#"{{"text":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(matches!(code(&message(&closed)), RefusalCode::Json | RefusalCode::Schema));
    }

    #[test]
    fn a22_doubled_unknown_and_trailing_are_not_the_schema() {
        assert_eq!(code(&message(r#"{"text":"a","text":"b"}"#)), RefusalCode::Schema);
        assert_eq!(code(&message(r#"{"text":"a","main":true}"#)), RefusalCode::Schema);
        assert_eq!(code(&format!("{} x", message(r#"{"text":"a"}"#))), RefusalCode::Schema);
        assert_eq!(code(&format!("\u{feff}{}", message(r#"{"text":"a"}"#))), RefusalCode::Schema);
        let doubled = message(r#"{"text":"a"}"#).replacen(r#""n":2"#, r#""n":2,"n":3"#, 1);
        assert_eq!(code(&doubled), RefusalCode::Schema);
    }

    #[test]
    fn a23_bad_text_is_not_json() {
        assert_eq!(FromAgentLetter::parse(b"{\"v\":1,\"id\":\"\xff\"}").unwrap_err().code, RefusalCode::Json);
        assert_eq!(code(&message(r#"{"text":"\ud800"}"#)), RefusalCode::Json);
        assert_eq!(code(&message(r#"{"text":"a\u0000b"}"#)), RefusalCode::Json);
        assert_eq!(code(&message(r#"{"text":1e400}"#)), RefusalCode::Json);
        // An escaped backslash before `u0000` is six harmless characters.
        assert!(FromAgentLetter::parse(message(r#"{"text":"a\\u0000b"}"#).as_bytes()).is_ok());
    }

    #[test]
    fn a27_a_letter_of_another_turn_is_caught_by_its_own_id() {
        let forged = message(r#"{"text":"a"}"#).replace("\"t-1:2.0\"", "\"t-9:2.0\"");
        assert_eq!(code(&forged), RefusalCode::Envelope);
        let turnless = message(r#"{"text":"a"}"#).replace(r#""turn":"t-1","#, "");
        assert_eq!(code(&turnless), RefusalCode::Envelope);
    }

    #[test]
    fn a_time_is_a_time_and_nothing_for_a_terminal() {
        let at = |at: &str| message(r#"{"text":"a"}"#).replace("2026-11-21T10:00:00Z", at);
        for time in
            ["2026-11-21T10:00:00.250Z", "2026-11-21T10:00:00.123456789+05:30", "2026-11-21T10:00:00-08:00"]
        {
            assert!(FromAgentLetter::parse(at(time).as_bytes()).is_ok(), "{time}");
        }
        let drives = [
            r"\u001b]0;PWNED\u0007",
            r"\u001b[2J",
            r"2026-11-21T10:00:00Z\u001b[31m",
            r"2026-11-21T10:00:0\u202e",
        ];
        let others = [
            "",
            "x",
            "1795260780000",
            "2026-11-21",
            "2026-11-21T10:00:00",
            "2026-11-21T10:00:00.Z",
            "2026-11-21 10:00:00Z",
        ];
        for other in drives.into_iter().chain(others) {
            assert_eq!(code(&at(other)), RefusalCode::Schema, "{other}");
        }
        assert_eq!(code(&at(&format!("2026-11-21T10:00:00.{}Z", "0".repeat(10)))), RefusalCode::Schema);
    }

    #[test]
    fn an_unknown_request_is_answered_not_refused() {
        let text = message(r#"{"kind":"open_door","args":{"deep":[1,2,{"a":null}]}}"#)
            .replace(r#""type":"message""#, r#""type":"request""#);
        let letter = FromAgentLetter::parse(text.as_bytes()).unwrap();
        assert_eq!(
            letter.body,
            FromAgent::Request(crate::letters::Request::Unsupported { kind: "open_door".into() })
        );
    }
}
