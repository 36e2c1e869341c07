//! Reads beside the writer.

use std::sync::mpsc;

use super::*;

fn sessions(c: &rusqlite::Connection) -> Result<i64> {
    Ok(c.query_row("SELECT sum(session) FROM grp", [], |r| r.get(0))?)
}

#[tokio::test]
async fn a_read_is_answered_while_a_write_transaction_is_open() {
    let h = house().await;
    let (started, has_started) = tokio::sync::oneshot::channel();
    let (finish, may_finish) = mpsc::channel::<()>();
    let store = h.store.clone();
    let write = tokio::spawn(async move {
        let work = move |c: &rusqlite::Connection| {
            c.execute("UPDATE grp SET session = session + 10", [])?;
            started.send(()).unwrap();
            may_finish.recv().unwrap();
            sessions(c)
        };
        store.write(work).await.unwrap()
    });
    has_started.await.unwrap();
    let before = h.store.read(sessions).await.unwrap();
    finish.send(()).unwrap();
    let after = write.await.unwrap();
    assert!(after > before, "the read saw the state before the write: {before}, {after}");
    assert_eq!(h.store.read(sessions).await.unwrap(), after);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_sees_every_write_that_was_answered_before_it() {
    let h = house().await;
    let tasks = (0..8).map(|task| {
        let store = h.store.clone();
        tokio::spawn(async move {
            let name = ["a", "b", "c", "d", "e", "f", "g", "h"][task];
            for value in 1..=50 {
                store.count(name, 1).await.unwrap();
                let sql = "SELECT value FROM number WHERE name = ?1";
                let read = store.read(move |c| Ok(c.query_row(sql, [name], |r| r.get::<_, i64>(0))?)).await;
                assert_eq!(read.unwrap(), value);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_reader_cannot_write_and_goes_on_after_an_error() {
    let h = house().await;
    for _ in 0..5 {
        let refused = h.store.read(|c| Ok(c.execute("DELETE FROM chat", [])?)).await.unwrap_err();
        assert_eq!(refused.code(), "store.read_only", "{refused}");
    }
    h.store.read(sessions).await.unwrap();
}

#[tokio::test]
async fn closing_waits_for_reads_and_leaves_one_file() {
    let h = house().await;
    let (started, has_started) = tokio::sync::oneshot::channel();
    let (finish, may_finish) = mpsc::channel::<()>();
    let store = h.store.clone();
    let read = tokio::spawn(async move {
        let work = move |c: &rusqlite::Connection| {
            started.send(()).unwrap();
            may_finish.recv().unwrap();
            sessions(c)
        };
        store.read(work).await
    });
    has_started.await.unwrap();
    let store = h.store.clone();
    let close = tokio::spawn(async move { store.close().await });
    tokio::task::yield_now().await;
    assert!(!close.is_finished());
    finish.send(()).unwrap();
    read.await.unwrap().unwrap();
    close.await.unwrap();
    assert_eq!(h.store.read(sessions).await.unwrap_err().code(), "store.closed");
    let files = std::fs::read_dir(h._dir.path()).unwrap().flatten().map(|e| e.file_name());
    assert_eq!(files.collect::<Vec<_>>(), ["lazaret.db"]);
}

#[tokio::test]
async fn damage_that_a_read_finds_is_reported() {
    let h = house().await;
    let faults = h.store.faults();
    let corrupt = |_: &rusqlite::Connection| -> Result<()> { Err(StoreError::Corrupt("page 7".into())) };
    assert_eq!(h.store.read(corrupt).await.unwrap_err().code(), "store.damaged");
    assert!(faults.borrow().damaged.is_some());
}

#[tokio::test]
async fn a_command_that_reads_sees_what_is_stored_and_stores_nothing() {
    let h = house().await;
    let beside = Store::open_to_read(&h._dir.path().join("lazaret.db")).unwrap();
    let (begun, begins) = tokio::sync::oneshot::channel();
    let (go_on, goes_on) = std::sync::mpsc::channel::<()>();
    let own = beside.clone();
    let long = tokio::spawn(async move {
        let count = |c: &rusqlite::Connection| -> Result<i64> {
            Ok(c.query_row("SELECT count(*) FROM number WHERE name = 'x'", [], |r| r.get(0))?)
        };
        own.read(move |c| {
            let before = count(c)?;
            begun.send(()).unwrap();
            goes_on.recv().unwrap();
            Ok((before, count(c)?))
        })
        .await
    });
    begins.await.unwrap();
    h.store.count("x", 1).await.unwrap();
    go_on.send(()).unwrap();
    assert_eq!(long.await.unwrap().unwrap(), (0, 0), "a write was stored meanwhile");
    assert!(beside.summary().await.unwrap().numbers.contains(&("x".into(), 1)));
    assert!(beside.count("x", 1).await.is_err());
}
