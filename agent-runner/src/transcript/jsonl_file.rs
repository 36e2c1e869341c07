//! The transcript's file: one JSON line per entry, on disk before anything acts on it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{self, FileType, Mode, OFlags};

use super::entry::Entry;
use crate::error::Fatal;

const MODE: Mode = Mode::from_raw_mode(0o660);

/// A transcript's file, open for appending.
#[derive(Debug)]
pub struct TranscriptFile {
    dir: PathBuf,
    name: String,
    file: File,
}

/// What a file held.
#[derive(Debug, Default)]
struct Found {
    entries: Vec<Entry>,
    /// The highest number that was ever given, as far as the file can tell.
    last: u64,
    /// The entries are not the whole file; why.
    cut: Option<Cut>,
}

#[derive(Debug)]
enum Cut {
    /// The last append did not finish. Nothing acted on it.
    Torn,
    /// A whole line cannot be understood.
    Damaged(String),
}

impl TranscriptFile {
    /// Opens `<dir>/<session>.jsonl` and reads it. A torn last line is dropped; a damaged one ends the transcript
    /// there, and the file as it was stays beside as `<session>.damaged-<n>.jsonl`. Returned with the entries: the
    /// highest number that was ever given.
    ///
    /// # Errors
    /// [`Fatal::SessionName`], [`Fatal::SessionUnreadable`] or [`Fatal::SessionUnwritable`].
    pub fn open(dir: PathBuf, session: &str) -> Result<(Self, Vec<Entry>, u64), Fatal> {
        check_name(session)?;
        let name = format!("{session}.jsonl");
        let path = dir.join(&name);
        let mut file = open_regular(&path, OFlags::RDWR | OFlags::CREATE | OFlags::APPEND)
            .map_err(|source| Fatal::SessionUnreadable { path: path.clone(), source })?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(|source| Fatal::SessionUnreadable { path: path.clone(), source })?;
        let Found { entries, last, cut } = read_lines(&bytes);
        let mut this = Self { dir, name, file };
        match cut {
            None => {}
            Some(Cut::Torn) => {
                tracing::warn!(path = %path.display(), "the last line was torn; it is dropped");
                this.replace(&entries)?;
            }
            Some(Cut::Damaged(reason)) => {
                let aside = this.keep_aside(session, &bytes)?;
                let (path, aside) = (path.display(), aside.display());
                tracing::error!(%path, %aside, reason, kept = entries.len(), "the transcript is damaged");
                this.replace(&entries)?;
            }
        }
        Ok((this, entries, last))
    }

    /// Appends one entry and returns when it is on disk.
    ///
    /// # Errors
    /// [`Fatal::SessionUnwritable`]. What may have been written of it is a torn last line for the next run.
    pub fn append(&mut self, entry: &Entry) -> Result<(), Fatal> {
        failpoint!("runner.append.before", |source| self.unwritable(source));
        let written = entry.to_line().map_err(io::Error::from).and_then(|line| {
            self.file.write_all(&line)?;
            failpoint!("runner.append.written");
            self.file.sync_data()
        });
        failpoint!("runner.append.synced");
        written.map_err(|source| self.unwritable(source))
    }

    /// Exchanges the whole file: a new one, synced, renamed over it, the directory synced. A crash leaves the old
    /// or the new one.
    ///
    /// # Errors
    /// [`Fatal::SessionUnwritable`].
    pub fn replace(&mut self, entries: &[Entry]) -> Result<(), Fatal> {
        let fresh = self.dir.join(format!(".{}.new", self.name));
        let replaced = (|| {
            remove_if_there(&fresh)?;
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::APPEND;
            let mut file = open_regular(&fresh, flags)?;
            for entry in entries {
                file.write_all(&entry.to_line()?)?;
            }
            failpoint!("runner.compact.written", |e| e);
            file.sync_all()?;
            std::fs::rename(&fresh, self.dir.join(&self.name))?;
            failpoint!("runner.compact.replaced");
            sync_dir(&self.dir)?;
            Ok(file)
        })();
        self.file = replaced.map_err(|source| self.unwritable(source))?;
        Ok(())
    }

    /// Writes a file beside the transcript, on disk when this returns. One of this name is replaced.
    ///
    /// # Errors
    /// [`Fatal::SessionUnwritable`].
    pub fn archive(&self, name: &str, text: &str) -> Result<(), Fatal> {
        let dir = self.dir.join("archive");
        let written = (|| {
            std::fs::create_dir_all(&dir)?;
            let path = dir.join(name);
            remove_if_there(&path)?;
            let mut file = open_regular(&path, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            sync_dir(&dir)
        })();
        written.map_err(|source| self.unwritable(source))
    }

    fn keep_aside(&self, session: &str, bytes: &[u8]) -> Result<PathBuf, Fatal> {
        let kept = (1..=u32::MAX).find_map(|n| {
            let path = self.dir.join(format!("{session}.damaged-{n}.jsonl"));
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            match open_regular(&path, flags) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                opened => Some(opened.and_then(|mut file| {
                    file.write_all(bytes)?;
                    file.sync_all()?;
                    Ok(path)
                })),
            }
        });
        kept.unwrap_or_else(|| Err(io::ErrorKind::AlreadyExists.into()))
            .map_err(|source| self.unwritable(source))
    }

    fn unwritable(&self, source: io::Error) -> Fatal {
        Fatal::SessionUnwritable { path: self.dir.join(&self.name), source }
    }
}

fn check_name(session: &str) -> Result<(), Fatal> {
    let fits = (1..=64).contains(&session.len())
        && session.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fits { Ok(()) } else { Err(Fatal::SessionName { name: session.chars().take(80).collect() }) }
}

/// Commands in the box can write this directory too. A FIFO under the transcript's name must be an error, not a
/// wait for ever.
fn open_regular(path: &Path, flags: OFlags) -> io::Result<File> {
    let fd: OwnedFd = fs::open(path, flags | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC, MODE)?;
    if FileType::from_raw_mode(fs::fstat(&fd)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok(File::from(fd))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn read_lines(bytes: &[u8]) -> Found {
    let mut found = Found::default();
    let lines: Vec<_> = bytes.split_inclusive(|b| *b == b'\n').collect();
    for (index, line) in lines.iter().enumerate() {
        let whole = line.ends_with(b"\n");
        let problem = match Entry::parse(line) {
            Ok(entry) if entry.entry > found.last => {
                found.last = entry.entry;
                found.entries.push(entry);
                if !whole {
                    found.cut = Some(Cut::Torn);
                }
                continue;
            }
            Ok(entry) => format!("entry {} follows entry {}", entry.entry, found.last),
            Err(error) => error.to_string(),
        };
        if whole {
            let lost = lines.get(index..).unwrap_or_default();
            found.last = highest_number(found.last, lost);
            found.cut = Some(Cut::Damaged(format!("line {}: {problem}", index + 1)));
        } else {
            found.cut = Some(Cut::Torn);
        }
        break;
    }
    found
}

/// Lines that are lost had numbers, and letters may be known to the host under them: a number is not given twice.
fn highest_number(last: u64, lost: &[&[u8]]) -> u64 {
    let readable = lost.iter().filter_map(|line| Entry::parse(line).ok()).map(|entry| entry.entry).max();
    last.saturating_add(lost.len() as u64).max(readable.unwrap_or(0))
}

/// What the fuzz target does: whatever lies in the file, what is kept of it is a transcript, and is read again as it
/// is.
#[cfg(any(test, fuzzing))]
pub fn fuzz(data: &[u8]) {
    let found = read_lines(data);
    assert!(found.entries.is_sorted_by(|a, b| a.entry < b.entry), "numbers do not grow");
    assert!(
        found.entries.last().is_none_or(|entry| entry.entry <= found.last),
        "a number would be given again"
    );
    let lines = |entries: &[Entry]| -> Vec<u8> {
        entries.iter().flat_map(|entry| entry.to_line().unwrap_or_default()).collect()
    };
    let kept = lines(&found.entries);
    let again = read_lines(&kept);
    assert!(again.cut.is_none(), "{:?}", again.cut);
    assert_eq!(lines(&again.entries), kept);
}
