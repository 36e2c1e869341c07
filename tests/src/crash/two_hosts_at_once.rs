//! Starts two hosts of one install together: exactly one must run.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr};

use crate::world::{Engine, World};

/// The time within which a host must start or end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts two hosts together, `rounds` times. Counts how often exactly one ran, and how often the other named the lock
/// and its holder.
pub async fn rivals(rounds: u64) -> Value {
    let mut world = World::on(Engine::stand_in().await).await;
    world.up().await.stop_host().await;
    let lock = world.root().join("state/host.lock").display().to_string();
    let (mut one_ran, mut named_lock, mut named_pid) = (0, 0, 0);
    for _ in 0..rounds {
        let mut rivals = [Rival::start(&world), Rival::start(&world)];
        let [one, other] = &mut rivals;
        let first_lost = tokio::select! {
            _ = one.child.wait() => true,
            _ = other.child.wait() => false,
            () = tokio::time::sleep(PATIENCE) => panic!("both run, or neither ends"),
        };
        let [one, other] = rivals;
        let (lost, won) = if first_lost { (one, other) } else { (other, one) };
        let told = lost.rest_of_stderr().await;
        let pid = won.child.id().unwrap_or_default();
        named_lock += u64::from(told.contains(&lock));
        named_pid += u64::from(told.contains(&format!("(pid {pid})")));
        one_ran += u64::from(won.runs_and_ends().await);
    }
    json!({ "rounds": rounds, "exactly_one_ran": one_ran, "named_the_lock": named_lock, "named_the_pid": named_pid })
}

struct Rival {
    child: Child,
    stderr: ChildStderr,
}

impl Rival {
    fn start(world: &World) -> Self {
        let mut command = world.command(&["up"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let started =
            command.spawn().map(|mut child| child.stderr.take().map(|stderr| Self { child, stderr }));
        match started {
            Ok(Some(rival)) => rival,
            other => panic!("the host cannot be run: {:?}", other.err()),
        }
    }

    async fn rest_of_stderr(mut self) -> String {
        let mut text = String::new();
        // After a failed read the text is only shorter.
        let _ = self.stderr.read_to_string(&mut text).await;
        text
    }

    /// Returns whether the host starts, and ends with success on SIGTERM.
    async fn runs_and_ends(self) -> bool {
        let Self { mut child, stderr } = self;
        let mut lines = BufReader::new(stderr).lines();
        let up = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if line.contains("lazaret is up") {
                    return true;
                }
            }
            false
        };
        let up = tokio::time::timeout(PATIENCE, up).await.unwrap_or(false);
        if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            let _ = kill_process(pid, rustix::process::Signal::TERM);
        }
        // The log must be read to its end; otherwise the host would block on a full pipe.
        let drained = async { while let Ok(Some(_)) = lines.next_line().await {} };
        let ended = tokio::time::timeout(PATIENCE, async { tokio::join!(drained, child.wait()).1 }).await;
        up && matches!(ended, Ok(Ok(status)) if status.success())
    }
}
