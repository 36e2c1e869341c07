//! Journeys of manners on Telegram: drafts, reactions, quotes, answers by reply, `/model`, `/usage` and the list of
//! commands. They run on the engine stand-in.

#![cfg(test)]

use std::time::Duration;

use journeys::model::Gate;
use journeys::telegram::{Chat, Person, Trouble};
use journeys::world::{Engine, World};
use serde_json::json;

/// A reply that comes in pieces, with formatting that a draft must close by itself.
const STORY: &str =
    "Once there was a **brave** little host. It kept every message, and `never` said one twice.";

async fn at_home(settings: &[(&str, &str)]) -> (World, Person, Chat) {
    World::ann_at_home(Engine::stand_in().await, settings).await
}

/// Adds a room of the group `family`, with Bob.
async fn with_family(world: &World) -> (Person, Chat) {
    let bob = world.telegram.person(6, "Bob");
    let family = world.telegram.room(-100_123, "Family");
    bob.says(&family, "who is this bot?");
    world.admit(&family.address(), "family").await;
    (bob, family)
}

fn count(world: &World, sql: &str) -> i64 {
    world.database().query_row(sql, [], |r| r.get(0)).unwrap()
}

/// Tells the story, and returns all messages of the chat.
async fn told(drafts: &str) -> (Vec<String>, usize) {
    let (world, ann, direct) = at_home(&[("LAZARET_CHANNELS_TELEGRAM_DRAFTS", drafts)]).await;
    world.model.on("a story").drips(6, Duration::from_millis(300)).says(STORY);
    ann.says(&direct, "tell me a story");
    let message = world.soon("the story", direct.hears_message()).await;
    world.settled("m-1").await;
    let shown = world.telegram.drafts(&direct);
    assert!(shown.iter().all(|draft| draft.after == 0), "no draft follows the reply: {shown:?}");
    assert!(shown.iter().all(|draft| message.text.starts_with(draft.text.trim_end())), "{shown:?}");
    let ids: std::collections::BTreeSet<_> = shown.iter().map(|draft| draft.draft_id).collect();
    assert!(ids.len() <= 1, "the drafts of a turn replace each other");
    let messages = world.telegram.sent().into_iter().map(|m| m.raw).collect();
    world.finish().await;
    (messages, shown.len())
}

#[tokio::test]
async fn a_reply_is_the_same_with_drafts_and_without() {
    let ((with, shown), (without, none)) = (told("true").await, told("false").await);
    assert!(shown > 0, "drafts are shown");
    assert_eq!(none, 0);
    assert_eq!(with, without);
}

#[tokio::test]
async fn a_platform_that_refuses_drafts_is_left_alone_with_them() {
    let (world, ann, direct) = at_home(&[]).await;
    world.telegram.refuse_next("sendMessageDraft", 400, "Bad Request: TEXTDRAFT_PEER_INVALID", None);
    world.model.on("a story").drips(6, Duration::from_millis(300)).says(STORY);
    ann.says(&direct, "tell me a story");
    assert!(world.hears(&direct).await.starts_with("Once there was"));
    world.settled("m-1").await;
    assert!(world.telegram.drafts(&direct).is_empty());
    world.finish().await;
}

/// The draft is on its way when the reply is ready. The reply waits for it, and no longer than a moment.
#[tokio::test]
async fn a_reply_waits_for_the_draft_on_its_way_and_not_for_one_that_hangs() {
    let (world, ann, direct) = at_home(&[]).await;
    world.telegram.plan("sendMessageDraft", "", Trouble::HangsAfter);
    world.model.on("a story").drips(4, Duration::from_millis(300)).says(STORY);
    ann.says(&direct, "tell me a story");
    assert!(world.hears(&direct).await.starts_with("Once there was"));
    let trace = world.settled("m-1").await;
    assert_eq!(trace["turn"]["said"][0]["uncertain"], json!(0), "{trace}");
    assert!(direct.unheard().is_empty());
    world.finish().await;
}

#[tokio::test]
async fn rooms_and_tasks_that_nobody_waits_for_get_no_drafts() {
    let (world, _, _) = at_home(&[]).await;
    let (bob, family) = with_family(&world).await;
    world.model.on("a story").drips(4, Duration::from_millis(300)).says(STORY);
    bob.says(&family, "@laz_bot tell me a story");
    assert!(world.hears(&family).await.starts_with("Once there was"));
    assert!(world.telegram.drafts(&family).is_empty());
    world.finish().await;
}

#[tokio::test]
async fn an_agent_reacts_to_the_message_that_woke_it_or_to_one_that_it_names() {
    let (world, ann, direct) = at_home(&[]).await;
    world.model.on("thank you").runs("react", json!({ "emoji": "❤\u{fe0f}" })).says("");
    let first = ann.says(&direct, "thank you");
    world.soon("the reaction", world.telegram.comes_to_react(&direct, first, "❤")).await;
    world.settled("m-1").await;
    // The second message names the first one; wrong wishes are told, and end nothing.
    let wrong = [
        json!({ "emoji": "🥑" }),
        json!({ "emoji": "👍", "message": "m-99" }),
        json!({ "emoji": "👍", "message": "m-3; DROP TABLE message" }),
        json!({ "emoji": "two words" }),
        json!({ "emoji": 7 }),
    ];
    let rule = wrong.iter().fold(world.model.on("once more"), |rule, wish| rule.runs("react", wish.clone()));
    rule.runs("react", json!({ "emoji": "🔥", "message": "m-1" })).says("There.");
    ann.says(&direct, "once more");
    assert_eq!(
        world.hears(&direct).await,
        "There.",
        "the turn before has said nothing, and its reaction was enough"
    );
    world.soon("the reaction", world.telegram.comes_to_react(&direct, first, "🔥")).await;
    let results = world.model.tool_results().join("\n");
    for words in ["Telegram has no such reaction; it has 👍", "m-99 is no message of this chat", "one emoji"]
    {
        assert!(results.contains(words), "{results}");
    }
    world.finish().await;
}

#[tokio::test]
async fn a_reaction_stays_in_the_turns_own_chat_and_administrators_may_limit_them() {
    let (world, ann, direct) = at_home(&[]).await;
    let (bob, family) = with_family(&world).await;
    world.model.on("hello").says("Hello.");
    let private = ann.says(&direct, "hello");
    assert_eq!(world.hears(&direct).await, "Hello.");
    let seq: i64 = count(&world, "SELECT max(seq) FROM message WHERE chat = 'telegram:5'");
    world.telegram.allows_reactions(&["👍", "👀"]);
    world
        .model
        .on("react")
        .runs("react", json!({ "emoji": "👍", "message": format!("m-{seq}") }))
        .runs("react", json!({ "emoji": "🔥" }))
        .runs("react", json!({ "emoji": "👍" }))
        .says("Done.");
    let asked = bob.says(&family, "@laz_bot react");
    assert_eq!(world.hears(&family).await, "Done.");
    world.soon("the reaction", world.telegram.comes_to_react(&family, asked, "👍")).await;
    let results = world.model.tool_results().join("\n");
    assert!(results.contains("is no message of this chat"), "{results}");
    assert!(results.contains("administrators of this chat allow only some reactions"), "{results}");
    assert!(world.telegram.reactions(&direct, private).is_empty());
    world.settled("m-1").await;
    world
        .patiently("the marks are gone", async || {
            (count(&world, "SELECT count(*) FROM taken_mark") == 0).then_some(())
        })
        .await;
    assert_eq!(world.telegram.reactions(&family, asked).last().unwrap(), "👍", "the agent's own stays");
    world.finish().await;
}

#[tokio::test]
async fn a_taken_message_is_marked_until_its_answer_also_over_a_killed_host() {
    let (mut world, _, _) = at_home(&[]).await;
    let (bob, family) = with_family(&world).await;
    let gate = Gate::default();
    world.model.on("think hard").waits_for(&gate).says("Forty-two.");
    let asked = bob.says(&family, "@laz_bot think hard");
    world.soon("the mark", world.telegram.comes_to_react(&family, asked, "👀")).await;
    world.kill_host().await;
    gate.open();
    world.up().await;
    assert_eq!(world.hears(&family).await, "Forty-two.");
    world.soon("the mark is gone", world.telegram.comes_to_react(&family, asked, "")).await;
    world
        .patiently("no row is left", async || {
            (count(&world, "SELECT count(*) FROM taken_mark") == 0).then_some(())
        })
        .await;
    assert_eq!(world.telegram.reactions(&family, asked), ["👀", ""]);
    world.finish().await;
}

#[tokio::test]
async fn marks_follow_the_setting() {
    for (setting, room, own) in [("off", false, false), ("all", true, true)] {
        let (world, ann, direct) = at_home(&[("LAZARET_CHANNELS_TELEGRAM_TAKEN_REACTION", setting)]).await;
        let (bob, family) = with_family(&world).await;
        world.model.on("hello").drips(3, Duration::from_millis(500)).says("Hello.");
        let (one, two) = (ann.says(&direct, "hello"), bob.says(&family, "@laz_bot hello"));
        assert_eq!(
            (world.hears(&direct).await, world.hears(&family).await),
            ("Hello.".into(), "Hello.".into())
        );
        for (chat, message, marked) in [(&direct, one, own), (&family, two, room)] {
            if marked {
                world.soon("the mark is gone", world.telegram.comes_to_react(chat, message, "")).await;
            }
            assert_eq!(!world.telegram.reactions(chat, message).is_empty(), marked, "{setting}");
        }
        world.finish().await;
    }
}

#[tokio::test]
async fn an_answer_in_a_room_quotes_the_message_that_it_answers() {
    let (world, ann, direct) = at_home(&[]).await;
    let (bob, family) = with_family(&world).await;
    let topic = family.topic(42);
    let long = "A long paragraph of words.\n\n".repeat(300);
    world.model.on("hello").says("Hello.");
    world.model.on("at length").runs("send_message", json!({ "text": "Wait." })).says(&long);
    let asked = bob.says(&family, "@laz_bot at length");
    assert_eq!(world.soon("interim", family.hears_message()).await.quotes, None, "an interim reply");
    let first = world.soon("the first part", family.hears_message()).await;
    let second = world.soon("the second part", family.hears_message()).await;
    assert_eq!((first.quotes, second.quotes), (Some(asked), None));
    world.delivered().await;
    while !family.unheard().is_empty() {
        world.hears(&family).await;
    }

    let order = bob.says(&family, "/status");
    assert_eq!(world.soon("the status", family.hears_message()).await.quotes, Some(order));
    let in_topic = bob.says(&topic, "@laz_bot hello");
    assert_eq!(world.soon("in the topic", topic.hears_message()).await.quotes, Some(in_topic));
    ann.says(&direct, "hello");
    assert_eq!(world.soon("in the direct chat", direct.hears_message()).await.quotes, None);

    // The newest one of several; and one that is deleted meanwhile is no failure.
    let gate = Gate::default();
    world.model.on("one").waits_for(&gate).says("First.");
    world.model.on("two").says("Both.");
    bob.says(&family, "@laz_bot one");
    world
        .patiently("it is asked", async || {
            (world.model.last_request_text().contains("@laz_bot one")).then_some(())
        })
        .await;
    let newest = bob.says(&family, "@laz_bot two");
    world.telegram.acknowledged().await;
    gate.open();
    let answer = world.soon("the answer", family.hears_message()).await;
    let last =
        if answer.text == "First." { world.soon("the next", family.hears_message()).await } else { answer };
    assert_eq!((last.text.as_str(), last.quotes), ("Both.", Some(newest)));
    let gate = Gate::default();
    world.model.on("forget").waits_for(&gate).says("Forgotten.");
    let gone = bob.says(&family, "@laz_bot forget");
    world.telegram.acknowledged().await;
    bob.deletes(&family, gone);
    gate.open();
    let answer = world.soon("the answer", family.hears_message()).await;
    assert_eq!((answer.text.as_str(), answer.quotes), ("Forgotten.", None));
    world.finish().await;
}

#[tokio::test]
async fn a_group_that_became_a_supergroup_is_answered_without_the_old_numbers() {
    let (world, _, _) = at_home(&[]).await;
    let bob = world.telegram.person(6, "Bob");
    let group = world.telegram.room(-77, "Club");
    bob.says(&group, "hi");
    world.admit(&group.address(), "club").await;
    let gate = Gate::default();
    world.model.on("how are you").waits_for(&gate).says("Well.");
    bob.says(&group, "@laz_bot how are you?");
    world.telegram.acknowledged().await;
    let club = world.telegram.becomes_supergroup(&group, -100_777);
    gate.open();
    let answer = world.soon("the answer", club.hears_message()).await;
    assert_eq!((answer.text.as_str(), answer.quotes), ("Well.", None));
    world.finish().await;
}

/// A free answer needs no command: a reply to the question does, in a direct chat, in a room and in a topic, whatever
/// others write; and its buttons work everywhere.
#[tokio::test]
async fn a_question_is_answered_by_a_reply_in_every_kind_of_chat() {
    let (world, ann, direct) = at_home(&[]).await;
    let (bob, family) = with_family(&world).await;
    let ask = json!({ "question": "Which milk?", "choices": ["whole", "skimmed"] });
    world.model.on("buy milk").runs("ask_person", ask.clone()).quotes("Bought: ");
    world.model.on("buy more").runs("ask_person", ask).quotes("Bought: ");
    for (person, chat) in [(&ann, direct.clone()), (&bob, family.clone()), (&bob, family.topic(42))] {
        person.says(&chat, "@laz_bot buy milk");
        let card = world.soon("the question", chat.hears_message()).await;
        assert_eq!(card.buttons.len(), 2);
        person.answers(&chat, &card, "oat milk, please");
        let answer = world.hears(&chat).await;
        assert!(answer.starts_with("Bought:") && answer.contains("oat milk, please"), "{answer}");

        person.says(&chat, "@laz_bot buy more");
        let card = world.soon("the question", chat.hears_message()).await;
        person.presses(&card, "2. skimmed");
        let answer = world.hears(&chat).await;
        assert!(
            answer.contains("skimmed") && !answer.contains("oat"),
            "{answer}: {:?}",
            world.model.tool_results()
        );
        // The question is closed: a later reply to it is a message like any other.
        world.model.on("too late").says("Noted.");
        person.answers(&chat, &card, "too late");
        assert_eq!(world.hears(&chat).await, "Noted.");
    }
    world.finish().await;
}

const MODELS: &str =
    "[[models]]\nname = \"claude-haiku-5-5\"\n\n[[models]]\nname = \"claude-opus-5\"\nwindow = 100000\n";

fn last_model(world: &World) -> String {
    let request = world.model.requests().pop();
    request.map(|r| r.body["model"].as_str().unwrap_or_default().to_owned()).unwrap_or_default()
}

/// The choice is for the next turn, also if the host dies in this one.
#[tokio::test]
async fn a_turn_keeps_its_model_over_a_killed_host() {
    let mut world = World::on(Engine::stand_in().await).await;
    world.write("lazaret.toml", MODELS);
    let ann = world.telegram.person(5, "Ann");
    let direct = ann.direct();
    world.up().await;
    ann.says(&direct, "hello?");
    world.admit(&direct.address(), "main").await;
    let wait = json!({ "command": "until [ -e go ]; do sleep 0.05; done" });
    world.model.on("work").runs("run_command", wait).says("Done.");
    ann.says(&direct, "work");
    let called = async || (!last_model(&world).is_empty()).then_some(());
    world.patiently("the model is called", called).await;
    let usual = last_model(&world);
    ann.says(&direct, "/model claude-opus-5");
    assert!(world.hears(&direct).await.contains("The model is claude-opus-5 from the next turn on"));
    world.delivered().await;
    world.kill_host().await;
    world.up().await;
    world.write("state/workspaces/main/go", "");
    assert_eq!(world.hears(&direct).await, "Done.");
    assert_eq!(last_model(&world), usual);
    world.model.on("hello").says("Hello.");
    ann.says(&direct, "hello");
    assert_eq!(world.hears(&direct).await, "Hello.");
    assert_eq!(last_model(&world), "claude-opus-5");
    world.finish().await;
}

#[tokio::test]
async fn an_owner_chooses_the_model_of_a_group_from_the_next_turn_on() {
    let mut world = World::on(Engine::stand_in().await).await;
    world.write("lazaret.toml", MODELS);
    let ann = world.telegram.person(5, "Ann");
    let direct = ann.direct();
    world.up().await;
    ann.says(&direct, "hello?");
    world.admit(&direct.address(), "main").await;
    let (bob, family) = with_family(&world).await;
    world.model.on("hello").says("Hello.");
    ann.says(&direct, "hello");
    assert_eq!(world.hears(&direct).await, "Hello.");
    let usual = last_model(&world);

    ann.says(&direct, "/model");
    let shown = world.hears(&direct).await;
    assert!(shown.contains(&format!("The model is {usual}, as the settings say")), "{shown}");
    assert!(shown.contains("claude-haiku-5-5, claude-opus-5"), "{shown}");
    ann.says(&direct, "/model gpt-99");
    assert!(world.hears(&direct).await.contains("no model gpt-99 to choose"));
    ann.says(&direct, "/model Claude-Haiku-5-5");
    assert!(world.hears(&direct).await.contains("The model is claude-haiku-5-5 from the next turn on"));
    ann.says(&direct, "hello again");
    assert_eq!(world.hears(&direct).await, "Hello.");
    assert_eq!(last_model(&world), "claude-haiku-5-5");
    let request = world.model.requests().pop().map(|r| r.body.to_string()).unwrap_or_default();
    assert!(request.contains("hello again") && request.contains("Hello."), "the session goes on: {request}");
    ann.says(&direct, "/status");
    assert!(world.hears(&direct).await.contains("model claude-haiku-5-5 at anthropic"));
    let shown = world.lazaret(&["groups", "show", "main"]).await;
    assert!(shown.contains("claude-haiku-5-5 at anthropic (chosen with /model)"), "{shown}");

    // Bob is no owner, and each group has its own.
    bob.says(&family, "/model@laz_bot claude-haiku-5-5");
    assert!(world.hears(&family).await.contains("Only an owner can choose the model"));
    bob.says(&family, "@laz_bot hello");
    assert_eq!(world.hears(&family).await, "Hello.");
    assert_eq!(last_model(&world), usual);

    // The next host holds to the choice, also for a box that is still up.
    world.delivered().await;
    world.kill_host().await;
    world.up().await;
    ann.says(&direct, "hello after the restart");
    assert_eq!(world.hears(&direct).await, "Hello.");
    assert_eq!(last_model(&world), "claude-haiku-5-5");

    // The settings do not know it any more: the file's model answers, and the owner is told once.
    world.delivered().await;
    world.stop_host().await;
    world.write("lazaret.toml", "");
    world.up().await;
    ann.says(&direct, "hello without it");
    let heard = [world.hears(&direct).await, world.hears(&direct).await];
    assert!(heard.iter().any(|told| told == "Hello."), "{heard:?}");
    assert!(
        heard
            .iter()
            .any(|told| told
                .contains("The model anthropic/claude-haiku-5-5 was chosen for the group main, but")),
        "{heard:?}"
    );
    assert_eq!(last_model(&world), usual);
    ann.says(&direct, "/model default");
    assert!(world.hears(&direct).await.contains(&format!("that of the settings again, {usual}")));
    ann.says(&direct, "hello at last");
    assert_eq!(world.hears(&direct).await, "Hello.");
    assert!(direct.unheard().is_empty());
    world.finish().await;
}

#[tokio::test]
async fn a_model_that_is_chosen_when_the_host_dies_is_chosen_once() {
    let mut world = World::on(Engine::stand_in().await).await;
    world.write("lazaret.toml", MODELS);
    let ann = world.telegram.person(5, "Ann");
    let direct = ann.direct();
    world.up().await;
    ann.says(&direct, "hello?");
    world.admit(&direct.address(), "main").await;
    world.model.on("hello").says("Hello.");
    ann.says(&direct, "hello");
    assert_eq!(world.hears(&direct).await, "Hello.");
    world.delivered().await;
    world.kill_host().await;
    // The box of before is still there when the order is carried out.
    ann.says(&direct, "/model claude-opus-5");
    ann.says(&direct, "hello again");
    world.up().await;
    let mut heard = vec![world.hears(&direct).await, world.hears(&direct).await];
    heard.sort();
    assert!(heard[1].contains("The model is claude-opus-5"), "{heard:?}");
    ann.says(&direct, "hello a third time");
    assert_eq!(world.hears(&direct).await, "Hello.");
    assert_eq!(last_model(&world), "claude-opus-5");
    assert_eq!(count(&world, "SELECT count(*) FROM model_choice"), 1);
    world.finish().await;
}

#[tokio::test]
async fn usage_is_told_by_time_and_sender_and_names_what_has_no_price() {
    let mut world = World::on(Engine::stand_in().await).await;
    world.write("lazaret.toml", "[[models]]\nname = \"unheard-of-7b\"\n");
    let ann = world.telegram.person(5, "Ann");
    let direct = ann.direct();
    world.up().await;
    ann.says(&direct, "hello?");
    world.admit(&direct.address(), "main").await;
    ann.says(&direct, "/usage");
    assert_eq!(world.hears(&direct).await, "[lazaret] The group main has made no model call in 30 days.");
    world.model.on("hello").says("Hello.").counts(1_000_000, 0);
    ann.says(&direct, "hello");
    assert_eq!(world.hears(&direct).await, "Hello.");
    world.settled("m-2").await;
    ann.says(&direct, "/usage");
    let told = world.hears(&direct).await;
    assert!(told.contains("today: 1 call, 1000000 tokens in, "), "{told}");
    assert!(
        told.contains("By sender, 30 days: Ann ") && told.contains('$') && !told.contains("price"),
        "{told}"
    );
    ann.says(&direct, "/model unheard-of-7b");
    world.hears(&direct).await;
    ann.says(&direct, "hello again");
    assert_eq!(world.hears(&direct).await, "Hello.");
    ann.says(&direct, "/usage");
    let told = world.hears(&direct).await;
    assert!(told.contains("30 days: 2 calls") && told.contains("plus calls with an unknown price"), "{told}");
    assert!(told.ends_with("Price unknown: unheard-of-7b"), "{told}");
    world.finish().await;
}

#[tokio::test]
async fn the_list_of_commands_is_set_when_it_differs_and_not_again() {
    let (mut world, ann, direct) = at_home(&[]).await;
    let listed = world.telegram.commands();
    assert!(listed.contains(&"model".to_owned()) && listed.contains(&"usage".to_owned()), "{listed:?}");
    assert_eq!(world.telegram.command_lists(), 1);
    world.stop_host().await;
    world.up().await;
    world.model.on("hello").says("Hello.");
    ann.says(&direct, "hello");
    assert_eq!(world.hears(&direct).await, "Hello.");
    assert_eq!(world.telegram.command_lists(), 1, "Telegram has it already");
    world.stop_host().await;
    // A list that cannot be set stops nothing.
    world.telegram.forgets_commands();
    world.telegram.refuse_next("setMyCommands", 429, "Too Many Requests: retry after 5", Some(5));
    world.up().await;
    ann.says(&direct, "hello");
    assert_eq!(world.hears(&direct).await, "Hello.");
    assert_eq!(world.telegram.command_lists(), 1);
    world.finish().await;
}
