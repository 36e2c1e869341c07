//! Counts which memories the search index of the box finds: 88 queries in eight languages against 310 memories, each
//! query looking for one of them among the first five results. The files in `agent-runner/tests/recall` hold both.
//!
//! Beside it stands plain substring search, in its best form: a memory counts the words of the query that it holds as
//! they are, in any case, and the five with most are the result.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use agent_runner::test_door::{FileStamp, Index};
use serde_json::{Value, json};

/// Results that a person or a model looks at.
const FIRST: usize = 5;

/// What was found in one language, or in all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recall {
    /// `de`, or `all`.
    pub language: String,
    /// How many queries.
    pub queries: usize,
    /// How many of them the index answers.
    pub found: usize,
    /// How many of them substring search answers.
    pub substring: usize,
    /// The queries that the index does not answer.
    pub missed: Vec<String>,
}

impl Recall {
    /// One line of the table.
    pub fn json(&self) -> Value {
        let Self { language, queries, found, substring, missed } = self;
        json!({ "language": language, "queries": queries, "found": found, "substring": substring, "missed": missed })
    }
}

struct Memory {
    id: String,
    text: String,
}

fn data(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent-runner/tests/recall").join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The memories of each file.
fn memories() -> BTreeMap<String, Vec<Memory>> {
    let memory = |line: &str| {
        let (id, text) = line.split_once(' ').unwrap_or((line, ""));
        Memory { id: id.to_owned(), text: text.to_owned() }
    };
    let languages = ["en", "de", "fr", "ru", "zh", "ja", "ko", "th"];
    let file = |language: &str| format!("memories_{language}.txt");
    languages.map(|l| (file(l), data(&file(l)).lines().map(memory).collect())).into()
}

/// One line for each language, and the last for all.
pub fn recall() -> Vec<Recall> {
    let memories = memories();
    let Ok(mut index) = Index::open(Path::new("/nowhere/memory.db")) else { panic!("no index") };
    let stamps: Vec<FileStamp> = memories.keys().map(|name| (name.clone(), 0, 0)).collect();
    let entries = |name: &str| {
        let texts = memories.get(name).into_iter().flatten().map(|memory| memory.text.clone());
        texts.enumerate().map(|(at, text)| (at + 1, text)).collect()
    };
    index.refresh(&stamps, entries).unwrap_or_else(|e| panic!("the index: {e}"));
    let mut lines: Vec<Recall> = Vec::new();
    let mut all = Recall { language: "all".into(), ..Recall::default() };
    for line in data("queries.txt").lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.splitn(3, ' ');
        let (Some(language), Some(wanted), Some(query)) = (words.next(), words.next(), words.next()) else {
            panic!("a query needs a language, a memory and words: {line}")
        };
        if lines.last().is_none_or(|last| last.language != language) {
            lines.push(Recall { language: language.to_owned(), ..Recall::default() });
        }
        let hits = index.search(query, FIRST);
        let id = |file: &str, line: usize| memories.get(file)?.get(line - 1).map(|memory| &*memory.id);
        let found = hits.iter().any(|hit| id(&hit.file, hit.line) == Some(wanted));
        let substring = by_substrings(&memories, query).contains(&wanted);
        for line in lines.last_mut().into_iter().chain([&mut all]) {
            line.queries += 1;
            line.found += usize::from(found);
            line.substring += usize::from(substring);
            if !found {
                line.missed.push(query.to_owned());
            }
        }
    }
    lines.push(all);
    lines
}

fn by_substrings<'a>(memories: &'a BTreeMap<String, Vec<Memory>>, query: &str) -> Vec<&'a str> {
    let query = query.to_lowercase();
    let held = |memory: &Memory| {
        let text = memory.text.to_lowercase();
        query.split_whitespace().filter(|word| text.contains(word)).count()
    };
    let mut counted: Vec<(usize, &str)> =
        memories.values().flatten().map(|memory| (held(memory), &*memory.id)).collect();
    counted.retain(|(held, _)| *held > 0);
    counted.sort_by_key(|(held, _)| std::cmp::Reverse(*held));
    counted.into_iter().take(FIRST).map(|(_, id)| id).collect()
}

/// What an index of 10,000 entries costs: the time to build it in a file, its size, and the time of a search.
pub fn ten_thousand() -> Value {
    const ENTRIES: usize = 10_000;
    let texts: Vec<String> = memories().into_values().flatten().map(|memory| memory.text).collect();
    // A number makes each text another one.
    let entries = |of: &str| -> Vec<(usize, String)> {
        let file: usize = of.parse().unwrap_or_default();
        let texts =
            (0..100).map(|at| format!("{} {}", texts[(file * 100 + at) % texts.len()], file * 100 + at));
        texts.enumerate().map(|(at, text)| (at + 1, text)).collect()
    };
    let stamps: Vec<FileStamp> = (0..ENTRIES / 100).map(|file| (file.to_string(), 0, 0)).collect();
    let Ok(dir) = tempfile::tempdir() else { panic!("no temporary directory") };
    let Ok(mut index) = Index::open(&dir.path().join("memory.db")) else { panic!("no index") };
    let ms = |began: Instant| (began.elapsed().as_secs_f64() * 100_000.0).round() / 100.0;
    let began = Instant::now();
    index.refresh(&stamps, entries).unwrap_or_else(|e| panic!("the index: {e}"));
    let index_ms = ms(began);
    let queries: Vec<String> = data("queries.txt")
        .lines()
        .filter_map(|line| line.splitn(3, ' ').nth(2).map(str::to_owned))
        .collect();
    let mut took: Vec<f64> = Vec::new();
    for query in &queries {
        let began = Instant::now();
        index.search(query, FIRST);
        took.push(ms(began));
    }
    let began = Instant::now();
    index.refresh(&stamps, |_| Vec::new()).unwrap_or_else(|e| panic!("the index: {e}"));
    let text_bytes: usize = (0..ENTRIES).map(|at| texts[at % texts.len()].len()).sum();
    json!({
        "entries": ENTRIES, "text_bytes": text_bytes, "index_ms": index_ms, "index_bytes": index.bytes(),
        "unchanged_ms": ms(began), "search_ms": super::median(took),
    })
}
