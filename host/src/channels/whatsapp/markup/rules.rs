//! WhatsApp's rules of formatting, as its help page gives them (<https://faq.whatsapp.com/539178204879377>) and as
//! people see them: there is no specification. A marker touches the words that it formats, on both ends, in one line.
//! Where the rules leave open what WhatsApp does, the writer writes nothing that depends on it, and the tests read what
//! it wrote in both ways.

/// The markers of bold, italic and struck words.
pub const MARKERS: [char; 3] = ['*', '_', '~'];
/// The marker of code in a line.
pub const CODE: char = '`';
/// Encloses monospace lines.
pub const FENCE: &str = "```";
/// What a line of a quote begins with.
pub const QUOTE: &str = "> ";
/// What an item of a list begins with, and as what people see it.
pub const ITEM: &str = "- ";
pub const BULLET: &str = "• ";
/// Signs that are one of a list or a quote if a line begins with one and a blank.
pub const SIGNS: [char; 3] = ['>', '-', '*'];

/// A blank of almost no width. Behind a character that would open formatting it keeps that character as it is.
pub const HAIR: char = '\u{200a}';
/// It has no width and is no blank. It keeps signs apart from the line's beginning, and backticks from each other.
pub const JOINER: char = '\u{2060}';
/// Stands for a backtick that would be a marker: nothing between two backticks keeps them from making code.
pub const GRAVE: char = 'ˋ';

/// How WhatsApp reads a marker behind a character that is neither a letter nor a blank: as a bracket. Nobody says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// A marker opens only behind a blank.
    #[cfg(any(test, fuzzing))]
    Strict,
    /// A marker opens behind everything but letters and digits.
    Liberal,
}

/// Whether a marker between these characters can open formatting.
pub fn opens(reading: Reading, before: Option<char>, after: Option<char>) -> bool {
    let free = |c: char| match reading {
        #[cfg(any(test, fuzzing))]
        Reading::Strict => c.is_whitespace(),
        Reading::Liberal => !c.is_alphanumeric(),
    };
    before.is_none_or(free) && after.is_some_and(|c| !c.is_whitespace())
}

/// Whether a marker between these characters can close formatting.
pub fn closes(before: Option<char>, after: Option<char>) -> bool {
    before.is_some_and(|c| !c.is_whitespace()) && after.is_none_or(|c| !c.is_alphanumeric())
}

/// Whether a line beginning with this is an item or a quote.
pub fn is_sign(line: &str) -> bool {
    let mut chars = line.chars();
    chars.next().is_some_and(|c| SIGNS.contains(&c)) && chars.next().is_some_and(char::is_whitespace)
}

/// Returns the byte ranges of addresses in a line. WhatsApp makes links of them, with their markers but for code.
pub fn addresses(line: &str) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(rest) = line.get(from..)
        && let Some(at) = ["http://", "https://"].iter().filter_map(|scheme| rest.find(scheme)).min()
    {
        let start = from + at;
        let ends = |c: char| c.is_whitespace() || c == CODE;
        let end = rest.get(at..).and_then(|r| r.find(ends)).map_or(line.len(), |n| start + n);
        found.push(start..end);
        from = end;
    }
    found
}
