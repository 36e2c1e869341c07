//! The cost of a message, of a start and of a night does not grow with history: no statement scans a table that grows,
//! and none takes more steps when there are more rows. The statements are those that the store runs while a scripted
//! life of it is played over years of history.

use std::collections::BTreeSet;

use rusqlite::Connection;

use super::super::statement_log::{self, RECORDED, Statements};
use super::tasks::{MINUTELY, NOON, in_conversation, isolated, looks, task};
use super::*;
use crate::domain::image::{Named, NotTaken};
use crate::domain::message::{Attachment, ChatEvent, Press};
use crate::domain::outbound::{OutgoingText, Part, SpooledFile};
use crate::domain::task::{Task, TaskState, Work};
use crate::domain::{Moment, WallMs};
use crate::policy::delivery_notices::HeldCommand;
use crate::store::ChannelState;

/// What may be walked from its beginning to its end, because it stays small.
const SMALL: [(&str, &str); 26] = [
    ("channel_state", "one row for each channel"),
    ("grp", "groups are folders of the owner"),
    ("chat", "people admit chats one by one"),
    ("owner", "people"),
    ("stranger", "64 at most"),
    ("position", "one per channel"),
    ("unreachable", "chats"),
    ("pin", "one per group"),
    ("loss", "a few per group"),
    ("number", "counters"),
    ("tally", "counters"),
    ("sqlite_sequence", "one row per table"),
    ("turn_open", "one per lane"),
    ("run_live", "one per lane"),
    ("question_open", "questions that wait"),
    ("question_code", "questions that wait"),
    ("message_wakes", "messages that wait for a turn"),
    ("message_order", "commands that are not carried out yet"),
    ("message_files", "messages in work that have a file"),
    ("outbox_due", "parts that are not sent yet"),
    ("outbox_held", "parts that wait for a person"),
    ("task_living", "50 per group"),
    ("fire_waits", "fires that are due, few per task"),
    ("fire_unfinished", "fires that are due or work"),
    ("taken_mark", "messages of open turns"),
    ("task_from_file", "heartbeats of the owner's files"),
];

fn store_over_history(messages: u32) -> (House, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(RECORDED);
    drop(Store::open(&path).unwrap());
    let c = Connection::open(&path).unwrap();
    c.execute_batch(&format!(
        "PRAGMA synchronous = off; BEGIN;
         INSERT INTO grp VALUES ('family', 70001, 1, 1);
         INSERT INTO chat(id, grp, kind, title, admitted_at, admitted_by)
            VALUES ('telegram:-1', 'family', 'room', 'Family', 1, 't'), ('telegram:-2', 'family', 'room', 'F', 1, 't');
         CREATE TEMP TABLE size AS SELECT {messages} AS n, 'family' AS grp, 'telegram:-1' AS chat, {} AS now;
         {};
         COMMIT",
        T.0,
        include_str!("history.sql")
    ))
    .unwrap();
    drop(c);
    statement_log::take();
    (House { store: Store::open(&path).unwrap(), _dir: dir, written: 1_000_000 }, path)
}

fn run(n: u32) -> RunId {
    format!("019ab000-0000-7000-8000-{n:012}").parse().unwrap()
}

impl House {
    async fn start_of_the_host(&self) {
        let s = &self.store;
        s.open_forgotten(T).await.unwrap();
        let _ =
            (s.open_turns().await.unwrap(), s.open_commands().await.unwrap(), s.suspended().await.unwrap());
        for row in s.unended_runs().await.unwrap() {
            s.unacknowledged(row.run.clone()).await.unwrap();
            s.open_requests(row.run.clone()).await.unwrap();
            s.untold_verdicts(row.run, T).await.unwrap();
        }
        s.recover_sending(T).await.unwrap();
        s.position(ChannelName::new("telegram"), "4242".into()).await.unwrap();
        let _ = (s.chats().await.unwrap(), s.owners().await.unwrap(), s.strangers().await.unwrap());
        s.group(&family(), T).await.unwrap();
        s.chats_waiting(ChannelName::new("telegram")).await.unwrap();
    }

    async fn starts_run(&self, n: u32) {
        let (run, lane) = (run(n), lane());
        let new = NewRun {
            run: run.clone(),
            lane,
            session: "conversation-1".into(),
            image: "i".into(),
            runner: "r".into(),
            now: T,
        };
        self.store.new_run(new).await.unwrap();
        self.store.begin_state(self::lane()).await.unwrap();
        self.store.add_letter(run.clone(), None, "begin", T, |_| Ok(vec![])).await.unwrap();
        self.store.run_container(run, "c".into()).await.unwrap();
    }

    /// Marks, reactions and the choice of a model.
    async fn is_marked(&self, turn: TurnId) {
        let s = &self.store;
        s.end_of(chat("telegram:-1"), Some(MessageSeq(1))).await.unwrap();
        s.want_marks(turn).await.unwrap();
        let marks = s.taken_marks(ChannelName::new("telegram")).await.unwrap();
        let (chat, message) = (marks[0].chat.clone(), marks[0].message.clone());
        assert!(s.show_mark(chat.clone(), message.clone()).await.unwrap());
        let (seq, id) = s.reactable(turn, chat.clone(), None).await.unwrap().unwrap();
        assert_eq!(s.reactable(turn, chat.clone(), Some(seq)).await.unwrap(), Some((seq, id)));
        s.drop_mark(chat, message).await.unwrap();
        s.choose_model(family(), Some(("p".into(), "m".into())), "telegram:5".into(), T).await.unwrap();
        assert!(s.model_choice(family()).await.unwrap().is_some());
    }

    async fn a_turn(&mut self) {
        for text in ["talk", "more talk"] {
            self.writes("telegram:-1", text, Role::Context).await;
        }
        let mut asked = self.message("telegram:-1", "What is this?", Role::Wake);
        let name = |name: &str| name.to_owned();
        asked.attachments = vec![Attachment {
            handle: Some(name("h")),
            file: None,
            name: name("a.jpg"),
            mime: name("image/jpeg"),
            bytes: 9,
            problem: None,
            spoken: false,
            transcript: None,
            no_transcript: None,
        }];
        let seq = self.take_in(vec![asked.clone(), asked.clone()]).await[0].seq;
        let turn = self.store.open_turn(lane()).await.unwrap().unwrap().turn;
        self.starts_run(1).await;
        self.takes_from(run(1).as_str(), 1, 1, None, "run:1", TakenEffect::Ready { told: None }).await;
        let stored = asked.attachments[0].clone().stored("ab.jpg".into(), 9);
        assert_eq!(self.is_given(run(1).as_str()).await, None, "the file is fetched first");
        self.store.media_in_use().await.unwrap();
        self.store.fetched(seq, 0, stored).await.unwrap();
        assert!(self.is_given(run(1).as_str()).await.unwrap().1 > 900, "talk is left out");
        // An edit, a message for another chat's turn, and talk.
        asked.inbound.version = 2;
        self.take_in(vec![asked]).await;
        self.is_given(run(1).as_str()).await;
        self.wakes("telegram:-2", "elsewhere").await;
        let request = |kind: &str| TakenEffect::Request { kind: kind.into(), body: "{}".into(), limit: 9 };
        let mine = run(1);
        let say = TakenEffect::Message { outgoing: reply("working", "t-1:2"), limit: 50 };
        self.takes_from(mine.as_str(), 2, 2, Some(turn), "t-1:2", say).await;
        self.takes_from(mine.as_str(), 3, 2, Some(turn), "t-1:3", request("send_file")).await;
        self.store.files_sent(turn).await.unwrap();
        self.store.said_in_turn(turn).await.unwrap();
        let (ok, mut said) = (Verdict::Ok { result: 7.into() }, reply("list", "t-1:3"));
        let file = SpooledFile { sha256: "ab".repeat(32), name: "list.pdf".into(), bytes: 7 };
        said.parts.iter_mut().for_each(|part| part.file = Some(Box::new(file.clone())));
        self.store
            .send_file(mine.clone(), turn, "t-1:3".parse().unwrap(), ok.clone(), said, T)
            .await
            .unwrap();
        self.takes_from(mine.as_str(), 4, 2, Some(turn), "t-1:4", request("remind")).await;
        self.store.verdict(mine.clone(), turn, "t-1:4".parse().unwrap(), ok, T).await.unwrap();
        self.store.pass_over(mine.clone(), 5, RefusalCode::Stale).await.unwrap();
        self.store.stage(
            Some(turn),
            Some(seq),
            Some(&mine),
            "step",
            Moment { wall: T, mono: Duration::ZERO },
        );
        self.store.turn_messages(turn).await.unwrap();
        self.store.highest_written(mine.clone()).await.unwrap();
        self.store.add_usage(usage(&mine, turn), T).await.unwrap();
        self.store.usage_since(family(), "2026-11-01".into()).await.unwrap();
        self.is_marked(turn).await;
        let order = self.writes("telegram:-1", "/stop", Role::Command(Command::Stop)).await.seq;
        self.store.is_meant(lane(), order).await.unwrap();
        self.store.stop(lane(), order, T).await.unwrap();
        self.store.command_done(order, "stopping".into()).await.unwrap();
        self.store.tell_open_turn(lane(), "w", "wait".into(), T).await.unwrap();
        self.takes_from(mine.as_str(), 6, 3, Some(turn), "t-1:6", done("all")).await;
        // The turn of the other chat: its box crashes, cannot start, is stopped.
        self.store.collect(mine, lane(), Ending::Finished, T).await.unwrap();
        let never = Ending::NeverStarted { code: "image.missing".into(), why: "no image".into() };
        for (n, ending) in [(2, Ending::Killed), (3, never), (4, Ending::Stopped)] {
            self.starts_run(n).await;
            self.store.collect(run(n), lane(), ending, T).await.unwrap();
        }
        self.wakes("telegram:-1", "again").await;
        self.store.end_turn(lane(), InterruptWhy::Time, Some(order), T).await.unwrap();
        self.store.message_trace(seq).await.unwrap().unwrap();
        self.store.newest_messages(20).await.unwrap();
    }

    async fn a_question(&mut self) {
        self.wakes("telegram:-1", "shop").await;
        let turn = self.store.open_turn(lane()).await.unwrap().unwrap().turn;
        self.starts_run(5).await;
        self.is_given(run(5).as_str()).await;
        for (n, line) in [(1, "/answer CODE 1"), (2, "/answer XX")] {
            let request: LetterId = format!("t-9:{n}").parse().unwrap();
            let effect = TakenEffect::Request { kind: "ask_person".into(), body: "{}".into(), limit: 9 };
            self.takes_from(run(5).as_str(), n, 2, Some(turn), request.as_str(), effect).await;
            let ask = AskPerson { question: "Milk?".into(), choices: vec!["whole".into()] };
            let (chat, expires) = (chat("telegram:-1"), T.plus(Duration::from_secs(60)));
            let (told, code) = std::sync::mpsc::channel();
            let say = move |code: &str| told.send(code.to_owned()).map(|()| None).unwrap();
            assert!(!self.store.is_asked(turn, request.clone()).await.unwrap());
            self.store.granting(family(), "remind", turn, request.clone()).await.unwrap();
            let permission = None;
            let new = NewQuestion { turn, request, chat, ask, permission, expires, now: T };
            self.store.ask(new, say).await.unwrap();
            let line = line.replace("CODE", &code.recv().unwrap());
            let order = self.writes("telegram:-1", &line, Role::Command(Command::Answer)).await.seq;
            self.store.answer(order, T).await.unwrap();
        }
        self.store.tool_rules(family()).await.unwrap();
        self.store.forget_tool_rule(family(), 1, "terminal".into(), T).await.unwrap();
        self.store.suspended().await.unwrap();
        self.store.untold_verdicts(run(5), T).await.unwrap();
        self.store.expire_questions(T.plus(Duration::from_secs(61))).await.unwrap();
        self.store.collect(run(5), lane(), Ending::Finished, T).await.unwrap();
        self.writes("telegram:-1", "/new", Role::Command(Command::New)).await;
        let (seq, command) = (MessageSeq(1), Command::New);
        let order = CommandRow { seq, group: family(), chat: chat("telegram:-1"), command };
        self.store.new_session(order, T).await.unwrap();
    }

    async fn a_press(&mut self) {
        let chat = chat("telegram:-2");
        self.store.say(None, offering(&chat, "press", &["/help", "/status"]), T).await.unwrap();
        let part = loop {
            let claimed = self.store.claim(chat.clone(), TERMS, T).await.unwrap();
            let NextPart::Part(part) = claimed else { panic!("{claimed:?}") };
            if part.choices.is_some() {
                break part.idempotency_key;
            }
            self.store.settle(*part, SendOutcome::Arrived("1".into()), TERMS.retry, T).await.unwrap();
        };
        for id in ["1", "2"] {
            let press = Press { id: id.into(), message: None, token: format!("{part}:0") };
            let found = self.store.offer(press.clone(), chat.clone()).await.unwrap().unwrap();
            assert_eq!(found.decided.is_some(), id == "2");
            self.presses("telegram:-2", "/help", press).await;
        }
    }

    async fn a_task(&mut self) {
        let adding = |turn: TurnId, id: &str| Adding { limit: 50, made_in: Some((turn, id.to_owned())) };
        let add = async |task: Task, adding| self.store.add_task(task, adding, NOON).await.unwrap();
        for _ in 0..2 {
            add(task("news", MINUTELY, isolated()), adding(TurnId(4), "t-4:1")).await.unwrap();
        }
        add(task("talk", MINUTELY, in_conversation()), Adding { limit: 50, made_in: None }).await.unwrap();
        add(task("stretch", MINUTELY, Work::Remind), Adding { limit: 50, made_in: None }).await.unwrap();
        let s = &self.store;
        let _ = (s.tasks(None, true).await.unwrap(), s.tasks(Some(family()), true).await.unwrap());
        let news = s.find_task(family(), "news".into()).await.unwrap().unwrap();
        s.find_task(family(), "stretch".into()).await.unwrap().unwrap();
        assert_eq!(s.find_task(family(), news.id.to_string()).await.unwrap(), Some(news.clone()));
        let renamed = Task { name: "the news".into(), ..news.clone() };
        s.change_task(news, renamed.clone(), NOON).await.unwrap().unwrap().unwrap();
        // A time on the minute, and a second one that meets an open turn, then a person who takes the lane.
        for now in [WallMs(NOON.0 + 60_000), WallMs(NOON.0 + 240_000)] {
            looks(s, now).await;
            s.next_fire_at().await.unwrap();
        }
        s.fire_now(renamed.id, T).await.unwrap();
        let lane = renamed.lane();
        let turn = s.open_turn(lane.clone()).await.unwrap().unwrap().turn;
        assert!(s.asking_turn(turn).await.unwrap().by.starts_with("f-"));
        add(task("child", MINUTELY, isolated()), adding(turn, "t-5:1")).await.unwrap();
        let (run, session, now) = (run(6), "task-1".to_owned(), NOON);
        let (image, runner) = (String::from("i"), String::from("r"));
        s.new_run(NewRun { run: run.clone(), lane: lane.clone(), session, image, runner, now })
            .await
            .unwrap();
        s.begin_state(lane.clone()).await.unwrap();
        let context = crate::domain::limits::ContextLimits { messages: 2, tokens: 1000 };
        let limits = InputLimits { context, turn_tokens: 1_000_000 };
        let build = |_, state: InputState| Ok(state.fire.map(|_| vec![]).unwrap());
        s.compose_input(run.clone(), lane.clone(), limits, FileWait::Whole, NOON, build).await.unwrap();
        self.takes_from(run.as_str(), 1, 1, Some(turn), "t-5:9.0", done("the news")).await;
        s.collect(run, lane, Ending::Finished, NOON).await.unwrap();
        s.fires(renamed.id, 20).await.unwrap();
        let talk = s.find_task(family(), "talk".into()).await.unwrap().unwrap();
        let paused = Task { state: TaskState::Paused, next_at: None, ..talk.clone() };
        s.change_task(talk, paused, NOON).await.unwrap().unwrap().unwrap();
        s.pause_task(renamed.id).await.unwrap();
    }

    async fn sending(&mut self) {
        let notice = |word: &str| OutgoingText::notice(&chat("telegram:-1"), word, "Hello.".into());
        for word in ["a", "b", "c", "d", "e", "f"] {
            self.store.say(None, notice(word), T).await.unwrap();
        }
        let why = || "no".to_owned();
        let ends = [
            SendOutcome::Arrived("1".into()),
            SendOutcome::Cut { why: why() },
            SendOutcome::NotArrived { why: why(), after: None },
            SendOutcome::Refused { why: why() },
            SendOutcome::Gone { why: why() },
        ];
        let later = |n: usize| T.plus(Duration::from_secs(n as u64 * 3600));
        for (n, end) in ends.into_iter().enumerate() {
            let hold = Terms { delivery: if n == 1 { Delivery::Hold } else { Delivery::Resend }, ..TERMS };
            let NextPart::Part(part) = self.claims(hold, later(n)).await else { continue };
            let _: &Part = &part;
            self.store.settle(*part, end, TERMS.retry, later(n)).await.unwrap();
        }
        for command in [HeldCommand::Resend, HeldCommand::Drop] {
            let order = self.writes("telegram:-1", "/resend AB", Role::Command(Command::Resend)).await.seq;
            self.store.resolve_held(order, family(), chat("telegram:-1"), command, T).await.unwrap();
        }
        let way_later = T.plus(Duration::from_secs(80 * 3600));
        self.store.say(Some(TurnId(4)), reply("old", "old"), T).await.unwrap();
        self.claims(TERMS, way_later).await;
        let chats = self.store.chats_waiting(ChannelName::new("telegram")).await.unwrap();
        assert!(chats.len() < 3);
    }

    async fn claims(&self, terms: Terms, now: WallMs) -> NextPart {
        self.store.claim(chat("telegram:-1"), terms, now).await.unwrap()
    }

    async fn what_people_ask_at_the_terminal(&self) {
        let s = &self.store;
        let _ = (s.summary().await.unwrap(), s.posture_gaps().await.unwrap(), s.pins().await.unwrap());
        s.count_waiting(&family()).await.unwrap();
        s.heartbeats().await.unwrap();
        s.group_of(&chat("telegram:-1")).await.unwrap();
        s.audit(T, "t".into(), "w", "d".into()).await.unwrap();
        s.count("counter", 1).await.unwrap();
        s.set_posture_gaps(&family(), vec![], T).await.unwrap();
        let image = |name: &str| Named { name: name.into(), id: name.into() };
        for name in ["one", "two", "two"] {
            s.pin_image(&family(), image(name), "t", T).await.unwrap();
        }
        s.roll_back_pin(&family(), image("one"), "t", T).await.unwrap();
        let refused = NotTaken { name: "bad".into(), id: None, why: "no".into(), at: T };
        s.image_refused(&family(), refused).await.unwrap();
        s.image_passed("one", "r", "{}".into(), T).await.unwrap();
        let _ = (s.image_offers("one", "r").await.unwrap(), s.pin(&family()).await.unwrap());
        s.admit_code("NONE".into(), family(), "t".into(), None, T).await.unwrap();
        let told = OutgoingText::notice(&self::chat("telegram:-1"), "admit:1", "done".into());
        let (order, code, by) = (MessageSeq(1), "NONE".into(), "t".into());
        let order = AdmissionOrder { order, code, group: family(), by, first: None, told };
        s.admit_and_answer(order, T).await.unwrap();
        s.order_text(MessageSeq(1)).await.unwrap();
        s.refuse_code("NONE".into(), "t".into(), T).await.unwrap();
        let (chat, kind, title) = (chat("telegram:-3"), ChatKind::Room, "New".into());
        let by = "t".into();
        s.admit_chat(Admission { chat, group: family(), kind, title, by, now: T }).await.unwrap();
        // `ChatEvent::Moved` walks the tables. A chat moves once in its life.
        let to = self::chat("telegram:-3");
        let events = [
            ChatEvent::Lost { chat: to.clone(), why: "the bot was removed".into() },
            ChatEvent::Back { chat: to.clone() },
        ];
        s.chat_events(events.into(), T).await.unwrap();
        s.revoke_chat(to, "t".into(), T).await.unwrap();
        s.direct_chats_of_main().await.unwrap();
        let owner: crate::domain::SenderId = "telegram:99".parse().unwrap();
        assert!(s.add_owner(owner.clone(), T).await.unwrap() && s.remove_owner(owner, T).await.unwrap());
        let (channel, account, why) = ("telegram".into(), "@laz_bot".into(), String::new());
        let state = ChannelState { channel, account, trouble: None, why, since: T, asks_at: None };
        s.set_channel_state(state).await.unwrap();
        assert_eq!(s.channel_states().await.unwrap().len(), 1);
    }

    async fn a_night(&self) {
        let s = &self.store;
        let _ = (s.runs_in_use().await.unwrap(), s.media_in_use().await.unwrap());
        let _ = (s.sessions().await.unwrap(), s.spool_in_use().await.unwrap());
        let mut cleared = Cleared::default();
        while !cleared.is_done() {
            cleared = s
                .clear(cleared, WallMs(T.0 - 3_600_000), WallMs(T.0 - 7_200_000), WallMs(T.0 - 7_200_000))
                .await
                .unwrap();
        }
        s.move_times(1, T).await.unwrap();
    }

    /// The index is brought up to date from the readers. Its own file is not recorded.
    async fn a_search(&self, at: &std::path::Path) {
        let index = HistoryIndex::new(&at.with_file_name("history-index.db"));
        let s = &self.store;
        index.catch_up(s, Duration::ZERO).await.unwrap();
        let own = s.chats_of(&family()).await.unwrap();
        let (query, from, to) = (Some("answer time".into()), WallMs(0), WallMs(i64::MAX));
        let wanted = Wanted { group: family(), own, chat: None, query, from, to, skip: 0, count: 20 };
        let found = index.search(wanted).await.unwrap();
        assert_eq!(s.said(&family(), found.keys, TurnId(0)).await.unwrap().len(), 20);
    }

    async fn lives(&mut self) {
        self.start_of_the_host().await;
        self.a_turn().await;
        self.start_of_the_host().await;
        self.a_question().await;
        self.a_press().await;
        self.a_task().await;
        self.sending().await;
        self.what_people_ask_at_the_terminal().await;
        self.a_night().await;
    }
}

fn usage(run: &RunId, turn: TurnId) -> Usage {
    Usage {
        run: run.clone(),
        group: family(),
        turn: Some(turn),
        provider: "p".into(),
        model: "m".into(),
        input: 1,
        output: 1,
        cache_read: 0,
        cache_write: 0,
        cost_micros: None,
        estimated: false,
        status: 200,
        took: Duration::ZERO,
        zone: crate::domain::Zone::utc(),
    }
}

async fn played(messages: u32) -> (Statements, std::path::PathBuf, House) {
    let (mut house, path) = store_over_history(messages);
    house.lives().await;
    house.a_search(&path).await;
    house.store.close().await;
    let mut statements = statement_log::take();
    let first = |sql: &str| sql.split_whitespace().next().unwrap_or_default().to_uppercase();
    statements
        .retain(|sql, _| ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"].contains(&first(sql).as_str()));
    (statements, path, house)
}

/// The lines of a statement's plan that walk something from its beginning.
fn scans(c: &Connection, sql: &str) -> Vec<String> {
    let mut plan = c.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let lines = plan.raw_query().mapped(|r| r.get::<_, String>(3)).map(|line| line.unwrap());
    lines.filter(|line| line.starts_with("SCAN") && !is_small(sql, line)).collect()
}

fn is_small(sql: &str, line: &str) -> bool {
    let scanned = line.split_whitespace().nth(1).unwrap_or_default();
    let index = line.split_once("INDEX ").map(|(_, index)| index.trim());
    // The plan names a table by its alias.
    let is =
        |name: &str| scanned == name || index == Some(name) || sql.contains(&format!("{name} {scanned}"));
    let newest = [("message", "ORDER BY seq DESC LIMIT ?1"), ("task", "ORDER BY id DESC LIMIT 100")];
    let newest = newest.iter().any(|(table, end)| scanned == *table && sql.trim_end().ends_with(end));
    // SQLite looks for rows that refer to a new one only while a reference is broken, which none is between statements.
    let references = !sql.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == scanned);
    newest
        || references
        || SMALL.iter().any(|(name, _)| is(name))
        || scanned == "CONSTANT"
        || scanned.starts_with('(')
}

#[tokio::test]
async fn no_statement_walks_a_table_that_grows_and_none_takes_longer_with_more_history() {
    let (few, _, _house) = played(16_000).await;
    let (many, path, _other) = played(48_000).await;
    assert!(many.len() > 100, "only {} statements were recorded", many.len());
    let c = Connection::open(&path).unwrap();
    let mut found = Vec::new();
    // SQLite plans otherwise when somebody has analyzed the database.
    for statistics in [false, true] {
        if statistics {
            c.execute_batch("ANALYZE").unwrap();
        }
        let c = Connection::open(&path).unwrap();
        for sql in many.keys() {
            found.extend(
                scans(&c, sql).into_iter().map(|scan| format!("{scan} (analyzed: {statistics}) in\n{sql}")),
            );
        }
    }
    for (sql, steps) in &many {
        let before = few.get(sql).copied().unwrap_or_default();
        if f64::from(*steps) > f64::from(before) * 1.3 + 100.0 {
            found.push(format!("{before} steps become {steps} with three times the history in\n{sql}"));
        }
    }
    assert!(found.is_empty(), "{} findings:\n{}", found.len(), found.join("\n\n"));
}

/// Otherwise a new function's statements would not be looked at.
#[test]
fn the_scripted_life_calls_every_function_of_the_store() {
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    let script =
        [include_str!("cost_of_history.rs"), include_str!("../tests.rs"), include_str!("tasks.rs")].concat();
    let mut missing = BTreeSet::new();
    for file in std::fs::read_dir(source).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let calls = text.split("pub async fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
            missing.extend(calls.filter(|name| !script.contains(&format!(".{name}("))).map(str::to_owned));
        }
    }
    assert!(missing.is_empty(), "the life in this file does not call {missing:?}");
}
