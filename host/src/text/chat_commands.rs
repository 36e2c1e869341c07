//! Answers to commands, and the questions of agents with how to answer them.

use std::time::Duration;

use super::choices::choices;
use super::{REASON, Reader, duration, label, one_line, sentence, without_internal};
use crate::domain::group_settings::{MayStop, Reached};
use crate::domain::message::Command;
use crate::domain::outbound::Choices;
use crate::domain::{ChatId, GroupName};

/// A question of an agent. `code` names it in `/answer`.
pub fn question(text: &str, answers: &[String], code: &str) -> (String, Option<Choices>) {
    let mut card = without_internal(text).trim().to_owned();
    let mut list = Vec::new();
    for (at, answer) in answers.iter().enumerate() {
        let answer = without_internal(answer);
        let (n, answer) = (at + 1, answer.trim());
        card += &format!("\n{}{n}. {answer}", if at == 0 { "\n" } else { "" });
        list.push((format!("{n}. {answer}"), format!("/answer {code} {n}")));
    }
    let how = if answers.is_empty() { "and your words" } else { "and a number or your words" };
    let card = format!("{card}\n\nAnswer with /answer {code} {how}.");
    (card, (!list.is_empty()).then(|| choices(list, String::new())))
}

pub fn no_such_question() -> String {
    "No question here waits for that answer. Write /answer, the code of the question, and what you want to say: /answer 7F yes"
        .to_owned()
}

pub fn stopped() -> String {
    "Stopped.".to_owned()
}

/// The turn reports its end by itself.
pub fn stopping() -> String {
    "Stopping.".to_owned()
}

pub fn nothing_to_stop() -> String {
    "Nothing is running here.".to_owned()
}

pub fn may_not_stop(who: MayStop) -> String {
    match who {
        MayStop::Owners => "Only owners may do that here.".to_owned(),
        MayStop::Anyone | MayStop::Served => {
            "Only owners may do that here, and the person for whom the agent works at the moment.".to_owned()
        }
    }
}

pub fn too_many_turns(limit: Reached) -> String {
    let (whose, most) = match limit {
        Reached::Sender(most) => ("You have begun", most),
        Reached::Chat(most) => ("This chat has had", most),
    };
    format!(
        "{whose} {most} turns in the last hour, which is the limit. The agent does not answer this message. It is kept, \
         and the agent reads it when its next turn in this chat begins. Write again later."
    )
}

pub fn new_session(number: u64) -> String {
    format!(
        "A new session begins (number {number}). Files and personality stay. The agent cannot read what was said \
         before; only the operator can, for a time."
    )
}

pub fn for_another_bot() -> String {
    "This command names another bot, so nothing was done. Write the command without the name.".to_owned()
}

/// The commands that a platform lists for people, with what each does.
pub const COMMAND_LIST: [(Command, &str); 10] = [
    (Command::Stop, "stop what is running"),
    (Command::New, "begin a new session; words after it are its first message"),
    (Command::Status, "what is going on"),
    (Command::Tasks, "what is planned; pause, resume, cancel or run one"),
    (Command::Context, "what fills the agent's context window"),
    (Command::Compact, "replace the older part of the conversation by a summary"),
    (Command::Answer, "answer a question: its code, then your words"),
    (Command::Model, "which model answers; owners choose one by its name"),
    (Command::Usage, "what the model calls have cost"),
    (Command::Help, "what the host understands"),
];

pub fn help(persona: &str, main: bool) -> String {
    let admit = if main {
        "\n/admit CODE GROUP, /refuse CODE - admit a chat that asks, or refuse it (owners)"
    } else {
        ""
    };
    format!(
        "{persona} answers in this chat from inside a sealed container.\n\
         /stop - stop what is running\n\
         /new - begin a new session; words after it are its first message\n\
         /status - what is going on\n\
         /tasks - what is planned, and how to pause, resume, cancel or run it\n\
         /context - what fills the context window of {persona}\n\
         /compact - replace the older part of the conversation by a summary\n\
         /answer - answer a question of {persona}; a reply to the question does too\n\
         /model - which model answers; owners choose another one by its name\n\
         /usage - what the model calls have cost\n\
         /resend CODE, /drop CODE - send a part again that may not have arrived, or leave it\n\
         /help - this text{admit}"
    )
}

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
    /// Time since the start of the host.
    pub up: Duration,
}

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

/// The answer to `/status` if the settings of the group are invalid.
pub fn settings_unusable(reader: Reader, why: &str) -> String {
    match reader {
        Reader::Operator => {
            format!("The group's settings cannot be used: {}", sentence(&one_line(why, REASON)))
        }
        Reader::Member => "The group's settings cannot be used. The operator can see why.".to_owned(),
    }
}

/// For `main`: a chat wrote whose group has no folder any more.
pub fn group_gone(chat: &ChatId, title: &str, group: &GroupName) -> String {
    let name = if title.is_empty() { chat.to_string() } else { format!("{} ({chat})", label(title)) };
    format!(
        "{name} wrote. It belongs to the group {group}, whose folder groups/{group} is gone, so its messages start \
         nothing. On the server, `lazaret groups add {group}` makes the folder again, and `lazaret groups revoke \
         {chat}` ends the chat's admission."
    )
}

/// For `main`: the platform knows a person by another id.
pub fn person_moved(title: &str, from: &ChatId, to: &ChatId) -> String {
    let name = label(title);
    format!(
        "{name} has another address: {to}, and no longer {from}. The chat goes on there. Owners and senders are known by \
         their address: if {name} is one, write {to} in the place of {from} in lazaret.toml or the group's file. On the \
         server, `lazaret owners add {to}` and `lazaret owners remove {from}` do that for owners."
    )
}
