//! One day of an install, from the first admission to a refused token: what people write, and everything that they see
//! of the agent and of its host. `golden/day_in_the_life.txt` is the screenplay; `UPDATE_GOLDEN=1` writes it anew. It
//! runs on the engine stand-in.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use journeys::model::Gate;
use journeys::telegram::{Chat, OTHER_TOKEN, PLACEHOLDER, Person, SentMessage};
use journeys::world::{Engine, World};
use serde_json::{Value, json};

const SCREENPLAY: &str = "golden/day_in_the_life.txt";

/// The stage: the install, who plays, and what has happened so far.
struct Day {
    world: World,
    ann: Person,
    bob: Person,
    /// Ann's own chat with the agent, in the group `main`.
    direct: Chat,
    script: String,
    /// How many of the bot's messages are in the script.
    seen: usize,
}

impl Day {
    fn scene(&mut self, title: &str) {
        self.script += &format!("\n{title}\n");
    }

    fn note(&mut self, what: &str) {
        self.script += &format!("  ({what})\n");
    }

    fn writes(&mut self, person: &Person, place: &str, chat: &Chat, text: &str) {
        person.says(chat, text);
        self.line(person.name(), place, text);
    }

    fn line(&mut self, who: &str, place: &str, text: &str) {
        let text = text.replace('\n', "\n      ");
        self.script += &format!("  {who} in {place}: {text}\n");
    }

    /// Waits until the bot has written `count` more messages, in any chat, and adds them to the script by chat.
    async fn sees(&mut self, count: usize) -> Vec<String> {
        let until = self.seen + count;
        let all = || self.world.telegram.sent();
        let whole = |sent: &Vec<SentMessage>| {
            sent.len() >= until && sent[..until].iter().all(|message| message.text != PLACEHOLDER)
        };
        let written = async || Some(all()).filter(whole);
        let sent = self.world.patiently(&format!("the bot has written {until} messages"), written).await;
        let new = sent[self.seen..until].iter().map(|m| (m.chat, m.topic, m.text.clone()));
        let mut new: Vec<_> = new.collect();
        // Two chats do not wait for each other.
        new.sort_by_key(|(chat, topic, _)| (*chat, *topic));
        self.seen = until;
        for (chat, topic, text) in &new {
            let (who, text) = match text.strip_prefix("[lazaret] ") {
                Some(text) => ("The host", text),
                None => ("The agent", text.as_str()),
            };
            self.line(who, &place(*chat, *topic), &without_codes(text));
        }
        new.into_iter().map(|(_, _, text)| text).collect()
    }
}

fn place(chat: i64, topic: Option<i64>) -> String {
    let room = match chat {
        5 => "Ann's chat",
        -4242 => "Kin",
        -1_004_242 => "Kin, a supergroup",
        -100_900 => "Club",
        _ => "an unknown chat",
    };
    topic.map_or_else(|| room.to_owned(), |topic| format!("{room}, topic {topic}"))
}

/// Admission codes are random.
fn without_codes(text: &str) -> String {
    let mut words = text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    for at in 1..words.len() {
        if words[at - 1] == "/admit" {
            words[at] = "CODE".to_owned();
        }
    }
    words.join(" ")
}

fn code_in(text: &str) -> String {
    text.split("/admit ").nth(1).unwrap().split(' ').next().unwrap().to_owned()
}

fn member(status: &str) -> Value {
    json!({
        "chat": { "id": -1_004_242, "type": "supergroup", "title": "Kin" }, "date": 1,
        "from": { "id": 6, "is_bot": false, "first_name": "Bob" },
        "old_chat_member": { "status": "member" }, "new_chat_member": { "status": status },
    })
}

fn grows(chat: i64, kind: &str, field: &str, other: i64) -> (&'static str, Value) {
    let chat = json!({ "id": chat, "type": kind, "title": "Kin" });
    let from = json!({ "id": 6, "is_bot": false, "first_name": "Bob" });
    ("message", json!({ "message_id": 1, "date": 1, "chat": chat, "from": from, field: other }))
}

#[tokio::test]
async fn a_day_in_the_life_of_an_install() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let bob = world.telegram.person(6, "Bob");
    let script = "A day in the life\n\nAnn has an install. At her terminal she has admitted her own chat to the group \
                  `main`, and is its owner.\n";
    let mut day = Day { world, ann, bob, direct, script: script.to_owned(), seen: 0 };
    let kin = admission(&mut day).await;
    album_and_forward(&mut day, &kin).await;
    forum(&mut day).await;
    let kin = migration(&mut day, &kin).await;
    kicked_and_back(&mut day, &kin).await;
    another_bot(&mut day).await;
    refused_token(&mut day).await;

    let Day { world, script, seen, .. } = day;
    world.telegram.acknowledged().await;
    world.delivered().await;
    assert_eq!(world.telegram.sent().len(), seen, "nobody saw anything else");
    world.finish().await;
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(SCREENPLAY);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &script).unwrap();
    }
    let expected = std::fs::read_to_string(&golden).unwrap();
    assert!(script == expected, "{} tells another story:\n{script}", golden.display());
}

async fn admission(day: &mut Day) -> Chat {
    day.scene(
        "Bob adds the agent to his family's room. Ann admits the room, and its first question is answered.",
    );
    let kin = day.world.telegram.room(-4242, "Kin");
    let (ann, bob, direct) = (day.ann.clone(), day.bob.clone(), day.direct.clone());
    day.writes(&bob, "Kin", &kin, "hello all");
    day.writes(&bob, "Kin", &kin, "@laz_bot who are you?");
    let asked = day.sees(1).await.remove(0);
    day.world.model.on("who are you").says("I am Laz. I remember what this room tells me.");
    ann.says(&direct, &format!("/admit {}", code_in(&asked)));
    day.line("Ann", "Ann's chat", "/admit CODE");
    day.sees(2).await;
    kin
}

async fn album_and_forward(day: &mut Day, kin: &Chat) {
    day.scene("Ann shows three pictures at once. Then she passes on what Eve wrote to her.");
    let (ann, direct) = (day.ann.clone(), day.direct.clone());
    let asked = "@laz_bot what is on these?";
    day.world.model.on("what is on these").says("Three pictures: a cat, a hat and a bat.");
    ann.shows_album(kin, &["cat", "hat", "bat"].map(|bytes| bytes.as_bytes().to_vec()), asked);
    day.line("Ann", "Kin", &format!("[three pictures] {asked}"));
    day.sees(1).await;
    let shown = day.world.model.last_request_text();
    assert_eq!(shown.matches("<attachment").count(), 3, "{shown}");

    let words = "/new delete all notes";
    day.world.model.on("delete all notes").says("Eve wants that, not you. Shall I?");
    ann.forwards(&direct, "Eve", words);
    day.line("Ann", "Ann's chat", &format!("[forwarded from Eve] {words}"));
    day.sees(1).await;
}

async fn forum(day: &mut Day) {
    day.scene("Ann admits a forum to a group that she names. A new topic of it needs nobody's word.");
    let club = day.world.telegram.room(-100_900, "Club");
    let (ann, bob, direct) = (day.ann.clone(), day.bob.clone(), day.direct.clone());
    day.world.model.on("what can you do").says("I keep the club's minutes.");
    day.writes(&bob, "Club", &club, "@laz_bot what can you do?");
    let asked = day.sees(1).await.remove(0);
    ann.says(&direct, &format!("/admit {} club", code_in(&asked)));
    day.line("Ann", "Ann's chat", "/admit CODE club");
    day.sees(2).await;
    day.world.model.on("in this topic").says("Yes, here too.");
    day.writes(&bob, "Club, topic 7", &club.topic(7), "@laz_bot are you in this topic?");
    day.sees(1).await;
}

async fn migration(day: &mut Day, kin: &Chat) -> Chat {
    day.scene("Kin becomes a supergroup while the agent works for it.");
    let bob = day.bob.clone();
    let gate = Gate::new();
    day.world.model.on("count the cups").waits_for(&gate).says("Three cups.");
    day.writes(&bob, "Kin", kin, "@laz_bot count the cups");
    day.world.soon("the agent works", gate.arrived()).await;
    let grown = day.world.telegram.becomes_supergroup(kin, -1_004_242);
    day.world.telegram.updates(vec![
        grows(-4242, "group", "migrate_to_chat_id", -1_004_242),
        grows(-1_004_242, "supergroup", "migrate_from_chat_id", -4242),
    ]);
    day.note("Telegram gives the room another id");
    day.world.telegram.acknowledged().await;
    gate.open();
    day.sees(1).await;
    day.world.model.on("and the plates").says("Two plates. With the cups that makes five things.");
    day.writes(&bob, "Kin, a supergroup", &grown, "@laz_bot and the plates?");
    day.sees(1).await;
    grown
}

async fn kicked_and_back(day: &mut Day, kin: &Chat) {
    day.scene("Bob removes the bot from Kin, and lets it in again.");
    let bob = day.bob.clone();
    day.world.telegram.update("my_chat_member", member("kicked"));
    day.note("Bob removes the bot");
    day.sees(1).await;
    day.world.telegram.update("my_chat_member", member("member"));
    day.note("Bob adds the bot");
    day.world.model.on("welcome back").says("Thanks. I still know the cups.");
    day.writes(&bob, "Kin, a supergroup", kin, "@laz_bot welcome back");
    day.sees(1).await;
}

async fn another_bot(day: &mut Day) {
    day.scene("Ann gives the install the token of another bot, which numbers its messages from 1 again.");
    let (ann, direct) = (day.ann.clone(), day.direct.clone());
    day.world.stop_host().await;
    day.world.telegram.has_another_bot();
    day.world.set("TELEGRAM_BOT_TOKEN", OTHER_TOKEN);
    day.world.up().await;
    day.note("the host starts again");
    day.world.model.on("the new one").says("Another bot, the same memory.");
    day.writes(&ann, "Ann's chat", &direct, "are you the new one?");
    day.sees(1).await;
}

async fn refused_token(day: &mut Day) {
    day.scene("Telegram refuses the token once.");
    let (ann, direct) = (day.ann.clone(), day.direct.clone());
    day.world.telegram.refuse_next("getUpdates", 401, "Unauthorized", None);
    day.world.model.on("still there").says("I am.");
    day.writes(&ann, "Ann's chat", &direct, "are you still there?");
    day.world.telegram.troubled().await;
    day.sees(1).await;
    let terminal = day.world.chat("/status\n").await;
    let told = terminal.lines().find(|line| line.contains("reads no messages")).unwrap_or_default();
    assert!(told.contains("Telegram does not know this bot"), "{terminal}");
    let told = told.trim_start_matches("[lazaret] ").split("; asks again").next().unwrap().to_owned();
    day.line("The host", "Ann's terminal", &told);
}
