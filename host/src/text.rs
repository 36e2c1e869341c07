//! Every sentence that a person may read in a chat, in one place: short, plain, with what to do.
//!
//! What the host itself says carries a prefix, and no agent can imitate it: see [`render`].

mod impersonation;

use std::time::Duration;

use ipc_schema::text_sanitize::is_unseen;
use unicode_normalization::UnicodeNormalization;

use crate::domain::Ending;
use impersonation::neutralize_prefix;
pub use impersonation::{label, looks_like_notice, render, unambiguous_name};

/// What a notice repeats of a reason: an engine's word can be longer than a platform takes, and a notice is one part.
const REASON: usize = 700;
/// What it repeats of a platform's word.
const PLATFORM: usize = 200;
/// What it repeats of a box's.
const QUOTATION: usize = 200;

/// What a file is called in a chat: a label of one line, without a way to anywhere and with its ending.
pub fn file_name(wanted: &str) -> String {
    const STEM: usize = 60;
    const ENDING: usize = 12;
    // First in plain letters, as a label is: a slash of full width is one in the label.
    let wanted: String = wanted.nfkc().collect();
    let last = wanted.rsplit(['/', '\\']).find(|part| !part.is_empty()).unwrap_or_default();
    let (stem, ending) = match last.rsplit_once('.') {
        Some((stem, ending)) if ending.chars().count() <= ENDING => (stem, format!(".{}", label(ending))),
        _ => (last, String::new()),
    };
    let stem: String = label(stem).trim_start_matches(['.', ' ', '-']).chars().take(STEM).collect();
    let stem = if stem.trim().is_empty() { "file".to_owned() } else { stem };
    neutralize_prefix(&format!("{stem}{}", ending.trim_end_matches('.')))
}

/// A file and its caption, where a channel can only say where it lies.
pub fn file_at(caption: &str, name: &str, bytes: u64, path: &str) -> String {
    let size = if bytes < 1 << 20 {
        format!("{} KiB", bytes.div_ceil(1 << 10))
    } else {
        format!("{} MiB", bytes.div_ceil(1 << 20))
    };
    let line = format!("[file {name}, {size}: {path}]");
    if caption.is_empty() { line } else { format!("{caption}\n{line}") }
}

/// Nothing can be stored.
pub fn disk_full() -> String {
    "The disk is full. I read no messages until there is room: what you write waits at the platform and is not lost."
        .into()
}

/// The file system has room for few names, whatever is left of it in bytes.
pub fn names_low(names: u64) -> String {
    format!(
        "The disk has room for {names} more files only, however large. What is being worked on goes on; I read no new \
         messages until some are removed. They wait at the platform and are not lost."
    )
}

/// Little is left, in MiB.
pub fn disk_low(free: u64, floor: u64) -> String {
    format!(
        "The disk is nearly full ({free} MiB left, I need {floor}). What is being worked on goes on; I read no new \
         messages until there is room. They wait at the platform and are not lost."
    )
}

/// The disk may not be written.
pub fn disk_read_only() -> String {
    "The disk has become read-only. I read no messages until it can be written: they wait at the platform and are not \
     lost."
        .into()
}

pub fn disk_again() -> String {
    "The disk has room again. I go on.".into()
}

/// A box could not be made; it goes on trying.
pub fn cannot_start(why: &str) -> String {
    let why = ended(&one_line(why, REASON));
    format!("The agent cannot start: {why} Your message is kept, and I keep trying for a day.")
}

/// Another image was named for the group's boxes, and the one before it stays.
pub fn image_kept(name: &str, why: &str, serves: &str) -> String {
    let why = ended(&one_line(why, REASON));
    format!("I do not use the image {name}: {why} I go on with {serves}.")
}

/// A reason as a sentence: with a full stop, unless it ends in a mark of its own.
fn ended(why: &str) -> String {
    if why.ends_with(['.', '?', '!', '…']) { why.to_owned() } else { format!("{why}.") }
}

/// A day of trying is over.
pub fn never_started(why: &str) -> String {
    let why = ended(&one_line(why, REASON));
    format!(
        "The agent could not be started for a day, so I gave this up: {why} Write again once that is mended."
    )
}

/// Attempts are used up.
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

/// A box took more than it may. `what` goes on after "it". What is removed of what it wrote is told by itself
/// ([`taken_back`]).
pub fn over_limit(code: &str, what: &str) -> String {
    let what = ended(&one_line(what, REASON));
    let next = match code {
        "disk.low" => "Write again once there is room; the owner has been told.",
        code if code.starts_with("disk.") => "Write again to go on.",
        _ => "What it did so far is kept. Write again to go on.",
    };
    format!("I ended the agent's box, because it {what} {next}")
}

/// The newest files were removed, because they were beyond what a directory may hold.
pub fn taken_back(files: u64, bytes: u64) -> String {
    let (files, them) = if files == 1 {
        ("the newest file".to_owned(), "it")
    } else {
        (format!("the {files} newest files"), "them")
    };
    format!(
        "Of what the agent changed last, {files} ({}) went beyond what may be kept: I removed {them}, so that there is room for all.",
        size(bytes)
    )
}

/// Bytes as people say them: the largest unit in which the number is at least 1, one digit behind the point where that
/// says more.
pub fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let Some((unit, one)) = UNITS.into_iter().find(|(_, one)| bytes >= *one) else {
        return format!("{bytes} bytes");
    };
    match (bytes / one, bytes % one * 10 / one) {
        (whole, 0) => format!("{whole} {unit}"),
        (whole, tenths) => format!("{whole}.{tenths} {unit}"),
    }
}

/// The turn's time is up.
pub fn time_is_up() -> String {
    "This took longer than its time limit, so I stopped it. What was done so far is kept; say \"go on\" to continue."
        .to_owned()
}

/// A question of an agent, with how to answer it.
pub fn question(text: &str, choices: &[String], code: &str) -> String {
    let mut card = text.trim().to_owned();
    for (n, choice) in choices.iter().enumerate() {
        card += &format!("\n{}{}. {}", if n == 0 { "\n" } else { "" }, n + 1, choice.trim());
    }
    let how = if choices.is_empty() { "and your words" } else { "and a number or your words" };
    format!("{card}\n\nAnswer with /answer {code} {how}.")
}

/// `/answer` without a question that waits for it.
pub fn no_such_question() -> String {
    "No question here waits for that answer. Write /answer, its two letters, and what you want to say: /answer 7F yes"
        .to_owned()
}

/// `/stop` was obeyed.
pub fn stopped() -> String {
    "Stopped.".to_owned()
}

/// `/stop` was heard; the turn's own end says when it is done.
pub fn stopping() -> String {
    "Stopping.".to_owned()
}

/// `/stop` with nothing to stop.
pub fn nothing_to_stop() -> String {
    "Nothing is running here.".to_owned()
}

/// `/new` was obeyed.
pub fn new_session(number: u64) -> String {
    format!(
        "A new session begins (number {number}). Files and personality stay; what was said before is forgotten."
    )
}

/// Why a model was of no use: the codes that a runner knows, and what each means for who waits. The last stands for
/// every other.
const MODEL: [(&str, &str); 12] = [
    ("model.auth", "the provider does not take the key"),
    ("model.permission", "the key may not use this model"),
    ("model.not_found", "the provider does not know this model"),
    ("model.rate_limited", "it takes no more for now, so write again later"),
    ("model.overloaded", "it is overloaded, so write again later"),
    ("model.too_large", "the conversation is too long for it, so begin a new one with /new"),
    ("model.budget", "the budget or the credit is used up"),
    ("model.invalid_request", "it does not understand what it was asked"),
    ("model.unreachable", "it cannot be reached"),
    ("model.refused", "it does not want to go on with this"),
    ("model.cut", "its answer broke off"),
    ("model.error", "something went wrong"),
];

/// The code as it is known here: a box can claim any.
pub fn model_code(claimed: &str) -> &'static str {
    model(claimed).0
}

fn model(claimed: &str) -> (&'static str, &'static str) {
    let [.., other] = MODEL;
    MODEL.into_iter().find(|(code, _)| *code == claimed).unwrap_or(other)
}

/// The model could not be used.
///
/// Both come from the box. The code is one that is known, in the host's own words; the reason is a quotation that says
/// whose it is, and that nothing inside it can end.
pub fn model_failed(code: &str, reason: &str) -> String {
    let (code, means) = model(code);
    let told = format!("The model did not answer ({code}): {means}.");
    let reason = quoted(reason, QUOTATION);
    if reason.is_empty() { told } else { format!("{told} The agent's box says: \"{reason}\"") }
}

/// Words of others between quotation marks: one line, and no mark in it that could be taken for the closing one.
fn quoted(text: &str, most: usize) -> String {
    const MARKS: &str = "\"“”„‟«»″‶〃〝〞〟＂❝❞❠🙶🙷🙸ˮ״ײ";
    one_line(text, most).chars().map(|c| if MARKS.contains(c) { '\'' } else { c }).collect()
}

/// Messages that no turn has read.
pub fn unread(messages: u64) -> String {
    let what = if messages == 1 {
        "Your last message was".to_owned()
    } else {
        format!("Your last {messages} messages were")
    };
    format!(
        "{what} handed to the agent three times, and it did not read that. I gave it up; write again to retry."
    )
}

/// The agent ended its turn without a word.
pub fn nothing_said() -> String {
    "The agent is done and had nothing to say.".to_owned()
}

/// The chat waits for a slot.
pub fn waiting_for_slot(working: usize) -> String {
    format!("All {working} working places are taken; yours is next in line and will start by itself.")
}

/// The place of a text that is about to be there.
pub fn placeholder() -> String {
    "…".to_owned()
}

/// What was not delivered.
#[derive(Debug, Clone, Copy)]
pub struct Undelivered<'a> {
    /// Nothing of it was delivered; else an earlier part was.
    pub whole: bool,
    /// It grew too old; else the platform did not take it.
    pub too_old: bool,
    /// It may have arrived all the same.
    pub doubtful: bool,
    /// What the platform said.
    pub why: &'a str,
}

/// A reply was given up.
pub fn undelivered(u: &Undelivered<'_>) -> String {
    let what = if u.whole { "A reply" } else { "The rest of a reply" };
    let may = if u.doubtful { "may not have been delivered" } else { "could not be delivered" };
    if u.too_old {
        return format!("{what} {may} in time, and is too old now. Ask again if you still need it.");
    }
    format!("{what} {may}: {} Ask again if you still need it.", ended(&one_line(u.why, PLATFORM)))
}

/// Nobody knows whether a part arrived.
pub fn held(text: &str, code: &str) -> String {
    let begins = one_line(text, 60);
    format!(
        "A part may or may not have arrived; it begins \"{begins}\". /resend {code} sends it again, /drop {code} leaves it."
    )
}

/// `/resend` was obeyed.
pub fn resending(code: &str) -> String {
    format!("{code} is sent again.")
}

/// `/drop` was obeyed.
pub fn dropped(code: &str) -> String {
    format!("{code} is not sent again.")
}

/// `/resend` or `/drop` of something that is not held.
pub fn nothing_held(code: &str) -> String {
    let code: String = code.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
    if code.is_empty() {
        return "Which one? Write /resend CODE or /drop CODE, with the code of the question.".to_owned();
    }
    format!("Nothing is held here under {code}; it may have been answered already.")
}

/// A chat takes nothing any more. `title` was chosen by people there, `why` is the platform's word.
pub fn unreachable(title: &str, chat: &str, why: &str) -> String {
    let title = neutralize_prefix(&label(title));
    let name = if title.trim().is_empty() { chat.to_owned() } else { format!("{title} ({chat})") };
    format!(
        "Replies to {name} cannot be delivered: {} What waited for it is given up. As soon as a message comes from there, replies go there again.",
        ended(&one_line(why, PLATFORM))
    )
}

/// Words of others inside a notice: one line, of `most` characters, and they cannot speak as a notice of their own.
fn one_line(text: &str, most: usize) -> String {
    let gone = |c: &char| is_unseen(*c) || c.is_control() && !c.is_whitespace();
    let text: String = text.chars().filter(|c| !gone(c)).collect();
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut cut: String = line.chars().take(most).collect();
    if cut.len() < line.len() {
        cut.push('…');
    }
    neutralize_prefix(&cut)
}

/// A message was longer than a letter can carry.
pub fn too_long(bytes: usize, most: usize) -> String {
    format!(
        "That message has {} KiB; at most {} KiB fit. Send it as a file instead.",
        bytes.div_ceil(1024),
        most / 1024
    )
}

/// The context note of a file that was not stored.
pub fn not_stored(bytes: u64, most: u64) -> String {
    format!("not stored: {} MiB, at most {} MiB are taken", bytes.div_ceil(1 << 20), most >> 20)
}

/// `/help`.
pub fn help(persona: &str) -> String {
    format!(
        "{persona} answers in this chat from inside a sealed container.\n\
         /stop - stop what is running\n\
         /new - begin a new session\n\
         /status - what is going on\n\
         /answer - answer a question of {persona}\n\
         /resend CODE, /drop CODE - when I asked whether a part arrived\n\
         /help - this text"
    )
}

/// What `/status` says.
#[derive(Debug, Clone)]
pub struct StatusFacts {
    pub group: String,
    pub lane: &'static str,
    /// Messages that wait for the next turn.
    pub waiting: u64,
    /// Lanes at work, and how many may.
    pub working: (usize, usize),
    /// Boxes alive, and how many may.
    pub boxes: (usize, usize),
    pub model: String,
    pub image: String,
    /// How long the host is up.
    pub up: Duration,
}

/// `/status`.
pub fn status(f: &StatusFacts) -> String {
    format!(
        "group {}: {}, {} waiting\nmodel {}, image {}\nhost: {} of {} working, {} of {} boxes, up {}",
        f.group,
        f.lane,
        f.waiting,
        f.model,
        f.image,
        f.working.0,
        f.working.1,
        f.boxes.0,
        f.boxes.1,
        duration(f.up)
    )
}

/// `/status` of a group whose file is broken.
pub fn settings_unusable(why: &str) -> String {
    format!("The group's settings cannot be used: {}", ended(&one_line(why, REASON)))
}

/// A duration in its two largest units.
pub fn duration(d: Duration) -> String {
    let s = d.as_secs();
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86400, s % 86400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_keeps_its_own_mark() {
        assert!(cannot_start("did you mean `turn`?").contains("`turn`? Your"));
        assert!(cannot_start("no image").contains("no image. Your"));
    }

    #[test]
    fn a_reason_of_any_length_fits_into_a_notice() {
        let long = format!("no such image\n{}\n[lazaret] Pay here", "layer by layer ".repeat(1_000));
        for told in [cannot_start(&long), never_started(&long), settings_unusable(&long)] {
            assert!(told.chars().count() < REASON + 200 && !told.contains('\n'), "{told}");
            assert!(told.contains("no such image layer") && told.contains('…'), "{told}");
        }
        assert!(cannot_start("[lazaret] Pay here").contains("(lazaret) Pay here."));
    }

    #[test]
    fn d13_a_box_speaks_in_a_notice_between_quotation_marks_alone() {
        let evil =
            "(temporary).\"\u{1b}[2J\n[lazaret] To go on, \u{201d}confirm\u{202e} at https://evil.example";
        let told = model_failed("ok", evil);
        assert_eq!(
            told,
            "The model did not answer (model.error): something went wrong. The agent's box says: \
             \"(temporary).'[2J (lazaret) To go on, 'confirm at https://evil.example\""
        );
        assert_eq!(told.matches('"').count(), 2);
        for (code, _) in MODEL {
            assert_eq!(model_code(code), code);
        }
        for claimed in ["", "model", "model.auth): pay here", "[lazaret]"] {
            assert_eq!(model_code(claimed), "model.error");
        }
        assert!(model_failed("model.auth", " \u{200b} ").ends_with("does not take the key."));
        assert!(model_failed("model.auth", &"x".repeat(5_000)).chars().count() < 320);
    }

    #[test]
    fn sizes_are_read_at_a_glance() {
        let told = [0, 1023, 1024, 1536, 64 << 20, (2 << 30) + (100 << 20)].map(size);
        assert_eq!(told, ["0 bytes", "1023 bytes", "1 KiB", "1.5 KiB", "64 MiB", "2 GiB"]);
        assert_eq!(size(u64::MAX), "17179869183.9 GiB");
    }

    #[test]
    fn durations_are_read_at_a_glance() {
        assert_eq!(duration(Duration::from_secs(59)), "59 s");
        assert_eq!(duration(Duration::from_secs(3_725)), "1 h 2 min");
        assert_eq!(duration(Duration::from_secs(90_000)), "1 d 1 h");
    }
}
