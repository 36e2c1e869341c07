//! The same journeys over every channel. Each is a test `JOURNEY/CHANNEL`, and a table of all is printed at the end. A
//! journey that needs what a platform does not have is not run there; the table says what is missing. They run on the
//! engine stand-in.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use journeys::model::Gate;
use journeys::seat::{Platform, Stage};
use libtest_mimic::{Arguments, Trial};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Journey {
    name: &'static str,
    /// What a platform must have for it.
    needs: &'static [&'static str],
    run: fn(Platform) -> Running,
}

macro_rules! journeys {
    ($($name:ident $(needs $what:literal)?,)*) => {
        [$(Journey {
            name: stringify!($name),
            needs: &[$($what)?],
            run: |platform| Box::pin($name(platform)),
        },)*]
    };
}

const JOURNEYS: [Journey; 18] = journeys![
    trigger,
    trigger_in_a_room needs "rooms",
    context needs "rooms",
    follow_up,
    edit needs "edits",
    picture_in needs "files from people",
    file_out,
    long_reply,
    split needs "a longest message",
    question,
    question_by_reply needs "replies",
    quote needs "replies",
    reaction needs "reactions",
    typing needs "a typing sign",
    new_session,
    restart_in_mid_turn,
    kill_between_receipt_and_reply,
    an_hours_outage,
];

/// A command that reports its start, waits until the test creates a file, and reports its end.
fn patient() -> Value {
    let wait = "touch /workspace/began; while [ ! -e /workspace/go ]; do sleep 0.05; done; echo went";
    json!({ "command": wait })
}

async fn trigger(platform: Platform) {
    let stage = Stage::on(platform).await;
    let ann = stage.ann().await;
    stage
        .world
        .model
        .on("what is in my box")
        .runs("run_command", json!({ "command": "echo $((40+2))" }))
        .says("42.");
    ann.says("what is in my box?");
    stage.hears_text(&ann, "42.").await;
    assert_eq!(stage.results().len(), 1);
    assert!(ann.unheard().is_empty());
    stage.world.finish().await;
}

/// In a room, only a mention and a reply to the agent wake it. Another chat's agent hears nothing of it.
async fn trigger_in_a_room(platform: Platform) {
    let stage = Stage::on(platform).await;
    let ann = stage.ann().await;
    let (ann_in_room, bob) = stage.room().await;
    stage.world.model.on("who are you").says("I am Laz.");
    bob.says("we are out of milk");
    ann_in_room.mentions("who are you?");
    let heard = stage.hears(&bob).await;
    assert_eq!(heard.text, "I am Laz.");
    assert_eq!(stage.world.model.requests_so_far(), 1, "talk among people wakes nobody");
    stage.world.model.on("and what can you do").says("I keep lists.");
    bob.answers(&heard, "and what can you do?");
    stage.hears_text(&bob, "I keep lists.").await;

    stage.world.model.on("what is new").says("Nothing.");
    ann.says("what is new?");
    stage.hears_text(&ann, "Nothing.").await;
    let asked = stage.world.model.last_request_text();
    assert!(!asked.contains("out of milk"), "another group's talk: {asked}");
    assert!(ann.unheard().is_empty() && bob.unheard().is_empty());
    stage.world.finish().await;
}

/// What was said before the mention comes along, with who said it.
async fn context(platform: Platform) {
    let stage = Stage::on(platform).await;
    let _main = stage.ann().await;
    let (ann, bob) = stage.room().await;
    stage.world.model.on("what do we need").says("Milk, as Bob said.");
    bob.says("we are out of milk");
    ann.mentions("what do we need?");
    stage.hears_text(&ann, "Milk, as Bob said.").await;
    let asked = stage.world.model.last_request_text();
    assert!(asked.contains("we are out of milk") && asked.contains("Bob"), "{asked}");
    stage.world.finish().await;
}

/// A message that comes while the agent works joins the turn.
async fn follow_up(platform: Platform) {
    let stage = Stage::on(platform).await;
    let ann = stage.ann().await;
    let gate = Gate::new();
    let rule =
        stage.world.model.on("count the cups").runs("run_command", json!({ "command": "echo counting" }));
    rule.waits_for(&gate)
        .runs("run_command", json!({ "command": "echo still counting" }))
        .says("Three cups, and two plates.");
    ann.says("count the cups");
    stage.world.soon("the agent works", gate.arrived()).await;
    let before = stage.world.inputs("main");
    ann.says("and the plates");
    stage.world.given("main", before + 1).await;
    gate.open();
    stage.hears_text(&ann, "Three cups, and two plates.").await;
    assert!(stage.world.model.last_request_text().contains("and the plates"));
    assert!(ann.unheard().is_empty());
    stage.world.finish().await;
}

/// A message that is changed while the agent works: the agent answers the new text.
async fn edit(platform: Platform) {
    let stage = Stage::on(platform).await;
    let ann = stage.ann().await;
    let gate = Gate::new();
    let rule = stage.world.model.on("count to three").runs("run_command", json!({ "command": "seq 3" }));
    rule.waits_for(&gate).runs("run_command", json!({ "command": "echo looking again" }));
    stage.world.model.on("count to four").says("One, two, three, four.");
    let counting = ann.says("count to three");
    stage.world.soon("the agent works", gate.arrived()).await;
    let before = stage.world.inputs("main");
    ann.edits(&counting, "count to four");
    stage.world.given("main", before + 1).await;
    gate.open();
    stage.hears_text(&ann, "One, two, three, four.").await;
    assert!(ann.unheard().is_empty());
    stage.world.finish().await;
}

async fn picture_in(platform: Platform) {
    let stage = Stage::on(platform).await;
    let ann = stage.ann().await;
    let count = json!({ "command": "cat /inbox/* | wc -c" });
    stage.world.model.on("what is this").runs("run_command", count).says("A picture of 1234 bytes.");
    ann.shows(vec![7; 1234], "what is this?");
    stage.hears_text(&ann, "A picture of 1234 bytes.").await;
    let counted = stage.results();
    assert!(counted.last().is_some_and(|result| result.contains("1234")), "{counted:?}");
    stage.world.finish().await;
}

/// A file and its caption arrive whole, in order between the texts.
async fn file_out(platform: Platform) {
    let stage = Stage::on(platform).await;
    let ann = stage.ann().await;
    let bytes: Vec<u8> = (0..300_000u32).map(|n| (n * 7 % 251) as u8).collect();
    stage.world.write("state/workspaces/main/list", &bytes);
    let file = json!({ "path": "list", "caption": "What we need." });
    let rule = stage.world.model.on("what do we need").runs("send_message", json!({ "text": "Here it is." }));
    rule.runs("send_file", file).says("That was all.");
    ann.says("what do we need?");
    stage.hears_text(&ann, "Here it is.").await;
    let heard = stage.hears(&ann).await;
    assert!(heard.text.starts_with("What we need."), "{}", heard.text);
    assert!(heard.file.is_some_and(|file| file == bytes), "the file is whole");
    stage.hears_text(&ann, "That was all.").await;
    stage.world.finish().await;
}

/// A reply of any length arrives whole and in order.
async fn long_reply(platform: Platform) {
    let stage = Stage::on(platform).await;
    let ann = stage.ann().await;
    let long: Vec<String> = (0..3_000).map(|n| format!("w{n}")).collect();
    stage.world.model.on("a story").says(&long.join(" "));
    ann.says("tell me a story");
    let mut words = Vec::new();
    while words.len() < long.len() {
        words.extend(stage.hears(&ann).await.text.split_whitespace().map(str::to_owned));
    }
    assert_eq!(words, long);
    stage.settled("m-1").await;
    assert!(ann.unheard().is_empty());
    stage.world.finish().await;
}

/// A reply that is longer than the platform's messages comes in parts, split between paragraphs.
async fn split(platform: Platform) {
    let stage = Stage::on(platform).await;
    let ann = stage.ann().await;
    let long = format!("{}\n\n{}", "one ".repeat(800).trim(), "two ".repeat(800).trim());
    stage.world.model.on("a story").says(&long);
    ann.says("tell me a story");
    let (first, second) = (stage.hears(&ann).await.text, stage.hears(&ann).await.text);
    assert!(first.starts_with("one one") && !first.contains("two"), "{first}");
    assert!(second.starts_with("two two") && !second.contains("one"), "{second}");
    stage.settled("m-1").await;
    assert!(ann.unheard().is_empty());
    stage.world.finish().await;
}

/// The agent asks, and a person answers with a command's words.
async fn question(platform: Platform) {
    let stage = Stage::on(platform).await;
    let ann = stage.ann().await;
    let ask = json!({ "question": "Which milk?", "choices": ["whole", "skimmed"] });
    stage.world.model.on("buy milk").runs("ask_person", ask).says("Skimmed it is.");
    ann.says("buy milk");
    let card = stage.hears(&ann).await.text;
    assert!(card.starts_with("Which milk?") && card.contains("1. whole"), "{card}");
    let boxes = stage.world.boxes().await;
    let code = card.split("/answer ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap_or(&card);
    ann.says("/answer ZZ 1");
    let refused = stage.hears(&ann).await.text;
    assert!(refused.starts_with("[lazaret] No question here waits"), "{refused}");
    ann.says(&format!("/answer {code} 2"));
    stage.hears_text(&ann, "Skimmed it is.").await;
    let told = stage.results();
    assert!(told.len() == 1 && told[0].ends_with("answers:\nskimmed"), "{told:?}");
    assert_eq!(stage.world.boxes().await, boxes, "the box that asked goes on");
    assert!(ann.unheard().is_empty());
    stage.world.finish().await;
}

/// A reply to the question answers it in words of one's own, in a direct chat and in a room.
async fn question_by_reply(platform: Platform) {
    let stage = Stage::on(platform).await;
    let ann = stage.ann().await;
    let (_, bob) = stage.room().await;
    let ask = json!({ "question": "Which milk?", "choices": ["whole", "skimmed"] });
    stage.world.model.on("buy milk").runs("ask_person", ask).quotes("Bought: ");
    for (seat, in_room) in [(&ann, false), (&bob, true)] {
        if in_room {
            seat.mentions("buy milk")
        } else {
            seat.says("buy milk")
        };
        let card = stage.hears(seat).await;
        // The host knows what is answered once the platform has told it the card's id.
        stage.world.delivered().await;
        seat.answers(&card, "oat milk, please");
        let answer = stage.hears(seat).await.text;
        assert!(answer.starts_with("Bought:") && answer.contains("oat milk, please"), "{answer}");
    }
    stage.world.finish().await;
}

/// An answer in a room quotes the message that it answers, and the agent reads what a person's reply quotes.
async fn quote(platform: Platform) {
    let stage = Stage::on(platform).await;
    let _main = stage.ann().await;
    let (_, bob) = stage.room().await;
    stage.world.model.on("name a number").says("Seven.");
    let asked = bob.mentions("name a number");
    let heard = stage.hears(&bob).await;
    assert_eq!((heard.text.as_str(), heard.quotes.as_deref()), ("Seven.", Some(asked.as_str())));
    stage.world.model.on("why that one").says("It is odd.");
    bob.answers(&heard, "why that one?");
    stage.hears_text(&bob, "It is odd.").await;
    let request = stage.world.model.last_request_text();
    let reply = request.rsplit("why that one").nth(1).unwrap_or_default();
    assert!(reply.contains("Seven."), "it names what was quoted: {request}");
    stage.world.finish().await;
}

async fn reaction(platform: Platform) {
    let stage = Stage::on(platform).await;
    let ann = stage.ann().await;
    stage.world.model.on("thank you").runs("react", json!({ "emoji": "👍" })).says("");
    let thanks = ann.says("thank you");
    stage.world.soon("the reaction", ann.sees_reaction(&stage.world, &thanks, "👍")).await;
    // Another one takes its place.
    stage
        .world
        .model
        .on("once more")
        .runs("react", json!({ "emoji": "🔥", "message": "m-1" }))
        .says("There.");
    ann.says("once more");
    stage.hears_text(&ann, "There.").await;
    stage.world.soon("the other reaction", ann.sees_reaction(&stage.world, &thanks, "🔥")).await;
    stage.world.finish().await;
}

async fn typing(platform: Platform) {
    let stage = Stage::on(platform).await;
    let ann = stage.ann().await;
    let gate = Gate::new();
    stage.world.model.on("think hard").waits_for(&gate).says("Forty-two.");
    ann.says("think hard");
    stage.world.soon("Ann sees that the agent writes", ann.sees_typing()).await;
    gate.open();
    stage.hears_text(&ann, "Forty-two.").await;
    stage.world.finish().await;
}

async fn new_session(platform: Platform) {
    let stage = Stage::on(platform).await;
    let ann = stage.ann().await;
    stage.world.model.on("remember 7").says("I will.");
    ann.says("remember 7");
    stage.hears_text(&ann, "I will.").await;
    ann.says("/new");
    let told = stage.hears(&ann).await.text;
    assert!(told.starts_with("[lazaret] A new session begins"), "{told}");
    stage.world.model.on("which number").says("I know of none.");
    ann.says("which number?");
    stage.hears_text(&ann, "I know of none.").await;
    let transcript = stage.world.model.requests().pop().map(|r| r.body.to_string()).unwrap_or_default();
    assert!(!transcript.contains("remember 7"), "{transcript}");
    assert!(ann.unheard().is_empty());
    stage.world.finish().await;
}

/// The host is killed while a box works. The next host goes on with the box, and the answer comes once.
async fn restart_in_mid_turn(platform: Platform) {
    let mut stage = Stage::on(platform).await;
    let ann = stage.ann().await;
    stage.world.model.on("a long job").runs("run_command", patient()).says("The job is done.");
    ann.says("a long job, please");
    stage.world.made_in_workspace("main", "began").await;
    stage.world.kill_host().await;
    ann.says("and tell me when it is done");
    stage.world.up().await;
    stage.world.given("main", 2).await;
    stage.world.write("state/workspaces/main/go", "");
    stage.hears_text(&ann, "The job is done.").await;
    let told = stage.results();
    assert!(told.len() == 1 && told[0].contains("went"), "the command was not interrupted: {told:?}");
    assert!(stage.world.model.last_request_text().contains("tell me when"), "what was said without a host");
    assert_eq!(stage.world.runs_of("main"), 1);
    stage.settled("m-2").await;
    assert!(ann.unheard().is_empty());
    stage.world.finish().await;
}

/// The host is killed again and again after it has stored a message and before the answer. The runner repeats its call
/// with the next host, and counts no failure.
async fn kill_between_receipt_and_reply(platform: Platform) {
    let mut stage = Stage::on(platform).await;
    let ann = stage.ann().await;
    let gate = Gate::new();
    stage.world.model.on("think hard").waits_for(&gate).says("Forty-two.");
    ann.says("think hard");
    for _ in 0..3 {
        stage.world.soon("the model is asked", gate.arrived()).await;
        stage.world.kill_host().await;
        stage.world.up().await;
    }
    gate.open();
    stage.hears_text(&ann, "Forty-two.").await;
    let trace = stage.settled("m-1").await;
    let stored = stage.count("SELECT count(*) FROM message WHERE text = 'think hard'");
    assert_eq!((stored, stage.world.runs_of("main")), (1, 1), "{trace}");
    let turn = &trace["turn"];
    assert_eq!((&turn["why"], &turn["attempt"]), (&json!("finished"), &json!(1)), "{trace}");
    assert!(ann.unheard().is_empty(), "{:?}", ann.unheard());
    stage.world.finish().await;
}

/// The platform is away for an hour, and the host is started anew meanwhile. What was said in between arrives in order,
/// once, and what a person wrote is answered.
async fn an_hours_outage(platform: Platform) {
    let mut stage = Stage::on(platform).await;
    let ann = stage.ann().await;
    let gate = Gate::new();
    let rule = stage.world.model.on("tell me").runs("send_message", json!({ "text": "I begin." }));
    rule.waits_for(&gate).runs("send_message", json!({ "text": "I go on." })).says("That is all.");
    ann.says("tell me");
    stage.hears_text(&ann, "I begin.").await;
    stage.world.soon("the agent works", gate.arrived()).await;
    stage.world.delivered().await;
    stage.goes_away(&ann).await;
    gate.open();
    let unsent = "SELECT count(*) FROM outbox WHERE state <> 'sent' AND text IN ('I go on.', 'That is all.')";
    let waits = async || (stage.count(unsent) == 2).then_some(());
    stage.world.patiently("the reply waits for the platform", waits).await;
    stage.world.stop_host().await;
    let hour = "UPDATE outbox SET created_at = created_at - 3600000, lives_from = lives_from - 3600000,
                                  not_before = not_before - 3600000";
    stage.world.database().execute(hour, []).unwrap();
    stage.world.up().await;
    stage.comes_back(&ann).await;
    stage.hears_text(&ann, "I go on.").await;
    stage.hears_text(&ann, "That is all.").await;
    stage.world.model.on("are you back").says("I am back.");
    ann.says("are you back?");
    stage.hears_text(&ann, "I am back.").await;
    stage.world.delivered().await;
    assert_eq!(stage.count("SELECT sum(uncertain) FROM outbox"), 0);
    assert!(ann.unheard().is_empty(), "{:?}", ann.unheard());
    stage.world.finish().await;
}

type Outcomes = Arc<Mutex<BTreeMap<(&'static str, Platform), bool>>>;

fn note(outcomes: &Outcomes, cell: (&'static str, Platform), held: bool) {
    outcomes.lock().unwrap_or_else(PoisonError::into_inner).insert(cell, held);
}

/// Returns one test for each journey that the platform makes possible.
fn trials(runtime: &'static Runtime, outcomes: &Outcomes) -> Vec<Trial> {
    let cells = JOURNEYS.iter().flat_map(|journey| Platform::ALL.map(|platform| (journey, platform)));
    let possible = cells.filter(|(journey, platform)| missing(journey, *platform).is_none());
    let trial = |(journey, platform): (&'static Journey, Platform)| {
        let outcomes = Arc::clone(outcomes);
        let cell = (journey.name, platform);
        Trial::test(format!("{}/{}", journey.name, platform.name()), move || {
            note(&outcomes, cell, false);
            runtime.block_on((journey.run)(platform));
            note(&outcomes, cell, true);
            Ok(())
        })
    };
    possible.map(trial).collect()
}

fn missing(journey: &Journey, platform: Platform) -> Option<&'static str> {
    journey.needs.iter().copied().find(|what| platform.lacks().contains(what))
}

fn table(outcomes: &Outcomes) -> String {
    let outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
    let cell = |journey: &Journey, platform: Platform| match missing(journey, platform) {
        Some(what) => format!("not here: {what}"),
        None => match outcomes.get(&(journey.name, platform)) {
            Some(true) => "holds".to_owned(),
            Some(false) => "BROKEN".to_owned(),
            None => "not run".to_owned(),
        },
    };
    let row = |name: &str, cells: [String; 3]| {
        let [a, b, c] = cells;
        format!("{name:<32} {a:<28} {b:<10} {c}\n")
    };
    let head = row("journey", Platform::ALL.map(|platform| platform.name().to_owned()));
    let rows = JOURNEYS.iter().map(|journey| {
        row(&journey.name.replace('_', " "), Platform::ALL.map(|platform| cell(journey, platform)))
    });
    head + &rows.collect::<String>()
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime: &'static Runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => RUNTIME.get_or_init(|| runtime),
        Err(e) => {
            eprintln!("every_channel: {e}");
            return ExitCode::FAILURE;
        }
    };
    let outcomes = Outcomes::default();
    let conclusion = libtest_mimic::run(&arguments, trials(runtime, &outcomes));
    if !arguments.list {
        print!("\n{}", table(&outcomes));
    }
    conclusion.exit_code()
}
