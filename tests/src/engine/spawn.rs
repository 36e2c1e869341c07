//! Starts a box: a process in its own namespaces, which gets an order and answers with a report.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::Setup;
use super::spec::BoxSpec;

/// The order to a box's PID 1.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// The directory over which the root is mounted.
    pub root: PathBuf,
    pub image_bin: PathBuf,
    pub image_passwd: PathBuf,
    pub spec: BoxSpec,
}

/// The report of PID 1.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    /// The program runs. `pid` is the pid of the box's PID 1 on the host.
    Started { pid: i32 },
    /// The box could not be started. The text says why.
    Failed(String),
}

impl Report {
    pub(super) fn line(&self) -> Vec<u8> {
        // Serialization cannot fail: the values are only numbers and strings.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }

    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(&self.line())
    }
}

/// The socket to a box's PID 1. If it closes, the box ends.
pub(super) type Line = BufReader<UnixStream>;

/// A running box.
#[derive(Debug)]
pub(super) struct Spawned {
    pub pid: i32,
    /// The process `unshare`, which ends with the box's PID 1.
    pub process: Child,
    pub line: Line,
}

/// Starts a box and its program. The error is the text of the engine's error.
pub(super) async fn spawn(setup: &Setup, spec: &BoxSpec) -> Result<Spawned, String> {
    let failed = |e: io::Error| format!("unable to start the box: {e}");
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
    ours.set_nonblocking(true).map_err(failed)?;
    let mut line = BufReader::new(UnixStream::from_std(ours).map_err(failed)?);
    let mut process = namespaces(theirs).spawn().map_err(failed)?;
    let order = Order {
        root: setup.root.clone(),
        image_bin: setup.image.bin(),
        image_passwd: setup.image.passwd(),
        spec: spec.clone(),
    };
    let mut text = serde_json::to_vec(&order).map_err(|e| e.to_string())?;
    text.push(b'\n');
    let mut report = String::new();
    let told = async {
        line.get_mut().write_all(&text).await?;
        line.read_line(&mut report).await
    };
    match (told.await, serde_json::from_str(&report)) {
        (Ok(_), Ok(Report::Started { pid })) => Ok(Spawned { pid, process, line }),
        (Ok(_), Ok(Report::Failed(why))) => Err(why),
        _ => Err(stderr_of(&mut process).await),
    }
}

/// Returns a command that runs this program in new namespaces. It starts the program through `/proc`, because a rebuilt
/// program could already lie at its path.
fn namespaces(line: std::os::unix::net::UnixStream) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--"]);
    command.arg(format!("/proc/{}/exe", std::process::id())).arg("--box");
    command.env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
    command.stdin(Stdio::from(OwnedFd::from(line))).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

/// Returns the stderr of a process that ended without a report.
async fn stderr_of(process: &mut Child) -> String {
    let mut text = String::new();
    if let Some(stderr) = &mut process.stderr {
        // After a failed read the text is only shorter.
        let _ = stderr.read_to_string(&mut text).await;
    }
    format!("unable to start the box: {}", text.trim())
}
