//! What a case can require, and how each requirement is checked.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use super::harness::{Harness, TestGroup};

/// The words with which a notice says that a box exceeded a limit.
pub const ENDED: &str = "I ended the agent's box";

/// A requirement as code. The error says why it is not met.
pub type Check = fn(&Seen) -> Result<(), String>;

/// One requirement.
#[derive(Clone, Copy)]
pub enum Expectation {
    /// The host logs this error code for the run and counts it.
    Code(&'static str),
    /// The host logs and counts one of these codes.
    AnyCode(&'static [&'static str]),
    /// The kernel answered the box with one of these error numbers.
    Errno(&'static str, &'static [i64]),
    /// The box's report holds a value that passes the test.
    Fact(&'static str, fn(&Value) -> bool),
    /// The host removed everything from the letter directory.
    Gone,
    /// The chat got nothing but the report.
    Quiet,
    /// The host ended the run, and a notice with these words told the chat.
    Ended(&'static str),
    /// `status` names no gap in this line of the posture for the group: the probe saw the kernel enforce it.
    Kept(&'static str),
    /// A check in code, with its words for the table.
    Check(&'static str, Check),
}

impl Expectation {
    /// The requirement in a few words.
    pub fn word(&self) -> String {
        match self {
            Self::Code(code) => (*code).to_owned(),
            Self::AnyCode(codes) => codes.join("|"),
            Self::Errno(_, numbers) => numbers.iter().map(|n| name_of(*n)).collect::<Vec<_>>().join("|"),
            Self::Ended(_) => "ended with a notice".to_owned(),
            Self::Kept(line) => format!("{line} is kept"),
            Self::Check(word, _) => (*word).to_owned(),
            Self::Fact(..) | Self::Gone | Self::Quiet => String::new(),
        }
    }

    pub(super) fn met(&self, seen: &Seen) -> Result<(), String> {
        match self {
            Self::Code(code) => seen.refused_with(&[code]),
            Self::AnyCode(codes) => seen.refused_with(codes),
            Self::Errno(name, numbers) => {
                let found = seen.facts[*name].as_i64();
                let right = found.is_some_and(|n| numbers.contains(&n));
                right.then_some(()).ok_or_else(|| {
                    let found = found.map_or_else(|| format!("no {name} in {}", seen.facts), name_of);
                    format!("the kernel answered {found}")
                })
            }
            Self::Fact(name, holds) => {
                let found = &seen.facts[*name];
                holds(found)
                    .then_some(())
                    .ok_or_else(|| format!("the box saw {name} = {found}: {}", seen.facts))
            }
            Self::Gone => {
                let gone = &seen.facts["gone"];
                (*gone == true).then_some(()).ok_or_else(|| format!("it was not taken away: {}", seen.facts))
            }
            Self::Quiet => {
                seen.heard.is_empty().then_some(()).ok_or_else(|| format!("the chat heard {:?}", seen.heard))
            }
            Self::Ended(words) => seen.ended_with(words),
            Self::Kept(line) => {
                let lost = seen.lost.iter().any(|lost| lost == line);
                (!lost).then_some(()).ok_or_else(|| format!("the loss of {line} is named"))
            }
            Self::Check(_, check) => check(seen),
        }
    }
}

/// The name of an error number.
pub fn name_of(errno: i64) -> String {
    let name = match errno {
        0 => "success",
        1 => "EPERM",
        2 => "ENOENT",
        5 => "EIO",
        9 => "EBADF",
        11 => "EAGAIN",
        12 => "ENOMEM",
        13 => "EACCES",
        16 => "EBUSY",
        18 => "EXDEV",
        19 => "ENODEV",
        22 => "EINVAL",
        24 => "EMFILE",
        25 => "ENOTTY",
        27 => "EFBIG",
        28 => "ENOSPC",
        30 => "EROFS",
        38 => "ENOSYS",
        95 => "EOPNOTSUPP",
        97 => "EAFNOSUPPORT",
        other => return format!("error {other}"),
    };
    name.to_owned()
}

/// What a case left behind: the input of every requirement.
pub struct Seen<'a> {
    /// The host and its groups.
    pub harness: &'a Harness,
    /// The case's group.
    pub test_group: &'a TestGroup,
    /// The box's report; null if the box ended before it could report.
    pub facts: Value,
    /// Whether the report is from a box that replaced one that had ended.
    pub resumed: bool,
    /// The chat's texts without the report, in order.
    pub heard: Vec<String>,
    /// The host's log lines about the group's runs since the case began.
    pub log: String,
    /// The growth of each counter of the store. Cases run in parallel, so others may have added to it.
    pub counted: BTreeMap<String, i64>,
    /// The posture gaps that `status` names for the group. Filled only for cases that differ under the runtime.
    pub lost: Vec<String>,
    /// The growth of the host's memory in KiB.
    pub grown: i64,
    /// The growth of the host's log in bytes.
    pub logged: usize,
}

impl Seen<'_> {
    /// Checks that the host's memory has grown by at most `kib`.
    pub fn grew_less(&self, kib: i64) -> Result<(), String> {
        if self.grown <= kib { Ok(()) } else { Err(format!("the host grew by {} KiB", self.grown)) }
    }

    fn refused_with(&self, codes: &[&str]) -> Result<(), String> {
        let told = |code: &str| self.log.contains(&format!("code=\"{code}\""));
        let Some(code) = codes.iter().find(|code| told(code)) else {
            return Err(format!(
                "the operator was not told {}; the log says:\n{}",
                codes.join(" or "),
                self.lines()
            ));
        };
        // A gap in the numbers is logged and not counted as a refusal.
        let counted = *code == "ipc.gap" || self.counted.get(*code).is_some_and(|by| *by > 0);
        counted.then_some(()).ok_or_else(|| format!("{code} was logged and not counted: {:?}", self.counted))
    }

    fn lines(&self) -> String {
        let newest: Vec<&str> = self.log.lines().rev().take(8).collect();
        newest.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn ended_with(&self, words: &str) -> Result<(), String> {
        let notice = self.heard.iter().find(|text| text.starts_with("[lazaret]") && text.contains(words));
        if notice.is_some() && self.facts.is_null() {
            return Ok(());
        }
        Err(match (&self.facts, self.resumed) {
            (Value::Null, _) => format!("the chat was told {:?}, without {words:?}", self.heard),
            (_, true) => {
                format!("the box was ended, and the chat was not told of it; the log says:\n{}", self.lines())
            }
            (facts, false) => format!("nobody ended the box, which saw {facts}"),
        })
    }

    /// The folder of the group's run directories.
    pub fn ipc(&self) -> PathBuf {
        self.harness.root().join("state/ipc").join(&self.test_group.group)
    }

    /// The folder of the copies of its letters.
    pub fn letters(&self) -> PathBuf {
        self.harness.root().join("state/letters").join(&self.test_group.group)
    }

    /// The group's workspace.
    pub fn workspace(&self) -> PathBuf {
        self.harness.root().join("state/workspaces").join(&self.test_group.group)
    }

    /// A list of strings in the report.
    pub fn list(&self, name: &str) -> Vec<&str> {
        self.facts[name].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// How many texts of the chat contain `words`.
    pub fn times(&self, words: &str) -> usize {
        self.heard.iter().filter(|text| text.contains(words)).count()
    }
}
