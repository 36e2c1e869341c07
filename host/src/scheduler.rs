//! Lets tasks fire at their time. One worker holds one timer, for the next planned time of all tasks, and sleeps in
//! between. `policy::task_fires` decides what fires; the store makes one row for each planned time. Fires that are due
//! stay rows until their turn opens, so a host that dies here loses none.
//!
//! Heartbeats are tasks that a group's file defines. They are read from the files at the start and when a file changes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use crate::config::zone_data;
use crate::domain::task::Task;
use crate::domain::{WallMs, Zone};
use crate::intake::News;
use crate::policy::backoff::STORE_AGAIN;
use crate::schedule::Schedule;
use crate::services::Services;
use crate::store;
use crate::tasks::{Problem, Tasks};

/// Runs until the host drains.
pub async fn run(services: Arc<Services>, supervisor: UnboundedSender<News>, stop: CancellationToken) {
    let mut changes = services.tasks_signal.subscribe();
    let (mut changed, mut told) = (true, Vec::new());
    loop {
        changes.mark_unchanged();
        if changed {
            follow_files(&services, &mut told).await;
        }
        let wait = match fire_due(&services, &supervisor).await {
            Ok(wait) => wait,
            Err(e) => {
                tracing::error!(code = e.code(), "tasks wait for the store: {e}");
                Some(STORE_AGAIN)
            }
        };
        #[cfg(feature = "failpoints")]
        let wait = if crate::clock::driven::is_driven() { Some(Duration::from_millis(50)) } else { wait };
        let timer = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = timer => changed = false,
            change = changes.changed() => match change {
                Ok(()) => changed = true,
                Err(_) => return,
            },
            () = stop.cancelled() => return,
        }
    }
}

/// Brings the heartbeats of the groups' files into the store. What is wrong with them is logged once, in `told`.
async fn follow_files(services: &Services, told: &mut Vec<Problem>) {
    let (store, install) = (&services.store, &services.install);
    match (Tasks { store, install, now: services.clock.wall() }).follow_files().await {
        Ok(problems) => {
            for problem in problems.iter().filter(|problem| !told.contains(problem)) {
                tracing::error!(group = %problem.group, code = problem.code, "{problem}");
            }
            *told = problems;
        }
        Err(e) => tracing::error!(code = e.code(), "the groups' heartbeats wait for the store: {e}"),
    }
}

/// Plans and opens everything that is due. Returns how long nothing is due.
async fn fire_due(
    services: &Services,
    supervisor: &UnboundedSender<News>,
) -> store::Result<Option<Duration>> {
    failpoint!("scheduler.look");
    let store = &services.store;
    let now = services.clock.wall();
    let keep = services.install.file.keep.fires.0;
    let oldest = WallMs(now.0.saturating_sub(i64::try_from(keep.as_millis()).unwrap_or(i64::MAX)));
    loop {
        let tasks = store.tasks_to_plan(now).await?;
        if tasks.is_empty() {
            break;
        }
        for task in tasks {
            let Some((schedule, zone)) = rules(services, &task).await? else { continue };
            while store.plan_fires(task.id, schedule.clone(), zone.clone(), now, oldest).await? {}
        }
    }
    failpoint!("scheduler.planned");
    loop {
        let opened = store.open_fires(now, zone_data::get).await?;
        failpoint!("scheduler.opened");
        if opened.said {
            services.outbox_signal.notify();
        }
        for lane in opened.lanes {
            let _ = supervisor.send(News::Wake(lane));
        }
        if !opened.more {
            break;
        }
    }
    let next = store.next_fire_at().await?;
    Ok(next.map(|at| at.since(services.clock.wall())))
}

/// The schedule and the zone of a task. A task whose row cannot be understood is paused, so that it does not stop the
/// others.
async fn rules(services: &Services, task: &Task) -> store::Result<Option<(Schedule, Zone)>> {
    let zone = zone_data::named(&task.zone);
    match Schedule::from_canonical(&task.schedule).and_then(|schedule| Ok((schedule, zone?))) {
        Ok(rules) => Ok(Some(rules)),
        Err(e) => {
            tracing::error!(task = %task.id, code = e.code(), "the task is paused: {e}");
            services.store.pause_task(task.id).await?;
            Ok(None)
        }
    }
}
