//! Decides what happens to a part of the outbox after a send: repeat, ask the chat, give up, and how many duplicates
//! may be on the platform. `store` and `delivery` call it. No other place decides about repeats.

use std::time::Duration;

use super::backoff;
use crate::domain::outbound::{Delivery, DeliveryStrategy, Voice};

/// A channel's means against duplicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Abilities {
    /// The platform accepts an idempotency key and drops a second message with the same key.
    pub own_id: bool,
    /// The channel can edit a sent message.
    pub edits: bool,
}

/// The settings and capabilities for the delivery to a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    pub delivery: Delivery,
    pub abilities: Abilities,
    /// The longest age at which a reply is still sent.
    pub lifetime: Duration,
    /// How long a reply is retried.
    pub retry: Duration,
}

impl Terms {
    /// The strategy for a part that was never tried.
    ///
    /// A notice is never held: the question about a held part is itself a notice, and would ask about itself.
    pub fn strategy(&self, voice: Voice) -> DeliveryStrategy {
        match (self.abilities, self.delivery, voice) {
            (Abilities { own_id: true, .. }, ..) => DeliveryStrategy::Keyed,
            (Abilities { edits: true, .. }, Delivery::Edit, _) => DeliveryStrategy::Edit,
            (_, Delivery::Hold, Voice::Reply) => DeliveryStrategy::Hold,
            (_, Delivery::Resend | Delivery::Edit | Delivery::Hold, _) => DeliveryStrategy::Resend,
        }
    }

    /// The strategy for a file. Not every platform can turn a placeholder, which is a text, into a file. So if the
    /// owner wants edits, the host sends an uncertain file again and counts it.
    pub fn file_strategy(&self, voice: Voice) -> DeliveryStrategy {
        match self.strategy(voice) {
            DeliveryStrategy::Edit => DeliveryStrategy::Resend,
            strategy => strategy,
        }
    }

    /// Whether a part is too old to send. Only replies expire: a notice that says why no reply came must outlive the
    /// outage that caused it.
    pub fn stale(&self, voice: Voice, age: Duration) -> bool {
        voice == Voice::Reply && age > self.lifetime
    }
}

/// The facts about a part that the decision needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartFacts {
    pub strategy: DeliveryStrategy,
    pub voice: Voice,
    /// Whether the placeholder was sent. If so, the call was an edit.
    pub placeholder: bool,
    /// Tries so far, including this one.
    pub attempts: u32,
    pub age: Duration,
}

/// The outcome of a send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendOutcome {
    /// The platform has the message, under this id.
    Arrived(String),
    /// The platform has the placeholder, under this id.
    Claimed(String),
    /// The platform has the beginning, under this id. `rest` is left to send.
    Partly { why: String, receipt: String, rest: String },
    /// It is certain that nothing arrived.
    NotArrived { why: String, after: Option<Duration> },
    /// The call got no answer, so its outcome is unknown.
    Cut { why: String },
    /// The host died during the call, so its outcome is unknown.
    Died,
    /// The placeholder cannot be edited any more.
    Lost {
        why: String,
        /// Whether the placeholder still exists. If not, somebody deleted it.
        stands: bool,
    },
    /// The platform will never accept this text.
    Refused { why: String },
    /// The platform accepts nothing for this chat any more.
    Gone { why: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    Sent {
        receipt: String,
    },
    /// The placeholder was sent, and the text follows.
    Fill {
        /// The platform's id of the placeholder.
        placeholder: String,
    },
    /// The beginning was sent, and the rest follows.
    Rest {
        why: String,
        /// The platform's id of the beginning.
        receipt: String,
        rest: String,
    },
    /// The host tries again. Later parts of the chat wait.
    Again {
        wait: Duration,
        doubt: Doubt,
        forget: bool,
        why: String,
    },
    /// The host does not try again and asks the chat. Later parts go on.
    Ask {
        why: String,
    },
    /// The host gives the part up.
    GiveUp {
        why: String,
        doubt: Doubt,
        /// The whole chat is unreachable.
        gone: bool,
    },
}

/// Duplicates that may be on the platform besides the message in the receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Doubt {
    /// Copies of the text.
    pub copies: u32,
    pub strays: u32,
}

/// How often a deleted placeholder is sent again at once. After that the usual backoff applies.
const AT_ONCE: u32 = 3;

/// Decides what follows a send. `retry` is how long a reply is retried.
pub fn next(facts: PartFacts, happened: SendOutcome, retry: Duration) -> Next {
    let none = Doubt::default();
    let wait = backoff::next_send(facts.attempts, None);
    match happened {
        SendOutcome::Arrived(receipt) => Next::Sent { receipt },
        SendOutcome::Claimed(placeholder) => Next::Fill { placeholder },
        SendOutcome::Partly { why, receipt, rest } => Next::Rest { why, receipt, rest },
        SendOutcome::NotArrived { why, after } => {
            again(facts, retry, backoff::next_send(facts.attempts, after), none, why)
        }
        SendOutcome::Cut { why } if facts.strategy == DeliveryStrategy::Hold => Next::Ask { why },
        SendOutcome::Cut { why } => again(facts, retry, wait, doubt(facts), why),
        SendOutcome::Died if facts.strategy == DeliveryStrategy::Hold => Next::Ask { why: DIED.to_owned() },
        // No wait: the next claim checks the part's age, when the clock is reliable again.
        SendOutcome::Died => {
            let (doubt, why) = (doubt(facts), DIED.to_owned());
            Next::Again { wait: Duration::ZERO, doubt, forget: false, why }
        }
        SendOutcome::Lost { why, stands } => {
            let wait = if facts.attempts <= AT_ONCE { Duration::ZERO } else { wait };
            // An existing placeholder may hold the text, if an earlier edit got no answer.
            let left = u32::from(stands);
            Next::Again { wait, doubt: Doubt { copies: left, strays: left }, forget: true, why }
        }
        SendOutcome::Refused { why } => Next::GiveUp { why, doubt: none, gone: false },
        SendOutcome::Gone { why } => Next::GiveUp { why, doubt: none, gone: true },
    }
}

const DIED: &str = "the host died while it was sent";

fn again(facts: PartFacts, retry: Duration, wait: Duration, doubt: Doubt, why: String) -> Next {
    if facts.voice == Voice::Reply && facts.age > retry {
        let why = format!("given up after {}: {why}", crate::text::duration(retry));
        return Next::GiveUp { why, doubt, gone: false };
    }
    Next::Again { wait, doubt, forget: false, why }
}

/// The duplicates that a call of unknown outcome may cause.
fn doubt(facts: PartFacts) -> Doubt {
    match facts.strategy {
        DeliveryStrategy::Keyed => Doubt::default(),
        DeliveryStrategy::Resend | DeliveryStrategy::Hold => Doubt { copies: 1, strays: 0 },
        // The text goes only into the placeholder, so repeats do not duplicate it.
        DeliveryStrategy::Edit if facts.placeholder => Doubt::default(),
        DeliveryStrategy::Edit => Doubt { copies: 0, strays: 1 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const S: fn(u64) -> Duration = Duration::from_secs;

    fn reply(strategy: DeliveryStrategy, placeholder: bool) -> PartFacts {
        PartFacts { strategy, voice: Voice::Reply, placeholder, attempts: 3, age: S(60) }
    }

    fn cut() -> SendOutcome {
        SendOutcome::Cut { why: "cut".into() }
    }

    #[test]
    fn the_owners_wish_is_followed_as_far_as_the_channel_can() {
        let can = |own_id, edits| Abilities { own_id, edits };
        let strategy = |abilities, delivery, voice| {
            Terms { delivery, abilities, lifetime: DAY, retry: DAY }.strategy(voice)
        };
        use Delivery::{Edit, Hold, Resend};
        for (abilities, delivery, voice, expected) in [
            (can(false, true), Resend, Voice::Reply, DeliveryStrategy::Resend),
            (can(false, true), Edit, Voice::Reply, DeliveryStrategy::Edit),
            (can(false, true), Edit, Voice::Notice, DeliveryStrategy::Edit),
            (can(false, false), Edit, Voice::Reply, DeliveryStrategy::Resend),
            (can(false, true), Hold, Voice::Reply, DeliveryStrategy::Hold),
            (can(false, true), Hold, Voice::Notice, DeliveryStrategy::Resend),
            (can(true, false), Hold, Voice::Reply, DeliveryStrategy::Keyed),
            (can(true, true), Edit, Voice::Reply, DeliveryStrategy::Keyed),
        ] {
            assert_eq!(
                strategy(abilities, delivery, voice),
                expected,
                "{abilities:?} {delivery:?} {voice:?}"
            );
        }
    }

    #[test]
    fn a_call_of_unknown_outcome_counts_what_it_may_have_left() {
        for (strategy, placeholder, copies, strays) in [
            (DeliveryStrategy::Keyed, false, 0, 0),
            (DeliveryStrategy::Resend, false, 1, 0),
            (DeliveryStrategy::Edit, false, 0, 1),
            (DeliveryStrategy::Edit, true, 0, 0),
        ] {
            for (happened, wait) in [(cut(), S(4)), (SendOutcome::Died, S(0))] {
                let Next::Again { wait: waits, doubt, forget: false, .. } =
                    next(reply(strategy, placeholder), happened.clone(), DAY)
                else {
                    panic!("{strategy:?} {happened:?}");
                };
                assert_eq!((waits, doubt), (wait, Doubt { copies, strays }), "{strategy:?} {happened:?}");
            }
        }
        for happened in [cut(), SendOutcome::Died] {
            assert!(matches!(next(reply(DeliveryStrategy::Hold, false), happened, DAY), Next::Ask { .. }));
        }
    }

    #[test]
    fn what_certainly_did_not_arrive_is_no_doubt_under_any_policy() {
        for strategy in [
            DeliveryStrategy::Keyed,
            DeliveryStrategy::Resend,
            DeliveryStrategy::Edit,
            DeliveryStrategy::Hold,
        ] {
            let asked = SendOutcome::NotArrived { why: "429".into(), after: Some(S(7)) };
            let expected =
                Next::Again { wait: S(7), doubt: Doubt::default(), forget: false, why: "429".into() };
            assert_eq!(next(reply(strategy, false), asked, DAY), expected);
        }
    }

    #[test]
    fn a_reply_is_given_up_after_a_day_and_a_notice_is_not() {
        let old = PartFacts { age: DAY + S(1), ..reply(DeliveryStrategy::Resend, false) };
        let away = || SendOutcome::NotArrived { why: "away".into(), after: None };
        let Next::GiveUp { why, gone: false, .. } = next(old, away(), DAY) else { panic!() };
        assert_eq!(why, "given up after 1 d 0 h: away");
        assert!(matches!(next(PartFacts { age: DAY, ..old }, away(), DAY), Next::Again { .. }));
        assert!(matches!(next(PartFacts { voice: Voice::Notice, ..old }, away(), DAY), Next::Again { .. }));
        let Next::GiveUp { doubt, .. } = next(old, cut(), DAY) else { panic!() };
        assert_eq!(doubt.copies, 1, "the last try may have arrived");
    }

    #[test]
    fn a_deleted_placeholder_is_sent_again_and_one_that_stands_is_counted() {
        let lost = |stands, attempts| {
            let happened = SendOutcome::Lost { why: "not found".into(), stands };
            next(PartFacts { attempts, ..reply(DeliveryStrategy::Edit, true) }, happened, DAY)
        };
        let again = |wait, left| Next::Again {
            wait,
            doubt: Doubt { copies: left, strays: left },
            forget: true,
            why: "not found".into(),
        };
        assert_eq!(lost(false, 1), again(S(0), 0));
        assert_eq!(lost(true, 1), again(S(0), 1));
        assert_eq!(lost(false, 5), again(S(16), 0), "somebody deletes it each time");
    }

    #[test]
    fn never_is_never() {
        let refused =
            next(reply(DeliveryStrategy::Edit, true), SendOutcome::Refused { why: "too long".into() }, DAY);
        assert!(matches!(refused, Next::GiveUp { gone: false, .. }));
        let gone =
            next(reply(DeliveryStrategy::Hold, false), SendOutcome::Gone { why: "kicked".into() }, DAY);
        assert!(matches!(gone, Next::GiveUp { gone: true, .. }));
    }
}
