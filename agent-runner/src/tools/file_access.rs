//! What the file tools share: opening files without hanging, error texts for the model, and walking directories.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ignore::{DirEntry, WalkBuilder};
use rustix::fs::{self, FileType, Mode, OFlags};

use crate::box_paths::BoxPaths;

/// Bytes that are read to tell text from binary.
const SNIFF_BYTES: usize = 8 * 1024;

/// Tells a walk on another thread that nobody waits for its result any more.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// A guard that sets the flag when it is dropped.
    pub fn guard(&self) -> impl Drop + use<> {
        struct Guard(Stop);
        impl Drop for Guard {
            fn drop(&mut self) {
                self.0.0.store(true, Ordering::Relaxed);
            }
        }
        Guard(self.clone())
    }
}

/// Opens a regular file for reading. Returns it with its size in bytes.
///
/// # Errors
/// For the model: what the path is instead, and what to do.
pub fn open(paths: &BoxPaths, path: &Path) -> Result<(File, u64), String> {
    let file = open_with(path, OFlags::RDONLY).map_err(|e| problem(paths, path, &e))?;
    let size = file.metadata().map_err(|e| problem(paths, path, &e))?.len();
    Ok((file, size))
}

/// Opens a regular file. `O_NONBLOCK`: the open of a FIFO waits for its other end, perhaps for ever (fifo(7)).
///
/// # Errors
/// What `open(2)` says, and [`NotRegular`] for anything but a regular file.
pub fn open_with(path: &Path, flags: OFlags) -> io::Result<File> {
    // The process's umask applies.
    let mode = Mode::from_raw_mode(0o666);
    let file = match fs::open(path, flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC, mode) {
        Ok(fd) => File::from(fd),
        // ENXIO: a FIFO that nobody reads, or a socket. ISDIR: a directory opened for writing.
        Err(rustix::io::Errno::NXIO) => return Err(NotRegular("a FIFO or socket").into()),
        Err(rustix::io::Errno::ISDIR) => return Err(NotRegular("a directory").into()),
        Err(error) => return Err(error.into()),
    };
    match FileType::from_raw_mode(fs::fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(file),
        FileType::Directory => Err(NotRegular("a directory").into()),
        FileType::Fifo | FileType::Socket => Err(NotRegular("a FIFO or socket").into()),
        _ => Err(NotRegular("a device").into()),
    }
}

/// The path is not a regular file.
#[derive(Debug, thiserror::Error)]
#[error("it is {0}, not a file")]
pub struct NotRegular(&'static str);

impl From<NotRegular> for io::Error {
    fn from(what: NotRegular) -> Self {
        Self::new(io::ErrorKind::InvalidInput, what)
    }
}

/// An error text for the model: the path as it knows it, what happened, what to do.
pub fn problem(paths: &BoxPaths, path: &Path, error: &io::Error) -> String {
    let shown = paths.shown(path);
    match error.kind() {
        io::ErrorKind::NotFound => format!("{shown} does not exist; list_files shows what does"),
        io::ErrorKind::PermissionDenied => {
            format!("{shown}: permission denied; only /workspace, /tmp and $HOME are yours")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("{shown}: no space left; remove what is not needed")
        }
        _ if error.to_string().contains("a directory") => format!("{shown} is a directory; use list_files"),
        _ => format!("{shown}: {error}"),
    }
}

/// Whether a file that starts with these bytes is binary.
pub fn looks_binary(start: &[u8]) -> bool {
    start.iter().take(SNIFF_BYTES).any(|b| *b == 0)
}

/// Reads a whole text file of at most `cap` bytes.
///
/// # Errors
/// As [`open`]; also for one that is too large, or no UTF-8 text.
pub fn read_text(paths: &BoxPaths, path: &Path, cap: u64) -> Result<String, String> {
    let (file, size) = open(paths, path)?;
    let shown = paths.shown(path);
    let mut bytes = Vec::new();
    file.take(cap + 1).read_to_end(&mut bytes).map_err(|e| problem(paths, path, &e))?;
    if bytes.len() as u64 > cap {
        return Err(format!("{shown} has {size} bytes, more than {cap}; use run_command (sed, awk) for it"));
    }
    if looks_binary(&bytes) {
        return Err(format!("{shown} is binary ({size} bytes); use run_command for it"));
    }
    String::from_utf8(bytes).map_err(|_| format!("{shown} is not UTF-8 text; use run_command (iconv) for it"))
}

/// Directories that walks leave out.
const NOISE: [&str; 6] = [".git", "node_modules", "__pycache__", ".venv", ".cache", ".home"];

/// A sorted walk below `root` that leaves out what `.gitignore` names and [`NOISE`], unless the walk begins there.
/// Links are listed, not followed. Sorted, so that a truncated answer is the same every time.
///
/// # Errors
/// When the glob is invalid.
pub fn walk(
    root: &Path,
    glob: Option<&str>,
    depth: Option<usize>,
    stop: &Stop,
) -> Result<impl Iterator<Item = DirEntry> + use<>, String> {
    let mut builder = WalkBuilder::new(root);
    builder
        .hidden(false)
        .require_git(false)
        .parents(false)
        .git_global(false)
        .git_exclude(false)
        .follow_links(false)
        .max_depth(depth)
        .sort_by_file_name(std::ffi::OsStr::cmp)
        .filter_entry(|entry| {
            entry.depth() == 0
                || !entry.file_type().is_some_and(|kind| kind.is_dir())
                || !entry.file_name().to_str().is_some_and(|name| NOISE.contains(&name))
        });
    if let Some(glob) = glob {
        let mut overrides = ignore::overrides::OverrideBuilder::new(root);
        let bad =
            |e: ignore::Error| format!("the glob {glob:?} cannot be used: {e}; for example: *.rs, docs/**");
        overrides.add(glob).map_err(bad)?;
        builder.overrides(overrides.build().map_err(bad)?);
    }
    let stop = stop.clone();
    Ok(builder.build().take_while(move |_| !stop.is_set()).filter_map(Result::ok).filter(|e| e.depth() > 0))
}
