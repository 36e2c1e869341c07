//! `lazaret status`

use std::process::ExitCode;

use serde_json::json;

use super::{Done, Here};
use crate::backup;
use crate::channels::terminal::wire::SOCKET;
use crate::clock::Clock;
use crate::disk;
use crate::say;
use crate::store;
use crate::unix_socket;

pub(super) async fn run(here: &Here) -> Done {
    let summary = here.store()?.summary().await?;
    let damage = store::known_damage(&here.root.database());
    let now = Clock::new().wall();
    let copy = backup::newest(&here.root).map(|(path, at)| (path, now.since(at)));
    let room = disk::room(&here.root.state()).ok();
    let ballast = std::fs::metadata(here.root.state().join(store::BALLAST)).map_or(0, |m| m.len() >> 20);
    let up = unix_socket::connect(&here.root.host_socket_dir(), SOCKET).await.is_ok();
    let json = json!({
        "host": if up { "up" } else { "down" },
        "root": here.root.path(),
        "messages": summary.messages,
        "turns": summary.turns.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "runs": summary.runs.iter().map(|(run, lane, state)| json!({"run": run, "lane": lane, "state": state})).collect::<Vec<_>>(),
        "outbox": {
            "waiting": summary.delivery.waiting,
            "failed": summary.delivery.failed,
            "uncertain": summary.delivery.uncertain,
        },
        "damaged": damage,
        "copy": copy.as_ref().map(|(path, age)| json!({"file": path, "age_s": age.as_secs()})),
        "disk": room.map(|r| json!({"free_mib": r.free >> 20, "read_only": r.read_only, "ballast_mib": ballast})),
        "counters": summary.numbers.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
    });
    let mut text =
        format!("host      {}\nroot      {}\n", if up { "up" } else { "down" }, here.root.path().display());
    let turns: Vec<String> = summary.turns.iter().map(|(state, n)| format!("{n} {state}")).collect();
    text += &format!(
        "messages  {}\nturns     {}\n",
        summary.messages,
        if turns.is_empty() { "none".into() } else { turns.join(", ") }
    );
    let d = summary.delivery;
    text += &format!("outbox    {} waiting, {} failed, {} uncertain\n", d.waiting, d.failed, d.uncertain);
    if let Some(damage) = &damage {
        text += &format!("DAMAGED   the database: {damage}; `lazaret doctor` says what to do\n");
    }
    match &copy {
        Some((path, age)) => text += &format!("copy      {}, {} old\n", path.display(), say::duration(*age)),
        None => text += "copy      none yet\n",
    }
    if let Some(room) = room {
        let written = if room.read_only { ", READ-ONLY" } else { "" };
        text += &format!("disk      {} MiB free, {ballast} MiB of ballast{written}\n", room.free >> 20);
    }
    for (run, lane, state) in &summary.runs {
        text += &format!("run       {run}  {lane}  {state}\n");
    }
    for (name, value) in &summary.numbers {
        text += &format!("counter   {name} {value}\n");
    }
    here.print(&json, text.trim_end());
    Ok(ExitCode::SUCCESS)
}
