//! Failures between a bot and Telegram.

use super::State;

/// A failure that replaces the answer of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The call is performed, and the connection is cut without an answer.
    CutAfter,
    /// The call is not performed, and the connection is cut without an answer.
    CutBefore,
    /// The call is performed, and a proxy answers 502.
    BadGatewayAfter,
    /// The call is not performed, and a proxy answers 502.
    BadGatewayBefore,
    /// The call is performed, and no answer comes while the bot lives.
    HangsAfter,
    /// Somebody deletes the message just before the call edits it.
    DeletedBefore,
    /// Telegram refuses the call with 429 and asks the bot to wait a second.
    Busy,
    /// Telegram refuses the call.
    Refused(u16, String),
}

impl Trouble {
    /// Returns whether the call is performed.
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::CutAfter | Self::BadGatewayAfter | Self::HangsAfter)
    }
}

/// A failure that waits for its call.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) method: &'static str,
    pub(super) words: String,
    pub(super) trouble: Trouble,
}

impl State {
    /// Returns the failure that was planned for this call, or else a random one.
    pub(super) fn trouble(&mut self, method: &str, text: &str) -> Option<Trouble> {
        if let Some(at) = self.planned.iter().position(|p| p.method == method && text.contains(&p.words)) {
            return Some(self.planned.remove(at).trouble);
        }
        let troubles =
            self.troubles.as_mut().filter(|_| ["sendMessage", "editMessageText"].contains(&method))?;
        let roll = troubles.chance.f64();
        let (lost, busy) = (troubles.lost, troubles.lost + troubles.busy);
        match roll {
            _ if roll < lost => Some(Trouble::CutAfter),
            _ if roll < busy => Some(Trouble::Busy),
            _ if roll < busy + troubles.down => Some(Trouble::BadGatewayBefore),
            _ => None,
        }
    }

    /// Deletes a message of the bot, as a person would.
    pub(super) fn delete(&mut self, chat: i64, message_id: i64) {
        let message = self.sent.iter_mut().find(|m| (m.chat, m.message_id) == (chat, message_id));
        if let Some(message) = message {
            message.deleted = true;
        }
    }
}
