//! Scheduled tasks: an agent or an operator makes them, they fire, and the history says what became of each fire.
//!
//! A test does not wait for a schedule. `lazaret tasks run` lets a task fire now, and for an absence of days the tasks
//! are moved into the past while no host runs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use journeys::model::Gate;
use journeys::telegram::{Chat, Person};
use journeys::world::{Engine, World};
use serde_json::{Value, json};

async fn ann_at_home() -> (World, Person, Chat) {
    World::ann_at_home(Engine::stand_in().await, &[]).await
}

/// Runs `lazaret tasks … --json`.
async fn tasks(world: &World, args: &[&str]) -> Value {
    let told = world.lazaret(&[&["tasks"], args, &["--json"]].concat()).await;
    serde_json::from_str(&told).unwrap()
}

/// Makes a task that posts to Ann's chat.
async fn add(world: &World, args: &[&str]) -> Value {
    let made = tasks(world, &[&["add"], args].concat()).await;
    assert_eq!(made["chat"], "telegram:5", "the chat of `lazaret chat` is no reason to ask which one");
    made
}

/// Runs `lazaret tasks …`, which must fail. Returns its reason.
async fn refused(world: &World, args: &[&str]) -> String {
    let output = world.run(&[&["tasks"], args].concat(), "").await;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {told}");
    told
}

/// Waits until so many fires of a task have an outcome and none waits. Returns all of them, the oldest first.
async fn ended(world: &World, task: &str, fires: usize) -> Vec<Value> {
    let over = async || {
        let history = tasks(world, &["history", task, "--count", "1000"]).await;
        let mut found = history["fires"].as_array().unwrap().clone();
        found.reverse();
        let open = |fire: &Value| ["waiting", "running"].iter().any(|state| fire["outcome"] == **state);
        (found.len() >= fires && !found.iter().any(open)).then_some(found)
    };
    world.patiently(&format!("{fires} fires of {task} are over"), over).await
}

fn outcomes(fires: &[Value]) -> BTreeMap<&str, usize> {
    let mut counted = BTreeMap::new();
    for fire in fires {
        *counted.entry(fire["outcome"].as_str().unwrap()).or_default() += 1;
    }
    counted
}

/// How long a task's newest fire waited for its turn, and how long that took, in milliseconds.
fn delay_and_length(world: &World, task: &str) -> (i64, i64) {
    let sql = "SELECT f.started_at - f.not_before, f.ended_at - f.started_at FROM fire f JOIN task t ON t.id = f.task
               WHERE t.name = ?1 ORDER BY f.id DESC LIMIT 1";
    world.database().query_row(sql, [task], |r| Ok((r.get(0)?, r.get(1)?))).unwrap()
}

#[tokio::test]
async fn an_agent_plans_work_and_its_answer_comes_once() {
    let (world, ann, direct) = ann_at_home().await;
    let news = json!({ "name": "news", "schedule": "daily 07:30", "prompt": "Look up the headlines." });
    world.model.on("each morning").runs("schedule_task", news).says("Every day at 07:30.");
    ann.says(&direct, "tell me the news each morning");
    assert_eq!(world.hears(&direct).await, "Every day at 07:30.");
    let verdict = world.model.tool_results().concat();
    for words in ["task-1 \"news\": every day at 07:30", "Next: ", "07:30 UTC, in ", "Chat: telegram:5."] {
        assert!(verdict.contains(words), "{words:?}: {verdict}");
    }

    let listed = tasks(&world, &["list"]).await;
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["last"]), (1, &Value::Null));
    let shown = tasks(&world, &["show", "news"]).await;
    assert_eq!((&shown["prompt"], &shown["made_by"]), (&json!("Look up the headlines."), &json!("m-1")));

    world.model.on("Look up the headlines").says("Nothing happened.");
    let run = tasks(&world, &["run", "news"]).await;
    assert_eq!(run, json!({ "task": "task-1", "fire": "f-1", "host": true }));
    assert_eq!(world.hears(&direct).await, "Nothing happened.");
    let frame = world.model.last_request_text();
    assert!(frame.contains("<task id=\"f-1\" task=\"task-1\" name=\"news\""), "{frame}");
    assert!(!frame.contains("each morning"), "it works in a session of its own: {frame}");

    world.delivered().await;
    let fire = ended(&world, "news", 1).await.remove(0);
    assert_eq!((&fire["outcome"], &fire["reply"]), (&json!("ran"), &json!("Nothing happened.")), "{fire}");
    assert!(fire["took_s"].is_u64() && fire["tokens"].as_u64() > Some(0), "{fire}");
    assert!(fire["cost"].as_str().unwrap().starts_with('$'), "{fire}");
    let sent: String = world
        .database()
        .query_row("SELECT text FROM outbox WHERE id = ?1", [fire["outbox"].as_i64()], |r| r.get(0))
        .unwrap();
    assert_eq!(sent, "Nothing happened.");
    assert!(direct.unheard().is_empty());
    world.finish().await;
}

/// The host dies after the reminder was due and before it was sent: it starts without Telegram.
#[tokio::test]
async fn a_reminder_needs_no_model_and_is_posted_once_whenever_the_host_dies() {
    let (mut world, ann, direct) = ann_at_home().await;
    let remind = json!({ "text": "Stretch!", "when": "in 10 minutes" });
    world.model.on("remind me").runs("remind", remind).says("I will.");
    ann.says(&direct, "remind me to stretch");
    assert_eq!(world.hears(&direct).await, "I will.");
    let calls = world.model.requests().len();
    tasks(&world, &["run", "Stretch!"]).await;
    assert_eq!(world.hears(&direct).await, "Stretch!", "it is a reply and no notice of the host");
    world.delivered().await;

    world.set("LAZARET_CHANNELS_TELEGRAM_ENABLED", "false");
    world.stop_host().await;
    let run = tasks(&world, &["run", "Stretch!"]).await;
    assert_eq!(run["host"], json!(false));
    world.up().await;
    ended(&world, "Stretch!", 2).await;
    world.kill_host().await;
    assert!(direct.unheard().is_empty());
    world.unset("LAZARET_CHANNELS_TELEGRAM_ENABLED");
    world.up().await;
    assert_eq!(world.hears(&direct).await, "Stretch!");
    world.delivered().await;
    let fires = ended(&world, "Stretch!", 2).await;
    assert_eq!(outcomes(&fires), BTreeMap::from([("ran", 2)]));
    assert!(direct.unheard().is_empty() && world.model.requests().len() == calls);
    world.finish().await;
}

/// Moves all tasks so that they have not been looked at since `hours` before now. A single time moves along.
fn away_for(world: &World, hours: i64) {
    let database = world.database();
    let sql = "UPDATE task SET planned_to = planned_to - ?1, next_at = next_at - ?1,
                 schedule = CASE WHEN schedule LIKE 'once %' THEN
                   'once ' || strftime('%Y-%m-%dT%H:%M:00Z', (next_at - ?1) / 1000, 'unixepoch') ELSE schedule END";
    database.execute(sql, [hours * 3_600_000]).unwrap();
}

/// The time of the day so many minutes ago, in UTC: hour and minute.
fn minutes_ago(world: &World, minutes: u32) -> (String, String) {
    let at = format!("-{minutes} minutes");
    let sql = "SELECT strftime('%H', 'now', ?1), strftime('%M', 'now', ?1)";
    world.database().query_row(sql, [at], |r| Ok((r.get(0)?, r.get(1)?))).unwrap()
}

#[tokio::test]
async fn after_three_days_away_each_task_is_caught_up_once_and_the_rest_is_missed() {
    let (mut world, _, direct) = ann_at_home().await;
    let (_, minute) = minutes_ago(&world, 30);
    let ((h6, m6), (h13, m13)) = (minutes_ago(&world, 6 * 60), minutes_ago(&world, 13 * 60));
    let hourly = format!("{minute} * * * *");
    let (daily, too_late) = (format!("daily {h6}:{m6}"), format!("daily {h13}:{m13}"));
    for (name, schedule) in [
        ("each minute", "* * * * *"),
        ("each hour", hourly.as_str()),
        ("each day", &daily),
        ("each day, too late", &too_late),
        ("once", "in 40 hours"),
    ] {
        add(&world, &[name, schedule, "Do it."]).await;
    }
    add(&world, &["stretch", "in 50 hours", "Stretch!", "--remind"]).await;
    world.model.on("Do it").says("Done.");
    world.stop_host().await;
    away_for(&world, 72);
    world.up().await;

    let mut report = Vec::new();
    for (name, caught_up, missed) in [
        ("each hour", 1, 71..=72),
        ("each day", 1, 2..=3),
        ("each day, too late", 0, 3..=4),
        ("once", 1, 0..=0),
        ("stretch", 1, 0..=0),
    ] {
        let fires = ended(&world, name, caught_up + missed.start()).await;
        let counted = outcomes(&fires);
        report.push(format!("{name}: {counted:?}"));
        assert_eq!(counted.get("caught_up").copied().unwrap_or_default(), caught_up, "{name}: {counted:?}");
        let others = counted.get("missed").copied().unwrap_or_default();
        assert!(missed.contains(&others) && fires.len() == caught_up + others, "{name}: {counted:?}");
    }
    let database = world.database();
    let count = |of: &str| {
        let sql = format!(
            "SELECT count(*) FROM fire f JOIN task t ON t.id = f.task WHERE t.name = 'each minute' AND {of}"
        );
        database.query_row(&sql, [], |r| r.get::<_, i64>(0)).unwrap()
    };
    // The newest time of this task is not late; further ones have come since.
    let (ran, missed) =
        (count("outcome IS NULL OR outcome IN ('ran', 'skipped')"), count("outcome = 'missed'"));
    report.push(format!("each minute: {ran} on time, {missed} missed"));
    assert!((4_318..=4_321).contains(&missed) && (1..=3).contains(&ran), "{report:#?}");
    assert_eq!(count("outcome IN ('caught_up', 'failed', 'gated')"), 0);

    // Late fires begin one after another.
    let sql = "SELECT not_before FROM fire WHERE outcome = 'caught_up' ORDER BY not_before";
    let mut rows = database.prepare(sql).unwrap();
    let late: Vec<i64> = rows.query_map([], |r| r.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    assert!(late.len() == 4 && late.windows(2).all(|two| two[1] - two[0] >= 10_000), "{late:?}");
    let sql = "SELECT max(started_at) - min(started_at) FROM fire WHERE outcome = 'caught_up'";
    let burst: i64 = database.query_row(sql, [], |r| r.get(0)).unwrap();
    println!("{}\nthe burst lasted {burst} ms", report.join("\n"));

    world.delivered().await;
    let heard = direct.unheard();
    let reminders: Vec<_> = heard.iter().filter(|text| text.starts_with("Stretch!")).collect();
    assert!(reminders.len() == 1 && reminders[0].contains("I was away"), "{heard:?}");
    world.finish().await;
}

#[tokio::test]
async fn an_isolated_task_works_beside_a_long_conversation_and_one_of_the_group_waits_for_its_end() {
    let (world, ann, direct) = ann_at_home().await;
    let room = world.telegram.room(-100_200, "Desk");
    ann.says(&room, "hello?");
    world.admit(&room.address(), "main").await;
    let thinks = Gate::new();
    world.model.on("think it over").waits_for(&thinks).says("I have thought.");
    ann.says(&direct, "think it over");
    world.soon("the agent thinks", thinks.arrived()).await;

    let told = refused(&world, &["add", "news", "daily 07:30", "Look up the headlines."]).await;
    assert!(told.contains("has the chats telegram:-100200, telegram:5; name one with --chat"), "{told}");
    let chat = ["--chat", "telegram:5"];
    add(&world, &[&["news", "daily 07:30", "Look up the headlines."], &chat[..]].concat()).await;
    add(&world, &[&["digest", "daily 07:30", "Sum up the day.", "--context", "group"], &chat[..]].concat())
        .await;
    world.model.on("Look up the headlines").says("Nothing happened.");
    world.model.on("Sum up the day").says("A quiet day.");
    tasks(&world, &["run", "digest"]).await;
    tasks(&world, &["run", "news"]).await;
    assert_eq!(world.hears(&direct).await, "Nothing happened.", "the conversation still works");
    let waits = tasks(&world, &["history", "digest"]).await;
    assert_eq!(waits["fires"][0]["outcome"], "waiting", "{waits}");

    // A person who writes later goes before the fire.
    world.model.on("what time is it").says("Noon.");
    ann.says(&room, "@laz_bot what time is it?");
    world.soon("it is stored", world.telegram.acknowledged()).await;
    thinks.open();
    assert_eq!(world.hears(&direct).await, "I have thought.");
    assert_eq!(world.hears(&room).await, "Noon.");
    assert_eq!(world.hears(&direct).await, "A quiet day.");
    assert!(world.model.last_request_text().contains("Sum up the day"), "the task comes last");
    ended(&world, "digest", 1).await;
    let all = world.model.requests().pop().unwrap().body.to_string();
    assert!(all.contains("think it over") && all.contains("what time is it"), "it sees the conversation");
    for task in ["news", "digest"] {
        let (delay, length) = delay_and_length(&world, task);
        println!("{task}: began after {delay} ms, took {length} ms");
    }
    let sql =
        "SELECT (SELECT turn FROM fire WHERE id = 2), min(id) FROM turn WHERE lane = 'main/conversation'";
    let (news, talk): (i64, i64) =
        world.database().query_row(sql, [], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
    let times = |turn: i64| -> (i64, i64) {
        let sql = "SELECT opened_at, closed_at FROM turn WHERE id = ?1";
        world.database().query_row(sql, [turn], |r| Ok((r.get(0)?, r.get(1)?))).unwrap()
    };
    let ((news_from, news_to), (talk_from, talk_to)) = (times(news), times(talk));
    assert!(talk_from < news_from && news_to < talk_to, "side by side");
    world.finish().await;
}

#[tokio::test]
async fn a_question_that_waits_for_a_person_does_not_hold_up_a_fire() {
    let settings = [("LAZARET_HOST_QUESTION_WAIT", "0s")];
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &settings).await;
    let ask = json!({ "question": "Which milk?", "choices": ["whole", "skimmed"] });
    world.model.on("buy milk").runs("ask_person", ask).says("never said");
    ann.says(&direct, "buy milk");
    let card = world.hears(&direct).await;
    let code = card.split("/answer ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    world.patiently("the box is closed", async || world.boxes().await.is_empty().then_some(())).await;
    add(&world, &["digest", "daily 07:30", "Sum up the day.", "--context", "group"]).await;
    world.model.on("Sum up the day").says("A quiet day.");
    tasks(&world, &["run", "digest"]).await;
    assert_eq!(world.hears(&direct).await, "A quiet day.");
    world.model.on("skimmed").says("Skimmed it is.");
    ann.says(&direct, &format!("/answer {code} 2"));
    assert_eq!(world.hears(&direct).await, "Skimmed it is.");
    assert_eq!(outcomes(&ended(&world, "digest", 1).await), BTreeMap::from([("ran", 1)]));
    world.finish().await;
}

#[tokio::test]
async fn stop_ends_the_turn_of_an_isolated_task() {
    let (world, ann, direct) = ann_at_home().await;
    add(&world, &["news", "daily 07:30", "Look up the headlines."]).await;
    let reads = Gate::new();
    world.model.on("Look up the headlines").waits_for(&reads).says("never said");
    tasks(&world, &["run", "news"]).await;
    world.soon("the agent reads", reads.arrived()).await;
    ann.says(&direct, "/stop");
    let heard = [world.hears(&direct).await, world.hears(&direct).await];
    assert!(heard.iter().any(|text| text == "[lazaret] Task \"news\": Stopped."), "{heard:?}");
    let fire = ended(&world, "news", 1).await.remove(0);
    assert_eq!((&fire["outcome"], &fire["why"]), (&json!("failed"), &json!("stop")), "{fire}");
    reads.open();
    world.finish().await;
}

fn gate(world: &World, name: &str, script: &str) -> String {
    world.write(name, script);
    world.root().join(name).to_string_lossy().into_owned()
}

#[tokio::test]
async fn a_gate_that_says_no_a_hundred_times_calls_no_model() {
    let (world, _, direct) = ann_at_home().await;
    let no = gate(&world, "no.sh", "echo nothing new\necho '{\"wake\": false}'\n");
    add(&world, &["mail", "every 5m", "Read the mail.", "--gate", &no]).await;
    for _ in 0..100 {
        tasks(&world, &["run", "mail"]).await;
    }
    let fires = ended(&world, "mail", 100).await;
    assert_eq!(outcomes(&fires), BTreeMap::from([("gated", 100)]));
    assert_eq!(world.model.requests().len(), 0);
    assert!(fires.iter().all(|fire| fire["tokens"] == 0));
    assert!(direct.unheard().is_empty());
    world.finish().await;
}

#[tokio::test]
async fn a_gate_that_is_wrong_says_why_in_the_history_each_time_and_in_the_chat_once() {
    let settings = [("LAZARET_LIMITS_COMMAND", "1s")];
    let (world, _, direct) = World::ann_at_home(Engine::stand_in().await, &settings).await;
    for (name, script, code, why) in [
        ("silent", "true", "gate.output", "printed nothing"),
        ("garbled", "echo yes", "gate.output", "no JSON object"),
        ("broken", "echo no such feed >&2; exit 1", "gate.exit", "no such feed"),
        ("endless", "while :; do sleep 1; done", "gate.time", "did not end within 1 s"),
        ("flood", "head -c 1000000 /dev/zero | tr '\\0' x", "gate.output", "blank or too long"),
    ] {
        let file = gate(&world, name, script);
        add(&world, &[name, "every 5m", "Do it.", "--gate", &file]).await;
        for runs in 1..=2 {
            tasks(&world, &["run", name]).await;
            let fires = ended(&world, name, runs).await;
            let fire = fires.last().unwrap();
            assert_eq!((&fire["outcome"], &fire["why"]), (&json!("failed"), &json!(code)), "{name}: {fire}");
            assert!(fire["reply"].as_str().unwrap().contains(why), "{name}: {fire}");
        }
        let told = world.hears(&direct).await;
        assert!(told.starts_with(&format!("[lazaret] Task \"{name}\": ")) && told.contains(why), "{told}");
    }
    world.delivered().await;
    assert_eq!(direct.unheard(), [""; 0], "each is told once");
    assert_eq!(world.model.requests().len(), 0);
    world.finish().await;
}

/// In a real box: the script sees the workspace, and the agent what the script found.
#[tokio::test]
async fn a_gate_that_says_yes_hands_over_what_it_found() {
    let (world, _, direct) = World::ann_at_home(Engine::docker(), &[]).await;
    let yes = gate(
        &world,
        "yes.sh",
        "cd /workspace && echo 3 > mails && echo \"{\\\"wake\\\": true, \\\"data\\\": $(cat mails)}\"",
    );
    add(&world, &["mail", "every 5m", "Read the mail.", "--gate", &yes]).await;
    world.model.on("Read the mail").says("Three mails.");
    tasks(&world, &["run", "mail"]).await;
    assert_eq!(world.hears(&direct).await, "Three mails.");
    let seen = world.model.last_request_text();
    assert!(seen.contains("Read the mail.</task>") && seen.contains("<gate") && seen.contains('3'), "{seen}");
    assert_eq!(outcomes(&ended(&world, "mail", 1).await), BTreeMap::from([("ran", 1)]));
    world.finish().await;
}

/// Arguments of `schedule_task` that are wrong, and words of the reason.
fn wrong() -> Vec<(Value, &'static str)> {
    let task = |field: &str, value: Value| {
        let mut task = json!({ "name": "n", "schedule": "daily 07:30", "prompt": "p" });
        task[field] = value;
        task
    };
    vec![
        (task("schedule", json!("*/0 * * * *")), "*/0"),
        (task("schedule", json!("60 * * * *")), "60"),
        (task("schedule", json!("0 0 30 2 *")), "never"),
        (task("schedule", json!("30 Feb")), "there is no day \"30 feb\""),
        (task("schedule", json!("0 30 7 * * *")), "five"),
        (task("schedule", json!("x".repeat(10_000))), "10,000 bytes, at most 200"),
        (task("schedule", json!("9999-01-01 09:00")), "9999"),
        (task("schedule", json!("2020-01-01 09:00")), "past"),
        (task("schedule", json!("every 1s")), "shortest interval"),
        (task("zone", json!("Europe/Berlni")), "Europe/Berlin"),
        (task("chat", json!("telegram:404")), "telegram:404 is no chat of group main"),
        (task("chat", json!("nonsense")), "nonsense"),
        (task("gate", json!("x".repeat(20_000))), "20,000 bytes, at most 8,000 are allowed"),
        (task("prompt", json!("x".repeat(10_000))), "10,000 characters, at most 8,000 are allowed"),
        (task("prompt", json!(" ")), "the prompt is empty"),
        (task("name", json!("taken")), "a task named \"taken\" already (task-1)"),
        (task("name", json!("two\nlines")), "one line"),
        (task("until", json!("daily 09:00")), "the end"),
        (task("catch_up", json!("soon")), "skip"),
        (task("times", json!(0)), "at least 1"),
    ]
}

#[tokio::test]
async fn what_cannot_work_is_refused_with_its_reason_on_the_command_line_and_to_the_agent() {
    let (world, ann, direct) = ann_at_home().await;
    add(&world, &["taken", "daily 07:30", "Do it."]).await;
    let mut talk = world.model.on("try everything");
    for (args, why) in wrong() {
        let text = |field: &str| args[field].as_str().unwrap_or_default().to_owned();
        let file = gate(&world, "gate.sh", &text("gate"));
        let mut line = vec!["add".to_owned(), text("name"), text("schedule"), text("prompt")];
        let options =
            [("zone", "--tz"), ("chat", "--chat"), ("until", "--until"), ("catch_up", "--catch-up")];
        for (field, option) in options {
            if args.get(field).is_some() {
                line.extend([option.to_owned(), text(field)]);
            }
        }
        if args.get("chat").is_none() {
            line.extend(["--chat".to_owned(), direct.address()]);
        }
        if args.get("gate").is_some() {
            line.extend(["--gate".to_owned(), file]);
        }
        if args.get("times").is_some() {
            line.extend(["--times".to_owned(), "0".to_owned()]);
        }
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        let told = refused(&world, &line).await;
        assert!(told.contains(why), "{why:?} is not in: {told}");
        talk = talk.runs("schedule_task", args);
    }
    talk.says("Nothing works.");
    ann.says(&direct, "try everything");
    assert_eq!(world.hears(&direct).await, "Nothing works.");
    let told = world.model.tool_results();
    assert_eq!(told.len(), wrong().len());
    for ((_, why), told) in wrong().iter().zip(&told) {
        assert!(told.contains(why), "{why:?} is not in: {told}");
    }
    assert_eq!(tasks(&world, &["list", "--ended"]).await.as_array().unwrap().len(), 1, "nothing was made");

    // Ten thousand tasks are fifty.
    for n in 2..=50 {
        add(&world, &[&format!("task {n}"), "daily 07:30", "Do it."]).await;
    }
    let told = refused(&world, &["add", "task 51", "daily 07:30", "Do it.", "--chat", "telegram:5"]).await;
    assert!(told.contains("the group has 50 tasks, which is the most"), "{told}");
    let megabyte = gate(&world, "megabyte.sh", &"x".repeat(1 << 20));
    for (args, why) in [
        (
            vec!["add", "n", "daily 07:30", "p", "--chat", "telegram:5", "--gate", &megabyte],
            "1,048,576 bytes, at most 8,000",
        ),
        (vec!["run", "no such"], "there is no task \"no such\""),
        (vec!["edit", "taken", "--name", "task 2"], "a task named \"task 2\" already"),
        (vec!["add", "n", "daily 07:30", "p", "--gate", "/no/such/file"], "/no/such/file"),
    ] {
        let told = refused(&world, &args).await;
        assert!(told.contains(why), "{why:?} is not in: {told}");
    }
    tasks(&world, &["cancel", "taken"]).await;
    assert!(refused(&world, &["resume", "taken"]).await.contains("task-1 is cancelled"));
    add(&world, &["taken", "daily 07:30", "Do it."]).await;
    world.finish().await;
}

#[tokio::test]
async fn a_task_whose_chat_is_gone_is_paused_and_the_owner_hears_of_it_once() {
    let (world, ann, direct) = ann_at_home().await;
    let family = world.telegram.room(-100_123, "Family");
    ann.says(&family, "who is this bot?");
    world.admit(&family.address(), "family").await;
    tasks(&world, &["add", "news", "daily 07:30", "Look up.", "--group", "family"]).await;
    world.lazaret(&["groups", "revoke", &family.address()]).await;
    tasks(&world, &["run", "task-1"]).await;
    let told = world.hears(&direct).await;
    assert!(told.starts_with("[lazaret] The task \"news\" posts to telegram:-100123"), "{told}");
    let fire = ended(&world, "task-1", 1).await.remove(0);
    assert_eq!((&fire["outcome"], &fire["why"]), (&json!("failed"), &json!("chat.gone")), "{fire}");
    assert_eq!(tasks(&world, &["show", "task-1"]).await["state"], "paused");
    assert!(direct.unheard().is_empty() && family.unheard().is_empty());
    world.finish().await;
}

#[tokio::test]
async fn a_members_agent_manages_its_groups_tasks_only_and_that_of_main_all() {
    let (world, ann, direct) = ann_at_home().await;
    let family = world.telegram.room(-100_123, "Family");
    ann.says(&family, "who is this bot?");
    world.admit(&family.address(), "family").await;
    add(&world, &["secret", "daily 07:30", "Plan the party."]).await;
    let dinner =
        |chat: &str| json!({ "name": "dinner", "schedule": "daily 18:00", "prompt": "p", "chat": chat });
    world
        .model
        .on("what can you reach")
        .runs("list_tasks", json!({}))
        .runs("list_tasks", json!({ "all_groups": true }))
        .runs("cancel_task", json!({ "task": "task-1" }))
        .runs("update_task", json!({ "task": "secret", "prompt": "Tell all." }))
        .runs("task_history", json!({ "task": "task-1" }))
        .runs("schedule_task", dinner("telegram:5"))
        .runs("schedule_task", dinner(&family.address()))
        .runs("pause_task", json!({ "task": "dinner" }))
        .runs("resume_task", json!({ "task": "dinner" }))
        .says("Only ours.");
    ann.says(&family, "@laz_bot what can you reach?");
    assert_eq!(world.hears(&family).await, "Only ours.");
    let told = world.model.tool_results();
    assert!(!told.concat().contains("party"), "{told:?}");
    for (at, why) in [
        (0, "There are no tasks."),
        (1, "only the group main"),
        (2, "there is no task \"task-1\""),
        (3, "there is no task \"secret\""),
        (4, "there is no task \"task-1\""),
        (5, "telegram:5 is no chat of group family"),
        (6, "task-2 \"dinner\": every day at 18:00"),
        (7, "State: paused"),
        (8, "State: active"),
    ] {
        assert!(told[at].contains(why), "{why:?} is not in: {}", told[at]);
    }

    world
        .model
        .on("tidy up")
        .runs("list_tasks", json!({ "all_groups": true }))
        .runs("cancel_task", json!({ "task": "task-2" }))
        .says("Tidy.");
    ann.says(&direct, "tidy up");
    assert_eq!(world.hears(&direct).await, "Tidy.");
    let told = world.model.tool_results();
    assert!(told[0].contains("secret") && told[0].contains("dinner"), "{told:?}");
    assert!(told[1].contains("State: cancelled"), "{told:?}");
    world.finish().await;
}

#[tokio::test]
async fn a_scheduled_turn_makes_five_tasks_and_those_make_none() {
    let (world, _, direct) = ann_at_home().await;
    add(&world, &["mother", "daily 07:30", "Have children."]).await;
    let child =
        |n: u32| json!({ "name": format!("child {n}"), "schedule": "daily 08:00", "prompt": "Grow up." });
    let mut turn = world.model.on("Have children");
    for n in 1..=6 {
        turn = turn.runs("schedule_task", child(n));
    }
    turn.says("Five.");
    tasks(&world, &["run", "mother"]).await;
    assert_eq!(world.hears(&direct).await, "Five.");
    let told = world.model.tool_results();
    assert!(told[..5].iter().all(|verdict| verdict.contains("every day at 08:00")), "{told:?}");
    assert!(told[5].contains("may make 5 tasks"), "{told:?}");
    world.model.on("Grow up").runs("schedule_task", child(7)).says("None.");
    tasks(&world, &["run", "child 1"]).await;
    assert_eq!(world.hears(&direct).await, "None.");
    let told = world.model.tool_results();
    assert!(told[0].contains("a task that was made by a task makes no tasks"), "{told:?}");
    assert_eq!(tasks(&world, &["show", "child 1"]).await["made_by"], "f-1");
    world.finish().await;
}
