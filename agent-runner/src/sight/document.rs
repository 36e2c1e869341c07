//! Checks a PDF document before it goes to a provider, which would refuse the whole request because of it.
//!
//! No parser reads it: header, trailer and a count of pages find what people send by mistake. What else is wrong with
//! it, the provider says, and then the turn goes on without it (`turn/refused_request.rs`).

use regex::bytes::Regex;

/// The most pages that Anthropic takes
/// (<https://platform.claude.com/docs/en/build-with-claude/pdf-support>).
const PAGES_MAX: u64 = 100;
/// The tokens of a page at most: Anthropic reads it as a text and as a picture.
const PAGE_TOKENS: u64 = 3_000;
/// The bytes of a page, for a document whose pages cannot be counted.
const PAGE_BYTES: u64 = 50_000;
/// Where header and trailer are looked for.
const EDGE_BYTES: usize = 1024;

/// Checks a document for a model with this window.
///
/// # Errors
/// For the model: why it cannot be shown.
pub fn check(bytes: &[u8], window: u32) -> Result<(), String> {
    let head = &bytes[..bytes.len().min(EDGE_BYTES)];
    let tail = &bytes[bytes.len().saturating_sub(EDGE_BYTES)..];
    if !holds(head, b"%PDF-") {
        return Err("it is no PDF document".into());
    }
    if !holds(tail, b"%%EOF") {
        return Err("it is cut off: its end is missing".into());
    }
    let find = |pattern: &str| Regex::new(pattern).map_err(|e| e.to_string());
    if find(r"/Encrypt\s*(\d|<<)")?.is_match(bytes) {
        return Err("it is encrypted; ask for a copy without a password".into());
    }
    let pages = find(r"/Type\s*/Page[^A-Za-z]")?.find_iter(bytes).count() as u64;
    let counts = find(
        r"/Type\s*/Pages\b[^>]{0,200}?/Count\s+(\d{1,9})|/Count\s+(\d{1,9})[^>]{0,200}?/Type\s*/Pages\b",
    )?;
    let counted = counts.captures_iter(bytes).filter_map(|found| {
        let digits = found.get(1).or(found.get(2))?.as_bytes();
        std::str::from_utf8(digits).ok()?.parse::<u64>().ok()
    });
    let pages = counted.fold(pages, u64::max);
    let most = (u64::from(window) / 2 / PAGE_TOKENS).clamp(1, PAGES_MAX);
    if pages > most {
        return Err(format!(
            "it has {pages} pages, and you can be shown {most}; ask for the pages that matter"
        ));
    }
    Ok(())
}

/// An estimate of the tokens of a document of this size.
pub fn tokens(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE_BYTES).clamp(1, PAGES_MAX) * PAGE_TOKENS
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A document of blank pages.
    pub fn pdf(pages: usize) -> Vec<u8> {
        let kids: Vec<_> = (0..pages).map(|n| format!("{} 0 R", n + 3)).collect();
        let mut text = format!(
            "%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type /Pages /Count {pages} /Kids [{}]>>endobj\n",
            kids.join(" ")
        );
        for n in 0..pages {
            text += &format!("{} 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]>>endobj\n", n + 3);
        }
        text += "trailer<</Root 1 0 R>>\n%%EOF\n";
        text.into_bytes()
    }

    #[test]
    fn a_document_is_shown_if_it_is_whole_open_and_short() {
        assert_eq!(check(&pdf(3), 200_000), Ok(()));
        let whole = pdf(3);
        let encrypted =
            String::from_utf8(whole.clone()).unwrap().replace("trailer<<", "trailer<</Encrypt 9 0 R");
        for (bytes, why) in [
            (&b"just a text"[..], "no PDF"),
            (b"", "no PDF"),
            (&whole[..whole.len() - 20], "cut off"),
            (encrypted.as_bytes(), "encrypted"),
            (&pdf(101), "101 pages"),
            // The pages themselves may lie in compressed objects.
            (b"%PDF-1.5\n<</Count 5000/Kids[]/Type/Pages>>\n%%EOF", "5000 pages"),
        ] {
            assert!(check(bytes, 1_000_000).unwrap_err().contains(why), "{why}");
        }
        assert!(check(&pdf(20), 60_000).unwrap_err().contains("you can be shown 10"));
    }

    #[test]
    fn a_document_counts_at_least_a_page() {
        assert_eq!((tokens(0), tokens(100_000), tokens(u64::MAX)), (3_000, 6_000, 300_000));
    }
}
