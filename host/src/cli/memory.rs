//! `lazaret memory` shows, searches and removes what the agents of a group remember.
//!
//! An agent can put anything in the place of these files, so they are read through the safe reader only, and no text of
//! them reaches the terminal unescaped.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use ipc_schema::memory_dir::{ChangeError, Contents, Edit, MemoryDir};
use ipc_schema::memory_files::{self, Entry};
use ipc_schema::memory_search;
use serde_json::{Value, json};

use super::{CliError, Done, Here};
use crate::domain::GroupName;
use crate::host_files;
use crate::terminal_output::{safe, safe_line};

/// Show, search and remove what the agent of a group remembers. The group `global` is the memory of all groups.
#[derive(Debug, Args)]
pub struct Memory {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the files of a group's memory, with the number of their entries and the newest date.
    List {
        /// The group, or `global`.
        group: String,
    },
    /// Print a file.
    Show {
        /// The group, or `global`.
        group: String,
        /// The file, as `list` shows it.
        file: String,
    },
    /// Find entries by words, best first.
    Search {
        /// The group, or `global`.
        group: String,
        #[arg(required = true)]
        words: Vec<String>,
        /// How many entries to show.
        #[arg(long, default_value_t = 10)]
        most: usize,
    },
    /// Remove a file, or the entry at one of its lines.
    Rm {
        /// The group, or `global`.
        group: String,
        /// The file, or the entry's place, as `search` shows it: people/ann.md:3.
        place: String,
    },
}

pub(super) async fn run(here: &Here, memory: Memory) -> Done {
    match memory.verb {
        Verb::List { group } => list(here, &group),
        Verb::Show { group, file } => show(here, &group, below_memory(&file)),
        Verb::Search { group, words, most } => search(here, &group, &words.join(" "), most),
        Verb::Rm { group, place } => remove(here, &group, below_memory(&place)),
    }
}

/// A file's name below the memory, also of one that is written as the agent knows it.
fn below_memory(file: &str) -> &str {
    let file = file.strip_prefix("/global/").or_else(|| file.strip_prefix("/workspace/")).unwrap_or(file);
    file.strip_prefix("memory/").unwrap_or(file)
}

fn base(here: &Here, group: &str) -> Result<PathBuf, CliError> {
    if group == "global" {
        return Ok(here.root.global());
    }
    let name: GroupName =
        group.parse().map_err(|e| CliError::Plain(format!("{group:?} is not a group name: {e}")))?;
    let base = here.root.workspace(&name);
    if !host_files::there(&base) && !here.install()?.has_group(&name) {
        return Err(CliError::Plain(format!(
            "there is no group {name}; `lazaret groups list` shows all groups"
        )));
    }
    Ok(base)
}

fn opened(here: &Here, group: &str) -> Result<Option<MemoryDir>, CliError> {
    let base = base(here, group)?;
    MemoryDir::open(&base).map_err(|e| {
        CliError::Plain(format!("{}: {e}", safe_line(&base.join(memory_files::DIR).to_string_lossy())))
    })
}

fn opened_or_nothing(here: &Here, group: &str) -> Result<MemoryDir, CliError> {
    opened(here, group)?.ok_or_else(|| CliError::Plain(format!("group {group} has no memory yet")))
}

fn list(here: &Here, group: &str) -> Done {
    let contents = opened(here, group)?.map_or_else(Contents::default, |memory| memory.read());
    let mut lines = Vec::new();
    let mut files = Vec::new();
    for file in &contents.files {
        let entries = memory_files::entries(&file.name, &file.text);
        let newest = entries.iter().filter_map(|entry| entry.date.as_deref()).max();
        let told = newest.map_or(String::new(), |date| format!(", newest {date}"));
        let count = entries.len();
        lines.push(format!(
            "{}: {count} {}{told}",
            safe_line(&file.name),
            if count == 1 { "entry" } else { "entries" }
        ));
        files.push(
            json!({ "file": file.name, "entries": count, "newest": newest, "bytes": file.stamp.len() }),
        );
    }
    if lines.is_empty() {
        lines.push(format!("group {group} has no memory yet"));
    }
    lines.extend(problems(&contents));
    let told = json!({ "group": group, "files": files, "problems": problems_json(&contents), "truncated": contents.truncated });
    here.print(&told, lines.join("\n"));
    Ok(ExitCode::SUCCESS)
}

fn show(here: &Here, group: &str, name: &str) -> Done {
    let memory = opened_or_nothing(here, group)?;
    let file = memory.file(name).map_err(|refusal| CliError::Plain(safe_line(&refusal.reason)))?;
    let entries: Vec<_> = memory_files::entries(name, &file.text).iter().map(as_json).collect();
    here.print(
        &json!({ "group": group, "file": name, "text": file.text, "entries": entries }),
        safe(file.text.replace("\r\n", "\n").trim_end()),
    );
    Ok(ExitCode::SUCCESS)
}

fn search(here: &Here, group: &str, words: &str, most: usize) -> Done {
    let contents = opened(here, group)?.map_or_else(Contents::default, |memory| memory.read());
    let entries = contents.entries();
    let texts: Vec<String> = entries.iter().map(Entry::searched).collect();
    let hits = memory_search::rank(words, &texts);
    let hits: Vec<&Entry> = hits.into_iter().take(most).filter_map(|at| entries.get(at)).collect();
    let mut lines: Vec<String> = hits.iter().map(|entry| told(entry)).collect();
    if lines.is_empty() {
        lines.push("no entry matches".into());
    }
    lines.extend(problems(&contents));
    let found: Vec<Value> = hits.iter().map(|entry| as_json(entry)).collect();
    here.print(
        &json!({ "group": group, "entries": found, "problems": problems_json(&contents) }),
        lines.join("\n"),
    );
    Ok(ExitCode::SUCCESS)
}

fn remove(here: &Here, group: &str, place: &str) -> Done {
    let (name, line) = match place.rsplit_once(':') {
        Some((name, line)) if line.parse::<usize>().is_ok() => (name, line.parse::<usize>().ok()),
        _ => (place, None),
    };
    let gone = opened_or_nothing(here, group)?
        .change(name, |there| {
            let Some(text) = there else { return (Edit::Keep, Err("does not exist")) };
            let Some(line) = line else { return (Edit::Remove, Ok(None)) };
            let entries = memory_files::entries(name, text);
            match entries.into_iter().find(|entry| (entry.line..entry.line + entry.lines).contains(&line)) {
                None => (Edit::Keep, Err("has no entry at this line")),
                Some(entry) => {
                    let rest = memory_files::remove(text, entry.line, entry.lines);
                    (rest.map_or(Edit::Remove, Edit::Write), Ok(Some(entry)))
                }
            }
        })
        .map_err(|error| CliError::Plain(why_not(name, &error)))?
        .map_err(|why| {
            CliError::Plain(format!(
                "{} {why}; `lazaret memory list {group}` shows the files",
                safe_line(place)
            ))
        })?;
    let text = match &gone {
        Some(entry) => format!("removed {}", told(entry)),
        None => format!("removed {}", safe_line(name)),
    };
    here.print(&json!({ "group": group, "file": name, "removed": gone.as_ref().map(as_json) }), text);
    Ok(ExitCode::SUCCESS)
}

fn why_not(name: &str, error: &ChangeError) -> String {
    let hint = match error {
        ChangeError::Io(e) if e.kind() == ErrorKind::PermissionDenied => {
            "; the file belongs to the box: ask the agent to forget it, or run this as root"
        }
        _ => "",
    };
    format!("{} was not changed: {}{hint}", safe_line(name), safe_line(&error.to_string()))
}

fn told(entry: &Entry) -> String {
    let origin: Vec<&str> =
        [&entry.date, &entry.chat, &entry.message].into_iter().filter_map(|fact| fact.as_deref()).collect();
    let origin = if origin.is_empty() { String::new() } else { format!(" ({})", origin.join(", ")) };
    let heading =
        entry.heading.as_deref().map_or(String::new(), |heading| format!(" [{}]", safe_line(heading)));
    let text = safe(&entry.text.replace('\n', "\n  "));
    format!("{}:{}{origin}{heading} {text}", safe_line(&entry.file), entry.line)
}

fn as_json(entry: &Entry) -> Value {
    let Entry { file, line, lines, heading, text, date, chat, message } = entry;
    json!({
        "file": file, "line": line, "lines": lines, "heading": heading, "text": text,
        "date": date, "chat": chat, "message": message,
    })
}

fn problems(contents: &Contents) -> Vec<String> {
    let mut lines: Vec<String> = contents
        .problems
        .iter()
        .map(|problem| {
            format!("cannot be read: {}", safe_line(&format!("{} {}", problem.name, problem.reason)))
        })
        .collect();
    if contents.truncated {
        lines.push("there are more files than can be read at once; the rest is left out".into());
    }
    lines
}

fn problems_json(contents: &Contents) -> Value {
    contents
        .problems
        .iter()
        .map(|problem| json!({ "file": problem.name, "reason": problem.reason }))
        .collect()
}
