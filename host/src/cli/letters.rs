//! `lazaret ipc` prints the letters of a run in the order in which the host wrote and took them.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use ipc_schema::names_and_paths::{self, FROM_AGENT, FileName, TO_AGENT};
use serde_json::{Value, json};

use super::{CliError, Done, Here};
use crate::config::shown_path;
use crate::gateway;
use crate::host_files;
use crate::mailbox::MODEL;
use crate::terminal_output::{safe, safe_line};

/// Read the letters between host and agent.
#[derive(Debug, Args)]
pub struct Ipc {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print a run's letters in the order in which the host wrote and took them.
    Show {
        /// The run's id, or the beginning of it. Without it, the newest run.
        run: Option<String>,
        /// Print whole letters.
        #[arg(long)]
        full: bool,
    },
    /// Print a call of the agent's model whole: its request and the answer.
    Call {
        /// The number of the call, as the files in the run's folder `model` have it.
        number: u64,
        /// The run's id, or the beginning of it. Without it, the newest run.
        run: Option<String>,
    },
}

pub(super) async fn run(here: &Here, ipc: Ipc) -> Done {
    let letters = here.root.state().join("letters");
    match ipc.verb {
        Verb::Show { run, full } => show(here, &find(&letters, run.as_deref())?, full),
        Verb::Call { number, run } => call(here, &find(&letters, run.as_deref())?.join(MODEL), number),
    }
}

fn call(here: &Here, dir: &Path, number: u64) -> Done {
    let request = gateway::whole_request(dir, number).map_err(|e| {
        let dir = shown_path(dir);
        CliError::Plain(match e.kind() {
            ErrorKind::NotFound => format!("there is no call {number}, or none before it, in {dir}"),
            _ => format!("call {number} cannot be put together from the files in {dir}: {e}"),
        })
    })?;
    let answer = gateway::response(dir, number);
    let shown = serde_json::to_string_pretty(&request).unwrap_or_default();
    let text = format!("{}\n\n{}", safe(&shown), safe(answer.as_deref().unwrap_or("no answer is recorded")));
    here.print(&json!({ "request": request, "answer": answer }), text);
    Ok(ExitCode::SUCCESS)
}

fn show(here: &Here, dir: &Path, full: bool) -> Done {
    let [written, taken] = [TO_AGENT, FROM_AGENT].map(|direction| read(&dir.join(direction), direction));
    let letters = in_order(written?, taken?);
    let text: Vec<String> = letters.iter().map(|l| l.tell(full)).collect();
    let json: Vec<Value> = letters
        .iter()
        .map(|l| json!({ "direction": l.direction, "name": l.name, "letter": l.body }))
        .collect();
    let shown = format!("{}\n{}", shown_path(dir), text.join("\n"));
    here.print(&json!({ "folder": dir, "letters": json }), shown);
    Ok(ExitCode::SUCCESS)
}

/// Finds the folder of the newest run whose id begins with `wanted`. Run ids sort by the time at which the run started.
fn find(letters: &Path, wanted: Option<&str>) -> Result<PathBuf, CliError> {
    let mut runs: Vec<PathBuf> =
        host_files::inside(letters).iter().flat_map(|group| host_files::inside(group)).collect();
    runs.sort_by_key(|run| run.file_name().map(ToOwned::to_owned));
    let fits = |run: &&PathBuf| {
        let name = run.file_name().unwrap_or_default().to_string_lossy();
        wanted.is_none_or(|w| name.starts_with(w))
    };
    runs.iter().rev().find(fits).cloned().ok_or_else(|| {
        CliError::Plain(format!("no run {} has letters in {}", wanted.unwrap_or("at all"), letters.display()))
    })
}

/// Each letter of the host acknowledges those of the box that the host had taken by then. So the host's own words make
/// the order: the box's numbers are checked, and its clock is not asked.
fn in_order(mut written: Vec<ShownLetter>, mut taken: Vec<ShownLetter>) -> Vec<ShownLetter> {
    // `_close` has no number of its own and is the last one.
    written.sort_by_key(|letter| letter.number().unwrap_or(u64::MAX));
    taken.sort_by_key(ShownLetter::number);
    let mut taken = taken.into_iter().peekable();
    let mut all = Vec::new();
    for letter in written {
        let ack = letter.body.get("ack").and_then(Value::as_u64).unwrap_or_default();
        while let Some(earlier) = taken.next_if(|earlier| earlier.number().is_none_or(|n| n <= ack)) {
            all.push(earlier);
        }
        all.push(letter);
    }
    all.extend(taken);
    all
}

struct ShownLetter {
    direction: &'static str,
    name: String,
    at: String,
    body: Value,
}

fn read(dir: &Path, direction: &'static str) -> Result<Vec<ShownLetter>, CliError> {
    let paths = host_files::list(dir).map_err(|e| CliError::Plain(format!("{}: {e}", dir.display())))?;
    let mut letters = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Ok(text) = host_files::read_text(&path) else { continue };
        let body: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        let at = body.get("at").and_then(Value::as_str).unwrap_or_default().to_owned();
        letters.push(ShownLetter { direction, name, at, body });
    }
    Ok(letters)
}

impl ShownLetter {
    fn number(&self) -> Option<u64> {
        match names_and_paths::parse_name(self.name.as_bytes()) {
            Ok(FileName::Letter { n, .. }) => Some(n),
            _ => None,
        }
    }

    fn tell(&self, full: bool) -> String {
        let arrow = if self.direction == TO_AGENT { "host  →" } else { "agent ←" };
        if full {
            let body = serde_json::to_string_pretty(&self.body).unwrap_or_default();
            return format!("{arrow} {}\n{}", safe_line(&self.name), safe(&body));
        }
        let gist: String = self.gist().replace('\n', " ").chars().take(90).collect();
        // An agent can have written parts of this, so it is escaped.
        format!("{} {arrow} {}  {}", safe_line(&self.at), safe_line(&self.name), safe_line(&gist))
    }

    /// Summarizes the letter's content in a few words.
    fn gist(&self) -> String {
        let body = self.body.get("body").unwrap_or(&Value::Null);
        let text =
            |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        match self.body.get("type").and_then(Value::as_str).unwrap_or_default() {
            "begin" => format!(
                "{} {}, model {}",
                text(body, "group"),
                text(body, "lane"),
                text(&body["model"], "name")
            ),
            "input" => body["messages"].as_array().map_or_else(String::new, |messages| {
                let said =
                    messages.iter().map(|m| format!("{}: {}", text(&m["from"], "name"), text(m, "text")));
                said.collect::<Vec<_>>().join(" | ")
            }),
            "status" => format!("{} {} {}", text(body, "state"), text(body, "tool"), text(body, "detail")),
            "turn_done" => format!("{}: {}", text(body, "outcome"), text(body, "text")),
            "request" => text(body, "kind"),
            "response" => format!("{} {}", text(body, "request"), text(&body["verdict"], "outcome")),
            "ready" => format!("runner {}, shell {}", text(body, "runner"), text(body, "shell")),
            "close" | "failed" => text(body, "reason"),
            "interrupt" => text(body, "why"),
            _ => text(body, "text"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boxs_clock_does_not_order_its_letters() {
        let letter = |direction, name: &str, ack: u64, at: &str| ShownLetter {
            direction,
            name: name.to_owned(),
            at: at.to_owned(),
            body: json!({ "ack": ack, "at": at }),
        };
        let written = [("_close", 12), ("0000000002-input.json", 1), ("0000000001-begin.json", 0)]
            .map(|(name, ack)| letter(TO_AGENT, name, ack, "2026-11-21T10:00:00Z"));
        let taken = [
            "0000000010-status.json",
            "0000000002-message.json",
            "0000000001-ready.json",
            "0000000013-status.json",
        ]
        .map(|name| letter(FROM_AGENT, name, 9, "1970-01-01T00:00:00Z"));
        let shown = in_order(written.into(), taken.into());
        let names: Vec<_> = shown.iter().map(|letter| letter.name.split('.').next().unwrap()).collect();
        assert_eq!(
            names,
            [
                "0000000001-begin",
                "0000000001-ready",
                "0000000002-input",
                "0000000002-message",
                "0000000010-status",
                "_close",
                "0000000013-status"
            ]
        );
    }

    #[test]
    fn no_field_of_a_letter_drives_the_terminal() {
        let escape = "\u{1b}]0;PWNED\u{7}\u{202e}\nx";
        let body = json!({ "at": escape, "type": "status", "body": { "state": escape, "detail": escape } });
        for full in [false, true] {
            let letter = ShownLetter {
                direction: FROM_AGENT,
                name: escape.to_owned(),
                at: body["at"].as_str().unwrap().to_owned(),
                body: body.clone(),
            };
            let told = letter.tell(full);
            assert!(!told.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{told:?}");
            assert!(full || told.lines().count() == 1, "a line of its own was made: {told:?}");
        }
    }
}
