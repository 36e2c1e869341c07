//! Writes the exchanges of a run to files for people: `000001-request.json`, `000001-response.sse.txt` or `.json`.
//!
//! They show the box's side of each call: the runner's request, with the model that the host put in, and the response.
//! The files hold no headers, keys are hidden, and no box sees them.

#![allow(clippy::disallowed_methods, reason = "state/letters, which no box sees")]

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
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
    /// The last number in use. The first call reads it from the files that an earlier host left.
    last: OnceLock<AtomicU64>,
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

/// Copies the part of a body that is recorded, so that a large body does not wait in memory for a slow disk. One byte
/// more lets the file say that it is incomplete.
pub(super) fn beginning(body: &[u8]) -> Vec<u8> {
    body[..body.len().min(FILE_MAX_BYTES + 1)].to_vec()
}

impl Recorder {
    /// The first call creates the directory.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, recorded: AtomicU64::new(0), last: OnceLock::new() }
    }

    /// Records a request and numbers the call, beside the call: a slow disk does not delay the model, and a full one
    /// costs the record, not the call.
    pub fn request(self: &Arc<Self>, body: Vec<u8>) -> Exchange {
        let recorder = Arc::clone(self);
        let number = tokio::task::spawn_blocking(move || {
            let number = recorder.last.get_or_init(|| recorder.prepare()).fetch_add(1, Ordering::Relaxed) + 1;
            recorder.write(&format!("{number:06}-request.json"), &body);
            number
        });
        Exchange { recorder: Arc::clone(self), number }
    }

    /// Creates the directory and finds the last number in it.
    fn prepare(&self) -> AtomicU64 {
        if let Err(error) = std::fs::DirBuilder::new().recursive(true).mode(0o750).create(&self.directory) {
            tracing::warn!(directory = %self.directory.display(), %error, "model exchanges are not recorded");
        }
        let names = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let numbers = names.filter_map(|entry| {
            entry.file_name().to_str()?.split_once('-').and_then(|(number, _)| number.parse().ok())
        });
        AtomicU64::new(numbers.max().unwrap_or(0))
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.directory.join(name);
        let size = u64::try_from(bytes.len().min(FILE_MAX_BYTES)).unwrap_or(u64::MAX);
        if self.recorded.fetch_add(size, Ordering::Relaxed) > RUN_MAX_BYTES {
            tracing::debug!(path = %path.display(), "this run has recorded enough");
            return;
        }
        if let Err(error) = write_capped(&path, bytes) {
            tracing::warn!(path = %path.display(), %error, "a model exchange was not recorded");
        }
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
                tokio::task::spawn_blocking(move || recorder.write(&name, &bytes)).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            tracing::warn!(%error, "a model exchange was not recorded");
        }
    }
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
            let exchange = recorder.request(b"{}".to_vec());
            exchange.response(Recorded::Stream, Bytes::from_static(b"data: 1\n\n")).await;
            recorder.request(b"{}".to_vec()).number.await.unwrap();
        }
        let expected = [
            "000001-request.json",
            "000001-response.sse.txt",
            "000002-request.json",
            "000003-request.json",
            "000003-response.sse.txt",
            "000004-request.json",
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
        recorder.request(beginning(&vec![b'x'; FILE_MAX_BYTES + 9])).number.await.unwrap();
        let text = std::fs::read_to_string(root.path().join("000001-request.json")).unwrap();
        assert!(text.ends_with("only the first 1048576 bytes are recorded\n"));
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_made_costs_the_record_and_not_the_call() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let recorder = Arc::new(Recorder::new(file.path().join("model")));
        recorder.request(b"{}".to_vec()).response(Recorded::Json, Bytes::new()).await;
    }
}
