//! A box that is made to be looked at: started, asked, seen from the engine's side and the kernel's, and removed. What
//! follows from it is decided elsewhere.

use std::path::Path;
use std::time::Duration;

use ipc_schema::RefusalCode;
use ipc_schema::letter_writer::LetterDir;
use ipc_schema::probe_report::{FILE, ProbeOrder, ProbeReport};
use ipc_schema::untrusted_fs::UntrustedDir;
use tokio::time::Instant;

use super::{BoxState, Engine, EngineError, QUICK, inspect, procfs, translate};
use crate::policy::posture::Outside;
use crate::policy::sandbox_plan::ContainerSpec;

/// A box that has not reported by then does not.
const WITHIN: Duration = Duration::from_secs(60);
/// The report is looked for this often: a few dozen times for a box that starts as boxes do.
const LOOK: Duration = Duration::from_millis(5);
/// The engine is asked this often whether the box still lives.
const ASK: Duration = Duration::from_millis(500);
/// A report is a few dozen lines.
const REPORT_MAX: u64 = ipc_schema::LETTER_MAX_BYTES;
/// So much of a probe's own words goes into an error.
const WORDS: usize = 600;

/// Why a probe told nothing.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A file of the host's.
    #[error("{path}: {why}")]
    File {
        /// Which.
        path: String,
        /// What the system said.
        why: String,
    },
    /// It ended, or said nothing.
    #[error("the probe box {what}{}; look at the runner's and the engine's log", words(log))]
    Silent {
        /// What it did instead.
        what: &'static str,
        /// What it wrote to stdout and stderr.
        log: String,
    },
    /// What it wrote is no report.
    #[error("the probe box wrote what is no report: {0}")]
    ProbeReport(String),
}

fn words(log: &str) -> String {
    let log = log.trim();
    if log.is_empty() { String::new() } else { format!(" ({log:?})") }
}

impl ProbeError {
    /// The machine's word.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Engine(e) => e.code(),
            Self::File { .. } => "probe.file",
            Self::Silent { .. } => "probe.silent",
            Self::ProbeReport(_) => "probe.report",
        }
    }
}

/// A box that was looked at.
#[derive(Debug)]
pub struct Probed {
    /// What it said of itself.
    pub report: ProbeReport,
    /// What the host's side says of it.
    pub outside: Outside,
    /// The engine's account, and everything else of the box that could hold a key: by the name of the place.
    pub texts: Vec<(String, Vec<u8>)>,
    /// How long it took.
    pub took: Duration,
}

impl Engine {
    /// Lives a probe box through. `uid` is its user; the directories of its letters are the host's and in its spec.
    /// Whatever happens, the box is removed; should that fail, the reaper finds it by its labels.
    ///
    /// # Errors
    /// When there is nothing to judge by.
    pub async fn probe(
        &self,
        spec: &ContainerSpec,
        uid: u32,
        nonce: &str,
        to_agent: &Path,
        from_agent: &Path,
    ) -> Result<Probed, ProbeError> {
        let failed = |path: &Path, why: &dyn std::fmt::Display| ProbeError::File {
            path: path.display().to_string(),
            why: why.to_string(),
        };
        let begun = Instant::now();
        let order = ProbeOrder { nonce: nonce.to_owned(), host_addresses: procfs::addresses() };
        let order = serde_json::to_vec(&order).map_err(|e| failed(to_agent, &e))?;
        LetterDir::open(to_agent)
            .map_err(|e| failed(to_agent, &e))?
            .put(FILE, &order)
            .map_err(|e| failed(to_agent, &e))?;
        let wall = UntrustedDir::open(from_agent).map_err(|e| failed(from_agent, &e))?;
        let looked = self.removed_after(&spec.name, self.live_through(spec, &wall, uid)).await;
        let (report, outside, texts) = looked?;
        Ok(Probed { report, outside, texts, took: begun.elapsed() })
    }

    async fn live_through(
        &self,
        spec: &ContainerSpec,
        wall: &UntrustedDir,
        uid: u32,
    ) -> Result<(ProbeReport, Outside, Vec<(String, Vec<u8>)>), ProbeError> {
        let container = self.create(spec).await?;
        self.start(&container).await?;
        let bytes = self.report(&container, wall, uid).await?;
        let report = serde_json::from_slice(&bytes).map_err(|e| ProbeError::ProbeReport(e.to_string()))?;
        let told =
            self.ask("look at the box", QUICK, self.docker()?.inspect_container(&container, None)).await?;
        let pid = told.state.as_ref().and_then(|state| state.pid).unwrap_or_default();
        let outside = Outside {
            differences: inspect::differences(&translate::container(spec), &told),
            environment: inspect::environment(&told),
            kernel: procfs::view(pid, &container),
        };
        let mut texts = vec![
            ("the report".to_owned(), bytes),
            ("inspect".to_owned(), serde_json::to_vec(&told).unwrap_or_default()),
            ("the box's log".to_owned(), self.log_tail(&container, 1 << 20).await?),
        ];
        if outside.kernel.is_some() {
            texts.extend(procfs::texts(&container));
        }
        Ok((report, outside, texts))
    }

    /// Waits for the report. A directory that is looked at 200 times a second costs less than a watch of its own, and
    /// sees under every runtime.
    async fn report(&self, container: &str, wall: &UntrustedDir, uid: u32) -> Result<Vec<u8>, ProbeError> {
        let begun = Instant::now();
        let mut asked = begun;
        loop {
            match wall.read(Path::new(FILE), uid, REPORT_MAX) {
                Ok(bytes) => return Ok(bytes),
                Err(refusal) if refusal.code == RefusalCode::Gone => {}
                Err(refusal) => return Err(ProbeError::ProbeReport(refusal.to_string())),
            }
            let late = begun.elapsed() > WITHIN;
            if late || asked.elapsed() > ASK {
                asked = Instant::now();
                let gone = !matches!(self.state(container).await?, BoxState::Running);
                // It may have reported and ended between the two looks.
                if (gone || late) && wall.read(Path::new(FILE), uid, REPORT_MAX).is_err() {
                    let log = self.log_tail(container, WORDS).await.unwrap_or_default();
                    let what = if gone { "ended without a word" } else { "said nothing for a minute" };
                    return Err(ProbeError::Silent { what, log: String::from_utf8_lossy(&log).into_owned() });
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
