//! `state/spool/` holds the host's copies of files that agents send, and replies that are sent as files, named by the
//! digests of their bytes.
//!
//! The host copies a file once, before it answers the agent's request, and sends the copy. So later changes by the
//! agent are not sent. No box sees the folder, so the host opens its files by path.

#![allow(
    clippy::disallowed_methods,
    reason = "state/spool is the host's alone; workspaces are read by untrusted_fs"
)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ipc_schema::names_and_paths::box_path;
use ipc_schema::untrusted_fs::{FileRequirements, UntrustedDir};
use ipc_schema::{Refusal, RefusalCode};

use crate::host_files::{self, Digesting};

/// Why the host did not take a file. The agent gets this text.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// The path does not lead to a file that may be sent.
    #[error("{}", .0.reason)]
    Refused(#[from] Refusal),
    /// The path is absolute and outside the workspace.
    #[error("{shown} is not below {}; copy it there first", box_path::WORKSPACE)]
    Outside { shown: String },
    /// The host itself failed.
    #[error("the host could not keep a copy ({0}); try it again later")]
    Io(#[from] io::Error),
}

impl NotTaken {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Outside { .. } => "file.outside",
            Self::Io(_) => "file.io",
            Self::Refused(refusal) => match refusal.code {
                RefusalCode::Gone => "file.missing",
                RefusalCode::NotRegular => "file.not_regular",
                RefusalCode::Nlink => "file.link",
                RefusalCode::Device => "file.outside",
                RefusalCode::TooBig => "file.too_big",
                _ => "file.io",
            },
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpooledCopy {
    /// The digest of the bytes, which is also the file's name.
    pub sha256: String,
    pub bytes: u64,
}

#[derive(Debug, Clone)]
pub struct Spool {
    dir: PathBuf,
}

impl Spool {
    /// Uses the folder `dir`. The first copy makes the folder.
    pub fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub fn path(&self, sha256: &str) -> PathBuf {
        self.dir.join(sha256)
    }

    /// Copies the file at the agent's `path` out of its workspace. The copy is durable when this returns. It replaces
    /// an earlier copy with the same bytes, so that the copy's age starts again.
    ///
    /// # Errors
    /// The reason why the file cannot be sent.
    pub fn take(&self, workspace: &Path, path: &str, most: u64) -> Result<SpooledCopy, NotTaken> {
        let below = beneath(path)?;
        let wanted = FileRequirements { owner: None, single_link: true, cap: most };
        let file = UntrustedDir::open(workspace)?.file(below, wanted)?;
        self.keep(|to| Ok(file.copy(to)?))
    }

    /// Keeps a text of the host's, such as a reply that is sent as a file.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn keep_text(&self, text: &str) -> io::Result<SpooledCopy> {
        self.keep(|to| to.write_all(text.as_bytes()).map(|()| text.len() as u64))
    }

    fn keep<E: From<io::Error>>(
        &self,
        write: impl FnOnce(&mut Digesting<File>) -> Result<u64, E>,
    ) -> Result<SpooledCopy, E> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let part = self.dir.join(format!(".{}.part", uuid::Uuid::new_v4()));
        let kept = self.write(&part, write);
        if kept.is_err() {
            host_files::remove(&part)?;
        }
        kept
    }

    fn write<E: From<io::Error>>(
        &self,
        part: &Path,
        write: impl FnOnce(&mut Digesting<File>) -> Result<u64, E>,
    ) -> Result<SpooledCopy, E> {
        let part_file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(part)?;
        let mut to = Digesting::new(part_file);
        let bytes = write(&mut to)?;
        let (part_file, sha256) = to.done();
        part_file.sync_all()?;
        fs::rename(part, self.path(&sha256))?;
        host_files::sync_dir(&self.dir)?;
        Ok(SpooledCopy { sha256, bytes })
    }

    /// Lists the files of the spool: copies, and partial copies that a crash left.
    pub fn files(&self) -> Vec<(String, fs::Metadata)> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let seen = entries.filter_map(|e| Some((e.file_name().into_string().ok()?, e.metadata().ok()?)));
        seen.collect()
    }

    /// Removes a file of [`Spool::files`].
    ///
    /// # Errors
    /// The error of unlink(2).
    pub fn remove(&self, name: &str) -> io::Result<()> {
        host_files::remove(&self.dir.join(name))
    }
}

/// Returns the path below the workspace. The kernel refuses a path that leaves the workspace by `..` or a link.
fn beneath(path: &str) -> Result<&Path, NotTaken> {
    let path = Path::new(path);
    let below = path.strip_prefix(box_path::WORKSPACE).unwrap_or(path);
    if below.is_absolute() {
        let shown = ipc_schema::refusal::quote(&path.to_string_lossy(), 80);
        return Err(NotTaken::Outside { shown });
    }
    Ok(if below.as_os_str().is_empty() { Path::new(".") } else { below })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::os::unix::fs::{PermissionsExt, symlink};

    const MIB: u64 = 1 << 20;

    struct Place {
        dir: tempfile::TempDir,
        spool: Spool,
    }

    fn place() -> Place {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("workspace/out")).unwrap();
        fs::write(dir.path().join("secret"), "of the host").unwrap();
        let spool = Spool::at(dir.path().join("spool"));
        Place { dir, spool }
    }

    impl Place {
        fn inside(&self, name: &str) -> PathBuf {
            self.dir.path().join("workspace").join(name)
        }
        fn take(&self, path: &str) -> Result<SpooledCopy, &'static str> {
            self.spool.take(&self.dir.path().join("workspace"), path, 20 * MIB).map_err(|e| e.code())
        }
        fn kept(&self) -> Vec<String> {
            self.spool.files().into_iter().map(|(name, _)| name).collect()
        }
    }

    #[test]
    fn what_is_copied_is_what_is_kept() {
        let p = place();
        fs::write(p.inside("out/a.txt"), "first").unwrap();
        let copied = p.take("out/a.txt").unwrap();
        assert_eq!(copied, SpooledCopy { sha256: ipc_schema::sha256_hex(b"first"), bytes: 5 });
        fs::write(p.inside("out/a.txt"), "second").unwrap();
        assert_eq!(fs::read_to_string(p.spool.path(&copied.sha256)).unwrap(), "first");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&p.spool.dir), mode(&p.spool.path(&copied.sha256))), (0o700, 0o600));
        fs::write(p.inside("b"), "first").unwrap();
        for same in ["/workspace/b", "./b", "out/../b"] {
            assert_eq!(p.take(same).unwrap(), copied, "{same}");
        }
        assert_eq!(p.kept(), [copied.sha256]);
    }

    #[test]
    fn a37_what_is_no_file_of_the_workspace_is_refused_with_its_code_and_leaves_nothing() {
        let p = place();
        fs::write(p.inside("a"), "x").unwrap();
        fs::hard_link(p.inside("a"), p.inside("twin")).unwrap();
        fs::hard_link(p.dir.path().join("secret"), p.inside("of-the-host")).unwrap();
        symlink(p.dir.path().join("secret"), p.inside("link")).unwrap();
        symlink(p.dir.path(), p.inside("up")).unwrap();
        symlink("/proc/self", p.inside("proc")).unwrap();
        mknodat(CWD, p.inside("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        File::create(p.inside("big")).unwrap().set_len(21 * MIB).unwrap();
        File::create(p.inside("sparse")).unwrap().set_len(1 << 40).unwrap();
        for (path, code) in [
            ("../secret", "file.outside"),
            ("../../etc/shadow", "file.outside"),
            ("out/../../secret", "file.outside"),
            ("/workspace/../secret", "file.outside"),
            ("/etc/shadow", "file.outside"),
            ("/workspaces/main/a", "file.outside"),
            ("missing", "file.missing"),
            ("", "file.not_regular"),
            ("/workspace", "file.not_regular"),
            ("out", "file.not_regular"),
            ("link", "file.not_regular"),
            ("up/secret", "file.not_regular"),
            ("proc/environ", "file.not_regular"),
            ("fifo", "file.not_regular"),
            ("a/b", "file.not_regular"),
            ("twin", "file.link"),
            ("of-the-host", "file.link"),
            ("big", "file.too_big"),
            ("sparse", "file.too_big"),
        ] {
            assert_eq!(p.take(path), Err(code), "{path}");
        }
        assert_eq!(p.kept(), Vec::<String>::new());
    }
}
