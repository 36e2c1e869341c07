//! The tools of the memory: `save_memory`, `search_memory`, `list_memories`, `forget_memory`, `daily_log`.
//! [`crate::memory`] does the work.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use ipc_schema::memory_dir::ChangeError;
use ipc_schema::memory_files::{DEFAULT_TOPIC, Origin, Place, TEXT_MAX_CHARS, same_text};
use serde::Deserialize;
use serde_json::json;

use super::{LocalCall, LocalTool, Output, Running, Toolbox, define, local, one_line};
use crate::box_paths::BoxPaths;
use crate::memory::{self, Found, Loaded, Saved, Scope};

/// What the tools know of the turn that calls them.
#[derive(Debug, Clone, Default)]
pub struct MemoryContext {
    /// Where the turn's newest message comes from.
    pub origin: Origin,
    /// The time of day, for the daily log.
    pub time: String,
    /// Whether this group may write the memory of all groups.
    pub writes_shared: bool,
}

/// The entries that a search returns if the model does not say how many, and at most.
const HITS: usize = 10;
const HITS_MAX: usize = 50;
/// The entries of a file that a list returns.
const LIST_MAX: usize = 200;
/// The files that a list names.
const FILES_SHOWN: usize = 300;
/// The entries that a refusal names.
const CANDIDATES_MAX: usize = 10;
/// The longest text of an entry in a search and in a list, in characters.
const SHOWN_MAX: usize = 1_000;
const LISTED_MAX: usize = 200;

pub(super) static SAVE: LocalTool = LocalTool {
    definition: define(
        "save_memory",
        "Saves one fact for later conversations: a preference, a decision, a name, a date, what worked. One fact in a call, in words that make sense alone. With `topic` or `person` it goes into that file; with `pinned` into MEMORY.md, which you see in every turn and which is small; with none of them into the topic \"notes\". A text that is there already is not saved twice.",
        || {
            json!({
                "text": { "type": "string" },
                "topic": { "type": "string", "description": "a short name, such as cooking" },
                "person": { "type": "string", "description": "the person's name" },
                "pinned": { "type": "boolean", "description": "put it into MEMORY.md" },
                "shared": { "type": "boolean", "description": "into the memory that all groups read; only the group main may" },
            })
        },
        &["text"],
    ),
    read: |input| local::<Save>("save_memory", input),
};

pub(super) static SEARCH: LocalTool = LocalTool {
    definition: define(
        "search_memory",
        "Finds saved entries by words, also inflected ones, best first, with the place of each.",
        || {
            json!({
                "query": { "type": "string" },
                "most": { "type": "integer", "description": "how many entries, at most 50; 10 if not given" },
            })
        },
        &["query"],
    ),
    read: |input| local::<Search>("search_memory", input),
};

pub(super) static LIST: LocalTool = LocalTool {
    definition: define(
        "list_memories",
        "Without `file`: names the memory's files. With it: lists that file's entries.",
        || json!({ "file": { "type": "string", "description": "such as memory/topics/cooking.md" } }),
        &[],
    ),
    read: |input| local::<List>("list_memories", input),
};

pub(super) static FORGET: LocalTool = LocalTool {
    definition: define(
        "forget_memory",
        "Removes one saved entry. `text` is the entry's text, or enough of it to fit no other entry. If it fits several, nothing is removed and you see them: then add `entry`.",
        || {
            json!({
                "text": { "type": "string" },
                "entry": { "type": "string", "description": "its file or place, as search_memory shows it: memory/people/ann.md:3" },
            })
        },
        &["text"],
    ),
    read: |input| local::<Forget>("forget_memory", input),
};

pub(super) static LOG: LocalTool = LocalTool {
    definition: define(
        "daily_log",
        "Adds a line to today's log: what happened, was done or was agreed today. You see the logs of today and yesterday in every turn.",
        || json!({ "text": { "type": "string" } }),
        &["text"],
    ),
    read: |input| local::<Log>("daily_log", input),
};

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Save {
    text: String,
    #[serde(default)]
    topic: Option<String>,
    #[serde(default)]
    person: Option<String>,
    #[serde(default)]
    pinned: bool,
    #[serde(default)]
    shared: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Search {
    query: String,
    #[serde(default)]
    most: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    file: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Forget {
    text: String,
    #[serde(default)]
    entry: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    text: String,
}

/// A tool of the memory: it works on the disk, with what the turn says of itself.
macro_rules! memory_call {
    ($args:ty, $detail:expr) => {
        impl LocalCall for $args {
            fn detail(&self) -> String {
                let detail: fn(&Self) -> &str = $detail;
                one_line(detail(self))
            }

            fn run(self: Box<Self>, toolbox: &Toolbox) -> Running<'_> {
                let context = toolbox.memory.clone();
                Box::pin(toolbox.blocking(move |paths, _| self.act(paths, &context).map(Output::ok)))
            }
        }
    };
}

memory_call!(Save, |save| &save.text);
memory_call!(Search, |search| &search.query);
memory_call!(List, |list| list.file.as_deref().unwrap_or_default());
memory_call!(Forget, |forget| &forget.text);
memory_call!(Log, |log| &log.text);

impl Save {
    fn act(&self, paths: &BoxPaths, context: &MemoryContext) -> Result<String, String> {
        let text = checked(&self.text)?;
        let scope = if self.shared { Scope::Shared } else { Scope::Own };
        may_write(scope, context)?;
        let place = match (&self.topic, &self.person) {
            _ if self.pinned => Place::Pinned,
            (Some(_), Some(_)) => return Err("not saved: give `topic` or `person`, not both".into()),
            (_, Some(person)) => Place::Person(person.clone()),
            (topic, None) => Place::Topic(topic.clone().unwrap_or_else(|| DEFAULT_TOPIC.into())),
        };
        if place.file().is_none() {
            return Err("not saved: the name needs a letter or a digit".into());
        }
        let saved =
            memory::append(paths, scope, &place, text, &context.origin, |entry| same_text(&entry.text, text));
        told(saved, "saved")
    }
}

impl Log {
    fn act(&self, paths: &BoxPaths, context: &MemoryContext) -> Result<String, String> {
        let text = checked(&self.text)?;
        let Origin { date, message, .. } = &context.origin;
        // The same event may come again on one day, but not from one message: that is a repeat after a crash.
        let logged = |entry: &str| entry.split_once(' ').is_some_and(|(_, logged)| same_text(logged, text));
        let line = format!("{} {text}", context.time);
        let place = Place::Daily(date.clone());
        let saved = memory::append(paths, Scope::Own, &place, &line, &context.origin, |entry| {
            entry.message == *message && logged(&entry.text)
        });
        told(saved, "logged")
    }
}

impl Search {
    fn act(&self, paths: &BoxPaths, _: &MemoryContext) -> Result<String, String> {
        let loaded = memory::load(paths);
        let most = self.most.map_or(HITS, |most| (most as usize).clamp(1, HITS_MAX));
        let hits = loaded.search(paths, &self.query);
        let shown: Vec<String> = hits.iter().take(most).map(|found| shown(found, SHOWN_MAX)).collect();
        let rest = match hits.len().saturating_sub(most) {
            0 => String::new(),
            more => format!("\n\n{more} more fit less well; use more telling words, or `most`"),
        };
        let text = match shown.as_slice() {
            [] if loaded.entries.is_empty() => "nothing is saved yet".into(),
            [] => format!("no entry matches; list_memories shows the {} files", files(&loaded).len()),
            shown => shown.join("\n"),
        };
        Ok(format!("{text}{rest}{}", problems(&loaded)))
    }
}

impl List {
    fn act(&self, paths: &BoxPaths, _: &MemoryContext) -> Result<String, String> {
        let loaded = memory::load(paths);
        let Some(file) = self.file.as_deref().filter(|file| !file.trim().is_empty()) else {
            let files = files(&loaded);
            let lines = files.iter().take(FILES_SHOWN).map(|(file, (entries, newest))| {
                let newest = newest.map_or(String::new(), |date| format!(", newest {date}"));
                format!("{file}: {entries} {}{newest}", if *entries == 1 { "entry" } else { "entries" })
            });
            let mut text = lines.collect::<Vec<_>>().join("\n");
            match files.len() {
                0 => text.push_str("nothing is saved yet"),
                all if all > FILES_SHOWN => {
                    text += &format!("\n… and {} files more; list_files shows them", all - FILES_SHOWN)
                }
                _ => {}
            }
            return Ok(text + &problems(&loaded));
        };
        let (scope, name, _) = memory::read_place(file);
        let entries: Vec<_> =
            loaded.entries.iter().filter(|found| found.scope == scope && found.entry.file == name).collect();
        if entries.is_empty() {
            return Err(format!(
                "{file} holds no entry; without `file` you see the files there are{}",
                problems(&loaded)
            ));
        }
        let lines: Vec<String> =
            entries.iter().take(LIST_MAX).map(|found| shown(found, LISTED_MAX)).collect();
        let more = entries.len().saturating_sub(LIST_MAX);
        let rest =
            if more > 0 { format!("\n… and {more} more; read_file shows the file") } else { String::new() };
        Ok(lines.join("\n") + &rest)
    }
}

impl Forget {
    fn act(&self, paths: &BoxPaths, context: &MemoryContext) -> Result<String, String> {
        let wanted = words(&self.text);
        if wanted.is_empty() {
            return Err("nothing forgotten: `text` is empty; give the entry's text".into());
        }
        let loaded = memory::load(paths);
        let place = self.entry.as_deref().map(memory::read_place);
        let mut fits: Vec<_> =
            loaded.entries.iter().filter(|found| words(&found.entry.text).contains(&wanted)).collect();
        if let Some((scope, name, line)) = place {
            fits.retain(|found| found.scope == scope && found.entry.file == name);
            narrow(&mut fits, |found| Some(found.entry.line) == line);
        }
        narrow(&mut fits, |found| words(&found.entry.text) == wanted);
        match fits.as_slice() {
            [] => {
                let there = if self.entry.is_some() { " there" } else { "" };
                let told = problems(&loaded);
                Err(format!(
                    "nothing forgotten: no entry{there} holds this text; search_memory finds entries{told}"
                ))
            }
            [found] => {
                may_write(found.scope, context)?;
                match memory::forget(paths, found) {
                    Ok(true) => Ok(format!("forgotten: {}", shown(found, SHOWN_MAX))),
                    Ok(false) => {
                        Err("nothing forgotten: the file has changed meanwhile; search again".into())
                    }
                    Err(error) => Err(problem("nothing forgotten", &error)),
                }
            }
            several => {
                let lines: Vec<_> =
                    several.iter().take(CANDIDATES_MAX).map(|found| shown(found, LISTED_MAX)).collect();
                Err(format!(
                    "nothing forgotten: {} entries fit. Give more of the text, or `entry`:\n{}",
                    several.len(),
                    lines.join("\n")
                ))
            }
        }
    }
}

/// Keeps those that also fit this, if any do.
fn narrow(found: &mut Vec<&Found>, fits: impl Fn(&Found) -> bool) {
    if found.iter().any(|found| fits(found)) {
        found.retain(|found| fits(found));
    }
}

fn words(text: &str) -> String {
    text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn checked(text: &str) -> Result<&str, String> {
    let text = text.trim();
    match text.chars().count() {
        0 => Err("not saved: `text` is empty".into()),
        n if n > TEXT_MAX_CHARS => Err(format!(
            "not saved: {n} characters, at most {TEXT_MAX_CHARS}; save single facts, and write long texts into a file"
        )),
        _ => Ok(text),
    }
}

fn may_write(scope: Scope, context: &MemoryContext) -> Result<(), String> {
    match scope {
        Scope::Shared if !context.writes_shared => {
            Err("not done: only the group main may change the memory of all groups; this group can read it"
                .into())
        }
        _ => Ok(()),
    }
}

fn told(saved: Result<Saved, ChangeError>, done: &str) -> Result<String, String> {
    match saved {
        Ok(Saved::Written(place)) => Ok(format!("{done}: {place}")),
        Ok(Saved::There(place)) => Ok(format!("it is there already: {place}")),
        Ok(Saved::Full { bytes }) => Err(format!(
            "not saved: MEMORY.md is full ({bytes} bytes). Save it with `topic` or `person`, or forget an entry of MEMORY.md that matters less"
        )),
        Err(error) => Err(problem("not saved", &error)),
    }
}

fn problem(not: &str, error: &ChangeError) -> String {
    let hint = match error {
        ChangeError::Io(e)
            if matches!(e.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied) =>
        {
            "; the place is read-only for you"
        }
        ChangeError::Io(e) if matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            "; remove what is not needed"
        }
        ChangeError::Refused(_) => "; move the file away, or use another topic",
        _ => "",
    };
    format!("{not}: {error}{hint}")
}

/// The files, with the number of their entries and the newest date.
fn files(loaded: &Loaded) -> BTreeMap<String, (usize, Option<&str>)> {
    let mut files: BTreeMap<String, (usize, Option<&str>)> = BTreeMap::new();
    for found in &loaded.entries {
        let (entries, newest) = files.entry(found.file()).or_default();
        *entries += 1;
        *newest = (*newest).max(found.entry.date.as_deref());
    }
    files
}

/// The place, the origin and the text of an entry.
fn shown(found: &Found, most: usize) -> String {
    let entry = &found.entry;
    let origin: Vec<&str> =
        [&entry.date, &entry.chat, &entry.message].into_iter().filter_map(|f| f.as_deref()).collect();
    let origin = if origin.is_empty() { String::new() } else { format!(" ({})", origin.join(", ")) };
    format!("{}{origin}: {}", found.place(), found.text(most))
}

fn problems(loaded: &Loaded) -> String {
    let lines = loaded.problems.iter().take(CANDIDATES_MAX);
    lines.map(|problem| format!("\ncannot be read: {problem}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    struct Group {
        _dir: tempfile::TempDir,
        paths: BoxPaths,
        context: MemoryContext,
    }

    fn group() -> Group {
        let dir = tempfile::tempdir().unwrap();
        let paths = BoxPaths::below(dir.path());
        fs::create_dir_all(paths.workspace()).unwrap();
        fs::create_dir_all(paths.global()).unwrap();
        let origin = Origin {
            date: "2026-11-30".into(),
            chat: Some("telegram:5".into()),
            message: Some("m-7".into()),
        };
        Group {
            _dir: dir,
            paths,
            context: MemoryContext { origin, time: "14:05".into(), writes_shared: false },
        }
    }

    impl Group {
        fn save(&self, text: &str, change: impl FnOnce(&mut Save)) -> Result<String, String> {
            let mut save = Save { text: text.into(), ..Save::default() };
            change(&mut save);
            save.act(&self.paths, &self.context)
        }

        fn log(&self, text: &str) -> Result<String, String> {
            Log { text: text.into() }.act(&self.paths, &self.context)
        }

        fn search(&self, query: &str) -> String {
            Search { query: query.into(), most: None }.act(&self.paths, &self.context).unwrap()
        }

        fn list(&self, file: Option<&str>) -> Result<String, String> {
            List { file: file.map(Into::into) }.act(&self.paths, &self.context)
        }

        fn forget(&self, text: &str, entry: Option<&str>) -> Result<String, String> {
            Forget { text: text.into(), entry: entry.map(Into::into) }.act(&self.paths, &self.context)
        }

        fn text(&self, file: &str) -> String {
            fs::read_to_string(self.paths.resolve(file)).unwrap()
        }
    }

    #[test]
    fn what_is_saved_is_found_listed_and_forgotten() {
        let ann = group();
        assert_eq!(ann.search("tea"), "nothing is saved yet");
        assert_eq!(ann.list(None).unwrap(), "nothing is saved yet");
        let person = |save: &mut Save| save.person = Some("Ann Müller".into());
        assert_eq!(
            ann.save("She drinks green tea.", person).unwrap(),
            "saved: memory/people/ann-müller.md:3"
        );
        ann.save("The bin goes out on Mondays.", |_| {}).unwrap();
        ann.save("Speak German.", |save| save.pinned = true).unwrap();
        assert_eq!(
            ann.search("teas drinking"),
            "memory/people/ann-müller.md:3 (2026-11-30, telegram:5, m-7): She drinks green tea."
        );
        assert_eq!(
            ann.list(None).unwrap(),
            "memory/MEMORY.md: 1 entry, newest 2026-11-30\nmemory/people/ann-müller.md: 1 entry, newest 2026-11-30\n\
             memory/topics/notes.md: 1 entry, newest 2026-11-30"
        );
        assert!(
            ann.list(Some("memory/topics/notes.md"))
                .unwrap()
                .contains(":3 (2026-11-30, telegram:5, m-7): The bin")
        );
        assert!(ann.list(Some("memory/topics/none.md")).unwrap_err().contains("holds no entry"));
        assert!(ann.search("zebra").starts_with("no entry matches"));
        assert!(ann.forget("the bin", None).unwrap().starts_with("forgotten: memory/topics/notes.md:3"));
        assert!(!ann.paths.resolve("memory/topics/notes.md").exists(), "an empty file goes");
        assert!(ann.forget("the bin", None).unwrap_err().contains("no entry holds this text"));
    }

    #[test]
    fn a_call_that_comes_twice_writes_once() {
        let ann = group();
        assert_eq!(ann.save("Tea at five.", |_| {}).unwrap(), "saved: memory/topics/notes.md:3");
        assert_eq!(
            ann.save(" Tea  at\nfive. ", |_| {}).unwrap(),
            "it is there already: memory/topics/notes.md:3"
        );
        ann.log("took the pill").unwrap();
        let later = MemoryContext { time: "14:06".into(), ..ann.context.clone() };
        let again = Log { text: "took the pill".into() };
        assert!(again.act(&ann.paths, &later).unwrap().starts_with("it is there already"));
        let next = Origin { message: Some("m-8".into()), ..later.origin.clone() };
        again.act(&ann.paths, &MemoryContext { origin: next, ..later }).unwrap();
        let log = ann.text("memory/daily/2026-11-30.md");
        assert_eq!(
            log,
            "# 2026-11-30\n\n- 14:05 took the pill *(2026-11-30, telegram:5, m-7)*\n- 14:06 took the pill *(2026-11-30, \
             telegram:5, m-8)*\n"
        );
    }

    #[test]
    fn an_entry_that_fits_several_is_named_and_stays() {
        let ann = group();
        for topic in ["tea", "cake"] {
            ann.save("At five.", |save| save.topic = Some(topic.into())).unwrap();
        }
        ann.save("At five. With milk.", |save| save.topic = Some("tea".into())).unwrap();
        let refused = ann.forget("at five", None).unwrap_err();
        assert!(refused.starts_with("nothing forgotten: 3 entries fit"), "{refused}");
        assert!(refused.contains("memory/topics/cake.md:3") && refused.contains("memory/topics/tea.md:4"));
        assert!(ann.forget("At five.", Some("memory/topics/tea.md")).unwrap().contains("tea.md:3"));
        assert!(ann.forget("at five", Some("memory/topics/cake.md:3")).unwrap().contains("cake.md:3"));
        assert_eq!(ann.search("five").lines().count(), 1);
        assert!(ann.forget("five", Some("memory/topics/none.md")).unwrap_err().contains("there holds"));
        assert!(ann.forget("  ", None).unwrap_err().contains("is empty"));
    }

    #[test]
    fn the_memory_of_all_groups_is_read_by_all_and_written_by_main() {
        let mut ann = group();
        let shared = |save: &mut Save| (save.shared, save.topic) = (true, Some("house".into()));
        assert!(ann.save("The wifi is slow.", shared).unwrap_err().contains("only the group main"));
        ann.context.writes_shared = true;
        assert_eq!(ann.save("The wifi is slow.", shared).unwrap(), "saved: /global/memory/topics/house.md:3");
        ann.context.writes_shared = false;
        assert!(ann.search("wifi").starts_with("/global/memory/topics/house.md:3"));
        assert!(ann.list(None).unwrap().contains("/global/memory/topics/house.md: 1 entry"));
        assert!(ann.forget("wifi", None).unwrap_err().contains("only the group main"));
    }

    #[test]
    fn what_cannot_be_saved_says_what_to_do() {
        let ann = group();
        let both = |save: &mut Save| (save.topic, save.person) = (Some("a".into()), Some("b".into()));
        assert!(ann.save("x", both).unwrap_err().contains("not both"));
        assert!(ann.save("x", |save| save.topic = Some("../..".into())).unwrap_err().contains("a letter"));
        assert!(ann.save(" ", |_| {}).unwrap_err().contains("is empty"));
        assert!(ann.log(&"x".repeat(TEXT_MAX_CHARS + 1)).unwrap_err().contains("at most 4000"));
        let pinned = |save: &mut Save| save.pinned = true;
        ann.save(&"a ".repeat(1_900), pinned).unwrap();
        let full = ann.save(&"b ".repeat(1_900), pinned).unwrap_err();
        assert!(full.contains("MEMORY.md is full") && full.contains("topic"), "{full}");
    }

    #[test]
    fn a_hostile_file_costs_no_other_entry() {
        let ann = group();
        ann.save("Tea at five.", |_| {}).unwrap();
        let at = |name: &str| ann.paths.resolve(&format!("memory/topics/{name}.md"));
        fs::File::create(at("huge")).unwrap().set_len(50 << 20).unwrap();
        symlink("/etc/passwd", at("link")).unwrap();
        mknodat(CWD, at("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        fs::create_dir(at("folder")).unwrap();
        fs::write(at("bytes"), b"- tea \xff\xfe\n").unwrap();
        let found = ann.search("tea");
        assert!(found.contains("Tea at five.") && found.contains("tea \u{fffd}"), "{found}");
        for told in [
            "topics/huge.md has 52428800 bytes",
            "topics/link.md is a symbolic link",
            "topics/fifo.md is a FIFO",
        ] {
            assert!(found.contains(told), "{told}: {found}");
        }
        for topic in ["huge", "link", "fifo", "folder"] {
            let refused = ann.save("x", |save| save.topic = Some(topic.into())).unwrap_err();
            assert!(refused.contains("another topic"), "{refused}");
        }
        fs::remove_dir_all(ann.paths.resolve("memory")).unwrap();
        symlink("/etc", ann.paths.resolve("memory")).unwrap();
        assert!(ann.search("tea").contains("cannot be read: memory"));
        assert!(ann.save("x", |_| {}).unwrap_err().starts_with("not saved: "));
    }

    #[test]
    fn a_place_that_takes_no_file_is_an_answer() {
        let ann = group();
        ann.save("x", |_| {}).unwrap();
        let topics = ann.paths.resolve("memory/topics");
        fs::set_permissions(&topics, PermissionsExt::from_mode(0o500)).unwrap();
        let saved = ann.save("y", |_| {});
        // Root may write everywhere.
        if !rustix::process::geteuid().is_root() {
            assert!(saved.unwrap_err().contains("read-only for you"));
        }
        let full = problem("not saved", &ChangeError::Io(ErrorKind::StorageFull.into()));
        assert!(full.contains("remove what is not needed"));
        assert!(problem("not saved", &ChangeError::Locked).contains("try again"));
    }
}
