//! Decides what a person's `/answer CODE WORDS` does.

use ipc_schema::RefusalCode;
use ipc_schema::letters::to_agent::Verdict;
use ipc_schema::requests::{Answer, Permission};
use serde::Serialize;

use super::{Change, QuestionEnd};
use crate::domain::group_settings::SenderRules;
use crate::domain::message::{Addressee, Admitted, Inbound, ReplyTo, Role, Sender};
use crate::domain::permission::AskedPermission;
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
    /// Set if it asks an owner for a permission.
    pub permission: Option<AskedPermission>,
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
    /// Only an owner may answer, and the sender is none.
    OwnersOnly,
    /// Nobody waits for the permission any more.
    Over,
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

/// What an owner decides about a permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Once,
    Always,
    Deny,
}

impl Decision {
    const ALL: [Self; 3] = [Self::Once, Self::Always, Self::Deny];

    /// In the order of the card's buttons.
    fn of(words: &str) -> Option<Self> {
        let first = words.split_whitespace().next()?.to_lowercase();
        match first.as_str() {
            "1" | "once" | "allow" | "yes" => Some(Self::Once),
            "2" | "always" => Some(Self::Always),
            "3" | "deny" | "no" => Some(Self::Deny),
            _ => None,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::Always => "always",
            Self::Deny => "deny",
        }
    }
}

/// The verdict on a request whose question ends. `None`: the host performs the request now.
pub fn verdict_on(permission: Option<&AskedPermission>, answer: &Answer) -> Option<Verdict> {
    let Some(asked) = permission else { return Some(ok(answer)) };
    let decided = match answer {
        Answer::Answered { text, .. } => {
            match Decision::ALL.into_iter().find(|decision| decision.word() == text) {
                Some(Decision::Once) => Permission::Allowed { always: false },
                Some(Decision::Always) => Permission::Allowed { always: true },
                Some(Decision::Deny) | None => Permission::Denied,
            }
        }
        Answer::Pending => Permission::Pending,
        Answer::Expired => Permission::Expired,
    };
    match decided.refusal(&asked.tool) {
        _ if !asked.of_request => Some(ok(&decided)),
        Some(reason) => Some(Verdict::Refused { code: RefusalCode::Forbidden.to_string(), reason }),
        None => None,
    }
}

fn ok(result: &impl Serialize) -> Verdict {
    Verdict::Ok { result: serde_json::to_value(result).unwrap_or_default() }
}

/// Decides what an owner's answer to a request for a permission does.
fn decide_permission(
    command: AnswerCommand,
    question: Question,
    asked: &AskedPermission,
    words: &str,
) -> Answering {
    match (command.owner, question.open, Decision::of(words)) {
        (false, ..) => Answering::OwnersOnly,
        (true, false, _) => Answering::Over,
        (true, true, None) => Answering::Unknown,
        (true, true, Some(decision)) => {
            let by = command.sender.id.to_string();
            let rule = |command| Change::AllowAlways { tool: asked.tool.clone(), command, by: by.clone() };
            let mut changes: Vec<_> = match (decision, asked.commands.is_empty()) {
                (Decision::Always, true) => vec![rule(None)],
                (Decision::Always, false) => asked.commands.iter().cloned().map(Some).map(rule).collect(),
                (Decision::Once | Decision::Deny, _) => vec![],
            };
            let text = decision.word().to_owned();
            let answer = Answer::Answered { text, from: by, name: command.sender.name };
            let Question { turn, request, .. } = question;
            changes.push(Change::EndQuestion(QuestionEnd { turn, request, answer }));
            changes.push(Change::Finish { message: command.seq, outcome: "answered".to_owned() });
            Answering::InTime(changes)
        }
    }
}

/// Decides what an answer does to the question that its code names.
pub fn take_answer(command: AnswerCommand, question: Question, now: WallMs) -> Answering {
    let line = command.line.clone();
    let (_, words) = parts_of(&line);
    if let Some(asked) = question.permission.clone() {
        return decide_permission(command, question, &asked, words);
    }
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
    let rules = SenderRules::default();
    let message = Admitted { group, role: Role::Wake, owner, rules, inbound, attachments: Vec::new() };
    Answering::Late(vec![Change::TakeLateAnswer { question: question.id }, answered], Box::new(message))
}
