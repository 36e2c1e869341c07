//! Searching what was said: whose it is, what vanishes, and an index that can be lost at any time.

use std::path::PathBuf;

use super::*;
use crate::domain::message::ChatEvent;

const LONG: Duration = Duration::from_secs(60);

fn index_of(h: &House) -> (HistoryIndex, PathBuf) {
    let file = h._dir.path().join("history-index.db");
    (HistoryIndex::new(&file), file)
}

/// A search of a group: words, a time, one chat.
struct Search<'a> {
    group: &'a str,
    query: Option<&'a str>,
    chat: Option<&'a str>,
    from: i64,
    to: i64,
}

fn words(query: &str) -> Search<'_> {
    Search { group: "family", query: Some(query), chat: None, from: i64::MIN, to: i64::MAX }
}

impl House {
    /// The texts that are found, and how many there are in all.
    async fn searches(&self, index: &HistoryIndex, search: Search<'_>) -> (Vec<String>, u64) {
        self.searches_on(index, search, 0, 50).await
    }

    async fn searches_on(
        &self,
        index: &HistoryIndex,
        search: Search<'_>,
        skip: u32,
        count: u32,
    ) -> (Vec<String>, u64) {
        assert_eq!(index.catch_up(&self.store, LONG).await.unwrap(), Reach::default());
        let group: GroupName = search.group.parse().unwrap();
        let own = self.store.chats_of(&group).await.unwrap();
        let (chat, query) = (search.chat.map(chat), search.query.map(str::to_owned));
        let (from, to) = (WallMs(search.from), WallMs(search.to));
        let wanted = Wanted { group: group.clone(), own, chat, query, from, to, skip, count };
        let found = index.search(wanted).await.unwrap();
        let said = self.store.said(&group, found.keys, TurnId(0)).await.unwrap();
        (said.into_iter().map(|said| said.text).collect(), found.total)
    }

    async fn hits(&self, index: &HistoryIndex, query: &str) -> Vec<String> {
        self.searches(index, words(query)).await.0
    }

    /// Ann writes at this time.
    async fn writes_at(&mut self, in_chat: &str, text: &str, at: i64) {
        let mut message = self.message(in_chat, text, Role::Context);
        message.inbound.at = WallMs(at);
        self.take_in(vec![message]).await;
    }

    async fn admits(&self, id: &str, group: &str, now: WallMs) {
        let group: GroupName = group.parse().unwrap();
        self.store.group(&group, now).await.unwrap();
        let (kind, title, by) = (ChatKind::Room, "Moved".to_owned(), "test".to_owned());
        self.store.admit_chat(Admission { chat: chat(id), group, kind, title, by, now }).await.unwrap();
    }
}

#[tokio::test]
async fn messages_talk_and_replies_of_all_chats_are_found_and_commands_are_not() {
    let mut h = house().await;
    let (index, _) = index_of(&h);
    h.writes("telegram:-1", "The boiler makes noises", Role::Context).await;
    h.writes("telegram:-2", "Der Zahnarzttermin ist verschoben", Role::Context).await;
    h.writes("telegram:-2", "คุณยายชอบกินทุเรียนมาก", Role::Context).await;
    h.writes("telegram:-1", "/status boiler", Role::Command(Command::Status)).await;
    h.writes("telegram:-1", "/answer 7F on Thursday", Role::Command(Command::Answer)).await;
    h.wakes("telegram:-1", "Who repairs boilers?").await;
    let turn = h.store.open_turn(lane()).await.unwrap().unwrap().turn;
    h.store.say(Some(turn), reply("Brandt repairs the boiler.", "t-1:1"), T).await.unwrap();
    h.store
        .say(None, OutgoingText::notice(&chat("telegram:-1"), "w", "boiler notice".into()), T)
        .await
        .unwrap();
    let mut found = h.hits(&index, "boilers").await;
    found.sort();
    assert_eq!(found, ["Brandt repairs the boiler.", "The boiler makes noises", "Who repairs boilers?"]);
    assert_eq!(h.hits(&index, "Thursday").await, ["on Thursday"], "an answer to a question");
    assert_eq!(h.hits(&index, "Zahnarzt").await, ["Der Zahnarzttermin ist verschoben"]);
    assert_eq!(h.hits(&index, "ทุเรียน").await, ["คุณยายชอบกินทุเรียนมาก"]);
    let only = Search { chat: Some("telegram:-2"), ..words("boiler Termin") };
    assert_eq!(h.searches(&index, only).await.0, ["Der Zahnarzttermin ist verschoben"]);
    let none = Search { group: "main", ..words("boiler") };
    assert_eq!(h.searches(&index, none).await, (vec![], 0));
    // The turn that asks does not find itself.
    let own = h.store.chats_of(&family()).await.unwrap();
    let (query, from, to) = (Some("repairs".into()), WallMs(0), WallMs(i64::MAX));
    let wanted = Wanted { group: family(), own, chat: None, query, from, to, skip: 0, count: 9 };
    let found = index.search(wanted).await.unwrap();
    assert_eq!((found.keys.len(), h.store.said(&family(), found.keys, turn).await.unwrap().len()), (2, 0));
}

#[tokio::test]
async fn a_time_gives_everything_in_order_and_in_pages() {
    let mut h = house().await;
    let (index, _) = index_of(&h);
    for n in [3, 1, 5, 2, 4] {
        h.writes_at(if n % 2 == 0 { "telegram:-1" } else { "telegram:-2" }, &format!("word {n}"), n * 1_000)
            .await;
    }
    let time = || Search { query: None, from: 2_000, to: 5_000, ..words("") };
    assert_eq!(
        h.searches(&index, time()).await,
        (vec!["word 2".into(), "word 3".into(), "word 4".into()], 3)
    );
    assert_eq!(h.searches_on(&index, time(), 2, 2).await, (vec!["word 4".into()], 3));
    let both = Search { query: Some("words"), ..time() };
    assert_eq!(h.searches(&index, both).await.1, 3);
}

#[tokio::test]
async fn an_edited_message_is_found_in_its_newest_version() {
    let mut h = house().await;
    let (index, _) = index_of(&h);
    let mut message = h.message("telegram:-1", "We meet on Monday", Role::Context);
    h.take_in(vec![message.clone()]).await;
    assert_eq!(h.hits(&index, "Monday").await.len(), 1);
    (message.inbound.version, message.inbound.text) = (1, "We meet on Tuesday".into());
    h.take_in(vec![message.clone()]).await;
    assert_eq!(h.searches(&index, words("Monday")).await, (vec![], 0));
    assert_eq!(h.hits(&index, "we meet").await, ["We meet on Tuesday"]);
    // A late older version changes nothing, and neither does an index that is made anew.
    (message.inbound.version, message.inbound.text) = (2, "We meet on Friday".into());
    h.take_in(vec![message]).await;
    let again = HistoryIndex::new(&h._dir.path().join("another.db"));
    assert_eq!(h.hits(&again, "meet").await, ["We meet on Friday"]);
}

#[tokio::test]
async fn what_a_chat_said_before_it_moved_to_another_group_is_not_the_other_groups() {
    let mut h = house().await;
    let (index, _) = index_of(&h);
    h.writes("telegram:-1", "the family secret", Role::Context).await;
    h.wakes("telegram:-1", "a secret question").await;
    let turn = h.store.open_turn(lane()).await.unwrap().unwrap().turn;
    h.store.say(Some(turn), reply("a secret answer", "t-1:1"), T).await.unwrap();
    assert_eq!(h.hits(&index, "secret").await.len(), 3);
    h.admits("telegram:-1", "club", T.plus(Duration::from_secs(1))).await;
    let club = |query| Search { group: "club", ..words(query) };
    assert_eq!(h.searches(&index, club("secret")).await, (vec![], 0));
    let mut kept = h.hits(&index, "secret").await;
    kept.sort();
    assert_eq!(kept, ["a secret answer", "a secret question"], "its turns stay the family's");
    // What is indexed after the move is judged in the same way.
    let again = HistoryIndex::new(&h._dir.path().join("another.db"));
    assert_eq!(h.searches(&again, club("secret")).await, (vec![], 0));
    // The index alone is not trusted: the store decides again.
    let all = Search { group: "family", ..words("secret") };
    let group: GroupName = "club".parse().unwrap();
    let own = h.store.chats_of(&family()).await.unwrap();
    let (query, from, to) = (all.query.map(str::to_owned), WallMs(0), WallMs(i64::MAX));
    let found =
        index.search(Wanted { group: family(), own, chat: None, query, from, to, skip: 0, count: 9 }).await;
    assert!(h.store.said(&group, found.unwrap().keys, TurnId(0)).await.unwrap().is_empty());
    h.store.revoke_chat(chat("telegram:-1"), "t".into(), T).await.unwrap();
    assert_eq!(h.searches(&index, club("secret")).await, (vec![], 0));
}

#[tokio::test]
async fn a_chat_that_gets_another_id_keeps_its_history() {
    let mut h = house().await;
    let (index, _) = index_of(&h);
    h.writes("telegram:-1", "before the move", Role::Context).await;
    assert_eq!(h.hits(&index, "move").await.len(), 1);
    let moved = ChatEvent::Moved { from: chat("telegram:-1"), to: chat("telegram:-9") };
    h.store.chat_events(vec![moved], T).await.unwrap();
    h.writes("telegram:-9", "after the move", Role::Context).await;
    let only = Search { chat: Some("telegram:-9"), ..words("move") };
    assert_eq!(h.searches(&index, only).await.1, 2);
}

#[tokio::test]
async fn rows_that_are_gone_are_not_shown() {
    let mut h = house().await;
    let (index, _) = index_of(&h);
    h.writes("telegram:-1", "to be forgotten", Role::Context).await;
    assert_eq!(h.hits(&index, "forgotten").await.len(), 1);
    h.store.write(|c| Ok(c.execute("DELETE FROM message", [])?)).await.unwrap();
    assert!(h.hits(&index, "forgotten").await.is_empty());
}

#[tokio::test]
async fn a_lost_or_damaged_index_is_made_anew() {
    let mut h = house().await;
    let (index, file) = index_of(&h);
    for n in 0..700 {
        h.writes("telegram:-1", &format!("word number {n}"), Role::Context).await;
    }
    assert_eq!(h.searches(&index, words("word")).await.1, 700);
    let theirs = "CREATE TABLE theirs(x)";
    let spoilt: [&dyn Fn(); 4] = [
        &|| std::fs::remove_file(&file).unwrap(),
        &|| std::fs::write(&file, "no database at all, and long enough to be one").unwrap(),
        &|| rusqlite::Connection::open(&file).unwrap().execute_batch(theirs).unwrap(),
        &|| {
            let c = rusqlite::Connection::open(&file).unwrap();
            drop(index_of(&h));
            c.execute_batch("PRAGMA writable_schema = ON; DROP TABLE IF EXISTS progress;").unwrap();
        },
    ];
    for (case, spoil) in spoilt.iter().enumerate() {
        for ending in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(crate::host_files::beside(&file, ending));
        }
        if case > 0 && case < 3 {
            let _ = std::fs::remove_file(&file);
        }
        spoil();
        let index = HistoryIndex::new(&file);
        assert_eq!(h.searches(&index, words("number 42")).await.0[0], "word number 42", "case {case}");
        assert_eq!(h.searches(&index, words("word")).await.1, 700, "case {case}");
    }
}

#[tokio::test]
async fn torn_pages_end_no_search() {
    let mut h = house().await;
    let (index, file) = index_of(&h);
    for n in 0..300 {
        h.writes("telegram:-1", &format!("word number {n}"), Role::Context).await;
    }
    assert_eq!(h.searches(&index, words("word")).await.1, 300);
    drop(index);
    let c = rusqlite::Connection::open(&file).unwrap();
    c.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(c);
    let whole = std::fs::read(&file).unwrap();
    for page in (0..whole.len()).step_by(4_096) {
        let mut torn = whole.clone();
        torn[page..page + 4_096].fill(0x5a);
        std::fs::write(&file, torn).unwrap();
        let index = HistoryIndex::new(&file);
        // A search may find less or fail. It finds all after that, or has found it.
        index.catch_up(&h.store, LONG).await.unwrap();
        let own = h.store.chats_of(&family()).await.unwrap();
        let (query, from, to) = (Some("word".into()), WallMs(0), WallMs(i64::MAX));
        let wanted = Wanted { group: family(), own, chat: None, query, from, to, skip: 0, count: 9 };
        if index.search(wanted.clone()).await.is_err() {
            assert_eq!(index.catch_up(&h.store, LONG).await.unwrap(), Reach::default(), "page {page}");
            assert_eq!(index.search(wanted).await.unwrap().total, 300, "page {page}");
        }
    }
}

#[tokio::test]
async fn a_long_history_is_indexed_from_its_end_and_searched_meanwhile() {
    let mut h = house().await;
    let (index, _) = index_of(&h);
    let talk: Vec<Admitted> =
        (0..1_200).map(|n| h.message("telegram:-1", &format!("word {n}"), Role::Context)).collect();
    h.take_in(talk).await;
    h.store.write(|c| Ok(c.execute("UPDATE message SET sent_at = seq * 1000", [])?)).await.unwrap();
    let reach = index.catch_up(&h.store, Duration::ZERO).await.unwrap();
    let newest = Reach { back_to: Some(WallMs(701_000)), up_to: None };
    assert_eq!(reach, newest, "the newest 500 come first");
    let own = h.store.chats_of(&family()).await.unwrap();
    let (query, from, to) = (Some("word".into()), WallMs(0), WallMs(i64::MAX));
    let wanted = Wanted { group: family(), own, chat: None, query, from, to, skip: 0, count: 9 };
    assert_eq!(index.search(wanted.clone()).await.unwrap().total, 500);
    // What comes meanwhile is found first, and several searches at once add nothing twice.
    h.writes("telegram:-1", "word of today", Role::Context).await;
    let (one, other) = tokio::join!(index.catch_up(&h.store, LONG), index.catch_up(&h.store, LONG));
    assert_eq!((one.unwrap(), other.unwrap()), (Reach::default(), Reach::default()));
    assert_eq!(index.search(wanted).await.unwrap().total, 1_201);
}

#[tokio::test]
async fn a_hostile_query_is_only_words() {
    let mut h = house().await;
    let (index, _) = index_of(&h);
    h.writes("telegram:-1", "near and or not", Role::Context).await;
    let long = "\" OR words:* ".repeat(5_000);
    for query in ["\"", "places : p1", "a\0b\u{1b}[31m", "') OR 1=1 --", "{words}", "🎂", "NEAR(a b)", &long]
    {
        h.searches(&index, words(query)).await;
    }
    assert_eq!(h.hits(&index, "NOT \"near").await, ["near and or not"]);
    assert_eq!(h.searches(&index, words("🎂")).await, (vec![], 0));
}
