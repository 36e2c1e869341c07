//! What the host writes into one letter fits into it, whatever people, agents and owners have written. `config`,
//! `store` and `run` call this module before they write a letter. JSON writes a control character as six bytes, so
//! texts are measured as they stand in the letter.
//!
//! | part of `begin` | at most |
//! |---|---|
//! | each `CLAUDE.md` | 80 KiB ([`UpdatePersonality::ESCAPED_MAX_BYTES`](ipc_schema::requests::UpdatePersonality)) |
//! | the tool rules | [`RULES`] |
//! | what owners always allow | [`ALLOWED`] |
//! | the ids of processed letters | [`IDS`] |
//! | everything else | 8 KiB |

use ipc_schema::letters::to_agent::{AlwaysAllowed, Begin, Text, Verdict};
use ipc_schema::{LETTER_MAX_BYTES, LetterId, RefusalCode, escaped, sha256_hex};
use serde::Serialize;
use serde_json::Value;

use crate::domain::message::{Attachment, StoredMessage};

/// Bytes of the tool rules of a group.
pub const RULES: usize = 24 * 1024;
/// Bytes of what owners always allow. An owner is asked again about what does not fit.
pub const ALLOWED: usize = 24 * 1024;
/// Bytes of the ids of processed letters. The runner writes the others again, and the host knows them.
pub const IDS: usize = 40 * 1024;
/// Bytes of a letter's body. The rest is for the envelope.
const BODY: usize = LETTER_MAX_BYTES as usize - 1024;
/// Bytes of the quoted beginning of another message.
const QUOTE: usize = 4 * 1024;
const CUT: &str = "\n\n… (cut here: the whole text does not fit into a letter)";
/// No text is cut to less than this.
const LEAST: usize = 200;

/// The bytes of a tool rule in `begin`: its texts, names of fields and indentation.
pub fn rule_bytes(tool: &str, command: Option<&str>) -> usize {
    110 + escaped::len(tool) + command.map_or(0, escaped::len)
}

/// The first of them that fit.
pub fn allowed_that_fit(all: impl Iterator<Item = AlwaysAllowed>) -> Vec<AlwaysAllowed> {
    that_fit(all, ALLOWED, |one| rule_bytes(&one.tool, one.command.as_deref()))
}

/// The first of them that fit.
pub fn ids_that_fit(all: impl Iterator<Item = LetterId>) -> Vec<LetterId> {
    that_fit(all, IDS, |id| id.as_str().len() + 16)
}

fn that_fit<T>(all: impl Iterator<Item = T>, room: usize, bytes: impl Fn(&T) -> usize) -> Vec<T> {
    let mut taken = 0;
    all.take_while(|one| {
        taken += bytes(one);
        taken <= room
    })
    .collect()
}

/// A text cut to `most` bytes, under a digest of its own: an agent that knows only the beginning cannot replace the
/// whole.
pub fn cut_text(text: Text, most: usize) -> Text {
    let mut text = text.text;
    cut(&mut text, most);
    Text { sha256: sha256_hex(text.as_bytes()), text }
}

/// Takes away from `begin`, in this order, until it fits. Returns what, for the log and the operator.
pub fn fit_begin(begin: &mut Begin) -> Vec<&'static str> {
    type Step = fn(&mut Begin, usize) -> bool;
    let steps: [(&str, Step); 5] = [
        ("the list of closed turns", |begin, _| emptied(&mut begin.closed)),
        ("what owners always allow", |begin, _| emptied(&mut begin.allowed)),
        ("the end of global/CLAUDE.md", |begin, over| shortened(&mut begin.claude_md_global, over)),
        ("the end of its CLAUDE.md", |begin, over| shortened(&mut begin.claude_md_group, over)),
        ("the list of processed letters", |begin, _| {
            begin.open.as_mut().is_some_and(|open| emptied(&mut open.consumed))
        }),
    ];
    let mut left_out = Vec::new();
    for (what, step) in steps {
        match size(begin, 1).saturating_sub(BODY) {
            0 => break,
            over if step(begin, over) => left_out.push(what),
            _ => {}
        }
    }
    left_out
}

fn emptied<T>(list: &mut Vec<T>) -> bool {
    !std::mem::take(list).is_empty()
}

fn shortened(text: &mut Option<Text>, over: usize) -> bool {
    let Some(whole) = text.take() else { return false };
    let most = escaped::len(&whole.text).saturating_sub(over);
    *text = (most >= LEAST).then(|| cut_text(whole, most));
    true
}

/// The size of a message in a letter: its texts, and an allowance for names and punctuation.
pub fn weight(m: &StoredMessage) -> usize {
    escaped::len(&m.text) + besides_text(m)
}

fn besides_text(m: &StoredMessage) -> usize {
    let quoted = m.reply_to.as_ref().map_or(0, |quote| escaped::len(&quote.text));
    let file = |file: &Attachment| {
        let texts = [&file.problem, &file.transcript, &file.no_transcript].into_iter().flatten();
        1_000 + escaped::len(&file.mime) + texts.map(|text| escaped::len(text)).sum::<usize>()
    };
    quoted + m.attachments.iter().map(file).sum::<usize>() + 1_200
}

/// Cuts what is said in a message until it fits into a letter beside `others` bytes: first what recordings say.
pub fn fit_message(m: &mut StoredMessage, others: usize) {
    let room = BODY.saturating_sub(others);
    if weight(m) <= room {
        return;
    }
    let mut left = room / 4;
    for file in &mut m.attachments {
        let texts = [&mut file.problem, &mut file.transcript, &mut file.no_transcript];
        for text in texts.into_iter().flatten() {
            cut(text, left.max(LEAST));
            left = left.saturating_sub(escaped::len(text));
        }
    }
    if let Some(quote) = &mut m.reply_to {
        cut(&mut quote.text, QUOTE);
    }
    let room = room.saturating_sub(besides_text(m));
    cut(&mut m.text, room.max(LEAST));
}

/// Cuts the texts of a verdict until it fits.
pub fn fit_verdict(mut verdict: Verdict) -> Verdict {
    for most in [64 << 10, 16 << 10, 4 << 10, 1 << 10, LEAST] {
        if size(&verdict, 2) <= BODY {
            return verdict;
        }
        match &mut verdict {
            Verdict::Ok { result } => cut_all(result, most),
            Verdict::Refused { code, reason } => {
                cut(code, LEAST);
                cut(reason, most);
            }
        }
    }
    if size(&verdict, 2) <= BODY {
        return verdict;
    }
    let reason = "the answer does not fit into a letter; ask for less".to_owned();
    Verdict::Refused { code: RefusalCode::TooBig.to_string(), reason }
}

fn cut_all(value: &mut Value, most: usize) {
    match value {
        Value::String(text) => cut(text, most),
        Value::Array(all) => all.iter_mut().for_each(|one| cut_all(one, most)),
        Value::Object(all) => all.values_mut().for_each(|one| cut_all(one, most)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn cut(text: &mut String, most: usize) {
    if escaped::len(text) > most {
        let kept = escaped::beginning(text, most.saturating_sub(escaped::len(CUT))).len();
        text.truncate(kept);
        text.push_str(CUT);
    }
}

/// The bytes of a part of a letter that stands `depth` levels below the envelope.
fn size(part: &impl Serialize, depth: usize) -> usize {
    let json = serde_json::to_vec_pretty(part).unwrap_or_default();
    json.len() + json.iter().filter(|b| **b == b'\n').count() * 2 * depth
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::message::{NameOf, ReplyTo};
    use crate::domain::{MessageSeq, RunId, TurnId, WallMs};
    use ipc_schema::ToAgentLetter;
    use ipc_schema::letters::ToAgent;
    use ipc_schema::letters::to_agent::{OpenTurn, Response, ToolRule, ToolVerdict};
    use ipc_schema::requests::UpdatePersonality;
    use proptest::prelude::*;

    fn letter(turn: Option<TurnId>, body: ToAgent) -> Result<Vec<u8>, ipc_schema::Refusal> {
        let run: RunId = "019ab000-0000-7000-8000-000000000001".parse().unwrap();
        let at = WallMs(0).rfc3339();
        ToAgentLetter { id: LetterId::of_host(u64::MAX), run, turn, n: u64::MAX, ack: u64::MAX, at, body }
            .to_bytes()
    }

    /// A text of one kind of character: six bytes, two, four, one.
    fn text(most: usize) -> impl Strategy<Value = String> {
        let piece = prop_oneof![Just("\u{1}"), Just("\n"), Just("\""), Just("🦀"), Just("x")];
        (piece, 0..=most).prop_map(|(piece, bytes)| piece.repeat(bytes / piece.len()))
    }

    fn personality() -> impl Strategy<Value = Option<Text>> {
        let kept = text(UpdatePersonality::TEXT_MAX_BYTES).prop_map(|text| {
            let text = Text { sha256: sha256_hex(text.as_bytes()), text };
            let fits = escaped::len(&text.text) <= UpdatePersonality::ESCAPED_MAX_BYTES;
            if fits { text } else { cut_text(text, UpdatePersonality::ESCAPED_MAX_BYTES) }
        });
        proptest::option::of(kept)
    }

    prop_compose! {
        fn begins()(
            global in personality(),
            group in personality(),
            ids in 0..3_000_u32,
            length in 0..140_usize,
            allowed in 0..3_000_u32,
            command in text(2_000),
            closed in 0..=20_u64,
        ) -> Begin {
            let golden = include_bytes!("../../../ipc-schema/golden/to-agent/0000000001-begin.json");
            let ToAgent::Begin(mut begin) = ToAgentLetter::parse(golden).unwrap().body else { unreachable!() };
            (begin.claude_md_global, begin.claude_md_group) = (global, group);
            let id = |n: u32| format!("t-1:{n}{}", "x".repeat(length)).parse().unwrap();
            begin.open = Some(OpenTurn { turn: TurnId(1), consumed: ids_that_fit((0..ids).map(id)) });
            let one = |n: u32| AlwaysAllowed { tool: "run_command".into(), command: Some(format!("{n}{command}")) };
            begin.allowed = allowed_that_fit((0..allowed).map(one));
            begin.closed = (1..=closed).map(|n| TurnId(u64::MAX - n)).collect();
            let rule = ToolRule { tool: "run_command".into(), command: Some(command), verdict: ToolVerdict::Record };
            let bytes = rule_bytes(&rule.tool, rule.command.as_deref());
            begin.tools.rules = vec![rule; RULES / bytes];
            *begin
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn g5_a_begin_within_the_limits_fits_whole(begin in begins()) {
            let mut fitted = begin.clone();
            prop_assert_eq!(fit_begin(&mut fitted), Vec::<&str>::new());
            prop_assert_eq!(&fitted, &begin);
            prop_assert!(letter(None, ToAgent::Begin(Box::new(fitted))).is_ok());
        }

        #[test]
        fn g5_a_begin_beyond_the_limits_starts_with_less(
            mut begin in begins(),
            texts in proptest::array::uniform2(text(400_000)),
            ids in 0..20_000_u32,
        ) {
            let [global, group] = texts.map(|text| Some(Text { text, sha256: String::new() }));
            (begin.claude_md_global, begin.claude_md_group) = (global, group);
            let id = |n: u32| format!("t-1:{n}{}", "x".repeat(140)).parse().unwrap();
            begin.open = Some(OpenTurn { turn: TurnId(1), consumed: (0..ids).map(id).collect() });
            let before = begin.clone();
            let left_out = fit_begin(&mut begin);
            prop_assert_eq!(left_out.is_empty(), begin == before, "{:?}", left_out);
            prop_assert_eq!(&begin.tools, &before.tools, "no rule is ever left out");
            prop_assert!(letter(None, ToAgent::Begin(Box::new(begin))).is_ok());
        }

        #[test]
        fn one_message_of_any_kind_fits_beside_a_fire(
            said in text(crate::policy::admission::TEXT_MAX),
            quoted in text(20_000),
            heard in proptest::collection::vec(text(80_000), 0..=11),
            others in 0..110_000_usize,
        ) {
            let file = |heard: &String| Attachment {
                handle: None, file: Some("x".into()), name: "voice".into(), mime: "audio/ogg".into(), bytes: 1,
                problem: None, spoken: true, transcript: Some(heard.clone()), no_transcript: None,
            };
            let mut m = StoredMessage {
                seq: MessageSeq(1), chat: "telegram:5".parse().unwrap(), wakes: true, sender_id: "telegram:5".into(),
                sender_name: "Ann".into(), owner: false, name: NameOf::Own, quoted_name: NameOf::Own, text: said, origin: None, version: 0,
                reply_to: Some(ReplyTo { from: "Ann".into(), text: quoted, message: None }),
                attachments: heard.iter().map(file).collect(), at: WallMs(0),
            };
            let small = weight(&m) + others < 100_000;
            let before = m.clone();
            fit_message(&mut m, others);
            prop_assert!(!small || m == before, "what fits stays whole");
            prop_assert!(weight(&m) + others <= BODY, "{} {}", weight(&m), others);
        }

        #[test]
        fn a_verdict_of_any_size_fits(
            texts in proptest::collection::vec(text(90_000), 0..12),
            many in 0..5_000_usize,
            refused in any::<bool>(),
        ) {
            let small = texts.iter().map(|text| escaped::len(text)).sum::<usize>() + many * 32 < 100_000;
            let verdict = if refused {
                Verdict::Refused { code: "c".into(), reason: texts.concat() }
            } else {
                Verdict::Ok { result: serde_json::json!({ "texts": texts, "many": vec![serde_json::json!({"a": 1}); many] }) }
            };
            let fitted = fit_verdict(verdict.clone());
            prop_assert!(!small || fitted == verdict, "what fits stays whole");
            let request = LetterId::of_request(TurnId(1), &"x".repeat(150)).unwrap();
            let body = ToAgent::Response(Response { request, verdict: fitted });
            prop_assert!(letter(Some(TurnId(1)), body).is_ok());
        }
    }
}
