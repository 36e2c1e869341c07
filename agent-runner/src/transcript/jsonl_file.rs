//! The transcript's file: one JSON line per entry, synced before anything acts on the entry.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{self, FileType, Mode, OFlags};

use super::entry::Entry;
use crate::fatal::Fatal;

const MODE: Mode = Mode::from_raw_mode(0o660);

#[derive(Debug)]
pub struct TranscriptFile {
    dir: PathBuf,
    name: String,
    file: File,
}

/// The readable part of a file.
#[derive(Debug, Default)]
struct Found {
    entries: Vec<Entry>,
    /// The highest entry number that the file shows, or must assume, was ever given.
    last: u64,
    /// Why the entries are not the whole file.
    cut: Option<Cut>,
}

#[derive(Debug)]
enum Cut {
    /// The last append did not finish, so nothing acted on it.
    Torn,
    /// A complete line is invalid.
    Damaged(String),
}

impl TranscriptFile {
    /// Opens `<dir>/<session>.jsonl`; returns its entries and the highest number that was ever given. A torn last
    /// line is dropped. A damaged line ends the transcript there, and a copy of the file stays as
    /// `<session>.damaged-<n>.jsonl`.
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
                tracing::warn!(path = %path.display(), "dropped an incomplete last line");
                this.replace(&entries)?;
            }
            Some(Cut::Damaged(reason)) => {
                let aside = this.keep_aside(session, &bytes)?;
                let (path, aside) = (path.display(), aside.display());
                tracing::error!(%path, %aside, reason, kept = entries.len(), "the transcript is damaged; going on with its readable beginning");
                this.replace(&entries)?;
            }
        }
        Ok((this, entries, last))
    }

    /// Appends one entry and syncs it.
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

    /// Replaces the file: writes and syncs a new one, renames it, syncs the directory. A crash leaves the old file or
    /// the new one.
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

    /// Writes `archive/<name>` and syncs it. An existing file is replaced.
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

/// Commands in the box can write this directory too. A FIFO under the transcript's name must be an error and must not
/// block.
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

/// Lost lines had numbers, and the host may know letters with ids made of them, so these numbers are not reused.
fn highest_number(last: u64, lost: &[&[u8]]) -> u64 {
    let readable = lost.iter().filter_map(|line| Entry::parse(line).ok()).map(|entry| entry.entry).max();
    last.saturating_add(lost.len() as u64).max(readable.unwrap_or(0))
}

/// The fuzz target: the readable part of any bytes is a valid transcript that reads back the same.
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
