//! Writes a text and its formatting in WhatsApp's markup.
//!
//! What WhatsApp could read in two ways is written without formatting: the words matter more. A character of the text
//! that WhatsApp would take as a marker stays as it is, because something that nobody sees keeps it from being one.

use std::ops::Range;

use super::rules::{
    BULLET, CODE, FENCE, GRAVE, HAIR, ITEM, JOINER, MARKERS, QUOTE, Reading, addresses, closes, is_sign,
    opens,
};
use crate::channels::markdown::{Look, Mark, RichText};

/// Writes a text whose links are spelled out.
pub fn write(rich: &RichText) -> String {
    let (mut out, mut from) = (String::new(), 0);
    for block in rich.marks.iter().filter(|mark| matches!(mark.look, Look::Block(_))) {
        // In a quote each line of a block is code of its own.
        if quote_at(rich, block.start).is_none() {
            write_lines(rich, from..block.start, &mut out);
            write_block(rich.text.get(block.start..block.end).unwrap_or_default(), &mut out);
            from = block.end;
        }
    }
    write_lines(rich, from..rich.text.len(), &mut out);
    out
}

fn quote_at(rich: &RichText, at: usize) -> Option<&Mark> {
    rich.marks.iter().find(|mark| mark.look == Look::Quote && (mark.start..mark.end).contains(&at))
}

/// Writes monospace lines. No three backticks of theirs stand together, and none at the fence.
fn write_block(code: &str, out: &mut String) {
    out.push_str(FENCE);
    let mut backticks = 2;
    for c in code.chars() {
        if c == CODE && backticks == 2 {
            out.push(JOINER);
            backticks = 0;
        }
        backticks = if c == CODE { backticks + 1 } else { 0 };
        out.push(c);
    }
    if code.ends_with(CODE) {
        out.push(JOINER);
    }
    out.push_str(FENCE);
}

fn write_lines(rich: &RichText, range: Range<usize>, out: &mut String) {
    let mut start = range.start;
    for (n, line) in rich.text.get(range).unwrap_or_default().split('\n').enumerate() {
        if n > 0 {
            out.push('\n');
        }
        write_line(rich, start..start + line.len(), out);
        start += line.len() + 1;
    }
}

fn write_line(rich: &RichText, mut line: Range<usize>, out: &mut String) {
    let text = rich.text.get(line.clone()).unwrap_or_default();
    if text.trim().is_empty() {
        return out.push_str(text);
    }
    if quote_at(rich, line.start).is_some() {
        out.push_str(QUOTE);
    } else if text.starts_with(BULLET) {
        out.push_str(ITEM);
        line.start += BULLET.len();
    }
    let written = Line::of(rich, line).written();
    if is_sign(&written) {
        out.push(JOINER);
    }
    out.push_str(&written);
}

/// Words of a line that get a look.
struct Span {
    start: usize,
    end: usize,
    marker: char,
}

/// Where a character of a written line comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Text,
    /// The text, where markers mean nothing: in code and in addresses.
    Opaque,
    Marker,
}

struct Line(Vec<(char, From)>);

impl Line {
    fn of(rich: &RichText, line: Range<usize>) -> Self {
        let text = rich.text.get(line.clone()).unwrap_or_default();
        let spans = spans(rich, &line, &addresses(text));
        // Inner looks close first and open last.
        let order = |n: usize| isize::try_from(n).unwrap_or(isize::MAX - 1) + 1;
        let closing = spans.iter().enumerate().map(|(n, span)| (span.end, -order(n), span.marker));
        let opening = spans.iter().enumerate().map(|(n, span)| (span.start, order(n), span.marker));
        let mut markers: Vec<(usize, isize, char)> = closing.chain(opening).collect();
        markers.sort_unstable();
        let mut markers = markers.into_iter().peekable();
        let mut in_code = false;
        let mut out = Vec::with_capacity(text.len());
        let mut mark = |until: usize, out: &mut Vec<_>| {
            while let Some((_, order, marker)) = markers.next_if(|(at, ..)| *at <= until) {
                in_code = if marker == CODE { order > 0 } else { in_code };
                out.push((marker, From::Marker));
            }
            if in_code { From::Opaque } else { From::Text }
        };
        for (at, c) in text.char_indices() {
            let from = mark(line.start + at, &mut out);
            out.push((c, from));
        }
        mark(line.end, &mut out);
        Self::with_addresses(out)
    }

    /// Code ends an address, so they are found in the line as it is written.
    fn with_addresses(mut line: Vec<(char, From)>) -> Self {
        let written: String = line.iter().map(|(c, _)| *c).collect();
        let mut addresses = addresses(&written).into_iter().peekable();
        let mut at = 0;
        for (c, from) in &mut line {
            while addresses.next_if(|address| address.end <= at).is_some() {}
            if addresses.peek().is_some_and(|address| address.contains(&at)) {
                *from = From::Opaque;
            }
            at += c.len_utf8();
        }
        Self(line)
    }

    /// Returns the line with each character kept as it is that would be a marker.
    fn written(&self) -> String {
        let at = |n: usize| self.0.get(n).map(|(c, _)| *c);
        let around = |n: usize| (n.checked_sub(1).and_then(at), at(n + 1));
        let seen =
            |c: char| self.0.iter().enumerate().filter(move |(_, one)| one.0 == c && one.1 != From::Opaque);
        let last_closing =
            |c: char| seen(c).rfind(|(n, _)| closes(around(*n).0, around(*n).1)).map(|(n, _)| n);
        let last = MARKERS.map(last_closing);
        let backticks = seen(CODE).count();
        let mut out = String::with_capacity(self.0.len());
        for (n, (c, from)) in self.0.iter().enumerate() {
            let (before, after) = around(n);
            let closing =
                MARKERS.iter().zip(last).find(|(marker, _)| *marker == c).and_then(|(_, last)| last);
            match from {
                From::Text if *c == CODE && backticks > 1 => out.push(GRAVE),
                From::Text if Some(n) < closing && opens(Reading::Liberal, before, after) => {
                    out.extend([*c, HAIR])
                }
                _ => out.push(*c),
            }
        }
        out
    }
}

/// Returns the words of a line whose look WhatsApp shows whichever way it reads, the outer ones first.
fn spans(rich: &RichText, line: &Range<usize>, addresses: &[Range<usize>]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for mark in rich.marks.iter().filter(|mark| mark.start < line.end && line.start < mark.end) {
        let marker = match mark.look {
            Look::Bold => '*',
            Look::Italic => '_',
            Look::Struck => '~',
            Look::Code | Look::Block(_) => CODE,
            Look::Quote | Look::Link(_) => continue,
        };
        let (from, to) = (mark.start.max(line.start), mark.end.min(line.end));
        let words = rich.text.get(from..to).unwrap_or_default();
        let start = from + words.len() - words.trim_start().len();
        let (words, end) = (words.trim(), start + words.trim().len());
        let before = rich.text.get(line.start..start).and_then(|text| text.chars().next_back());
        let after = rich.text.get(end..line.end).and_then(|text| text.chars().next());
        let is_marker = |c: char| c == CODE || MARKERS.contains(&c);
        let opens = before.is_none_or(char::is_whitespace) || spans.iter().any(|outer| outer.start == start);
        let closes = after.is_none_or(|c| !c.is_alphanumeric() && !is_marker(c))
            || spans.iter().any(|outer| outer.start <= start && outer.end == end);
        let has_address =
            addresses.iter().any(|one| line.start + one.start < end && start < line.start + one.end);
        let in_itself = spans.iter().any(|one| one.marker == marker && one.start < end && start < one.end);
        let words_fit = !words.is_empty()
            && !words.contains(marker)
            && (marker == CODE || !words.ends_with(is_marker) && !has_address);
        if words_fit && opens && closes && !in_itself {
            spans.push(Span { start, end, marker });
        }
    }
    spans
}
