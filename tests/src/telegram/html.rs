//! Reads the HTML that a bot sends, with Telegram's checks.

/// Returns the text that people see, or Telegram's error.
pub(super) fn read(html: &str) -> Result<String, String> {
    const TAGS: [&str; 8] = ["b", "i", "s", "u", "code", "pre", "a", "blockquote"];
    let mut text = String::new();
    let mut open: Vec<String> = Vec::new();
    let mut rest = html;
    while let Some(at) = rest.find(['<', '&']) {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(tail) = rest.strip_prefix('&') {
            let (name, after) = tail.split_once(';').ok_or("can't parse entities: unclosed entity")?;
            text.push(match name {
                "lt" => '<',
                "gt" => '>',
                "amp" => '&',
                "quot" => '"',
                other => return Err(format!("can't parse entities: unsupported entity &{other};")),
            });
            rest = after;
            continue;
        }
        let (tag, after) = rest[1..].split_once('>').ok_or("can't parse entities: unclosed start tag")?;
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            let expected = open.pop().ok_or("can't parse entities: unexpected end tag")?;
            if expected != name {
                return Err(format!(
                    "can't parse entities: expected end tag \"{expected}\", found \"{name}\""
                ));
            }
        } else {
            let name = tag.split_whitespace().next().unwrap_or_default();
            if !TAGS.contains(&name) {
                return Err(format!("can't parse entities: unsupported start tag \"{name}\""));
            }
            if name == "blockquote" && open.iter().any(|outer| outer == name) {
                return Err("can't parse entities: blockquotes can't be nested".into());
            }
            if open.iter().any(|outer| outer == "code" && name != "code") {
                return Err(format!("can't parse entities: a tag \"{name}\" in code"));
            }
            open.push(name.to_owned());
        }
    }
    text.push_str(rest);
    match open.pop() {
        Some(tag) => {
            Err(format!("can't parse entities: can't find end tag corresponding to start tag \"{tag}\""))
        }
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn markup_is_read_as_strictly_as_telegram_does() {
        assert_eq!(read("<b>a</b> &lt;x&gt; <a href=\"u\">l</a>").unwrap(), "a <x> l");
        for bad in [
            "<b>a",
            "a</b>",
            "<b><i>a</b></i>",
            "<div>a</div>",
            "a < b",
            "a & b",
            "<blockquote>a<blockquote>b</blockquote></blockquote>",
            "<code><b>a</b></code>",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
