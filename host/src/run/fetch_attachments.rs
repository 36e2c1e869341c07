//! Fetches the files that people sent, for the box whose next letter names them. The box starts meanwhile.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ipc_schema::text_sanitize;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::Run;
use super::states::{Fetching, Files, Life};
use crate::channels::FetchError;
use crate::domain::limits::Budget;
use crate::domain::message::Attachment;
use crate::domain::{GroupName, TurnId};
use crate::host_files;
use crate::policy::attachment_limits;
use crate::services::Services;
use crate::store::{Result, StoreError, Waiting};

/// After this time the host gives up the missing files of a letter, because the turn's own time limit runs.
const ALL_WITHIN: Duration = Duration::from_secs(5 * 60);
/// How often the host asks again for a file that the platform could not give, and how long it waits where the platform
/// names no time.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(2);

impl Run {
    /// Starts to fetch. The host writes the letter that names these files when each is stored or given up.
    pub(super) fn fetch(&mut self, turn: TurnId, files: Vec<Waiting>) {
        self.services.store.stage(
            Some(turn),
            None,
            Some(&self.handle.run),
            "files",
            self.services.clock.now(),
        );
        let fetch = Fetch {
            services: Arc::clone(&self.services),
            inbox: self.services.install.root.inbox(&self.handle.lane.group),
            group: self.handle.lane.group.clone(),
            limit: attachment_limits::inbox(self.group.limits.inbox()),
            largest: self.services.install.file.host.attachment_bytes(),
            until: Instant::now() + ALL_WITHIN,
            hears_until: None,
        };
        let fetching =
            self.services.workers.once(format!("the files of run {}", self.handle.run), fetch.all(files));
        self.files = Files::Fetching(Fetching { turn, task: AbortOnDropHandle::new(fetching) });
    }

    /// Handles the end of a fetch: each file is stored or given up, or the store or the disk failed.
    pub(super) async fn fetched(&mut self, done: Result<()>) {
        self.files = Files::None;
        match done {
            // A closing box reads no more letters. The next box finds the files in the inbox.
            Ok(()) if matches!(self.life, Life::Closing { .. } | Life::Ending { .. }) => {}
            Ok(()) => {
                self.files = Files::Fetched;
                self.feed().await;
            }
            Err(e) => self.not_fed(&e).await,
        }
    }
}

/// Returns when the current fetch ends; never returns where there is none.
pub(super) async fn arrival(files: &mut Files) -> Result<()> {
    let Files::Fetching(Fetching { task, .. }) = files else { return std::future::pending().await };
    let failed = |why: String| Err(StoreError::Rule(format!("fetching files ended: {why}")));
    match task.await {
        Ok(Ok(fetched)) => fetched,
        Ok(Err(panicked)) => failed(panicked.to_string()),
        Err(e) => failed(e.to_string()),
    }
}

struct Fetch {
    services: Arc<Services>,
    inbox: PathBuf,
    group: GroupName,
    limit: Budget,
    /// The size limit of one file, in bytes.
    largest: u64,
    until: Instant,
    /// When the host gives up the texts of recordings. The first recording sets it: an endpoint that hangs delays the
    /// turn by its time limit once.
    hears_until: Option<Instant>,
}

impl Fetch {
    async fn all(mut self, files: Vec<Waiting>) -> Result<()> {
        // The host keeps files of messages that have no reply yet.
        let needed: HashSet<String> = self.services.store.media_in_use().await?.into_iter().collect();
        let dir = self.inbox.clone();
        let mut inbox = host_files::blocking(move || Inbox::list(&dir, &needed)).await;
        let mut of_context = 0;
        for waiting in files {
            of_context += usize::from(!waiting.wakes);
            let file = if of_context > attachment_limits::FILES_OF_CONTEXT && !waiting.wakes {
                waiting.file.given_up(attachment_limits::of_context())
            } else {
                // Where the platform names no size, the host makes room for the largest file allowed.
                let room =
                    if waiting.file.bytes == 0 { self.largest } else { waiting.file.bytes.min(self.largest) };
                let limit = self.limit;
                inbox = host_files::blocking(move || inbox.with_room(limit, room)).await;
                self.one(&waiting, inbox.held).await?
            };
            if let Some(name) = &file.file {
                inbox.took(name, file.bytes);
            }
            failpoint!("run.attachment.kept");
            self.services.store.fetched(waiting.seq, waiting.at, file).await?;
        }
        Ok(())
    }

    /// Fetches one file, and stores it or gives it up.
    async fn one(&mut self, waiting: &Waiting, held: Budget) -> Result<Attachment> {
        let file = waiting.file.clone();
        let bytes = match tokio::time::timeout_at(self.until, self.ask(waiting, held)).await {
            Ok(Ok(bytes)) => Bytes::from(bytes),
            Ok(Err(problem)) => return Ok(file.given_up(problem)),
            Err(_) => {
                let minutes = ALL_WITHIN.as_secs() / 60;
                return Ok(file.given_up(format!(
                    "not stored: the files of this turn took longer than {minutes} minutes; ask for it to be sent again"
                )));
            }
        };
        let (dir, gid, label, length) =
            (self.inbox.clone(), self.services.gid, file.name.clone(), bytes.len() as u64);
        let recording = bytes.clone();
        match host_files::blocking(move || keep(&dir, gid, &label, &bytes)).await {
            Ok(name) => Ok(self.heard(file.stored(name, length), recording).await),
            // The message waits for its file instead of going to the agent without it.
            Err(e) if host_files::refuses_everything(&e) => Err(StoreError::Full(e.to_string())),
            Err(e) => {
                tracing::error!(group = %self.group, code = "inbox.write", "an attachment was not stored: {e}");
                Ok(file.given_up("not stored: the host could not write it".to_owned()))
            }
        }
    }

    /// The file with what is said in it, if it is a recording of that.
    async fn heard(&mut self, file: Attachment, recording: Bytes) -> Attachment {
        if !file.spoken {
            return file;
        }
        let Some(transcriber) = &self.services.transcriber else {
            return file.not_heard(attachment_limits::no_speech_endpoint());
        };
        let until = *self.hears_until.get_or_insert_with(|| Instant::now() + transcriber.time());
        let name = file.file.clone().unwrap_or_default();
        match transcriber.hear(&name, &file.mime, recording, until).await {
            Ok(text) => file.heard(text),
            Err(why) => {
                tracing::warn!(group = %self.group, code = "transcription.failed", "a voice message has no text: {why}");
                file.not_heard(why.to_string())
            }
        }
    }

    async fn ask(&self, waiting: &Waiting, held: Budget) -> std::result::Result<Vec<u8>, String> {
        let most = attachment_limits::room(held, self.limit, self.largest)?;
        let gone = || "not stored: its chat cannot be reached any more".to_owned();
        let channel = self.services.channels.of(&waiting.chat).ok_or_else(gone)?;
        let handle = waiting.file.handle.as_deref().unwrap_or_default();
        for tried in 1.. {
            match channel.fetch(handle, most).await {
                Ok(bytes) => return Ok(bytes),
                Err(FetchError::TooBig { bytes }) => {
                    return Err(attachment_limits::too_large(bytes, held, self.limit, self.largest));
                }
                Err(FetchError::Away { after, .. }) if tried < TRIES => {
                    tokio::time::sleep(after.unwrap_or(PAUSE)).await;
                }
                Err(FetchError::Away { why, .. } | FetchError::Failed(why)) => {
                    return Err(format!("not stored: {}", text_sanitize::line(&why, 200)));
                }
            }
        }
        Err(gone())
    }
}

/// A group's inbox: a flat folder that only the host writes.
struct Inbox {
    held: Budget,
    names: HashSet<String>,
    /// Files that no message waits for, with their bytes, oldest first.
    spare: VecDeque<(u64, PathBuf)>,
}

impl Inbox {
    fn list(dir: &Path, needed: &HashSet<String>) -> Self {
        let about =
            |path: PathBuf| Some((host_files::changed(&path).ok()?, host_files::size(&path).ok()?, path));
        let mut files: Vec<_> = host_files::inside(dir).into_iter().filter_map(about).collect();
        files.sort();
        let held = Budget { bytes: files.iter().map(|(_, bytes, _)| bytes).sum(), names: files.len() as u64 };
        let names = files.iter().map(|(_, _, path)| name_of(path)).collect();
        let spare = files.into_iter().map(|(_, bytes, path)| (bytes, path));
        Self { held, names, spare: spare.filter(|(_, path)| !needed.contains(&name_of(path))).collect() }
    }

    /// Removes the oldest spare files until one more file of `room` bytes fits.
    fn with_room(mut self, limit: Budget, room: u64) -> Self {
        while self.held.bytes.saturating_add(room) > limit.bytes || self.held.names >= limit.names {
            let Some((bytes, path)) = self.spare.pop_front() else { break };
            if host_files::remove(&path).is_ok() {
                self.held = Budget { bytes: self.held.bytes - bytes, names: self.held.names - 1 };
                self.names.remove(&name_of(&path));
            }
        }
        self
    }

    /// Notes a new file. Its name is the digest of its bytes, so it may have been there before.
    fn took(&mut self, name: &str, bytes: u64) {
        self.spare.retain(|(_, path)| name_of(path) != name);
        if self.names.insert(name.to_owned()) {
            self.held = Budget { bytes: self.held.bytes + bytes, names: self.held.names + 1 };
        }
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Stores a file. The sender's file name is only a label; at most a short plain extension of it reaches the disk.
fn keep(dir: &Path, gid: u32, label: &str, bytes: &[u8]) -> io::Result<String> {
    host_files::shared_dir(dir, gid, 0o2750)?;
    let name = attachment_limits::file_name(&ipc_schema::sha256_hex(bytes), label);
    host_files::put(&dir.join(&name), bytes, 0o640, Some(gid))?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_makes_room_with_what_is_old_and_nobody_waits_for() {
        let dir = tempfile::tempdir().unwrap();
        for (age, name) in ["old", "needed", "new"].iter().enumerate() {
            let path = dir.path().join(name);
            std::fs::write(&path, [7; 100]).unwrap();
            let at = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(age as u64);
            std::fs::File::options().append(true).open(path).unwrap().set_modified(at).unwrap();
        }
        let needed = HashSet::from(["needed".to_owned()]);
        let held = |limit: u64, room: u64| {
            Inbox::list(dir.path(), &needed).with_room(Budget { bytes: limit, names: 10 }, room).held
        };
        assert_eq!(held(350, 50), Budget { bytes: 300, names: 3 });
        assert_eq!(held(350, 100), Budget { bytes: 200, names: 2 });
        assert!(!dir.path().join("old").exists() && dir.path().join("new").exists());
        assert_eq!(held(50, 100), Budget { bytes: 100, names: 1 }, "what is needed stays, whatever it takes");
    }

    #[test]
    fn what_comes_again_is_counted_once_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        ["a", "b"].iter().for_each(|name| std::fs::write(dir.path().join(name), [7; 100]).unwrap());
        let mut inbox = Inbox::list(dir.path(), &HashSet::new());
        for (name, bytes) in [("a", 100), ("c", 50), ("c", 50)] {
            inbox.took(name, bytes);
        }
        assert_eq!(inbox.held, Budget { bytes: 250, names: 3 });
        inbox.with_room(Budget { bytes: 1, names: 10 }, 1);
        assert!(dir.path().join("a").exists() && !dir.path().join("b").exists());
    }
}
