//! Makes a box from a plan, runs it once to its end and removes it. `images` checks images with it, and `run` opens
//! locked directories with it.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::Duration;

use bollard::query_parameters::CreateContainerOptions;
use futures_util::FutureExt;

use super::{Engine, EngineError, Exit, SLOW, translate};
use crate::policy::backoff::doubling;
use crate::policy::sandbox_plan::ContainerSpec;

/// A removal that failed is tried again this often, after this time, which doubles up to a minute.
const REMOVALS: u32 = 20;
const REMOVE_AGAIN: Duration = Duration::from_millis(100);
const REMOVE_LATEST: Duration = Duration::from_secs(60);
/// The host keeps this many bytes of a failed box's output.
const OUTPUT: usize = 2000;

/// The result of a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trial {
    /// The engine refused to make or start the box for this reason.
    NotStarted(String),
    StillRunning,
    Ended {
        exit: Exit,
        /// The end of its output, if it failed.
        words: String,
    },
}

impl Engine {
    /// Makes a box, starts it, waits at most `within` for its end, and removes it in any case. The box has the
    /// install's label, so that the next start of the host removes it if this process is killed.
    ///
    /// # Errors
    /// The engine is away or hangs. If it refuses only this box, the result is a [`Trial`].
    pub async fn run_one_shot(&self, spec: &ContainerSpec, within: Duration) -> Result<Trial, EngineError> {
        self.removed_after(&spec.name, self.tried(spec, within)).await
    }

    async fn tried(&self, spec: &ContainerSpec, within: Duration) -> Result<Trial, EngineError> {
        let options = CreateContainerOptions { name: Some(spec.name.clone()), ..Default::default() };
        let body = translate::container(spec);
        let made = self.ask("make a box", SLOW, self.docker()?.create_container(Some(options), body)).await;
        let container = match &made {
            Ok(made) => &made.id,
            Err(_) => return made.map(|_| Trial::StillRunning).or_else(not_started),
        };
        if let Err(e) = self.ask("start a box", SLOW, self.docker()?.start_container(container, None)).await {
            return not_started(e);
        }
        let Ok(exit) = tokio::time::timeout(within, self.wait(container)).await else {
            return Ok(Trial::StillRunning);
        };
        let words = match exit.code {
            Some(0) => Vec::new(),
            _ => self.log_tail(container, OUTPUT).await.unwrap_or_default(),
        };
        Ok(Trial::Ended { exit, words: String::from_utf8_lossy(&words).into_owned() })
    }

    /// Does the work with a box and then removes the box, also after an error or a panic. It removes the box by name,
    /// because an engine that gave no answer may have made it.
    pub(super) async fn removed_after<T>(&self, name: &str, work: impl Future<Output = T> + Send) -> T {
        // In boxes on the heap, because these futures are large and overflowed the stack of a thread as part of the
        // run's future.
        let done = AssertUnwindSafe(Box::pin(work)).catch_unwind().await;
        let removed = AssertUnwindSafe(Box::pin(self.remove(name))).catch_unwind().await;
        if !matches!(removed, Ok(Ok(()))) {
            tokio::spawn(remove_later(self.clone(), name.to_owned()));
        }
        match (done, removed) {
            (Err(panic), _) | (_, Err(panic)) => resume_unwind(panic),
            (Ok(done), _) => done,
        }
    }
}

/// Removes a box when the engine answers again. If this process ends first, the host's reaper removes the box.
async fn remove_later(engine: Engine, name: String) {
    for tries in 1..=REMOVALS {
        tokio::time::sleep(doubling(REMOVE_AGAIN, tries, REMOVE_LATEST)).await;
        match Box::pin(engine.remove(&name)).await {
            Ok(()) => return,
            Err(e) => tracing::warn!(code = e.code(), "the box {name} stays for now: {e}"),
        }
    }
}

/// Distinguishes a refusal of this box from an error of the engine that concerns every box.
fn not_started(e: EngineError) -> Result<Trial, EngineError> {
    match e {
        EngineError::Refused { why, .. }
        | EngineError::Absent { why, .. }
        | EngineError::NotRunning { why, .. }
        | EngineError::RemovalInProgress { why, .. }
        | EngineError::NoMountSource { why, .. } => Ok(Trial::NotStarted(why)),
        EngineError::NoImage { .. } => Ok(Trial::NotStarted(e.to_string())),
        e => Err(e),
    }
}
