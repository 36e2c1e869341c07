//! Opens the turns of fires that are due, and posts reminders.

use rusqlite::Connection;

use super::fires::{WAITS, end};
use super::groups::direct_chats_of_main;
use super::turns::happen;
use super::{Result, Store, id, int, outbox, tasks};
use crate::domain::outbound::{OutgoingText, Voice};
use crate::domain::task::{FireOutcome, Task, Work};
use crate::domain::{FireId, Lane, TaskId, WallMs, Zone};
use crate::text;
use crate::turns::{Collected, Event};

/// How many fires one transaction opens at most.
const OPENED_AT_ONCE: usize = 50;

/// What [`Store::open_fires`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// Lanes whose open turn wants a run.
    pub lanes: Vec<Lane>,
    /// Whether something was queued in the outbox.
    pub said: bool,
    /// Whether more fires are due.
    pub more: bool,
}

impl Store {
    /// Opens the turns of the fires that are due, as far as their lanes are free, and posts the reminders.
    pub async fn open_fires(&self, now: WallMs, zone: fn(&str) -> Option<Zone>) -> Result<Opened> {
        let opened = self
            .write(move |c| {
                failpoint!("store.fires.open", super::injected);
                let sql = "UPDATE fire INDEXED BY fire_waits SET state = 'due'
                           WHERE state IN ('later', 'due') AND state = 'later' AND not_before <= ?1";
                c.execute(sql, [now.0])?;
                open_due(c, now, zone)
            })
            .await?;
        failpoint!("store.fires.opened");
        Ok(opened)
    }
}

fn open_due(c: &Connection, now: WallMs, zone: fn(&str) -> Option<Zone>) -> Result<Opened> {
    let sql = format!(
        "SELECT id, task, planned, late FROM {WAITS} AND state = 'due' AND not_before <= ?1 ORDER BY not_before, id"
    );
    let mut rows = c.prepare(&sql)?;
    let rows = rows.query_map([now.0], |r| {
        Ok((FireId(id(r.get(0)?)), TaskId(id(r.get(1)?)), WallMs(r.get(2)?), r.get::<_, bool>(3)?))
    })?;
    let due = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut opened = Opened::default();
    let mut done = 0;
    for (fire, task, planned, late) in due {
        if done >= OPENED_AT_ONCE {
            opened.more = true;
            break;
        }
        let Some(task) = tasks::by_id(c, task)? else { continue };
        if !tasks::has_chat(c, &task)? {
            done += 1;
            opened.said = true;
            pause_without_chat(c, fire, &task, now)?;
            continue;
        }
        match &task.work {
            Work::Remind => {
                done += 1;
                opened.said = true;
                remind(c, fire, &task, planned, late, zone(&task.zone), now)?;
            }
            Work::Agent(_) => {
                let lane = task.lane();
                let changes = happen(c, &lane, &Event::Fire { fire, chat: &task.chat }, now)?;
                if Collected::of(&changes).next().is_some() {
                    done += 1;
                    opened.lanes.push(lane);
                }
            }
        }
    }
    Ok(opened)
}

/// Queues the text of a reminder. Its key is the fire, so that it is posted once. An agent may have written it, so it
/// is no notice of the host.
fn remind(
    c: &Connection,
    fire: FireId,
    task: &Task,
    planned: WallMs,
    late: bool,
    zone: Option<Zone>,
    now: WallMs,
) -> Result<()> {
    let words = text::without_internal(&task.prompt);
    if !words.trim().is_empty() {
        let text = match late {
            false => words.into_owned(),
            true => text::late_reminder(&words, &planned.local(&zone.unwrap_or_else(Zone::utc))),
        };
        let key = format!("reminder:{fire}");
        let outgoing =
            OutgoingText { voice: Voice::Reply, key, ..OutgoingText::notice(&task.chat, "", text) };
        outbox::say(c, None, &outgoing, now)?;
    }
    c.execute("UPDATE fire SET started_at = ?2 WHERE id = ?1", [int(fire.0), now.0])?;
    end(c, fire, if late { &FireOutcome::CaughtUp } else { &FireOutcome::Ran }, now)
}

fn pause_without_chat(c: &Connection, fire: FireId, task: &Task, now: WallMs) -> Result<()> {
    end(c, fire, &FireOutcome::Failed { why: "chat.gone".to_owned() }, now)?;
    tasks::pause(c, task.id)?;
    for chat in direct_chats_of_main(c)? {
        let text = text::task_without_chat(&task.name, task.chat.as_str());
        outbox::say(c, None, &OutgoingText::notice(&chat, &format!("task:{fire}"), text), now)?;
    }
    Ok(())
}
