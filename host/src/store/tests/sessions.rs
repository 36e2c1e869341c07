//! The names of sessions, and what `begin` lists of a turn's letters.

use super::*;
use crate::domain::{Session, TaskId};

async fn session(h: &House, lane: &Lane) -> Session {
    h.store.begin_state(lane.clone()).await.unwrap().session
}

async fn runs_once(h: &House, run: &str, lane: &Lane, name: &str) {
    let run: RunId = run.parse().unwrap();
    let new = NewRun {
        run: run.clone(),
        lane: lane.clone(),
        session: name.into(),
        image: "i".into(),
        runner: "r".into(),
        now: T,
    };
    h.store.new_run(new).await.unwrap();
    h.store.collect(run, lane.clone(), Ending::Finished, T).await.unwrap();
}

#[tokio::test]
async fn g3_a_session_has_a_name_that_its_first_run_gives_it() {
    let mut h = house().await;
    let (lane, task) = (lane(), Lane::task(family(), TaskId(3)));
    let first = session(&h, &lane).await;
    assert!(!first.begun && first.name.starts_with("conversation-1-"));
    assert_ne!(session(&h, &lane).await, first, "nobody knows it before");
    assert!(session(&h, &task).await.name.starts_with("task-3-t-0-"));
    runs_once(&h, RUN, &lane, &first.name).await;
    let again = session(&h, &lane).await;
    assert!(again.begun && again.name == first.name);

    h.writes("telegram:-1", "/new", Role::Command(Command::New)).await;
    let second = session(&h, &lane).await;
    assert!(!second.begun && second.name.starts_with("conversation-2-"));
    // A run of an earlier version gave its session a name that could be guessed.
    runs_once(&h, RUN2, &lane, "conversation-2").await;
    assert_eq!(session(&h, &lane).await, Session { name: "conversation-2".into(), begun: true });
    h.writes("telegram:-1", "/new", Role::Command(Command::New)).await;
    assert!(!session(&h, &lane).await.begun);
}

#[tokio::test]
async fn g5_begin_lists_only_letters_that_a_runner_would_repeat_and_no_more_than_fit() {
    let mut h = house().await;
    h.wakes("telegram:-1", "one").await;
    h.starts(RUN).await;
    h.is_given(RUN).await;
    let long = |n: u64| format!("t-1:{n}-{}", "x".repeat(140));
    let turn = Some(TurnId(1));
    let request = || TakenEffect::Request { kind: "react".into(), body: "{}".into(), limit: 10_000 };
    let message = || TakenEffect::Message { outgoing: reply("working", "t-1:3.0"), limit: 50 };
    for n in 1..=900 {
        let (id, effect) = match n % 3 {
            0 => (long(n), request()),
            1 => (long(n), TakenEffect::Nothing),
            _ if n == 899 => ("t-1:zzz".to_owned(), message()),
            _ => (format!("run:{n}"), TakenEffect::Nothing),
        };
        h.takes_from(RUN, n, 1, turn, &id, effect).await;
    }
    let (run, id) = (RUN.parse().unwrap(), long(900).parse().unwrap());
    let result = serde_json::json!({ "answer": "\u{1}".repeat(64 << 10) });
    let letter = h.store.verdict(run, TurnId(1), id, Verdict::Ok { result }, T).await.unwrap();
    assert!(letter.bytes.len() as u64 <= ipc_schema::LETTER_MAX_BYTES, "an answer fits as well");
    let ids = h.store.begin_state(lane()).await.unwrap().open.unwrap().1;
    assert_eq!(ids[0].as_str(), "t-1:zzz", "messages first");
    let asked = ids[1..].iter().all(|id| id.as_str().starts_with("t-1:") && id.as_str().len() > 140);
    assert!(asked && (200..300).contains(&ids.len()), "{}", ids.len());
}
