//! Applies the owner's tool policy (allow, record, ask, deny) to tool calls, before [`crate::turn`] runs them.
//!
//! It guards against mistakes and is no security boundary: a command can always be spelled in a way that no pattern
//! foresees, such as a script that the agent writes first. Everything in the box runs as the same user. The host
//! enforces what must hold.

mod shell_commands;

use ipc_schema::letters::to_agent::{AlwaysAllowed, ToolPolicy, ToolRule, ToolVerdict};

pub use ipc_schema::names_and_paths::RUN_COMMAND;

use shell_commands::Simple;

/// A verdict on a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    pub verdict: ToolVerdict,
    /// For `run_command`, if its rules name commands: the parts of the command line that caused the verdict, as they
    /// are written.
    pub commands: Vec<String>,
}

impl Judgement {
    fn of_tool(verdict: ToolVerdict) -> Self {
        Self { verdict, commands: Vec::new() }
    }

    /// What the verdict is about, for the model.
    pub fn subject(&self, tool: &str) -> String {
        self.commands.first().map_or_else(|| tool.to_owned(), |command| crate::tools::one_line(command))
    }
}

/// Judges one call. Each command of a command line is judged by the first rule that matches it, and the strictest
/// verdict wins. `allowed` changes an `ask` into an `allow`.
pub fn judge(policy: &ToolPolicy, allowed: &[AlwaysAllowed], tool: &str, command: Option<&str>) -> Judgement {
    let by_command = |rule: &ToolRule| rule.tool == RUN_COMMAND && rule.command.is_some();
    let judged = match command.map(str::trim) {
        Some(line) if tool == RUN_COMMAND && policy.rules.iter().any(by_command) => judge_line(policy, line),
        _ => Judgement::of_tool(policy.verdict_on(tool)),
    };
    let is_allowed = |command: Option<&String>| {
        allowed
            .iter()
            .any(|a| a.tool == tool && a.command.as_ref().is_none_or(|exactly| Some(exactly) == command))
    };
    let (all, some) = (judged.commands.as_slice(), !judged.commands.is_empty());
    let every = if some { all.iter().all(|command| is_allowed(Some(command))) } else { is_allowed(None) };
    match judged.verdict {
        ToolVerdict::Ask if every => Judgement::of_tool(ToolVerdict::Allow),
        _ => judged,
    }
}

fn judge_line(policy: &ToolPolicy, line: &str) -> Judgement {
    let mut found = shell_commands::find(line);
    if let ([only], false) = (found.commands.as_mut_slice(), found.unknown) {
        line.clone_into(&mut only.written);
    }
    let mut all: Vec<_> =
        found.commands.iter().map(|simple| (verdict_on(policy, simple), simple.written.clone())).collect();
    if found.unknown {
        let verdict = if may_be_denied(policy, line) { ToolVerdict::Deny } else { ToolVerdict::Ask };
        all.push((verdict, line.to_owned()));
    }
    let strictest = all.iter().map(|(verdict, _)| *verdict).max_by_key(|verdict| strictness(*verdict));
    let Some(verdict) = strictest else { return Judgement::of_tool(policy.verdict_on(RUN_COMMAND)) };
    let mut commands: Vec<String> =
        all.into_iter().filter(|(of_one, _)| *of_one == verdict).map(|(_, written)| written).collect();
    commands.dedup();
    Judgement { verdict, commands }
}

fn verdict_on(policy: &ToolPolicy, simple: &Simple) -> ToolVerdict {
    let rule = |text: &str| {
        let matches = |rule: &&ToolRule| {
            rule.tool == RUN_COMMAND && rule.command.as_ref().is_none_or(|pattern| glob(pattern, text))
        };
        policy.rules.iter().find(matches)
    };
    let named = match rule(&simple.text) {
        None => policy.default,
        Some(ToolRule {
            command: Some(pattern), verdict: ToolVerdict::Allow | ToolVerdict::Record, ..
        }) if simple.writes && !pattern.contains('>') => ToolVerdict::Ask,
        Some(rule) => rule.verdict,
    };
    let also = simple.also.iter().filter_map(|text| rule(text)).map(|rule| rule.verdict);
    let strict = also.filter(|verdict| matches!(verdict, ToolVerdict::Ask | ToolVerdict::Deny));
    strict.chain([named]).max_by_key(|verdict| strictness(*verdict)).unwrap_or(named)
}

/// Whether a denied command may stand in a line that is not understood.
fn may_be_denied(policy: &ToolPolicy, line: &str) -> bool {
    let bare: String = line.chars().filter(|c| !"\\\"'".contains(*c)).collect();
    let bare = bare.split_whitespace().collect::<Vec<_>>().join(" ");
    let denies = |rule: &ToolRule| {
        let pattern = rule.command.as_ref().map_or("*", String::as_str);
        rule.tool == RUN_COMMAND && rule.verdict == ToolVerdict::Deny && glob(&format!("*{pattern}*"), &bare)
    };
    policy.rules.iter().any(denies)
}

fn strictness(verdict: ToolVerdict) -> u8 {
    match verdict {
        ToolVerdict::Allow => 0,
        ToolVerdict::Record => 1,
        ToolVerdict::Ask => 2,
        ToolVerdict::Deny => 3,
    }
}

/// The fuzz target: the first line is a pattern, the rest a command line.
#[cfg(any(test, fuzzing))]
pub fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (pattern, line) = text.split_once('\n').unwrap_or(("rm *", &text));
    let line = line.trim();
    let policy = |verdict, default| {
        let rule = ToolRule { tool: RUN_COMMAND.into(), command: Some(pattern.to_owned()), verdict };
        ToolPolicy { default, rules: vec![rule] }
    };
    let found = shell_commands::find(line);
    let denied = found.commands.iter().any(|simple| glob(pattern, &simple.text));
    let judged = judge(&policy(ToolVerdict::Deny, ToolVerdict::Allow), &[], RUN_COMMAND, Some(line));
    assert!(judged.verdict == ToolVerdict::Deny || !denied, "{judged:?}");
    assert!(judged.verdict != ToolVerdict::Allow || !found.unknown, "{judged:?}");
    // What no rule allows needs its permission, and a permission for all of it is enough.
    let ask = policy(ToolVerdict::Allow, ToolVerdict::Ask);
    let judged = judge(&ask, &[], RUN_COMMAND, Some(line));
    let allowed = |simple: &Simple| glob(pattern, &simple.text);
    let all = !found.unknown && !found.commands.is_empty() && found.commands.iter().all(allowed);
    assert!(judged.verdict == ToolVerdict::Ask || all, "{judged:?}");
    let rule = |command: &String| AlwaysAllowed { tool: RUN_COMMAND.into(), command: Some(command.clone()) };
    let rules: Vec<_> = judged.commands.iter().map(rule).collect();
    let after = judge(&ask, &rules, RUN_COMMAND, Some(line)).verdict;
    assert!(after == ToolVerdict::Allow || judged.commands.is_empty(), "{after:?}");
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
        judge(&policy(), &[], RUN_COMMAND, Some(command)).verdict
    }

    /// The verdict where `git *` and `echo *` are allowed, and everything else is asked about.
    fn only_git(line: &str) -> ToolVerdict {
        let rules = ["git *", "echo *"].map(|pattern| rule(pattern, ToolVerdict::Allow)).to_vec();
        judge(&ToolPolicy { default: ToolVerdict::Ask, rules }, &[], RUN_COMMAND, Some(line)).verdict
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        assert_eq!(verdict_of("git push --dry-run origin"), ToolVerdict::Allow);
        assert_eq!(verdict_of("git push origin"), ToolVerdict::Deny);
        assert_eq!(verdict_of("git status"), ToolVerdict::Record);
        assert_eq!(judge(&policy(), &[], "write_file", None).verdict, ToolVerdict::Deny);
        assert_eq!(judge(&policy(), &[], "read_file", None).verdict, ToolVerdict::Record);
    }

    #[test]
    fn without_rules_about_commands_no_command_is_parsed() {
        let plain = ToolPolicy { default: ToolVerdict::Record, rules: vec![] };
        for line in ["eval x", "(((((", "", "f() { f; }; f"] {
            let judged = judge(&plain, &[], RUN_COMMAND, Some(line));
            assert_eq!(judged, Judgement { verdict: ToolVerdict::Record, commands: vec![] });
        }
    }

    #[test]
    fn the_strictest_command_wins_and_is_named() {
        for command in [
            "ls; git push",
            "ls && git  push  -f",
            "ls || git push",
            "true | git push",
            "true |& git push",
            "ls &\ngit push",
            "(cd x && git push)",
            "{ git push; }",
            "! git push",
            "time git push",
            "if true; then git push; fi",
            "if git push; then x; elif y; then z; else w; fi",
            "if x; then y; elif y; then z; else git push; fi",
            "for i in a b; do git push; done",
            "for i in $(git push); do x; done",
            "while git push; do x; done",
            "until x; do git push; done",
            "case $x in a) y;; *) git push;; esac",
            "[[ -n $(git push) ]]",
            "echo \"$(git push)\"",
            "echo `git push`",
            "echo \"`git push`\"",
            "diff <(git push) x",
            "x < <(git push)",
            "x=$(git push)",
            "x=$(git push) y",
            "cat <<< $(git push)",
            "ls > $(git push)",
            "git push --dry-run; rm -rf x; git push",
            "git \\\n push",
            "g\"i\"t 'push'",
            "\\git push",
            "/usr/bin/git push",
            "A=b git push",
            "git push > log",
            "env A=b git push",
            "xargs -n 1 git push",
            "find . -exec git push ;",
            "sh -c 'ls; git push'",
            "bash -ec \"ls; git push\"",
            "git push &",
            "git push # really",
        ] {
            let judged = judge(&policy(), &[], RUN_COMMAND, Some(command));
            assert_eq!(judged.verdict, ToolVerdict::Deny, "{command}");
            assert!(!judged.commands.is_empty(), "{command}");
        }
        let judged = judge(&policy(), &[], RUN_COMMAND, Some("cd x && rm -rf a; ls; rm -rf b"));
        assert_eq!(
            (judged.verdict, judged.commands),
            (ToolVerdict::Ask, vec!["rm -rf a".into(), "rm -rf b".into()])
        );
    }

    #[test]
    fn text_that_is_no_command_is_judged_as_none() {
        for command in [
            "echo 'x; git push'",
            "echo \"a && git push\"",
            "echo a\\;git push",
            "grep 'a|b' x",
            "cat > notes <<'EOF'\n$(git push)\ngit push\nEOF",
            "cat <<EOF\nit's $HOME\nEOF",
            "# git push",
            "make 2>&1 >/dev/null",
            "[[ -f x ]] || [ $y = z ] && echo ${z%.txt} ${#z} \"$@\"",
        ] {
            assert_eq!(verdict_of(command), ToolVerdict::Record, "{command}");
        }
    }

    #[test]
    fn what_allows_one_command_allows_no_other() {
        for line in [
            "git status",
            "git log | echo x && git diff",
            "git log 2>/dev/null",
            "git commit -m \"a; rm -rf $HOME\"",
            "for f in a b; do git add $f; done",
            "git log $(git rev-parse HEAD)",
        ] {
            assert_eq!(only_git(line), ToolVerdict::Allow, "{line}");
        }
        for line in [
            "git x; rm -rf y",
            "git $(rm y)",
            "git `rm y`",
            "git x > ~/.bashrc",
            "git x >> notes",
            "git x &> notes",
            "git x >& notes",
            "git x <(rm y)",
            "LD_PRELOAD=x git status",
            "PATH=. ; git status",
            "git x\nrm y",
            "git x & rm y",
            "$x status",
            "gi? status",
            "{git,rm} x",
            "\"git x\" y",
            "`echo git` x",
            "git() { rm y; }; git x",
            "function git { rm y; }; git x",
            "echo $((a[$(rm y)]))",
            "echo $((1 + 1))",
            "((x))",
            "echo ${x:-$(rm y)}",
            "echo ${x@P}",
            "echo ${!x}",
            "echo ${x[$(rm y)]}",
            "echo <<EOF\n$(rm y)\nEOF",
            "echo $'\\'; rm y; echo '",
            "echo !(rm y)",
            "[[ a && git x ]]",
            "[[ a < b ]]",
            "echo 'x",
            "echo x)",
            "eval git x",
            "sh -c \"$x\"",
            "select x in a; do git x; done",
            "{ git x; } > notes",
            "git x; x=(a $(rm y))",
            "",
        ] {
            assert_eq!(only_git(line), ToolVerdict::Ask, "{line:?}");
        }
    }

    #[test]
    fn a_pattern_with_a_redirection_allows_to_write() {
        let rules = vec![rule("git log > notes/*", ToolVerdict::Allow)];
        let policy = ToolPolicy { default: ToolVerdict::Deny, rules };
        let verdict = |line| judge(&policy, &[], RUN_COMMAND, Some(line)).verdict;
        assert_eq!(verdict("git log > notes/today"), ToolVerdict::Allow);
        assert_eq!(verdict("git log > ~/.bashrc"), ToolVerdict::Deny);
        assert_eq!(verdict("git log"), ToolVerdict::Deny);
    }

    #[test]
    fn an_unknown_line_with_a_denied_command_in_it_is_denied() {
        assert_eq!(verdict_of("f() { git push; }; f"), ToolVerdict::Deny);
        assert_eq!(verdict_of("eval 'git' push"), ToolVerdict::Deny);
        assert_eq!(verdict_of("f() { git pull; }; f"), ToolVerdict::Ask);
    }

    #[test]
    fn an_owner_allows_for_ever_exactly_what_was_asked() {
        let rules = vec![rule("rm -rf *", ToolVerdict::Ask), rule("git push*", ToolVerdict::Deny)];
        let policy = ToolPolicy { default: ToolVerdict::Record, rules };
        let learned =
            |command: &str| AlwaysAllowed { tool: RUN_COMMAND.into(), command: Some(command.into()) };
        let allowed = [learned("rm -rf a*"), learned("eval x"), learned("git push")];
        let verdict = |line| judge(&policy, &allowed, RUN_COMMAND, Some(line)).verdict;
        assert_eq!(verdict("rm -rf a*"), ToolVerdict::Allow);
        assert_eq!(verdict("cd x && rm -rf a*; eval x"), ToolVerdict::Ask, "eval x was allowed alone");
        assert_eq!(verdict("eval x"), ToolVerdict::Allow);
        for other in ["rm -rf ab", "rm -rf 'a*'", "rm -rf a* b", "rm -rf a*; rm -rf b", "eval x y"] {
            assert_eq!(verdict(other), ToolVerdict::Ask, "{other}");
        }
        assert_eq!(verdict("git push"), ToolVerdict::Deny, "never over a `deny`");
        let ask = ToolPolicy { default: ToolVerdict::Ask, rules: vec![] };
        let tool = AlwaysAllowed { tool: "write_file".into(), command: None };
        let verdict = |tool_name| judge(&ask, std::slice::from_ref(&tool), tool_name, None).verdict;
        assert_eq!((verdict("write_file"), verdict("edit_file")), (ToolVerdict::Allow, ToolVerdict::Ask));
    }

    /// Each of them is asked about, in a moment and in the stack of a thread.
    #[test]
    fn no_line_is_too_much_for_the_parser() {
        for (open, close) in [
            ("(", ")"),
            ("( ", ")"),
            ("((", "))"),
            ("{ ", "; }"),
            ("$(", ")"),
            ("\"$(", ")\""),
            ("${x:-", "}"),
            ("$((", "))"),
            ("`", "`"),
            ("<(", ")"),
            ("if x; then ", "; fi"),
            ("if ", "; then x; fi"),
            ("while x; do ", "; done"),
            ("for i in x; do ", "; done"),
            ("case x in x) ", ";; esac"),
            ("! ", ""),
            ("[[ ! ", " ]]"),
            ("f() { ", "; }"),
            ("x=", ""),
            ("a | ", ""),
            ("a && ", ""),
            ("<<E ", "\nE\n"),
            ("'", ""),
            ("\"", ""),
            ("\\", ""),
        ] {
            for depth in [1, 5, 19, 60, 61, 5_000] {
                for close in [close, ""] {
                    let line = format!("{}git x{}", open.repeat(depth), close.repeat(depth));
                    let _ = only_git(&line);
                }
            }
        }
        assert_eq!(only_git(&format!("git {}", "x".repeat(40_000))), ToolVerdict::Ask);
        assert_eq!(only_git(&"git x;".repeat(5_000)), ToolVerdict::Allow);
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
        fn every_line_has_a_verdict(line in "(\\PC|[a-z$(){}`'\"\\\\;&|<>#!\\[\\]= \n]){0,60}") {
            fuzz(format!("git *\n{line}").as_bytes());
        }

        #[test]
        fn every_line_of_shell_words_has_a_verdict(
            words in proptest::collection::vec(
                proptest::sample::select(vec![
                    "git", "x", "if", "then", "else", "fi", "for", "in", "do", "done", "case", "esac", "while", "(", ")",
                    "{", "}", ";", ";;", "&&", "||", "|", "&", "\n", "$(", "`", "\"", "'", "<<E", "\nE\n", ">", "<", "2>&1",
                    "[[", "]]", "!", "$x", "${x}", "a=b", "<(", "time", "function", "$'",
                ]),
                0..25,
            ),
        ) {
            fuzz(format!("git *\n{}", words.join(" ")).as_bytes());
        }

        #[test]
        fn a_text_matches_itself_with_any_part_starred(text in "[a-c]{0,8}", from in 0usize..8, to in 0usize..8) {
            let (from, to) = (from.min(to).min(text.len()), from.max(to).min(text.len()));
            let pattern = format!("{}*{}", &text[..from], &text[to..]);
            prop_assert!(glob(&pattern, &text));
        }
    }
}
