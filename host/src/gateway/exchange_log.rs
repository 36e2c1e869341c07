//! Writes the exchanges of a run to files for people: `000001-request.json`, `000001-response.sse.txt` or `.json`.
//!
//! They show the box's side of each call: the runner's request, with the model that the host put in, and the response.
//! The files hold no headers, keys are hidden, and no box sees them.
//!
//! The content of pictures and documents is left out: the files are in the group's inbox and workspace.
//!
//! Each call repeats the conversation so far. So only the first request is kept whole; `000002-request.new.json` has
//! what is new against the call before. [`whole_request`] puts them together again for `lazaret ipc call`.

#![allow(clippy::disallowed_methods, reason = "state/letters, which no box sees")]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::task::JoinHandle;

/// The greatest file. It says when it is incomplete.
pub(super) const FILE_MAX_BYTES: usize = 1024 * 1024;

/// The most bytes that one run's exchanges take in one life of the host, so that a box which calls without end does not
/// fill the disk. Later exchanges are not recorded.
const RUN_MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Numbers and writes the exchanges of one run.
pub(super) struct Recorder {
    directory: PathBuf,
    recorded: AtomicU64,
    /// The last number that an earlier host left. The first write reads it from the files.
    left: OnceLock<u64>,
    calls: Mutex<Calls>,
}

#[derive(Default)]
struct Calls {
    made: u64,
    /// The fields of the last request, if its record can be built upon.
    last: Option<Fields>,
    hasher: RandomState,
}

/// The digest of each field of a request; of a list, those of its entries.
type Fields = BTreeMap<String, Digests>;

#[derive(PartialEq)]
enum Digests {
    One(u64),
    List(Vec<u64>),
}

/// A request as its file shows it.
pub(super) struct RequestRecord {
    /// Its place among the calls of this host.
    call: u64,
    is_whole: bool,
    bytes: Vec<u8>,
}

/// The content of `N-request.new.json`. A field that it does not name is not in the request.
#[derive(Serialize, Deserialize)]
struct NewPart<T> {
    /// Fields that are as in the call before.
    as_before: Vec<String>,
    /// Lists that begin with so many entries of the call before. The rest of them is in `new`.
    begin_as_before: BTreeMap<String, usize>,
    new: BTreeMap<String, T>,
}

/// One call's pair of files.
pub(super) struct Exchange {
    recorder: Arc<Recorder>,
    number: JoinHandle<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recorded {
    Json,
    Stream,
}

impl Recorder {
    /// The first call creates the directory.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, recorded: AtomicU64::new(0), left: OnceLock::new(), calls: Mutex::default() }
    }

    /// Takes a call's number and the part of its request that is recorded. That is a copy, so that a large body does
    /// not wait in memory for a slow disk.
    pub fn record_of(&self, body: &[u8]) -> RequestRecord {
        let body = &*without_content(body);
        let mut calls = self.calls();
        calls.made += 1;
        let fields = fields(body);
        let digests = fields.as_ref().map(|fields| digests(fields, &calls.hasher));
        let part = match (&fields, &digests, &calls.last) {
            (Some(fields), Some(digests), Some(last)) => new_part(fields, digests, last),
            _ => None,
        };
        let is_whole = part.is_none();
        let bytes = part.unwrap_or_else(|| beginning(body));
        // What is cut cannot be built upon.
        calls.last = digests.filter(|_| bytes.len() <= FILE_MAX_BYTES);
        RequestRecord { call: calls.made, is_whole, bytes: beginning(&bytes) }
    }

    /// Writes a request, beside the call: a slow disk does not delay the model, and a full one costs the record, not
    /// the call.
    pub fn request(self: &Arc<Self>, record: RequestRecord) -> Exchange {
        let recorder = Arc::clone(self);
        let number = tokio::task::spawn_blocking(move || {
            let number = recorder.left.get_or_init(|| recorder.prepare()) + record.call;
            if !recorder.write(&request_name(number, record.is_whole), &record.bytes) {
                recorder.calls().last = None;
            }
            number
        });
        Exchange { recorder: Arc::clone(self), number }
    }

    fn calls(&self) -> std::sync::MutexGuard<'_, Calls> {
        // If a panic left no digests, the next request is recorded whole.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates the directory and finds the last number in it.
    fn prepare(&self) -> u64 {
        if let Err(error) = std::fs::DirBuilder::new().recursive(true).mode(0o750).create(&self.directory) {
            tracing::warn!(directory = %self.directory.display(), %error, "model exchanges are not recorded");
        }
        let names = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let numbers = names.filter_map(|entry| {
            entry.file_name().to_str()?.split_once('-').and_then(|(number, _)| number.parse().ok())
        });
        numbers.max().unwrap_or(0)
    }

    /// Returns whether it was written.
    fn write(&self, name: &str, bytes: &[u8]) -> bool {
        let path = self.directory.join(name);
        let size = u64::try_from(bytes.len().min(FILE_MAX_BYTES)).unwrap_or(u64::MAX);
        if self.recorded.fetch_add(size, Ordering::Relaxed) > RUN_MAX_BYTES {
            tracing::debug!(path = %path.display(), "this run has recorded enough");
            return false;
        }
        let written = write_capped(&path, bytes);
        if let Err(error) = &written {
            tracing::warn!(path = %path.display(), %error, "a model exchange was not recorded");
        }
        written.is_ok()
    }
}

impl Exchange {
    /// Records the response under the number of its request.
    pub async fn response(self, kind: Recorded, bytes: Bytes) {
        let Self { recorder, number } = self;
        let ending = match kind {
            Recorded::Json => "json",
            Recorded::Stream => "sse.txt",
        };
        let written = match number.await {
            Ok(number) => {
                let name = format!("{number:06}-response.{ending}");
                tokio::task::spawn_blocking(move || recorder.write(&name, &bytes)).await.map(drop)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            tracing::warn!(%error, "a model exchange was not recorded");
        }
    }
}

/// The key of a picture's or document's content as the runner writes it. Within a text its quotes would be escaped.
const CONTENT: &[u8] = b"\"data\":\"";
/// Shorter content is recorded.
const CONTENT_BYTES: usize = 1024;

/// The body with a note in the place of base64 content.
fn without_content(body: &[u8]) -> Cow<'_, [u8]> {
    let mut kept = Vec::new();
    let (mut rest, mut from) = (body, 0);
    while let Some(at) = rest[from..].windows(CONTENT.len()).position(|bytes| bytes == CONTENT) {
        let start = from + at + CONTENT.len();
        let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
        let content = rest[start..].iter().take_while(|byte| is_base64(byte)).count();
        from = start + content;
        if content > CONTENT_BYTES {
            kept.extend_from_slice(&rest[..start + 16]);
            kept.extend(format!("… {content} characters are left out").bytes());
            (rest, from) = (&rest[from..], 0);
        }
    }
    if kept.is_empty() {
        return Cow::Borrowed(body);
    }
    kept.extend_from_slice(rest);
    Cow::Owned(kept)
}

/// The part of a body that fits into a file. One byte more lets the file say that it is incomplete.
fn beginning(body: &[u8]) -> Vec<u8> {
    body[..body.len().min(FILE_MAX_BYTES + 1)].to_vec()
}

fn request_name(number: u64, is_whole: bool) -> String {
    format!("{number:06}-request.{}json", if is_whole { "" } else { "new." })
}

/// A request's fields as text. The bytes are a box's: nothing is parsed into a tree.
fn fields(body: &[u8]) -> Option<BTreeMap<String, &RawValue>> {
    serde_json::from_slice(body).ok()
}

/// The entries of a field that is a list.
fn entries(field: &RawValue) -> Option<Vec<&RawValue>> {
    if field.get().starts_with('[') { serde_json::from_str(field.get()).ok() } else { None }
}

fn digests(fields: &BTreeMap<String, &RawValue>, hasher: &RandomState) -> Fields {
    let of = |field: &RawValue| match entries(field) {
        Some(entries) => Digests::List(entries.iter().map(|entry| hasher.hash_one(entry.get())).collect()),
        None => Digests::One(hasher.hash_one(field.get())),
    };
    fields.iter().map(|(name, field)| (name.clone(), of(field))).collect()
}

/// What is new in a request against the last, as the text of its file.
fn new_part(fields: &BTreeMap<String, &RawValue>, digests: &Fields, last: &Fields) -> Option<Vec<u8>> {
    let (mut as_before, mut begin_as_before, mut new) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    for (name, field) in fields {
        match (digests.get(name)?, last.get(name)) {
            (now, Some(before)) if now == before => as_before.push(name.clone()),
            (Digests::List(now), Some(Digests::List(before))) => {
                let same = now.iter().zip(before).take_while(|(now, before)| now == before).count();
                begin_as_before.insert(name.clone(), same);
                let rest = entries(field)?.split_off(same);
                new.insert(name.clone(), serde_json::value::to_raw_value(&rest).ok()?);
            }
            _ => drop(new.insert(name.clone(), (*field).to_owned())),
        }
    }
    serde_json::to_vec_pretty(&NewPart { as_before, begin_as_before, new }).ok()
}

/// Puts a recorded request together again from its file and those before it.
///
/// # Errors
/// A file that is needed is missing, or was cut.
pub fn whole_request(directory: &Path, number: u64) -> io::Result<Value> {
    let (mut parts, mut at) = (Vec::new(), number);
    let mut whole: BTreeMap<String, Value> = loop {
        let text = match std::fs::read(directory.join(request_name(at, true))) {
            Ok(text) => break serde_json::from_slice(&text)?,
            Err(e) if e.kind() != io::ErrorKind::NotFound || at == 0 => return Err(e),
            Err(_) => std::fs::read(directory.join(request_name(at, false)))?,
        };
        parts.push(serde_json::from_slice::<NewPart<Value>>(&text)?);
        at -= 1;
    };
    for part in parts.into_iter().rev() {
        let mut before = std::mem::replace(&mut whole, part.new);
        for name in part.as_before {
            whole.extend(before.remove_entry(&name));
        }
        for (name, same) in part.begin_as_before {
            let (Some(Value::Array(mut begin)), Some(Value::Array(rest))) =
                (before.remove(&name), whole.remove(&name))
            else {
                return Err(io::Error::other(format!("{name} of the call before is missing")));
            };
            begin.truncate(same);
            begin.extend(rest);
            whole.insert(name, Value::Array(begin));
        }
    }
    Ok(whole.into_iter().collect())
}

/// The recorded response of a call, as it was sent to the box. `None` if there is none.
pub fn response(directory: &Path, number: u64) -> Option<String> {
    let mut names = ["json", "sse.txt"].iter().map(|ending| format!("{number:06}-response.{ending}"));
    names.find_map(|name| std::fs::read_to_string(directory.join(name)).ok())
}

/// Writes a new file of at most [`FILE_MAX_BYTES`], and a line that says if there was more.
fn write_capped(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o640).open(path)?;
    file.write_all(&bytes[..bytes.len().min(FILE_MAX_BYTES)])?;
    if bytes.len() > FILE_MAX_BYTES {
        write!(file, "\n… cut here: only the first {FILE_MAX_BYTES} bytes are recorded\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use serde_json::json;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn numbers_go_on_where_an_earlier_host_stopped() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("main/run/model");
        for _host in 0..2 {
            let recorder = Arc::new(Recorder::new(directory.clone()));
            let exchange = recorder.request(recorder.record_of(b"{}"));
            exchange.response(Recorded::Stream, Bytes::from_static(b"data: 1\n\n")).await;
            recorder.request(recorder.record_of(b"{}")).number.await.unwrap();
        }
        let expected = [
            "000001-request.json",
            "000001-response.sse.txt",
            "000002-request.new.json",
            "000003-request.json",
            "000003-response.sse.txt",
            "000004-request.new.json",
        ];
        assert_eq!(names(&directory), expected);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(&directory) & !0o750, 0);
        assert_eq!(mode(&directory.join(expected[0])) & !0o640, 0);
    }

    #[tokio::test]
    async fn a_large_exchange_is_cut_and_says_so() {
        let root = tempfile::tempdir().unwrap();
        let recorder = Arc::new(Recorder::new(root.path().to_owned()));
        recorder.request(recorder.record_of(&vec![b'x'; FILE_MAX_BYTES + 9])).number.await.unwrap();
        let text = std::fs::read_to_string(root.path().join("000001-request.json")).unwrap();
        assert!(text.ends_with("only the first 1048576 bytes are recorded\n"));
    }

    #[tokio::test]
    async fn pictures_are_left_out_and_the_words_around_them_stay() {
        let root = tempfile::tempdir().unwrap();
        let recorder = Arc::new(Recorder::new(root.path().to_owned()));
        let picture =
            |n: usize| json!({ "type": "image", "source": { "data": "iVBORw0KGgoAAAANSUhEUg".repeat(n) } });
        let said = json!({ "type": "text", "text": format!("\"data\":\"{}", "A".repeat(2_000)) });
        let request = json!({ "messages": [picture(50_000), said, picture(1), picture(90_000), "end"] });
        recorded(&recorder, &request).await;
        let text = std::fs::read_to_string(root.path().join("000001-request.json")).unwrap();
        assert!(text.len() < 4_000 && text.contains("iVBORw0KGgoAAAAN… 1100000 characters are left out"));
        let shown = whole_request(root.path(), 1).unwrap();
        assert_eq!(shown["messages"][1], request["messages"][1]);
        assert_eq!((&shown["messages"][2], &shown["messages"][4]), (&request["messages"][2], &json!("end")));
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_made_costs_the_record_and_not_the_call() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let recorder = Arc::new(Recorder::new(file.path().join("model")));
        recorder.request(recorder.record_of(b"{}")).response(Recorded::Json, Bytes::new()).await;
    }

    /// A request after `turns` questions and answers. Its last entry bears a mark that the next request lacks.
    fn conversation(turns: usize) -> Value {
        let said = |n: usize| json!({ "role": if n.is_multiple_of(2) { "user" } else { "assistant" }, "content": format!("words {n}") });
        let mut messages: Vec<Value> = (0..=turns * 2).map(said).collect();
        messages[turns * 2]["cache_control"] = json!({ "type": "ephemeral" });
        let (system, tools) = ("You help. ".repeat(400), vec![json!({ "name": "read" }); 12]);
        json!({ "model": "m", "max_tokens": 8192, "system": system, "tools": tools, "messages": messages })
    }

    async fn recorded(recorder: &Arc<Recorder>, request: &Value) {
        let record = recorder.record_of(request.to_string().as_bytes());
        recorder.request(record).number.await.unwrap();
    }

    #[tokio::test]
    async fn a_thousand_short_turns_take_little_room_and_each_can_be_shown_whole() {
        let root = tempfile::tempdir().unwrap();
        let recorder = Arc::new(Recorder::new(root.path().to_owned()));
        for turn in 0..1_000 {
            recorded(&recorder, &conversation(turn)).await;
        }
        let sizes =
            std::fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
        let bytes: u64 = sizes.sum();
        assert!(bytes < 1 << 20, "{bytes} bytes");
        for turn in [0, 1, 500, 999] {
            assert_eq!(whole_request(root.path(), turn + 1).unwrap(), conversation(turn as usize));
        }
    }

    #[tokio::test]
    async fn what_changes_between_two_calls_is_shown_as_it_was() {
        let root = tempfile::tempdir().unwrap();
        let recorder = Arc::new(Recorder::new(root.path().to_owned()));
        let long = "x".repeat(FILE_MAX_BYTES);
        let mut requests = vec![conversation(3), conversation(9), conversation(2), conversation(2)];
        // A field goes, a list becomes a text, an entry in the middle changes, a request is too long for its file.
        requests.extend([
            json!({ "model": "m", "messages": [] }),
            json!({ "model": "n", "messages": "none" }),
            json!({ "messages": [1, 2, 3] }),
            json!({ "messages": [1, 9, 3] }),
            json!({ "messages": [1, 9, 3, long] }),
            json!({ "messages": [1, 9, 3, 4] }),
            json!({ "messages": [1, 9, 3, 4, 5] }),
        ]);
        for request in &requests {
            recorded(&recorder, request).await;
        }
        for (n, request) in (1..).zip(&requests) {
            match whole_request(root.path(), n) {
                Ok(whole) => assert_eq!(whole, *request, "request {n}"),
                Err(e) => assert_eq!((n, e.kind()), (9, io::ErrorKind::InvalidData), "{e}"),
            }
        }
        assert!(
            root.path().join("000010-request.json").exists(),
            "nothing is built upon a request that was cut"
        );
        assert_eq!(whole_request(root.path(), 12).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
