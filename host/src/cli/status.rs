//! `lazaret status` shows what the host does now, and what needs a person.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Done, Here};
use crate::backup;
use crate::clock::Clock;
use crate::daemon;
use crate::host_files;
use crate::mailbox;
use crate::policy::disk_pressure::names_floor;
use crate::store::{self, ChannelState, DeliveryCount};
use crate::terminal_output::safe_line;
use crate::text;

/// A busy engine answers this question within milliseconds.
const ENGINE_ANSWERS: Duration = Duration::from_secs(5);
/// The exit code if no host runs: that of `systemctl status`.
const DOWN: u8 = 3;
/// The exit code if the host runs and a channel that is on cannot read its messages.
const CHANNEL_BROKEN: u8 = 4;

pub(super) async fn run(here: &Here) -> Done {
    let store = here.store_to_read()?;
    let (summary, losses) = (store.summary().await?, store.posture_gaps().await?);
    let channels = store.channel_states().await?;
    let pins = store.pins().await?;
    let kept: Vec<_> =
        pins.iter().filter_map(|(group, pin)| Some((group, pin, pin.refused.as_ref()?))).collect();
    let damage = store::known_damage(&here.root.database());
    let now = Clock::new().wall();
    let copy = backup::newest(&here.root, now).map(|(path, at)| (path, now.since(at)));
    let room = host_files::room(&here.root.state()).ok();
    let ballast = host_files::size(&here.root.state().join(store::BALLAST)).map_or(0, |bytes| bytes >> 20);
    let up = here.host_is_up().await;
    let engine = engine(here).await;
    let json = json!({
        "host": if up { "up" } else { "down" },
        "root": here.root.path(),
        "engine": engine,
        "messages": summary.messages,
        "turns": summary.turns.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "runs": summary.runs.iter().map(|(run, lane, state)| json!({"run": run, "lane": lane, "state": state, "letters": letters(here, run, lane)})).collect::<Vec<_>>(),
        "outbox": outbox(&summary.delivery),
        "channels": channels.iter().map(|c| json!({
            "channel": c.channel, "account": c.account, "trouble": c.trouble, "why": c.why,
            "since": c.since.rfc3339(), "asks_at": c.asks_at.map(|at| at.rfc3339()),
        })).collect::<Vec<_>>(),
        "losses": losses.iter().map(|(group, l)| json!({
            "group": group, "line": l.name, "why": l.why, "expected": l.expected, "seen": l.seen, "fix": l.fix,
        })).collect::<Vec<_>>(),
        "damaged": damage,
        "copy": copy.as_ref().map(|(path, age)| json!({"file": path, "age_s": age.as_secs()})),
        "images_not_taken": kept.iter().map(|(group, pin, refused)| json!({
            "group": group.as_str(), "image": refused.name, "why": refused.why, "serves": pin.now.name,
        })).collect::<Vec<_>>(),
        "disk": room.map(|r| json!({"free_mib": r.free >> 20, "read_only": r.read_only, "ballast_mib": ballast})),
        "counters": summary.numbers.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
    });
    let mut text = format!(
        "host      {}\nroot      {}\n",
        if up { "up" } else { "down; `lazaret up` starts it" },
        here.root.path().display()
    );
    let turns: Vec<String> = summary.turns.iter().map(|(state, n)| format!("{n} {state}")).collect();
    text += &format!(
        "messages  {}\nturns     {}\n",
        summary.messages,
        if turns.is_empty() { "none".into() } else { turns.join(", ") }
    );
    text += &engine.map_or_else(String::new, |why| format!("engine    {}\n", safe_line(&why)));
    // What a host that is down last saw of a channel is of use only if it was trouble.
    for channel in channels.iter().filter(|c| up || c.is_bad()) {
        text += &format!("channel   {}\n", safe_line(&channel.told()));
    }
    text += &tell_outbox(&summary.delivery);
    if let Some(damage) = &damage {
        text += &format!("DAMAGED   the database: {damage}; `lazaret doctor` says what to do\n");
    }
    match &copy {
        Some((path, age)) => text += &format!("copy      {}, {} old\n", path.display(), text::duration(*age)),
        None => text += "copy      none yet\n",
    }
    if let Some(room) = room {
        let written = if room.read_only { ", READ-ONLY" } else { "" };
        let few = room.names < names_floor(room.all_names);
        let names = if few { format!(", room for {} MORE FILES ONLY", room.names) } else { String::new() };
        text +=
            &format!("disk      {} MiB free, {ballast} MiB of ballast{written}{names}\n", room.free >> 20);
    }
    for (group, l) in &losses {
        text += &format!(
            "loss      {group}  {}: {} ({}); asked for {}\n          fix: {}\n",
            l.name,
            safe_line(&l.seen),
            l.why,
            safe_line(&l.expected),
            l.fix
        );
    }
    for (run, lane, state) in &summary.runs {
        text += &format!("run       {run}  {lane}  {state}  letters {}\n", letters(here, run, lane));
    }
    for (group, pin, refused) in &kept {
        let (name, why) = (safe_line(&refused.name), safe_line(&refused.why));
        text += &format!(
            "image     {group} goes on with {}; {name} is not taken: {why}\n",
            safe_line(&pin.now.shown())
        );
    }
    for (name, value) in &summary.numbers {
        text += &format!("counter   {name} {value}\n");
    }
    here.print(&json, text.trim_end());
    Ok(match (up, channels.iter().any(ChannelState::is_bad)) {
        (false, _) => ExitCode::from(DOWN),
        (true, true) => ExitCode::from(CHANNEL_BROKEN),
        (true, false) => ExitCode::SUCCESS,
    })
}

/// Asks the engine for a sign of life. Returns what is wrong with it, and what to do.
async fn engine(here: &Here) -> Option<String> {
    // `config check` reports settings that cannot be used.
    let install = here.install().ok()?;
    let engine = match daemon::engine(&install, &here.env) {
        Ok(engine) => engine,
        Err(e) => return Some(e.to_string()),
    };
    match tokio::time::timeout(ENGINE_ANSWERS, engine.identity()).await {
        Ok(told) => told.err().map(|e| e.to_string()),
        Err(_) => Some(format!(
            "HANGS: it takes calls and does not answer within {} s, so no box starts; restart it: `systemctl restart \
             docker`",
            ENGINE_ANSWERS.as_secs()
        )),
    }
}

/// Returns who enforces the box's budget of letters: the kernel, or the host by measuring.
fn letters(here: &Here, run: &str, lane: &str) -> &'static str {
    let group = lane.split('/').next().unwrap_or_default();
    let from = here.root.ipc().join(group).join(run).join(ipc_schema::names_and_paths::FROM_AGENT);
    if mailbox::has_tmpfs(&from) { "limited" } else { "watched" }
}

fn outbox(d: &DeliveryCount) -> Value {
    json!({
        "waiting": d.waiting,
        "deferred": d.deferred,
        "uncertain": d.uncertain,
        "strays": d.strays,
        "failed": d.failed,
        "expired": d.expired,
        "held": d.held.iter().map(|h| json!({ "code": h.code, "chat": h.chat, "text": h.text })).collect::<Vec<_>>(),
        "unreachable": d.unreachable.iter().map(|u| json!({
            "chat": u.chat, "why": u.why, "since": u.since.rfc3339(),
        })).collect::<Vec<_>>(),
    })
}

/// Formats one line of numbers. What needs a person gets a line of its own.
fn tell_outbox(d: &DeliveryCount) -> String {
    let mut text = format!(
        "outbox    {} waiting, {} deferred, {} held, {} failed, {} expired, {} uncertain, {} strays\n",
        d.waiting,
        d.deferred,
        d.held.len(),
        d.failed,
        d.expired,
        d.uncertain,
        d.strays
    );
    for held in &d.held {
        let begins: String = held.text.chars().take(60).collect();
        let code = &held.code;
        text += &format!("held      {}  /resend {code} or /drop {code}: {}\n", held.chat, safe_line(&begins));
    }
    for chat in &d.unreachable {
        text += &format!("cut off   {}  since {}: {}\n", chat.chat, chat.since, safe_line(&chat.why));
    }
    text
}
