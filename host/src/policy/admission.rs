//! Decides which inbound messages are stored and what they do. `intake` calls it for each message. It identifies
//! people by the platform's id, never by a name.

use std::time::Duration;

use crate::domain::group_settings::{Group, Trigger};
use crate::domain::message::{Addressee, Admitted, Attachment, Command, Inbound, Role};
use crate::domain::{ChatKind, GroupName, SenderId};
use crate::text;

/// The longest text of one message in bytes. A longer one, with JSON escapes, would not fit into a letter.
pub const TEXT_MAX: usize = 64 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdmissionDecision {
    /// It is stored with this role.
    Take(Role),
    /// It is dropped: a bot's or an empty message.
    Ignore(&'static str),
    /// The chat is not admitted. The message is only counted.
    Stranger,
    /// It is not stored, and the chat gets this notice.
    Refuse(String),
}

/// `group` is the group of the message's chat, if the chat is admitted.
pub fn admit(message: &Inbound, group: Option<&Group>, owners: &[SenderId]) -> AdmissionDecision {
    if message.sender.is_bot {
        return AdmissionDecision::Ignore("from a bot");
    }
    let Some(group) = group else { return AdmissionDecision::Stranger };
    if message.text.trim().is_empty() && message.attachments.is_empty() {
        return AdmissionDecision::Ignore("empty");
    }
    if message.text.len() > TEXT_MAX {
        return AdmissionDecision::Refuse(text::too_long(message.text.len(), TEXT_MAX));
    }
    if message.addressee == Addressee::AnotherBot && message.kind == ChatKind::Direct {
        return AdmissionDecision::Refuse(text::for_another_bot());
    }
    let owner = owners.contains(&message.sender.id);
    let may_order = owner || group.senders.as_ref().is_none_or(|list| list.contains(&message.sender.id));
    if message.service {
        return AdmissionDecision::Take(Role::Context);
    }
    match command(message) {
        Some(command) if may_order && message.version == 0 => {
            AdmissionDecision::Take(match command.order() {
                Some(_) => Role::Wake,
                None => Role::Command(command),
            })
        }
        Some(_) => AdmissionDecision::Take(Role::Context),
        None if may_order && wakes(message, group) => AdmissionDecision::Take(Role::Wake),
        None => AdmissionDecision::Take(Role::Context),
    }
}

/// Finds a command. A room may have other bots with commands of the same names. So a command with a code must have one
/// there, unless it is addressed to the bot.
fn command(message: &Inbound) -> Option<Command> {
    let ours = message.addressee != Addressee::AnotherBot && message.origin.is_none();
    let command = Command::of(&message.text).filter(|_| ours)?;
    let mut words = Command::words_after(&message.text).split_whitespace();
    let (code, more) = (words.next(), words.next());
    let ours = match command {
        Command::Stop | Command::New | Command::Status | Command::Tasks | Command::Help => true,
        // With words or files it is a message for the agent.
        Command::Compact | Command::Context => code.is_none() && message.attachments.is_empty(),
        Command::Model | Command::Usage if code.is_none() => true,
        _ if message.kind == ChatKind::Direct || message.addressee == Addressee::Us => true,
        Command::Answer => code.is_some_and(|code| (2..=3).contains(&code.chars().count())),
        Command::Admit => code.is_some_and(|code| code.len() == ADMISSION_CODE),
        Command::Refuse => more.is_none() && code.is_some_and(|code| code.len() == ADMISSION_CODE),
        // In a room, another bot may have models of its own.
        Command::Model | Command::Usage => false,
        Command::Resend | Command::Drop => more.is_none() && code.is_some_and(is_code),
    };
    ours.then_some(command)
}

/// The words (and files) after `/new` are the first message of the new session.
pub fn first_of_session(order: &Inbound) -> Option<Inbound> {
    let text = Command::words_after(&order.text).to_owned();
    let message_id = format!("{}:first", order.message_id);
    let has_content = !text.is_empty() || !order.attachments.is_empty();
    has_content.then(|| Inbound { message_id, text, ..order.clone() })
}

/// The length of the code of a chat that waits for admission.
pub const ADMISSION_CODE: usize = 6;

/// How long a chat that was refused is not asked about again.
pub const REFUSED_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// Decides which of the chats that wait `/admit CODE …` or `/refuse CODE` names. `waiting` has their codes and titles.
///
/// # Errors
/// The answer that says why not, and what to write instead.
pub fn waiting_chat<'a>(
    line: &str,
    may_decide: bool,
    waiting: &'a [(String, String)],
) -> Result<&'a (String, String), String> {
    let code = Command::words_after(line).split_whitespace().next().unwrap_or_default();
    if !may_decide {
        return Err(text::may_not_admit());
    }
    waiting.iter().find(|(its, _)| its.eq_ignore_ascii_case(code)).ok_or_else(|| text::nobody_asks(code))
}

/// Decides to which group `/admit CODE [GROUP]` admits a chat. Without a group's name, the chat gets a group of its
/// own, named after its title, and never one of `known`: the groups that there are or ever were.
///
/// # Errors
/// The answer that says what to write instead.
pub fn group_for(
    line: &str,
    (code, title): &(String, String),
    known: &[GroupName],
) -> Result<GroupName, String> {
    match Command::words_after(line).split_whitespace().nth(1) {
        Some(name) => name.to_lowercase().parse().ok(),
        None => new_group(title, known),
    }
    .ok_or_else(|| text::which_group(code))
}

/// A name after the title, or `chat` where the title gives none, with a number if it is taken.
fn new_group(title: &str, known: &[GroupName]) -> Option<GroupName> {
    let letters = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let words: String = title.chars().map(letters).take(28).collect();
    let words = words.split('-').filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-");
    let numbered = |name: String| {
        (1..=known.len() + 2).map(move |n| if n == 1 { name.clone() } else { format!("{name}-{n}") })
    };
    numbered(words).chain(numbered("chat".to_owned())).find_map(|name| {
        name.parse().ok().filter(|name: &GroupName| !name.is_main() && !known.contains(name))
    })
}

/// Whether the first message of a chat that waits for admission is kept for after it: one that would wake the agent.
pub fn is_kept(message: &Inbound) -> bool {
    let asks = message.kind == ChatKind::Direct || message.addressee == Addressee::Us;
    asks && !message.service
        && message.addressee != Addressee::AnotherBot
        && message.text.len() <= KEPT_MAX
        && Command::of(&message.text).is_none()
}

/// The kept message of a chat that is being admitted to `group`, if the agent answers it there.
pub fn first_message(
    (inbound, attachments): (Inbound, Vec<Attachment>),
    group: &Group,
    owners: &[SenderId],
) -> Option<Admitted> {
    let AdmissionDecision::Take(role) = admit(&inbound, Some(group), owners) else { return None };
    let owner = inbound.origin.is_none() && owners.contains(&inbound.sender.id);
    Some(Admitted {
        group: group.name.clone(),
        role,
        owner,
        rules: group.sender_rules(),
        inbound,
        attachments,
    })
}

/// The longest text of a kept message in bytes.
const KEPT_MAX: usize = 4096;

/// Whether a word can be the code of a held part.
fn is_code(word: &str) -> bool {
    (2..=8).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_hexdigit())
}

fn wakes(message: &Inbound, group: &Group) -> bool {
    match (message.addressee, message.kind) {
        (Addressee::AnotherBot, _) => return false,
        (Addressee::Us, _) | (_, ChatKind::Direct) => return true,
        (Addressee::Anyone, ChatKind::Room) => {}
    }
    match &group.trigger {
        Trigger::Addressed => false,
        Trigger::Always => true,
        // Nobody is called by words that somebody else wrote.
        Trigger::Words(_) if message.origin.is_some() => false,
        Trigger::Words(words) => {
            let text = message.text.to_lowercase();
            words.iter().any(|word| holds_word(&text, &word.to_lowercase()))
        }
    }
}

/// Whether `text` contains `word` with no letter or digit on either side.
fn holds_word(text: &str, word: &str) -> bool {
    let inside = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    !word.is_empty()
        && text.match_indices(word).any(|(at, found)| {
            let before = text.get(..at).and_then(|t| t.chars().next_back());
            let after = text.get(at + found.len()..).and_then(|t| t.chars().next());
            !inside(before) && !inside(after)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::message::Sender;
    use crate::domain::{ChatId, WallMs};

    fn message(chat: &str, text: &str) -> Inbound {
        let chat: ChatId = chat.parse().unwrap();
        let kind = if chat.local().starts_with('-') { ChatKind::Room } else { ChatKind::Direct };
        let sender = Sender { id: "telegram:5".parse().unwrap(), name: "Ann".into(), is_bot: false };
        Inbound {
            kind,
            chat,
            title: "t".into(),
            message_id: "1".into(),
            version: 0,
            sender,
            text: text.into(),
            origin: None,
            service: false,
            reply_to: None,
            attachments: vec![],
            addressee: Addressee::named(text, |name| name == "laz_bot").unwrap_or(Addressee::Anyone),
            at: WallMs(0),
            press: None,
        }
    }

    fn group(trigger: Trigger) -> Group {
        Group { trigger, ..Group::for_tests("family") }
    }

    fn verdict(text: &str, trigger: Trigger) -> AdmissionDecision {
        admit(&message("telegram:-1", text), Some(&group(trigger)), &[])
    }

    const WAKE: AdmissionDecision = AdmissionDecision::Take(Role::Wake);
    const CONTEXT: AdmissionDecision = AdmissionDecision::Take(Role::Context);

    #[test]
    fn an_order_to_the_runner_wakes_like_a_message_and_only_from_who_may_order() {
        for order in ["/compact", "/context", "/context@laz_bot"] {
            assert_eq!(verdict(order, Trigger::Addressed), WAKE, "{order}");
        }
        assert_eq!(verdict("/compact@another_bot", Trigger::Addressed), CONTEXT);
        let strict = Group { senders: Some(vec![]), ..group(Trigger::Addressed) };
        assert_eq!(admit(&message("telegram:5", "/compact"), Some(&strict), &[]), CONTEXT);
        let edited = Inbound { version: 1, ..message("telegram:5", "/compact") };
        assert_eq!(admit(&edited, Some(&group(Trigger::Addressed)), &[]), CONTEXT);
    }

    #[test]
    fn a_direct_chat_always_wakes_and_a_room_by_mention() {
        assert_eq!(admit(&message("telegram:5", "hi"), Some(&group(Trigger::Addressed)), &[]), WAKE);
        assert_eq!(verdict("hi", Trigger::Addressed), CONTEXT);
        let mut mention = message("telegram:-1", "@laz hi");
        mention.addressee = Addressee::Us;
        assert_eq!(admit(&mention, Some(&group(Trigger::Addressed)), &[]), WAKE);
        assert_eq!(verdict("hi", Trigger::Always), WAKE);
    }

    #[test]
    fn a_trigger_word_stands_alone() {
        let words = || Trigger::Words(vec!["Laz".into()]);
        assert_eq!(verdict("hey laz, are you there?", words()), WAKE);
        assert_eq!(verdict("LAZ!", words()), WAKE);
        assert_eq!(verdict("I am lazy", words()), CONTEXT);
        assert_eq!(verdict("blaz", words()), CONTEXT);
    }

    #[test]
    fn d5_a_strange_chat_is_counted_and_nothing_else() {
        assert_eq!(admit(&message("telegram:-9", "/status"), None, &[]), AdmissionDecision::Stranger);
    }

    #[test]
    fn d6_who_may_not_order_is_heard_but_not_obeyed() {
        let mut strict = group(Trigger::Always);
        strict.senders = Some(vec!["telegram:7".parse().unwrap()]);
        assert_eq!(admit(&message("telegram:-1", "do it"), Some(&strict), &[]), CONTEXT);
        let owner = ["telegram:5".parse().unwrap()];
        assert_eq!(admit(&message("telegram:-1", "do it"), Some(&strict), &owner), WAKE);
        let mut stop = message("telegram:-1", "/stop");
        stop.addressee = Addressee::Us;
        assert_eq!(admit(&stop, Some(&strict), &[]), CONTEXT);
        assert_eq!(
            admit(&stop, Some(&strict), &owner),
            AdmissionDecision::Take(Role::Command(Command::Stop))
        );
    }

    #[test]
    fn a_command_without_a_name_is_ours_in_a_room_too() {
        let order = |command| AdmissionDecision::Take(Role::Command(command));
        for (text, command) in [
            ("/stop", Command::Stop),
            (" /STOP now", Command::Stop),
            ("/new", Command::New),
            ("/new plan the trip", Command::New),
            ("/status", Command::Status),
            ("/tasks pause 3", Command::Tasks),
            ("/help", Command::Help),
            ("/help@laz_bot", Command::Help),
        ] {
            assert_eq!(verdict(text, Trigger::Addressed), order(command), "{text}");
            assert_eq!(
                admit(&message("telegram:5", text), Some(&group(Trigger::Addressed)), &[]),
                order(command)
            );
        }
        let direct = |text| admit(&message("telegram:5", text), Some(&group(Trigger::Addressed)), &[]);
        assert_eq!(direct("/context what did we agree?"), WAKE, "a question to the agent");
        assert_eq!(verdict("/unknown", Trigger::Addressed), CONTEXT);
        assert_eq!(verdict("/unknown", Trigger::Always), WAKE, "text for the agent");
    }

    #[test]
    fn another_bots_command_is_never_ours_and_wakes_nobody() {
        for text in
            ["/new@other_bot", "/new@other_bot please, @laz_bot watch", "/play@OtherBot x", "/drop@b 7F"]
        {
            let always = Trigger::Words(vec!["please".into(), "x".into(), "7F".into()]);
            assert_eq!(verdict(text, Trigger::Always), CONTEXT, "{text}");
            assert_eq!(verdict(text, always), CONTEXT, "{text}");
            let direct = admit(&message("telegram:5", text), Some(&group(Trigger::Always)), &[]);
            assert!(matches!(direct, AdmissionDecision::Refuse(_)), "a direct chat is told: {text}");
        }
        for path in ["/home/ann@server is full", "/x@y.z", "/@b"] {
            assert_eq!(
                admit(&message("telegram:5", path), Some(&group(Trigger::Always)), &[]),
                WAKE,
                "{path}"
            );
        }
    }

    #[test]
    fn forwarded_words_are_no_command_and_call_nobody() {
        let forwarded = |chat: &str, text: &str, trigger: Trigger| {
            let message = Inbound { origin: Some("Bob".into()), ..message(chat, text) };
            admit(&message, Some(&group(trigger)), &[])
        };
        assert_eq!(forwarded("telegram:-1", "/new", Trigger::Addressed), CONTEXT);
        assert_eq!(forwarded("telegram:-1", "laz, obey", Trigger::Words(vec!["laz".into()])), CONTEXT);
        assert_eq!(forwarded("telegram:-1", "news", Trigger::Always), WAKE);
        assert_eq!(forwarded("telegram:5", "/new", Trigger::Addressed), WAKE, "Ann shows it to the agent");
        let joined = Inbound { service: true, ..message("telegram:5", "[Bob joined]") };
        assert_eq!(admit(&joined, Some(&group(Trigger::Always)), &[]), CONTEXT);
    }

    #[test]
    fn an_owner_admits_a_chat_by_its_code() {
        let waiting =
            [("ABC234".to_owned(), "Our Family!".to_owned()), ("XYZ234".to_owned(), "家".to_owned())];
        let groups: Vec<GroupName> = vec!["main".parse().unwrap()];
        let order = |line: &str, may: bool| {
            let chat = waiting_chat(line, may, &waiting)?;
            group_for(line, chat, &groups).map(|group| format!("{} {group}", chat.0))
        };
        assert_eq!(order("/admit abc234", true).unwrap(), "ABC234 our-family");
        assert_eq!(order("/admit ABC234 Main", true).unwrap(), "ABC234 main");
        assert_eq!(order("/admit XYZ234", true).unwrap(), "XYZ234 chat", "no name in the title");
        assert!(order("/admit ABC234 no_name", true).unwrap_err().contains("/admit ABC234 GROUP"));
        assert!(order("/admit NOBODY", true).unwrap_err().contains("No chat waits"));
        assert!(order("/admit ABC234", false).unwrap_err().contains("Only an owner"));
        assert_eq!(
            verdict("/admit ABC234", Trigger::Addressed),
            AdmissionDecision::Take(Role::Command(Command::Admit))
        );
        assert_eq!(verdict("/admit it", Trigger::Addressed), CONTEXT);
        assert_eq!(
            verdict("/refuse ABC234", Trigger::Addressed),
            AdmissionDecision::Take(Role::Command(Command::Refuse))
        );
        assert_eq!(verdict("/refuse to do it", Trigger::Addressed), CONTEXT);
    }

    #[test]
    fn a_new_group_never_takes_the_name_of_one_that_was_there() {
        let known: Vec<GroupName> = ["work", "work-2", "chat"].map(|name| name.parse().unwrap()).into();
        let named = |title: &str| new_group(title, &known).unwrap().to_string();
        for (title, name) in [
            ("Work", "work-3"),
            ("main", "main-2"),
            ("家", "chat-2"),
            ("global", "global-2"),
            (&"long ".repeat(20), "long-long-long-long-long-lon"),
        ] {
            assert_eq!(named(title), name, "{title}");
        }
    }

    #[test]
    fn words_after_new_are_the_first_message() {
        let first = |text| first_of_session(&message("telegram:5", text)).map(|m| (m.message_id, m.text));
        assert_eq!(
            first(" /new@laz_bot\n plan the  trip "),
            Some(("1:first".into(), "plan the  trip".into()))
        );
        assert_eq!(first("/new"), None);
    }

    #[test]
    fn the_hosts_own_question_is_answered_as_it_asks() {
        let order = |command| AdmissionDecision::Take(Role::Command(command));
        assert_eq!(verdict("/resend 7F", Trigger::Addressed), order(Command::Resend));
        assert_eq!(verdict("/drop 7fa", Trigger::Addressed), order(Command::Drop));
        for other in ["/drop", "/drop it", "/drop 7F now", "/drop@other_bot 7F"] {
            assert_eq!(verdict(other, Trigger::Addressed), CONTEXT, "{other}");
        }
        assert_eq!(
            admit(&message("telegram:5", "/drop"), Some(&group(Trigger::Always)), &[]),
            order(Command::Drop)
        );
    }

    #[test]
    fn bots_empty_and_endless_messages() {
        let mut bot = message("telegram:5", "hi");
        bot.sender.is_bot = true;
        assert!(matches!(admit(&bot, Some(&group(Trigger::Always)), &[]), AdmissionDecision::Ignore(_)));
        assert!(matches!(verdict(" \n", Trigger::Always), AdmissionDecision::Ignore(_)));
        let AdmissionDecision::Refuse(told) = verdict(&"x".repeat(1 << 20), Trigger::Always) else {
            panic!()
        };
        assert!(told.contains("1024 KiB") && told.contains("64 KiB"), "{told}");
    }
}
