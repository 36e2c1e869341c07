//! What the operator reads when a command fails, and how output is written.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

pub use ipc_schema::text_sanitize::safe_line;

use ipc_schema::text_sanitize::is_hidden;

/// Says what failed, with its code, on standard error. The exit code is 1.
pub fn failed(code: &str, error: &impl Display) -> ExitCode {
    // An error may quote an engine, a provider or a file.
    eprintln!("lazaret: {} [{code}]", safe(&error.to_string()));
    ExitCode::FAILURE
}

/// Prints to standard output. A reader that has gone (`lazaret trace | head`) ends the program quietly, as it
/// would any Unix tool.
pub fn print(text: impl Display) {
    let mut out = io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Text that came from outside, made safe for a terminal: control characters other than line feed and tab become
/// visible escapes, and so do those that turn a line around or hide words in it.
pub fn safe(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !matches!(c, '\n' | '\t') || is_hidden(c) || matches!(c, '\u{2028}' | '\u{2029}')
        {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_reply_cannot_drive_the_terminal() {
        assert_eq!(super::safe("a\u{1b}[2Jb\n\tc"), "a\\u{1b}[2Jb\n\tc");
        assert_eq!(super::safe("\u{9d}0;title\u{7}\rx"), "\\u{9d}0;title\\u{7}\\rx");
        assert_eq!(super::safe("a\u{202e}b\u{2028}c"), "a\\u{202e}b\\u{2028}c");
        assert_eq!(super::safe("👩\u{200d}🚀"), "👩\u{200d}🚀");
    }
}
