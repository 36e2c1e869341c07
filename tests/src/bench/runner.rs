//! Measures the static runner in a real box: its size, its memory while it waits for the model and after a command with
//! much output, and the time from its start to its first model call.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{median, status};
use crate::model::Gate;
use crate::world::{Engine, World, docker};

/// Measures `n` boxes and prints one line for each measurement.
pub async fn runner(image: &str, n: usize) {
    let binary = std::env::var("LAZARET_RUNNER_BIN").unwrap_or_default();
    let bytes = std::fs::metadata(&binary).map_or(0, |file| file.len());
    // Each turn has a box of its own.
    let settings = [("LAZARET_LIMITS_IDLE_WINDOW", "0s"), ("LAZARET_IMAGE", image)];
    let (world, ann, direct) = World::ann_at_home(Engine::docker(), &settings).await;
    let (mut took, mut waiting, mut peak) = (Vec::new(), Vec::new(), Vec::new());
    let flood = json!({ "command": "head -c 100000000 /dev/zero" });
    for round in 0..n {
        let words = format!("round {round} of the measurement");
        let (first, second) = (Gate::new(), Gate::new());
        world
            .model
            .on(&words)
            .waits_for(&first)
            .runs("run_command", flood.clone())
            .waits_for(&second)
            .says("Done.");
        ann.says(&direct, &words);
        world.soon("the first model call", first.arrived()).await;
        let arrived = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let process = runner_of(&world).await;
        took.push((arrived.saturating_sub(process.started)).as_secs_f64() * 1000.0);
        waiting.push(process.kib("VmRSS"));
        first.open();
        world.soon("the second model call", second.arrived()).await;
        peak.push(process.kib("VmHWM"));
        second.open();
        assert_eq!(world.hears(&direct).await, "Done.");
        world.patiently("the box is closed", async || world.boxes().await.is_empty().then_some(())).await;
    }
    world.finish().await;
    let rounded = |value: f64| (value * 10.0).round() / 10.0;
    let line = |what: &str, value: Value| {
        println!("{}", json!({ "what": "runner", "measured": what, "value": value, "n": n }))
    };
    line("static binary, bytes", json!(bytes));
    line("resident while it waits for its first answer, KiB", json!(median(waiting)));
    line("peak in a turn with a command of 100 MB output, KiB", json!(median(peak)));
    line("from its start to its first model call, ms", json!(rounded(median(took))));
}

/// The runner's process on this machine.
struct Process {
    pid: String,
    started: Duration,
}

impl Process {
    /// A line of its status in KiB.
    fn kib(&self, name: &str) -> f64 {
        let number = status(&format!("/proc/{}", self.pid), name);
        number.unwrap_or_else(|| panic!("{name} of the runner cannot be read"))
    }
}

/// Finds the runner of the only box.
async fn runner_of(world: &World) -> Process {
    let boxes = world.boxes().await;
    let Some(name) = boxes.first() else { panic!("no box runs") };
    let top = docker(&["--host", &world.engine().socket(), "top", name, "-eo", "pid,comm"]).await;
    let pid = top.lines().find_map(|line| {
        let (pid, program) = line.trim().split_once(' ')?;
        (program.trim() == "agent-runner").then(|| pid.to_owned())
    });
    let Some(pid) = pid else { panic!("no runner in {top}") };
    let started = started(&pid).unwrap_or_else(|| panic!("the start of process {pid} cannot be read"));
    Process { pid, started }
}

/// When a process started: seconds since the machine's start in hundredths (proc(5)), on the wall clock.
fn started(pid: &str) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks: f64 = stat.rsplit(") ").next()?.split_whitespace().nth(19)?.parse().ok()?;
    let uptime: f64 =
        std::fs::read_to_string("/proc/uptime").ok()?.split_whitespace().next()?.parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(now.saturating_sub(Duration::from_secs_f64((uptime - ticks / 100.0).max(0.0))))
}
