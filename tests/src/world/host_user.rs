//! A host that does not run as root: its user may call the engine and shares a group with the boxes.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::{World, lazaret, runner};

/// A user and a group that exist on no machine.
const UID: u32 = 12_345;
const GID: u32 = 23_456;

/// The user that runs the host.
#[derive(Debug)]
pub(super) struct User {
    groups: String,
    program: PathBuf,
}

impl User {
    /// Returns a command that runs the host's program as this user. (It uses `setpriv` of util-linux, because the
    /// standard library cannot set groups.)
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &UID.to_string(), "--regid", &GID.to_string()]);
        command.args(["--groups", &self.groups, "--no-new-privs", "--"]).arg(&self.program);
        command
    }
}

impl World {
    /// Lets a user without root run the host and every command. The user is in the group of the engine's socket. The
    /// user owns the root directory, whose group the boxes share. Call this before the host is up. The test itself must
    /// run as root.
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
    // The user may not be allowed to enter the build directory.
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
