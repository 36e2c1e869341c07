//! Decides what a person's `/answer CODE WORDS` does.

use ipc_schema::requests::Answer;

use super::{Change, QuestionEnd};
use crate::domain::message::{Addressee, Admitted, Inbound, ReplyTo, Role, Sender};
use crate::domain::{ChatId, ChatKind, Lane, LetterId, MessageSeq, TurnId, WallMs};

/// How much of a question a late answer quotes.
const QUOTE: usize = 200;

/// A question that can still be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub id: i64,
    pub turn: TurnId,
    /// The request with which the agent asked.
    pub request: LetterId,
    /// The lane of its turn.
    pub lane: Lane,
    /// Whether the turn still waits for the answer. If not, the host has told the agent that the person wrote
    /// something else.
    pub open: bool,
    pub expires_at: WallMs,
    pub text: String,
    /// The choices. A person may answer with the number of one.
    pub choices: Vec<String>,
}

/// The stored command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerCommand {
    pub seq: MessageSeq,
    pub chat: ChatId,
    pub kind: ChatKind,
    pub title: String,
    pub line: String,
    pub sender: Sender,
    /// Whether the sender is an owner.
    pub owner: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Answering {
    /// Nothing: the answer is empty or late, and the question has expired.
    Unknown,
    /// The turn that waits for the answer goes on.
    InTime(Vec<Change>),
    /// The turn does not wait any more, so the answer becomes a message of its own.
    Late(Vec<Change>, Box<Admitted>),
}

/// Returns `CODE` and `WORDS`.
fn parts_of(line: &str) -> (&str, &str) {
    let mut parts = line.splitn(3, char::is_whitespace).skip(1);
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default().trim())
}

/// The code of the question that a command answers.
pub fn code_of(line: &str) -> String {
    parts_of(line).0.to_uppercase()
}

/// Decides what an answer does to the question that its code names.
pub fn take_answer(command: AnswerCommand, question: Question, now: WallMs) -> Answering {
    let (_, words) = parts_of(&command.line);
    let chosen = words.parse::<usize>().ok().and_then(|n| question.choices.get(n.checked_sub(1)?));
    let text = chosen.cloned().unwrap_or_else(|| words.to_owned());
    if text.is_empty() || (!question.open && question.expires_at <= now) {
        return Answering::Unknown;
    }
    let answered = Change::Finish { message: command.seq, outcome: "answered".to_owned() };
    if question.open {
        let Question { turn, request, .. } = question;
        let answer =
            Answer::Answered { text, from: command.sender.id.to_string(), name: command.sender.name };
        return Answering::InTime(vec![Change::EndQuestion(QuestionEnd { turn, request, answer }), answered]);
    }
    let inbound = Inbound {
        chat: command.chat,
        kind: command.kind,
        title: command.title,
        message_id: format!("answer:{}", question.id),
        version: 0,
        sender: command.sender,
        text,
        origin: None,
        service: false,
        reply_to: Some(ReplyTo {
            from: "you".to_owned(),
            text: question.text.chars().take(QUOTE).collect(),
            message: None,
        }),
        attachments: Vec::new(),
        addressee: Addressee::Us,
        at: now,
        press: None,
    };
    let (group, owner) = (question.lane.group, command.owner);
    let message = Admitted { group, role: Role::Wake, owner, inbound, attachments: Vec::new() };
    Answering::Late(vec![Change::TakeLateAnswer { question: question.id }, answered], Box::new(message))
}
