//! What a failed send means for the part: whether it may have arrived, and whether another try can help.
//!
//! WhatsApp documents none of its numbers. 421, 475 and 487 to 491 have names in WhatsApp's web client
//! (`wacore::protocol::nack` lists them). The library explains 400, 404, 463, 479 and 503 where it logs them
//! (`client/node_io.rs`). Users of other clients report that 400, 403 and 479 can pass after minutes or hours, and that
//! 403 comes for a person whom the account has blocked.

use std::time::Duration;

use whatsapp_rust::ErrorChainExt;
use whatsapp_rust::socket::error::{EncryptSendError, EncryptSendErrorKind};

use crate::channels::SendError;

/// How often a message is tried whose refusal may be for ever or pass. The chat waits meanwhile, seven seconds in all.
const TRIES: u32 = 4;
/// The same for a message that the library cannot send. Most of these errors pass with the connection.
const TRIES_OF_LIBRARY: u32 = 10;
/// How long the host waits when the server asks it to slow down.
const SLOW_DOWN: Duration = Duration::from_secs(60);

/// What is sent, as far as it decides what a refusal means.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tried {
    pub in_room: bool,
    /// The host's own words. They are plain text, so a refusal concerns the chat.
    pub notice: bool,
    /// Earlier tries.
    pub earlier: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// The message will never be taken.
    Never,
    /// This chat takes nothing.
    Gone,
    /// It passes.
    Later,
    /// The server wants fewer messages.
    SlowDown,
    /// It may pass, or not.
    Unclear,
}

/// Returns what the number of a refused message means.
fn meaning(number: u16, in_room: bool) -> (Meaning, &'static str) {
    match number {
        401 | 403 if in_room => (Meaning::Gone, "this account may not write in the room"),
        404 => (Meaning::Gone, "the chat does not exist"),
        403 => (Meaning::Unclear, "the person may have blocked this account"),
        421 => (Meaning::Later, "the members of the room have changed, and this device does not know it yet"),
        429 => (Meaning::SlowDown, "too many messages"),
        463 => (
            Meaning::Later,
            "for now WhatsApp does not let this account write to people who have not written first",
        ),
        475 => (Meaning::Later, "for now WhatsApp does not let this account begin more chats"),
        487..=491 => (Meaning::Never, "the server cannot read the message"),
        500.. => (Meaning::Later, "the server is in trouble"),
        _ => (Meaning::Unclear, "the server gives no reason"),
    }
}

/// Classifies an error acknowledgement. `number` is what the server wrote.
pub(super) fn refused(number: &str, tried @ Tried { in_room, .. }: Tried) -> SendError {
    let code = number.parse().unwrap_or_default();
    let (meaning, what) = meaning(code, in_room);
    let number = if code == 0 { String::new() } else { format!(" ({code})") };
    let why = format!("WhatsApp refuses the message: {what}{number}");
    match meaning {
        Meaning::Gone => SendError::Gone { why },
        Meaning::Never => SendError::Refused { why },
        Meaning::Unclear => unclear(why, tried, TRIES),
        Meaning::SlowDown => SendError::NotArrived { why, after: Some(SLOW_DOWN) },
        Meaning::Later => SendError::NotArrived { why, after: None },
    }
}

/// The host tells the chat of a reply that it has given up. If that notice is refused too, the chat takes nothing, and
/// the owner must learn it elsewhere.
fn unclear(why: String, tried: Tried, tries: u32) -> SendError {
    match tried.earlier + 1 < tries {
        true => SendError::NotArrived { why, after: None },
        false if tried.notice => SendError::Gone { why },
        false => SendError::Refused { why },
    }
}

/// Classifies an error of the library: it asks the server about the chat, encrypts, and writes the message last.
pub(super) fn not_sent(error: &whatsapp_rust::SendError, tried: Tried) -> SendError {
    let why = format!("WhatsApp: {error}");
    if let Some(rejection) = error.server_rejection() {
        // What the server does not answer about a room concerns the room, and about a person only the question.
        return match rejection.code {
            401 | 403 | 404 | 410 if tried.in_room => SendError::Gone { why },
            _ => {
                SendError::NotArrived { why, after: rejection.backoff.map(|s| Duration::from_secs(s.into())) }
            }
        };
    }
    let writing = error.sources().find_map(|cause| cause.downcast_ref::<EncryptSendError>());
    match error {
        _ if writing.is_some_and(|e| may_have_left(&e.kind)) => SendError::Cut { why },
        whatsapp_rust::SendError::InvalidRequest(_) => SendError::Refused { why },
        // A full disk passes. The library gives no type to what is wrong with the message itself.
        whatsapp_rust::SendError::Internal(_) if error.store_failure().is_none() => {
            unclear(why, tried, TRIES_OF_LIBRARY)
        }
        _ => SendError::NotArrived { why, after: None },
    }
}

fn may_have_left(kind: &EncryptSendErrorKind) -> bool {
    matches!(
        kind,
        EncryptSendErrorKind::Transport | EncryptSendErrorKind::Join | EncryptSendErrorKind::ChannelClosed
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use whatsapp_rust::{ClientError, IqError, SendError as Failed, anyhow};

    const FIRST: Tried = Tried { in_room: false, notice: false, earlier: 0 };
    const LAST: Tried = Tried { earlier: TRIES - 1, ..FIRST };

    #[test]
    fn each_number_says_what_becomes_of_the_part() {
        for (number, in_person, in_room) in [
            ("400", "delivery.later", "delivery.later"),
            ("401", "delivery.later", "delivery.unreachable"),
            ("403", "delivery.later", "delivery.unreachable"),
            ("404", "delivery.unreachable", "delivery.unreachable"),
            ("421", "delivery.later", "delivery.later"),
            ("429", "delivery.later", "delivery.later"),
            ("463", "delivery.later", "delivery.later"),
            ("475", "delivery.later", "delivery.later"),
            ("479", "delivery.later", "delivery.later"),
            ("487", "delivery.refused", "delivery.refused"),
            ("491", "delivery.refused", "delivery.refused"),
            ("500", "delivery.later", "delivery.later"),
            ("503", "delivery.later", "delivery.later"),
            ("65536", "delivery.later", "delivery.later"),
            ("what?", "delivery.later", "delivery.later"),
        ] {
            let codes = [false, true].map(|in_room| refused(number, Tried { in_room, ..FIRST }).code());
            assert_eq!(codes, [in_person, in_room], "{number}");
        }
    }

    #[test]
    fn a_refusal_without_a_reason_does_not_hold_up_its_chat_for_ever() {
        assert_eq!(refused("479", Tried { earlier: TRIES - 2, ..FIRST }).code(), "delivery.later");
        assert_eq!(refused("479", LAST).code(), "delivery.refused");
        assert_eq!(refused("503", LAST).code(), "delivery.later", "an outage is no reason");
    }

    #[test]
    fn a_chat_that_refuses_a_plain_notice_takes_nothing() {
        assert_eq!(refused("403", Tried { notice: true, ..FIRST }).code(), "delivery.later");
        assert_eq!(refused("403", Tried { notice: true, ..LAST }).code(), "delivery.unreachable");
        assert_eq!(refused("503", Tried { notice: true, ..LAST }).code(), "delivery.later");
    }

    #[test]
    fn only_a_server_that_wants_fewer_messages_gets_a_pause_of_its_own() {
        let after = |number| match refused(number, FIRST) {
            SendError::NotArrived { after, .. } => after,
            other => panic!("{other:?}"),
        };
        assert_eq!((after("429"), after("503")), (Some(SLOW_DOWN), None));
    }

    #[test]
    fn what_the_library_could_not_send_has_not_arrived_unless_it_was_being_written() {
        let refusal = |code, backoff| {
            Failed::Iq(IqError::ServerError { code, text: "x".into(), error_type: None, backoff })
        };
        let write = |error| Failed::Client(ClientError::EncryptSend(error));
        for (error, in_room, expected) in [
            (Failed::NotLoggedIn, false, "delivery.later"),
            (Failed::Client(ClientError::NotConnected), false, "delivery.later"),
            (Failed::Iq(IqError::Timeout), true, "delivery.later"),
            (refusal(403, None), true, "delivery.unreachable"),
            (refusal(403, None), false, "delivery.later"),
            (refusal(503, None), true, "delivery.later"),
            (write(EncryptSendError::transport(anyhow::anyhow!("pipe"))), false, "delivery.cut"),
            (write(EncryptSendError::poisoned()), false, "delivery.later"),
            (Failed::InvalidRequest("no".into()), false, "delivery.refused"),
            (Failed::Internal(anyhow::anyhow!("no session")), false, "delivery.later"),
        ] {
            assert_eq!(not_sent(&error, Tried { in_room, ..FIRST }).code(), expected, "{error}");
        }
        let asked = not_sent(&refusal(429, Some(7)), FIRST);
        assert!(matches!(asked, SendError::NotArrived { after: Some(Duration { .. }), .. }), "{asked:?}");
        let stuck = Failed::Internal(anyhow::anyhow!("no session"));
        assert_eq!(not_sent(&stuck, LAST).code(), "delivery.later");
        let last = Tried { earlier: TRIES_OF_LIBRARY - 1, ..FIRST };
        assert_eq!(not_sent(&stuck, last).code(), "delivery.refused");
    }
}
