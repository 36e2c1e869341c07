//! Rows that go, the file that stops growing, and times that move with the clock.

use super::*;

const DAY: i64 = 24 * 3_600_000;

async fn cleared(store: &Store, before: WallMs) -> u64 {
    let mut cleared = Cleared::default();
    while !cleared.is_done() {
        cleared = store.clear(cleared, before, before, before).await.unwrap();
    }
    cleared.rows
}

async fn number(house: &House, sql: &'static str) -> i64 {
    house.store.write(move |c| Ok(c.query_row(sql, [], |r| r.get(0))?)).await.unwrap()
}

/// A turn with a long letter and many steps, at a time of its own.
async fn a_day(house: &mut House, day: i64) {
    let now = WallMs(T.0 + day * DAY);
    let run: RunId = format!("019ab000-0000-7000-8000-{day:012}").parse().unwrap();
    house.wakes("telegram:-1", "a question").await;
    let new = NewRun {
        run: run.clone(),
        lane: lane(),
        session: "conversation-1".into(),
        image: "i".into(),
        runner: "r".into(),
        now,
    };
    house.store.new_run(new).await.unwrap();
    let begin = |_| Ok(vec![b'x'; 60_000]);
    house.store.add_letter(run.clone(), None, "begin", now, begin).await.unwrap();
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 700)
               INSERT INTO stage SELECT NULL, NULL, NULL, 'step', ?1, 0 FROM n";
    house.store.write(move |c| Ok(c.execute(sql, [now.0]).map(drop)?)).await.unwrap();
    house.store.collect(run, lane(), Ending::Finished, now).await.unwrap();
    house.store.end_turn(lane(), InterruptWhy::Time, None, now).await.unwrap();
}

#[tokio::test]
async fn old_rows_go_in_handfuls_and_the_file_stops_growing() {
    let mut house = house().await;
    let mut pages = Vec::new();
    for day in 0..40 {
        a_day(&mut house, day).await;
        cleared(&house.store, WallMs(T.0 + (day - 5) * DAY)).await;
        pages.push(number(&house, "SELECT page_count FROM pragma_page_count").await);
    }
    // What stays for good (messages, turns, what was said) is small; letters and steps are not.
    assert!(pages[39] - pages[9] <= 12, "it grew from {} to {} pages", pages[9], pages[39]);
    assert_eq!(number(&house, "SELECT count(*) FROM to_agent").await, 6);
    assert_eq!(number(&house, "SELECT count(*) FROM stage WHERE name = 'step'").await, 6 * 700);
    assert_eq!(number(&house, "SELECT count(*) FROM message").await, 40);
    assert_eq!(number(&house, "SELECT count(*) FROM turn").await, 40);
    assert_eq!(number(&house, "SELECT count(*) FROM run").await, 40);
}

#[tokio::test]
async fn what_belongs_to_an_open_turn_stays_whatever_its_age() {
    let mut house = house().await;
    house.wakes("telegram:-1", "a question").await;
    house.starts(RUN).await;
    house.store.collect(RUN.parse().unwrap(), lane(), Ending::Killed, T).await.unwrap();
    let turn = house.store.open_turns().await.unwrap()[0].turn;
    house
        .store
        .write(move |c| {
            Ok(c.execute("INSERT INTO stage VALUES (?1, NULL, NULL, 'start', 0, 0)", [int(turn.0)])
                .map(drop)?)
        })
        .await
        .unwrap();
    assert_eq!(house.store.runs_in_use().await.unwrap(), [RUN.parse::<RunId>().unwrap()]);
    assert_eq!(cleared(&house.store, WallMs(T.0 + 400 * DAY)).await, 0);
    house.store.end_turn(lane(), InterruptWhy::Stop, None, T).await.unwrap();
    assert_eq!(cleared(&house.store, WallMs(T.0 + 400 * DAY)).await, 2);
}

#[tokio::test]
async fn a_clock_that_was_a_year_behind_makes_nothing_old() {
    const YEAR: i64 = 365 * DAY;
    let mut house = house().await;
    house.wakes("telegram:-1", "a question").await;
    house.store.say(None, OutgoingText::notice(&chat("telegram:-1"), "x", "waits".into()), T).await.unwrap();
    house.store.move_times(YEAR, T).await.unwrap();
    let now = WallMs(T.0 + YEAR + 1_000);
    let NextPart::Part(part) = house.store.claim(chat("telegram:-1"), TERMS, now).await.unwrap() else {
        panic!("nothing waits")
    };
    assert_eq!(now.since(part.lives_from).as_secs(), 1);
    let open = house.store.open_turns().await.unwrap();
    assert_eq!(now.since(open[0].opened_at).as_secs(), 1);
}

/// The machine came up in 1970, and a time server set it right a minute later.
#[tokio::test]
async fn what_an_earlier_host_stamped_with_the_right_time_keeps_it() {
    let mut house = house().await;
    house.wakes("telegram:-1", "one").await;
    house.starts(RUN).await;
    house.is_given(RUN).await;
    house.asks(RUN).await;
    house.store.collect(RUN.parse().unwrap(), lane(), Ending::Finished, T).await.unwrap();
    let boot = WallMs(60_000);
    house
        .store
        .say(None, OutgoingText::notice(&chat("telegram:-2"), "x", "waits".into()), boot)
        .await
        .unwrap();
    house.store.move_times(T.0, boot).await.unwrap();
    let until = T.plus(Duration::from_secs(60));
    assert_eq!(house.store.suspended().await.unwrap(), [Suspended { lane: lane(), until }]);
    assert_eq!(house.store.open_turns().await.unwrap()[0].opened_at, T);
    for (waits, since) in [("telegram:-1", T), ("telegram:-2", until)] {
        let NextPart::Part(part) = house.store.claim(chat(waits), TERMS, until).await.unwrap() else {
            panic!("nothing waits in {waits}")
        };
        assert_eq!(part.lives_from, since);
    }
}

// Copies that are put back

#[tokio::test]
async fn numbers_go_on_from_where_the_replaced_database_was() {
    for readable in [true, false] {
        let mut house = house().await;
        let path = house._dir.path().join("lazaret.db");
        let copy = house._dir.path().join("copy.db");
        house.wakes("telegram:-1", "before the copy").await;
        back_up(&path, &copy).unwrap();
        for _ in 0..3 {
            house.wakes("telegram:-1", "after it: a transcript may know this one").await;
        }
        house.store.close().await;
        if !readable {
            std::fs::write(&path, "nothing that a database would be").unwrap();
        }
        let restored = restore(&path, &copy, Transcripts::MayBeNewer, "T").unwrap();
        assert!(restored.replaced.unwrap().ends_with("lazaret.db.replaced-T"));
        house.store = Store::open(&path).unwrap();
        let next = house.writes("telegram:-1", "the next one", Role::Wake).await;
        assert_eq!(next.seq, MessageSeq(if readable { 5 } else { 1_000_002 }));
        assert_eq!(number(&house, "SELECT count(*) FROM message").await, 2);
    }
}

#[tokio::test]
async fn a_restore_that_was_cut_is_done_again_before_anything_opens() {
    let mut house = house().await;
    let path = house._dir.path().join("lazaret.db");
    let copy = house._dir.path().join("copy.db");
    house.wakes("telegram:-1", "before the copy").await;
    back_up(&path, &copy).unwrap();
    house.store.close().await;
    begin_restore(&path, &copy).unwrap();
    for error in [Store::open(&path).unwrap_err(), Store::open_for_command(&path).unwrap_err()] {
        let command = format!("lazaret restore {}", copy.display());
        assert!(error.code() == "store.unfinished" && error.to_string().contains(&command), "{error}");
    }
    let index = path.with_file_name(HISTORY_INDEX);
    std::fs::write(&index, "of the rows that leave").unwrap();
    restore(&path, &copy, Transcripts::MayBeNewer, "T").unwrap();
    assert!(!index.exists());
    drop(Store::open(&path).unwrap());
}

#[tokio::test]
async fn a_copy_with_its_log_beside_it_is_put_back_whole() {
    let mut house = house().await;
    let (path, copy) = (house._dir.path().join("lazaret.db"), house._dir.path().join("by-hand.db"));
    house.wakes("telegram:-1", "only in the log").await;
    std::fs::copy(&path, &copy).unwrap();
    std::fs::copy(crate::host_files::beside(&path, "-wal"), crate::host_files::beside(&copy, "-wal"))
        .unwrap();
    house.store.close().await;
    restore(&path, &copy, Transcripts::MayBeNewer, "T").unwrap();
    house.store = Store::open(&path).unwrap();
    assert_eq!(number(&house, "SELECT count(*) FROM message").await, 1);
}

#[tokio::test]
async fn a_copy_of_a_newer_host_is_refused_and_nothing_is_changed() {
    let house = house().await;
    let path = house._dir.path().join("lazaret.db");
    house.store.close().await;
    let copy = house._dir.path().join("newer.db");
    std::fs::copy(&path, &copy).unwrap();
    rusqlite::Connection::open(&copy).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = restore(&path, &copy, Transcripts::MayBeNewer, "T").unwrap_err();
    assert!(error.code() == "store.newer" && error.to_string().contains("schema 99"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    drop(Store::open(&path).unwrap());
}

#[tokio::test]
async fn talk_that_was_left_out_is_over_at_once_and_its_rows_follow_at_night() {
    let mut h = house().await;
    let talk = (0..1_700).map(|_| h.message("telegram:-1", "talk", Role::Context)).collect();
    h.take_in(talk).await;
    h.wakes("telegram:-1", "wake").await;
    h.starts(RUN).await;
    assert_eq!(h.is_given(RUN).await.unwrap().1, 1_000, "so far it counts");
    h.takes(1, 2, Some(TurnId(1)), done("x")).await;
    let waiting = "SELECT count(*) FROM message WHERE state = 'waiting'";
    assert_eq!(number(&h, waiting).await, 1_200);
    assert_eq!(h.state_of(1).await, "done", "as people see it");
    h.wakes("telegram:-1", "again").await;
    assert_eq!(h.is_given(RUN).await, Some((vec!["again".into()], 0)));
    assert_eq!(cleared(&h.store, T).await, 0, "nothing is deleted");
    assert_eq!(number(&h, waiting).await, 0);
}

#[tokio::test]
async fn a_person_waits_for_no_more_than_500_rows_of_the_night() {
    let mut house = house().await;
    a_day(&mut house, 0).await;
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1300)
               INSERT INTO consumed SELECT id, i, 'run:' || i, NULL, 'x', 0 FROM n, run";
    house.store.write(|c| Ok(c.execute(sql, []).map(drop)?)).await.unwrap();
    let (mut done, before) = (Cleared::default(), WallMs(T.0 + DAY));
    while !done.is_done() {
        let rows = done.rows;
        done = house.store.clear(done, before, before, before).await.unwrap();
        assert!(done.rows - rows <= 500);
    }
    assert_eq!(done.rows, 1 + 1300 + 700, "the letter, the agent's letters, and the steps");
}
