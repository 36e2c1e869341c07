//! What people write and read on WhatsApp: Markdown becomes WhatsApp's markup, in parts. It needs nothing of the
//! library.

mod rules;
#[cfg(any(test, fuzzing))]
mod shown;
#[cfg(test)]
mod tests;
mod writer;

use ipc_schema::text_sanitize::clean;

use crate::channels::markdown::{Dialect, Look, Mark, RichText, is_visible, read, units};
use crate::domain::outbound::{Part, PartText, Voice};
use crate::text;
use writer::write;

/// What WhatsApp shows. It makes links of bare addresses only. On a phone its monospace lines are short.
const DIALECT: Dialect = Dialect { links: &["http://", "https://", "mailto:"], widest_table: 40 };
/// WhatsApp takes 65,536 characters and hides all but the beginning of a long message behind "Read more".
const TEXT_UNITS: usize = 4_096;
/// The longest caption, as WhatsApp documents it for businesses.
const CAPTION_UNITS: usize = 1_024;

/// Splits Markdown into parts of which something is seen.
pub fn parts(markdown: &str) -> Vec<PartText> {
    let whole = seen(&text::render(Voice::Reply, markdown));
    let shown = whole.parts(TEXT_UNITS).into_iter().filter(|part| is_visible(&part.text));
    shown.map(|part| PartText { markup: Some(write(&part)), text: part.text, file: None }).collect()
}

/// Whether WhatsApp takes this Markdown below a file.
pub fn is_caption(markdown: &str) -> bool {
    units(&write(&seen(&text::render(Voice::Reply, markdown)))) <= CAPTION_UNITS
}

/// Returns a part as it is sent. It never lets an agent's text look like a notice.
pub fn rendered(part: &Part) -> String {
    written(part.voice, &part.text, part.markup.as_deref())
}

/// `markup` is what [`parts`] has written; a notice and a caption have none.
fn written(voice: Voice, words: &str, markup: Option<&str>) -> String {
    if voice == Voice::Notice {
        return write(&notice(&text::render(voice, words)));
    }
    let (text, markup) = match markup {
        Some(markup) => (words.to_owned(), markup.to_owned()),
        None => {
            let whole = seen(&text::render(voice, words));
            let markup = write(&whole);
            (whole.text, markup)
        }
    };
    // Markdown can hide the notices' prefix, or characters that reverse a line, so that only the reader sees them. Such
    // a reply loses its formatting.
    if [&text, &markup].into_iter().any(|shown| text::looks_like_notice(shown)) || clean(&text) != text {
        return write(&RichText::plain(text::render(voice, &text)));
    }
    markup
}

fn seen(markdown: &str) -> RichText {
    read(markdown, &DIALECT).spelled_out()
}

/// A notice can quote anybody's text, so it has no formatting but code, in backticks. What an owner decides about has
/// none at all.
fn notice(words: &str) -> RichText {
    let mut rich = RichText::default();
    for (n, line) in words.split('\n').enumerate() {
        if n > 0 {
            rich.text.push('\n');
        }
        let mut rest = line;
        while !line.starts_with(text::BAR)
            && let Some((before, (code, after))) =
                rest.split_once('`').and_then(|(before, after)| Some((before, after.split_once('`')?)))
        {
            rich.text.push_str(before);
            let start = rich.text.len();
            rich.text.push_str(if code.is_empty() { "``" } else { code });
            if !code.is_empty() {
                rich.marks.push(Mark { start, end: rich.text.len(), look: Look::Code });
            }
            rest = after;
        }
        rich.text.push_str(rest);
    }
    rich
}

/// A reply as it is sent, for the golden files.
#[cfg(test)]
pub fn rendered_reply(markdown: &str) -> Vec<String> {
    let markup = |part: PartText| written(Voice::Reply, &part.text, part.markup.as_deref());
    parts(markdown).into_iter().map(markup).collect()
}

/// For the fuzz target of replies: what is shown is the text, whichever way WhatsApp reads, and no notice.
#[cfg(any(test, fuzzing))]
pub fn check_reply(data: &[u8]) {
    for part in parts(&String::from_utf8_lossy(data)) {
        let markup = written(Voice::Reply, &part.text, part.markup.as_deref());
        let kept = Some(&markup) == part.markup.as_ref();
        for reading in [rules::Reading::Strict, rules::Reading::Liberal] {
            let shown = shown::bare(&shown::shown(&markup, reading).text);
            assert!(!text::looks_like_notice(&shown), "{shown}");
            assert!(!kept || shown == shown::bare(&part.text), "{shown}\n{}", part.text);
        }
    }
}
