//! A test kills, stops or replaces a host while its boxes run, and the next host adopts them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use hyper::Method;
use journeys::model::Gate;
use journeys::telegram::{Chat, Person};
use journeys::world::{Engine, World};
use serde_json::{Value, json};

/// Returns a command that reports its start, waits until the test creates a file, and reports its end.
fn patient() -> Value {
    let wait = "touch /workspace/began; while [ ! -e /workspace/go ]; do sleep 0.05; done; echo went";
    json!({ "command": wait })
}

/// Starts a world whose box runs the command of [`patient`]. The turn has no reply yet.
async fn world_with_a_long_job(engine: &Engine) -> (World, Person, Chat) {
    let (world, ann, direct) = World::ann_at_home(engine.clone(), &[]).await;
    world.model.on("a long job").runs("run_command", patient()).says("The job is done.");
    ann.says(&direct, "a long job, please");
    world.made_in_workspace("main", "began").await;
    (world, ann, direct)
}

fn go(world: &World, group: &str) {
    std::fs::write(world.in_workspace(group, "go"), "").unwrap();
}

async fn state_of(engine: &Engine, name: &str) -> Value {
    engine.ask(Method::GET, &format!("/containers/{name}/json"), None).await.json()["State"].clone()
}

/// Returns the id and the letters folder of the world's living run.
fn living_run(world: &World) -> (String, PathBuf) {
    let sql = "SELECT grp, id FROM run WHERE state <> 'ended'";
    let (group, run): (String, String) =
        world.database().query_row(sql, [], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
    let letters = world.root().join("state/ipc").join(group).join(&run);
    (run, letters)
}

#[tokio::test]
async fn a_host_is_killed_and_the_next_one_goes_on_with_its_box() {
    let engine = Engine::stand_in().await;
    let (mut world, ann, direct) = world_with_a_long_job(&engine).await;
    let boxes = world.boxes().await;
    world.kill_host().await;
    assert_eq!(state_of(&engine, &boxes[0]).await["Running"], true, "the box runs on without a host");

    world.up().await;
    go(&world, "main");
    assert_eq!(world.hears(&direct).await, "The job is done.");
    let told = world.model.tool_results();
    assert!(told.len() == 1 && told[0].contains("went"), "the command was not interrupted: {told:?}");
    let trace = world.settled("m-1").await;
    assert_eq!((&trace["turn"]["state"], &trace["turn"]["attempt"]), (&json!("done"), &json!(1)), "{trace}");
    assert_eq!((world.boxes().await, world.runs_of("main")), (boxes, 1));

    // From then on it is a box like any other.
    world.model.on("thank you").says("You are welcome.");
    ann.says(&direct, "thank you");
    assert_eq!(world.hears(&direct).await, "You are welcome.");
    assert_eq!(world.runs_of("main"), 1);
    assert!(direct.unheard().is_empty(), "nothing is said twice");
    world.finish().await;
}

#[tokio::test]
async fn what_a_box_says_while_no_host_is_there_is_read_by_the_next() {
    let (mut world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    world
        .model
        .on("a long job")
        .runs("run_command", patient())
        .and_runs("send_message", json!({ "text": "Half of it is done." }))
        .says("All of it is done.");
    ann.says(&direct, "a long job, please");
    world.made_in_workspace("main", "began").await;
    world.kill_host().await;
    let (_, letters) = living_run(&world);
    go(&world, "main");
    let said = async || {
        let names = std::fs::read_dir(letters.join("from-agent")).unwrap();
        names.flatten().any(|e| e.file_name().to_string_lossy().ends_with("-message.json")).then_some(())
    };
    world.patiently("the box has said something", said).await;
    world.up().await;
    assert_eq!(world.hears(&direct).await, "Half of it is done.");
    assert_eq!(world.hears(&direct).await, "All of it is done.");
    world.settled("m-1").await;
    assert!(direct.unheard().is_empty(), "{:?}", direct.unheard());
    assert_eq!(world.runs_of("main"), 1);
    world.finish().await;
}

#[tokio::test]
async fn a_box_that_died_with_its_host_costs_one_attempt() {
    let engine = Engine::stand_in().await;
    let (mut world, _, direct) = world_with_a_long_job(&engine).await;
    let boxes = world.boxes().await;
    world.kill_host().await;
    engine.ask(Method::POST, &format!("/containers/{}/kill", boxes[0]), None).await;

    world.up().await;
    assert_eq!(world.hears(&direct).await, "The job is done.");
    let told = world.model.tool_results();
    assert!(told.len() == 1 && told[0].contains("interrupted; it may have run"), "{told:?}");
    let trace = world.settled("m-1").await;
    assert_eq!(trace["turn"]["attempt"], json!(2), "{trace}");
    assert!(!world.boxes().await.contains(&boxes[0]), "the ended box is removed");
    assert!(direct.unheard().is_empty());
    world.finish().await;
}

/// The runner gave up while no host was there, and wrote `failed`. The next host reads the letter and writes nothing to
/// the box.
#[tokio::test]
async fn a_box_that_has_written_failed_is_collected_with_its_reason() {
    let engine = Engine::stand_in().await;
    let (mut world, _, direct) = world_with_a_long_job(&engine).await;
    let boxes = world.boxes().await;
    world.kill_host().await;
    engine.ask(Method::POST, &format!("/containers/{}/kill", boxes[0]), None).await;
    let (run, letters) = living_run(&world);
    let sql = "SELECT r.from_n, r.ack, g.uid FROM run r JOIN grp g ON g.name = r.grp WHERE r.id = ?1";
    let (taken, ack, uid): (i64, i64, u32) =
        world.database().query_row(sql, [&run], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).unwrap();
    let from = letters.join("from-agent");
    let left = std::fs::read_dir(&from).unwrap().flatten().count() as i64;
    let n = taken + left + 1;
    let body = json!({ "code": "host.unreachable", "reason": "no host came back" });
    let failed = json!({ "v": 1, "id": format!("r:{n}"), "run": run, "n": n, "ack": ack,
                         "at": "2026-11-21T10:00:00Z", "type": "failed", "body": body });
    let path = from.join(format!("{n:010}-failed.json"));
    std::fs::write(&path, failed.to_string()).unwrap();
    chown(&path, Some(uid), None).unwrap();

    world.up().await;
    assert_eq!(world.hears(&direct).await, "The job is done.");
    let trace = world.settled("m-1").await;
    let why = trace["turn"]["runs"][0]["why"].as_str().unwrap();
    assert!(why.contains("host.unreachable: no host came back"), "{trace}");
    world.finish().await;
}

/// The old host's runner is mounted into its boxes. The new host uses its new runner only for new runs.
#[tokio::test]
async fn a_box_of_the_older_runner_is_served_to_its_end() {
    let (mut world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    world.model.on("a long job").runs("run_command", patient()).says("The job is done.");
    ann.says(&direct, "a long job, please");
    world.made_in_workspace("main", "began").await;
    world.kill_host().await;

    // The new release is the same program with additional bytes.
    let runners = world.root().join("state/runner");
    let older = std::fs::read_dir(&runners).unwrap().flatten().next().unwrap().path().join("agent-runner");
    let mut newer = std::fs::read(&older).unwrap();
    newer.extend_from_slice(b"newer");
    world.write("agent-runner", "");
    let path = world.root().join("agent-runner");
    std::fs::write(&path, newer).unwrap();
    world.set("LAZARET_RUNNER", &path.to_string_lossy()).up().await;
    go(&world, "main");
    assert_eq!(world.hears(&direct).await, "The job is done.");
    assert_eq!(world.runs_of("main"), 1);
    assert_eq!(std::fs::read_dir(&runners).unwrap().count(), 2, "both are there");
    ann.says(&direct, "/new");
    assert!(world.hears(&direct).await.starts_with("[lazaret] A new session begins"));
    world.model.on("and you are").says("The new one.");
    ann.says(&direct, "and you are?");
    assert_eq!(world.hears(&direct).await, "The new one.");
    world.finish().await;
}

#[tokio::test]
async fn a_stop_leaves_an_unfinished_turn_to_its_box() {
    let engine = Engine::stand_in().await;
    let (mut world, ann, direct) = World::ann_at_home(engine.clone(), &[("LAZARET_HOST_DRAIN", "0s")]).await;
    world.model.on("a long job").runs("run_command", patient()).says("The job is done.");
    ann.says(&direct, "a long job, please");
    world.made_in_workspace("main", "began").await;
    let boxes = world.boxes().await;
    world.stop_host().await;
    assert_eq!(state_of(&engine, &boxes[0]).await["Running"], true);

    world.up().await;
    go(&world, "main");
    assert_eq!(world.hears(&direct).await, "The job is done.");
    assert_eq!((world.boxes().await, world.runs_of("main")), (boxes, 1));
    assert!(direct.unheard().is_empty());
    world.finish().await;
}

/// The next host does not resume a turn that a person stopped.
#[tokio::test]
async fn a_stop_of_a_person_holds_over_a_restart() {
    let (mut world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let gate = Gate::new();
    world.model.on("think hard").waits_for(&gate).says("Too late.");
    ann.says(&direct, "think hard");
    world.soon("the model is asked", gate.arrived()).await;
    ann.says(&direct, "/stop");
    assert_eq!(world.hears(&direct).await, "[lazaret] Stopping.");
    world.delivered().await;
    world.kill_host().await;
    world.up().await;
    assert_eq!(world.hears(&direct).await, "[lazaret] Stopped.");
    assert!(direct.unheard().is_empty());
    world.finish().await;
}

/// A host died after it created a box and before it started it. Another box belongs to an ended run. The next host
/// removes both.
#[tokio::test]
async fn boxes_without_a_living_run_are_reaped_also_when_the_engine_comes_late() {
    let engine = Engine::stand_in().await;
    let (mut world, ann, direct) = World::ann_at_home(engine.clone(), &[]).await;
    world.model.on("hello again").says("Hello.");
    ann.says(&direct, "hello again");
    assert_eq!(world.hears(&direct).await, "Hello.");
    world.kill_host().await;
    let (run, _) = living_run(&world);
    let sql = "UPDATE run SET state = 'ended', ending = 'killed' WHERE id = ?1";
    world.database().execute(sql, [&run]).unwrap();
    world.up().await;
    world.patiently("its box is gone", async || world.boxes().await.is_empty().then_some(())).await;
    assert!(!Path::new(&world.root().join("state/ipc/main").join(&run)).exists());
    world.finish().await;
}

/// Only the engine knows whether a box lives. The host asks again when the engine is back, and starts no second box of
/// the lane before.
#[tokio::test]
async fn a_host_that_comes_back_before_its_engine_waits_for_its_boxes() {
    let engine = Engine::stand_in().await;
    let (mut world, ann, direct) = world_with_a_long_job(&engine).await;
    world.kill_host().await;
    engine.stop();
    world.up().await;
    ann.says(&direct, "are you there?");
    world.soon("it is stored", world.telegram.acknowledged()).await;
    engine.start().await;
    go(&world, "main");
    assert_eq!(world.hears(&direct).await, "The job is done.");
    let told = world.model.tool_results();
    assert!(told.iter().any(|t| t.contains("interrupted; it may have run")), "{told:?}");
    world.settled("m-2").await;
    world.finish().await;
}

/// A `/stop` was stored for a turn that was over, and the host died before it handled the `/stop`.
#[tokio::test]
async fn a_stop_that_comes_too_late_spares_the_next_turn() {
    let (mut world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    ann.says(&direct, "/stop");
    assert_eq!(world.hears(&direct).await, "[lazaret] Nothing is running here.");
    world.delivered().await;
    world.model.on("a long job").runs("run_command", patient()).says("The job is done.");
    ann.says(&direct, "a long job, please");
    world.made_in_workspace("main", "began").await;
    world.kill_host().await;
    forgets(&world, "UPDATE message SET state = 'waiting', outcome = NULL WHERE text = '/stop'");

    world.up().await;
    go(&world, "main");
    assert_eq!(world.hears(&direct).await, "The job is done.");
    world.finish().await;
}

/// The host died after it stored `/new` and before it told the box to close.
#[tokio::test]
async fn a_box_of_the_session_before_is_not_used_again() {
    let (mut world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    world.model.on("remember 7").says("I will.");
    ann.says(&direct, "remember 7");
    assert_eq!(world.hears(&direct).await, "I will.");
    world.delivered().await;
    world.kill_host().await;
    forgets(&world, "UPDATE grp SET session = session + 1 WHERE name = 'main'");

    world.model.on("which number").says("I know of none.");
    ann.says(&direct, "which number?");
    world.up().await;
    assert_eq!(world.hears(&direct).await, "I know of none.");
    assert_eq!(world.runs_of("main"), 2, "a new session has a new box");
    let transcript = world.model.requests().pop().unwrap().body.to_string();
    assert!(!transcript.contains("remember 7"), "{transcript}");
    world.finish().await;
}

/// Changes the rows to what a host leaves that dies between two steps.
fn forgets(world: &World, sql: &str) {
    assert_eq!(world.database().execute(sql, []).unwrap(), 1, "{sql}");
}
