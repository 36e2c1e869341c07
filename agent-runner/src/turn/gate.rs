//! Runs the gate script of a task's fire, which decides whether the model is called at all.
//!
//! The script runs before the transcript takes in the fire. A crash meanwhile lets it run again; once its outcome is an
//! entry, it never does.

use ipc_schema::TurnId;
use ipc_schema::letters::from_agent::{Activity, ErrorDetail, Outcome};
use ipc_schema::letters::to_agent::{Fire, ToolVerdict};
use ipc_schema::text_sanitize::{clean, safe_line};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::interruptible::{Watched, Work, run_interruptible};
use super::{Agent, TurnExit};
use crate::fatal::Fatal;
use crate::model::Model;
use crate::prompt;
use crate::tool_policy::{self, RUN_COMMAND};
use crate::tools::{self, Ended, StartError};
use crate::transcript::{Body, Entry, Gate};

/// The most bytes of a gate's data that the model sees.
const DATA_MAX_BYTES: usize = 8 << 10;

/// How many of the last characters of a failed script's output the reason shows.
const END_MAX_CHARS: usize = 300;

/// What a gate script is for, as the end of each reason.
const RIGHT: &str = "A gate ends with exit code 0, and the last line that it prints is {\"wake\": true} or \
     {\"wake\": false}, with \"data\" if the agent is to see some.";

enum Verdict {
    /// The model is called and sees the data, a JSON text.
    Wake(Option<String>),
    Sleep,
    Failed(ErrorDetail),
}

impl Verdict {
    fn failed(code: &str, reason: String) -> Self {
        Self::Failed(ErrorDetail { code: code.into(), reason })
    }
}

impl<M: Model> Agent<M> {
    /// The fire that waits for the outcome of its gate script.
    pub(super) fn gate_due(&self, turn: TurnId) -> Option<Fire> {
        let fire = self.mailbox.waiting_fire(turn).filter(|fire| fire.gate.is_some())?;
        (!self.transcript.has_gate(turn, &fire.id)).then(|| fire.clone())
    }

    /// Runs the script and records its outcome. If people's messages have joined the turn, a script that says no only
    /// keeps the fire out of it.
    pub(super) async fn run_gate(&mut self, turn: TurnId, fire: Fire) -> Result<Option<TurnExit>, Fatal> {
        failpoint!("runner.gate.before");
        let script = fire.gate.clone().unwrap_or_default();
        let judged = tool_policy::judge(&self.begin.tools, &self.begin.allowed, RUN_COMMAND, Some(&script));
        let denied = judged.verdict.refusal(&judged.subject(RUN_COMMAND));
        let verdict = if let Some(why) = denied {
            Verdict::failed("gate.denied", format!("the gate script did not run: {why}"))
        } else {
            let detail = (judged.verdict == ToolVerdict::Record).then(|| tools::one_line(&script));
            let work = Work {
                turn,
                state: Activity::Tool,
                tool: Some("gate"),
                detail: detail.as_deref(),
                limit: self.tools.script_limit() + tools::TIME_LIMIT_MARGIN,
                draft: None,
                ends_on_close: true,
            };
            match run_interruptible(&mut self.mailbox, work, self.tools.run_script(script)).await? {
                Watched::Done(ended) => verdict(ended),
                Watched::Interrupted(_) => {
                    self.take_inputs(turn)?;
                    self.end(turn, Outcome::Interrupted, String::new())?;
                    return Ok(None);
                }
                Watched::Closing => return Ok(Some(TurnExit::Closing)),
            }
        };
        failpoint!("runner.gate.after");
        self.mailbox.receive_all().await?;
        self.record(turn, &fire, verdict)?;
        Ok(None)
    }

    /// Appends the outcome. A fire that is not to be done is settled by it, so the messages beside it come first: they
    /// decide whether the turn goes on.
    fn record(&mut self, turn: TurnId, fire: &Fire, verdict: Verdict) -> Result<(), Fatal> {
        tracing::info!(%turn, fire = fire.id, wake = matches!(verdict, Verdict::Wake(_)), "the gate script has ended");
        let mut gate = Gate { fire: fire.id.clone(), wake: false, error: None, shown: None };
        if let Verdict::Wake(data) = verdict {
            gate.wake = true;
            gate.shown = data.map(|data| prompt::gate_frame(fire, None, &data));
            return self.transcript.append(turn, Body::Gate(gate)).map(|_| ());
        }
        let settled = self.keep_inputs(turn, Some(&fire.id))?;
        if let Verdict::Failed(error) = verdict {
            tracing::warn!(%turn, fire = fire.id, code = error.code, reason = error.reason, "the gate script failed");
            let goes_on = !self.transcript.of_turn(turn).all(Entry::is_of_a_fire);
            gate.shown = goes_on.then(|| prompt::gate_frame(fire, Some(&error.code), &error.reason));
            gate.error = Some(error);
        }
        self.transcript.append(turn, Body::Gate(gate))?;
        self.acknowledge(settled);
        Ok(())
    }
}

fn verdict(ended: Result<Ended, StartError>) -> Verdict {
    let ended = match ended {
        Ok(ended) => ended,
        Err(StartError::NoShell) => {
            let reason = "the gate script cannot run, because this image has no shell. Remove the gate, or ask the \
                          owner to set another image for this group.";
            return Verdict::failed("gate.no_shell", reason.into());
        }
        Err(problem) => {
            return Verdict::failed("gate.start", format!("the gate script cannot run: {problem}"));
        }
    };
    let last = ended.output.last_line();
    let broken = match (ended.stopped_after, &ended.status, &last) {
        (Some(limit), ..) => {
            ("gate.time", format!("the gate script did not end within {} s and was stopped", limit.as_secs()))
        }
        (None, Err(error), _) => ("gate.exit", format!("nobody knows how the gate script ended: {error}")),
        (None, Ok(status), _) if !status.success() => {
            ("gate.exit", format!("the gate script failed ({})", tools::ending(*status)))
        }
        (None, Ok(_), None) if ended.output.is_empty() => {
            ("gate.output", "the gate script printed nothing".to_owned())
        }
        (None, Ok(_), None) => {
            ("gate.output", "the last line of the gate script is blank or too long".to_owned())
        }
        (None, Ok(_), Some(line)) => match read(line) {
            Ok(verdict) => return verdict,
            Err(problem) => {
                let problem =
                    format!("the last line of the gate script is not what a gate prints ({problem})");
                ("gate.output", problem)
            }
        },
    };
    let (code, problem) = broken;
    let end = end_of(&ended.output.text());
    let shown = if end.is_empty() { String::new() } else { format!(" Its output ends: {end}") };
    Verdict::failed(code, format!("{problem}. {RIGHT}{shown}"))
}

fn read(line: &str) -> Result<Verdict, String> {
    #[derive(Deserialize)]
    struct Line<'a> {
        wake: bool,
        #[serde(borrow)]
        data: Option<&'a RawValue>,
    }
    if !line.starts_with('{') {
        return Err("no JSON object".to_owned());
    }
    let Line { wake, data } = serde_json::from_str(line).map_err(|error| error.to_string())?;
    Ok(if wake { Verdict::Wake(data.map(|data| cut(data.get()))) } else { Verdict::Sleep })
}

fn cut(data: &str) -> String {
    if data.len() <= DATA_MAX_BYTES {
        return data.to_owned();
    }
    let kept = data.get(..data.floor_char_boundary(DATA_MAX_BYTES)).unwrap_or_default();
    format!("{kept}\n[… cut: the data has {} bytes]", data.len())
}

/// The end of an output, on one line.
fn end_of(output: &str) -> String {
    let text = clean(output);
    let text = text.trim();
    let skipped = text.chars().count().saturating_sub(END_MAX_CHARS);
    let end = safe_line(&text.chars().skip(skipped).collect::<String>());
    if skipped > 0 { format!("…{end}") } else { end }
}
