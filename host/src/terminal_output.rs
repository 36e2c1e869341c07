//! Writes the output and the errors of commands.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

pub use ipc_schema::text_sanitize::safe_line;

use ipc_schema::text_sanitize::is_hidden;

/// Writes an error with its code to standard error. The exit code is 1.
pub fn failed(code: &str, error: &impl Display) -> ExitCode {
    // The error may quote an engine, a provider or a file.
    eprintln!("lazaret: {} [{code}]", safe(&error.to_string()));
    ExitCode::FAILURE
}

/// Prints to standard output. When the reader has gone (`lazaret trace | head`), the program ends without an error, as
/// Unix tools do.
pub fn print(text: impl Display) {
    let mut out = io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Makes foreign text safe for a terminal: escapes control characters other than line feed and tab, and characters that
/// reverse a line or hide words in it.
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
