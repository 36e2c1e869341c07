//! Checks the heartbeats of a group's file, and reads their prompts.

use std::path::{Component, Path};
use std::time::Duration;

use ipc_schema::requests::{RequestArgs, ScheduleTask};

use super::Source;
use super::schema::HeartbeatFile;
use crate::domain::Zone;
use crate::domain::group_settings::{Heartbeat, HeartbeatPrompt};
use crate::host_files;
use crate::policy::heartbeats::{checked_prompt, schedule_of};

/// A longer file holds more characters than a prompt may have.
const FILE_MAX: u64 = 64 * 1024;

/// The heartbeats of a file, without those that cannot be used. The files of prompts are not read.
pub(super) fn of_group(
    file: &[HeartbeatFile],
    zone: &Zone,
    shortest: Duration,
    source: &mut Source<'_>,
) -> Vec<Heartbeat> {
    let mut good: Vec<Heartbeat> = Vec::new();
    for (n, one) in file.iter().enumerate() {
        match checked(one, &good, zone, shortest) {
            Ok(heartbeat) => good.push(heartbeat),
            Err((key, why)) => refuse(n, key, why, source),
        }
    }
    good
}

/// Checks that the files of prompts can be used.
pub(super) fn check_files(file: &[HeartbeatFile], folder: &Path, source: &mut Source<'_>) {
    for (n, one) in file.iter().enumerate() {
        let name = one.prompt_file.as_deref().filter(|name| one.prompt.is_none() && is_inside(name));
        if let Some(Err(why)) = name.map(|name| prompt(&HeartbeatPrompt::File(name.to_owned()), folder)) {
            refuse(n, "prompt_file", why, source);
        }
    }
}

/// The prompt of a heartbeat, from its file if it has one in the group's `folder`.
///
/// # Errors
/// What is wrong with the file.
pub fn prompt(of: &HeartbeatPrompt, folder: &Path) -> Result<String, String> {
    let name = match of {
        HeartbeatPrompt::Text(text) => return Ok(text.clone()),
        HeartbeatPrompt::File(name) => name,
    };
    let path = folder.join(name);
    let unreadable = |e: std::io::Error| format!("{name} cannot be read: {e}");
    if host_files::size(&path).map_err(unreadable)? > FILE_MAX {
        return Err(format!("{name} is larger than {} KiB", FILE_MAX / 1024));
    }
    let text = host_files::read_text(&path).map_err(unreadable)?;
    checked_prompt(&text).map_err(|why| format!("{name}: {why}"))
}

fn checked(
    one: &HeartbeatFile,
    earlier: &[Heartbeat],
    zone: &Zone,
    shortest: Duration,
) -> Result<Heartbeat, (&'static str, String)> {
    let prompt = match (&one.prompt, &one.prompt_file) {
        (Some(text), None) => HeartbeatPrompt::Text(checked_prompt(text).map_err(|why| ("prompt", why))?),
        (None, Some(file)) if is_inside(file) => HeartbeatPrompt::File(file.clone()),
        (None, Some(file)) => {
            let what = "is not in the group's folder; write the name of a file beside group.toml";
            return Err(("prompt_file", format!("prompt_file = {file:?} {what}")));
        }
        (Some(_), Some(_)) => {
            let what = "a heartbeat has a prompt or a prompt_file, and this one has both";
            return Err(("prompt_file", what.to_owned()));
        }
        (None, None) => return Err(("", "a heartbeat needs `prompt` or `prompt_file`".to_owned())),
    };
    // A name has the limits of any task's.
    let task = ScheduleTask { name: one.name.clone(), prompt: "x".into(), ..ScheduleTask::default() };
    task.check().map_err(|refusal| ("name", refusal.reason))?;
    let name = one.name.trim();
    if earlier.iter().any(|other| other.name == name) {
        return Err(("name", format!("there is a heartbeat named {name:?} above")));
    }
    let schedule = schedule_of(&one.schedule, zone, shortest).map_err(|e| ("schedule", e.to_string()))?;
    Ok(Heartbeat {
        name: name.to_owned(),
        schedule: schedule.canonical(),
        prompt,
        context: one.context,
        chat: one.chat.clone(),
    })
}

fn is_inside(file: &str) -> bool {
    let mut parts = Path::new(file).components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// Notes a mistake of the heartbeat `n`; no key is the heartbeat as a whole.
fn refuse(n: usize, key: &str, why: String, source: &mut Source<'_>) {
    let n = n.to_string();
    let keys = ["heartbeat", &n, key];
    source.refuse(if key.is_empty() { &keys[..2] } else { &keys }, why);
}
