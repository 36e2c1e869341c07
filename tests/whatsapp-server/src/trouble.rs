//! What goes wrong: refused sends, lost acknowledgements, cut connections, and WhatsApp's ways to end a session.

use crate::session::Refusal;
use crate::{Phone, WhatsAppServer};

/// The probability of each failure of a send, from 0 to 1.
#[derive(Debug, Clone)]
pub struct Troubles {
    /// People see the message, and the connection breaks before the device gets the acknowledgement.
    pub lost_acks: f64,
    /// WhatsApp refuses the message as one that it cannot take now (503). Nobody sees it.
    pub refused: f64,
    /// The connection breaks before WhatsApp takes the message.
    pub cut: f64,
    /// The random number generator, with the seed of the test.
    pub chance: fastrand::Rng,
}

#[derive(Default)]
pub(crate) struct Trouble {
    troubles: Option<Troubles>,
    refuses: Option<u16>,
    /// What the device is told instead of a login.
    pub(crate) denied: Option<Denial>,
    pub(crate) wants_passkey: bool,
}

/// Why a registered device may not log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denial {
    Banned { seconds: u64 },
    Outdated,
}

/// The fate of one message of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Taken,
    /// Taken, and the connection breaks before the acknowledgement.
    Unacknowledged,
    Refused(u16),
    /// The connection breaks before the message is taken.
    Cut,
}

impl Trouble {
    /// Decides the fate of the next message of the device.
    pub(crate) fn fate(&mut self) -> Fate {
        if let Some(code) = self.refuses {
            return Fate::Refused(code);
        }
        let Some(troubles) = &mut self.troubles else { return Fate::Taken };
        let mut chance = troubles.chance.f64();
        let mut falls_to = |share: f64| {
            chance -= share;
            chance < 0.0
        };
        if falls_to(troubles.cut) {
            Fate::Cut
        } else if falls_to(troubles.refused) {
            Fate::Refused(503)
        } else if falls_to(troubles.lost_acks) {
            Fate::Unacknowledged
        } else {
            Fate::Taken
        }
    }
}

impl WhatsAppServer {
    /// Lets sends of the device fail at random from now on; `None` ends it.
    pub fn troubles(&self, troubles: Option<Troubles>) {
        self.shared.state().trouble.troubles = troubles;
    }

    /// Refuses every message of the device with this error code from now on; `None` ends it.
    pub fn refuses_sends(&self, code: Option<u16>) {
        self.shared.state().trouble.refuses = code;
    }

    /// Ends the device's stream with this error, if the device is there. Returns whether it is.
    pub fn stream_error(&self, code: u16) -> bool {
        self.shared.ends_stream(&Refusal::Code(code))
    }

    /// Removes the device from the account: it is told so now or at its next login, and its keys are worth nothing.
    pub fn logs_out(&self) {
        self.shared.unlinks();
    }

    /// Bans the account for a time: the device is thrown out and told so at each login.
    pub fn bans(&self, seconds: u64) {
        self.shared.state().trouble.denied = Some(Denial::Banned { seconds });
        self.shared.cuts();
    }

    /// Takes the version of the device for too old from now on: the device is thrown out and told so at each login.
    pub fn outdated(&self) {
        self.shared.state().trouble.denied = Some(Denial::Outdated);
        self.shared.cuts();
    }

    /// Lets the account log in again after [`Self::bans`] or [`Self::outdated`].
    pub fn forgives(&self) {
        self.shared.state().trouble.denied = None;
    }

    /// Breaks the device's connection, if it has one, without a word.
    pub fn cuts(&self) {
        self.shared.cuts();
    }

    /// Sets whether linking needs a passkey, after the QR code or the pair code.
    pub fn wants_passkey(&self, wants: bool) {
        self.shared.state().trouble.wants_passkey = wants;
    }
}

impl Phone {
    /// Removes the device in the list of linked devices.
    pub fn unlinks(&self) {
        self.shared.unlinks();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_comes_as_often_as_the_test_says() {
        let chance = fastrand::Rng::with_seed(7);
        let troubles = Troubles { lost_acks: 0.2, refused: 0.1, cut: 0.3, chance };
        let mut trouble = Trouble { troubles: Some(troubles), ..Trouble::default() };
        let fates: Vec<Fate> = (0..10_000).map(|_| trouble.fate()).collect();
        let share = |fate: Fate| fates.iter().filter(|f| **f == fate).count() / 100;
        for (fate, percent) in
            [(Fate::Cut, 30), (Fate::Refused(503), 10), (Fate::Unacknowledged, 20), (Fate::Taken, 40)]
        {
            assert!(share(fate).abs_diff(percent) <= 2, "{fate:?}: {} %", share(fate));
        }
    }

    #[test]
    fn a_server_that_refuses_sends_refuses_every_one() {
        let mut trouble = Trouble { refuses: Some(463), ..Trouble::default() };
        assert!((0..10).all(|_| trouble.fate() == Fate::Refused(463)));
    }
}
