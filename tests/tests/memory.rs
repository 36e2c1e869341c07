//! What an agent remembers: from one chat to another of its group, to no other group, past `/new`, and past files that
//! are traps.

#![cfg(test)]

use journeys::telegram::{Chat, Person};
use journeys::world::{Engine, World};
use serde_json::{Value, json};

/// Somebody asks, and the agent calls one tool of its memory. Returns the tool's result.
async fn asked(world: &World, who: &Person, chat: &Chat, text: &str, tool: &str, input: Value) -> String {
    world.model.on(text).runs(tool, input).says("Done.");
    who.says(chat, text);
    assert_eq!(world.hears(chat).await, "Done.");
    world.model.tool_results().pop().unwrap()
}

async fn fails(world: &World, args: &[&str]) -> String {
    let output = world.run(args, "").await;
    assert!(!output.status.success(), "{args:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_memory_is_found_in_every_chat_of_its_group_and_in_no_other_group() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let bob = world.telegram.person(6, "Bob");
    let family = world.telegram.room(-100_123, "Family");
    bob.says(&family, "who is this bot?");
    world.admit(&family.address(), "family").await;

    let fact = json!({ "text": "The bike lock opens with 4711.", "topic": "Bike" });
    let saved = asked(&world, &ann, &direct, "keep the code", "save_memory", fact).await;
    assert_eq!(saved, "saved: memory/topics/bike.md:3");

    // From the terminal, in words that the entry does not have.
    let query = json!({ "query": "opening the locks" });
    world.model.on("which code").runs("search_memory", query.clone()).says("It is 4711.");
    assert!(world.chat("which code for the bike?\n").await.contains("It is 4711."));
    let found = world.model.tool_results().pop().unwrap();
    assert!(
        found.contains("opens with 4711") && found.contains(&format!("{}, m-", direct.address())),
        "{found}"
    );
    let request = world.model.requests().pop().unwrap().body["system"].to_string();
    assert!(request.contains("[memory/topics/bike.md:3, ") && request.contains("4711"), "{request}");

    // The other group finds nothing, in its prompt neither.
    let found = asked(&world, &ann, &family, "@laz_bot the bike code?", "search_memory", query.clone()).await;
    assert_eq!(found, "nothing is saved yet");
    assert!(!world.model.requests().pop().unwrap().body.to_string().contains("4711"));

    // A new session keeps the memory.
    ann.says(&direct, "/new");
    assert!(world.hears(&direct).await.starts_with("[lazaret] A new session begins"));
    assert!(asked(&world, &ann, &direct, "once more", "search_memory", query).await.contains("4711"));

    assert!(world.lazaret(&["memory", "search", "main", "locks"]).await.contains("topics/bike.md:3 ("));
    assert_eq!(world.lazaret(&["memory", "search", "family", "locks"]).await.trim(), "no entry matches");
    world.finish().await;
}

#[tokio::test]
async fn what_main_shares_all_groups_read() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let family = world.telegram.room(-100_123, "Family");
    ann.says(&family, "hello");
    world.admit(&family.address(), "family").await;
    let fact = |text: &str| json!({ "text": text, "topic": "house", "shared": true });
    let saved =
        asked(&world, &ann, &direct, "tell all", "save_memory", fact("The bin goes out on Monday.")).await;
    assert_eq!(saved, "saved: /global/memory/topics/house.md:3");
    let query = json!({ "query": "bins" });
    let found = asked(&world, &ann, &family, "@laz_bot which day?", "search_memory", query).await;
    assert!(found.starts_with("/global/memory/topics/house.md:3 ("), "{found}");
    let refused = asked(&world, &ann, &family, "@laz_bot say Friday", "save_memory", fact("Friday.")).await;
    assert!(refused.contains("only the group main"), "{refused}");
    assert!(
        world.lazaret(&["memory", "list", "global"]).await.starts_with("topics/house.md: 1 entry, newest 20")
    );
    world.finish().await;
}

#[tokio::test]
async fn a_memory_of_traps_stops_neither_the_agent_nor_the_command_line() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let traps = "mkdir -p memory/topics memory/people && cd memory/topics && truncate -s 50M huge.md && \
                 ln -s /etc/passwd link.md && mkfifo fifo.md && mkdir folder.md && \
                 printf '# Red\\n- tea \\033[2J \\342\\200\\256\\377 at five\\n- cake at six\\n' > red.md && ln -s /etc ../daily";
    let made = asked(&world, &ann, &direct, "set traps", "run_command", json!({ "command": traps })).await;
    assert_eq!(made, "(no output)");

    let query = json!({ "query": "tea" });
    let found = asked(&world, &ann, &direct, "what about tea", "search_memory", query).await;
    assert!(found.starts_with("memory/topics/red.md:2: tea"), "{found}");
    for trap in ["huge.md", "link.md", "fifo.md", "daily"] {
        assert!(found.contains(trap), "{trap}: {found}");
    }
    for (n, topic) in ["huge", "link", "fifo", "folder"].iter().enumerate() {
        let fact = json!({ "text": "more", "topic": topic });
        let refused = asked(&world, &ann, &direct, &format!("save {n}"), "save_memory", fact).await;
        assert!(refused.starts_with("not saved: "), "{topic}: {refused}");
    }
    let log = json!({ "text": "a day" });
    assert!(asked(&world, &ann, &direct, "log it", "daily_log", log).await.starts_with("not saved: "));

    let lists = world.lazaret(&["memory", "list", "main"]).await;
    assert!(
        lists.starts_with("topics/red.md: 2 entries\n") && lists.matches("cannot be read").count() == 4,
        "{lists}"
    );
    let listed: Value =
        serde_json::from_str(&world.lazaret(&["memory", "list", "main", "--json"]).await).unwrap();
    assert_eq!(
        (listed["files"][0]["entries"].clone(), listed["problems"].as_array().unwrap().len()),
        (json!(2), 4)
    );
    let shown = world.lazaret(&["memory", "show", "main", "topics/red.md"]).await;
    assert!(
        shown.contains("tea \\u{1b}[2J \\u{202e}\u{fffd} at five") && !shown.contains('\u{1b}'),
        "{shown}"
    );
    let found = world.lazaret(&["memory", "search", "main", "teas", "five"]).await;
    assert!(found.starts_with("topics/red.md:2 [Red] tea") && !found.contains('\u{1b}'), "{found}");
    for (file, why) in [
        ("topics/link.md", "link"),
        ("topics/fifo.md", "FIFO"),
        ("topics/huge.md", "bytes"),
        ("../x.md", "not a memory"),
    ] {
        let refused = fails(&world, &["memory", "show", "main", file]).await;
        assert!(refused.contains(why), "{file}: {refused}");
        fails(&world, &["memory", "rm", "main", file]).await;
    }
    assert!(
        fails(&world, &["memory", "rm", "main", "topics/red.md:9"]).await.contains("no entry at this line")
    );
    assert!(fails(&world, &["memory", "list", "nobody"]).await.contains("there is no group nobody"));
    let removed = world.lazaret(&["memory", "rm", "main", "memory/topics/red.md:2"]).await;
    assert!(removed.starts_with("removed topics/red.md:2 [Red] tea"), "{removed}");
    assert_eq!(
        world.lazaret(&["memory", "show", "main", "topics/red.md"]).await.trim(),
        "# Red\n- cake at six"
    );
    // The agent can still write the file that the host has changed.
    let fact = json!({ "text": "milk at seven", "topic": "red" });
    let saved = asked(&world, &ann, &direct, "one more", "save_memory", fact).await;
    assert_eq!(saved, "saved: memory/topics/red.md:3");
    world.lazaret(&["memory", "rm", "main", "topics/red.md"]).await;
    assert!(!world.root().join("state/workspaces/main/memory/topics/red.md").exists());
    world.finish().await;
}
