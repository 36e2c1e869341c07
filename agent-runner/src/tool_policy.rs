//! Applies the owner's tool policy (allow, record, ask, deny) to tool calls, before [`crate::turn`] runs them.
//!
//! It is a guard rail for the model and no security boundary: a command can always be spelled in a way that no
//! pattern foresees (`sh -c "$(base64 -d …)"`), and everything in the box runs as the same user. The host enforces
//! what must hold.

use ipc_schema::letters::to_agent::{ToolPolicy, ToolRule, ToolVerdict};

pub use ipc_schema::names_and_paths::RUN_COMMAND;

/// A verdict and the part of the command that caused it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    pub verdict: ToolVerdict,
    /// Set for `run_command` only.
    pub segment: Option<String>,
}

/// Judges one call. Each segment of a command is judged by the first rule that matches it; the strictest judgement
/// wins.
pub fn judge(policy: &ToolPolicy, tool: &str, command: Option<&str>) -> Judgement {
    let Some(command) = command.filter(|_| tool == RUN_COMMAND) else {
        return Judgement { verdict: policy.verdict_on(tool), segment: None };
    };
    segments(command)
        .into_iter()
        .map(|segment| Judgement { verdict: verdict_on_segment(policy, &segment), segment: Some(segment) })
        .max_by_key(|judgement| strictness(judgement.verdict))
        .unwrap_or_else(|| Judgement { verdict: policy.verdict_on(tool), segment: None })
}

fn verdict_on_segment(policy: &ToolPolicy, segment: &str) -> ToolVerdict {
    let matches = |rule: &&ToolRule| {
        rule.tool == RUN_COMMAND && rule.command.as_ref().is_none_or(|pattern| glob(pattern, segment))
    };
    policy.rules.iter().find(matches).map_or(policy.default, |rule| rule.verdict)
}

fn strictness(verdict: ToolVerdict) -> u8 {
    match verdict {
        ToolVerdict::Allow => 0,
        ToolVerdict::Record => 1,
        ToolVerdict::Ask => 2,
        ToolVerdict::Deny => 3,
    }
}

/// Splits a command line where a shell would begin another command: at `;`, `&&`, `||`, `|`, `&` and line breaks
/// outside of quotes, and at brackets and substitutions, which also run inside double quotes. White space is
/// collapsed to one blank, so that patterns need not foresee it.
fn segments(command: &str) -> Vec<String> {
    let mut splitter = Splitter::default();
    let mut chars = command.chars().peekable();
    while let Some(char) = chars.next() {
        let next = chars.peek().copied();
        match (char, splitter.quote) {
            ('\'', Some('\'')) => splitter.close(char),
            (_, Some('\'')) => splitter.push(char),
            ('\\', _) => {
                splitter.push(char);
                splitter.current.extend(chars.next());
            }
            ('"', Some('"')) => splitter.close(char),
            ('\'' | '"', None) => splitter.open(char),
            ('`', _) => splitter.cut(),
            ('$', _) if next == Some('(') => {
                chars.next();
                splitter.cut();
                // Quoting starts fresh inside a substitution.
                splitter.outer.push(splitter.quote.take());
            }
            (')', None) => {
                splitter.cut();
                splitter.quote = splitter.outer.pop().flatten();
            }
            ('(', None) => {
                splitter.cut();
                splitter.outer.push(None);
            }
            (_, Some(_)) => splitter.push(char),
            // `2>&1`, `>&2`, `<&3` and `&>file` redirect; they begin no command.
            ('&', None) if splitter.current.ends_with(['>', '<']) || next == Some('>') => splitter.push(char),
            (';' | '|' | '&' | '\n', None) => splitter.cut(),
            (_, None) => splitter.push(char),
        }
    }
    splitter.cut();
    splitter.done
}

#[derive(Default)]
struct Splitter {
    done: Vec<String>,
    current: String,
    quote: Option<char>,
    outer: Vec<Option<char>>,
}

impl Splitter {
    fn push(&mut self, char: char) {
        self.current.push(char);
    }

    fn open(&mut self, quote: char) {
        self.push(quote);
        self.quote = Some(quote);
    }

    fn close(&mut self, quote: char) {
        self.push(quote);
        self.quote = None;
    }

    fn cut(&mut self) {
        let segment = self.current.split_whitespace().collect::<Vec<_>>().join(" ");
        if !segment.is_empty() {
            self.done.push(segment);
        }
        self.current.clear();
    }
}

/// The fuzz target: the first line is a pattern, the rest a command.
#[cfg(any(test, fuzzing))]
pub fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (pattern, command) = text.split_once('\n').unwrap_or(("rm *", &text));
    let segments = segments(command);
    let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).count();
    assert!(segments.iter().map(|s| letters(s)).sum::<usize>() <= letters(command), "a segment grew");
    for segment in &segments {
        assert!(!segment.is_empty() && !segment.contains("  ") && segment.trim() == segment, "{segment:?}");
        assert!(glob("*", segment) && glob(segment, segment) || segment.contains(['*', '?']));
    }
    let deny =
        ToolRule { tool: RUN_COMMAND.into(), command: Some(pattern.to_owned()), verdict: ToolVerdict::Deny };
    let judged =
        judge(&ToolPolicy { default: ToolVerdict::Allow, rules: vec![deny] }, RUN_COMMAND, Some(command));
    assert_eq!(judged.verdict == ToolVerdict::Deny, segments.iter().any(|segment| glob(pattern, segment)));
}

/// `*` matches any text, `?` any one character, everything else itself. The whole segment must match.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<_>, Vec<_>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // The position of the last star and how much text it matched: backtracking only ever needs the last one.
    let mut star: Option<(usize, usize)> = None;
    while let Some(char) = text.get(t) {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(expected) if *expected == '?' || expected == char => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, swallowed)) => {
                    star = Some((at, swallowed + 1));
                    p = at + 1;
                    t = swallowed + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(command: &str, verdict: ToolVerdict) -> ToolRule {
        ToolRule { tool: RUN_COMMAND.into(), command: Some(command.into()), verdict }
    }

    fn policy() -> ToolPolicy {
        ToolPolicy {
            default: ToolVerdict::Record,
            rules: vec![
                rule("git push --dry-run*", ToolVerdict::Allow),
                rule("git push*", ToolVerdict::Deny),
                rule("rm -rf *", ToolVerdict::Ask),
                ToolRule { tool: "write_file".into(), command: None, verdict: ToolVerdict::Deny },
            ],
        }
    }

    fn verdict_of(command: &str) -> ToolVerdict {
        judge(&policy(), RUN_COMMAND, Some(command)).verdict
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        assert_eq!(verdict_of("git push --dry-run origin"), ToolVerdict::Allow);
        assert_eq!(verdict_of("git push origin"), ToolVerdict::Deny);
        assert_eq!(verdict_of("git status"), ToolVerdict::Record);
        assert_eq!(judge(&policy(), "write_file", None).verdict, ToolVerdict::Deny);
        assert_eq!(judge(&policy(), "read_file", None).verdict, ToolVerdict::Record);
    }

    #[test]
    fn the_strictest_segment_wins_and_is_named() {
        for command in [
            "ls; git push",
            "ls && git  push  -f",
            "true | git push",
            "ls &\ngit push",
            "(cd x && git push)",
            "echo \"$(git push)\"",
            "echo `git push`",
            "git push --dry-run; rm -rf x; git push",
        ] {
            let judged = judge(&policy(), RUN_COMMAND, Some(command));
            assert_eq!(judged.verdict, ToolVerdict::Deny, "{command}");
            assert!(judged.segment.unwrap().starts_with("git push"), "{command}");
        }
    }

    #[test]
    fn quoted_text_is_no_command() {
        for command in ["echo 'x; git push'", "echo \"a && git push\"", "echo a\\;git push", "grep 'a|b' x"] {
            assert_eq!(verdict_of(command), ToolVerdict::Record, "{command}");
        }
    }

    #[test]
    fn segments_are_what_a_shell_would_start() {
        assert_eq!(segments("make 2>&1 | tee &>log; x"), ["make 2>&1", "tee &>log", "x"]);
        assert_eq!(segments("a \"b $(c 'd)' | e) f\" ; g"), ["a \"b", "c 'd)'", "e", "f\"", "g"]);
        assert_eq!(segments(" \n ;; "), Vec::<String>::new());
    }

    #[test]
    fn an_empty_command_is_judged_by_the_tool() {
        assert_eq!(judge(&policy(), RUN_COMMAND, Some(" ")).verdict, ToolVerdict::Record);
    }

    #[test]
    fn a_star_is_any_text() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b*", "xxaxxbxx", true),
            ("rm *", "rm", false),
            ("", "x", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn every_command_can_be_cut(command in "[a-z$()`'\"\\\\;&|<> \n]{0,40}") {
            for segment in segments(&command) {
                prop_assert!(!segment.trim().is_empty());
            }
        }

        #[test]
        fn a_text_matches_itself_with_any_part_starred(text in "[a-c]{0,8}", from in 0usize..8, to in 0usize..8) {
            let (from, to) = (from.min(to).min(text.len()), from.max(to).min(text.len()));
            let pattern = format!("{}*{}", &text[..from], &text[to..]);
            prop_assert!(glob(&pattern, &text));
        }
    }
}
