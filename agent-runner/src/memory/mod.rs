//! The memory as the box sees it: the group's own below `/workspace`, and the one below `/global` that all groups
//! read. [`crate::tools`] changes it and searches in it, [`crate::prompt`] shows a part of it to the model.
//!
//! The files are the memory. They are read anew for each use, because people and commands change them at any time. The
//! [`index`] only ranks their entries; it lies in `$HOME`, so that git does not see it beside them.

pub mod index;
pub mod remembered;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ipc_schema::memory_dir::{ChangeError, Contents, Edit, MemoryDir, MemoryFile};
use ipc_schema::memory_files::{self, Entry, Origin, PINNED, PINNED_MAX_BYTES, Place};
use ipc_schema::memory_search;
use ipc_schema::text_sanitize::beginning;

use crate::box_paths::BoxPaths;
use index::{FileStamp, Index};

/// From this many entries on they are ranked with the index. Fewer are ranked as fast without it.
const INDEX_FROM: usize = 200;

/// Whose memory a file belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The group's own, below `/workspace`.
    Own,
    /// The one of all groups, below `/global`.
    Shared,
}

impl Scope {
    const ALL: [Self; 2] = [Self::Own, Self::Shared];

    /// What stands before a file's name in texts for the model, so that the whole is a path for `read_file`.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Own => "memory/",
            Self::Shared => "/global/memory/",
        }
    }

    fn base(self, paths: &BoxPaths) -> PathBuf {
        match self {
            Self::Own => paths.workspace(),
            Self::Shared => paths.global(),
        }
    }
}

/// An entry and whose memory it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub scope: Scope,
    pub entry: Entry,
}

impl Found {
    /// The file as the model knows it.
    pub fn file(&self) -> String {
        format!("{}{}", self.scope.prefix(), self.entry.file)
    }

    /// `memory/people/ann.md:3`
    pub fn place(&self) -> String {
        format!("{}:{}", self.file(), self.entry.line)
    }
}

impl Found {
    /// The headings above the entry, unless they only repeat the file's name.
    pub fn heading(&self) -> Option<&str> {
        let heading = self.entry.heading.as_deref()?;
        let stem = Path::new(&self.entry.file).file_stem()?.to_string_lossy();
        let same = Place::Topic(heading.to_owned()).file();
        let repeats =
            same.as_deref().and_then(|file| file.split('/').next_back()?.strip_suffix(".md")) == Some(&*stem);
        (!repeats && self.entry.file != PINNED).then_some(heading)
    }

    /// The text after its headings, at most `most` characters of it.
    pub fn text(&self, most: usize) -> String {
        let text = beginning(&self.entry.text, most);
        self.heading().map_or_else(|| text.to_string(), |heading| format!("{heading}: {text}"))
    }
}

/// Reads a file's name as [`Found::place`] writes it: the scope, the name below the memory, and the line.
pub fn read_place(place: &str) -> (Scope, &str, Option<usize>) {
    let place = place.trim();
    let (file, line) = match place.rsplit_once(':') {
        Some((file, line)) if line.parse::<usize>().is_ok() => (file, line.parse().ok()),
        _ => (place, None),
    };
    let shared = file.strip_prefix(Scope::Shared.prefix());
    let own = file.strip_prefix("/workspace/").unwrap_or(file);
    match shared {
        Some(name) => (Scope::Shared, name, line),
        None => (Scope::Own, own.strip_prefix(Scope::Own.prefix()).unwrap_or(own), line),
    }
}

/// Everything that can be read now.
#[derive(Debug, Default)]
pub struct Loaded {
    pub entries: Vec<Found>,
    files: Vec<FileStamp>,
    /// Files that cannot be read, and why.
    pub problems: Vec<String>,
}

/// Reads both memories. Without a memory this is two failed system calls.
pub fn load(paths: &BoxPaths) -> Loaded {
    let mut loaded = Loaded::default();
    for scope in Scope::ALL {
        match MemoryDir::open(&scope.base(paths)) {
            Ok(None) => {}
            Ok(Some(dir)) => loaded.add(scope, &dir.read()),
            Err(error) => loaded.problems.push(format!("{}: {error}", scope.prefix().trim_end_matches('/'))),
        }
    }
    loaded
}

impl Loaded {
    fn add(&mut self, scope: Scope, contents: &Contents) {
        let stamp = |file: &MemoryFile| {
            (format!("{}{}", scope.prefix(), file.name), file.stamp.modified_ns(), file.stamp.len())
        };
        self.files.extend(contents.files.iter().map(stamp));
        self.entries.extend(contents.entries().into_iter().map(|entry| Found { scope, entry }));
        let told = contents
            .problems
            .iter()
            .map(|problem| format!("{}{} {}", scope.prefix(), problem.name, problem.reason));
        self.problems.extend(told);
        if contents.truncated {
            let prefix = scope.prefix();
            self.problems
                .push(format!("{prefix} holds more than can be read at once; older files are left out"));
        }
    }

    /// The entries that fit the query best, best first.
    pub fn search(&self, paths: &BoxPaths, query: &str) -> Vec<&Found> {
        if self.entries.len() >= INDEX_FROM {
            match self.search_index(&paths.memory_index(), query) {
                Ok(found) => return found,
                Err(error) => tracing::warn!(%error, "no index can be made; ranking the memory without one"),
            }
        }
        let texts: Vec<String> = self.entries.iter().map(|found| found.entry.searched()).collect();
        memory_search::rank(query, &texts).into_iter().filter_map(|at| self.entries.get(at)).collect()
    }

    fn search_index(&self, file: &Path, query: &str) -> rusqlite::Result<Vec<&Found>> {
        let mut by_file: HashMap<String, Vec<&Found>> = HashMap::new();
        for found in &self.entries {
            by_file.entry(found.file()).or_default().push(found);
        }
        // Without the directory the index is in memory.
        let _ = file.parent().map(std::fs::create_dir_all);
        let mut index = Index::open(file)?;
        index.refresh(&self.files, |name| {
            let entries = by_file.get(name).into_iter().flatten();
            entries.map(|found| (found.entry.line, found.entry.searched())).collect()
        })?;
        let hits = index.search(query, self.entries.len()).into_iter();
        let entry =
            |file: &str, line| by_file.get(file)?.iter().find(|found| found.entry.line == line).copied();
        Ok(hits.filter_map(|hit| entry(&hit.file, hit.line)).collect())
    }

    /// Entries without files, for tests.
    #[cfg(test)]
    pub fn of(entries: Vec<Found>) -> Self {
        let names: std::collections::BTreeSet<String> = entries.iter().map(Found::file).collect();
        let files = names.into_iter().map(|name| (name, 1, 1)).collect();
        Self { entries, files, ..Self::default() }
    }
}

/// What became of a text that was to be written.
#[derive(Debug, PartialEq, Eq)]
pub enum Saved {
    Written(String),
    /// The file holds it already.
    There(String),
    /// `MEMORY.md` has no room for it.
    Full {
        bytes: usize,
    },
}

/// Appends an entry, unless `is_same` says that an entry of the file is the same.
///
/// # Errors
/// Why nothing was written, as [`MemoryDir::change`].
pub fn append(
    paths: &BoxPaths,
    scope: Scope,
    place: &Place,
    text: &str,
    origin: &Origin,
    is_same: impl Fn(&Entry) -> bool,
) -> Result<Saved, ChangeError> {
    let name = place.file().unwrap_or_else(|| PINNED.into());
    let at = |line: usize| format!("{}{name}:{line}", scope.prefix());
    MemoryDir::make(&scope.base(paths))?.change(&name, |there| {
        let there = there.unwrap_or_default();
        if let Some(same) = memory_files::entries(&name, there).iter().find(|entry| is_same(entry)) {
            return (Edit::Keep, Saved::There(at(same.line)));
        }
        let new = memory_files::append(there, &place.title(), &memory_files::render(text, origin));
        if name == PINNED && new.len() > PINNED_MAX_BYTES {
            return (Edit::Keep, Saved::Full { bytes: there.len() });
        }
        let line = memory_files::entries(&name, &new).last().map_or(1, |entry| entry.line);
        (Edit::Write(new), Saved::Written(at(line)))
    })
}

/// Removes an entry. False when it is not there any more.
///
/// # Errors
/// Why nothing was removed, as [`MemoryDir::change`].
pub fn forget(paths: &BoxPaths, found: &Found) -> Result<bool, ChangeError> {
    let Some(dir) = MemoryDir::open(&found.scope.base(paths))? else { return Ok(false) };
    dir.change(&found.entry.file, |there| {
        let there = there.unwrap_or_default();
        let mut same: Vec<Entry> = memory_files::entries(&found.entry.file, there);
        same.retain(|entry| entry.text == found.entry.text);
        // Somebody else may have moved it meanwhile.
        match same.iter().min_by_key(|entry| entry.line.abs_diff(found.entry.line)) {
            None => (Edit::Keep, false),
            Some(entry) => match memory_files::remove(there, entry.line, entry.lines) {
                Some(rest) => (Edit::Write(rest), true),
                None => (Edit::Remove, true),
            },
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        for (written, meant) in [
            ("memory/people/ann.md:3", (Scope::Own, "people/ann.md", Some(3))),
            ("/workspace/memory/MEMORY.md", (Scope::Own, "MEMORY.md", None)),
            ("topics/tea.md:x", (Scope::Own, "topics/tea.md:x", None)),
            ("/global/memory/topics/tea.md:12", (Scope::Shared, "topics/tea.md", Some(12))),
        ] {
            assert_eq!(read_place(written), meant);
        }
    }

    #[test]
    fn many_entries_are_ranked_by_an_index_outside_of_the_memory() {
        let dir = tempfile::tempdir().unwrap();
        let paths = BoxPaths::below(dir.path());
        let topics = paths.resolve("memory/topics");
        std::fs::create_dir_all(&topics).unwrap();
        let many: String = (0..INDEX_FROM).map(|n| format!("- fact {n} about cars\n")).collect();
        std::fs::write(topics.join("cars.md"), many).unwrap();
        std::fs::write(topics.join("tea.md"), "# Tea\n\n- Ann drinks it green").unwrap();
        let found = |query: &str| {
            let loaded = load(&paths);
            loaded.search(&paths, query).iter().map(|found| found.place()).collect::<Vec<_>>()
        };
        assert_eq!(found("green drinks"), ["memory/topics/tea.md:3"]);
        assert!(paths.memory_index().is_file());
        std::fs::write(topics.join("tea.md"), "Ann drinks it black, since 2026").unwrap();
        assert_eq!(found("drinking"), ["memory/topics/tea.md:1"]);
        std::fs::write(paths.memory_index(), "torn").unwrap();
        assert_eq!(found("drinking"), ["memory/topics/tea.md:1"]);
        assert_eq!(found("fact").len(), INDEX_FROM);
        let names: Vec<_> = std::fs::read_dir(paths.resolve("memory")).unwrap().collect();
        assert_eq!(names.len(), 1, "people see their files only");
    }
}
