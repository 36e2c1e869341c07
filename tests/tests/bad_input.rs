//! Wrong settings, files, engines, tokens and messages. The host reports each one in the right place, survives, and
//! answers stored messages once somebody has repaired the fault.

#![cfg(test)]

use std::fs;
use std::future::Future;
use std::path::Path;

use journeys::model::{Gate, KEY};
use journeys::telegram::TOKEN;
use journeys::world::{Engine, World};
use serde_json::{Value, json};

#[track_caller]
fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
}

/// Runs a command that must fail, and returns its standard error.
async fn refused(world: &World, args: &[&str]) -> String {
    let output = world.run(args, "").await;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "lazaret {} said:\n{out}{err}", args.join(" "));
    err.into_owned()
}

/// Returns the complaints of `doctor`, which must find faults.
async fn complaints(world: &World) -> String {
    let output = world.run(&["doctor"], "").await;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    told.lines().filter(|line| line.starts_with("BAD")).collect::<Vec<_>>().join("\n")
}

async fn counter(world: &World, name: &str) -> u64 {
    let status: Value = serde_json::from_str(&world.lazaret(&["status", "--json"]).await).unwrap();
    status["counters"][name].as_u64().unwrap_or(0)
}

/// Returns what one voice, the host or the agent, said about a message.
fn said<'a>(trace: &'a Value, voice: &str) -> Vec<&'a str> {
    let said = trace["turn"]["said"].as_array().unwrap().iter();
    said.filter(|part| part["voice"] == voice).map(|part| part["text"].as_str().unwrap()).collect()
}

// Settings

#[tokio::test]
async fn each_mistake_in_a_settings_file_is_told_with_its_place() {
    let world = World::new().await;
    let (install, group) = ("lazaret.toml", "groups/family/group.toml");
    for (file, text, code, words) in [
        (
            install,
            "persona = \"Laz\"\n[limits]\nturm = \"5m\"\n",
            "config.unknown_key",
            ["lazaret.toml:3:1: there is no setting `turm` here", "did you mean `turn`?"],
        ),
        (
            install,
            "[limits]\nmodel_calls = \"many\"\n",
            "config.value",
            ["lazaret.toml:2:15: limits.model_calls = \"many\" is not allowed", "a whole number from 1"],
        ),
        (
            install,
            "[limits]\nturn = \"soon\"\n",
            "config.value",
            ["lazaret.toml:2:8: limits.turn = \"soon\"", "a length of time such as \"5m\""],
        ),
        (install, "persona = \n", "config.value", ["lazaret.toml:1:", "value"]),
        (
            group,
            "\n\nimmage = \"python:3.12\"\n",
            "config.unknown_key",
            ["groups/family/group.toml:3:1: there is no setting `immage` here", "did you mean `image`?"],
        ),
        (
            group,
            "trigger = 7\n",
            "config.value",
            ["groups/family/group.toml:1:11: ", "trigger is \"addressed\", \"always\" or a list of words"],
        ),
        (
            group,
            "[limits]\nmemory_mib = 99999\n",
            "config.value",
            ["limits.memory_mib = 99999 is above the install's 1024", "ask for less here"],
        ),
    ] {
        world.write(file, text);
        let told = refused(&world, &["config", "check"]).await;
        has(&told, &words);
        has(&told, &[code]);
        if file == install {
            assert_eq!(
                refused(&world, &["up"]).await,
                told,
                "the host and the check refuse with the same words"
            );
        }
        world.write(file, "");
    }
    world.write(install, "[limits]\npids = 1\n[host]\nturn = \"0s\"\n");
    world.write(group, "image = \"a b\"\n");
    let told = refused(&world, &["config", "check"]).await;
    has(
        &told,
        &["lazaret.toml:2:8: ", "lazaret.toml:4:1: ", "`turn` belongs under [limits]", "group.toml:1:9: "],
    );
    assert_eq!(told.lines().count(), 3, "one call tells every mistake of every file:\n{told}");
    world.write(install, "");
    world.write(group, "");
    world.lazaret(&["config", "check"]).await;
    world.finish().await;
}

#[tokio::test]
async fn an_environment_variable_that_overrides_nothing_is_told_with_the_nearest_name() {
    let mut world = World::new().await;
    world.set("LAZARET_LIMITS_MODEL_CALL", "5");
    has(
        &refused(&world, &["up"]).await,
        &[
            "LAZARET_LIMITS_MODEL_CALL: overrides no setting",
            "did you mean LAZARET_LIMITS_MODEL_CALLS?",
            "config.unknown_key",
        ],
    );
    world.finish().await;
}

#[tokio::test]
async fn a_mistake_in_one_groups_file_is_told_to_the_operator_and_mended_without_a_restart() {
    let mut world = World::new().await;
    let ann = world.telegram.person(5, "Ann");
    let (direct, family) = (ann.direct(), world.telegram.room(-100_123, "Family"));
    world.up().await;
    ann.says(&direct, "hello?");
    world.admit(&direct.address(), "main").await;
    ann.says(&family, "hello?");
    world.admit(&family.address(), "family").await;
    world.model.on("count the cups").says("Three cups.");
    world.model.on("what time is it").says("Noon.");

    world.write("groups/family/group.toml", "[limits]\nmodel_cals = 3\n");
    ann.says(&family, "@laz_bot count the cups");
    let told = world.soon("the room is told", family.hears()).await;
    has(&told, &["[lazaret] The agent cannot start", "The operator was told", "Your message is kept"]);
    let told = world.soon("the operator is told where", direct.hears()).await;
    has(&told, &["group family", "groups/family/group.toml:2:1", "did you mean model_calls?"]);
    has(&world.log(), &["config.unknown_key"]);
    ann.says(&direct, "what time is it?");
    assert_eq!(world.soon("the other group works", direct.hears()).await, "Noon.");

    world.write("groups/family/group.toml", "[limits]\nmodel_calls = 3\n");
    assert_eq!(world.soon("the kept message is answered", family.hears()).await, "Three cups.");
    assert!(family.unheard().is_empty() && direct.unheard().is_empty(), "it is told once");
    world.finish().await;
}

#[tokio::test]
async fn a_mistake_in_one_groups_file_does_not_keep_the_host_from_starting() {
    let mut world = World::new().await;
    world.write("groups/family/group.toml", "[limits]\nmodel_cals = 3\n");
    world.model.on("hello").says("Hello.");
    world.up().await;
    has(&world.chat("hello\n").await, &["Hello."]);
    has(&world.log(), &["groups/family/group.toml:2:1", "config.unknown_key"]);
    world.finish().await;
}

#[tokio::test]
async fn a_secret_that_is_missing_or_open_to_others_is_refused_with_the_fix() {
    let mut world = World::new().await;
    world.unset("ANTHROPIC_API_KEY");
    world.write("lazaret.toml", "[providers.anthropic]\nkind = \"anthropic\"\n");
    let told = refused(&world, &["up"]).await;
    has(
        &told,
        &["providers.anthropic: there is no key", "set ANTHROPIC_API_KEY, or key_file", "config.secret"],
    );

    world.write("lazaret.toml", "[providers.anthropic]\nkind = \"anthropic\"\nkey_file = \"secrets/key\"\n");
    let told = refused(&world, &["up"]).await;
    has(&told, &["secrets/key", "No such file", "config.secret"]);

    world.write("secrets/key", KEY);
    set_mode(&world.root().join("secrets/key"), 0o644);
    let told = refused(&world, &["up"]).await;
    has(&told, &["others can read this secret (mode 0644)", "chmod 600 ", "secrets/key", "config.secret"]);
    assert!(!told.contains(KEY));

    set_mode(&world.root().join("secrets/key"), 0o600);
    world.model.on("hello").says("Hello.");
    world.up().await;
    has(&world.chat("hello\n").await, &["Hello."]);
    world.finish().await;
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn a_turn_goes_on_without_a_personality_that_is_missing_or_cannot_be_read() {
    let mut world = World::new().await;
    world.set("LAZARET_LIMITS_IDLE_WINDOW", "0");
    world.up().await;
    let (own, global) = ("groups/main/CLAUDE.md", "groups/global/CLAUDE.md");
    for file in [own, global] {
        fs::remove_file(world.root().join(file)).unwrap();
    }
    world.model.on("first").says("One.");
    has(&world.chat("first\n").await, &["One."]);
    assert!(!world.log().contains("config.personality"), "a missing file needs no warning\n{}", world.log());

    for file in [own, global] {
        fs::create_dir(world.root().join(file)).unwrap();
    }
    world.model.on("second").says("Two.");
    has(&world.chat("second\n").await, &["Two."]);
    has(
        &world.log(),
        &["config.personality", "main/CLAUDE.md cannot be read", "global/CLAUDE.md cannot be read"],
    );
    world.finish().await;
}

// Engines

/// Writes a line on the terminal and leaves when `story` ends, with or without an answer.
async fn meanwhile<T>(world: &World, line: &str, story: impl Future<Output = T>) -> T {
    tokio::select! {
        said = world.chat(line) => panic!("the chat ended too early:\n{said}"),
        told = story => told,
    }
}

/// Waits until the chat was told that a message waits for a box. Returns the text and the message's trace.
async fn told_of(world: &World, message: &str) -> (String, Value) {
    let told = async || {
        let output = world.run(&["trace", message, "--json"], "").await;
        let trace: Value = serde_json::from_slice(&output.stdout).ok()?;
        trace["turn"]["said"].as_array().is_some_and(|said| !said.is_empty()).then_some(trace)
    };
    let trace = world.patiently("the chat is told", told).await;
    (said(&trace, "notice").join("\n"), trace)
}

/// The engine's address is dead at first, and an engine appears there later.
async fn without_an_engine(dead: impl FnOnce(&Path)) {
    let mut world = World::new().await;
    let socket = world.root().join("engine.sock");
    dead(&socket);
    world.set("DOCKER_HOST", &format!("unix://{}", socket.display()));
    world.model.on("hello").says("Hello.");
    world.up().await;
    let fix = ["no container engine answers at unix://", "engine.sock", "systemctl start docker"];
    let mended = async {
        let twice = async || (world.log().matches("the box did not start").count() >= 2).then_some(());
        world.patiently("it is tried again", twice).await;
        has(&world.log(), &["engine.away"]);
        has(&complaints(&world).await, &fix);
        let real = Engine::docker().socket();
        // The path has no listener, or does not exist.
        let _ = fs::remove_file(&socket);
        std::os::unix::fs::symlink(real.trim_start_matches("unix://"), &socket).unwrap();
    };
    let (said, ()) = tokio::join!(world.chat("hello\n"), mended);
    has(&said, &fix);
    has(&said, &["Your message is kept", "Hello."]);
    assert_eq!(said.matches("[lazaret]").count(), 1, "it is told once:\n{said}");
    world.finish().await;
}

#[tokio::test]
async fn without_an_engine_the_host_is_up_says_so_once_and_keeps_the_message() {
    without_an_engine(|socket| drop(std::os::unix::net::UnixListener::bind(socket).unwrap())).await;
}

#[tokio::test]
async fn an_engine_that_was_never_installed_is_the_same_as_one_that_is_away() {
    without_an_engine(|_| {}).await;
}

#[tokio::test]
async fn a_run_that_did_not_start_is_in_the_trace_with_its_code() {
    let mut world = World::new().await;
    world.set("LAZARET_IMAGE", "lazaret-journeys-nowhere");
    world.up().await;
    let (told, trace) = meanwhile(&world, "hello\n", told_of(&world, "m-1")).await;
    has(&told, &["the image lazaret-journeys-nowhere is not on this machine", "build it", "pull it"]);
    has(&trace["turn"]["runs"].to_string(), &["never_started", "image.missing"]);
    world.finish().await;
}

#[tokio::test]
async fn an_engine_that_is_too_old_is_named_with_the_version_that_is_needed() {
    let mut world = World::new().await;
    let socket = world.root().join("old.sock");
    let engine = tokio::spawn(old_engine(tokio::net::UnixListener::bind(&socket).unwrap()));
    world.set("DOCKER_HOST", &format!("unix://{}", socket.display()));
    let needed = ["old.sock speaks API 1.30", "Lazaret needs 1.41 (Docker Engine 20.10) or later"];
    has(&complaints(&world).await, &needed);
    engine.abort();
    world.finish().await;
}

#[tokio::test]
async fn an_engine_that_is_too_old_is_told_in_the_chat_with_the_version_that_is_needed() {
    let mut world = World::new().await;
    let socket = world.root().join("old.sock");
    let engine = tokio::spawn(old_engine(tokio::net::UnixListener::bind(&socket).unwrap()));
    world.set("DOCKER_HOST", &format!("unix://{}", socket.display()));
    world.up().await;
    let (told, _) = meanwhile(&world, "hello\n", told_of(&world, "m-1")).await;
    has(&told, &["The agent cannot start", "1.30", "Lazaret needs 1.41 (Docker Engine 20.10) or later"]);
    engine.abort();
    world.finish().await;
}

/// Imitates the part of Docker Engine 17.06 that the test needs: it reports its version and refuses newer clients.
async fn old_engine(listener: tokio::net::UnixListener) {
    use http_body_util::Full;
    use hyper::{Request, Response, body::Incoming};
    while let Ok((stream, _)) = listener.accept().await {
        let answer = |request: Request<Incoming>| async move {
            let version = request.uri().path().ends_with("/version");
            let newer = "client version 1.41 is too new. Maximum supported API version is 1.30";
            let body = if version {
                json!({ "Version": "17.06.0-ce", "ApiVersion": "1.30", "MinAPIVersion": "1.12", "Os": "linux" })
            } else {
                json!({ "message": newer })
            };
            let mut response = Response::new(Full::new(bytes::Bytes::from(body.to_string())));
            *response.status_mut() =
                if version { hyper::StatusCode::OK } else { hyper::StatusCode::BAD_REQUEST };
            response
                .headers_mut()
                .insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
            Ok::<_, std::convert::Infallible>(response)
        };
        let service = hyper::service::service_fn(answer);
        tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .serve_connection(hyper_util::rt::TokioIo::new(stream), service),
        );
    }
}

// State

#[tokio::test]
async fn a_second_host_on_the_same_state_is_refused_and_the_first_one_works_on() {
    let mut world = World::new().await;
    world.model.on("hello").says("Hello.");
    world.up().await;
    let pid = world.host().pid().unwrap();
    let told = refused(&world, &["up"]).await;
    let lock = world.root().join("state/host.lock").display().to_string();
    has(&told, &["another lazaret runs on", &lock, &format!("(pid {pid})"), "end it first", "host.locked"]);
    has(&world.chat("hello\n").await, &["Hello."]);
    world.finish().await;
}

#[tokio::test]
async fn a_database_newer_than_the_binary_is_refused_untouched() {
    let mut world = World::new().await;
    world.up().await;
    world.stop_host().await;
    let database = world.root().join("state/lazaret.db");
    let raw = rusqlite::Connection::open(&database).unwrap();
    let known: i64 = raw.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    raw.pragma_update(None, "user_version", 99).unwrap();
    drop(raw);
    let before = fs::read(&database).unwrap();
    let told = refused(&world, &["up"]).await;
    let knows = format!("this lazaret knows {known}");
    has(&told, &["lazaret.db has schema 99", &knows, "use the newer binary", "store.newer"]);
    assert_eq!(refused(&world, &["status"]).await, told);
    assert!(fs::read(&database).unwrap() == before, "the file was changed");
    world.finish().await;
}

#[tokio::test]
async fn a_foreign_file_in_the_databases_place_is_refused_untouched() {
    let world = World::new().await;
    let database = world.root().join("state/lazaret.db");
    world.write("state/lazaret.db", "Dear diary, today I went to the harness. ".repeat(100));
    let text = fs::read(&database).unwrap();
    has(&refused(&world, &["up"]).await, &["lazaret.db is damaged or not Lazaret's", "store.damaged"]);
    assert!(fs::read(&database).unwrap() == text, "the file was changed");

    fs::remove_file(&database).unwrap();
    rusqlite::Connection::open(&database).unwrap().execute_batch("CREATE TABLE theirs(x)").unwrap();
    let theirs = fs::read(&database).unwrap();
    let told = refused(&world, &["up"]).await;
    has(
        &told,
        &["lazaret.db is damaged or not Lazaret's", "belongs to another program", "lazaret up --begin-anew"],
    );
    assert!(fs::read(&database).unwrap() == theirs, "the file was changed");
    world.finish().await;
}

// Telegram

#[tokio::test]
async fn a_token_that_telegram_refuses_is_told_in_the_log_and_the_terminal_works() {
    let mut world = World::new().await;
    world.telegram.refuse_token();
    world.model.on("hello").says("Hello.");
    world.up().await;
    let told = async || world.log().contains("telegram.token").then_some(());
    world.patiently("the log tells of the token", told).await;
    has(&world.log(), &["check TELEGRAM_BOT_TOKEN or token_file"]);
    has(&world.chat("hello\n").await, &["Hello."]);
    assert!(!world.log().contains(TOKEN), "{}", world.log());
    world.finish().await;
}

#[tokio::test]
async fn another_poller_is_named_in_the_log_and_messages_flow_once_it_has_ended() {
    let mut world = World::new().await;
    let ann = world.telegram.person(5, "Ann");
    let direct = ann.direct();
    world.telegram.another_poller(true);
    ann.says(&direct, "hello");
    world.up().await;
    let told = async || world.log().contains("telegram.conflict").then_some(());
    world.patiently("the log tells of the other poller", told).await;
    has(&world.log(), &["another program reads this bot's messages", "give this host a bot of its own"]);
    world.telegram.another_poller(false);
    world.admit(&direct.address(), "main").await;
    world.model.on("still there").says("Still here.");
    ann.says(&direct, "still there?");
    assert_eq!(world.soon("messages flow", direct.hears()).await, "Still here.");
    world.finish().await;
}

#[tokio::test]
async fn strange_updates_between_two_good_ones_are_passed_over() {
    let mut world = World::new().await;
    let ann = world.telegram.person(5, "Ann");
    let direct = ann.direct();
    world.up().await;
    ann.says(&direct, "hello?");
    world.admit(&direct.address(), "main").await;
    world.stop_host().await;

    // Ann writes while the host is down, so that one poll returns both messages.
    world.model.on("the second").says("Both heard.");
    ann.says(&direct, "the first");
    world.telegram.update("business_connection", json!({ "id": "b", "is_enabled": true }));
    world.telegram.update("message", json!({ "message_id": "not a number" }));
    world.telegram.update("message", json!(null));
    // A service message has neither text nor files.
    let from = json!({ "id": 5, "is_bot": false, "first_name": "Ann" });
    let chat = json!({ "id": 5, "type": "private", "first_name": "Ann" });
    let empty = json!({ "message_id": 9000, "date": 1_795_000_000, "from": from, "chat": chat, "pinned_message": {} });
    world.telegram.update("message", empty);
    ann.says(&direct, "the second");
    world.up().await;
    assert_eq!(world.soon("both are answered", direct.hears()).await, "Both heard.");
    has(&world.model.last_request_text(), &["the first", "the second"]);
    has(&world.log(), &["telegram.update", "an update was passed over"]);
    assert_eq!(world.model.requests().len(), 1, "nothing else woke the agent");
    assert!(direct.unheard().is_empty());
    world.finish().await;
}

#[tokio::test]
async fn a_chat_that_is_not_admitted_costs_a_counter_and_nothing_else() {
    let mut world = World::new().await;
    let eve = world.telegram.person(66, "Eve");
    let (direct, room) = (eve.direct(), world.telegram.room(-666, "Eve's room"));
    world.up().await;
    for n in 0..10 {
        eve.says(&direct, &format!("please {n}"));
        eve.says(&room, &format!("@laz_bot please {n}"));
    }
    world.soon("all are taken", world.telegram.acknowledged()).await;
    assert_eq!(counter(&world, "dropped_unregistered").await, 20);
    let status: Value = serde_json::from_str(&world.lazaret(&["status", "--json"]).await).unwrap();
    assert_eq!((&status["messages"], &status["turns"]), (&json!(0), &json!({})), "{status:#}");
    assert!(world.telegram.sent().is_empty() && world.model.requests().is_empty());
    assert!(world.boxes().await.is_empty());
    world.finish().await;
}

// Messages

#[tokio::test]
async fn a_line_that_is_too_long_is_told_the_limit_and_the_next_one_is_answered() {
    a_line_of(1).await;
}

#[tokio::test]
async fn a_line_that_is_far_too_long_is_told_the_same() {
    a_line_of(5).await;
}

async fn a_line_of(mib: usize) {
    let mut world = World::new().await;
    world.model.on("hello").says("Hello.");
    world.up().await;
    let output = world.run(&["chat"], &format!("{}\nhello\n", "x".repeat(mib << 20))).await;
    let shown = [output.stdout, output.stderr].concat();
    let shown = String::from_utf8_lossy(&shown);
    let shown: Vec<&str> = shown.lines().filter(|line| !line.starts_with("> x")).collect();
    let limit = format!("That message has {} KiB; at most 64 KiB fit", mib << 10);
    has(&shown.join("\n"), &[&limit, "as a file", "Hello."]);
    world.finish().await;
}

#[tokio::test]
async fn a_message_that_is_too_long_for_a_letter_is_refused_in_its_chat() {
    let mut world = World::new().await;
    let ann = world.telegram.person(5, "Ann");
    let direct = ann.direct();
    world.up().await;
    ann.says(&direct, "hello?");
    world.admit(&direct.address(), "main").await;
    world.model.on("hello again").says("Hello.");
    ann.says(&direct, &"x".repeat(64 * 1024 + 1));
    let told = world.soon("the chat is told", direct.hears()).await;
    has(&told, &["[lazaret] That message has 65 KiB; at most 64 KiB fit"]);
    ann.says(&direct, "hello again");
    assert_eq!(world.soon("the next one is answered", direct.hears()).await, "Hello.");
    world.finish().await;
}

#[tokio::test]
async fn an_empty_line_is_passed_over_and_the_next_one_is_answered() {
    let mut world = World::new().await;
    world.model.on("hello").says("Hello.");
    world.up().await;
    has(&world.chat("\n   \t \nhello\n").await, &["Hello."]);
    let status: Value = serde_json::from_str(&world.lazaret(&["status", "--json"]).await).unwrap();
    assert_eq!(status["messages"], 1, "{status:#}");
    world.finish().await;
}

#[tokio::test]
async fn a_message_of_control_characters_is_an_empty_one() {
    let mut world = World::new().await;
    world.model.on("hello").says("Hello.");
    world.up().await;
    // Telegram lets these messages pass. After the host's cleaning they have neither text nor files.
    let ann = world.telegram.person(5, "Ann");
    ann.says(&ann.direct(), "hello?");
    world.admit(&ann.direct().address(), "main").await;
    ann.says(&ann.direct(), "\u{1}\u{2}");
    ann.says(&ann.direct(), "hello");
    assert_eq!(world.soon("the next one is answered", ann.direct().hears()).await, "Hello.");
    has(&world.model.last_request_text(), &["m-1"]);
    assert!(!world.model.last_request_text().contains("m-2"), "{}", world.model.last_request_text());
    world.finish().await;
}

#[tokio::test]
async fn a_message_that_comes_while_the_last_words_are_spoken_is_the_next_turn() {
    let mut world = World::new().await;
    let ann = world.telegram.person(5, "Ann");
    let direct = ann.direct();
    world.up().await;
    ann.says(&direct, "hello?");
    world.admit(&direct.address(), "main").await;
    let gate = Gate::new();
    world.model.on("count the cups").waits_for(&gate).says("Three cups.");
    world.model.on("and the plates").says("Two plates.");
    ann.says(&direct, "count the cups");
    world.soon("the model is asked", gate.arrived()).await;
    ann.says(&direct, "and the plates");
    let given = async || {
        let letters = fs::read_dir(world.newest_letters("main").join("to-agent")).ok()?.flatten();
        let inputs = letters.filter(|l| l.file_name().to_string_lossy().ends_with("-input.json")).count();
        (inputs >= 2).then_some(())
    };
    world.patiently("the box was given both", given).await;
    gate.open();
    assert_eq!(world.soon("the first is answered", direct.hears()).await, "Three cups.");
    assert_eq!(world.soon("the second is answered", direct.hears()).await, "Two plates.");
    world.finish().await;
}

#[tokio::test]
async fn messages_that_are_all_quotes_and_backslashes_fit_however_many_come_at_once() {
    let longest = |word: &str| format!("{word}{}", "\"\\".repeat((64 * 1024 - word.len()) / 2));
    let mut world = World::new().await;
    let ann = world.telegram.person(5, "Ann");
    let direct = ann.direct();
    world.up().await;
    ann.says(&direct, "hello?");
    world.admit(&direct.address(), "main").await;
    world.model.on("measure").says("Long.");
    let one = longest("measure");
    assert_eq!(one.len() / 2, 32 * 1024 - 1);
    has(&world.chat(&format!("{one}\n")).await, &["Long."]);
    assert!(
        world.model.last_request_text().replace("&quot;", "\"").contains(&one),
        "the message was cut or changed"
    );
    world.stop_host().await;

    for n in 1..=4 {
        ann.says(&direct, &longest(&format!("piece {n}")));
    }
    world.model.on("piece 4").says("All four.");
    world.model.on("piece").says("Not yet all.");
    world.up().await;
    while world.soon("the burst is answered", direct.hears()).await != "All four." {}
    world.finish().await;
}
