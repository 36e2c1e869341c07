//! The disk, looked at before it is full and until there is room again.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::tell_owner;
use crate::disk::{self, Room};
use crate::parts::Parts;
use crate::policy::pressure::{Limits, Pressure, Reading, decide, names_floor};
use crate::say;
use crate::store::{BALLAST, Trouble};

/// How often the disk is looked at while there is room.
const CALM: Duration = Duration::from_secs(15);
/// And while there is none.
const TENSE: Duration = Duration::from_secs(2);

/// After a notice that could not be stored.
const TELL_AGAIN: Duration = Duration::from_secs(30);

/// What was last known of the disk.
pub struct Watch {
    pressure: Pressure,
    trouble: watch::Receiver<Trouble>,
    met: Trouble,
    /// What the owner has not been told yet, because it could not be stored.
    untold: Option<(String, String)>,
    tell_at: Duration,
}

impl Watch {
    /// Looks for the first time, before anything is taken in.
    pub fn begin(parts: &Parts) -> Self {
        let trouble = parts.store.trouble();
        let met = Trouble::default();
        let mut watch =
            Self { pressure: Pressure::Fine, trouble, met, untold: None, tell_at: Duration::ZERO };
        watch.look(parts, false);
        watch
    }

    pub(super) async fn run(mut self, parts: &Parts, stop: &CancellationToken) {
        loop {
            self.look(parts, true);
            self.tell(parts).await;
            let pause = if self.pressure == Pressure::Fine { CALM } else { TENSE };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // The store is in `parts`: it does not go before this. Once it is known, more of the same is no news;
                // and what is tried here fails like everything else.
                _ = self.trouble.changed(), if self.pressure == Pressure::Fine => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Tells what is untold, unless nothing can be stored anyway.
    async fn tell(&mut self, parts: &Parts) {
        let now = parts.clock.now().mono;
        let Some((word, text)) = &self.untold else { return };
        if self.pressure == Pressure::ReadOnly || now < self.tell_at {
            return;
        }
        match tell_owner(parts, word, text).await {
            Ok(()) => self.untold = None,
            Err(e) => {
                tracing::warn!(code = e.code(), "the owner is not told yet: {e}");
                self.tell_at = now + TELL_AGAIN;
            }
        }
    }

    /// `with_ballast`: there is time to make it.
    fn look(&mut self, parts: &Parts, with_ballast: bool) {
        let state = parts.install.root.state();
        let host = &parts.install.file.host;
        let room = match disk::room(&state) {
            Ok(room) => room,
            Err(e) => {
                tracing::warn!(code = "disk.room", "{}: {e}", state.display());
                return;
            }
        };
        let (floor, ballast) = (host.free_floor_mib << 20, host.ballast_mib << 20);
        let limits = Limits { floor, names: names_floor(room.all_names), ballast };
        let ballast = state.join(BALLAST);
        let met = self.trouble.borrow_and_update().clone();
        // What a commit was refused is only over when something can be written again.
        let shut = self.pressure == Pressure::ReadOnly && disk::probe(&state).is_err();
        let seen = Reading {
            free: room.free,
            names: room.names,
            read_only: room.read_only || shut,
            ballast: disk::holds(&ballast, limits.ballast),
            full: met.full > self.met.full,
            refused: met.read_only > self.met.read_only,
        };
        self.met = met;
        let verdict = decide(self.pressure, seen, limits);
        self.pressure = verdict.now;
        if verdict.tell {
            self.news(parts, &room);
        }
        let make = with_ballast && verdict.make_ballast;
        if make || (limits.ballast == 0 && disk::there(&ballast)) {
            // It is made in its place: a kill leaves one that does not hold what it should, which is made anew.
            if let Err(e) = disk::make_ballast(&ballast, limits.ballast) {
                tracing::warn!(code = "disk.ballast", "{}: {e}", ballast.display());
            }
        }
        // Behind the ballast, so that nothing new can take its room.
        parts.gate.set(verdict.now.takes_in());
    }

    fn news(&mut self, parts: &Parts, room: &Room) {
        let (code, free) = (self.pressure.code(), room.free >> 20);
        let floor = parts.install.file.host.free_floor_mib;
        let text = match self.pressure {
            Pressure::Fine => say::disk_again(),
            Pressure::Low if free >= floor => say::names_low(room.names),
            Pressure::Low => say::disk_low(free, floor),
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
        self.tell_at = Duration::ZERO;
    }
}
