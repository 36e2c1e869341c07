//! Under which terms a text is found, and what a query looks for.
//!
//! The memory index in the box and the history index on the host use it, with an FTS5 table whose tokenizer is
//! [`TOKENIZER`]: that one only splits at blanks, because everything else is decided here, the same way for text and
//! query. It is pure, and any input is fine: a query becomes a valid expression or none.
//!
//! - A word is found in another case, with or without diacritics (`Bücher`, `Bucher`, `Buecher`; `Straße`, `Strasse`)
//!   and inflected. Nobody knows the language of a short text, so a word has the stems of all languages of its script.
//! - A word is found by its beginning, and a long word by its parts (`Krankenversicherungskarte` by `Versicherung`).
//! - Scripts without blanks between words (Chinese, Japanese, Thai, …), and Korean with its particles, are cut into
//!   single characters and pairs.

use std::collections::{BTreeSet, HashSet};

use rust_stemmers::{Algorithm, Stemmer};
use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// The `tokenize` option of a table that holds [`index_text`]. It keeps every character outside ASCII, also [`PART`].
pub const TOKENIZER: &str = "ascii";

/// Begins a term that stands for the end of a long word. It is no letter, so no word of a text has it.
const PART: char = '·';

/// Longer words are cut, on both sides: a line of base64 is no word.
const WORD_MAX_CHARS: usize = 40;
/// From this length on a word is also found by its parts.
const LONG_WORD_CHARS: usize = 8;
/// Parts of words, and beginnings that a query looks for, have at least this length.
const PART_MIN_CHARS: usize = 4;
/// A text is found by at most this many terms, so that what one person sends cannot fill an index.
const TEXT_MAX_TERMS: usize = 20_000;
/// A query looks for at most this many terms.
const QUERY_MAX_TERMS: usize = 160;
/// Only this much of a query is read.
const QUERY_MAX_CHARS: usize = 2_000;

/// Words that say nothing about a text. A query leaves them out, unless it has no others.
const STOP_WORDS: &str = include_str!("search_terms/stop_words.txt");

/// The terms under which `text` is found, separated by blanks, each once.
#[must_use]
pub fn index_text(text: &str) -> String {
    let mut terms = Terms::default();
    for piece in pieces(text) {
        if terms.in_order.len() > TEXT_MAX_TERMS {
            break;
        }
        match piece {
            Piece::Word(word) => {
                for form in forms(&word) {
                    if is_long(&form) {
                        for (at, _) in form.char_indices().skip(1) {
                            let part = &form[at..];
                            if part.chars().count() < PART_MIN_CHARS {
                                break;
                            }
                            terms.push(format!("{PART}{part}"));
                        }
                    }
                    terms.push(form);
                }
            }
            Piece::Run(units) => {
                for pair in units.windows(2) {
                    terms.push(pair.concat());
                }
                for unit in units {
                    terms.push(unit);
                }
            }
        }
    }
    terms.in_order.join(" ")
}

/// The FTS5 expression that finds the texts of `query`, for `ORDER BY rank`; `None` if the query has no term.
///
/// The terms are alternatives: a text with more of the words, and with the words as they were written, ranks higher.
#[must_use]
pub fn match_expression(query: &str) -> Option<String> {
    let query: String = query.chars().take(QUERY_MAX_CHARS).collect();
    let (dull, telling): (Vec<Piece>, Vec<Piece>) = pieces(&query).into_iter().partition(is_stop_word);
    let mut terms = Terms::default();
    for piece in if telling.is_empty() { dull } else { telling } {
        match piece {
            Piece::Word(word) => {
                let forms = forms(&word);
                for form in &forms {
                    terms.push(quoted(form));
                }
                let beginnings = forms.iter().filter(|form| form.chars().count() >= PART_MIN_CHARS);
                if let Some(beginning) = beginnings.min_by_key(|form| form.chars().count()) {
                    terms.push(format!("{}*", quoted(beginning)));
                    terms.push(format!("{}*", quoted(&format!("{PART}{beginning}"))));
                }
            }
            Piece::Run(units) => {
                for pair in units.windows(2) {
                    terms.push(quoted(&pair.concat()));
                }
                // A Chinese character has a meaning of its own; a syllable has one only if it is all there is.
                let alone = units.len() == 1;
                for unit in units.iter().filter(|unit| alone || unit.chars().any(is_han)) {
                    terms.push(quoted(unit));
                }
            }
        }
    }
    terms.in_order.truncate(QUERY_MAX_TERMS);
    (!terms.in_order.is_empty()).then(|| terms.in_order.join(" OR "))
}

#[derive(Default)]
struct Terms {
    in_order: Vec<String>,
    seen: HashSet<String>,
}

impl Terms {
    fn push(&mut self, term: String) {
        if self.seen.insert(term.clone()) {
            self.in_order.push(term);
        }
    }
}

/// Terms hold letters, digits, marks and [`PART`] only, so there is no quote to escape.
fn quoted(term: &str) -> String {
    format!("\"{term}\"")
}

fn is_long(word: &str) -> bool {
    word.chars().count() >= LONG_WORD_CHARS
}

fn is_stop_word(piece: &Piece) -> bool {
    matches!(piece, Piece::Word(word) if STOP_WORDS.split_whitespace().any(|stop| stop == word))
}

/// What a text consists of, in lower case, with compatible characters made equal (NFKC).
enum Piece {
    /// A word with its diacritics.
    Word(String),
    /// Characters of a script that is cut, each with its marks.
    Run(Vec<String>),
}

fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut word = String::new();
    let mut run: Vec<String> = Vec::new();
    for c in text.nfkc().flat_map(char::to_lowercase) {
        let cut = is_cut(c);
        let mark = is_combining_mark(c);
        if !(run.is_empty() || cut || mark) {
            pieces.push(Piece::Run(std::mem::take(&mut run)));
        }
        if cut && !mark {
            push_word(&mut pieces, &mut word);
            run.push(hiragana(c).to_string());
        } else if let (true, Some(unit)) = (mark, run.last_mut()) {
            // Thai tone marks are folded as diacritics are; vowel signs stay. More marks than a script has are noise.
            if !is_thai_tone(c) && unit.len() < 16 {
                unit.push(c);
            }
        } else if c.is_alphanumeric() || (mark && !word.is_empty()) {
            word.push(c);
        } else {
            push_word(&mut pieces, &mut word);
        }
    }
    if !run.is_empty() {
        pieces.push(Piece::Run(run));
    }
    push_word(&mut pieces, &mut word);
    pieces
}

fn push_word(pieces: &mut Vec<Piece>, word: &mut String) {
    let cut: String = std::mem::take(word).chars().take(WORD_MAX_CHARS).collect();
    if !cut.is_empty() {
        pieces.push(Piece::Word(cut));
    }
}

/// The word without diacritics, and its stems. The stems of the word as written and as typed without diacritics can
/// differ, and a text and a query need one in common.
fn forms(word: &str) -> BTreeSet<String> {
    let plain = without_diacritics(word);
    // `Buecher` is how `Bücher` is typed where there is no `ü`.
    let joined = plain.replace("ae", "a").replace("oe", "o").replace("ue", "u");
    let mut forms = BTreeSet::new();
    for stemmer in stemmers(word) {
        for spelling in [word, &plain, &joined] {
            forms.insert(without_diacritics(&stemmer.stem(spelling)));
        }
    }
    forms.insert(plain);
    forms.retain(|form| !form.is_empty());
    forms
}

/// The stemmers of the script in which the word begins.
fn stemmers(word: &str) -> Vec<Stemmer> {
    use Algorithm::{English, French, German, Greek, Russian, Spanish};
    let algorithms: &[Algorithm] = match word.chars().next() {
        Some('a'..='z' | '\u{df}'..='\u{24f}') => &[English, German, French, Spanish],
        Some('\u{370}'..='\u{3ff}') => &[Greek],
        Some('\u{400}'..='\u{4ff}') => &[Russian],
        _ => &[],
    };
    algorithms.iter().map(|algorithm| Stemmer::create(*algorithm)).collect()
}

fn without_diacritics(word: &str) -> String {
    let mut plain = String::with_capacity(word.len());
    for c in word.chars() {
        match c {
            'ß' => plain.push_str("ss"),
            'æ' => plain.push_str("ae"),
            'œ' => plain.push_str("oe"),
            'ø' => plain.push('o'),
            'ł' => plain.push('l'),
            'đ' | 'ð' => plain.push('d'),
            'ı' => plain.push('i'),
            'ς' => plain.push('σ'),
            c if has_plain_letters(c) => {
                plain.extend([c].into_iter().nfd().filter(|c| !is_combining_mark(*c)))
            }
            c => plain.push(c),
        }
    }
    plain
}

/// Scripts whose marks are diacritics (Latin, Greek, Cyrillic, Hebrew, Arabic). Elsewhere a mark can be a vowel.
fn has_plain_letters(c: char) -> bool {
    matches!(c, '\0'..='\u{77f}' | '\u{1dc0}'..='\u{1fff}')
}

/// Scripts that are cut into characters and pairs.
fn is_cut(c: char) -> bool {
    is_han(c)
        || matches!(c,
            '\u{e00}'..='\u{eff}'      // Thai, Lao
            | '\u{1000}'..='\u{109f}'  // Myanmar
            | '\u{1780}'..='\u{17ff}'  // Khmer
            | '\u{3041}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' // kana
            | '\u{ac00}'..='\u{d7a3}') // Hangul
            && (c.is_alphanumeric() || is_combining_mark(c) || c == 'ー')
}

fn is_han(c: char) -> bool {
    matches!(c, '々' | '〆' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}')
}

fn is_thai_tone(c: char) -> bool {
    matches!(c, '\u{e47}'..='\u{e4e}')
}

/// `リンゴ` is found by `りんご`.
fn hiragana(c: char) -> char {
    match c {
        'ァ'..='ヶ' => char::from_u32(u32::from(c) - 0x60).unwrap_or(c),
        c => c,
    }
}

#[cfg(test)]
mod tests;
