//! The transcript's file: one JSON line per entry, synced before anything acts on the entry.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ipc_schema::RefusalCode;
use ipc_schema::letters::from_agent::Lost;
use ipc_schema::untrusted_fs::{FileRequirements, UntrustedDir};
use rustix::fs::{self, FileType, Mode, OFlags};

use super::entry::Entry;
use crate::fatal::Fatal;

const MODE: Mode = Mode::from_raw_mode(0o660);
/// A larger file is no transcript: compaction keeps it near the size of the model's window.
const LARGEST: u64 = 64 << 20;
const ARCHIVE: &str = "archive";

#[derive(Debug)]
pub struct TranscriptFile {
    dir: PathBuf,
    handle: UntrustedDir,
    name: String,
    file: File,
}

/// What [`TranscriptFile::open`] found.
#[derive(Debug)]
pub struct Opened {
    pub file: TranscriptFile,
    pub entries: Vec<Entry>,
    /// The highest number that was ever given.
    pub last: u64,
    pub lost: Option<Lost>,
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
    /// Opens `<dir>/<session>.jsonl`. A torn last line is dropped. A damaged line ends the transcript there, and a copy
    /// of the file stays as `<session>.damaged-<n>.jsonl`.
    ///
    /// Commands of the agent can write in the directory too. What cannot be a transcript (a FIFO, a link, a directory,
    /// a file of more than [`LARGEST`] bytes) moves aside, and the transcript begins anew: a group must always start.
    ///
    /// # Errors
    /// [`Fatal::SessionName`], [`Fatal::SessionUnreadable`] or [`Fatal::SessionUnwritable`].
    pub fn open(dir: PathBuf, session: &str) -> Result<Opened, Fatal> {
        check_name(session)?;
        let name = format!("{session}.jsonl");
        let path = dir.join(&name);
        let unreadable = |source| Fatal::SessionUnreadable { path: path.clone(), source };
        let handle = UntrustedDir::open(&dir).map_err(unreadable)?;
        let found = open_transcript(&handle, &path, session, &name).and_then(|(file, lost)| {
            let mut bytes = Vec::new();
            (&file).take(LARGEST).read_to_end(&mut bytes)?;
            let links = file.metadata()?.nlink();
            Ok((file, lost, bytes, links))
        });
        let (file, mut lost, bytes, links) = found.map_err(unreadable)?;
        let Found { entries, last, cut } = read_lines(&bytes);
        let mut this = Self { dir, handle, name, file };
        match cut {
            // The file has another name, under which a command can write it.
            None if links > 1 => this.replace(&entries)?,
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
                lost = Some(Lost::End);
            }
        }
        Ok(Opened { file: this, entries, last, lost })
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
            clear(&self.handle, format!(".{}.new", self.name).as_ref())?;
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
        let written = (|| {
            let dir = match self.handle.made_folder(ARCHIVE.as_ref()) {
                Ok(dir) => dir,
                Err(_) => {
                    clear(&self.handle, ARCHIVE.as_ref())?;
                    self.handle.made_folder(ARCHIVE.as_ref())?
                }
            };
            clear(&dir, name.as_ref())?;
            let path = self.dir.join(ARCHIVE);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            let mut file = open_regular(&path.join(name), flags)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            sync_dir(&path)
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

/// Commands in the box can write this directory too. A FIFO must be an error and must not block.
fn open_regular(path: &Path, flags: OFlags) -> io::Result<File> {
    let fd: OwnedFd = fs::open(path, flags | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC, MODE)?;
    if FileType::from_raw_mode(fs::fstat(&fd)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok(File::from(fd))
}

/// Opens the transcript, or makes a new one. What lies in its place and cannot be one moves aside.
fn open_transcript(
    handle: &UntrustedDir,
    path: &Path,
    session: &str,
    name: &str,
) -> io::Result<(File, Option<Lost>)> {
    let wanted = FileRequirements { owner: None, single_link: false, cap: LARGEST };
    let lost = match handle.appendable(name.as_ref(), wanted) {
        Ok(file) => return Ok((file.into_file(), None)),
        Err(refusal) if refusal.code == RefusalCode::Gone => None,
        // The disk or the system failed. The transcript may be whole.
        Err(refusal) if refusal.code == RefusalCode::Io => {
            return Err(io::Error::other(refusal.to_string()));
        }
        Err(refusal) => {
            let aside = format!("{session}.aside-{}.jsonl", now());
            handle.rename(name.as_ref(), aside.as_ref())?;
            tracing::error!(aside, "the transcript begins anew, because {refusal}");
            Some(Lost::All)
        }
    };
    Ok((open_regular(path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::APPEND)?, lost))
}

/// Makes room for a new file or folder. What cannot be removed moves aside.
fn clear(handle: &UntrustedDir, name: &OsStr) -> io::Result<()> {
    handle.unlink(name).or_else(|_| {
        let aside = format!("{}.aside-{}", name.to_string_lossy(), now());
        handle.rename(name, aside.as_ref())
    })
}

/// For names that were not there before.
fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
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
