//! Tasks and their fires: each planned time has one row, whoever plans it and how often.

use super::*;
use crate::domain::task::{AgentWork, Overlap, Task, TaskContext, TaskOrigin, TaskState, Work};
use crate::domain::{TaskId, Zone};
use crate::policy::task_fires::SPREAD;
use crate::policy::task_request::TaskRefusal;
use crate::schedule::Schedule;
use crate::store::due_fires::Opened;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
/// A full hour.
pub(super) const NOON: WallMs = WallMs(1_795_435_200_000);
const LIMIT: u32 = 50;

fn at(after_noon: i64) -> WallMs {
    WallMs(NOON.0 + after_noon)
}

/// A task of the family that was made at noon.
pub(super) fn task(name: &str, schedule: &str, work: Work) -> Task {
    let next = Schedule::from_canonical(schedule).unwrap().next(&Zone::utc(), NOON);
    Task {
        id: TaskId(0),
        group: family(),
        name: name.into(),
        chat: chat("telegram:-1"),
        work,
        prompt: format!("What {name} is for."),
        schedule: schedule.into(),
        zone: "UTC".into(),
        catch_up: Duration::from_secs(12 * 3600),
        overlap: Overlap::Skip,
        ends_at: None,
        left: None,
        origin: TaskOrigin { by: "m-1".into(), depth: 0 },
        state: TaskState::Active,
        after: NOON,
        next_at: next,
    }
}

pub(super) fn isolated() -> Work {
    Work::Agent(AgentWork::default())
}

pub(super) fn in_conversation() -> Work {
    Work::Agent(AgentWork { context: TaskContext::Group, ..AgentWork::default() })
}

const HOURLY: &str = "cron 0 * * * *";
pub(super) const MINUTELY: &str = "cron * * * * *";

fn zones(_: &str) -> Option<Zone> {
    Some(Zone::utc())
}

async fn add(store: &Store, task: Task) -> Task {
    let adding = Adding { limit: LIMIT, made_in: None };
    store.add_task(task, adding, NOON).await.unwrap().unwrap()
}

/// What the scheduler does when it looks.
pub(super) async fn looks(store: &Store, now: WallMs) -> Opened {
    loop {
        let tasks = store.tasks_to_plan(now).await.unwrap();
        if tasks.is_empty() {
            return store.open_fires(now, zones).await.unwrap();
        }
        for task in tasks {
            let schedule = Schedule::from_canonical(&task.schedule).unwrap();
            while store.plan_fires(task.id, schedule.clone(), Zone::utc(), now, WallMs(0)).await.unwrap() {}
        }
    }
}

/// The fires of a task, the oldest first: minutes after noon, and what became of them.
async fn history(store: &Store, task: &Task) -> Vec<(i64, String)> {
    let fires = store.fires(task.id, 10_000).await.unwrap();
    fires.into_iter().rev().map(|fire| ((fire.planned.0 - NOON.0) / MINUTE, fire.state)).collect()
}

fn rows(states: &[(i64, &str)]) -> Vec<(i64, String)> {
    states.iter().map(|(minute, state)| (*minute, (*state).to_owned())).collect()
}

#[tokio::test]
async fn a_planned_time_has_one_fire_also_when_the_clock_shows_it_twice() {
    let h = house().await;
    let news = add(&h.store, task("news", HOURLY, isolated())).await;
    assert_eq!(looks(&h.store, at(HOUR)).await.lanes, [Lane::task(family(), news.id)]);
    assert_eq!(looks(&h.store, at(HOUR)).await, Opened::default(), "nothing is new");
    // The clock goes back, and shows one o'clock again.
    for now in [10 * MINUTE, 30 * MINUTE, HOUR] {
        looks(&h.store, at(now)).await;
        assert_eq!(history(&h.store, &news).await, rows(&[(60, "open")]));
    }
    looks(&h.store, at(2 * HOUR)).await;
    assert_eq!(history(&h.store, &news).await, rows(&[(60, "open"), (120, "skipped")]));
}

#[tokio::test]
async fn two_hosts_that_plan_at_once_make_one_fire_and_one_turn() {
    let h = house().await;
    let news = add(&h.store, task("news", HOURLY, isolated())).await;
    let beside = Store::open_for_command(&h._dir.path().join("lazaret.db")).unwrap();
    let found =
        [h.store.tasks_to_plan(at(HOUR)).await.unwrap(), beside.tasks_to_plan(at(HOUR)).await.unwrap()];
    assert_eq!(found[0], found[1], "both have seen that it is due");
    for store in [&h.store, &beside] {
        let schedule = Schedule::from_canonical(HOURLY).unwrap();
        assert!(!store.plan_fires(news.id, schedule, Zone::utc(), at(HOUR), WallMs(0)).await.unwrap());
    }
    let (here, there) = tokio::join!(h.store.open_fires(at(HOUR), zones), beside.open_fires(at(HOUR), zones));
    assert_eq!(here.unwrap().lanes.len() + there.unwrap().lanes.len(), 1);
    assert_eq!(history(&beside, &news).await, rows(&[(60, "open")]));
}

#[tokio::test]
async fn a_change_that_crosses_with_a_fire_is_made_on_what_the_fire_left() {
    let h = house().await;
    let before = add(&h.store, task("news", HOURLY, isolated())).await;
    looks(&h.store, at(HOUR)).await;
    let paused = |task: &Task| Task { state: TaskState::Paused, next_at: None, ..task.clone() };
    assert_eq!(
        h.store.change_task(before.clone(), paused(&before), NOON).await.unwrap(),
        None,
        "it has fired since"
    );
    let now = h.store.find_task(family(), "news".into()).await.unwrap().unwrap();
    assert_eq!((now.after, now.next_at), (at(HOUR), Some(at(2 * HOUR))));
    assert_eq!(h.store.change_task(now.clone(), paused(&now), NOON).await.unwrap(), Some(Ok(paused(&now))));
    // The scheduler has read the task before it was paused.
    let schedule = Schedule::from_canonical(HOURLY).unwrap();
    h.store.plan_fires(now.id, schedule, Zone::utc(), at(2 * HOUR), WallMs(0)).await.unwrap();
    assert_eq!(history(&h.store, &now).await, rows(&[(60, "open")]), "a paused task does not fire");
    assert_eq!(h.store.next_fire_at().await.unwrap(), None);
}

#[tokio::test]
async fn a_schedule_that_changed_meanwhile_is_not_planned_by_the_old_one() {
    let h = house().await;
    let before = add(&h.store, task("news", MINUTELY, isolated())).await;
    let after = Task { schedule: HOURLY.into(), next_at: Some(at(HOUR)), ..before.clone() };
    h.store.change_task(before.clone(), after.clone(), NOON).await.unwrap().unwrap().unwrap();
    let old = Schedule::from_canonical(MINUTELY).unwrap();
    h.store.plan_fires(before.id, old, Zone::utc(), at(HOUR), WallMs(0)).await.unwrap();
    assert_eq!(history(&h.store, &after).await, rows(&[]));
    looks(&h.store, at(HOUR)).await;
    assert_eq!(history(&h.store, &after).await, rows(&[(60, "open")]));
}

#[tokio::test]
async fn after_a_night_each_task_is_caught_up_once_and_one_after_another() {
    let h = house().await;
    let mut tasks = Vec::new();
    for name in ["news", "weather", "stocks"] {
        tasks.push(add(&h.store, task(name, HOURLY, isolated())).await);
    }
    // Eight hours later, at twenty past.
    let back = at(8 * HOUR + 20 * MINUTE);
    let spread = i64::try_from(SPREAD.as_millis()).unwrap();
    for n in 0..3 {
        let opened = looks(&h.store, WallMs(back.0 + n * spread)).await;
        assert_eq!(opened.lanes.len(), 1, "one after another");
        let next = if n < 2 { WallMs(back.0 + (n + 1) * spread) } else { at(9 * HOUR) };
        assert_eq!(h.store.next_fire_at().await.unwrap(), Some(next));
    }
    for task in &tasks {
        let history = history(&h.store, task).await;
        let (last, missed) = history.split_last().unwrap();
        assert!(missed.len() == 7 && missed.iter().all(|(_, state)| state == "missed"), "{history:?}");
        assert_eq!(*last, (480, "open".to_owned()));
    }
}

#[tokio::test]
async fn a_reminder_is_posted_once_and_as_a_reply() {
    let h = house().await;
    let stretch = add(&h.store, task("stretch", "once 2026-11-23T12:01:00Z", Work::Remind)).await;
    assert!(looks(&h.store, at(MINUTE)).await.said);
    assert!(!looks(&h.store, at(MINUTE)).await.said);
    let NextPart::Part(part) = h.store.claim(chat("telegram:-1"), TERMS, at(MINUTE)).await.unwrap() else {
        panic!()
    };
    assert_eq!((part.voice, part.text.as_str()), (Voice::Reply, "What stretch is for."));
    h.store.settle(*part, SendOutcome::Arrived("1".into()), TERMS.retry, at(MINUTE)).await.unwrap();
    assert_eq!(h.said("telegram:-1").await, [""; 0]);
    assert_eq!(history(&h.store, &stretch).await, rows(&[(1, "ran")]));
    let ended = h.store.find_task(family(), "stretch".into()).await.unwrap().unwrap();
    assert_eq!(ended.state, TaskState::Done);
    assert_eq!(h.store.tasks(Some(family()), false).await.unwrap(), []);
    assert_eq!(h.store.tasks(Some(family()), true).await.unwrap(), [ended]);
}

#[tokio::test]
async fn reminders_may_have_one_name_and_tasks_may_not() {
    let h = house().await;
    for _ in 0..2 {
        add(&h.store, task("stretch", HOURLY, Work::Remind)).await;
    }
    let mine = add(&h.store, task("stretch", HOURLY, isolated())).await;
    let adding = || Adding { limit: LIMIT, made_in: None };
    let again = h.store.add_task(task("stretch", HOURLY, isolated()), adding(), NOON).await.unwrap();
    assert_eq!(again, Err(TaskRefusal::NameTaken { name: "stretch".into(), id: mine.id }));
    let cancelled = Task { state: TaskState::Cancelled, next_at: None, ..mine.clone() };
    h.store.change_task(mine, cancelled, NOON).await.unwrap().unwrap().unwrap();
    add(&h.store, task("stretch", HOURLY, isolated())).await;
    let full =
        h.store.add_task(task("more", HOURLY, isolated()), Adding { limit: 3, made_in: None }, NOON).await;
    assert_eq!(full.unwrap(), Err(TaskRefusal::TooMany { limit: 3 }));
}

#[tokio::test]
async fn a_request_that_is_performed_twice_makes_one_task() {
    let h = house().await;
    let adding = || Adding { limit: LIMIT, made_in: Some((TurnId(1), "t-1:2.0".into())) };
    let made = h.store.add_task(task("news", HOURLY, isolated()), adding(), NOON).await.unwrap();
    let again = h.store.add_task(task("news", HOURLY, isolated()), adding(), NOON).await.unwrap();
    assert_eq!((made.unwrap(), h.store.tasks(None, true).await.unwrap().len()), (again.unwrap(), 1));
}

#[tokio::test]
async fn a_scheduled_turn_makes_five_tasks_and_what_they_make_makes_none() {
    let h = house().await;
    let news = add(&h.store, task("news", HOURLY, isolated())).await;
    let makes = async |maker: &Task, n: u32| {
        let turn = h.store.open_turn(maker.lane()).await.unwrap().unwrap().turn;
        let asking = h.store.asking_turn(turn).await.unwrap();
        let origin = TaskOrigin { by: asking.by, depth: u32::from(asking.depth.is_some()) };
        let child = Task { origin, ..task(&format!("child {n} of {}", maker.name), HOURLY, isolated()) };
        let adding = Adding { limit: LIMIT, made_in: Some((turn, format!("{turn}:{n}"))) };
        h.store.add_task(child, adding, NOON).await.unwrap()
    };
    looks(&h.store, at(HOUR)).await;
    let mut children = Vec::new();
    for n in 1..=5 {
        children.push(makes(&news, n).await.unwrap());
    }
    assert_eq!(children[0].origin, TaskOrigin { by: "f-1".into(), depth: 1 });
    assert_eq!(makes(&news, 6).await, Err(TaskRefusal::TooManyInTurn));
    looks(&h.store, at(2 * HOUR)).await;
    assert_eq!(makes(&children[0], 1).await, Err(TaskRefusal::TooDeep));
}

#[tokio::test]
async fn an_order_to_fire_now_makes_one_fire_and_three_orders_make_three() {
    let h = house().await;
    let news = add(&h.store, task("news", HOURLY, in_conversation())).await;
    let mut fires = Vec::new();
    for moment in [1, 1, 2, 3] {
        fires.push(h.store.fire_now(news.id, at(moment)).await.unwrap());
    }
    assert!(fires[0] == fires[1] && fires[1] < fires[2] && fires[2] < fires[3], "{fires:?}");
    assert_eq!(looks(&h.store, at(3)).await.lanes, [lane()], "one works, and two wait for it");
    let states: Vec<_> = history(&h.store, &news).await.into_iter().map(|(_, state)| state).collect();
    assert_eq!(states, ["open", "due", "due"]);
}

#[tokio::test]
async fn a_person_goes_before_a_fire_that_waits() {
    let mut h = house().await;
    let news = add(&h.store, task("news", HOURLY, in_conversation())).await;
    h.wakes("telegram:-1", "hello").await;
    assert_eq!(looks(&h.store, at(HOUR)).await.lanes, [], "the conversation works");
    h.wakes("telegram:-2", "me too").await;
    h.starts(RUN).await;
    h.is_given(RUN).await;
    h.takes(1, 2, Some(TurnId(1)), done("hi")).await;
    assert_eq!(h.store.open_turn(lane()).await.unwrap().unwrap().chat, chat("telegram:-2"));
    h.is_given(RUN).await;
    h.takes_from(
        RUN,
        2,
        3,
        Some(TurnId(2)),
        "t-2:1.0",
        TakenEffect::TurnDone {
            end: TurnEnd { state: "done", why: "finished".into() },
            texts: vec![],
            if_silent: None,
        },
    )
    .await;
    assert_eq!(history(&h.store, &news).await, rows(&[(60, "open")]));
    assert_eq!(h.store.asking_turn(TurnId(3)).await.unwrap().by, "f-1");
}

#[tokio::test]
async fn what_waits_for_its_turn_does_not_come_after_the_task_was_cancelled() {
    let mut h = house().await;
    let news = add(&h.store, task("news", HOURLY, in_conversation())).await;
    h.wakes("telegram:-1", "hello").await;
    looks(&h.store, at(HOUR)).await;
    let before = h.store.find_task(family(), "news".into()).await.unwrap().unwrap();
    let after = Task { state: TaskState::Cancelled, next_at: None, ..before.clone() };
    h.store.change_task(before, after, at(HOUR)).await.unwrap().unwrap().unwrap();
    h.starts(RUN).await;
    h.is_given(RUN).await;
    assert_eq!(h.takes(1, 2, Some(TurnId(1)), done("hi")).await, Taken::Closed { next: None });
    let fire = h.store.fires(news.id, 1).await.unwrap().remove(0);
    assert_eq!((fire.state.as_str(), fire.why.as_deref()), ("skipped", Some("cancelled")));
    assert_eq!(looks(&h.store, at(2 * HOUR)).await, Opened::default());
}

#[tokio::test]
async fn a_task_whose_chat_is_gone_is_paused_and_says_so_where_the_owner_is() {
    let h = house().await;
    let main: GroupName = "main".parse().unwrap();
    let (direct, by, title) = (chat("telegram:5"), "test".to_owned(), "Ann".to_owned());
    h.store.group(&main, NOON).await.unwrap();
    let admission = Admission { chat: direct, group: main, kind: ChatKind::Direct, title, by, now: NOON };
    h.store.admit_chat(admission).await.unwrap();
    let news = add(&h.store, task("news", HOURLY, isolated())).await;
    h.store.revoke_chat(chat("telegram:-1"), "t".into(), NOON).await.unwrap();
    assert!(looks(&h.store, at(HOUR)).await.said);
    let fire = h.store.fires(news.id, 1).await.unwrap().remove(0);
    assert_eq!((fire.state.as_str(), fire.why.as_deref()), ("failed", Some("chat.gone")));
    let told = h.said("telegram:5").await;
    assert!(told.len() == 1 && told[0].contains("posts to telegram:-1"), "{told:?}");
    assert_eq!(h.store.find_task(family(), "news".into()).await.unwrap().unwrap().state, TaskState::Paused);
}

#[tokio::test]
async fn old_fires_go_and_what_is_not_over_stays() {
    let h = house().await;
    let news = add(&h.store, task("news", MINUTELY, isolated())).await;
    looks(&h.store, at(2 * HOUR)).await;
    let history = async || history(&h.store, &news).await;
    assert_eq!(history().await.len(), 120);
    let mut cleared = Cleared::default();
    let (now, keep) = (at(100 * 24 * HOUR), WallMs(0));
    while !cleared.is_done() {
        cleared = h.store.clear(cleared, keep, keep, now).await.unwrap();
    }
    assert_eq!((cleared.rows, history().await), (119, rows(&[(120, "open")])));
}
