//! A person whose message joins the turn of a fire is who asks in it.

use super::*;
use crate::domain::task::{AgentWork, Overlap, Task, TaskContext, TaskId, TaskOrigin, TaskState, Work};
use crate::policy::task_request::TaskRefusal;
use crate::store::tasks::Adding;

fn task(name: &str, depth: u32) -> Task {
    Task {
        id: TaskId(0),
        group: family(),
        name: name.to_owned(),
        chat: chat("telegram:-1"),
        work: Work::Agent(AgentWork { context: TaskContext::Group, ..AgentWork::default() }),
        prompt: "look".to_owned(),
        schedule: "cron 0 9 * * *".to_owned(),
        zone: "UTC".to_owned(),
        catch_up: Duration::ZERO,
        overlap: Overlap::Skip,
        ends_at: None,
        left: None,
        origin: TaskOrigin { by: "m-1".to_owned(), depth },
        state: TaskState::Active,
        after: T,
        next_at: None,
    }
}

#[tokio::test]
async fn who_joins_the_turn_of_a_fire_may_ask_for_any_task() {
    let mut h = house().await;
    h.wakes("telegram:-1", "hello").await;
    h.store.end_turn(lane(), InterruptWhy::Stop, None, T).await.unwrap();
    let adding = |made_in| Adding { limit: 50, made_in };
    let made = h.store.add_task(task("made by a task", 1), adding(None), T).await.unwrap().unwrap();
    h.store.fire_now(made.id, T).await.unwrap();
    h.store.open_fires(T, |_| None).await.unwrap();
    let asks = |request: &str| adding(Some((TurnId(2), request.to_owned())));
    let alone = h.store.asking_turn(TurnId(2)).await.unwrap();
    assert_eq!((alone.by.as_str(), alone.depth), ("f-1", Some(1)));
    assert_eq!(h.store.add_task(task("a", 2), asks("r-1"), T).await.unwrap(), Err(TaskRefusal::TooDeep));
    h.wakes("telegram:-1", "remind me").await;
    let joined = h.store.asking_turn(TurnId(2)).await.unwrap();
    assert_eq!((joined.by.as_str(), joined.depth), ("m-2", None));
    assert!(h.store.add_task(task("a", 0), asks("r-2"), T).await.unwrap().is_ok());
}
