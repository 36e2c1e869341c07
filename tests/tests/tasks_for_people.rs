//! Scheduled tasks as people meet them: the demo model, `/tasks` in a chat, `lazaret tasks`, and heartbeats.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use journeys::world::{Engine, World};
use serde_json::Value;

/// The tasks as `lazaret tasks list` shows them.
async fn tasks(world: &World) -> Vec<Value> {
    serde_json::from_str(&world.lazaret(&["tasks", "list", "--ended", "--json"]).await).unwrap()
}

/// The outcomes of a task's fires, the newest first.
async fn outcomes(world: &World, task: &str) -> Vec<String> {
    let history = world.lazaret(&["tasks", "history", task, "--json"]).await;
    let history: Value = serde_json::from_str(&history).unwrap();
    let fires = history["fires"].as_array().cloned().unwrap_or_default();
    fires.iter().map(|fire| fire["outcome"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn a_newcomer_asks_the_demo_model_for_a_reminder_and_a_task() {
    let mut world = World::on(Engine::stand_in().await).await;
    world.unset("ANTHROPIC_API_KEY").up().await;
    let ann = world.telegram.person(5, "Ann");
    let direct = ann.direct();
    ann.says(&direct, "hello?");
    world.admit(&direct.address(), "main").await;
    ann.says(&direct, "remind me in 1 second to stretch");
    let mut heard = [world.hears(&direct).await, world.hears(&direct).await];
    // The reminder does not wait for the answer.
    heard.sort();
    let [verdict, reminder] = heard;
    assert!(verdict.contains("Done: \"stretch\" comes ") && verdict.contains("/tasks"), "{verdict}");
    assert_eq!(reminder, "stretch");

    ann.says(&direct, "every day at 8 tell me a joke");
    let verdict = world.hears(&direct).await;
    assert!(verdict.contains("the task \"tell me a joke\" comes ") && verdict.contains("08:00"), "{verdict}");
    ann.says(&direct, "/tasks run 2");
    assert_eq!(
        world.hears(&direct).await,
        "[lazaret] 2: \"tell me a joke\" comes now. /tasks history 2 shows what became of it."
    );
    let joke = world.hears(&direct).await;
    assert!(joke.contains("has fired") && joke.contains("container walks into a bar"), "{joke}");
    world.finish().await;
}

#[tokio::test]
async fn tasks_are_listed_and_changed_in_a_chat_and_on_the_command_line() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    ann.says(&direct, "/tasks");
    let none = world.hears(&direct).await;
    assert!(none.starts_with("[lazaret] Nothing is planned here."), "{none}");

    let address = direct.address();
    let add = ["tasks", "add", "tea", "every 30m", "Tea", "time", "--remind", "--chat", &address];
    let added = world.lazaret(&add).await;
    assert!(added.contains("every 30 minutes") && added.contains("in 30 minutes"), "{added}");
    ann.says(&direct, "/tasks");
    let list = world.hears(&direct).await;
    assert!(
        list.starts_with("[lazaret] Planned here:\n1. tea (reminder): every 30 minutes. Next: "),
        "{list}"
    );
    assert!(list.ends_with("/tasks pause 1, resume 1, cancel 1, run 1 or history 1."), "{list}");

    // The command line tells the host at once.
    world.lazaret(&["tasks", "run", "task-1"]).await;
    assert_eq!(world.hears(&direct).await, "Tea time");
    ann.says(&direct, "/tasks pause 1");
    let paused = world.hears(&direct).await;
    assert_eq!(paused, "[lazaret] 1: \"tea\" is paused. /tasks resume 1 lets it go on.");
    ann.says(&direct, "/tasks resume #1");
    let resumed = world.hears(&direct).await;
    assert!(
        resumed.starts_with("[lazaret] 1: \"tea\" comes ") && resumed.contains("in 30 minutes"),
        "{resumed}"
    );
    ann.says(&direct, "/tasks history 1");
    let history = world.hears(&direct).await;
    assert!(
        history.starts_with("[lazaret] 1: \"tea\", the latest first:\n") && history.contains(": ran"),
        "{history}"
    );
    ann.says(&direct, "/tasks cancel 1");
    assert_eq!(world.hears(&direct).await, "[lazaret] 1: \"tea\" is cancelled.");
    assert_eq!(tasks(&world).await[0]["state"], "cancelled");

    for (order, told) in [
        (
            "/tasks resume 1",
            "[lazaret] Nothing was done: task-1 is cancelled; only a new task can replace it.",
        ),
        (
            "/tasks pause 9",
            "[lazaret] There is no task \"task-9\" here. /tasks lists what is planned, with its numbers.",
        ),
        (
            "/tasks stop 1",
            "[lazaret] /tasks does not understand \"stop 1\". /tasks alone lists what is planned.",
        ),
    ] {
        ann.says(&direct, order);
        let heard = world.hears(&direct).await;
        assert!(heard.starts_with(told), "{order}: {heard}");
    }
    world.finish().await;
}

#[tokio::test]
async fn a_chat_manages_the_tasks_of_its_own_group_only() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let bob = world.telegram.person(6, "Bob");
    let family = world.telegram.room(-100_123, "Family");
    bob.says(&family, "who is this bot?");
    world.admit(&family.address(), "family").await;
    world
        .lazaret(&["tasks", "add", "secret", "daily 09:00", "x", "--remind", "--chat", &direct.address()])
        .await;
    bob.says(&family, "/tasks");
    assert!(world.hears(&family).await.starts_with("[lazaret] Nothing is planned here."));
    bob.says(&family, "/tasks cancel 1");
    let told = world.hears(&family).await;
    assert!(told.starts_with("[lazaret] There is no task \"task-1\" here."), "{told}");
    assert_eq!(tasks(&world).await[0]["state"], "active");
    ann.says(&direct, "/tasks cancel secret");
    assert_eq!(world.hears(&direct).await, "[lazaret] 1: \"secret\" is cancelled.");
    world.finish().await;
}

#[tokio::test]
async fn a_heartbeat_of_the_groups_file_looks_and_may_say_nothing() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let file = |schedule: &str| {
        let chat = direct.address();
        format!(
            "[[heartbeat]]\nname = \"look\"\nschedule = \"{schedule}\"\nprompt_file = \"look.md\"\nchat = \"{chat}\"\n"
        )
    };
    world.write("groups/main/look.md", "Are the bins due?\n");
    world.write("groups/main/group.toml", file("weekdays 07:30"));
    // Whatever changes tasks lets the host read the files, as it does once a minute.
    let add = ["tasks", "add", "tea", "daily 16:00", "Tea", "--remind", "--chat", &direct.address()];
    world.lazaret(&add).await;
    let look = world
        .patiently("the heartbeat is planned", async || {
            tasks(&world).await.into_iter().find(|task| task["name"] == "look")
        })
        .await;
    assert_eq!((&look["kind"], &look["made_by"]), (&"heartbeat".into(), &"group.toml".into()));
    assert_eq!(look["schedule"], "on weekdays at 07:30 UTC");

    world.model.on("Are the bins due?").says("");
    world.lazaret(&["tasks", "run", "look"]).await;
    world
        .patiently("it has looked", async || (outcomes(&world, "look").await == ["ran"]).then_some(()))
        .await;
    assert!(
        world.model.last_request_text().contains("This is a heartbeat"),
        "{}",
        world.model.last_request_text()
    );
    assert!(direct.unheard().is_empty(), "{:?}", direct.unheard());

    world.write("groups/main/look.md", "Is it trash day?");
    world.lazaret(&["tasks", "pause", "tea"]).await;
    let changed = async || tasks(&world).await.into_iter().find(|task| task["prompt"] == "Is it trash day?");
    world.patiently("the heartbeat has the new prompt", changed).await;
    world.model.on("Is it trash day?").says("The bins go out tonight.");
    world.lazaret(&["tasks", "run", "look"]).await;
    assert_eq!(world.hears(&direct).await, "The bins go out tonight.");

    // A person may pause it. Only the file ends it.
    let id = look["task"].as_str().unwrap();
    ann.says(&direct, &format!("/tasks cancel {id}"));
    let told = world.hears(&direct).await;
    assert!(told.contains("only the operator can end it"), "{told}");
    world.write("groups/main/group.toml", "");
    world.lazaret(&["tasks", "resume", "tea"]).await;
    world
        .patiently("it is cancelled", async || {
            tasks(&world).await.into_iter().find(|task| task["task"] == id && task["state"] == "cancelled")
        })
        .await;
    world.finish().await;
}

#[tokio::test]
async fn a_heartbeat_that_cannot_be_planned_is_named_by_config_check_and_by_doctor() {
    let (world, _ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    world.lazaret(&["tasks", "add", "look", "daily 09:00", "x", "--chat", &direct.address()]).await;
    world.write(
        "groups/main/group.toml",
        "[[heartbeat]]\nname = \"look\"\nschedule = \"soon\"\nprompt = \"x\"\n",
    );
    let checked = world.run(&["config", "check"], "").await;
    let told = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(
        !checked.status.success() && told.contains("group.toml:3:12: \"soon\" is not a schedule"),
        "{told}"
    );
    world.write(
        "groups/main/group.toml",
        "[[heartbeat]]\nname = \"look\"\nschedule = \"hourly\"\nprompt = \"x\"\n",
    );
    let found = String::from_utf8_lossy(&world.run(&["doctor"], "").await.stdout).into_owned();
    assert!(found.contains("the heartbeat \"look\" of group.toml is not planned"), "{found}");
    assert!(found.contains("has a task named \"look\" already (task-1)"), "{found}");
    world.finish().await;
}
