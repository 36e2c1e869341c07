//! What people see of an agent's words on Telegram. The journeys run on the engine stand-in.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use journeys::telegram::{Chat, Person, SentMessage, Trouble};
use journeys::world::{Engine, World};
use serde_json::json;

async fn at_home() -> (World, Person, Chat) {
    World::ann_at_home(Engine::stand_in().await, &[]).await
}

/// Ann asks, and the agent answers with these words.
fn asks((world, ann, direct): (&World, &Person, &Chat), question: &str, answer: &str) {
    world.model.on(question).says(answer);
    ann.says(direct, question);
}

async fn message(world: &World, chat: &Chat) -> SentMessage {
    world.soon("a message comes", chat.hears_message()).await
}

/// Words of which each is another one.
fn words(count: usize) -> String {
    (0..count).map(|n| format!("word-{n};")).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn words_that_markdown_hides_are_shown() {
    let (world, ann, direct) = at_home().await;
    for (n, (says, shown)) in [
        ("![](https://e.example/cat.png)", "https://e.example/cat.png"),
        ("[](https://e.example)", "https://e.example"),
        ("[1]: https://e.example", "[1]: https://e.example"),
        ("[note]: important", "[note]: important"),
        ("[]()", "[]()"),
        (">", ">"),
        ("```\n```", "```\n```"),
        ("<!-- only aside -->", "<!-- only aside -->"),
        ("Look: <details>all</details>\n\n[^1]: noted", "Look: <details>all</details>\n\n[^1]: noted"),
    ]
    .into_iter()
    .enumerate()
    {
        asks((&world, &ann, &direct), &format!("show number {n}!"), says);
        assert_eq!(world.hears(&direct).await, shown);
    }
    assert!(direct.unheard().is_empty());
    world.finish().await;
}

#[tokio::test]
async fn a_long_reply_keeps_its_links_and_its_code_blocks_in_each_part() {
    let (world, ann, direct) = at_home().await;
    let long = format!("See [the page][p].\n\n{}\n\n[p]: https://e.example/p", words(600));
    asks((&world, &ann, &direct), "which page", &long);
    let first = message(&world, &direct).await;
    assert!(first.raw.starts_with("See <a href=\"https://e.example/p\">the page</a>."), "{}", first.raw);
    let second = message(&world, &direct).await;
    assert!(second.text.ends_with("word-599;"), "{}", second.text);

    let code: String = (0..300).map(|n| format!("  > let line_{n} = {n};\n")).collect();
    let long = format!("```one line```\n\n- > ~~~rust\n{code}  > ~~~\n\nDone.");
    asks((&world, &ann, &direct), "which code", &long);
    let (first, second) = (message(&world, &direct).await, message(&world, &direct).await);
    assert!(first.raw.starts_with("<code>one line</code>\n\n• <blockquote><pre>"), "{}", first.raw);
    assert!(second.raw.contains("<pre><code class=\"language-rust\">let line_"), "{}", second.raw);
    assert!(second.raw.ends_with("</code></pre></blockquote>\n\nDone."), "{}", second.raw);
    assert!(direct.unheard().is_empty());
    world.finish().await;
}

#[tokio::test]
async fn a_table_stands_in_columns() {
    let (world, ann, direct) = at_home().await;
    asks((&world, &ann, &direct), "how old", "| Name | Age |\n|---|--:|\n| **Ann** | 5 |\n| 王小明 | 41 |");
    let table = message(&world, &direct).await;
    assert_eq!(table.text, "Name   | Age\n-------+----\nAnn    |   5\n王小明 |  41");
    assert!(table.raw.starts_with("<pre>"), "{}", table.raw);
    world.finish().await;
}

#[tokio::test]
async fn a_refused_text_comes_as_plain_text_and_then_in_smaller_parts() {
    let (mut world, ann, direct) = at_home().await;
    for what in ["can't parse entities: unsupported start tag", "ENTITIES_TOO_LONG", "message text is empty"]
    {
        world.telegram.plan("sendMessage", "page", Trouble::Refused(400, format!("Bad Request: {what}")));
        asks(
            (&world, &ann, &direct),
            &format!("which page ({what})"),
            "The **one** [page](https://e.example).",
        );
        assert_eq!(world.hears(&direct).await, "The one page (https://e.example).");
    }

    world.telegram.takes_texts_up_to(Some(1_000));
    asks((&world, &ann, &direct), "all words", &words(300));
    let mut heard = String::new();
    while !heard.contains("word-299;") {
        heard = format!("{heard} {}", world.hears(&direct).await);
    }
    assert_eq!(heard.trim(), words(300), "each word once and in order");

    // The host dies among the parts.
    asks((&world, &ann, &direct), "the words again", &words(300));
    let mut heard = world.hears(&direct).await;
    world.kill_host().await;
    world.up().await;
    while !heard.contains("word-299;") {
        heard = format!("{heard} {}", world.hears(&direct).await);
    }
    world.delivered().await;
    heard.extend(direct.unheard());
    for _ in direct.unheard() {
        direct.hears().await;
    }
    let uncertain: usize = world
        .database()
        .query_row("SELECT sum(uncertain) FROM outbox", [], |r| r.get::<_, i64>(0))
        .unwrap()
        .unsigned_abs() as usize;
    for n in 0..300 {
        let copies = heard.matches(&format!("word-{n};")).count();
        assert!(
            (1..=1 + uncertain).contains(&copies),
            "{copies} copies of word {n}, {uncertain} are counted"
        );
    }

    // A text that is refused in any form is given up, and the chat is told.
    world.telegram.takes_texts_up_to(None);
    for _ in 0..4 {
        let refusal = Trouble::Refused(400, "Bad Request: message is too long".into());
        world.telegram.plan("sendMessage", "word-", refusal);
    }
    asks((&world, &ann, &direct), "once more", &words(300));
    assert_eq!(
        world.hears(&direct).await,
        "[lazaret] A reply could not be delivered: Bad Request: message is too long. Ask again if you still need it."
    );
    world.finish().await;
}

#[tokio::test]
async fn a_caption_is_measured_as_telegram_does_and_follows_its_file() {
    let (world, ann, direct) = at_home().await;
    fs::create_dir_all(world.in_workspace("main", "")).unwrap();
    fs::write(world.in_workspace("main", "cap.txt"), "x").unwrap();
    let thumbs = "👍".repeat(600);
    let ask = json!({ "path": "cap.txt", "caption": thumbs });
    world.model.on("the file").runs("send_file", ask).says("There.");
    ann.says(&direct, "the file, please");
    assert_eq!(world.hears(&direct).await, "[file cap.txt]");
    assert_eq!(world.hears(&direct).await, thumbs);
    assert_eq!(world.hears(&direct).await, "There.");

    // A caption that fits by our count and is refused all the same.
    let refusal = || Trouble::Refused(400, "Bad Request: message caption is too long".into());
    for _ in 0..2 {
        world.telegram.plan("sendDocument", "cap.txt", refusal());
    }
    let ask = json!({ "path": "cap.txt", "caption": "what it **is**" });
    world.model.on("it again").runs("send_file", ask).says("There again.");
    ann.says(&direct, "it again, please");
    assert_eq!(world.hears(&direct).await, "[file cap.txt]");
    assert_eq!(world.hears(&direct).await, "what it is");
    assert_eq!(world.hears(&direct).await, "There again.");

    asks((&world, &ann, &direct), "many thumbs", &"👍".repeat(2_048));
    assert_eq!(world.hears(&direct).await, "👍".repeat(2_048), "4096 units are one message");
    assert!(direct.unheard().is_empty());
    world.finish().await;
}

#[tokio::test]
async fn a_reply_of_more_than_ten_parts_is_a_file_with_a_line() {
    let (mut world, ann, direct) = at_home().await;
    let reply = format!("# All the words\n\n{}", format!("{}\n\n", words(100)).repeat(50));
    asks((&world, &ann, &direct), "all of it", &reply);
    let sent = message(&world, &direct).await;
    let file = sent.file.unwrap();
    assert_eq!(String::from_utf8(file.bytes).unwrap().trim(), reply.trim());
    assert_eq!(file.name, "reply.md");
    assert!(
        sent.text.starts_with("All the words (The reply has ") && !sent.text.contains('\n'),
        "{}",
        sent.text
    );
    world.delivered().await;
    world.kill_host().await;
    world.up().await;
    asks((&world, &ann, &direct), "thank you", "You are welcome.");
    assert_eq!(world.hears(&direct).await, "You are welcome.", "nothing came twice");
    world.finish().await;
}
