//! `lazaret tasks` lists, makes and changes the scheduled tasks of a group, beside a host that runs or not.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use ipc_schema::requests::tasks::{Overlap, TaskContext};
use ipc_schema::requests::{Remind, RequestArgs, ScheduleTask, UpdateTask};
use serde_json::{Value, json};

use super::super::{CliError, Done, Here};
use crate::channels::terminal::wire::FromClient;
use crate::clock::Clock;
use crate::domain::task::{Task, TaskOrigin, TaskState};
use crate::domain::{ChatId, GroupName};
use crate::host_files;
use crate::tasks::{Maker, NewTask, Tasks};
use crate::terminal_output::safe;

/// Who makes a task on the command line.
const MADE_BY: &str = "terminal";

#[derive(Debug, Args)]
pub(super) struct Group {
    /// The group. `main` manages the tasks of all groups by their ids.
    #[arg(long, default_value = "main", value_name = "NAME")]
    group: GroupName,
}

#[derive(Debug, Args)]
pub(super) struct Named {
    /// The task: its name, or its id such as task-3.
    task: String,
    #[command(flatten)]
    of: Group,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only the tasks of this group. The default is all groups.
    #[arg(long, value_name = "NAME")]
    group: Option<GroupName>,
    /// Show ended and cancelled tasks too.
    #[arg(long)]
    ended: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum InContext {
    Isolated,
    Group,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OnOverlap {
    Skip,
    Queue,
}

impl From<OnOverlap> for Overlap {
    fn from(rule: OnOverlap) -> Self {
        match rule {
            OnOverlap::Skip => Self::Skip,
            OnOverlap::Queue => Self::Queue,
        }
    }
}

/// The options that `add` and `edit` share.
#[derive(Debug, Args)]
struct Options {
    /// The chat that gets the replies. The default is the only chat of the group, `lazaret chat` aside.
    #[arg(long, value_name = "CHAT")]
    chat: Option<String>,
    /// The time zone of the schedule. The default is the group's.
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
    /// A file with a script that runs in the box before the model is called. Its last line is
    /// `{"wake": true, "data": …}`; without `wake` the model is not called.
    #[arg(long, value_name = "FILE")]
    gate: Option<std::path::PathBuf>,
    /// How late a missed fire may still run, such as 12h, or `skip`.
    #[arg(long, value_name = "TIME")]
    catch_up: Option<String>,
    /// What happens to a fire while an earlier one is not over.
    #[arg(long)]
    overlap: Option<OnOverlap>,
    /// The day or time after which it fires no more.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// How many fires there are.
    #[arg(long, value_name = "N")]
    times: Option<u32>,
}

impl Options {
    fn gate(&self) -> Result<Option<String>, CliError> {
        let read = |path: &std::path::PathBuf| {
            host_files::read_text(path).map_err(|e| CliError::Plain(format!("{}: {e}", path.display())))
        };
        self.gate.as_ref().map(read).transpose()
    }
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// The name of the task.
    name: String,
    /// When: `"30 7 * * 1-5"`, `"daily 07:30"`, `"every 30m"`, `"tomorrow 9:00"`.
    schedule: String,
    /// What the agent does at each fire, or the text of the reminder.
    #[arg(required = true)]
    prompt: Vec<String>,
    /// Post the text itself, without the agent.
    #[arg(long, conflicts_with_all = ["context", "gate", "silent", "model", "model_calls"])]
    remind: bool,
    /// Whether each fire has a session of its own, or is a turn of the group's conversation.
    #[arg(long, value_enum, default_value = "isolated")]
    context: InContext,
    /// Keep the final answer in the history only.
    #[arg(long)]
    silent: bool,
    /// Another model than the group's.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Fewer model calls than a turn may make.
    #[arg(long, value_name = "N")]
    model_calls: Option<u32>,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    of: Group,
}

#[derive(Debug, Args)]
pub(super) struct Edit {
    #[command(flatten)]
    named: Named,
    /// A new name.
    #[arg(long)]
    name: Option<String>,
    /// A new schedule. It counts from now.
    #[arg(long)]
    schedule: Option<String>,
    /// A new prompt, or a new text of a reminder.
    #[arg(long)]
    prompt: Option<String>,
    /// Whether the final answer is kept in the history only.
    #[arg(long, value_name = "true|false")]
    silent: Option<bool>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Args)]
pub(super) struct History {
    #[command(flatten)]
    named: Named,
    /// How many fires to show.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: u32,
}

pub(super) async fn list(here: &Here, list: List) -> Done {
    let (install, store, now) = (here.install()?, here.store_to_read()?, Clock::new().wall());
    let tasks = Tasks { store: &store, install: &install, now };
    let shown = tasks.list(list.group, list.ended).await?;
    let lines: Vec<String> = shown.iter().map(line).collect();
    let none = "there is no task; `lazaret tasks add NAME SCHEDULE PROMPT` makes one, and so does the agent";
    here.print(&json!(shown), if lines.is_empty() { none.to_owned() } else { lines.join("\n") });
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn show(here: &Here, named: Named) -> Done {
    let (install, store, now) = (here.install()?, here.store_to_read()?, Clock::new().wall());
    let tasks = Tasks { store: &store, install: &install, now };
    let task = tasks.find(&named.of.group, &named.task).await?;
    let mut shown = tasks.shown(&task);
    shown["prompt"] = json!(task.prompt);
    if let crate::domain::task::Work::Agent(work) = &task.work {
        shown["gate"] = json!(work.gate);
        shown["silent"] = json!(work.silent);
        shown["model"] = json!(work.model);
    }
    here.print(&shown, details(&shown));
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn add(here: &Here, add: Add) -> Done {
    let (install, store, now) = (here.install()?, here.store()?, Clock::new().wall());
    let Add { name, schedule, prompt, remind, context, silent, model, model_calls, options, of } = add;
    let (prompt, gate) = (prompt.join(" "), options.gate()?);
    let Options { chat, tz: zone, catch_up, overlap, until, times, .. } = options;
    let new = if remind {
        // A name has the limits of any task's.
        checked(ScheduleTask { name: name.clone(), prompt: "x".into(), ..ScheduleTask::default() })?;
        let reminder = checked(Remind { text: prompt, when: schedule, chat: chat.clone(), zone })?;
        NewTask::NamedReminder(name, reminder)
    } else {
        let context = match context {
            InContext::Isolated => TaskContext::Isolated,
            InContext::Group => TaskContext::Group,
        };
        let overlap = overlap.map_or(Overlap::Skip, Overlap::from);
        let chat = chat.clone();
        checked(ScheduleTask {
            name,
            schedule,
            prompt,
            context,
            chat,
            zone,
            gate,
            catch_up,
            overlap,
            until,
            times,
            silent,
            model,
            model_calls,
        })
        .map(NewTask::Work)?
    };
    let tasks = Tasks { store: &store, install: &install, now };
    let home = match chat {
        Some(chat) => chat.parse().map_err(|e| CliError::Plain(format!("{chat:?}: {e}")))?,
        None => only_chat(tasks, &of.group).await?,
    };
    let origin = TaskOrigin { by: MADE_BY.to_owned(), depth: 0 };
    let maker = Maker { group: &of.group, chat: &home, origin, made_in: None };
    let task = tasks.add(new, maker).await?;
    told(here, tasks, &task).await
}

pub(super) async fn edit(here: &Here, edit: Edit) -> Done {
    let (install, store, now) = (here.install()?, here.store()?, Clock::new().wall());
    let gate = edit.options.gate()?;
    let Options { chat, tz: zone, catch_up, overlap, until, times, .. } = edit.options;
    let Edit { named: Named { task, of }, name, schedule, prompt, silent, .. } = edit;
    let overlap = overlap.map(Overlap::from);
    let ask = checked(UpdateTask {
        task,
        name,
        schedule,
        prompt,
        chat,
        zone,
        gate,
        catch_up,
        overlap,
        until,
        times,
        silent,
    })?;
    let tasks = Tasks { store: &store, install: &install, now };
    let task = tasks.update(&of.group, &ask).await?;
    told(here, tasks, &task).await
}

pub(super) async fn set_state(here: &Here, named: Named, state: TaskState) -> Done {
    let (install, store, now) = (here.install()?, here.store()?, Clock::new().wall());
    let tasks = Tasks { store: &store, install: &install, now };
    let task = tasks.set_state(&named.of.group, &named.task, state).await?;
    told(here, tasks, &task).await
}

pub(super) async fn run_now(here: &Here, named: Named) -> Done {
    let (install, store, now) = (here.install()?, here.store()?, Clock::new().wall());
    let tasks = Tasks { store: &store, install: &install, now };
    let (task, fire) = tasks.fire_now(&named.of.group, &named.task).await?;
    let up = here.tell_host(&FromClient::TasksChanged).await;
    let when = if up { "fires now" } else { "fires when the host starts" };
    let text = format!(
        "{} {:?} {when} ({fire}); `lazaret tasks history {}` shows what became of it",
        task.id, task.name, task.id
    );
    here.print(&json!({ "task": task.id.to_string(), "fire": fire.to_string(), "host": up }), text);
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn history(here: &Here, history: History) -> Done {
    let (install, store, now) = (here.install()?, here.store_to_read()?, Clock::new().wall());
    let tasks = Tasks { store: &store, install: &install, now };
    let task = tasks.find(&history.named.of.group, &history.named.task).await?;
    let shown = tasks.history(&task, history.count).await?;
    let lines: Vec<String> = shown["fires"].as_array().into_iter().flatten().map(fire_line).collect();
    let none = format!("{} has not fired yet", task.id);
    here.print(&shown, if lines.is_empty() { none } else { lines.join("\n") });
    Ok(ExitCode::SUCCESS)
}

/// The same limits that an agent's request has.
fn checked<R: RequestArgs>(request: R) -> Result<R, CliError> {
    request.check().map_err(|refusal| CliError::Plain(refusal.reason))?;
    Ok(request)
}

/// The chat that gets the replies if the person names none.
async fn only_chat(tasks: Tasks<'_>, group: &GroupName) -> Result<ChatId, CliError> {
    let several = match tasks.only_chat(group).await? {
        Ok(one) => return Ok(one),
        Err(several) => several,
    };
    if several.is_empty() {
        let why = format!("group {group} has no chat to post to; `lazaret groups admit` gives it one");
        return Err(CliError::Plain(why));
    }
    let names: Vec<String> = several.iter().map(ToString::to_string).collect();
    let all = names.join(", ");
    Err(CliError::Plain(format!("group {group} has the chats {all}; name one with --chat")))
}

/// Tells the running host, and prints the task.
async fn told(here: &Here, tasks: Tasks<'_>, task: &Task) -> Done {
    here.tell_host(&FromClient::TasksChanged).await;
    let shown = tasks.shown(task);
    here.print(&shown, line(&shown));
    Ok(ExitCode::SUCCESS)
}

fn word<'a>(shown: &'a Value, field: &str) -> &'a str {
    shown[field].as_str().unwrap_or_default()
}

/// A task in three lines: its id, group and name; its schedule; its next fire, or its state.
fn line(shown: &Value) -> String {
    let next = match shown["next"].as_str() {
        Some(next) => format!("next: {next}"),
        None => word(shown, "state").to_owned(),
    };
    let (name, group) = (safe(word(shown, "name")), word(shown, "group"));
    format!("{}  {group}  {name}\n    {}\n    {next}", word(shown, "task"), word(shown, "schedule"))
}

fn details(shown: &Value) -> String {
    let rows = shown.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    let rows = rows.map(|(key, value)| match value.as_str() {
        Some(text) => format!("{key:<9} {}", safe(text)),
        None => format!("{key:<9} {value}"),
    });
    rows.collect::<Vec<_>>().join("\n")
}

fn fire_line(fire: &Value) -> String {
    let why = fire["why"].as_str().map_or_else(String::new, |why| format!(" ({})", safe(why)));
    let took = fire["took_s"].as_u64().map_or_else(String::new, |s| format!("  {s} s"));
    let tokens = fire["tokens"]
        .as_u64()
        .filter(|n| *n > 0)
        .map_or_else(String::new, |n| format!("  {n} tokens  {}", word(fire, "cost")));
    let reply = fire["reply"]
        .as_str()
        .map_or_else(String::new, |said| format!("\n    {}", safe(said.lines().next().unwrap_or_default())));
    format!(
        "{}  {}  {}{why}{took}{tokens}{reply}",
        word(fire, "fire"),
        word(fire, "planned"),
        word(fire, "outcome")
    )
}
