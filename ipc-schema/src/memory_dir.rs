//! Reads and changes the files of a memory. The runner's tools do it in the box, `lazaret memory` on the host.
//!
//! An agent and its commands write these files, so everything goes through [`crate::untrusted_fs`]: a link, a FIFO or a
//! huge file is a [`Problem`] of that file and nothing else. Reading is bounded by the limits of
//! [`crate::memory_files`].

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use crate::memory_files::{self, DAILY, DIR, ENTRIES_MAX, Entry, FILE_MAX_BYTES, FILES_MAX, PEOPLE, TOPICS};
use crate::refusal::{Refusal, RefusalCode};
use crate::untrusted_fs::{Kind, Stamp, UntrustedDir};

/// The most bytes that are read over all files.
const TOTAL_MAX_BYTES: u64 = 32 << 20;
/// The most names that are read of one directory.
const NAMES_MAX: usize = 10_000;
/// How often a change starts again because somebody else changed the file meanwhile.
const TRIES: u32 = 5;

/// An open memory directory.
#[derive(Debug)]
pub struct MemoryDir(UntrustedDir);

/// What a memory holds.
#[derive(Debug, Default)]
pub struct Contents {
    /// The files that can be read, `MEMORY.md` first, then in the order of their names; days newest first.
    pub files: Vec<MemoryFile>,
    /// The files that cannot be read.
    pub problems: Vec<Problem>,
    /// Whether there are more files than the limits take.
    pub truncated: bool,
}

/// A file of the memory.
#[derive(Debug)]
pub struct MemoryFile {
    /// The path below the memory's directory.
    pub name: String,
    /// The text; bytes that are no UTF-8 are replaced.
    pub text: String,
    /// The state in which it was read.
    pub stamp: Stamp,
}

/// Why a file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The path below the memory's directory.
    pub name: String,
    /// What is wrong, to be read after the name.
    pub reason: String,
}

/// What becomes of a file.
#[derive(Debug)]
pub enum Edit {
    /// It stays.
    Keep,
    /// It gets this text.
    Write(String),
    /// It is removed.
    Remove,
}

/// Why a file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The file cannot be read.
    #[error("{}", .0.reason)]
    Refused(Refusal),
    /// Another process keeps the memory locked.
    #[error("another process has kept the memory locked for five seconds; try again")]
    Locked,
    /// The file changed each time.
    #[error("somebody else changes this file all the time; try again")]
    Changing,
    /// The text would be larger than a memory file may be.
    #[error("the file would have more than {FILE_MAX_BYTES} bytes; use another topic, or forget entries")]
    TooBig,
    /// The system failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl MemoryDir {
    /// Opens the memory below `base`, such as `/workspace`; `None` if there is none.
    ///
    /// # Errors
    /// What `open(2)` says, for example about a link in its place.
    pub fn open(base: &Path) -> io::Result<Option<Self>> {
        match UntrustedDir::open(base).and_then(|base| base.folder(DIR.as_ref())) {
            Ok(dir) => Ok(Some(Self(dir))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens the memory below `base`, and makes its directory if there is none.
    ///
    /// # Errors
    /// What `open(2)` and `mkdir(2)` say.
    pub fn make(base: &Path) -> io::Result<Self> {
        UntrustedDir::open(base)?.made_folder(OsStr::new(DIR)).map(Self)
    }

    /// Reads all files, as far as the limits go.
    pub fn read(&self) -> Contents {
        let mut contents = Contents::default();
        let mut bytes = 0;
        gather(&self.0, "", 0, &mut bytes, &mut contents);
        contents
    }

    /// Reads one file.
    ///
    /// # Errors
    /// [`RefusalCode::Gone`] if there is none; as [`UntrustedDir::read`] otherwise.
    pub fn file(&self, name: &str) -> Result<MemoryFile, Refusal> {
        let path = Path::new(name);
        if !memory_files::is_memory_file(path) {
            let reason = format!(
                "{} is not a memory file: a path such as topics/NAME.md",
                crate::refusal::quote(name, 80)
            );
            return Err(Refusal::new(RefusalCode::Gone, reason));
        }
        let (bytes, stamp) = self.0.read_stamped(path, FILE_MAX_BYTES)?;
        Ok(MemoryFile { name: name.to_owned(), text: String::from_utf8_lossy(&bytes).into_owned(), stamp })
    }

    /// Changes a file under the memory's lock. `edit` gets the text, or `None` if there is no file; it is asked again
    /// if somebody else changed the file before the new text was in place.
    ///
    /// # Errors
    /// Why nothing changed. What `edit` itself returns is the inner result.
    pub fn change<T>(
        &self,
        name: &str,
        mut edit: impl FnMut(Option<&str>) -> (Edit, T),
    ) -> Result<T, ChangeError> {
        let Some(_lock) = self.0.lock()? else { return Err(ChangeError::Locked) };
        let path = Path::new(name);
        let file_name = path.file_name().unwrap_or_default();
        for _ in 0..TRIES {
            let there = match self.file(name) {
                Ok(file) => Some(file),
                Err(refusal) if refusal.code == RefusalCode::Gone && memory_files::is_memory_file(path) => {
                    None
                }
                Err(refusal) => return Err(ChangeError::Refused(refusal)),
            };
            let (edit, told) = edit(there.as_ref().map(|file| file.text.as_str()));
            let seen = there.as_ref().map(|file| &file.stamp);
            let done = match edit {
                Edit::Keep => true,
                Edit::Write(text) if text.len() as u64 > FILE_MAX_BYTES => return Err(ChangeError::TooBig),
                Edit::Write(text) => self.folder_of(path)?.replace(file_name, text.as_bytes(), seen)?,
                Edit::Remove => match seen {
                    Some(seen) => self.folder_of(path)?.remove_seen(file_name, seen)?,
                    None => true,
                },
            };
            if done {
                return Ok(told);
            }
        }
        Err(ChangeError::Changing)
    }

    fn folder_of(&self, path: &Path) -> io::Result<UntrustedDir> {
        let above = path.parent().into_iter().flat_map(Path::components);
        let mut dir = self.0.folder(Path::new("."))?;
        for part in above {
            dir = dir.made_folder(part.as_os_str())?;
        }
        Ok(dir)
    }
}

impl Contents {
    /// All entries, in the order of the files.
    pub fn entries(&self) -> Vec<Entry> {
        let all = self.files.iter().flat_map(|file| memory_files::entries(&file.name, &file.text));
        all.take(ENTRIES_MAX).collect()
    }
}

fn gather(dir: &UntrustedDir, above: &str, depth: u32, bytes: &mut u64, out: &mut Contents) {
    let listing = match dir.names(NAMES_MAX) {
        Ok(listing) => listing,
        Err(error) => {
            return out
                .problems
                .push(Problem { name: above.into(), reason: format!("cannot be listed: {error}") });
        }
    };
    out.truncated |= listing.truncated;
    let mut names = listing.names;
    names.sort();
    if above == DAILY {
        names.reverse();
    }
    let mut folders = Vec::new();
    for name in names.iter().filter(|name| !name.as_encoded_bytes().starts_with(b".")) {
        let Ok(seen) = dir.look(name) else { continue };
        let path = if above.is_empty() {
            name.to_string_lossy().into_owned()
        } else {
            format!("{above}/{}", name.to_string_lossy())
        };
        match seen.kind {
            Kind::Folder => folders.push((name, path)),
            _ if memory_files::is_memory_file(Path::new(&path)) => {
                if out.files.len() + out.problems.len() >= FILES_MAX || *bytes >= TOTAL_MAX_BYTES {
                    out.truncated = true;
                    return;
                }
                match dir.read_stamped(name.as_ref(), FILE_MAX_BYTES) {
                    Ok((read, stamp)) => {
                        *bytes += read.len() as u64;
                        let text = String::from_utf8_lossy(&read).into_owned();
                        out.files.push(MemoryFile { name: path, text, stamp });
                    }
                    Err(refusal) if refusal.code == RefusalCode::Gone => {}
                    Err(refusal) => {
                        let named = crate::refusal::quote(&name.to_string_lossy(), 80);
                        let reason = refusal.reason.strip_prefix(&named).unwrap_or(&refusal.reason);
                        out.problems.push(Problem { name: path, reason: reason.trim_start().to_owned() });
                    }
                }
            }
            Kind::Link | Kind::Other if depth == 0 && [TOPICS, PEOPLE, DAILY].contains(&path.as_str()) => {
                out.problems.push(Problem { name: path, reason: "is no directory".into() });
            }
            _ => {}
        }
    }
    // Backwards, so that people and topics come before the days.
    for (name, path) in folders.into_iter().rev().filter(|_| depth < 2) {
        match dir.folder(name.as_ref()) {
            Ok(inner) => gather(&inner, &path, depth + 1, bytes, out),
            Err(error) => {
                out.problems.push(Problem { name: path, reason: format!("cannot be opened: {error}") })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_files::{Origin, Place, append, render};
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn memory() -> (tempfile::TempDir, MemoryDir) {
        let base = tempfile::tempdir().unwrap();
        let memory = MemoryDir::make(base.path()).unwrap();
        (base, memory)
    }

    fn add(memory: &MemoryDir, place: &Place, text: &str) -> Result<(), ChangeError> {
        let origin = Origin { date: "2026-11-30".into(), ..Origin::default() };
        memory.change(&place.file().unwrap(), |there| {
            (Edit::Write(append(there.unwrap_or_default(), &place.title(), &render(text, &origin))), ())
        })
    }

    #[test]
    fn there_is_no_memory_before_the_first_entry() {
        let base = tempfile::tempdir().unwrap();
        assert!(MemoryDir::open(base.path()).unwrap().is_none());
        let memory = MemoryDir::make(base.path()).unwrap();
        add(&memory, &Place::Topic("Tea".into()), "green").unwrap();
        let contents = MemoryDir::open(base.path()).unwrap().unwrap().read();
        assert_eq!(contents.entries()[0].text, "green");
        assert_eq!(contents.files[0].name, "topics/tea.md");
    }

    #[test]
    fn the_newest_days_come_first_and_what_is_hidden_stays_out() {
        let (base, memory) = memory();
        for day in ["2026-11-01", "2026-11-30"] {
            add(&memory, &Place::Daily(day.into()), "x").unwrap();
        }
        for place in [Place::Topic("t".into()), Place::Person("p".into()), Place::Pinned] {
            add(&memory, &place, "x").unwrap();
        }
        fs::create_dir_all(base.path().join("memory/.git/x")).unwrap();
        fs::write(base.path().join("memory/.git/x/y.md"), "no").unwrap();
        fs::write(base.path().join("memory/notes.txt"), "no").unwrap();
        let names: Vec<_> = memory.read().files.into_iter().map(|file| file.name).collect();
        assert_eq!(
            names,
            ["MEMORY.md", "topics/t.md", "people/p.md", "daily/2026-11-30.md", "daily/2026-11-01.md"]
        );
    }

    #[test]
    fn a_hostile_file_is_a_problem_of_its_own() {
        let (base, memory) = memory();
        let dir = base.path().join("memory");
        add(&memory, &Place::Pinned, "good").unwrap();
        fs::create_dir(dir.join("topics")).unwrap();
        symlink("/etc/passwd", dir.join("topics/link.md")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            dir.join("topics/fifo.md"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        fs::File::create(dir.join("topics/huge.md")).unwrap().set_len(50 << 20).unwrap();
        fs::create_dir(dir.join("topics/folder.md")).unwrap();
        fs::write(dir.join("topics/bytes.md"), b"- caf\xe9\n").unwrap();
        symlink("topics", dir.join("people")).unwrap();
        let contents = memory.read();
        let names: Vec<_> = contents.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["MEMORY.md", "topics/bytes.md"]);
        assert_eq!(contents.entries()[1].text, "caf\u{fffd}");
        let problems: String =
            contents.problems.iter().map(|p| format!("{} {}\n", p.name, p.reason)).collect();
        for told in [
            "topics/link.md is a symbolic link",
            "fifo.md is a FIFO",
            "huge.md has 52428800 bytes",
            "people is no",
        ] {
            assert!(problems.contains(told), "{told}: {problems}");
        }
        for name in ["link", "fifo", "huge", "folder"] {
            let refused = add(&memory, &Place::Topic(name.into()), "x").unwrap_err();
            assert!(matches!(refused, ChangeError::Refused(_)), "{name}: {refused}");
        }
        assert!(add(&memory, &Place::Person("ann".into()), "x").is_err());
        assert!(memory.file("../x.md").is_err());
    }

    #[test]
    fn what_a_person_writes_meanwhile_is_kept() {
        let (base, memory) = memory();
        let path = base.path().join("memory/MEMORY.md");
        let mut asked = 0;
        memory
            .change("MEMORY.md", |there| {
                asked += 1;
                if asked == 1 {
                    fs::write(&path, "by hand\n").unwrap();
                }
                (Edit::Write(format!("{}ours\n", there.unwrap_or_default())), ())
            })
            .unwrap();
        assert_eq!((asked, fs::read_to_string(&path).unwrap().as_str()), (2, "by hand\nours\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        memory
            .change("MEMORY.md", |there| {
                asked += 1;
                if asked == 3 {
                    fs::write(&path, "edited by hand\n").unwrap();
                }
                (Edit::Write(format!("{}more\n", there.unwrap_or_default())), ())
            })
            .unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "edited by hand\nmore\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        let always = memory.change("MEMORY.md", |_| {
            asked += 1;
            fs::write(&path, format!("{asked}")).unwrap();
            (Edit::Write("x".into()), ())
        });
        assert!(matches!(always, Err(ChangeError::Changing)));
        assert!(!base.path().join("memory/.MEMORY.md.part").exists());
    }

    #[test]
    fn two_writers_lose_nothing() {
        let (base, _memory) = memory();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let base = base.path();
                scope.spawn(move || {
                    let memory = MemoryDir::make(base).unwrap();
                    for n in 0..10 {
                        add(&memory, &Place::Topic("shared".into()), &format!("{writer}-{n}")).unwrap();
                    }
                });
            }
        });
        let memory = MemoryDir::open(base.path()).unwrap().unwrap();
        assert_eq!(memory.read().entries().len(), 40);
    }

    #[test]
    fn a_text_without_end_is_refused_and_a_removed_file_is_gone() {
        let (base, memory) = memory();
        add(&memory, &Place::Pinned, "x").unwrap();
        let huge = memory.change("MEMORY.md", |_| (Edit::Write("x".repeat(2 << 20)), ()));
        assert!(matches!(huge, Err(ChangeError::TooBig)));
        memory.change("MEMORY.md", |_| (Edit::Remove, ())).unwrap();
        assert!(!base.path().join("memory/MEMORY.md").exists());
    }
}
