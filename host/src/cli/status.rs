//! `lazaret status`

use std::process::ExitCode;

use serde_json::json;

use super::{Done, Here};
use crate::channels::terminal::wire::SOCKET;
use crate::unix_socket;

pub(super) async fn run(here: &Here) -> Done {
    let summary = here.store()?.summary().await?;
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
    for (run, lane, state) in &summary.runs {
        text += &format!("run       {run}  {lane}  {state}\n");
    }
    for (name, value) in &summary.numbers {
        text += &format!("counter   {name} {value}\n");
    }
    here.print(&json, text.trim_end());
    Ok(ExitCode::SUCCESS)
}
