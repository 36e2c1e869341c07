//! Notices about turns: why the agent does not start, why a turn ended, why the model did not answer.

use super::{REASON, one_line, sentence, size};
use crate::domain::{Ending, GroupName};

/// Characters of a reason that comes from a box.
const QUOTATION: usize = 200;
/// Characters of an error code.
const CODE: usize = 40;

/// Who reads a notice about the install. Its reasons hold paths and shell commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// The chats of `main`: the operator reads the reason, and what to do.
    Operator,
    /// Every other chat reads what happened and that the operator knows.
    Member,
}

impl Reader {
    pub fn of(group: &GroupName) -> Self {
        if group.is_main() { Self::Operator } else { Self::Member }
    }
}

/// Why the agent does not start, for this reader.
fn start_reason(reader: Reader, code: &str, why: &str) -> String {
    if reader == Reader::Operator {
        return sentence(&one_line(why, REASON));
    }
    let what = match code.split('.').next().unwrap_or_default() {
        "image" => "its image cannot be used",
        "mount" => "a folder of this group cannot be used",
        "config" => "its settings cannot be used",
        "engine" => "the server's container engine does not do its work",
        "box" => "its container does not start as it must",
        "disk" => "its disk space cannot be prepared",
        _ => "something on the server is wrong",
    };
    format!("{what} ({}). The operator was told.", one_line(code, CODE))
}

/// The host keeps trying.
pub fn cannot_start(reader: Reader, code: &str, why: &str) -> String {
    let why = start_reason(reader, code, why);
    format!("The agent cannot start: {why} Your message is kept, and I keep trying for a day.")
}

/// For the operator: what an agent starts without, because it does not fit into its first letter.
pub fn begin_shortened(group: &GroupName, left_out: &[&str]) -> String {
    format!(
        "The agent of group {group} starts without {}: not all of it fits into the agent's first letter. A CLAUDE.md has at \
         most 64 KiB, and at most 80 KiB with each quotation mark, backslash and line break counted twice.",
        left_out.join(" and ")
    )
}

/// The session's transcript, or its end, cannot be read.
pub fn transcript_lost(all: bool) -> String {
    let what = if all {
        "The record of this conversation cannot be used any more, so the agent begins a new one."
    } else {
        "The newest part of this conversation's record is damaged, so the agent goes on without it."
    };
    format!("{what} It may ask again for what you told it. Its files and memories stay.")
}

/// A day of tries is over.
pub fn never_started(reader: Reader, code: &str, why: &str) -> String {
    let why = start_reason(reader, code, why);
    format!("I tried to start the agent for a day and gave this up: {why} Write again once that is fixed.")
}

/// For the operator: what the chats of a group are not told.
pub fn group_cannot_start(group: &GroupName, why: &str) -> String {
    let why = sentence(&one_line(why, REASON));
    format!(
        "The agent of group {group} cannot start: {why} The people there only know that it does not start. Their messages \
         are kept for a day."
    )
}

/// The settings name an image that failed its check, so the group keeps the one that it has.
pub fn image_kept(name: &str, why: &str, serves: &str) -> String {
    let why = sentence(&one_line(why, REASON));
    format!("I do not use the image {name}: {why} I go on with {serves}.")
}

/// For the operator: another group than `main` keeps its image.
pub fn group_keeps_image(group: &GroupName, name: &str, why: &str, serves: &str) -> String {
    let why = sentence(&one_line(why, REASON));
    format!("Group {group} does not use the image {name}: {why} It goes on with {serves}.")
}

/// All attempts are used up.
pub fn gave_up(ending: &Ending, attempts: u32) -> String {
    format!(
        "I gave this up after {attempts} attempts: the agent's box {}. Write again to retry.",
        box_ended(ending)
    )
}

fn box_ended(ending: &Ending) -> String {
    match ending {
        Ending::Crashed { oom: true, why, .. } => format!("ran {why}"),
        Ending::Crashed { code: Some(code), .. } => format!("ended unexpectedly (exit code {code})"),
        Ending::Crashed { code: None, .. } => "vanished with its engine".to_owned(),
        Ending::Silent { seconds } => format!("fell silent for {seconds} seconds"),
        other => other.to_string(),
    }
}

/// A box exceeded a limit. `what` continues the sentence after "it". [`taken_back`] reports files that the host
/// removes.
pub fn over_limit(code: &str, what: &str) -> String {
    let what = sentence(&one_line(what, REASON));
    let next = match code {
        "disk.low" => "Write again once there is room; the owner has been told.",
        code if code.starts_with("disk.") => "Write again to go on.",
        _ => "What it did so far is kept. Write again to go on.",
    };
    format!("I ended the agent's box, because it {what} {next}")
}

/// The host removed the newest files of a directory, because they exceeded its limit.
pub fn taken_back(files: u64, bytes: u64) -> String {
    let (files, them) = if files == 1 {
        ("the newest file".to_owned(), "it")
    } else {
        (format!("the {files} newest files"), "them")
    };
    format!("Of what the agent changed last, {files} ({}) exceeded the limit: I removed {them}.", size(bytes))
}

pub fn time_is_up() -> String {
    "This took longer than its time limit, so I stopped it. What was done so far is kept; say \"go on\" to continue."
        .to_owned()
}

/// The error codes of a model call, and what each means for the person who waits. The last one stands for every
/// unknown code.
pub(super) const MODEL: [(&str, &str); 15] = [
    ("model.auth", "the provider rejects the key, so the owner must set another one"),
    ("model.permission", "the key may not use this model"),
    ("model.not_found", "the provider does not know this model"),
    ("model.rate_limited", "the provider limits its calls, so write again later"),
    ("model.overloaded", "the provider is overloaded, so write again later"),
    ("model.too_large", "the conversation is too long, so begin a new one with /new"),
    (
        "model.fixed_part",
        "the agent's instructions, memory and tools fill the model's context window, so the owner must shorten them or \
         choose a model with a larger window",
    ),
    ("model.budget", "the account at the provider has no credit left, so the owner must add some"),
    ("model.invalid_request", "the provider rejects the request as invalid"),
    (
        "model.filtered",
        "the provider's filter refuses what was written, so put it in other words or begin anew with /new",
    ),
    ("model.unreachable", "the provider cannot be reached"),
    (
        "model.no_answer",
        "what answers at the provider's address is no model, so the owner must check base_url",
    ),
    ("model.refused", "the model declines to go on with this"),
    ("model.cut", "the answer broke off"),
    ("model.error", "the reason is unknown"),
];

/// The known code for a claimed one, because a box can claim any.
pub fn model_code(claimed: &str) -> &'static str {
    model(claimed).0
}

fn model(claimed: &str) -> (&'static str, &'static str) {
    let [.., other] = MODEL;
    MODEL.into_iter().find(|(code, _)| *code == claimed).unwrap_or(other)
}

/// Both arguments come from the box. An unknown code becomes `model.error`. The reason is quoted as words of the box,
/// and nothing inside it can end the quotation.
pub fn model_failed(code: &str, reason: &str) -> String {
    let (code, means) = model(code);
    let told = format!("The model did not answer ({code}): {means}.");
    let reason = quoted(reason, QUOTATION);
    if reason.is_empty() { told } else { format!("{told} The agent's box says: \"{reason}\"") }
}

/// Quoted words: one line, without a character that could pass for the closing quotation mark.
fn quoted(text: &str, most: usize) -> String {
    const MARKS: &str = "\"“”„‟«»″‶〃〝〞〟＂❝❞❠🙶🙷🙸ˮ״ײ";
    one_line(text, most).chars().map(|c| if MARKS.contains(c) { '\'' } else { c }).collect()
}

/// The agent was given these messages three times and did not read them.
pub fn unread(messages: u64) -> String {
    let what = if messages == 1 {
        "Your last message was".to_owned()
    } else {
        format!("Your last {messages} messages were")
    };
    format!(
        "{what} handed to the agent three times, and the agent did not read it. I gave up; write again to retry."
    )
}

/// The host refused the letter with the agent's last reply.
pub fn end_refused(code: &str) -> String {
    format!("The agent's last reply could not be taken ({code}), so this turn ends without it. Ask again.")
}

pub fn nothing_said() -> String {
    "The agent is done and had nothing to say.".to_owned()
}

pub fn waiting_for_slot(working: usize) -> String {
    format!("All {working} working agents are busy; yours starts by itself when one is done.")
}
