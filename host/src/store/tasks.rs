//! Tasks as rows.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Params, Row, params, params_from_iter};

use super::{Result, Store, StoreError, id, int, parse};
use crate::domain::task::{AgentWork, Overlap, Task, TaskContext, TaskOrigin, TaskState, Work};
use crate::domain::{ChatId, GroupName, MessageSeq, TaskId, TurnId, WallMs};
use crate::policy::task_request::{Quota, TaskRefusal, check_quota};

const FIELDS: &str = "SELECT id, grp, name, chat, remind, prompt, schedule, zone, isolated, gate, silent, model, \
    model_calls, catch_up, overlap, ends_at, fires_left, made_by, depth, state, planned_to, next_at FROM task";

/// How many ended tasks a list shows.
const ENDED_LISTED: u32 = 100;

/// How a task is added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Adding {
    /// The most active and paused tasks of the group.
    pub limit: u32,
    /// The turn and the request that make it. The host may perform the request twice.
    pub made_in: Option<(TurnId, String)>,
}

/// A task that was made or changed, or why not.
pub type TaskVerdict = std::result::Result<Task, TaskRefusal>;

/// Who asks in a turn: the message or the fire that caused it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskingTurn {
    /// `m-12`, `f-3`.
    pub by: String,
    pub chat: ChatId,
    /// The depth of the task that the turn works for.
    pub depth: Option<u32>,
}

impl Store {
    /// Adds a task, unless a quota, its name or its chat forbids it. A request that made one before gets that one.
    pub async fn add_task(&self, task: Task, adding: Adding, now: WallMs) -> Result<TaskVerdict> {
        self.write(move |c| {
            failpoint!("store.task.add", super::injected);
            let made_in = adding.made_in.as_ref().map(|(turn, request)| format!("{turn} {request}"));
            if let Some(made_in) = &made_in
                && let Some(task) = select(c, "WHERE made_in = ?1", [made_in])?.pop()
            {
                return Ok(Ok(task));
            }
            let living = "task INDEXED BY task_living WHERE grp = ?1 AND state IN ('active', 'paused')";
            let quota = Quota {
                tasks: count(c, living, [task.group.as_str()])?,
                limit: adding.limit,
                by_fire: match &adding.made_in {
                    Some((turn, _)) => by_fire(c, *turn)?,
                    None => None,
                },
            };
            if let Err(refusal) = check_quota(quota) {
                return Ok(Err(refusal));
            }
            if let Some(refusal) = clash(c, &task)? {
                return Ok(Err(refusal));
            }
            let mut values = columns(&task);
            values.extend([made_in.into(), now.0.into()]);
            let sql = "INSERT INTO task(grp, name, chat, remind, prompt, schedule, zone, isolated, gate, silent, model,
                         model_calls, catch_up, overlap, ends_at, fires_left, made_by, depth, state, planned_to, next_at,
                         made_in, created_at)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,
                         ?21, ?22, ?23) RETURNING id";
            let new: i64 = c.query_row(sql, params_from_iter(values), |r| r.get(0))?;
            let id = TaskId(id(new));
            Ok(Ok(Task { id, ..task }))
        })
        .await
    }

    /// Changes a task, if it is still as `before`. `None`: it has changed meanwhile. Fires of a task that is paused or
    /// cancelled do not begin any more.
    pub async fn change_task(&self, before: Task, after: Task, now: WallMs) -> Result<Option<TaskVerdict>> {
        self.write(move |c| {
            failpoint!("store.task.change", super::injected);
            if by_id(c, before.id)?.as_ref() != Some(&before) {
                return Ok(None);
            }
            if let Some(refusal) = clash(c, &after)? {
                return Ok(Some(Err(refusal)));
            }
            let mut values = columns(&after);
            values.push(int(after.id.0).into());
            let sql = "UPDATE task SET grp = ?1, name = ?2, chat = ?3, remind = ?4, prompt = ?5, schedule = ?6, zone = ?7,
                         isolated = ?8, gate = ?9, silent = ?10, model = ?11, model_calls = ?12, catch_up = ?13,
                         overlap = ?14, ends_at = ?15, fires_left = ?16, made_by = ?17, depth = ?18, state = ?19,
                         planned_to = ?20, next_at = ?21 WHERE id = ?22";
            c.execute(sql, params_from_iter(values))?;
            if after.state != TaskState::Active {
                let sql = "UPDATE fire INDEXED BY fire_unfinished SET state = 'ended', outcome = 'skipped', why = ?2, ended_at = ?3
                           WHERE task = ?1 AND state <> 'ended' AND state <> 'open'";
                c.execute(sql, params![int(after.id.0), after.state.word(), now.0])?;
            }
            Ok(Some(Ok(after)))
        })
        .await
    }

    /// Pauses a task whose row cannot be understood.
    pub async fn pause_task(&self, task: TaskId) -> Result<()> {
        self.write(move |c| pause(c, task)).await
    }

    /// The active and paused tasks of a group, or of all groups, in the order of their ids; with `ended` also those
    /// that ended last.
    pub async fn tasks(&self, group: Option<GroupName>, ended: bool) -> Result<Vec<Task>> {
        const LIVING: &str = "INDEXED BY task_living WHERE state IN ('active', 'paused')";
        const ENDED: &str = "WHERE state IN ('done', 'cancelled')";
        self.read(move |c| {
            let of = |which: &str, order: &str| match &group {
                Some(group) => select(c, &format!("{which} AND grp = ?1 {order}"), [group.as_str()]),
                None => select(c, &format!("{which} {order}"), []),
            };
            let mut tasks = of(LIVING, "")?;
            if ended {
                tasks.extend(of(ENDED, &format!("ORDER BY id DESC LIMIT {ENDED_LISTED}"))?);
            }
            tasks.sort_by(|a, b| (&a.group, a.id).cmp(&(&b.group, b.id)));
            Ok(tasks)
        })
        .await
    }

    /// The active and paused tasks that the groups' files define.
    pub async fn heartbeats(&self) -> Result<Vec<Task>> {
        self.read(|c| {
            let which =
                "INDEXED BY task_from_file WHERE made_by = 'group.toml' AND state IN ('active', 'paused')
                         ORDER BY id";
            select(c, which, [])
        })
        .await
    }

    /// The task with this id, or the group's with this name. Of several with one name the newest, an active or paused
    /// one first.
    pub async fn find_task(&self, group: GroupName, asked: String) -> Result<Option<Task>> {
        self.read(move |c| {
            for index in ["task_living", "task_named"] {
                let living = if index == "task_living" { "AND state IN ('active', 'paused')" } else { "" };
                let by_name = format!(
                    "INDEXED BY {index} WHERE grp = ?1 AND name = ?2 {living} ORDER BY id DESC LIMIT 1"
                );
                if let Some(task) = select(c, &by_name, [group.as_str(), asked.trim()])?.pop() {
                    return Ok(Some(task));
                }
            }
            match asked.trim().parse() {
                Ok(task) => by_id(c, task),
                Err(_) => Ok(None),
            }
        })
        .await
    }

    /// What caused a turn, for the origin of a task that it makes. If a person's message has joined the turn of a fire,
    /// the person is the cause.
    pub async fn asking_turn(&self, turn: TurnId) -> Result<AskingTurn> {
        self.read(move |c| {
            let sql = "SELECT (SELECT min(seq) FROM message WHERE turn = u.id AND role = 'wake'),
                         coalesce('f-' || u.fire, 't-' || u.id), t.depth, u.chat
                       FROM turn u LEFT JOIN fire f ON f.id = u.fire LEFT JOIN task t ON t.id = f.task WHERE u.id = ?1";
            let row = c.query_row(sql, [int(turn.0)], |r| {
                let first = r.get::<_, Option<i64>>(0)?.map(|seq| MessageSeq(id(seq)).to_string());
                Ok((first, r.get::<_, String>(1)?, r.get(2)?, r.get::<_, String>(3)?))
            });
            let Some((person, cause, depth, chat)) = row.optional()? else {
                return Err(StoreError::Rule(format!("there is no {turn}")));
            };
            let chat = parse("turn.chat", &chat)?;
            Ok(match person {
                Some(by) => AskingTurn { by, depth: None, chat },
                None => AskingTurn { by: cause, depth, chat },
            })
        })
        .await
    }
}

pub(super) fn pause(c: &Connection, task: TaskId) -> Result<()> {
    c.execute("UPDATE task SET state = 'paused', next_at = NULL WHERE id = ?1", [int(task.0)])?;
    Ok(())
}

/// The depth of the task whose fire caused a turn, and how many tasks the turn has made. The limits are for turns
/// without a person: somebody whose message joins the turn may ask for any task.
fn by_fire(c: &Connection, turn: TurnId) -> Result<Option<(u32, u64)>> {
    let sql = "SELECT t.depth, f.id FROM turn u JOIN fire f ON f.id = u.fire JOIN task t ON t.id = f.task
               WHERE u.id = ?1 AND NOT EXISTS (SELECT 1 FROM message WHERE turn = u.id AND role = 'wake')";
    let row = c.query_row(sql, [int(turn.0)], |r| Ok((r.get(0)?, r.get::<_, i64>(1)?))).optional()?;
    let Some((depth, _)) = row else { return Ok(None) };
    let prefix = format!("{turn} ");
    let made = count(c, "task WHERE made_in >= ?1 AND made_in < ?2", [&prefix, &format!("{turn}!")])?;
    Ok(Some((depth, made)))
}

/// What in the store forbids the task: its name, or its chat. Reminders may have one name.
fn clash(c: &Connection, task: &Task) -> Result<Option<TaskRefusal>> {
    if task.work != Work::Remind {
        let sql = "SELECT id FROM task INDEXED BY task_name
                   WHERE grp = ?1 AND name = ?2 AND state IN ('active', 'paused') AND remind = 0 AND id <> ?3";
        let values = params![task.group.as_str(), task.name, int(task.id.0)];
        if let Some(other) = c.query_row(sql, values, |r| r.get::<_, i64>(0)).optional()? {
            return Ok(Some(TaskRefusal::NameTaken { name: task.name.clone(), id: TaskId(id(other)) }));
        }
    }
    if !has_chat(c, task)? {
        let (chat, group) = (task.chat.to_string(), task.group.clone());
        return Ok(Some(TaskRefusal::ChatElsewhere { chat, group }));
    }
    Ok(None)
}

/// Whether the task's chat is one of its group's.
pub(super) fn has_chat(c: &Connection, task: &Task) -> Result<bool> {
    let there = "chat WHERE id = ?1 AND grp = ?2 AND admitted_at > 0";
    Ok(count(c, there, [task.chat.as_str(), task.group.as_str()])? > 0)
}

fn count(c: &Connection, of: &str, params: impl Params) -> Result<u64> {
    Ok(id(c.prepare_cached(&format!("SELECT count(*) FROM {of}"))?.query_row(params, |r| r.get(0))?))
}

pub(super) fn by_id(c: &Connection, task: TaskId) -> Result<Option<Task>> {
    Ok(select(c, "WHERE id = ?1", [int(task.0)])?.pop())
}

pub(super) fn select(c: &Connection, which: &str, params: impl Params) -> Result<Vec<Task>> {
    let mut rows = c.prepare_cached(&format!("{FIELDS} {which}"))?;
    let mut found = rows.query(params)?;
    let mut tasks = Vec::new();
    while let Some(row) = found.next()? {
        tasks.push(task(row)?);
    }
    Ok(tasks)
}

fn task(r: &Row<'_>) -> Result<Task> {
    let text = |n| r.get::<_, String>(n);
    let work = if r.get(4)? {
        Work::Remind
    } else {
        Work::Agent(AgentWork {
            context: if r.get(8)? { TaskContext::Isolated } else { TaskContext::Group },
            gate: r.get(9)?,
            silent: r.get(10)?,
            model: r.get(11)?,
            model_calls: r.get(12)?,
        })
    };
    Ok(Task {
        id: TaskId(id(r.get(0)?)),
        group: parse("task.grp", &text(1)?)?,
        name: text(2)?,
        chat: parse("task.chat", &text(3)?)?,
        work,
        prompt: text(5)?,
        schedule: text(6)?,
        zone: text(7)?,
        catch_up: std::time::Duration::from_millis(id(r.get(13)?)),
        overlap: if text(14)? == "queue" { Overlap::Queue } else { Overlap::Skip },
        ends_at: r.get::<_, Option<i64>>(15)?.map(WallMs),
        left: r.get(16)?,
        origin: TaskOrigin { by: text(17)?, depth: r.get(18)? },
        state: parse("task.state", &text(19)?)?,
        after: WallMs(r.get(20)?),
        next_at: r.get::<_, Option<i64>>(21)?.map(WallMs),
    })
}

/// The columns of a task from `grp` to `next_at`, in the order of `FIELDS`.
fn columns(task: &Task) -> Vec<Value> {
    let none = AgentWork::default();
    let (remind, work) = match &task.work {
        Work::Agent(work) => (false, work),
        Work::Remind => (true, &none),
    };
    let overlap = match task.overlap {
        Overlap::Skip => "skip",
        Overlap::Queue => "queue",
    };
    vec![
        task.group.to_string().into(),
        task.name.clone().into(),
        task.chat.to_string().into(),
        remind.into(),
        task.prompt.clone().into(),
        task.schedule.clone().into(),
        task.zone.clone().into(),
        (work.context == TaskContext::Isolated).into(),
        work.gate.clone().into(),
        work.silent.into(),
        work.model.clone().into(),
        work.model_calls.map(i64::from).into(),
        i64::try_from(task.catch_up.as_millis()).unwrap_or(i64::MAX).into(),
        overlap.to_owned().into(),
        task.ends_at.map(|at| at.0).into(),
        task.left.map(i64::from).into(),
        task.origin.by.clone().into(),
        i64::from(task.origin.depth).into(),
        task.state.word().to_owned().into(),
        task.after.0.into(),
        task.next_at.map(|at| at.0).into(),
    ]
}
