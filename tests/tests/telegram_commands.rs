//! Journeys of commands on Telegram, on the engine stand-in.

use journeys::world::{Engine, World};

#[tokio::test]
async fn commands_in_a_room_work_without_the_bots_name_and_another_bots_are_left_alone() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let family = world.telegram.room(-100_123, "Family");
    ann.says(&family, "who is this bot?");
    world.admit(&family.address(), "family").await;
    assert_eq!(
        world.telegram.commands(),
        ["stop", "new", "status", "tasks", "context", "compact", "answer", "model", "usage", "help"]
    );

    world.model.on("remember blue").says("Blue.");
    ann.says(&family, "@laz_bot remember blue");
    assert_eq!(world.hears(&family).await, "Blue.");

    // Another bot's command begins no session, as a reply to ours too, and wakes nobody.
    let ours = world.telegram.sent().pop().unwrap();
    ann.says(&family, "/new@other_bot");
    ann.says(&family, "/new@other_bot please, @laz_bot watch");
    ann.answers(&family, &ours, "/new@other_bot");
    ann.says(&direct, "/new@other_bot");
    assert_eq!(
        world.hears(&direct).await,
        "[lazaret] This command names another bot, so nothing was done. Write the command without the name."
    );
    ann.says(&family, "/status");
    assert!(world.hears(&family).await.contains("group family: listening"));
    ann.says(&family, "/stop");
    assert_eq!(world.hears(&family).await, "[lazaret] Nothing is running here.");
    ann.says(&family, "/help");
    assert!(world.hears(&family).await.contains("/new - begin a new session"));
    let sessions: i64 = world.database().query_row("SELECT sum(session) FROM grp", [], |r| r.get(0)).unwrap();
    assert_eq!(sessions, 2, "each group is in its first session");
    assert!(family.unheard().is_empty() && direct.unheard().is_empty());
    world.finish().await;
}

#[tokio::test]
async fn the_words_after_new_are_the_first_message_of_the_new_session() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    world.model.on("remember blue").says("Blue.");
    ann.says(&direct, "remember blue");
    assert_eq!(world.hears(&direct).await, "Blue.");
    world.model.on("which colour").says("I know of none.");
    ann.says(&direct, "/new which colour did I name?");
    let heard = [world.hears(&direct).await, world.hears(&direct).await];
    assert!(
        heard.iter().any(|told| told.starts_with("[lazaret] A new session begins (number 2)")),
        "{heard:?}"
    );
    assert!(heard.iter().any(|told| told == "I know of none."), "{heard:?}");
    assert!(
        !world.model.last_request_text().contains("remember blue"),
        "{}",
        world.model.last_request_text()
    );

    let chatted = world.chat("/new\n").await;
    assert!(chatted.contains("A new session begins (number 3)"), "{chatted}");
    world.model.on("how are you").says("Quite well.");
    let chatted = world.chat("/new how are you?\n").await;
    assert!(chatted.contains("(number 4)") && chatted.contains("Quite well."), "{chatted}");
    world.finish().await;
}
