//! What the platform says against this device, in words for the owner, and what becomes of the link then.

use std::collections::HashMap;
use std::time::Duration;

use ipc_schema::text_sanitize::safe_line;
use whatsapp_rust::types::events::{ConnectFailureReason, Event};

use super::credentials::{LINK_AGAIN, LOCKED, LOGGED_OUT};
use crate::channels::{Batch, ChannelError};
use crate::text;

/// How soon the host looks again after trouble that passes by itself.
const SOON: Duration = Duration::from_secs(30);
/// After so many undecryptable messages in a row of one sender, the owner is told. One or two are repaired by the
/// sender's phone, which sends them again.
const IN_A_ROW: u32 = 3;
/// The host counts for at most this many senders.
const SENDERS: usize = 1_000;
/// A text of the platform is shown up to this many characters.
const SHOWN: usize = 200;

/// Why nothing can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub code: &'static str,
    /// What happened, and what to do.
    pub why: String,
    pub then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// It passes by itself.
    Passes,
    /// A person must do something. The host tries again after this time, or ever more seldom.
    Person(Option<Duration>),
    /// The keys are of no use any more.
    Ended,
}

impl Trouble {
    pub fn passes(code: &'static str, why: impl Into<String>) -> Self {
        Self { code, why: why.into(), then: Then::Passes }
    }

    pub fn person(code: &'static str, why: impl Into<String>) -> Self {
        Self { code, why: why.into(), then: Then::Person(None) }
    }

    fn ended(code: &'static str, why: String) -> Self {
        Self { code, why: format!("{why}; {LINK_AGAIN}"), then: Then::Ended }
    }

    pub fn error(&self) -> ChannelError {
        let (why, code) = (self.why.clone(), self.code);
        match self.then {
            Then::Passes => ChannelError::Later { why, code, wait: SOON },
            Then::Person(_) => ChannelError::Broken { why, code },
            Then::Ended => ChannelError::NeedsPerson { why, code },
        }
    }
}

/// Returns the trouble that an event tells; `None` for all other events.
pub(super) fn of(event: &Event) -> Option<Trouble> {
    Some(match event {
        Event::LoggedOut(out) => {
            let said = out.logout_message.as_ref();
            let said = [said.and_then(|m| m.header.as_deref()), said.and_then(|m| m.subtext.as_deref())];
            let said = quoted(&said.into_iter().flatten().collect::<Vec<_>>().join(" "));
            match out.reason {
                ConnectFailureReason::AccountLocked => Trouble::ended(
                    LOCKED,
                    format!(
                        "WhatsApp has locked the account{said}; open WhatsApp on the phone and follow what it says"
                    ),
                ),
                _ => Trouble::ended(
                    LOGGED_OUT,
                    format!(
                        "WhatsApp has ended the link: somebody removed this device on the phone, \
                         or the phone was not used for two weeks{said}"
                    ),
                ),
            }
        }
        Event::TemporaryBan(ban) => {
            let lasts = ban.expire.to_std().unwrap_or_default();
            let said = quoted(ban.message.as_deref().unwrap_or_default());
            Trouble {
                code: "whatsapp.banned",
                why: format!(
                    "WhatsApp has banned the number for {} ({}){said}; the host tries again then. \
                     Write less, and only to people who wrote first",
                    text::duration(lasts),
                    ban.code
                ),
                then: Then::Person(Some(lasts)),
            }
        }
        Event::ClientOutdated(_) => Trouble::person(
            "whatsapp.outdated",
            "WhatsApp refuses this version of the client; a newer Lazaret may help: update it",
        ),
        Event::StreamReplaced(_) => Trouble::person(
            "whatsapp.replaced",
            "another program has connected with the same keys; end it, and the host connects again within an hour; or give \
             this host keys of its own: `lazaret unlink whatsapp`, then `lazaret link whatsapp`",
        ),
        Event::ConnectFailure(failure) if !failure.reason.should_reconnect() => Trouble::person(
            "whatsapp.refused",
            format!(
                "WhatsApp refuses the connection ({}){}; if that stays so, end the link with \
                 `lazaret unlink whatsapp` and make another with `lazaret link whatsapp`",
                failure.reason.code(),
                quoted(failure.message.as_deref().unwrap_or_default())
            ),
        ),
        _ => return None,
    })
}

/// What the operators are told of a sender whose messages cannot be decrypted.
pub(super) fn undecryptable(sender: &str, own: bool) -> Batch {
    let (whose, again) = match own {
        true => ("the account's other devices".to_owned(), "Send them again there."),
        false => (safe_line(sender), "Ask the person to send them again."),
    };
    let note = format!(
        "WhatsApp: the host cannot decrypt the last {IN_A_ROW} messages of {whose}. Other messages arrive. {again} If it \
         happens again: `lazaret unlink whatsapp`, then `lazaret link whatsapp`."
    );
    Batch { notes: vec![note], ..Batch::default() }
}

/// Counts messages that cannot be decrypted, by sender.
#[derive(Debug, Default)]
pub(super) struct Undecryptable {
    in_a_row: HashMap<String, u32>,
    told: bool,
}

impl Undecryptable {
    /// Counts one more of a sender. Returns whether the owner is told now: once for each connection, because a stranger
    /// can send any number of them.
    pub fn another(&mut self, sender: &str) -> bool {
        if self.in_a_row.len() >= SENDERS {
            self.in_a_row.clear();
        }
        let count = self.in_a_row.entry(sender.to_owned()).or_default();
        *count += 1;
        *count >= IN_A_ROW && !std::mem::replace(&mut self.told, true)
    }

    /// A message of this sender was decrypted.
    pub fn heard(&mut self, sender: &str) {
        self.in_a_row.remove(sender);
    }
}

/// Returns what the platform says, to follow a sentence.
fn quoted(said: &str) -> String {
    let said: String = safe_line(said.trim()).chars().take(SHOWN).collect();
    if said.is_empty() { said } else { format!(" (it says: {said:?})") }
}

#[cfg(test)]
mod tests {
    use whatsapp_rust::types::events::{
        ConnectFailure, LoggedOut, StreamReplaced, TempBanReason, TemporaryBan,
    };
    use whatsapp_rust::wacore::chrono;

    use super::*;

    fn refused(number: i32) -> Event {
        let reason = ConnectFailureReason::from(number);
        Event::ConnectFailure(ConnectFailure::builder().reason(reason).message("no\nway".into()).build())
    }

    #[test]
    fn every_refusal_says_what_happened_and_what_to_do() {
        let out = |number: i32| {
            let reason = ConnectFailureReason::from(number);
            Event::LoggedOut(LoggedOut::builder().on_connect(true).reason(reason).build())
        };
        let ban = TemporaryBan::builder()
            .code(TempBanReason::SentToTooManyPeople)
            .expire(chrono::Duration::try_hours(24).unwrap())
            .build();
        let day = Then::Person(Some(Duration::from_secs(24 * 3600)));
        for (event, code, then, words) in [
            (out(401), "whatsapp.logged_out", Then::Ended, "lazaret link whatsapp"),
            (out(403), "whatsapp.locked", Then::Ended, "open WhatsApp on the phone"),
            (Event::TemporaryBan(ban), "whatsapp.banned", day, "Write less"),
            (
                Event::StreamReplaced(StreamReplaced::builder().build()),
                "whatsapp.replaced",
                Then::Person(None),
                "same keys",
            ),
            (refused(415), "whatsapp.refused", Then::Person(None), r#"(415) (it says: "no\\nway")"#),
        ] {
            let trouble = of(&event).unwrap();
            assert_eq!((trouble.code, trouble.then), (code, then));
            assert!(trouble.why.contains(words), "{}", trouble.why);
            let needs_person = matches!(trouble.error(), ChannelError::NeedsPerson { .. });
            assert_eq!(
                needs_person,
                then == Then::Ended,
                "the host goes on trying unless the keys are of no use"
            );
        }
        assert_eq!(of(&refused(503)), None, "the library connects again by itself");
    }

    #[test]
    fn messages_that_cannot_be_decrypted_are_a_note_and_the_channel_goes_on() {
        let note = |own| undecryptable("491511234567@s.whatsapp.net", own).notes.concat();
        assert!(note(false).contains("the last 3 messages of 491511234567"), "{}", note(false));
        assert!(note(false).contains("Ask the person to send them again"));
        assert!(note(true).contains("Send them again there"));
    }

    #[test]
    fn a_sender_who_cannot_be_read_three_times_in_a_row_is_told_once() {
        let mut counted = Undecryptable::default();
        assert!(!counted.another("ann") && !counted.another("ann"));
        counted.heard("ann");
        assert!(!counted.another("ann") && !counted.another("bob") && !counted.another("ann"));
        assert!(counted.another("ann"));
        assert!(!counted.another("ann") && !counted.another("bob") && !counted.another("bob"));
        for n in 0..3 * SENDERS {
            counted.another(&n.to_string());
        }
        assert!(counted.in_a_row.len() <= SENDERS);
    }
}
