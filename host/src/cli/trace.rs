//! `lazaret trace` shows what happened to a message, from its receipt to the receipts of its replies, with times.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::{CliError, Done, Here};
use crate::config::shown_path;
use crate::domain::MessageSeq;
use crate::store::{MessageTrace, OutboxTrace, StageRow};
use crate::terminal_output::safe;

/// Show what happened to a message, step by step.
#[derive(Debug, Args)]
pub struct Trace {
    /// The message, such as `m-12`. Without it, the newest messages are listed.
    message: Option<MessageSeq>,
}

pub(super) async fn run(here: &Here, trace: &Trace) -> Done {
    let store = here.store_to_read()?;
    let Some(seq) = trace.message else {
        let newest = store.newest_messages(20).await?;
        let lines: Vec<String> = newest
            .iter()
            .map(|(seq, chat, state, text)| format!("{seq}  {chat}  {state}  {}", safe(&first_line(text))))
            .collect();
        let json: Vec<Value> = newest
            .iter()
            .map(|(seq, chat, state, text)| json!({ "message": seq, "chat": chat, "state": state, "text": text }))
            .collect();
        here.print(&json!(json), lines.join("\n"));
        return Ok(ExitCode::SUCCESS);
    };
    let traced = store.message_trace(seq).await?;
    let traced = traced.ok_or_else(|| CliError::Plain(format!("there is no message {seq}")))?;
    here.print(&to_json(&traced), tell(here, &traced));
    Ok(ExitCode::SUCCESS)
}

fn first_line(text: &str) -> String {
    let line: String = text.lines().next().unwrap_or_default().chars().take(60).collect();
    if line.len() < text.len() { format!("{line}…") } else { line }
}

/// Returns the steps of the message and its turn in the order of time.
fn steps(t: &MessageTrace) -> Vec<&StageRow> {
    let mut steps: Vec<&StageRow> = t.stages.iter().collect();
    if let Some(turn) = &t.turn {
        steps.extend(turn.stages.iter().filter(|s| s.name != "stored"));
    }
    steps.sort_by_key(|s| (s.wall, s.mono_us));
    steps
}

fn tell(here: &Here, t: &MessageTrace) -> String {
    let mut out = format!("{}  {}  group {}\n", t.seq, t.chat, t.group);
    out += &format!("{} wrote: {}\n", safe(&t.sender), safe(&first_line(&t.text)));
    // A message is done when its turn has ended, but the turn may have failed.
    let ended =
        t.turn.as_ref().map(|turn| turn.state.as_str()).filter(|state| ["failed", "stopped"].contains(state));
    out += &format!("{} message, {}", t.role, ended.unwrap_or(&t.state));
    if let Some(outcome) = &t.outcome {
        out += &format!(": {}", safe(outcome));
    }
    out += &format!("\n\n{}           written\n", t.sent_at);
    let mut before: Option<&StageRow> = None;
    for step in steps(t) {
        // The monotonic clock starts again with each host, so a step across two hosts uses the wall clock.
        let since = before.map_or_else(String::new, |b| match step.mono_us - b.mono_us {
            us if us >= 0 => format!("+{:.1} ms", us as f64 / 1000.0),
            _ => format!("+{:.1} ms", step.wall.since(b.wall).as_secs_f64() * 1000.0),
        });
        out += &format!("{} {since:>9} {}\n", step.wall, step.name);
        before = Some(step);
    }
    if let Some(turn) = &t.turn {
        out += &format!("\n{}: {}", turn.turn, turn.state);
        if let Some(why) = &turn.why {
            out += &format!(" ({})", safe(why));
        }
        let (calls, input, output) = turn.usage;
        out += &format!(", attempt {}, {calls} model calls, {input} tokens in, {output} out\n", turn.attempt);
        for run in &turn.runs {
            let group = run.group.parse().ok().zip(run.run.parse().ok());
            let letters = group.map(|(g, r)| shown_path(&here.root.letters(&g, &r))).unwrap_or_default();
            let ending = run.why.as_deref().or(run.ending.as_deref()).unwrap_or("alive");
            out += &format!("run {}  {}\n  letters {letters}\n", run.run, safe(ending));
        }
        for said in &turn.outbox {
            out += &tell_part(said);
        }
    }
    out.trim_end().to_owned()
}

fn tell_part(said: &OutboxTrace) -> String {
    let when = said.sent_at.map_or_else(String::new, |at| format!(" {at}"));
    let state = if said.code.is_some() { "held" } else { &said.state };
    let mut out = format!("{} {state}{when}: {}\n", said.voice, safe(&first_line(&said.text)));
    if let Some(error) = &said.error {
        out += &format!("  after {} attempts: {}\n", said.attempts, safe(error));
    }
    if let Some(code) = &said.code {
        out += &format!("  it may have arrived: /resend {code} or /drop {code}\n");
    }
    if said.uncertain > 0 {
        out += &format!("  uncertain: the chat may have up to {} copies more\n", said.uncertain);
    }
    if said.strays > 0 {
        out += &format!("  strays: the chat may have up to {} empty placeholders\n", said.strays);
    }
    out
}

fn to_json(t: &MessageTrace) -> Value {
    let step =
        |s: &&StageRow| json!({ "name": s.name, "at": s.wall.rfc3339(), "mono_us": s.mono_us, "run": s.run });
    json!({
        "message": t.seq,
        "chat": t.chat,
        "group": t.group,
        "sender": t.sender,
        "role": t.role,
        "state": t.state,
        "outcome": t.outcome,
        "written_at": t.sent_at.rfc3339(),
        "stored_at": t.stored_at.rfc3339(),
        "steps": steps(t).iter().map(step).collect::<Vec<_>>(),
        "turn": t.turn.as_ref().map(|turn| json!({
            "turn": turn.turn,
            "state": turn.state,
            "why": turn.why,
            "attempt": turn.attempt,
            "runs": turn.runs.iter().map(|r| json!({ "run": r.run, "ending": r.ending, "why": r.why })).collect::<Vec<_>>(),
            "usage": { "calls": turn.usage.0, "input": turn.usage.1, "output": turn.usage.2 },
            "said": turn.outbox.iter().map(|o| json!({
                "voice": o.voice, "state": o.state, "text": o.text, "receipt": o.receipt, "error": o.error,
                "attempts": o.attempts, "held": o.code, "uncertain": o.uncertain, "strays": o.strays,
                "sent_at": o.sent_at.map(|at| at.rfc3339()),
            })).collect::<Vec<_>>(),
        })),
    })
}
