//! Decides from looks at a client how it fares, and when it is built anew. The library tells of most outages, but not
//! of a connection that has gone silent, or that it has closed itself.

use std::time::Duration;

use tokio::time::Instant;

/// How often a client is looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What one look sees.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// The server has let the client in.
    pub logged_in: bool,
    /// The library has said that the login is complete, and nobody has said since that the connection is gone.
    pub up: bool,
    /// The library waits until the host has stored messages. The number is of those batches that it has stored.
    pub hands_over: Option<u64>,
    /// The last try did not reach the server.
    pub unreached: bool,
}

impl Seen {
    /// The connection is gone, and nobody has said so.
    pub fn is_cut(self) -> bool {
        self.up && !self.logged_in
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fares {
    Well,
    /// The host must store something first.
    HandsOver {
        stored: u64,
    },
    LogsIn,
    /// The server cannot be reached.
    Unreached,
    /// The server has ended the connection or puts the client off.
    PutOff,
}

impl Fares {
    pub fn of(seen: Seen) -> Self {
        match seen {
            Seen { hands_over: Some(stored), .. } => Self::HandsOver { stored },
            Seen { logged_in: true, up: true, .. } => Self::Well,
            Seen { logged_in: true, .. } => Self::LogsIn,
            Seen { unreached: true, .. } => Self::Unreached,
            Seen { .. } => Self::PutOff,
        }
    }

    /// How long a client may fare so until it is built anew; `None` for as long as it likes.
    fn longest(self) -> Option<Duration> {
        match self {
            Self::Well => None,
            // The host stores nothing, and the disk may be full. Then the library cannot keep what comes, either, so
            // the messages are to wait at the server.
            Self::HandsOver { .. } => Some(Duration::from_secs(60)),
            // The library waits up to a minute for what was written meanwhile, and up to three for the settings.
            Self::LogsIn => Some(Duration::from_secs(270)),
            // The library waits ever longer, up to a quarter of an hour. A new client tries at once.
            Self::Unreached => Some(Duration::from_secs(120)),
            // The server may have demanded the library's wait, so it must come to its end.
            Self::PutOff => Some(Duration::from_secs(20 * 60)),
        }
    }
}

/// How long a client has fared as it does.
#[derive(Debug)]
pub(super) struct Outage {
    fares: Fares,
    since: Instant,
}

impl Outage {
    pub fn new(now: Instant) -> Self {
        Self { fares: Fares::PutOff, since: now }
    }

    /// Takes in a look. Returns whether the client is stuck.
    pub fn is_stuck(&mut self, now: Instant, fares: Fares) -> bool {
        if fares != self.fares {
            *self = Self { fares, since: now };
        }
        fares.longest().is_some_and(|longest| now.duration_since(self.since) >= longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Seen = Seen { logged_in: true, up: true, hands_over: None, unreached: false };

    /// Looks at a client that fares the same for a long time, and returns the second at which it is stuck.
    fn stuck_after(outage: &mut Outage, from: Instant, seen: Seen) -> Option<u64> {
        let looks = (0..3600).step_by(5);
        looks.into_iter().find(|s| outage.is_stuck(from + Duration::from_secs(*s), Fares::of(seen)))
    }

    #[test]
    fn a_connection_that_went_silent_is_down_although_the_library_says_nothing() {
        assert!(!UP.is_cut());
        assert_eq!(Fares::of(UP), Fares::Well);
        let cut = Seen { logged_in: false, ..UP };
        assert!(cut.is_cut() && Seen { hands_over: Some(7), ..cut }.is_cut());
        assert_ne!(Fares::of(cut), Fares::Well);
        assert!(!Seen { up: false, ..cut }.is_cut(), "that is known already");
    }

    #[test]
    fn a_client_is_built_anew_when_it_cannot_help_itself() {
        let (begun, away) = (Instant::now(), Seen { logged_in: false, up: false, ..UP });
        let outage = || Outage::new(begun);
        assert_eq!(stuck_after(&mut outage(), begun, Seen { unreached: true, ..away }), Some(120));
        // Too many logins: the server has demanded a wait of up to a quarter of an hour.
        assert_eq!(stuck_after(&mut outage(), begun, away), Some(1200));
        assert_eq!(stuck_after(&mut outage(), begun, Seen { logged_in: true, ..away }), Some(270));
        assert_eq!(stuck_after(&mut outage(), begun, UP), None);
    }

    #[test]
    fn a_client_ends_when_the_host_stores_nothing_and_not_when_it_is_slow() {
        let (begun, full) = (Instant::now(), Seen { hands_over: Some(7), ..UP });
        assert_eq!(stuck_after(&mut Outage::new(begun), begun, full), Some(60));
        // A login that brings many messages: the host stores one batch after the other.
        let mut slow = Outage::new(begun);
        for batch in 0..100 {
            let seen = Seen { hands_over: Some(batch), up: false, ..UP };
            assert!(!slow.is_stuck(begun + Duration::from_secs(batch * 30), Fares::of(seen)));
        }
    }

    #[test]
    fn an_outage_begins_when_the_connection_ends() {
        let begun = Instant::now();
        let mut outage = Outage::new(begun);
        assert_eq!(stuck_after(&mut outage, begun, UP), None);
        let cut = Seen { logged_in: false, up: false, unreached: true, ..UP };
        assert_eq!(stuck_after(&mut outage, begun + Duration::from_secs(3600), cut), Some(120));
    }
}
