//! Models that refuse, break off, answer wrongly or never end, and tools that fail, hang or flood. The host sends the
//! chat one notice that says what to do, ends the turn with an error code, and answers the next message.

#![cfg(test)]

use std::fs;
use std::time::Duration;

use journeys::model::KEY;
use journeys::world::{Engine, World};
use serde_json::{Value, json};

#[track_caller]
fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
}

async fn up() -> World {
    let mut world = World::new().await;
    world.up().await;
    world
}

/// Waits until a message's turn is over and everything is sent. Returns the turn.
async fn turn(world: &World, message: &str) -> Value {
    world.settled(message).await["turn"].clone()
}

/// Writes `failing` and then a line that is answered. The first message gets one notice with these words, and its turn
/// fails with this code. The second message gets its reply.
async fn fails_then_goes_on(world: &World, failing: &str, code: &str, words: &[&str]) {
    world.model.on("and now").says("Now it works.");
    let said = world.chat(&format!("{failing}\nand now\n")).await;
    has(&said, &["[lazaret] The model did not answer", code, "Now it works."]);
    has(&said, words);
    assert_eq!(said.matches("[lazaret]").count(), 1, "one notice:\n{said}");
    let failed = turn(world, "m-1").await;
    assert_eq!((&failed["state"], &failed["why"]), (&json!("failed"), &json!(code)), "{failed:#}");
    assert_eq!(turn(world, "m-2").await["state"], "done");
}

/// Writes a line that is answered in spite of failures on the way: no notice, one reply.
async fn assert_answered_once(world: &World, line: &str, answer: &str) {
    let said = world.chat(&format!("{line}\n")).await;
    assert_eq!((said.matches(answer).count(), said.matches("[lazaret]").count()), (1, 0), "{said}");
    let turn = turn(world, "m-1").await;
    assert_eq!((&turn["state"], &turn["attempt"]), (&json!("done"), &json!(1)), "{turn:#}");
}

#[tokio::test]
async fn a_refused_key_is_told_with_the_variable_to_set() {
    let world = up().await;
    world.model.on("hello").http(401, "authentication_error", None).says("never said");
    let words = ["refused the key (401)", "ANTHROPIC_API_KEY"];
    fails_then_goes_on(&world, "hello", "model.auth", &words).await;
    world.finish().await;
}

#[tokio::test]
async fn an_unknown_model_is_told_by_its_name() {
    let mut world = World::new().await;
    world.set("LAZARET_MODEL_NAME", "claude-of-tomorrow");
    world.up().await;
    world.model.on("hello").http(404, "not_found_error", None).says("never said");
    fails_then_goes_on(&world, "hello", "model.not_found", &["no model `claude-of-tomorrow`", "(404)"]).await;
    world.finish().await;
}

#[tokio::test]
async fn a_request_that_the_model_cannot_take_is_told() {
    let world = up().await;
    world.model.on("hello").http(400, "invalid_request_error", None).says("never said");
    fails_then_goes_on(&world, "hello", "model.invalid_request", &["400", "as the script says"]).await;
    world.finish().await;
}

/// A host on the stand-in engine that gives a model up soon.
async fn up_without_containers() -> World {
    let mut world = World::on(Engine::stand_in().await).await;
    world.set("LAZARET_HOST_MODEL_RETRY", "1s");
    world.up().await;
    world
}

#[tokio::test]
async fn each_refusal_is_told_in_a_sentence_of_its_own() {
    let refusals: [(u16, &str, &str, &str); 4] = [
        (400, "insufficient_quota", "model.budget", "has no credit left"),
        (400, "content_filter", "model.filtered", "put it in other words"),
        (404, "context_length_exceeded", "model.too_large", "begin a new one with /new"),
        (422, "extra", "model.invalid_request", "as invalid"),
    ];
    for (status, error, code, words) in refusals {
        let world = up_without_containers().await;
        // The runner shortens a conversation that is too long, and asks again.
        world.model.on("hello").http(status, error, None).http(status, error, None).says("never said");
        fails_then_goes_on(&world, "hello", code, &[words]).await;
        world.finish().await;
    }
    let world = up_without_containers().await;
    let rule = world.model.on("hello");
    (0..30).fold(rule, |rule, _| rule.garbage()).says("never said");
    fails_then_goes_on(
        &world,
        "hello",
        "model.no_answer",
        &["is no model, so the owner must check base_url"],
    )
    .await;
    world.finish().await;
}

/// Says a line in the terminal. Returns what is said back, and how many requests that took.
async fn said_after(world: &World, line: &str) -> (String, usize) {
    let before = world.model.requests().len();
    let said = world.chat(&format!("{line}\n")).await;
    (said, world.model.requests().len() - before)
}

#[tokio::test]
async fn a_conversation_that_is_refused_for_ever_is_sent_with_less_and_less_of_it() {
    let world = up_without_containers().await;
    let afresh = "/new begins a new conversation";
    let script = [("first", "One."), ("second", "Two."), ("third", "Three."), ("fourth", "Four.")];
    for (heard, answer) in script {
        world.model.on(heard).thinks(&format!("What is {heard}?")).says(answer);
    }
    for (heard, answer) in &script[..2] {
        let (said, requests) = said_after(&world, heard).await;
        assert_eq!((said.contains(answer), said.contains(afresh), requests), (true, false, 1), "{said}");
    }
    // The provider refuses a thought: all that was said is still sent.
    world.model.refuses("What is first?");
    let (said, requests) = said_after(&world, "third").await;
    has(
        &said,
        &["I went on without my earlier thoughts; all that was said is still there", afresh, "Three."],
    );
    assert_eq!(requests, 3, "the same again, then without thoughts");
    let sent = world.model.requests().pop().unwrap().body["messages"].to_string();
    has(&sent, &["first", "One.", "second", "Two."]);

    // It refuses what was said two turns ago: the turn before goes in vain, then all goes.
    world.model.refuses("Two.");
    let (said, requests) = said_after(&world, "fourth").await;
    has(
        &said,
        &["I went on without an earlier part of our conversation, and no longer see it", afresh, "Four."],
    );
    assert!((3..=5).contains(&requests), "{requests} requests");
    let sent = world.model.requests().pop().unwrap().body["messages"].to_string();
    assert!(!sent.contains("Two.") && sent.contains("fourth"), "{sent}");

    // What is left out stays left out, and nobody is told twice.
    world.model.on("fifth").says("Five.");
    let (said, requests) = said_after(&world, "fifth").await;
    assert_eq!((said.contains("Five."), said.contains(afresh), requests), (true, false, 1), "{said}");
    let (said, _) = said_after(&world, "/new").await;
    has(&said, &["A new session begins"]);
    world.finish().await;
}

#[tokio::test]
async fn an_overloaded_model_that_asks_for_more_patience_than_a_turn_has_is_told() {
    let world = up().await;
    world.model.on("hello").http(529, "overloaded_error", Some(600)).says("never said");
    fails_then_goes_on(&world, "hello", "model.overloaded", &["529"]).await;
    world.finish().await;
}

#[tokio::test]
async fn a_rate_limit_that_is_longer_than_a_turn_is_told() {
    let world = up().await;
    world.model.on("hello").http(429, "rate_limit_error", Some(3600)).says("never said");
    fails_then_goes_on(&world, "hello", "model.rate_limited", &["429"]).await;
    world.finish().await;
}

#[tokio::test]
async fn trouble_that_passes_is_waited_for_and_nobody_notices() {
    let world = up().await;
    world
        .model
        .on("hello")
        .http(429, "rate_limit_error", Some(1))
        .http(529, "overloaded_error", None)
        .garbage()
        .http(500, "api_error", None)
        .says("Hello at last.");
    assert_answered_once(&world, "hello", "Hello at last.").await;
    assert_eq!(world.model.requests().len(), 5);
    world.finish().await;
}

#[tokio::test]
async fn an_answer_that_is_cut_is_asked_for_again_and_said_once() {
    let world = up().await;
    world.model.on("hello").cut_after(900).cut_after(10).says("Hello in full.");
    assert_answered_once(&world, "hello", "Hello in full.").await;
    assert_eq!(world.model.requests().len(), 3);
    world.finish().await;
}

#[tokio::test]
async fn an_answer_that_is_always_cut_is_given_up_with_its_code() {
    let world = up().await;
    world.model.on("hello").cut_after(900).cut_after(900).cut_after(900).cut_after(900).says("never said");
    fails_then_goes_on(&world, "hello", "model.cut", &["broke off 4 times"]).await;
    world.finish().await;
}

/// The gateway retries for two minutes before it gives up, and no setting shortens that.
#[tokio::test]
async fn a_model_that_cannot_be_reached_is_told_and_another_one_is_taken_without_a_restart() {
    let mut world = World::new().await;
    let model = world.model.anthropic_url();
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let provider = |name: &str, url: &str| {
        format!(
            "[providers.{name}]\nkind = \"anthropic\"\nkey_env = \"ANTHROPIC_API_KEY\"\nbase_url = \"{url}\"\n"
        )
    };
    world.write(
        "lazaret.toml",
        [provider("dead", &format!("http://{dead}")), provider("alive", &model)].concat(),
    );
    world.set("LAZARET_HOST_MODEL_RETRY", "3s");
    let use_provider = |name: &str| format!("limits.idle_window = 0\nmodel.provider = \"{name}\"\n");
    let ann = world.telegram.person(5, "Ann");
    let direct = ann.direct();
    world.up().await;
    world.write("groups/main/group.toml", use_provider("dead"));
    ann.says(&direct, "hello?");
    world.admit(&direct.address(), "main").await;
    ann.says(&direct, "hello");
    let told = tokio::time::timeout(Duration::from_secs(180), direct.hears()).await.unwrap();
    has(&told, &["[lazaret] The model did not answer (model.unreachable)", "the provider dead", "asked"]);
    assert!(!told.contains(&dead.to_string()), "a box does not learn the provider's address: {told}");
    let failed = turn(&world, "m-1").await;
    assert_eq!((&failed["state"], &failed["why"]), (&json!("failed"), &json!("model.unreachable")));

    world.write("groups/main/group.toml", use_provider("alive"));
    world.model.on("and now").says("Now it works.");
    ann.says(&direct, "and now?");
    assert_eq!(world.soon("the next one is answered", direct.hears()).await, "Now it works.");
    assert!(direct.unheard().is_empty());
    world.finish().await;
}

#[tokio::test]
async fn a_model_that_never_ends_is_stopped_at_the_limit_with_a_sentence() {
    let mut world = World::new().await;
    world.set("LAZARET_LIMITS_MODEL_CALLS", "3");
    world.up().await;
    let rule = world.model.on("for ever");
    (0..9).fold(rule, |rule, n| rule.runs("run_command", json!({ "command": format!("echo {n}") })));
    world.model.on("and now").says("Now I stop.");
    let said = world.chat("work for ever\nand now\n").await;
    has(&said, &["I stopped after 3 model calls in this turn. Say \"go on\"", "Now I stop."]);
    let turn = turn(&world, "m-1").await;
    assert_eq!((&turn["why"], &turn["usage"]["calls"]), (&json!("limit"), &json!(3)), "{turn:#}");
    world.finish().await;
}

#[tokio::test]
async fn tools_that_fail_hang_or_flood_are_results_and_the_turn_goes_on() {
    let mut world = World::new().await;
    world.set("LAZARET_LIMITS_COMMAND", "2s");
    world.up().await;
    let run = |command: &str| json!({ "command": command });
    world
        .model
        .on("try it all")
        .runs("run_command", run("echo before; ls /nothing/here"))
        .runs("run_command", run("echo begun; sleep 1000"))
        .runs("run_command", run("sleep 1000 & trap '' TERM; while true; do sleep 1; done"))
        .runs("run_command", run("echo first; yes | head -c 50000000; echo last"))
        .runs("run_command", run("head -c 3000 /dev/urandom"))
        .runs("run_command", run("no_such_program"))
        .runs("read_file", json!({ "path": "/workspace/none" }))
        .runs("read_file", json!({ "unknown": 1 }))
        .runs("no_such_tool", json!({}))
        .runs("run_command", run("echo still alive"))
        .says("All tried.");
    has(&world.chat("try it all\n").await, &["All tried."]);
    let (texts, errors) = results(&world);
    assert_eq!(errors, [true, true, true, false, false, true, true, true, true, false], "{texts:#?}");
    has(&texts[0], &["before", "No such file", "[exit code 1]"]);
    has(&texts[1], &["begun", "[stopped after 2 s", "timeout_s", "background"]);
    has(&texts[2], &["[stopped after 2 s"]);
    has(&texts[3], &["first\ny\ny\n", "bytes cut out here", "y\ny\nlast"]);
    assert!(texts[3].len() < 31_000, "{} bytes", texts[3].len());
    has(&texts[5], &["[exit code 127", "did not find the command"]);
    has(&texts[6], &["/workspace/none"]);
    has(&texts[8], &["no_such_tool"]);
    assert_eq!(texts[9], "still alive\n");
    world.finish().await;
}

/// Returns the results of tools in the last request, and whether each is an error.
fn results(world: &World) -> (Vec<String>, Vec<bool>) {
    let body = world.model.requests().pop().unwrap().body;
    let entries = body["messages"].as_array().unwrap().iter().filter_map(|m| m["content"].as_array());
    let results = entries.flatten().filter(|block| block["type"] == "tool_result");
    let errors = results.map(|block| block["is_error"] == true).collect();
    (world.model.tool_results(), errors)
}

/// Covers every way by which a key could leave the host: refusals that quote it, a tool that searches for it, the
/// output of commands, and all files that the host writes.
#[tokio::test]
async fn the_key_is_in_no_file_no_log_and_no_letter_whatever_goes_wrong() {
    let mut world = World::new().await;
    world.set("LAZARET_LOG", "debug");
    world.up().await;
    let echo = |status| format!("your key {KEY} was refused with {status}");
    world.model.on("first").http(401, &echo(401), None).says("never said");
    world.model.on("second").http(400, &echo(400), None).says("never said");
    world.model.on("third").http(529, &echo(529), Some(600)).says("never said");
    world.model.on("fourth").garbage().cut_after(700).says("Fourth.");
    let search =
        "env; cat /proc/*/environ /proc/*/cmdline; cat /session/* /ipc/*/*; ls -R /run /lazaret /global";
    world.model.on("fifth").runs("run_command", json!({ "command": search })).says("Fifth.");
    let said = world.chat("first\nsecond\nthird\nfourth\nfifth\n").await;
    has(&said, &["Fourth.", "Fifth."]);
    let commands: [&[&str]; 5] =
        [&["config", "show"], &["doctor"], &["status"], &["trace", "m-1"], &["groups", "list"]];
    let mut told = said;
    for command in commands {
        told += &world.lazaret(command).await;
    }
    assert!(!told.contains(KEY), "{told}");
    let found = results(&world).0.concat();
    has(&found, &["HOME=/workspace/.home", "gateway.sock", "agent-runner"]);
    assert!(!found.contains(KEY), "{found}");
    world.stop_host().await;
    let mut looked_at = 0;
    let mut paths = vec![world.root().to_owned()];
    while let Some(path) = paths.pop() {
        if path.is_dir() && !path.is_symlink() {
            paths.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if path.is_file() {
            looked_at += 1;
            let bytes = fs::read(&path).unwrap();
            assert!(
                !bytes.windows(KEY.len()).any(|w| w == KEY.as_bytes()),
                "the key is in {}",
                path.display()
            );
        }
    }
    assert!(looked_at > 20, "only {looked_at} files were searched: is this the install?");
    world.finish().await;
}
