//! The install as a whole: a database that is missing, a copied install, owners and chats that are removed, settings
//! that wait for a restart, and commands that need no key.

#![cfg(test)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Output;

use journeys::world::{Engine, World};
use rustix::process::Signal;
use serde_json::Value;

#[track_caller]
fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn a_missing_database_is_no_new_install() {
    let (mut world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    world.model.on("good morning").says("Morning.");
    ann.says(&direct, "good morning");
    assert_eq!(world.hears(&direct).await, "Morning.");
    world.settled("m-1").await;
    world.lazaret(&["backup"]).await;
    world.stop_host().await;
    let database = world.root().join("state/lazaret.db");
    fs::rename(&database, world.root().join("lost.db")).unwrap();

    let refused = world.run(&["up"], "").await;
    assert_eq!(refused.status.code(), Some(1));
    let why = told(&refused);
    has(&why, &["store.missing", "sessions/", "lazaret restore ", "lazaret up --begin-anew"]);
    assert!(!database.exists(), "nothing was made");

    let copy = why.split_once("lazaret restore ").unwrap().1.split(" [").next().unwrap();
    world.lazaret(&["restore", copy]).await;
    world.model.on("good evening").says("Evening.");
    world.up().await;
    ann.says(&direct, "good evening");
    assert_eq!(world.hears(&direct).await, "Evening.", "Ann is admitted");
    world.stop_host().await;

    fs::remove_file(&database).unwrap();
    let anew = world.run(&["up", "--chat", "--begin-anew"], "").await;
    assert_eq!(anew.status.code(), Some(0), "{}", told(&anew));
    has(&told(&anew), &["state.anew", "state.before-"]);
    assert!(database.exists() && world.lazaret(&["owners", "list"]).await.contains("there is no owner"));
    world.finish().await;
}

fn copied(from: &Path, to: &Path) {
    let output = std::process::Command::new("cp").arg("-a").args([from, to]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn a_copied_install_leaves_the_boxes_of_the_original_alone() {
    let (mut world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    world.model.on("one").says("1");
    world.model.on("two").says("2");
    ann.says(&direct, "one");
    assert_eq!(world.hears(&direct).await, "1");
    let boxes = world.boxes().await;
    assert_eq!(boxes.len(), 1, "the box listens");

    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join("copy");
    copied(world.root(), &copy);
    let mut other = world.command(&["up", "--chat"]);
    other.env("LAZARET_ROOT", &copy).env_remove("TELEGRAM_BOT_TOKEN").stdin(std::process::Stdio::null());
    let ended = other.output().await.unwrap();
    has(&told(&ended), &["install.copied"]);
    assert_eq!(ended.status.code(), Some(0), "{}", told(&ended));

    assert_eq!(world.boxes().await, boxes);
    ann.says(&direct, "two");
    assert_eq!(world.hears(&direct).await, "2");
    assert_eq!(world.runs_of("main"), 1, "in the same box");
    world.stop_host().await;
    world.finish().await;
}

#[tokio::test]
async fn a_chat_and_an_owner_can_be_removed_and_a_group_without_folder_starts_nothing() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let (bob, family) = (world.telegram.person(6, "Bob"), world.telegram.room(-100_123, "Family"));
    bob.says(&family, "@laz_bot hello?");
    world.admit(&family.address(), "family").await;
    world.model.on("one").says("1");
    bob.says(&family, "@laz_bot one");
    assert_eq!(world.hears(&family).await, "1");

    // Somebody removes the folder: `main` is told once, and nothing starts.
    let folder = world.root().join("groups/family");
    fs::rename(&folder, world.root().join("kept")).unwrap();
    bob.says(&family, "@laz_bot two");
    has(&world.hears(&direct).await, &["Family", "whose folder groups/family is gone", "groups revoke"]);
    bob.says(&family, "@laz_bot two again");
    world.soon("the host has read it", world.telegram.acknowledged()).await;
    has(&world.lazaret(&["groups", "list"]).await, &["family  (its folder is gone"]);
    fs::rename(world.root().join("kept"), &folder).unwrap();
    world.model.on("three").says("3");
    bob.says(&family, "@laz_bot three");
    assert_eq!(world.hears(&family).await, "3");
    assert!(direct.unheard().is_empty(), "it is told once");

    let chat = family.address();
    has(
        &world.lazaret(&["groups", "revoke", &chat]).await,
        &[&chat, "does not belong to group family any more"],
    );
    bob.says(&family, "@laz_bot four");
    world.model.on("five").says("5");
    ann.says(&direct, "five");
    assert_eq!(world.hears(&direct).await, "5");
    assert!(family.unheard().is_empty(), "nobody answers there");
    has(&world.lazaret(&["groups", "list"]).await, &["wait to be admitted", &chat]);
    world.admit(&chat, "family").await;
    has(
        &world.lazaret(&["groups", "remove", "family"]).await,
        &["1 chats are admitted no more", "family.removed-"],
    );
    let list = world.lazaret(&["groups", "list"]).await;
    assert!(!list.contains("family"), "{list}");

    has(&world.lazaret(&["owners", "list"]).await, &["telegram:5"]);
    world.lazaret(&["owners", "add", "telegram:6"]).await;
    has(&world.lazaret(&["owners", "remove", "telegram:5"]).await, &["no owner any more"]);
    let owners = world.lazaret(&["owners", "list"]).await;
    assert!(owners.contains("telegram:6") && !owners.contains("telegram:5"), "{owners}");
    world.finish().await;
}

#[tokio::test]
async fn settings_that_wait_for_a_restart_are_shown_with_both_values() {
    let mut world = World::on(Engine::stand_in().await).await;
    world.up().await;
    assert!(!world.lazaret(&["config", "show"]).await.contains("waits for a restart"));
    world.write("lazaret.toml", "[limits]\nturn = \"7m\"\n");
    let waiting = "limits.turn is \"15m\" (default) in the running host and \"7m\"";
    has(&world.lazaret(&["config", "show"]).await, &[waiting]);
    has(&world.lazaret(&["groups", "show", "main"]).await, &[waiting]);
    has(&told(&world.run(&["doctor"], "").await), &[waiting]);
    world.host().signal(Signal::HUP);
    world.patiently("the log tells it", async || world.log().contains(waiting).then_some(())).await;
    assert!(world.is_up(), "SIGHUP ends no host");
    world.stop_host().await;
    let status = world.run(&["status"], "").await;
    assert_eq!(status.status.code(), Some(3));
    has(&told(&status), &["host      down"]);
    assert!(!world.lazaret(&["config", "show"]).await.contains("waits for a restart"));
    world.finish().await;
}

#[tokio::test]
async fn an_engine_of_another_machine_is_refused_by_name() {
    let mut world = World::on(Engine::stand_in().await).await;
    for address in ["tcp://10.0.0.1:2375", "ssh://me@there"] {
        world.set("DOCKER_HOST", address);
        for command in ["up", "doctor"] {
            let output = world.run(&[command], "").await;
            assert_eq!(output.status.code(), Some(1));
            has(&told(&output), &[&format!("DOCKER_HOST = {address:?}"), "on this machine only"]);
        }
    }
    world.finish().await;
}

#[tokio::test]
async fn commands_that_call_no_provider_need_no_key() {
    let mut world = World::on(Engine::stand_in().await).await;
    world.up().await;
    world.stop_host().await;
    world.write("lazaret.toml", "[providers.x]\nkind = \"anthropic\"\n");
    world.unset("ANTHROPIC_API_KEY");
    for command in [&["groups", "list"][..], &["image", "list"], &["config", "show"], &["owners", "list"]] {
        world.lazaret(command).await;
    }
    has(&world.lazaret(&["config", "check"]).await, &["needed by the host", "providers.x: there is no key"]);
    let refused = world.run(&["up"], "").await;
    has(&told(&refused), &["config.secret", "ANTHROPIC_API_KEY"]);
    world.finish().await;
}

#[tokio::test]
async fn a_line_that_is_not_text_does_not_end_the_chat_and_a_failed_turn_is_an_exit_code() {
    let mut world = World::on(Engine::stand_in().await).await;
    world.up().await;
    for (heard, said) in [("first", "one"), ("bytes", "two"), ("third", "three")] {
        world.model.on(heard).says(said);
    }
    let mut chat = world.command(&["chat"]);
    let lines = world.root().join("lines");
    fs::write(&lines, b"first\nbad \xff bytes\nthird\n").unwrap();
    chat.current_dir(world.root()).stdin(fs::File::open(&lines).unwrap());
    let output = chat.output().await.unwrap();
    let said = told(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    has(&said, &["one", "two", "three", "letters: state/letters/main/"]);

    world.model.on("break").http(401, "authentication_error", None);
    let output = world.run(&["chat"], "break\n/status\n").await;
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    has(&world.lazaret(&["trace"]).await, &["failed"]);
    world.finish().await;
}

#[tokio::test]
async fn a_user_without_rights_on_the_engines_socket_is_told_of_its_group() {
    let mut world = World::on(Engine::docker()).await.without_root();
    world.up().await;
    world.stop_host().await;
    let socket = world.root().join("engine.sock");
    let _engine = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(fs::metadata(&socket).unwrap().uid(), 0, "the socket belongs to root");
    world.set("DOCKER_HOST", &format!("unix://{}", socket.display()));
    for command in [&["doctor"][..], &["image", "check", "busybox"]] {
        let refused = world.run(command, "").await;
        assert_eq!(refused.status.code(), Some(1), "{command:?}");
        let why = told(&refused);
        has(&why, &["may not use the engine's socket", "engine.sock", "sudo usermod -aG docker USER"]);
        assert!(!why.contains("systemctl start docker"), "{why}");
    }
    // The host starts all the same: messages wait until it may use the engine.
    world.up().await;
    world.model.on("hello").says("Hello.");
    let (engine, root) = (Engine::docker().socket(), world.root().to_owned());
    let rights = async {
        let refused = async || world.log().contains("engine.no_rights").then_some(());
        world.patiently("the log names it", refused).await;
        fs::remove_file(&socket).unwrap();
        std::os::unix::fs::symlink(engine.trim_start_matches("unix://"), root.join("engine.sock")).unwrap();
    };
    let (said, ()) = tokio::join!(world.chat("hello\n"), rights);
    has(&said, &["may not use the engine's socket", "sudo usermod -aG docker USER", "Hello."]);
    world.stop_host().await;
    world.finish().await;
}

#[tokio::test]
async fn a_call_of_the_model_is_shown_whole_although_only_what_is_new_is_kept() {
    let mut world = World::on(Engine::stand_in().await).await;
    world.up().await;
    for (heard, said) in [("remember 42", "Noted."), ("which number", "It is 42.")] {
        world.model.on(heard).says(said);
    }
    world.chat("remember 42\nwhich number?\n").await;
    let shown = world.lazaret(&["ipc", "call", "2"]).await;
    has(&shown, &["remember 42", "Noted.", "which number?", "It is 42."]);
    let call: Value = serde_json::from_str(&world.lazaret(&["ipc", "call", "2", "--json"]).await).unwrap();
    let asked = &world.model.requests()[1].body;
    assert_eq!(call["request"]["messages"], asked["messages"], "as the provider got it");
    assert!(call["answer"].as_str().unwrap().contains("It is 42."));
    let kept = fs::read_to_string(world.newest_letters("main").join("model/0002-request.json"));
    assert!(!kept.unwrap_or_default().contains("remember 42"), "only what is new is kept");

    let unknown = world.run(&["ipc", "call", "9"], "").await;
    assert_eq!(unknown.status.code(), Some(1));
    has(&told(&unknown), &["there is no call 9"]);
    world.finish().await;
}

#[tokio::test]
async fn doctor_reads_every_page_of_the_database_if_it_is_asked_to() {
    let mut world = World::on(Engine::stand_in().await).await;
    world.up().await;
    world.model.on("hello").says("Hello.");
    world.chat("hello\n").await;
    world.stop_host().await;
    has(
        &told(&world.run(&["doctor"], "").await),
        &["ok   store", "`lazaret doctor --deep` reads every page"],
    );
    has(&told(&world.run(&["doctor", "--deep"], "").await), &["ok   store"]);

    // The last page of the file becomes garbage. Nothing that a start reads is in it.
    let path = world.root().join("state/lazaret.db");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 4096;
    bytes[last..].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    let found = world.run(&["doctor", "--deep"], "").await;
    assert_eq!(found.status.code(), Some(1), "{}", told(&found));
    has(&told(&found), &["BAD  store"]);
    world.finish().await;
}
