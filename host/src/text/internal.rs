//! Leaves out what an agent marks as not meant for people: `<internal>…</internal>`. Every way of an agent's words into
//! a chat calls it.
//!
//! It hides too much rather than too little. A tag counts also inside a code block. A tag that is not closed hides the
//! rest of the text, and an end without a beginning hides the text before it, because a model can write its beginning
//! into an earlier text.

use std::borrow::Cow;

const NAME: &str = "internal";

/// The text without everything that is internal.
pub fn without_internal(text: &str) -> Cow<'_, str> {
    if tags(text).next().is_none() {
        return Cow::Borrowed(text);
    }
    let (mut out, mut depth, mut from) = (String::with_capacity(text.len()), 0_usize, 0);
    for tag in tags(text) {
        if depth == 0 {
            push(&mut out, text.get(from..tag.start).unwrap_or_default());
        }
        match tag.kind {
            Kind::Begin => depth += 1,
            Kind::Empty => {}
            Kind::End if depth == 0 => out.clear(),
            Kind::End => depth -= 1,
        }
        from = tag.end;
    }
    if depth == 0 {
        push(&mut out, text.get(from..).unwrap_or_default());
    }
    Cow::Owned(out)
}

/// The same of a text that is still being written: what may become a tag is not shown yet.
pub fn draft_without_internal(text: &str) -> Cow<'_, str> {
    let begun = text.rfind('<').filter(|at| may_become_tag(text.get(*at..).unwrap_or_default()));
    without_internal(begun.and_then(|at| text.get(..at)).unwrap_or(text))
}

/// Adds what stands after a hidden part. The empty line around that part is not shown twice.
fn push(out: &mut String, text: &str) {
    let bare = out.is_empty() || out.ends_with('\n');
    out.push_str(if bare { text.trim_start_matches('\n') } else { text });
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Begin,
    End,
    /// `<internal/>`
    Empty,
}

struct Tag {
    start: usize,
    end: usize,
    kind: Kind,
}

fn tags(text: &str) -> impl Iterator<Item = Tag> {
    let mut from = 0;
    std::iter::from_fn(move || {
        loop {
            let start = from + text.get(from..)?.find('<')?;
            from = start + 1;
            if let Some((length, kind)) = tag_at(text.get(start..)?) {
                from = start + length;
                return Some(Tag { start, end: from, kind });
            }
        }
    })
}

/// The length and the kind of the tag with which the text begins. A tag without its `>` goes to the end of the text.
fn tag_at(text: &str) -> Option<(usize, Kind)> {
    let inside = text.strip_prefix('<')?.trim_start();
    let (inside, closes) = match inside.strip_prefix('/') {
        Some(rest) => (rest.trim_start(), true),
        None => (inside, false),
    };
    let after = inside.get(..NAME.len()).filter(|name| name.eq_ignore_ascii_case(NAME));
    let after = inside.get(after?.len()..)?;
    if !after.is_empty() && !after.starts_with(|c: char| c.is_whitespace() || matches!(c, '>' | '/')) {
        return None;
    }
    let (attributes, rest) = after.split_once('>').unwrap_or((after, ""));
    let kind = match (closes, attributes.ends_with('/')) {
        (true, _) => Kind::End,
        (false, true) => Kind::Empty,
        (false, false) => Kind::Begin,
    };
    Some((text.len() - rest.len(), kind))
}

/// Whether the text, which begins with `<`, is the beginning of a tag.
fn may_become_tag(text: &str) -> bool {
    let inside = text.trim_start_matches('<').trim_start();
    let name = inside.strip_prefix('/').unwrap_or(inside).trim_start();
    match name.get(..NAME.len()) {
        Some(name) => name.eq_ignore_ascii_case(NAME) && !text.contains('>'),
        None => NAME.get(..name.len()).is_some_and(|begun| name.eq_ignore_ascii_case(begun)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_internal_is_left_out() {
        for (said, shown) in [
            ("Hello.", "Hello."),
            ("<internal>note</internal>", ""),
            ("Done.\n\n<internal>I was lucky.</internal>\n\nBye.", "Done.\n\nBye."),
            ("a <internal>b <internal>c</internal> d</internal> e", "a  e"),
            ("a<INTERNAL why=\"x\">b</ Internal >c", "ac"),
            ("a <internal>the rest is never closed", "a "),
            ("a <internal", "a "),
            ("began before</internal>Hello.", "Hello."),
            ("one<internal/> and two", "one and two"),
            ("`<internal>` hides: also in code", "`"),
            ("<internals> < internally x <b>", "<internals> < internally x <b>"),
            ("2 < 3 and <", "2 < 3 and <"),
        ] {
            assert_eq!(without_internal(said), shown, "{said}");
        }
    }

    #[test]
    fn a_draft_shows_no_part_of_a_tag() {
        let whole = "Fine <b>. < internal >secret</internal> Bye";
        for at in 0..=whole.len() {
            let shown = draft_without_internal(&whole[..at]);
            assert!("Fine <b>.  Bye".starts_with(shown.trim_end_matches("Bye").trim_end()), "{at}: {shown}");
            assert!(!shown.contains("int") && !shown.contains("secret"), "{at}: {shown}");
        }
        assert_eq!(draft_without_internal("a <inte"), "a ");
        assert_eq!(draft_without_internal("a < b"), "a < b");
    }

    proptest! {
        /// Letters in upper case are meant for people, those in lower case are not.
        #[test]
        fn no_chunking_and_no_nesting_shows_a_byte_of_it(
            pieces in proptest::collection::vec(("[A-Z \n<>`]{0,6}", "[a-z \n>`]{0,6}", 1usize..4), 0..5),
            open in "[a-z]{0,5}",
            cut in 0usize..400,
        ) {
            let mut said = String::new();
            for (shown, hidden, depth) in &pieces {
                said += shown;
                said += &"<internal>".repeat(*depth);
                said += &format!("{hidden}</internal>").repeat(*depth);
            }
            said += &format!("<internal>{open}");
            let lower = |text: &str| text.chars().any(|c| c.is_ascii_lowercase());
            prop_assert!(!lower(&without_internal(&said)), "{said:?}");
            let cut = cut.min(said.len());
            prop_assert!(!lower(&draft_without_internal(&said[..cut])), "{:?}", &said[..cut]);
            let letters = |text: &str| text.chars().filter(char::is_ascii_uppercase).collect::<String>();
            let meant: String = pieces.iter().map(|(shown, _, _)| letters(shown)).collect();
            prop_assert_eq!(letters(&without_internal(&said)), meant);
        }

        #[test]
        fn no_text_breaks_it(said in "[<>/ internalINTERNAL\u{e9}\n]{0,60}") {
            let once = without_internal(&said).into_owned();
            let _ = draft_without_internal(&said);
            prop_assert!(once.len() <= said.len());
        }
    }
}
