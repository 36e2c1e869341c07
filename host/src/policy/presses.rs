//! Decides what a press on a button does. It counts as if the person wrote the choice's command in that chat: the same
//! people may press as may write it. `intake` calls it.

use super::admission::{self, AdmissionDecision};
use crate::domain::group_settings::Group;
use crate::domain::message::{Command, Inbound, PressAnswer, Role};
use crate::domain::{ChatId, SenderId};
use crate::text;

/// A choice as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The chat that shows it.
    pub chat: ChatId,
    pub command: String,
    pub for_owners: bool,
    /// What was chosen there before.
    pub decided: Option<Decided>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    pub label: String,
    /// The name of the person.
    pub by: String,
}

impl Decided {
    /// What the person who has just pressed is told.
    pub fn by_this_press(&self) -> PressAnswer {
        let outcome = text::outcome(&self.label, &self.by);
        PressAnswer::Decided { told: outcome.clone(), outcome }
    }

    fn before(&self) -> PressAnswer {
        let outcome = text::outcome(&self.label, &self.by);
        PressAnswer::Decided { told: text::already_decided(&outcome), outcome }
    }
}

/// Why a press does nothing: the counter's name, and what the person is told.
pub type NotTaken = (&'static str, PressAnswer);

/// Decides about a press, whose text is the command of the choice. `offer` is the choice, if the button is the host's
/// and stands in this chat; `group` is the chat's, if the chat is admitted.
///
/// # Errors
/// Why the press does nothing.
pub fn decide(
    press: &Inbound,
    offer: Option<&Offer>,
    group: Option<&Group>,
    owners: &[SenderId],
) -> Result<Command, NotTaken> {
    let Some((offer, group)) = offer.zip(group) else {
        return Err(("presses.unknown", PressAnswer::Refused(text::unknown_button())));
    };
    if let Some(decided) = &offer.decided {
        return Err(("presses.decided", decided.before()));
    }
    let owner = owners.contains(&press.sender.id);
    if offer.for_owners && !owner {
        return Err(("presses.refused", PressAnswer::Refused(text::owners_decide())));
    }
    let owner = owner && group.name.is_main();
    match admission::admit(press, Some(group), owners) {
        AdmissionDecision::Take(Role::Command(command)) if owner || !command.is_owners() => Ok(command),
        AdmissionDecision::Take(Role::Command(_)) => {
            Err(("presses.refused", PressAnswer::Refused(text::may_not_admit())))
        }
        _ => Err(("presses.refused", PressAnswer::Refused(text::may_not_press()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::message::{Addressee, Sender};
    use crate::domain::{ChatKind, WallMs};

    const ANN: &str = "telegram:5";

    fn press(command: &str, sender: &str) -> Inbound {
        Inbound {
            chat: "telegram:-1".parse().unwrap(),
            kind: ChatKind::Room,
            title: "Owners".into(),
            message_id: "press:1".into(),
            version: 0,
            sender: Sender { id: sender.parse().unwrap(), name: "Somebody".into(), is_bot: false },
            text: command.into(),
            origin: None,
            service: false,
            reply_to: None,
            attachments: vec![],
            addressee: Addressee::Us,
            at: WallMs(0),
            press: None,
        }
    }

    fn offer(command: &str) -> Offer {
        Offer {
            chat: "telegram:-1".parse().unwrap(),
            command: command.into(),
            for_owners: false,
            decided: None,
        }
    }

    /// What becomes of a press by `sender` in a chat of `group`, whose messages only `senders` may give orders in.
    fn pressed(command: &str, sender: &str, group: &str, senders: Option<&[&str]>) -> &'static str {
        let senders = senders.map(|list| list.iter().map(|id| id.parse().unwrap()).collect());
        let group = Group { senders, ..Group::for_tests(group) };
        let owners = [ANN.parse().unwrap()];
        match decide(&press(command, sender), Some(&offer(command)), Some(&group), &owners) {
            Ok(command) => command.word(),
            Err((counted, _)) => counted,
        }
    }

    #[test]
    fn who_may_write_the_command_may_press_its_button() {
        assert_eq!(pressed("/admit ABC234", ANN, "main", None), "admit");
        assert_eq!(pressed("/admit ABC234", "telegram:6", "main", None), "presses.refused", "no owner");
        assert_eq!(pressed("/refuse ABC234", ANN, "family", None), "presses.refused", "not in main");
        assert_eq!(pressed("/answer 7F 1", "telegram:6", "family", None), "answer");
        assert_eq!(pressed("/answer 7F 1", "telegram:6", "family", Some(&["telegram:7"])), "presses.refused");
        assert_eq!(pressed("/answer 7F 1", ANN, "family", Some(&["telegram:7"])), "answer", "an owner");
        assert_eq!(pressed("no command", ANN, "main", None), "presses.refused");
    }

    #[test]
    fn a_permission_is_the_owners_to_give_in_every_group() {
        let offer = Offer { for_owners: true, ..offer("/answer 7F 1") };
        let (family, owners) = (Group::for_tests("family"), [ANN.parse().unwrap()]);
        let pressed = |sender| decide(&press(&offer.command, sender), Some(&offer), Some(&family), &owners);
        assert_eq!(pressed(ANN), Ok(Command::Answer));
        let refused = PressAnswer::Refused(text::owners_decide());
        assert_eq!(pressed("telegram:6"), Err(("presses.refused", refused)));
    }

    #[test]
    fn a_button_is_pressed_once_and_only_where_the_host_knows_it() {
        let (press, group) = (press("/answer 7F 1", ANN), Group::for_tests("family"));
        let told = |offer: Option<&Offer>, group: Option<&Group>| match decide(&press, offer, group, &[]) {
            Err((counted, PressAnswer::Decided { told, .. })) => format!("{counted} {told}"),
            Err((counted, PressAnswer::Refused(told))) => format!("{counted} {told}"),
            Ok(command) => command.word().to_owned(),
        };
        let open = offer("/answer 7F 1");
        assert_eq!(told(Some(&open), Some(&group)), "answer");
        assert!(told(None, Some(&group)).starts_with("presses.unknown This button"));
        assert!(told(Some(&open), None).starts_with("presses.unknown"), "the chat is admitted no more");
        let decided = Some(Decided { label: "1. whole".into(), by: "Bob".into() });
        let closed = Offer { decided, ..open };
        assert_eq!(told(Some(&closed), Some(&group)), "presses.decided Already decided: ✓ 1. whole (Bob)");
    }
}
