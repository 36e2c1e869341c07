//! Watches the disk: shuts intake before the disk is full, and opens it when there is room again.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::tell_owner;
use crate::host_files::{self, Room};
use crate::policy::disk_pressure::{DiskLimits, DiskPressure, DiskReading, decide, names_floor};
use crate::services::Services;
use crate::store::{BALLAST, StoreFaults};
use crate::text;

/// How often the host checks the disk while there is room.
const CALM: Duration = Duration::from_secs(15);
/// How often it checks while there is no room.
const TENSE: Duration = Duration::from_secs(2);

/// How long the host waits after it could not store a notice.
const TELL_AGAIN: Duration = Duration::from_secs(30);

/// The last known state of the disk.
pub(super) struct Watch {
    pressure: DiskPressure,
    trouble: watch::Receiver<StoreFaults>,
    met: StoreFaults,
    /// A notice for the owner that could not be stored yet.
    untold: Option<(String, String)>,
    tell_at: Duration,
}

impl Watch {
    /// Checks the disk for the first time, before intake reads anything.
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
                // `services` holds the store, so the channel does not close. During a known fault, further reports are
                // ignored: every retry in the host fails in the same way.
                _ = self.trouble.changed(), if self.pressure == DiskPressure::Fine => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Sends a notice that is still unsent, unless the store cannot take it anyway.
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

    /// Checks the disk. `with_ballast` allows it to make the ballast, which takes time.
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
        // After a refused commit, the fault counts as over only when the host can write a file again.
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
            // The ballast is written in place. A kill leaves an incomplete one, which the next check makes again.
            if let Err(e) = host_files::make_ballast(&ballast, limits.ballast) {
                tracing::warn!(code = "disk.ballast", "{}: {e}", ballast.display());
            }
        }
        // The gate opens after the ballast is made, so that new messages cannot take its room.
        services.intake_gate.set(verdict.now.takes_in());
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
