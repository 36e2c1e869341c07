//! What the model sees beside text: the pictures and PDF documents that people send, and those that `read_file` shows.
//! [`crate::turn`] asks for them before each model call, [`crate::model`] puts them into the request.
//!
//! The transcript names files and never holds their content. Every request must be built the same way, so that the
//! provider's prompt cache holds: a file is decoded once per run, the files that no longer fit leave in steps, and a
//! file that cannot be shown is a text in its place. Nothing here fails a turn.

mod decoder;
mod document;
mod picture;

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ipc_schema::letters::to_agent::{Attachment, Model};

#[cfg(any(test, fuzzing))]
pub use document::check as check_document;
pub use document::tokens as document_tokens;
pub use picture::command as fit_picture;

use crate::box_paths::BoxPaths;
use crate::tools::file_access;
use crate::transcript::{Body, Entry, FileKind, Omissions, ShownFile};

/// How much one request shows. A picture counts 1, a document one for each piece of [`PIECE_BYTES`], so that the
/// request stays below 20 MiB: the gateway takes 32 MiB, and Anthropic takes as much and 100 pictures
/// (<https://platform.claude.com/docs/en/build-with-claude/vision>).
const SHOWN_MAX: u64 = 20;
/// Older files leave so many at a time: each step makes the provider read the conversation anew.
const STEP: u64 = 10;
/// The greatest picture in a request, and the unit of [`SHOWN_MAX`]: 1 MiB in base64.
const PIECE_BYTES: u64 = 768 * 1024;
/// A larger file is not read.
const FILE_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// The tokens of a picture at most. `picture` scales to that, as Anthropic would.
const PICTURE_TOKENS: u64 = 1_600;

/// The endings of files that may be shown, for files whose media type says nothing.
const ENDINGS: [(&str, FileKind); 6] = [
    ("jpg", FileKind::Picture),
    ("jpeg", FileKind::Picture),
    ("png", FileKind::Picture),
    ("gif", FileKind::Picture),
    ("webp", FileKind::Picture),
    ("pdf", FileKind::Document),
];

/// The kind of a file by the labels of its sender. Whether it is true shows when the file is read.
fn labelled(file: &Attachment) -> Option<FileKind> {
    let mime = file.mime.to_ascii_lowercase();
    let ending = file.name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    let by_name = ENDINGS.iter().find(|(known, _)| ending.as_deref() == Some(*known));
    match mime.as_str() {
        "application/pdf" => Some(FileKind::Document),
        mime if mime.starts_with("image/") => Some(FileKind::Picture),
        _ => by_name.map(|(_, kind)| *kind),
    }
}

/// The kind of a file that can be shown, by its first bytes.
pub fn kind_of(start: &[u8]) -> Option<FileKind> {
    if start.starts_with(b"%PDF-") {
        return Some(FileKind::Document);
    }
    picture::is_known(start).then_some(FileKind::Picture)
}

fn word(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Picture => "picture",
        FileKind::Document => "document",
    }
}

/// A file as the transcript names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Reference {
    kind: FileKind,
    /// As the model knows it.
    path: String,
    /// The digest of the bytes that are meant. The name of a file in the inbox is its digest.
    sha256: Option<String>,
}

/// A file as a request shows it.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    Block {
        kind: FileKind,
        media_type: &'static str,
        data: String,
    },
    /// Why it is not shown.
    Note(String),
}

/// What one request shows, by entry: each file's path, and how it is seen.
#[derive(Debug, Default)]
pub struct View(HashMap<u64, Vec<(String, Arc<Seen>)>>);

impl View {
    /// The files of an entry, in their order.
    pub fn of(&self, entry: &Entry) -> &[(String, Arc<Seen>)] {
        self.0.get(&entry.entry).map_or(&[], Vec::as_slice)
    }
}

/// A file that an entry names.
struct Wanted {
    entry: u64,
    file: Reference,
    weight: u64,
    fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Shown,
    /// Newer files take its place.
    Old,
    /// The provider refused it.
    Refused,
    /// It alone is more than a request shows.
    TooLarge,
}

/// The files of a request, oldest first. A file that comes again, as an album does that a late part joins, is shown
/// where it came first.
///
/// The oldest leave when there are too many: a multiple of [`STEP`], so that the beginning of the conversation stays
/// the same for as long as possible.
fn wanted(entries: &[Entry], omissions: &Omissions) -> Vec<Wanted> {
    let mut all: Vec<Wanted> = Vec::new();
    for entry in entries.iter().filter(|entry| !omissions.omits(entry)) {
        for (file, bytes) in files(entry) {
            let weight = weight(file.kind, bytes);
            let fate = match weight {
                _ if omissions.omits_files(entry) => Fate::Refused,
                ..=SHOWN_MAX => Fate::Shown,
                _ => Fate::TooLarge,
            };
            let again = |known: &Wanted| known.file == file && matches!(entry.body, Body::Input(_));
            if !all.iter().any(again) {
                all.push(Wanted { entry: entry.entry, file, weight, fate });
            }
        }
    }
    let mut shown: Vec<_> = all.iter_mut().filter(|one| one.fate == Fate::Shown).collect();
    let sum: u64 = shown.iter().map(|one| one.weight).sum();
    let too_many = sum.saturating_sub(SHOWN_MAX).div_ceil(STEP) * STEP;
    let mut before = 0;
    for one in &mut shown {
        if before < too_many {
            one.fate = Fate::Old;
        }
        before += one.weight;
    }
    all
}

fn weight(kind: FileKind, bytes: u64) -> u64 {
    match kind {
        FileKind::Picture => 1,
        FileKind::Document => bytes.div_ceil(PIECE_BYTES).max(1),
    }
}

/// The files that an entry names, with their sizes in bytes.
fn files(entry: &Entry) -> Vec<(Reference, u64)> {
    let sent = |file: &Attachment| {
        let (kind, path) = (labelled(file)?, file.path.clone()?);
        Some((Reference { kind, path, sha256: None }, file.bytes))
    };
    let looked_at = |file: &ShownFile| {
        let ShownFile { kind, path, sha256, bytes } = file.clone();
        (Reference { kind, path, sha256: Some(sha256) }, bytes)
    };
    match &entry.body {
        Body::Input(input) => input.messages.iter().flat_map(|m| &m.attachments).filter_map(sent).collect(),
        Body::Results(results) => {
            results.blocks.iter().filter_map(|r| r.shown.as_ref()).map(looked_at).collect()
        }
        _ => Vec::new(),
    }
}

/// How many files an entry shows.
pub fn count(entry: &Entry) -> usize {
    files(entry).len()
}

/// An estimate of the tokens of an entry's files, rather too high.
pub fn tokens(entry: &Entry) -> u64 {
    let of = |(file, bytes): &(Reference, u64)| match file.kind {
        FileKind::Picture => PICTURE_TOKENS,
        FileKind::Document => document::tokens(*bytes),
    };
    files(entry).iter().map(of).sum()
}

/// Looks at files, and remembers what it saw as long as requests show it.
#[derive(Debug)]
pub struct Sight {
    paths: BoxPaths,
    /// Whether the model takes pictures and documents.
    sees: bool,
    /// The model's context window in tokens.
    window: u32,
    known: HashMap<Reference, Arc<Seen>>,
}

impl Sight {
    pub fn new(paths: BoxPaths, model: &Model) -> Self {
        Self { paths, sees: !model.no_images, window: model.window, known: HashMap::new() }
    }

    /// Whether a view of these entries must read files first.
    pub fn is_new(&self, entries: &[Entry], omissions: &Omissions) -> bool {
        let is_new = |one: &Wanted| one.fate == Fate::Shown && !self.known.contains_key(&one.file);
        self.sees && wanted(entries, omissions).iter().any(is_new)
    }

    /// What a request with these entries shows.
    pub async fn view(&mut self, entries: &[Entry], omissions: &Omissions) -> View {
        let (mut view, mut used) = (View::default(), HashMap::new());
        for Wanted { entry, file, fate, .. } in wanted(entries, omissions) {
            let most = SHOWN_MAX * PIECE_BYTES / 1024 / 1024;
            let seen = match fate {
                _ if !self.sees => note(&file, "is not shown: the model that you run on sees none"),
                Fate::Refused => note(&file, "is not shown any more: the provider refused the request"),
                Fate::Old => {
                    note(&file, "is not shown any more, as newer ones are; read_file shows it again")
                }
                Fate::TooLarge => note(&file, &format!("is not shown: it is larger than {most} MiB")),
                Fate::Shown => {
                    let seen = match self.known.remove(&file).or_else(|| used.get(&file).cloned()) {
                        Some(seen) => seen,
                        None => Arc::new(self.look(&file).await),
                    };
                    used.insert(file.clone(), Arc::clone(&seen));
                    seen
                }
            };
            view.0.entry(entry).or_default().push((file.path, seen));
        }
        self.known = used;
        view
    }

    async fn look(&self, file: &Reference) -> Seen {
        let looked = match file.kind {
            FileKind::Picture => self.picture(file).await,
            FileKind::Document => self.document(file).await,
        };
        looked.unwrap_or_else(|why| {
            tracing::info!(path = file.path, why, "a file is not shown to the model");
            let word = word(file.kind);
            Seen::Note(format!(
                "[The {word} {} could not be read: {why}. The original lies there.]",
                file.path
            ))
        })
    }

    /// The picture, decoded and scaled by another process.
    async fn picture(&self, file: &Reference) -> Result<Seen, String> {
        let opened = self.opened(file).await?;
        let fitted = decoder::decode(opened).await?;
        let media_type = picture::media_type(&fitted);
        Ok(Seen::Block { kind: FileKind::Picture, media_type, data: BASE64_STANDARD.encode(&fitted) })
    }

    async fn document(&self, file: &Reference) -> Result<Seen, String> {
        let mut opened = self.opened(file).await?;
        let window = self.window;
        blocking(move || {
            let bytes = whole(&mut opened)?;
            document::check(&bytes, window)?;
            let data = BASE64_STANDARD.encode(&bytes);
            Ok(Seen::Block { kind: FileKind::Document, media_type: "application/pdf", data })
        })
        .await
    }

    /// Opens a file, if it still is the one that is meant.
    async fn opened(&self, file: &Reference) -> Result<std::fs::File, String> {
        let (paths, path, digest) = (self.paths.clone(), self.paths.resolve(&file.path), file.sha256.clone());
        blocking(move || {
            let (mut opened, _) = file_access::open(&paths, &path)?;
            if let Some(digest) = digest {
                if ipc_schema::sha256_hex(&whole(&mut opened)?) != digest {
                    return Err("the file has changed since; read_file shows what it is now".to_owned());
                }
                opened.seek(SeekFrom::Start(0)).map_err(|e| e.to_string())?;
            }
            Ok(opened)
        })
        .await
    }
}

fn note(file: &Reference, why: &str) -> Arc<Seen> {
    Arc::new(Seen::Note(format!("[The {} {} {why}.]", word(file.kind), file.path)))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(e.to_string()))
}

/// Reads a file up to the limit.
///
/// # Errors
/// For the model.
pub fn whole(file: &mut std::fs::File) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(format!("it is larger than {} MiB", FILE_MAX_BYTES / 1024 / 1024));
    }
    Ok(bytes)
}

#[cfg(test)]
pub mod tests;
