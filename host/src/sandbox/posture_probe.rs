//! Probes the posture: starts a box whose runner reports what it sees, collects the views of the engine and the
//! kernel, and removes the box. `policy::posture` judges the result.

use std::path::Path;
use std::time::Duration;

use ipc_schema::RefusalCode;
use ipc_schema::letter_writer::LetterDir;
use ipc_schema::probe_report::{FILE, ProbeOrder, ProbeReport};
use ipc_schema::untrusted_fs::UntrustedDir;
use tokio::time::Instant;

use super::{BoxState, Engine, EngineError, QUICK, procfs, spec_differences, translate};
use crate::policy::posture::Outside;
use crate::policy::sandbox_plan::ContainerSpec;

/// The longest wait for a report.
const WITHIN: Duration = Duration::from_secs(60);
/// How often the host checks for the report. A box starts within a few dozen of these intervals.
const LOOK: Duration = Duration::from_millis(5);
/// How often the host asks the engine whether the box still runs.
const ASK: Duration = Duration::from_millis(500);
const REPORT_MAX: u64 = ipc_schema::LETTER_MAX_BYTES;
/// An error quotes this many bytes of the probe's output.
const OUTPUT: usize = 600;

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("{path}: {why}")]
    File { path: String, why: String },
    /// The box ended without a report, or wrote none in time.
    #[error("the probe box {what}{}; look at the runner's and the engine's log", quoted(log))]
    Silent { what: &'static str, log: String },
    #[error("the probe box wrote a report that cannot be read: {0}")]
    Unreadable(String),
}

fn quoted(log: &str) -> String {
    let log = log.trim();
    if log.is_empty() { String::new() } else { format!(" ({log:?})") }
}

impl ProbeError {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Engine(e) => e.code(),
            Self::File { .. } => "probe.file",
            Self::Silent { .. } => "probe.silent",
            Self::Unreadable(_) => "probe.report",
        }
    }
}

/// The result of a probe.
#[derive(Debug)]
pub struct Probed {
    pub report: ProbeReport,
    /// The views of the engine and the kernel.
    pub outside: Outside,
    /// Texts that could contain a key, each with its place: the engine's description, environments, command lines,
    /// output.
    pub texts: Vec<(String, Vec<u8>)>,
    pub took: Duration,
}

impl Engine {
    /// Runs a probe box of user `uid`. Its spec mounts the two letter directories. The host removes the box in any
    /// case. If that fails, the cleanup finds it by its labels.
    ///
    /// # Errors
    /// Why there is no result.
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
        let from = UntrustedDir::open(from_agent).map_err(|e| failed(from_agent, &e))?;
        let seen = self.removed_after(&spec.name, self.run_probe(spec, &from, uid)).await;
        let (report, outside, texts) = seen?;
        Ok(Probed { report, outside, texts, took: begun.elapsed() })
    }

    async fn run_probe(
        &self,
        spec: &ContainerSpec,
        from: &UntrustedDir,
        uid: u32,
    ) -> Result<(ProbeReport, Outside, Vec<(String, Vec<u8>)>), ProbeError> {
        let container = self.create(spec).await?;
        self.start(&container).await?;
        let bytes = self.report(&container, from, uid).await?;
        let report = serde_json::from_slice(&bytes).map_err(|e| ProbeError::Unreadable(e.to_string()))?;
        let told =
            self.ask("look at the box", QUICK, self.docker()?.inspect_container(&container, None)).await?;
        let pid = told.state.as_ref().and_then(|state| state.pid).unwrap_or_default();
        let outside = Outside {
            differences: spec_differences::differences(&translate::container(spec), &told),
            environment: spec_differences::environment(&told),
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

    /// Waits for the report. Polling 200 times a second costs less than a watch, and works with every runtime.
    async fn report(&self, container: &str, from: &UntrustedDir, uid: u32) -> Result<Vec<u8>, ProbeError> {
        let begun = Instant::now();
        let mut asked = begun;
        loop {
            match from.read(Path::new(FILE), uid, REPORT_MAX) {
                Ok(bytes) => return Ok(bytes),
                Err(refusal) if refusal.code == RefusalCode::Gone => {}
                Err(refusal) => return Err(ProbeError::Unreadable(refusal.to_string())),
            }
            let late = begun.elapsed() > WITHIN;
            if late || asked.elapsed() > ASK {
                asked = Instant::now();
                let gone = !matches!(self.state(container).await?, BoxState::Running);
                // The box may have reported and ended after the read above.
                if (gone || late) && from.read(Path::new(FILE), uid, REPORT_MAX).is_err() {
                    let log = self.log_tail(container, OUTPUT).await.unwrap_or_default();
                    let what = if gone { "ended without a report" } else { "wrote no report for a minute" };
                    return Err(ProbeError::Silent { what, log: String::from_utf8_lossy(&log).into_owned() });
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
