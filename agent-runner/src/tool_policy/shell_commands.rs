//! Finds the commands that a shell would run in a command line. [`super::judge`] judges each of them.
//!
//! `brush-parser` parses the line, and this module knows a list of kinds of nodes. What it does not know, and what the
//! parser refuses, is [`Found::unknown`]. The line comes from a model, and the parser recurses and backtracks: a line
//! that is long or nests deeply is unknown before it is parsed.

use std::collections::BTreeSet;

use brush_parser::ast::{
    AndOr, AssignmentValue, Command, CommandPrefixOrSuffixItem as Item, CompoundCommand, CompoundList,
    ExtendedTestExpr, IoFileRedirectKind as RedirectKind, IoFileRedirectTarget as Target, IoRedirect,
    Pipeline, Program, RedirectList, SimpleCommand,
};
use brush_parser::ast::{BinaryPredicate, Word};
use brush_parser::word::{self, Parameter, ParameterExpr, WordPiece, WordPieceWithSource};
use brush_parser::{ParserOptions, SourceInfo, Token, parse_tokens, uncached_tokenize_str};

/// The longest line that is parsed, in bytes.
const LINE_MAX: usize = 32 * 1024;
/// The most substitutions in a line, and how deep command lines stand in each other.
const SUBSTITUTIONS: usize = 20;
const DEPTH: usize = 8;
/// The most words and brackets that begin a compound command.
const COMPOUNDS: usize = 60;

/// The most `case` clauses: the parser takes twice as long for each one that stands in another and is not closed.
const CASES: usize = 4;

/// Words that begin a compound command.
const OPENERS: [&str; 10] = ["if", "elif", "while", "until", "for", "case", "select", "{", "!", "[["];
/// Commands whose arguments change what later words mean, or are run in a way that this module does not follow.
const UNKNOWN: [&str; 12] = [
    ".", "alias", "builtin", "coproc", "enable", "eval", "exec", "function", "select", "source", "trap",
    "unalias",
];
/// Commands that run the command in their arguments.
const WRAPPERS: [&str; 16] = [
    "busybox", "chroot", "command", "doas", "env", "find", "ionice", "nice", "nohup", "setsid", "stdbuf",
    "sudo", "time", "timeout", "watch", "xargs",
];
const SHELLS: [&str; 6] = ["ash", "bash", "dash", "ksh", "sh", "zsh"];

/// What a command line runs.
#[derive(Debug, Default)]
pub struct Found {
    pub commands: Vec<Simple>,
    /// Whether it holds something that this module does not follow.
    pub unknown: bool,
}

/// One simple command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Simple {
    /// As it is written.
    pub written: String,
    /// Its words without quotes, with assignments before and redirections to files behind them: what a pattern
    /// matches.
    pub text: String,
    /// Other texts by which a rule may mean it: without assignments and redirections, by the last part of its path, and
    /// the commands that it may run.
    pub also: BTreeSet<String>,
    /// Whether it writes to a file by a redirection.
    pub writes: bool,
}

/// Finds the commands of a line.
pub fn find(line: &str) -> Found {
    let mut finder = Finder::default();
    let substitutions: usize =
        ["$(", "${", "`", "<(", ">("].map(|begin| line.matches(begin).count()).iter().sum();
    if substitutions > SUBSTITUTIONS || line.contains('\0') {
        finder.found.unknown = true;
    } else {
        finder.line(line, 0);
    }
    finder.found
}

fn options() -> ParserOptions {
    // `sh -c` and `bash -c` have no extended globs.
    ParserOptions { enable_extended_globbing: false, ..ParserOptions::default() }
}

#[derive(Default)]
struct Finder {
    found: Found,
    /// How deep the line stands that is being read.
    depth: usize,
}

/// A word as the shell would pass it on, except that variables and substitutions stay as they are written.
#[derive(Default)]
struct Read {
    text: String,
    /// Whether it is known before the shell runs.
    is_fixed: bool,
}

impl Finder {
    fn unknown(&mut self) {
        self.found.unknown = true;
    }

    fn line(&mut self, line: &str, depth: usize) {
        match program(line).filter(|_| depth <= DEPTH) {
            Some(program) => {
                let outer = std::mem::replace(&mut self.depth, depth);
                program.complete_commands.iter().for_each(|list| self.list(list));
                self.depth = outer;
            }
            None => self.unknown(),
        }
    }

    fn list(&mut self, list: &CompoundList) {
        for item in &list.0 {
            self.pipeline(&item.0.first);
            for AndOr::And(pipeline) | AndOr::Or(pipeline) in &item.0.additional {
                self.pipeline(pipeline);
            }
        }
    }

    fn pipeline(&mut self, pipeline: &Pipeline) {
        pipeline.seq.iter().for_each(|command| self.command(command));
    }

    fn command(&mut self, command: &Command) {
        match command {
            Command::Simple(simple) => self.simple(simple),
            Command::Compound(compound, redirects) => {
                self.compound(compound);
                self.redirects_of_compound(redirects.as_ref());
            }
            Command::ExtendedTest(test) => self.test(&test.expr),
            Command::Function(_) => self.unknown(),
        }
    }

    fn compound(&mut self, compound: &CompoundCommand) {
        match compound {
            CompoundCommand::BraceGroup(group) => self.list(&group.list),
            CompoundCommand::Subshell(subshell) => self.list(&subshell.list),
            CompoundCommand::ForClause(each) => {
                each.values.iter().flatten().for_each(|value| drop(self.word(value)));
                self.list(&each.body.list);
            }
            CompoundCommand::IfClause(clause) => {
                self.list(&clause.condition);
                self.list(&clause.then);
                for other in clause.elses.iter().flatten() {
                    other.condition.iter().for_each(|condition| self.list(condition));
                    self.list(&other.body);
                }
            }
            CompoundCommand::WhileClause(clause) | CompoundCommand::UntilClause(clause) => {
                self.list(&clause.0);
                self.list(&clause.1.list);
            }
            CompoundCommand::CaseClause(clause) => {
                drop(self.word(&clause.value));
                for case in &clause.cases {
                    case.patterns.iter().for_each(|pattern| drop(self.word(pattern)));
                    case.cmd.iter().for_each(|list| self.list(list));
                }
            }
            // Arithmetic runs what stands in a variable's index.
            CompoundCommand::Arithmetic(_) | CompoundCommand::ArithmeticForClause(_) => self.unknown(),
        }
    }

    /// A redirection of a whole group has no command of its own that a rule could name.
    fn redirects_of_compound(&mut self, redirects: Option<&RedirectList>) {
        for redirect in redirects.iter().flat_map(|list| &list.0) {
            let (written, _) = self.redirect(redirect);
            if written.is_some() {
                self.unknown();
            }
        }
    }

    /// `[[ … ]]`. Shells that do not know it read `&&`, `<` and `|` inside as what they are elsewhere.
    fn test(&mut self, test: &ExtendedTestExpr) {
        match test {
            ExtendedTestExpr::Not(test) => self.test(test),
            ExtendedTestExpr::UnaryTest(_, word) => drop(self.word(word)),
            ExtendedTestExpr::BinaryTest(
                BinaryPredicate::LeftSortsBeforeRight
                | BinaryPredicate::LeftSortsAfterRight
                | BinaryPredicate::StringMatchesRegex
                | BinaryPredicate::StringContainsSubstring,
                ..,
            )
            | ExtendedTestExpr::And(..)
            | ExtendedTestExpr::Or(..)
            | ExtendedTestExpr::Parenthesized(_) => self.unknown(),
            ExtendedTestExpr::BinaryTest(_, left, right) => {
                drop(self.word(left));
                drop(self.word(right));
            }
        }
    }

    fn simple(&mut self, simple: &SimpleCommand) {
        let (mut before, mut words, mut after) = (Vec::new(), Vec::new(), Vec::new());
        let prefix = simple.prefix.iter().flat_map(|items| &items.0);
        let suffix = simple.suffix.iter().flat_map(|items| &items.0);
        let name = simple.word_or_name.as_ref().map(|name| self.word(name));
        for item in prefix {
            self.item(item, &mut before, &mut after);
        }
        if let Some(name) = &name {
            self.name(name);
            words.push(name.text.clone());
        }
        let mut fixed = Vec::new();
        for item in suffix {
            let before = words.len();
            let is_fixed = self.item(item, &mut words, &mut after);
            if words.len() > before {
                fixed.push(is_fixed);
            }
        }
        let also = self.also(&words, &fixed);
        let text = [before, words, after.clone()].concat().join(" ");
        let written = simple.to_string().trim().to_owned();
        self.found.commands.push(Simple { written, text, also, writes: !after.is_empty() });
    }

    /// Adds an item to the words or to the redirections. Returns whether it is a word that is known before it runs.
    fn item(&mut self, item: &Item, words: &mut Vec<String>, writes: &mut Vec<String>) -> bool {
        match item {
            Item::Word(word) => {
                let Read { text, is_fixed } = self.word(word);
                words.push(text);
                is_fixed
            }
            Item::AssignmentWord(assignment, written) => {
                match &assignment.value {
                    AssignmentValue::Scalar(value) => drop(self.word(value)),
                    AssignmentValue::Array(_) => self.unknown(),
                }
                if !matches!(assignment.name, brush_parser::ast::AssignmentName::VariableName(_)) {
                    self.unknown();
                }
                words.push(written.value.clone());
                false
            }
            Item::IoRedirect(redirect) => {
                let (written, _) = self.redirect(redirect);
                writes.extend(written);
                false
            }
            Item::ProcessSubstitution(_, subshell) => {
                self.list(&subshell.list);
                words.push("<(…)".to_owned());
                false
            }
        }
    }

    /// A name that a shell could expand may be any command.
    fn name(&mut self, name: &Read) {
        let expands = |c: char| c.is_whitespace() || "*?[{}$`".contains(c);
        let text = name.text.as_str();
        if text == "[" {
            return;
        }
        if !name.is_fixed || text.is_empty() || text.contains(expands) || UNKNOWN.contains(&text) {
            self.unknown();
        }
    }

    /// The other texts of a command. `fixed` says of each word behind the name whether it is known.
    fn also(&mut self, words: &[String], fixed: &[bool]) -> BTreeSet<String> {
        let Some((name, arguments)) = words.split_first() else { return BTreeSet::new() };
        let mut also = BTreeSet::from([words.join(" ")]);
        let short = name.rsplit('/').next().unwrap_or(name);
        also.insert([&[short.to_owned()], arguments].concat().join(" "));
        if WRAPPERS.contains(&short) {
            also.extend((0..arguments.len()).filter_map(|at| Some(arguments.get(at..)?.join(" "))));
        }
        let flag = |word: &String| word.starts_with('-') && !word.starts_with("--") && word.contains('c');
        if let Some(at) = arguments.iter().position(flag).filter(|_| SHELLS.contains(&short)) {
            match arguments.get(at + 1).filter(|_| fixed.iter().all(|fixed| *fixed)) {
                Some(line) => self.line(line, self.depth + 1),
                None => self.unknown(),
            }
        }
        also
    }

    /// The text of a redirection that writes to a file, and whether its words are known.
    fn redirect(&mut self, redirect: &IoRedirect) -> (Option<String>, bool) {
        let (sign, target) = match redirect {
            IoRedirect::OutputAndError(word, append) => (if *append { "&>>" } else { "&>" }, word),
            IoRedirect::File(_, kind, target) => match (kind, target) {
                (_, Target::ProcessSubstitution(_, subshell)) => {
                    self.list(&subshell.list);
                    return (None, true);
                }
                (_, Target::Fd(_)) => return (None, true),
                (
                    RedirectKind::Read | RedirectKind::DuplicateInput,
                    Target::Filename(word) | Target::Duplicate(word),
                ) => {
                    return (None, self.word(word).is_fixed);
                }
                (RedirectKind::Append, Target::Filename(word) | Target::Duplicate(word)) => (">>", word),
                (_, Target::Filename(word) | Target::Duplicate(word)) => (">", word),
            },
            IoRedirect::HereString(_, word) => return (None, self.word(word).is_fixed),
            IoRedirect::HereDocument(_, document) => {
                let expands = |text: &str| ["$(", "${", "$[", "`"].iter().any(|begin| text.contains(begin));
                if document.requires_expansion && expands(&document.doc.value) {
                    self.unknown();
                }
                return (None, true);
            }
        };
        let Read { text, is_fixed } = self.word(target);
        let is_number = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit() || c == b'-');
        let to_no_file = is_number || ["/dev/null", "/dev/stdout", "/dev/stderr"].contains(&text.as_str());
        (Some(format!("{sign} {text}")).filter(|_| !(to_no_file && is_fixed)), is_fixed)
    }

    fn word(&mut self, word: &Word) -> Read {
        let mut read = Read { text: String::new(), is_fixed: true };
        if !word.value.contains(['$', '`', '\\', '\'', '"']) {
            read.text.clone_from(&word.value);
            return read;
        }
        match word::parse(&word.value, &options()) {
            Ok(pieces) => self.pieces(&word.value, &pieces, &mut read),
            Err(_) => self.unknown(),
        }
        read
    }

    fn pieces(&mut self, word: &str, pieces: &[WordPieceWithSource], read: &mut Read) {
        for WordPieceWithSource { piece, start_index, end_index } in pieces {
            let written = word.get(*start_index..*end_index).unwrap_or("$");
            match piece {
                WordPiece::Text(text) | WordPiece::SingleQuotedText(text) => read.text.push_str(text),
                // A simple shell reads `$'a\'b'` in another way.
                WordPiece::AnsiCQuotedText(text) if !text.contains('\\') => read.text.push_str(text),
                WordPiece::TildePrefix(_) => read.text.push_str(written),
                WordPiece::EscapeSequence(escaped) => {
                    read.text
                        .push_str(escaped.strip_prefix('\\').unwrap_or(escaped).trim_start_matches('\n'));
                }
                WordPiece::DoubleQuotedSequence(pieces) => self.pieces(word, pieces, read),
                WordPiece::ParameterExpansion(parameter) => {
                    if !is_plain(parameter, written) {
                        self.unknown();
                    }
                    read.is_fixed = false;
                    read.text.push_str(written);
                }
                WordPiece::CommandSubstitution(line) => {
                    self.line(line, self.depth + 1);
                    read.is_fixed = false;
                    read.text.push_str(written);
                }
                WordPiece::BackquotedCommandSubstitution(line) if !line.contains('\\') => {
                    self.line(line, self.depth + 1);
                    read.is_fixed = false;
                    read.text.push_str(written);
                }
                WordPiece::AnsiCQuotedText(_)
                | WordPiece::GettextDoubleQuotedSequence(_)
                | WordPiece::BackquotedCommandSubstitution(_)
                | WordPiece::ArithmeticExpression(_) => {
                    self.unknown();
                    read.is_fixed = false;
                    read.text.push_str(written);
                }
            }
        }
    }
}

/// Parses a line, if it is not too much for the parser.
fn program(line: &str) -> Option<Program> {
    // `$((` is arithmetic, and a parameter inside a parameter is what no rule needs.
    let nested = |rest: &str| rest.split('}').next().is_some_and(|inside| inside.contains(['$', '`']));
    if line.len() > LINE_MAX || line.contains("$((") || line.split("${").skip(1).any(nested) {
        return None;
    }
    let options = options();
    let tokens = uncached_tokenize_str(line, &options.tokenizer_options()).ok()?;
    let bracket = |token: &Token| matches!(token, Token::Operator(text, _) if text == "(");
    let opens = |token: &Token| match token {
        Token::Operator(text, _) => text == "(",
        Token::Word(text, _) => OPENERS.contains(&text.as_str()),
    };
    let case = |token: &&Token| matches!(token, Token::Word(text, _) if text == "case");
    if tokens.iter().filter(case).count() > CASES {
        return None;
    }
    let arithmetic = tokens.windows(2).any(|two| two.iter().all(bracket));
    if arithmetic || tokens.iter().filter(|token| opens(token)).count() > COMPOUNDS {
        return None;
    }
    parse_tokens(&tokens, &options, &SourceInfo::default()).ok()
}

/// Whether an expansion only puts in a variable's value, or a part of it.
fn is_plain(expression: &ParameterExpr, written: &str) -> bool {
    let (parameter, indirect) = match expression {
        ParameterExpr::Parameter { parameter, indirect }
        | ParameterExpr::ParameterLength { parameter, indirect }
        | ParameterExpr::UseDefaultValues { parameter, indirect, .. }
        | ParameterExpr::UseAlternativeValue { parameter, indirect, .. }
        | ParameterExpr::IndicateErrorIfNullOrUnset { parameter, indirect, .. }
        | ParameterExpr::RemoveSmallestSuffixPattern { parameter, indirect, .. }
        | ParameterExpr::RemoveLargestSuffixPattern { parameter, indirect, .. }
        | ParameterExpr::RemoveSmallestPrefixPattern { parameter, indirect, .. }
        | ParameterExpr::RemoveLargestPrefixPattern { parameter, indirect, .. } => (parameter, *indirect),
        _ => return false,
    };
    let known = matches!(parameter, Parameter::Named(_) | Parameter::Positional(_) | Parameter::Special(_));
    known && !indirect && !written.trim_start_matches('$').contains(['$', '`', '\\', '\'', '"'])
}
