//! The disk, looked at before it is full and until there is room again.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::tell_owner;
use crate::disk;
use crate::parts::Parts;
use crate::policy::pressure::{Limits, Pressure, Reading, decide};
use crate::say;
use crate::store::{BALLAST, Trouble};

/// How often the disk is looked at while there is room.
const CALM: Duration = Duration::from_secs(15);
/// And while there is none.
const TENSE: Duration = Duration::from_secs(2);

/// What was last known of the disk.
pub struct Watch {
    pressure: Pressure,
    trouble: watch::Receiver<Trouble>,
    met: Trouble,
    /// What the owner has not been told yet, because it could not be stored.
    untold: Option<(String, String)>,
}

impl Watch {
    /// Looks for the first time, before anything is taken in.
    pub fn begin(parts: &Parts) -> Self {
        let trouble = parts.store.trouble();
        let mut watch = Self { pressure: Pressure::Fine, trouble, met: Trouble::default(), untold: None };
        watch.look(parts, false);
        watch
    }

    pub(super) async fn run(mut self, parts: &Parts, stop: &CancellationToken) {
        loop {
            self.look(parts, true);
            if let Some((word, text)) = &self.untold {
                match tell_owner(parts, word, text).await {
                    Ok(()) => self.untold = None,
                    Err(e) => tracing::warn!(code = e.code(), "the owner is not told yet: {e}"),
                }
            }
            let pause = if self.pressure == Pressure::Fine { CALM } else { TENSE };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // The store is in `parts`: it does not go before this.
                _ = self.trouble.changed() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// `with_ballast`: there is time to make it.
    fn look(&mut self, parts: &Parts, with_ballast: bool) {
        let state = parts.install.root.state();
        let host = &parts.install.file.host;
        let limits = Limits { floor: host.free_floor_mib << 20, ballast: host.ballast_mib << 20 };
        let room = match disk::room(&state) {
            Ok(room) => room,
            Err(e) => {
                tracing::warn!(code = "disk.room", "{}: {e}", state.display());
                return;
            }
        };
        let ballast = state.join(BALLAST);
        let met = self.trouble.borrow_and_update().clone();
        let seen = Reading {
            free: room.free,
            read_only: room.read_only,
            ballast: disk::holds(&ballast, limits.ballast),
            full: met.full > self.met.full,
            refused: met.read_only > self.met.read_only,
        };
        self.met = met;
        let verdict = decide(self.pressure, seen, limits);
        self.pressure = verdict.now;
        if verdict.tell {
            self.news(parts, room.free);
        }
        let make = with_ballast && verdict.make_ballast;
        if make || (limits.ballast == 0 && ballast.exists()) {
            // It is made in its place: a kill leaves one that does not hold what it should, which is made anew.
            if let Err(e) = disk::make_ballast(&ballast, limits.ballast) {
                tracing::warn!(code = "disk.ballast", "{}: {e}", ballast.display());
            }
        }
        // Behind the ballast, so that nothing new can take its room.
        parts.gate.set(verdict.now.takes_in());
    }

    fn news(&mut self, parts: &Parts, free: u64) {
        let (code, free) = (self.pressure.code(), free >> 20);
        let text = match self.pressure {
            Pressure::Fine => say::disk_again(),
            Pressure::Low => say::disk_low(free, parts.install.file.host.free_floor_mib),
            Pressure::Full => say::disk_full(),
            Pressure::ReadOnly => say::disk_read_only(),
        };
        let state = parts.install.root.state();
        match self.pressure {
            Pressure::Fine => tracing::info!(code, "{text} ({free} MiB free in {})", state.display()),
            _ => tracing::error!(code, "{text} ({free} MiB free in {})", state.display()),
        }
        let since = parts.clock.wall().0;
        self.untold = Some((format!("{code}:{since}"), text));
    }
}
