//! Runs a box once to its end: made by a plan like any other, and removed. `images` checks images with it, and `run`
//! opens locked folders.

use std::time::Duration;

use bollard::query_parameters::CreateContainerOptions;

use super::{Engine, EngineError, Exit, SLOW, translate};
use crate::policy::sandbox_plan::ContainerSpec;

/// So many bytes of a failed box's output are kept.
const OUTPUT: usize = 2000;

/// How a trial went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trial {
    /// The engine refused to make or start the box, for this reason.
    NotStarted(String),
    StillRunning,
    Ended {
        exit: Exit,
        /// The end of its output, when it failed.
        words: String,
    },
}

impl Engine {
    /// Makes a box, starts it, waits at most `within` for its end, and removes it in any case. It carries the install's
    /// label: if the host or command is killed meanwhile, the next start of the host removes the box.
    ///
    /// # Errors
    /// When the engine is away or hangs. A refusal of this one box is a [`Trial`].
    pub async fn on_trial(&self, spec: &ContainerSpec, within: Duration) -> Result<Trial, EngineError> {
        let options = CreateContainerOptions { name: Some(spec.name.clone()), ..Default::default() };
        let body = translate::container(spec);
        let made = self.ask("make a box", SLOW, self.docker()?.create_container(Some(options), body)).await;
        let made = match made {
            Ok(made) => made,
            Err(e) => {
                // The engine may have made it all the same.
                self.tidy(&spec.name).await;
                return not_started(e);
            }
        };
        let trial = self.tried(&made.id, within).await;
        self.tidy(&made.id).await;
        trial
    }

    async fn tried(&self, container: &str, within: Duration) -> Result<Trial, EngineError> {
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

    async fn tidy(&self, container: &str) {
        if let Err(e) = self.remove(container).await {
            tracing::warn!(code = e.code(), "a box on trial stays until the next start: {e}");
        }
    }
}

/// Tells a refusal of this box from an engine that no box can use.
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
