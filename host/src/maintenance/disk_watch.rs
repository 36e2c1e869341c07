//! The disk, looked at before it is full and until there is room again.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::tell_owner;
use crate::host_files::{self, Room};
use crate::policy::disk_pressure::{DiskLimits, DiskPressure, DiskReading, decide, names_floor};
use crate::services::Services;
use crate::store::{BALLAST, StoreFaults};
use crate::text;

/// How often the disk is looked at while there is room.
const CALM: Duration = Duration::from_secs(15);
/// And while there is none.
const TENSE: Duration = Duration::from_secs(2);

/// After a notice that could not be stored.
const TELL_AGAIN: Duration = Duration::from_secs(30);

/// What was last known of the disk.
pub(super) struct Watch {
    pressure: DiskPressure,
    trouble: watch::Receiver<StoreFaults>,
    met: StoreFaults,
    /// What the owner has not been told yet, because it could not be stored.
    untold: Option<(String, String)>,
    tell_at: Duration,
}

impl Watch {
    /// Looks for the first time, before anything is taken in.
    pub(super) fn begin(services: &Services) -> Self {
        let trouble = services.store.faults();
        let met = StoreFaults::default();
        let mut watch =
            Self { pressure: DiskPressure::Fine, trouble, met, untold: None, tell_at: Duration::ZERO };
        watch.look(services, false);
        watch
    }

    pub(super) async fn run(mut self, services: &Services, stop: &CancellationToken) {
        loop {
            failpoint!("maintenance.disk.look");
            self.look(services, true);
            self.tell(services).await;
            let pause = if self.pressure == DiskPressure::Fine { CALM } else { TENSE };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // The store is in `services`: it does not go before this. Once the fault is known, more reports of
                // it are no news: every retry here fails like everything else.
                _ = self.trouble.changed(), if self.pressure == DiskPressure::Fine => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Tells what is untold, unless nothing can be stored anyway.
    async fn tell(&mut self, services: &Services) {
        let now = services.clock.now().mono;
        let Some((word, text)) = &self.untold else { return };
        if self.pressure == DiskPressure::ReadOnly || now < self.tell_at {
            return;
        }
        match tell_owner(services, word, text).await {
            Ok(()) => self.untold = None,
            Err(e) => {
                tracing::warn!(code = e.code(), "the owner is not told yet: {e}");
                self.tell_at = now + TELL_AGAIN;
            }
        }
    }

    /// `with_ballast`: there is time to make it.
    fn look(&mut self, services: &Services, with_ballast: bool) {
        let state = services.install.root.state();
        let host = &services.install.file.host;
        let room = match host_files::room(&state) {
            Ok(room) => room,
            Err(e) => {
                tracing::warn!(code = "disk.room", "{}: {e}", state.display());
                return;
            }
        };
        let (floor, ballast) = (host.free_floor_mib << 20, host.ballast_mib << 20);
        let limits = DiskLimits { floor, names: names_floor(room.all_names), ballast };
        let ballast = state.join(BALLAST);
        let met = self.trouble.borrow_and_update().clone();
        // What a commit was refused is only over when something can be written again.
        let shut = self.pressure == DiskPressure::ReadOnly && host_files::probe(&state).is_err();
        let seen = DiskReading {
            free: room.free,
            names: room.names,
            read_only: room.read_only || shut,
            ballast: host_files::holds(&ballast, limits.ballast),
            full: met.full > self.met.full,
            refused: met.read_only > self.met.read_only,
        };
        self.met = met;
        let verdict = decide(self.pressure, seen, limits);
        self.pressure = verdict.now;
        if verdict.tell {
            self.news(services, &room);
        }
        let make = with_ballast && verdict.make_ballast;
        if make || (limits.ballast == 0 && host_files::there(&ballast)) {
            // It is made in its place: a kill leaves one that does not hold what it should, which is made anew.
            if let Err(e) = host_files::make_ballast(&ballast, limits.ballast) {
                tracing::warn!(code = "disk.ballast", "{}: {e}", ballast.display());
            }
        }
        // Behind the ballast, so that nothing new can take its room.
        services.gate.set(verdict.now.takes_in());
    }

    fn news(&mut self, services: &Services, room: &Room) {
        let (code, free) = (self.pressure.code(), room.free >> 20);
        let floor = services.install.file.host.free_floor_mib;
        let text = match self.pressure {
            DiskPressure::Fine => text::disk_again(),
            DiskPressure::Low if free >= floor => text::names_low(room.names),
            DiskPressure::Low => text::disk_low(free, floor),
            DiskPressure::Full => text::disk_full(),
            DiskPressure::ReadOnly => text::disk_read_only(),
        };
        let state = services.install.root.state();
        match self.pressure {
            DiskPressure::Fine => tracing::info!(code, "{text} ({free} MiB free in {})", state.display()),
            _ => tracing::error!(code, "{text} ({free} MiB free in {})", state.display()),
        }
        let since = services.clock.wall().0;
        self.untold = Some((format!("{code}:{since}"), text));
        self.tell_at = Duration::ZERO;
    }
}
