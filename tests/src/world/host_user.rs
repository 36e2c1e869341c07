//! A host that root does not run: a user who may ask the engine, and shares a group with the boxes.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::{World, lazaret, runner};

/// A user and a group that no machine has.
const UID: u32 = 12_345;
const GID: u32 = 23_456;

/// Who runs the host.
#[derive(Debug)]
pub(super) struct User {
    groups: String,
    program: PathBuf,
}

impl User {
    /// The host's program, run by this user. (`setpriv` is util-linux's; the standard library can set no groups.)
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &UID.to_string(), "--regid", &GID.to_string()]);
        command.args(["--groups", &self.groups, "--no-new-privs", "--"]).arg(&self.program);
        command
    }
}

impl World {
    /// From now on the host and every command are run by a user of the group of the engine's socket, as an install for
    /// somebody without root is: the root directory is that user's, of a group that the boxes share. Call it before the
    /// host is up.
    ///
    /// # Panics
    /// When the test itself is not root, or the engine has no socket in the file system.
    #[must_use]
    pub fn without_root(mut self) -> Self {
        match settled(self.root.path(), &self.engine.socket()) {
            Ok((user, runner)) => {
                self.user = Some(user);
                self.set("LAZARET_RUNNER", &runner.to_string_lossy());
                self
            }
            Err(e) => panic!("no user to run the host: {e}"),
        }
    }
}

fn settled(root: &Path, engine: &str) -> io::Result<(User, PathBuf)> {
    let socket = std::fs::metadata(engine.trim_start_matches("unix://"))?.gid();
    // What was built may lie where only its builder looks.
    let bin = root.join("bin");
    std::fs::create_dir(&bin)?;
    let [program, runner] = [lazaret(), runner()].map(|built| reachable(&built, &bin));
    chown(root, Some(UID), Some(GID))?;
    std::fs::set_permissions(root, PermissionsExt::from_mode(0o2770))?;
    Ok((User { groups: format!("{socket},{GID}"), program: program? }, runner?))
}

fn reachable(built: &Path, bin: &Path) -> io::Result<PathBuf> {
    let built = built.canonicalize()?;
    let path = bin.join(built.file_name().unwrap_or_default());
    std::fs::hard_link(&built, &path).or_else(|_| std::fs::copy(&built, &path).map(drop))?;
    Ok(path)
}
