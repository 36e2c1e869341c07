//! Removes what is past its retention: copies of letters, attachments, transcripts that no lane continues, and rows.

#![allow(
    clippy::disallowed_methods,
    reason = "state/letters and state/inbox, which no box writes; sessions go through untrusted_fs"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipc_schema::untrusted_fs::{Kind, UntrustedDir, WalkStep};

use crate::config::Root;
use crate::config::schema::KeepFile;
use crate::domain::{WallMs, session};
use crate::host_files::{self, inside};
use crate::policy::retention::{RetainedItem, RetentionRule, gone};
use crate::spool::Spool;
use crate::store::{Cleared, Store, StoreError};

/// Retention looks at this many names of a group's transcripts in one night.
const NAMES: usize = 100_000;
/// The folder of texts that compaction replaced.
const ARCHIVE: &str = "archive";
/// The largest size of sent files. Above it, the host removes the oldest before their time.
const SPOOL: u64 = 1 << 30;
/// Younger files of the spool may still get their row.
const ON_ITS_WAY: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Gone {
    pub(super) runs: usize,
    pub(super) media: usize,
    pub(super) transcripts: usize,
    pub(super) rows: u64,
}

/// Removes everything that its rule allows.
pub(super) async fn all(
    root: &Root,
    store: &Store,
    keep: &KeepFile,
    now: WallMs,
) -> Result<Gone, StoreError> {
    let runs = letters(root, store, keep, now).await?;
    let used: BTreeSet<String> = store.media_in_use().await?.into_iter().collect();
    let sessions = store.sessions().await?;
    let waiting = store.spool_in_use().await?;
    let (root, rules) = (root.clone(), keep.clone());
    let files = host_files::blocking(move || {
        let spooled = spooled(&Spool::at(root.spool()), &waiting, rules.media.0, now);
        let media = media(&root, &used, rules.media.0, now) + spooled;
        let transcripts: usize = sessions
            .iter()
            .map(|(group, newest)| transcripts(&root.sessions(group), *newest, rules.transcripts.0, now))
            .sum();
        (media, transcripts)
    });
    let (media, transcripts) = files.await;
    let before = |span: Duration| WallMs(now.0 - i64::try_from(span.as_millis()).unwrap_or(i64::MAX));
    let mut cleared = Cleared::default();
    while !cleared.is_done() {
        let (letters, calls, fires) = (keep.letters.0, keep.transcripts.0, keep.fires.0);
        cleared = store.clear(cleared, before(letters), before(calls), before(fires)).await?;
        // The task yields between two batches, so that other users of the store get their turn.
        tokio::task::yield_now().await;
    }
    Ok(Gone { runs, media, transcripts, rows: cleared.rows })
}

/// Removes copies of letters, run by run. A run that the store does not know belongs to nobody.
pub(super) async fn letters(
    root: &Root,
    store: &Store,
    keep: &KeepFile,
    now: WallMs,
) -> Result<usize, StoreError> {
    let used: BTreeSet<String> = store.runs_in_use().await?.into_iter().map(|run| run.to_string()).collect();
    let rule = RetentionRule { longest: keep.letters.0, budget: Some(keep.letters_mib << 20) };
    let root = root.state().join("letters");
    let cleared = host_files::blocking(move || {
        let runs: Vec<PathBuf> = inside(&root).iter().flat_map(|group| inside(group)).collect();
        let things: Vec<RetainedItem> = runs
            .iter()
            .map(|run| {
                let (bytes, changed) = extent(run);
                let name = run.file_name().unwrap_or_default().to_string_lossy();
                RetainedItem { bytes, age: now.since(changed), in_use: used.contains(name.as_ref()) }
            })
            .collect();
        let gone = gone(&things, rule);
        let removed =
            gone.iter().filter_map(|at| runs.get(*at)).filter(|run| done(run, fs::remove_dir_all(run)));
        removed.count()
    });
    Ok(cleared.await)
}

/// Removes attachments: the host's own files, named by their content.
fn media(root: &Root, used: &BTreeSet<String>, longest: Duration, now: WallMs) -> usize {
    let groups = inside(&root.state().join("inbox"));
    let files: Vec<PathBuf> = groups.iter().flat_map(|group| inside(group)).collect();
    let things: Vec<RetainedItem> = files
        .iter()
        .map(|file| {
            let seen = fs::symlink_metadata(file);
            let changed = seen.as_ref().map_or(now, |m| wall(m.modified().unwrap_or(SystemTime::now())));
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let in_use = used.contains(name.as_ref());
            RetainedItem { bytes: seen.map_or(0, |m| m.len()), age: now.since(changed), in_use }
        })
        .collect();
    let gone = gone(&things, RetentionRule { longest, budget: None });
    gone.iter().filter_map(|at| files.get(*at)).filter(|file| done(file, fs::remove_file(file))).count()
}

/// Removes files that agents sent, once nothing waits for them. They stay for a while, because a reader at the terminal
/// opens them in place.
fn spooled(spool: &Spool, waiting: &BTreeSet<String>, longest: Duration, now: WallMs) -> usize {
    let files = spool.files();
    let things: Vec<RetainedItem> = files
        .iter()
        .map(|(name, seen)| {
            let age = now.since(seen.modified().map_or(now, wall));
            RetainedItem { bytes: seen.len(), age, in_use: waiting.contains(name) || age < ON_ITS_WAY }
        })
        .collect();
    let gone = gone(&things, RetentionRule { longest, budget: Some(SPOOL) });
    let names = gone.iter().filter_map(|at| files.get(*at)).map(|(name, _)| name);
    names.filter(|name| done(&spool.path(name), spool.remove(name))).count()
}

/// Removes the folders of ended sessions, and in the folders of the others the transcripts that were set aside as
/// damaged and the texts that compaction archived. Transcripts that an earlier version left beside the folders go like
/// those in them. An agent could write here, so the host reads and unlinks names through a handle and follows no link.
fn transcripts(sessions: &Path, newest: u64, longest: Duration, now: WallMs) -> usize {
    // A group without a folder has nothing to remove.
    let Ok(root) = UntrustedDir::open(sessions) else { return 0 };
    let mut removed = session_files(&root, sessions, newest, longest, now);
    let (mut ended, mut things) = (Vec::new(), Vec::new());
    for name in root.names(NAMES).unwrap_or_default().names {
        let Ok(folder) = root.folder(name.as_ref()) else { continue };
        if name == ARCHIVE {
            continue;
        }
        if is_current(&name.to_string_lossy(), newest) {
            removed += session_files(&folder, &sessions.join(name), newest, longest, now);
        } else if let Ok((bytes, changed)) = session_extent(&folder) {
            things.push(RetainedItem { bytes, age: now.since(changed), in_use: false });
            ended.push(name);
        }
    }
    let gone = gone(&things, RetentionRule { longest, budget: None });
    let names = gone.iter().filter_map(|at| ended.get(*at));
    removed += names.filter(|name| done(&sessions.join(name), root.remove_tree(name, NAMES as u64))).count();
    removed
}

/// Returns the size of an ended session and the time of its last change, which no agent can forge.
fn session_extent(folder: &UntrustedDir) -> io::Result<(u64, WallMs)> {
    let (mut walk, mut bytes, mut changed) = (folder.walk(NAMES as u64)?, 0_u64, 0);
    while let Some(step) = walk.next() {
        if let WalkStep::Entry(entry) = step {
            bytes = bytes.saturating_add(entry.on_disk);
            changed = changed.max(entry.ctime);
        }
    }
    Ok((bytes, WallMs(changed.saturating_mul(1000))))
}

/// Removes old files of a folder with transcripts.
fn session_files(folder: &UntrustedDir, path: &Path, newest: u64, longest: Duration, now: WallMs) -> usize {
    let cleared = |handle: &UntrustedDir, path: &Path, ending: &str| -> io::Result<usize> {
        let (mut names, mut things) = (Vec::new(), Vec::new());
        for name in handle.names(NAMES)?.names {
            let text = name.to_string_lossy().into_owned();
            let Ok(seen) = handle.look(&name) else { continue };
            if !text.ends_with(ending) || seen.kind != Kind::File {
                continue;
            }
            let changed = WallMs(seen.mtime.saturating_mul(1000));
            let in_use = ending == ".jsonl" && is_current(&text, newest);
            things.push(RetainedItem { bytes: seen.len, age: now.since(changed), in_use });
            names.push(name);
        }
        let gone = gone(&things, RetentionRule { longest, budget: None });
        let removed = gone
            .iter()
            .filter_map(|at| names.get(*at))
            .filter(|name| done(&path.join(name), handle.unlink(name)));
        Ok(removed.count())
    };
    // A session without an archive has nothing to remove there. `archive` must not be a link.
    let archived = folder.folder(ARCHIVE.as_ref());
    cleared(folder, path, ".jsonl").unwrap_or(0)
        + archived.and_then(|folder| cleared(&folder, &path.join(ARCHIVE), ".md")).unwrap_or(0)
}

/// Returns whether a lane may continue this transcript or folder: it belongs to the newest session or a later one.
/// Nobody continues what was set aside. Each turn of an isolated task has a session of its own,
/// and is over long before its session is old.
fn is_current(name: &str, newest: u64) -> bool {
    let stem = name.strip_suffix(".jsonl").unwrap_or(name);
    !stem.starts_with("task-")
        && !stem.contains('.')
        && session::number(stem).is_none_or(|number| number >= newest)
}

/// Returns the size of a run's copies and the time of the last one. The host owns these folders, which are two levels
/// deep.
fn extent(run: &Path) -> (u64, WallMs) {
    let below = inside(run).into_iter().flat_map(|folder| {
        let files = inside(&folder);
        files.into_iter().chain([folder])
    });
    let seen = below.chain([run.to_owned()]).filter_map(|path| fs::symlink_metadata(path).ok());
    seen.fold((0, WallMs(0)), |(bytes, changed), m| {
        (bytes + m.len(), changed.max(m.modified().map_or(WallMs(0), wall)))
    })
}

fn wall(time: SystemTime) -> WallMs {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    WallMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Logs a failed removal. The next night tries it again.
fn done(path: &Path, removed: io::Result<()>) -> bool {
    if let Err(e) = &removed {
        tracing::warn!(code = "clear.file", "{} stays: {e}", path.display());
    }
    removed.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;
    /// Returns a time long after the files of this test.
    fn in_days(days: u64) -> WallMs {
        wall(SystemTime::now() + Duration::from_secs(days * DAY))
    }

    fn write(path: &Path, bytes: usize) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![b'x'; bytes]).unwrap();
    }

    fn install() -> (tempfile::TempDir, Root, Store) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path()).unwrap();
        fs::create_dir_all(root.state()).unwrap();
        let store = Store::open(&root.database()).unwrap();
        (dir, root, store)
    }

    #[tokio::test]
    async fn letters_go_by_age_and_by_size_and_those_of_a_living_run_stay() {
        let (_dir, root, store) = install();
        let main = crate::domain::GroupName::main();
        store.group(&main, in_days(0)).await.unwrap();
        let run = |n: u32| {
            format!("019ab000-0000-7000-8000-00000000000{n}").parse::<crate::domain::RunId>().unwrap()
        };
        let new = crate::store::NewRun {
            run: run(1),
            lane: crate::domain::Lane::conversation(main.clone()),
            session: "conversation-1".into(),
            image: "i".into(),
            runner: "r".into(),
            now: in_days(0),
        };
        store.new_run(new).await.unwrap();
        for n in 1..=3 {
            write(&root.letters(&main, &run(n)).join("to-agent/0000000001-begin.json"), 700 << 10);
        }
        let keep = KeepFile { letters_mib: 1, ..KeepFile::default() };
        assert_eq!(letters(&root, &store, &KeepFile::default(), in_days(13)).await.unwrap(), 0);
        assert_eq!(letters(&root, &store, &keep, in_days(1)).await.unwrap(), 2, "1 MiB holds one of three");
        assert!(root.letters(&main, &run(1)).exists(), "the one that is alive");
        write(&root.letters(&main, &run(2)).join("runner.log"), 10);
        let gone = all(&root, &store, &KeepFile::default(), in_days(15)).await.unwrap();
        assert_eq!(gone.runs, 1);
        assert!(root.letters(&main, &run(1)).exists());
    }

    #[tokio::test]
    async fn old_transcripts_go_and_the_newest_session_stays_whatever_its_age() {
        let (dir, root, store) = install();
        let main = crate::domain::GroupName::main();
        store.group(&main, in_days(0)).await.unwrap();
        let sessions = root.sessions(&main);
        for name in [
            "conversation-1.jsonl",
            "conversation-1.damaged-7.jsonl",
            "archive/conversation-1-1-9.md",
            "notes.txt",
        ] {
            write(&sessions.join(name), 10);
        }
        // Retention does not follow an agent's links.
        let outside = dir.path().join("outside.jsonl");
        write(&outside, 10);
        std::os::unix::fs::symlink(&outside, sessions.join("conversation-0.jsonl")).unwrap();
        let names = || {
            let mut names: Vec<String> = inside(&sessions)
                .iter()
                .map(|p| p.file_name().unwrap().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        };
        let gone = all(&root, &store, &KeepFile::default(), in_days(89)).await.unwrap();
        assert_eq!(gone.transcripts, 0);
        let gone = all(&root, &store, &KeepFile::default(), in_days(91)).await.unwrap();
        assert_eq!(gone.transcripts, 2);
        assert_eq!(names(), ["archive", "conversation-0.jsonl", "conversation-1.jsonl", "notes.txt"]);
        assert!(outside.exists());
        fs::rename(sessions.join("archive"), dir.path().join("elsewhere")).unwrap();
        write(&dir.path().join("elsewhere/a.md"), 10);
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), sessions.join("archive")).unwrap();
        assert_eq!(all(&root, &store, &KeepFile::default(), in_days(91)).await.unwrap().transcripts, 0);
        assert!(dir.path().join("elsewhere/a.md").exists());
    }

    #[tokio::test]
    async fn an_ended_session_goes_with_its_folder_whatever_an_agent_left_in_it() {
        let (dir, root, store) = install();
        let family = "family".parse().unwrap();
        store.group(&family, in_days(0)).await.unwrap();
        let sessions = root.sessions(&family);
        let at = |name: &str| sessions.join(name);
        for name in ["1-k3v9", "0-k3v9", "1-k3v9.aside-5"] {
            write(&at(&format!("conversation-{name}/conversation-{name}.jsonl")), 10);
        }
        for name in ["0/conversation-0.jsonl", "0/deep/er/notes.txt", "1/conversation-1.jsonl", "1/notes.txt"]
        {
            write(&at(&format!("conversation-{name}")), 10);
        }
        write(&at("conversation-1/archive/conversation-1-1-9.md"), 10);
        // A time in the future does not keep what nobody continues.
        let kept = fs::File::open(at("conversation-0/deep/er/notes.txt")).unwrap();
        kept.set_modified(SystemTime::now() + Duration::from_secs(1_000 * DAY)).unwrap();
        let outside = dir.path().join("outside");
        write(&outside.join("conversation-0.jsonl"), 10);
        std::os::unix::fs::symlink(&outside, at("conversation-0/link")).unwrap();
        std::os::unix::fs::symlink(&outside, at("conversation-00")).unwrap();
        let gone =
            async |days| all(&root, &store, &KeepFile::default(), in_days(days)).await.unwrap().transcripts;
        assert_eq!(gone(89).await, 0);
        assert_eq!(gone(91).await, 4, "two ended sessions, what was set aside, and what compaction replaced");
        assert!(!at("conversation-0-k3v9").exists() && at("conversation-1-k3v9").exists());
        assert!(!at("conversation-0").exists() && outside.join("conversation-0.jsonl").exists());
        assert!(
            at("conversation-1/conversation-1.jsonl").exists() && at("conversation-1/notes.txt").exists()
        );
    }

    #[tokio::test]
    async fn attachments_go_after_thirty_days() {
        let (_dir, root, store) = install();
        let main = crate::domain::GroupName::main();
        write(&root.inbox(&main).join("abc.jpg"), 10);
        assert_eq!(all(&root, &store, &KeepFile::default(), in_days(29)).await.unwrap().media, 0);
        assert_eq!(all(&root, &store, &KeepFile::default(), in_days(31)).await.unwrap().media, 1);
        let used = BTreeSet::from(["def.jpg".to_owned()]);
        write(&root.inbox(&main).join("def.jpg"), 10);
        assert_eq!(media(&root, &used, Duration::ZERO, in_days(31)), 0);
    }
}
