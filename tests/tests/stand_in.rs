//! Journeys on the engine stand-in, which starts boxes in milliseconds and which a test can end with all of its boxes.

use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::select_all;
use hyper::Method;
use journeys::engine::IMAGE;
use journeys::model::Gate;
use journeys::world::{Engine, World};
use serde_json::{Value, json};

/// A step that takes longer than this is stuck.
const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_stand_in_answers_as_the_engine_does() {
    let engine = Engine::stand_in().await;
    let get = async |path: &str| engine.ask(Method::GET, path, None).await;
    let post = async |path: &str| engine.ask(Method::POST, path, None).await;
    let create = async |name: &str, source: &Path, command: &str| {
        let mount = json!({ "Type": "bind", "Source": source, "Target": "/in", "ReadOnly": true });
        let body = json!({
            "Image": IMAGE, "Entrypoint": ["/bin/sh", "-c", command], "User": "70001:20000",
            "HostConfig": { "ReadonlyRootfs": true, "Mounts": [mount] },
        });
        engine.ask(Method::POST, &format!("/v1.41/containers/create?name={name}"), Some(&body)).await
    };
    assert_eq!(get("/v1.41/version").await.json()["ApiVersion"], "1.41");
    assert_eq!(get("/images/python/json").await.message(), "No such image: python:latest");
    assert_eq!(get("/containers/nobody/json").await.message(), "No such container: nobody");
    let missing = create("box-1", Path::new("/no/such"), "true").await;
    assert!(missing.message().ends_with("bind source path does not exist: /no/such"), "{missing:?}");

    // The box's program has no privileges and its own namespaces. The engine keeps its exit code and its output.
    let shared = tempfile::tempdir().unwrap();
    let look = "id; touch /in/x /x; echo $$ >&2; grep -e CapBnd -e NoNewPrivs /proc/self/status; exit 7";
    assert_eq!(create("box-1", shared.path(), look).await.status, 201);
    assert_eq!(create("box-1", shared.path(), look).await.status, 409);
    assert!(post("/containers/box-1/kill").await.message().ends_with("is not running"));
    assert_eq!(post("/containers/box-1/start").await.status, 204);
    let waited = post("/containers/box-1/wait?condition=not-running").await;
    assert_eq!(waited.json()["StatusCode"], 7);
    let log = get("/containers/box-1/logs?stdout=1&stderr=1").await.body;
    let log = String::from_utf8_lossy(&log);
    for words in ["uid=70001 gid=20000\n", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    assert_eq!(log.matches("Read-only file system").count(), 2, "{log}");

    // A second start of a running box changes nothing. The box receives signals, and is removed only by force.
    let listen = "trap 'echo heard; exit 3' TERM; echo ready; while :; do sleep 0.01; done";
    assert_eq!(create("box-2", shared.path(), listen).await.status, 201);
    assert_eq!(post("/containers/box-2/start").await.status, 204);
    assert_eq!(post("/containers/box-2/start").await.status, 304);
    assert_eq!(engine.ask(Method::DELETE, "/containers/box-2", None).await.status, 409);
    let speaks = async { while get("/containers/box-2/logs?stdout=1").await.body.is_empty() {} };
    tokio::time::timeout(LONG, speaks).await.expect("the box prints nothing");
    assert_eq!(post("/containers/box-2/kill?signal=SIGTERM").await.status, 204);
    assert_eq!(post("/containers/box-2/wait").await.json()["StatusCode"], 3);
    assert_eq!(post("/containers/box-2/start").await.status, 204, "it can run again");
    assert_eq!(post("/containers/box-2/kill").await.status, 204);
    let state = get("/containers/box-2/json").await.json()["State"].clone();
    assert_eq!(
        (&state["ExitCode"], &state["Running"], &state["OOMKilled"]),
        (&json!(137), &json!(false), &json!(false))
    );
    for name in ["box-1", "box-2"] {
        assert_eq!(
            engine.ask(Method::DELETE, &format!("/containers/{name}?force=1&v=1"), None).await.status,
            204
        );
    }
    assert_eq!(get("/containers/json?all=1").await.json(), json!([]));

    // The end of the stand-in ends every box.
    assert_eq!(create("box-3", shared.path(), "while :; do sleep 1; done").await.status, 201);
    assert_eq!(post("/containers/box-3/start").await.status, 204);
    let pid = get("/containers/box-3/json").await.json()["State"]["Pid"].as_u64().unwrap();
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    engine.stop();
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn a_short_talk_on_telegram() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let bob = world.telegram.person(6, "Bob");
    let family = world.telegram.room(-100_123, "Family");
    bob.says(&family, "who is this bot?");
    world.admit(&family.address(), "family").await;

    world
        .model
        .on("what is in my box")
        .runs("run_command", json!({ "command": "whoami; echo $((40+2)) | tee /workspace/answer" }))
        .says("It says **42**.");
    ann.says(&direct, "what is in my box?");
    assert_eq!(world.hears(&direct).await, "It says 42.");
    assert!(world.model.tool_results().concat().contains("agent\n42"));

    // The next turn uses the same box and its files. Another group sees neither.
    world.model.on("once more").runs("read_file", json!({ "path": "/workspace/answer" })).says("Still 42.");
    ann.says(&direct, "once more");
    assert_eq!(world.hears(&direct).await, "Still 42.");
    assert_eq!(world.runs_of("main"), 1, "both turns use one box");
    world.model.on("and here").runs("list_files", json!({ "path": "/workspace" })).says("Nothing.");
    bob.says(&family, "out of milk");
    ann.says(&family, "@laz_bot and here?");
    assert_eq!(world.hears(&family).await, "Nothing.");
    assert!(world.model.last_request_text().contains("out of milk"));
    assert!(!world.model.tool_results().concat().contains("answer"), "{:?}", world.model.tool_results());
    world.finish().await;
}

#[tokio::test]
async fn a_box_that_crashes_three_times_ends_in_a_notice() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let suicide = json!({ "command": "kill -KILL $PPID; sleep 1000" });
    world
        .model
        .on("try it")
        .runs("run_command", suicide.clone())
        .runs("run_command", suicide.clone())
        .runs("run_command", suicide);
    ann.says(&direct, "try it");
    assert_eq!(
        world.hears(&direct).await,
        "[lazaret] I gave this up after 3 attempts: the agent's box ended unexpectedly (exit code 137). \
         Write again to retry."
    );
    let trace = world.settled("m-1").await;
    let endings: Vec<_> = trace["turn"]["runs"].as_array().unwrap().iter().map(|r| &r["ending"]).collect();
    assert_eq!(endings, ["crashed", "crashed", "crashed"], "{trace}");
    world.patiently("the last box is gone", async || world.boxes().await.is_empty().then_some(())).await;

    // The abandoned turn is over: the next message starts a new turn.
    world.model.on("are you well").says("Quite well.");
    ann.says(&direct, "are you well?");
    assert_eq!(world.hears(&direct).await, "Quite well.");
    assert!(direct.unheard().is_empty());
    world.finish().await;
}

#[tokio::test]
async fn five_groups_at_once_are_all_answered_and_two_at_a_time_work() {
    let settings = [("LAZARET_HOST_WORKING_RUNS", "2"), ("LAZARET_LIMITS_IDLE_WINDOW", "0")];
    let (world, ann, _) = World::ann_at_home(Engine::stand_in().await, &settings).await;
    let mut teams = Vec::new();
    for n in 1..=5 {
        let room = world.telegram.room(-100 - n, &format!("Team {n}"));
        ann.says(&room, "hello?");
        world.admit(&room.address(), &format!("team-{n}")).await;
        let gate = Gate::new();
        world.model.on(&format!("task {n}")).waits_for(&gate).says(&format!("Task {n} is done."));
        teams.push((n, room, gate));
    }
    for (n, room, _) in &teams {
        ann.says(room, &format!("@laz_bot task {n}"));
    }
    world.soon("all of it is stored", world.telegram.acknowledged()).await;

    // Two turns are open and wait at the model. The next turn starts only when one of them ends.
    let (mut coming, mut standing) = (teams, Vec::new());
    while !coming.is_empty() || !standing.is_empty() {
        while standing.len() < 2 && !coming.is_empty() {
            let arrivals = coming.iter().map(|(_, _, gate)| gate.arrived().boxed());
            let (_, first, _) = world.soon("the next one works", select_all(arrivals)).await;
            standing.push(coming.swap_remove(first));
        }
        let status: Value = serde_json::from_str(&world.lazaret(&["status", "--json"]).await).unwrap();
        let open = standing.len() + coming.len();
        assert_eq!(status["turns"]["open"], json!(open), "{status}");
        assert!(coming.iter().all(|(_, _, gate)| gate.arrived().now_or_never().is_none()), "three work");
        let (n, room, gate) = standing.remove(0);
        gate.open();
        assert_eq!(world.hears(&room).await, format!("Task {n} is done."));
        assert!(room.unheard().is_empty());
    }

    // The times of the turns must show the same. A turn holds a slot from `start` to `turn_done`.
    let mut slots = Vec::new();
    for m in 1..=5 {
        let trace = world.settled(&format!("m-{m}")).await;
        let at = |name| {
            trace["steps"].as_array().unwrap().iter().find(|s| s["name"] == name).unwrap()["mono_us"].as_i64()
        };
        slots.push((at("start").unwrap(), at("turn_done").unwrap()));
    }
    for (start, _) in &slots {
        let held = slots.iter().filter(|(from, to)| from <= start && start < to).count();
        assert!(held <= 2, "{held} at once: {slots:?}");
    }
    world.finish().await;
}

#[tokio::test]
async fn without_an_idle_window_each_turn_has_a_box_of_its_own() {
    let (world, ann, direct) =
        World::ann_at_home(Engine::stand_in().await, &[("LAZARET_LIMITS_IDLE_WINDOW", "0")]).await;
    let mut boxes = Vec::new();
    for n in 1..=2 {
        let gate = Gate::new();
        world.model.on(&format!("question {n}")).waits_for(&gate).says(&format!("Answer {n}."));
        ann.says(&direct, &format!("question {n}"));
        world.soon("the agent works", gate.arrived()).await;
        boxes.extend(world.boxes().await);
        gate.open();
        assert_eq!(world.hears(&direct).await, format!("Answer {n}."));
        world.patiently("the box is gone", async || world.boxes().await.is_empty().then_some(())).await;
    }
    assert!(boxes.len() == 2 && boxes[0] != boxes[1], "{boxes:?}");
    let transcript = world.model.requests().pop().unwrap().body.to_string();
    assert!(transcript.contains("Answer 1."), "the next box continues the session");
    world.finish().await;
}

#[tokio::test]
async fn people_stop_ask_and_begin_anew() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    ann.says(&direct, "/stop");
    assert_eq!(world.hears(&direct).await, "[lazaret] Nothing is running here.");

    // A stop ends the turn and its long command. The box stays.
    world
        .model
        .on("watch the pot")
        .runs("run_command", json!({ "command": "touch /workspace/watching; sleep 1000" }))
        .says("It never boiled.");
    ann.says(&direct, "watch the pot");
    world.made_in_workspace("main", "watching").await;
    let boxes = world.boxes().await;
    ann.says(&direct, "/status");
    let status = world.hears(&direct).await;
    assert!(status.starts_with("[lazaret] group main: working"), "{status}");
    assert!(status.contains("1 of 4 working"), "{status}");
    ann.says(&direct, "/stop");
    assert_eq!(world.hears(&direct).await, "[lazaret] Stopping.");
    assert_eq!(world.hears(&direct).await, "[lazaret] Stopped.");

    world.model.on("still there").says("Here I am.");
    ann.says(&direct, "still there?");
    assert_eq!(world.hears(&direct).await, "Here I am.");
    assert_eq!(world.boxes().await, boxes, "the same box");
    let transcript = world.model.requests().pop().unwrap().body.to_string();
    assert!(transcript.contains("interrupted by the person"), "{transcript}");

    // A new session does not contain the earlier messages.
    ann.says(&direct, "/new");
    let told = world.hears(&direct).await;
    assert!(told.starts_with("[lazaret] A new session begins"), "{told}");
    world.model.on("who am I").says("You are Ann.");
    ann.says(&direct, "who am I?");
    assert_eq!(world.hears(&direct).await, "You are Ann.");
    let transcript = world.model.requests().pop().unwrap().body.to_string();
    assert!(!transcript.contains("watch the pot"), "{transcript}");
    assert_eq!(world.runs_of("main"), 2, "a new session has a new box");

    ann.says(&direct, "/help");
    let help = world.hears(&direct).await;
    for word in ["/stop", "/new", "/status", "/help"] {
        assert!(help.contains(word), "{help}");
    }
    assert!(direct.unheard().is_empty());
    world.finish().await;
}

#[tokio::test]
async fn an_engine_that_is_away_is_waited_for_and_told_once() {
    let engine = Engine::stand_in().await;
    let (world, ann, direct) = World::ann_at_home(engine.clone(), &[]).await;
    engine.stop();
    world.model.on("anybody there").says("I am back.");
    ann.says(&direct, "anybody there?");
    let told = world.hears(&direct).await;
    assert!(told.starts_with("[lazaret] The agent cannot start: no container engine answers"), "{told}");
    assert!(told.contains("Your message is kept"), "{told}");
    // The host tries again without success, and does not report it again.
    let tries = || world.log().matches("the box did not start").count();
    world.patiently("it is tried again", async || (tries() >= 2).then_some(())).await;
    engine.start().await;
    assert_eq!(world.hears(&direct).await, "I am back.");
    assert!(direct.unheard().is_empty());

    // The engine dies while a box works. The host treats this as a crash, and continues the turn when the engine is
    // back.
    let gate = Gate::new();
    world.model.on("and now").waits_for(&gate).says("Here again.");
    ann.says(&direct, "and now?");
    world.soon("the agent works", gate.arrived()).await;
    engine.stop();
    gate.open();
    engine.start().await;
    assert_eq!(world.hears(&direct).await, "Here again.");
    assert!(direct.unheard().is_empty(), "{:?}", direct.unheard());
    world.finish().await;
}

#[tokio::test]
async fn a_host_comes_up_before_its_engine() {
    let engine = Engine::stand_in_away();
    let (world, ann, direct) = World::ann_at_home(engine.clone(), &[]).await;
    world.model.on("anybody there").says("Here I am.");
    ann.says(&direct, "anybody there?");
    let told = world.hears(&direct).await;
    assert!(told.starts_with("[lazaret] The agent cannot start: no container engine answers"), "{told}");
    engine.start().await;
    assert_eq!(world.hears(&direct).await, "Here I am.");
    assert!(direct.unheard().is_empty());
    world.finish().await;
}

#[tokio::test]
async fn an_edit_counts_while_its_message_is_unanswered() {
    let (world, ann, direct) =
        World::ann_at_home(Engine::stand_in().await, &[("LAZARET_HOST_WORKING_RUNS", "1")]).await;
    let family = world.telegram.room(-100_123, "Family");
    ann.says(&family, "hello?");
    world.admit(&family.address(), "family").await;

    // An edit before the box has the message: the agent gets only the new text.
    let busy = Gate::new();
    world.model.on("keep busy").waits_for(&busy).says("Free again.");
    world.model.on("buy honey").says("Honey it is.");
    ann.says(&family, "@laz_bot keep busy");
    world.soon("the only place is taken", busy.arrived()).await;
    let shopping = ann.says(&direct, "buy milk");
    ann.edits(&direct, shopping, "buy honey");
    world.soon("both are stored", world.telegram.acknowledged()).await;
    busy.open();
    assert_eq!(world.hears(&family).await, "Free again.");
    assert_eq!(world.hears(&direct).await, "Honey it is.");
    let asked = world.model.last_request_text();
    assert!(asked.contains("buy honey") && !asked.contains("buy milk"), "{asked}");

    // An edit during the turn joins the turn, and there is one answer.
    let working = Gate::new();
    world
        .model
        .on("count to three")
        .runs("run_command", json!({ "command": "seq 3" }))
        .waits_for(&working)
        .runs("run_command", json!({ "command": "echo looking again" }));
    world.model.on("count to four").says("One, two, three, four.");
    let counting = ann.says(&direct, "count to three");
    world.soon("the agent works", working.arrived()).await;
    let before = world.inputs("main");
    ann.edits(&direct, counting, "count to four");
    world.given("main", before + 1).await;
    working.open();
    assert_eq!(world.hears(&direct).await, "One, two, three, four.");

    // An edit after the answer gets no answer, but the next turn contains it.
    world.model.on("name a number").says("Seven.");
    let hasty = ann.says(&direct, "name a number");
    assert_eq!(world.hears(&direct).await, "Seven.");
    ann.edits(&direct, hasty, "name a letter");
    world.soon("the late edit is stored", world.telegram.acknowledged()).await;
    world.model.on("thank you").says("You are welcome.");
    ann.says(&direct, "thank you");
    assert_eq!(world.hears(&direct).await, "You are welcome.");
    let asked = world.model.last_request_text();
    assert!(asked.contains("name a letter") && asked.contains("edited=\"yes\""), "{asked}");
    assert!(direct.unheard().is_empty());
    world.finish().await;
}

/// The platform reports an edit's time in seconds, so a quick second edit has the same time.
#[tokio::test]
async fn of_two_edits_within_a_second_the_last_one_counts() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let gate = Gate::new();
    world
        .model
        .on("buy milk")
        .runs("run_command", json!({ "command": "true" }))
        .waits_for(&gate)
        .says("Milk.");
    world.model.on("buy honey").says("Honey.");
    world.model.on("buy jam").says("Jam.");
    let shopping = ann.says(&direct, "buy milk");
    world.soon("the agent works", gate.arrived()).await;
    ann.edits(&direct, shopping, "buy honey");
    ann.edits(&direct, shopping, "buy jam");
    world.soon("both edits are stored", world.telegram.acknowledged()).await;
    // One letter may contain both edits.
    world.given("main", 2).await;
    gate.open();
    // The answer to the first edit may still arrive. The last answer must be about the last edit.
    let heard = world.hears(&direct).await;
    let heard = if heard == "Milk." { world.hears(&direct).await } else { heard };
    assert_eq!(heard, "Jam.");
    world.finish().await;
}

#[tokio::test]
async fn context_beyond_the_limit_is_counted_and_the_newest_stays() {
    let (world, ann, _) =
        World::ann_at_home(Engine::stand_in().await, &[("LAZARET_CONTEXT_MESSAGES", "3")]).await;
    let bob = world.telegram.person(6, "Bob");
    let family = world.telegram.room(-100_123, "Family");
    bob.says(&family, "hello?");
    world.admit(&family.address(), "family").await;
    for n in 1..=5 {
        bob.says(&family, &format!("line {n}"));
    }
    world.model.on("what did he say").says("Three, four, five.");
    ann.says(&family, "@laz_bot what did he say?");
    assert_eq!(world.hears(&family).await, "Three, four, five.");
    let asked = world.model.last_request_text();
    assert!(asked.contains("<omitted messages=\"2\">"), "{asked}");
    let place = |n: u32| asked.find(&format!("line {n}"));
    assert_eq!((place(1), place(2)), (None, None), "{asked}");
    assert!(place(3).is_some() && place(3) < place(4) && place(4) < place(5), "in order: {asked}");

    // Omitted messages stay omitted, and are counted only once.
    bob.says(&family, "line 6");
    world.model.on("and then").says("Six.");
    ann.says(&family, "@laz_bot and then?");
    assert_eq!(world.hears(&family).await, "Six.");
    let asked = world.model.last_request_text();
    assert!(asked.contains("line 6") && !asked.contains("line 5") && !asked.contains("omitted"), "{asked}");
    world.finish().await;
}

/// Twelve boxes run at once. No box delays another, and the engine reports every end.
#[tokio::test]
async fn a_dozen_boxes_come_and_go() {
    let engine = Engine::stand_in().await;
    let body = json!({ "Image": IMAGE, "Cmd": ["/bin/true"] });
    let boxes = (0..12).map(async |n| {
        let made = engine.ask(Method::POST, &format!("/containers/create?name=box-{n}"), Some(&body)).await;
        assert_eq!(made.status, 201, "{made:?}");
        assert_eq!(engine.ask(Method::POST, &format!("/containers/box-{n}/start"), None).await.status, 204);
        let ended = engine.ask(Method::POST, &format!("/containers/box-{n}/wait"), None).await;
        assert_eq!(ended.json()["StatusCode"], 0);
    });
    let all = futures_util::future::join_all(boxes);
    tokio::time::timeout(LONG, all).await.expect("boxes are stuck");
}
