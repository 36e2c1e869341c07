//! `ask_permission`: the runner asks an owner to allow a tool call, because the group's rules say `ask`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{RequestArgs, grouped};
use crate::text_sanitize::is_zero_width;
use crate::{Refusal, RefusalCode};

/// Asks an owner to allow a tool call, and waits for the answer, for a day by default. Answered with [`Permission`].
/// Since minor version 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AskPermission {
    /// The tool's name.
    pub tool: String,
    /// What the owner decides about: the whole command line, or the arguments.
    pub detail: String,
    /// For `run_command`: the parts of the command line that the rules do not allow by themselves. An owner who always
    /// allows the call allows these. Empty: every call of the tool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
}

impl AskPermission {
    /// The most characters that the question shows of a call. A line counts as two more.
    pub const SHOWN_MAX_CHARS: usize = 3_000;
    /// How much of the arguments of other tools a question shows, in characters.
    const ARGUMENTS_CHARS: usize = 1_000;

    /// The question about a call of another tool than `run_command`. It shows the beginning of long arguments.
    pub fn of_arguments(tool: &str, arguments: &str) -> Self {
        let hidden = |c: char| is_zero_width(c) || c.is_control();
        let visible = |c: char| if hidden(c) { c.escape_unicode().to_string() } else { c.to_string() };
        let length = arguments.chars().count();
        let shown: String = arguments.chars().take(Self::ARGUMENTS_CHARS).map(visible).collect();
        let mut detail: String = shown.chars().take(Self::ARGUMENTS_CHARS).collect();
        if detail.len() < shown.len() || length > Self::ARGUMENTS_CHARS {
            detail += &format!("… ({} characters in all)", grouped(length));
        }
        Self { tool: tool.to_owned(), detail, commands: Vec::new() }
    }

    /// What the question shows besides `detail`.
    pub fn other_commands(&self) -> &[String] {
        if self.commands == [self.detail.trim()] { &[] } else { &self.commands }
    }
}

impl RequestArgs for AskPermission {
    const KIND: &'static str = "ask_permission";

    fn check(&self) -> Result<(), Refusal> {
        let forbidden = |why: &str| Err(Refusal::new(RefusalCode::Forbidden, why));
        let name = |c: u8| c.is_ascii_lowercase() || c == b'_';
        if !(1..=64).contains(&self.tool.len()) || !self.tool.bytes().all(name) {
            return forbidden("the tool's name has 1 to 64 letters of a to z and _");
        }
        let all = || std::iter::once(&self.detail).chain(&self.commands);
        if all().any(|text| text.trim().is_empty()) {
            return forbidden("what to allow is empty");
        }
        if all().any(|text| text.chars().any(is_zero_width)) {
            return forbidden("a person cannot see all of it: it holds invisible characters; leave them out");
        }
        let size = |text: &String| text.chars().count() + 2 * text.lines().count();
        let shown = size(&self.detail) + self.other_commands().iter().map(size).sum::<usize>();
        if shown > Self::SHOWN_MAX_CHARS {
            let most = grouped(Self::SHOWN_MAX_CHARS);
            let why = format!(
                "a person decides about at most {most} characters; put the long part into a file first, or do it in steps"
            );
            return Err(Refusal::new(RefusalCode::TooBig, why));
        }
        Ok(())
    }
}

/// What an owner decided: the `result` of the verdict on [`AskPermission`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum Permission {
    /// The call may run.
    Allowed {
        /// From now on too: the host has made a rule.
        always: bool,
    },
    /// The call may not run.
    Denied,
    /// Somebody wrote something else instead. The question is over.
    Pending,
    /// Nobody decided in time.
    Expired,
}

impl Permission {
    /// For the model: why it may not do `what`, and what to do instead; `None` if it may.
    pub fn refusal(self, what: &str) -> Option<String> {
        match self {
            Self::Allowed { .. } => None,
            Self::Denied => Some(format!(
                "an owner has denied `{what}`. Do without it, or say what you need it for; do not try to get around it."
            )),
            Self::Pending => Some(format!(
                "nobody has decided about `{what}` yet: somebody wrote something else, which comes next. Read that \
                 first. If you still need it, call the tool again: an owner is asked anew, and must press a button."
            )),
            Self::Expired => Some(format!(
                "nobody has decided about `{what}` in time, which counts as a no. Do without it, or end with what you \
                 need."
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(tool: &str, detail: &str, commands: &[&str]) -> Result<(), RefusalCode> {
        let commands = commands.iter().map(|&command| command.to_owned()).collect();
        let ask = AskPermission { tool: tool.into(), detail: detail.into(), commands };
        ask.check().map_err(|refusal| refusal.code)
    }

    #[test]
    fn a_person_sees_all_of_what_is_asked() {
        let long = "x".repeat(AskPermission::SHOWN_MAX_CHARS - 2);
        assert_eq!(asked("run_command", &long, &[&long]), Ok(()), "it is shown once");
        assert_eq!(asked("run_command", &long, &["x"]), Err(RefusalCode::TooBig));
        assert_eq!(asked("run_command", &"\n".repeat(2_000), &[]), Err(RefusalCode::Forbidden));
        assert_eq!(asked("run_command", &"x\n".repeat(800), &[]), Err(RefusalCode::TooBig));
        assert_eq!(asked("run_command", "git push\u{202e}", &[]), Err(RefusalCode::Forbidden));
        assert_eq!(asked("run_command", "git push", &[" "]), Err(RefusalCode::Forbidden));
        assert_eq!(asked("Run it!", "git push", &[]), Err(RefusalCode::Forbidden));
        let cut = AskPermission::of_arguments("write_file", &"\u{202e}ä".repeat(5_000));
        assert!(cut.detail.ends_with("… (10,000 characters in all)") && cut.detail.contains("\\u{202e}"));
        assert_eq!(cut.check(), Ok(()));
        assert_eq!(AskPermission::of_arguments("write_file", "{\"path\":\"a\"}").check(), Ok(()));
    }
}
