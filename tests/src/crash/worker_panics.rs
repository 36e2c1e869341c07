//! Makes workers of the host panic. The person still gets an answer from the same host, and `lazaret status` counts the
//! panic. Five panics end the host with an error, and the next host continues the work.

use std::time::Duration;

use crate::telegram::{Chat, Person};
use crate::world::{Engine, World};

/// For each kind of worker between a message and its answer: a failpoint, and the hit at which the worker panics.
const WORKERS: [(&str, &str, u64); 7] = [
    ("a run", "run.input.written", 1),
    ("the loop of a run", "run.event", 4),
    ("the gateway of a run", "gateway.accept.after", 1),
    ("the store", "store.tx2.begin", 1),
    ("the delivery to a chat", "delivery.send.before", 1),
    ("the delivery of a channel", "delivery.look", 3),
    ("the poll of a channel", "channel.poll.after", 2),
];

/// The host waits 1, 2, 4 and 8 seconds after the first four panics.
const ENDS_WITHIN: Duration = Duration::from_secs(40);

/// Makes each kind of worker panic.
pub async fn panics() {
    for (worker, place, hit) in WORKERS {
        goes_on(place, hit).await;
        eprintln!("{worker} panicked, and the host continued");
    }
    five_end_the_host().await;
    eprintln!("five panics ended the host, and the next host continued");
}

async fn goes_on(place: &str, hit: u64) {
    let (mut world, ann, direct) = ann_with(&format!("{place}={hit}*panic")).await;
    let pid = world.host().pid();
    // A worker may reach a failpoint in a loop with the first message or with a later one.
    for n in 1..=3 {
        asks(&world, &ann, &direct, n).await;
    }
    let status = world.lazaret(&["status"]).await;
    assert!(
        status.contains("worker_panics 1"),
        "one panic at {place} was expected:\n{status}\n{}",
        world.log()
    );
    assert_eq!(world.host().pid(), pid, "the host was not replaced");
    assert!(!world.host().has_ended(), "{}", world.log());
    world.stop_host().await;
}

async fn five_end_the_host() {
    let rules: Vec<String> = (1..=5).map(|hit| format!("delivery.look={hit}*panic")).collect();
    let (mut world, ann, direct) = ann_with(&rules.join(";")).await;
    ann.says(&direct, "question 1");
    let ended = async {
        while !world.host().has_ended() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(ENDS_WITHIN, ended).await.is_ok(), "the host still runs after five panics");
    assert_eq!(world.try_stop().await, Some(1), "{}", world.log());
    world.unset(failpoint::RULES).up().await;
    hears(&world, &direct, "answer 1").await;
    let status = world.lazaret(&["status"]).await;
    assert!(status.contains("worker_panics 5"), "{status}");
    world.stop_host().await;
}

async fn ann_with(rules: &str) -> (World, Person, Chat) {
    let settings = [(failpoint::RULES, rules)];
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &settings).await;
    for n in 1..=3 {
        world.model.on(&format!("question {n}")).says(&format!("answer {n}"));
    }
    (world, ann, direct)
}

async fn asks(world: &World, ann: &Person, direct: &Chat, n: u32) {
    ann.says(direct, &format!("question {n}"));
    hears(world, direct, &format!("answer {n}")).await;
}

async fn hears(world: &World, chat: &Chat, text: &str) {
    world.soon(&format!("{text:?} is heard"), async { while chat.hears().await != text {} }).await;
}
