//! Golden files: what each platform gets for the same Markdown. `tests/golden/markdown` holds one file for each case:
//! the Markdown, then each dialect. `UPDATE_GOLDEN=1` writes the dialects anew. Nothing in them breaks a documented
//! rule.

use std::collections::BTreeSet;
use std::path::Path;

use ipc_schema::text_sanitize::is_zero_width;

use super::markdown::units;
use super::{telegram, whatsapp};
use crate::domain::outbound::Voice;
use crate::{terminal_output, text};

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/markdown");
const MARKDOWN: &str = "════ markdown ════\n";

struct Dialect {
    name: &'static str,
    write: fn(&str) -> Vec<String>,
    check: fn(&str),
}

const DIALECTS: [Dialect; 3] = [
    Dialect { name: "telegram", write: telegram::rendered_reply, check: taken_by_telegram },
    Dialect { name: "whatsapp", write: whatsapp::rendered_reply, check: taken_by_whatsapp },
    Dialect { name: "terminal", write: on_a_terminal, check: harmless_on_a_terminal },
];

/// The terminal shows Markdown as it was written.
fn on_a_terminal(markdown: &str) -> Vec<String> {
    let text = text::render(Voice::Reply, markdown.trim());
    if text.is_empty() { Vec::new() } else { vec![terminal_output::safe(&text)] }
}

/// Bot API, "Formatting options" and sendMessage: known tags that are closed in order, code that holds no other
/// formatting, no quote in a quote, four entities, and 1 to 4,096 characters.
fn taken_by_telegram(html: &str) {
    let (mut open, mut seen): (Vec<&str>, String) = (Vec::new(), String::new());
    for (n, piece) in html.split('<').enumerate() {
        let (tag, words) = if n == 0 { ("", piece) } else { piece.split_once('>').unwrap() };
        let (name, attribute) = tag.split_once(' ').unwrap_or((tag, ""));
        match name.strip_prefix('/') {
            _ if n == 0 => {}
            Some(name) => assert_eq!(open.pop(), Some(name), "{html}"),
            None => {
                assert!(
                    ["b", "i", "s", "code", "pre", "blockquote", "a"].contains(&name),
                    "<{tag}> in {html}"
                );
                let taken = match name {
                    "a" => ["http://", "https://", "mailto:"]
                        .iter()
                        .any(|scheme| attribute.starts_with(&format!("href=\"{scheme}"))),
                    "code" if open.last() == Some(&"pre") => true,
                    _ => attribute.is_empty(),
                };
                assert!(taken, "<{tag}> in {html}");
                let itself = ["a", "blockquote"].contains(&name) && open.contains(&name);
                assert!(!open.contains(&"code") && !itself, "<{tag}> in {open:?} in {html}");
                assert!(name == "code" || open.last() != Some(&"pre"), "<{tag}> in {html}");
                open.push(name);
            }
        }
        for entity in words.split('&').skip(1) {
            assert!(["lt;", "gt;", "amp;", "quot;"].iter().any(|known| entity.starts_with(known)), "{html}");
        }
        seen.push_str(words);
    }
    assert!(open.is_empty(), "{open:?} stay open in {html}");
    let seen = seen.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&");
    assert!(!seen.trim().is_empty() && units(&seen) <= 4_096, "{html}");
    assert!(!text::looks_like_notice(&seen), "{html}");
}

/// WhatsApp refuses no formatting. What it shows is checked by `check_reply`, for the whole reply.
fn taken_by_whatsapp(markup: &str) {
    assert!(!markup.trim().is_empty() && units(markup) <= 65_536, "{markup}");
}

fn harmless_on_a_terminal(shown: &str) {
    assert!(shown.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t')), "{shown:?}");
    assert!(!text::looks_like_notice(shown), "{shown}");
}

/// Shows what nobody sees.
fn visible(text: &str) -> String {
    let blank = |c: char| matches!(c, ' ' | '\n');
    let hidden = |c: char| !blank(c) && (c.is_whitespace() || c.is_control() || is_zero_width(c));
    text.chars().map(|c| if hidden(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}

fn written(markdown: &str) -> String {
    let mut file = format!("{MARKDOWN}{markdown}");
    for Dialect { name, write, check } in DIALECTS {
        let parts = write(markdown);
        parts.iter().for_each(|part| check(part));
        file.push_str(&format!("════ {name} ════\n"));
        for part in parts {
            file.push_str(&format!("{}\n", visible(&part)));
        }
    }
    whatsapp::check_reply(markdown.as_bytes());
    file
}

#[test]
fn each_platform_gets_what_it_shows() {
    let mut cases = 0;
    let mut texts = BTreeSet::new();
    for entry in std::fs::read_dir(Path::new(CASES)).unwrap() {
        let path = entry.unwrap().path();
        let file = std::fs::read_to_string(&path).unwrap();
        let markdown = file.strip_prefix(MARKDOWN).unwrap_or_else(|| panic!("{}", path.display()));
        let markdown = markdown.split("════ telegram ════\n").next().unwrap_or_default();
        let written = written(markdown);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &written).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), written, "{}: UPDATE_GOLDEN=1", path.display());
        assert!(texts.insert(markdown.to_owned()), "{} is another case", path.display());
        cases += 1;
    }
    assert!(cases >= 60, "{cases} cases");
}
