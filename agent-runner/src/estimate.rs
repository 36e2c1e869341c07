//! Estimates how many tokens a request has before a provider has counted it. [`crate::turn`] calls it.
//!
//! No provider publishes its tokenizer in a form that a small binary can carry. So this module counts what every
//! tokenizer makes a token of: words, digits, symbols, indentation, characters of scripts without spaces. The weights
//! come from two public tokenizers; the test holds the measured samples. Most of the estimates are too high, and that
//! is the safe side. The provider's count of the last request then corrects the next estimate ([`ratio`]).

use serde_json::Value;

use crate::sight;
use crate::transcript::{Body, Entry, Omissions};

/// A token in the unit of the weights.
const TOKEN: u64 = 100;
/// Letters of a word that are one token.
const SHORT_WORD: u64 = 4;
/// Each further letter, each capital inside a run of letters, and each letter with a diacritic.
const LETTER: u64 = 18;
const CAPITAL: u64 = 40;
const DIACRITIC: u64 = 55;
/// Digits of one token.
const DIGITS: u64 = 3;
/// Each symbol that follows another one.
const SYMBOL: u64 = 45;
const LINE_BREAKS: u64 = 70;

/// Tokens of a picture at the size that providers scale it down to.
const PICTURE: u64 = 1_600;
/// Tokens that a message or block costs beside its content.
const FRAME: u64 = 4;

/// Used until the provider has counted a request: other tokenizers count more than the two of the samples.
const RATIO: f64 = 1.15;
/// A provider that counts outside these bounds counts something else, for example only what its cache did not have.
const RATIO_MIN: f64 = 0.8;
const RATIO_MAX: f64 = 3.0;

/// The estimated tokens of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// System prompt and tools: what no compaction makes smaller.
    pub system: u64,
    pub tools: u64,
    pub conversation: u64,
}

impl Size {
    pub fn fixed(self) -> u64 {
        self.system.saturating_add(self.tools)
    }

    pub fn total(self) -> u64 {
        self.fixed().saturating_add(self.conversation)
    }
}

/// The provider's count of the newest request that `model` answered, over the estimate of the same request. `None`
/// before there is one.
pub fn ratio(entries: &[Entry], model: &str) -> Option<f64> {
    let counted = entries.iter().rev().find_map(|entry| match &entry.body {
        Body::Assistant(answer) if answer.model.as_deref() == Some(model) => {
            let (read, estimated) = (answer.usage.read(), answer.usage.estimated);
            (read > 0 && estimated > 0).then(|| read as f64 / estimated as f64)
        }
        _ => None,
    });
    counted.map(|ratio| ratio.clamp(RATIO_MIN, RATIO_MAX))
}

/// `tokens` of an estimate as the provider would count them.
pub fn scaled(tokens: u64, ratio: Option<f64>) -> u64 {
    (tokens as f64 * ratio.unwrap_or(RATIO)) as u64
}

/// The size of a request of the Messages API.
pub fn of_request(body: &str) -> Size {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let list = |name: &str| body.get(name).and_then(Value::as_array).into_iter().flatten();
    Size {
        system: list("system").map(of_block).sum(),
        tools: list("tools").map(|tool| FRAME + of_text(&tool.to_string())).sum(),
        conversation: list("messages")
            .flat_map(|message| message.get("content").and_then(Value::as_array).into_iter().flatten())
            .map(of_block)
            .sum(),
    }
}

fn of_block(block: &Value) -> u64 {
    let text = |name: &str| block.get(name).and_then(Value::as_str).unwrap_or_default();
    let counted = match text("type") {
        "text" => of_text(text("text")),
        "thinking" => of_text(text("thinking")),
        "tool_use" => {
            of_text(text("name")) + block.get("input").map_or(0, |input| of_text(&input.to_string()))
        }
        "tool_result" => match block.get("content") {
            Some(Value::Array(blocks)) => blocks.iter().map(of_block).sum(),
            _ => of_text(text("content")),
        },
        "image" => PICTURE,
        "document" => {
            let data = block.pointer("/source/data").and_then(Value::as_str).map_or(0, str::len);
            sight::document_tokens(data as u64 * 3 / 4)
        }
        _ => of_text(&block.to_string()),
    };
    FRAME + counted
}

/// What a request shows of an entry.
pub fn of_entry(entry: &Entry, omissions: &Omissions) -> u64 {
    if omissions.omits(entry) {
        return omissions.summary_at(entry).map_or(0, of_text);
    }
    let files = if omissions.omits_files(entry) { 0 } else { sight::tokens(entry) };
    files
        + match &entry.body {
            Body::Results(results) => {
                let most = omissions.result_max(entry).map_or(usize::MAX, |(most, _)| most);
                let shown =
                    |text: &str| of_text(text.char_indices().nth(most).map_or(text, |(at, _)| &text[..at]));
                results.blocks.iter().map(|result| FRAME + shown(&result.content)).sum()
            }
            Body::Assistant(answer) => answer
                .blocks
                .iter()
                .map(|block| serde_json::from_str(block.raw().get()).map_or(FRAME, |block| of_block(&block)))
                .sum(),
            Body::Input(input) => FRAME + of_text(&crate::prompt::frames(input)),
            Body::Gate(gate) => gate.shown.as_deref().map_or(0, of_text),
            Body::Note(note) => of_text(&note.text),
            Body::Summary(summary) => of_text(&summary.text),
            Body::End(_) => 2 * FRAME,
            Body::Request(_) | Body::LeftOut(_) | Body::Shortened(_) | Body::Order(_) => 0,
        }
}

/// The tokens of a text.
pub fn of_text(text: &str) -> u64 {
    let mut weight = 0;
    let mut chars = text.chars().peekable();
    while let Some(first) = chars.next() {
        weight += match first {
            c if is_letter(c) => {
                let (mut letters, mut extra, mut before) = (1, diacritic(c), c);
                while let Some(c) = chars
                    .next_if(|c| is_letter(*c) && !(c.is_ascii_uppercase() && before.is_ascii_lowercase()))
                {
                    letters += 1;
                    extra += diacritic(c) + if c.is_ascii_uppercase() { CAPITAL } else { 0 };
                    before = c;
                }
                TOKEN + LETTER * u64::saturating_sub(letters, SHORT_WORD) + extra
            }
            c if c.is_ascii_digit() => {
                let mut digits = 1_u64;
                while chars.next_if(char::is_ascii_digit).is_some() {
                    digits += 1;
                }
                TOKEN * digits.div_ceil(DIGITS)
            }
            ' ' => {
                let mut more = false;
                while chars.next_if_eq(&' ').is_some() {
                    more = true;
                }
                // A single space is part of the word behind it, but not of a number.
                if more || chars.peek().is_some_and(char::is_ascii_digit) { TOKEN } else { 0 }
            }
            '\n' | '\r' | '\t' => {
                while chars.next_if(|c| matches!(c, '\n' | '\r' | '\t')).is_some() {}
                LINE_BREAKS
            }
            c if c.is_ascii() => {
                let mut symbols = 0;
                while chars.next_if(|c| c.is_ascii_graphic() && !c.is_ascii_alphanumeric()).is_some() {
                    symbols += 1;
                }
                TOKEN + SYMBOL * symbols
            }
            c => of_other(c),
        };
    }
    weight.div_ceil(TOKEN)
}

fn is_letter(c: char) -> bool {
    c.is_ascii_alphabetic() || ('\u{c0}'..'\u{250}').contains(&c)
}

fn diacritic(c: char) -> u64 {
    if c.is_ascii() { 0 } else { DIACRITIC }
}

/// One character of a script without spaces, a letter of another alphabet, a mark or an emoji.
fn of_other(c: char) -> u64 {
    match u32::from(c) {
        0x1_f000.. => 250,
        0x2e80.. => 125,
        0x2000.. => 100,
        0xe00..0xe80 => 95,
        _ => 65,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests_support::script;
    use ipc_schema::TurnId;

    /// A sample and the larger count of the tokenizers `o200k_base` and `cl100k_base`, measured in November 2026.
    const MEASURED: [(&str, u64); 9] = [
        (
            r#"{"id":"t-17","at":"2026-11-10T01:12:22.107Z","ok":true,"amount":12.75,"user":{"name":"ann1","email":"ann1@example.org"},"tags":["a","b1"],"items":[{"sku":"X-4410-B","qty":3,"price":"19.99"},{"sku":"Y-0007-C","qty":12,"price":"0.49"}]}"#,
            98,
        ),
        (
            "{\n  \"name\": \"lazaret\",\n  \"version\": \"0.4.1\",\n  \"scripts\": {\n    \"build\": \"make build\",\n    \"test\": \"make test\"\n  },\n  \"files\": [\n    \"dist/index.js\",\n    \"README.md\"\n  ]\n}",
            63,
        ),
        (
            "drwxr-xr-x 2 root root  4096 Nov 11 09:14 archive\n-rw-r--r-- 1 1000 1000 88213 Nov 30 16:02 conversation-1.jsonl\n-rw-rw---- 1 1000 1000     0 Nov 30 16:02 .lock",
            78,
        ),
        (
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08  /usr/bin/make\n60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752  /usr/bin/ls",
            92,
        ),
        (
            "TG9yZW0gaXBzdW0gZG9sb3Igc2l0IGFtZXQsIGNvbnNlY3RldHVyIGFkaXBpc2NpbmcgZWxpdC4gU2VkIGRvIGVpdXNtb2QgdGVtcG9yIGluY2lkaWR1bnQu",
            84,
        ),
        (
            "17,2026-03-17,23.29,Berlin,\"a 17\"\n18,2026-03-18,24.66,Berlin,\"a 18\"\n19,2026-03-19,26.03,Berlin,\"a 19\"",
            60,
        ),
        (
            "We moved the meeting to next Thursday because two of our colleagues are ill. Please bring the papers for the tax return and the keys to the flat, and do not forget to call the landlord before noon.",
            41,
        ),
        (
            "我们决定把会议推迟到下周四，因为有几位同事生病了。请记得带上报税的文件和公寓的钥匙。明天早上八点半在火车站前见面。",
            68,
        ),
        (
            "Мы решили перенести встречу на следующий четверг, потому что несколько коллег заболели. Не забудьте, пожалуйста, взять с собой документы для налоговой декларации и ключи от квартиры.",
            82,
        ),
    ];

    #[test]
    fn the_estimate_is_near_what_tokenizers_count_and_rather_above_it() {
        for (text, counted) in MEASURED {
            let estimated = scaled(of_text(text), None);
            let share = estimated as f64 / counted as f64;
            assert!((0.85..1.7).contains(&share), "{estimated} instead of {counted}: {text}");
        }
        let json: u64 = MEASURED[..2].iter().map(|(text, _)| of_text(text)).sum();
        assert!(json >= 98 + 63, "tool JSON is never low: {json}");
    }

    #[test]
    fn the_providers_count_corrects_the_next_estimate() {
        let entry = |model: &str, read, estimated| {
            let mut answer = script::says("x");
            answer.model = Some(model.into());
            (answer.usage.input_tokens, answer.usage.estimated) = (read, estimated);
            Entry { entry: 1, turn: TurnId(1), at: String::new(), body: Body::Assistant(answer) }
        };
        assert_eq!(ratio(&[], "m"), None);
        assert_eq!(ratio(&[entry("m", 130, 100), entry("m", 0, 100), entry("n", 9, 1)], "m"), Some(1.3));
        assert_eq!(ratio(&[entry("m", 1, 100_000)], "m"), Some(RATIO_MIN), "it counts without its cache");
        assert_eq!(ratio(&[entry("m", u64::MAX, 1)], "m"), Some(RATIO_MAX));
        assert_eq!(scaled(1_000, Some(1.3)), 1_300);
    }

    #[test]
    fn a_picture_costs_what_it_shows_and_not_its_bytes() {
        let data = "A".repeat(2_000_000);
        let body = serde_json::json!({
            "system": [{"type": "text", "text": "be kind"}],
            "tools": [{"name": "x"}],
            "messages": [{"role": "user", "content": [
                {"type": "image", "source": {"type": "base64", "data": data}},
                {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "ok"}]},
            ]}],
        });
        let size = of_request(&body.to_string());
        assert!(size.conversation < 2 * PICTURE && size.system > 0 && size.tools > 0, "{size:?}");
        assert_eq!(of_request("no JSON"), Size::default());
    }
}
