//! Where an install keeps what: the one place that knows the layout of section 9's tree.

use std::path::{Path, PathBuf};

use crate::domain::{GroupName, RunId};

/// An install's root directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Root {
    /// A root; the path is made absolute, because the engine needs absolute mount sources.
    ///
    /// # Errors
    /// When there is no current directory.
    pub fn new(path: &Path) -> std::io::Result<Self> {
        std::path::absolute(path).map(Self)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }
    /// `lazaret.toml`
    pub fn install_file(&self) -> PathBuf {
        self.0.join("lazaret.toml")
    }
    /// `groups/`
    pub fn groups(&self) -> PathBuf {
        self.0.join("groups")
    }
    /// `groups/NAME/group.toml`
    pub fn group_file(&self, group: &GroupName) -> PathBuf {
        self.groups().join(group.as_str()).join("group.toml")
    }
    /// `groups/NAME/CLAUDE.md`
    pub fn personality(&self, group: &GroupName) -> PathBuf {
        self.groups().join(group.as_str()).join("CLAUDE.md")
    }
    /// `groups/global/CLAUDE.md`
    pub fn global_personality(&self) -> PathBuf {
        self.groups().join("global/CLAUDE.md")
    }
    /// `state/`
    pub fn state(&self) -> PathBuf {
        self.0.join("state")
    }
    /// The database.
    pub fn database(&self) -> PathBuf {
        self.state().join("lazaret.db")
    }
    /// The nightly copies of the database.
    pub fn backups(&self) -> PathBuf {
        self.state().join("backups")
    }
    /// The lock of the one host.
    pub fn lock(&self) -> PathBuf {
        self.state().join("host.lock")
    }
    /// The folder of the host's own socket, which `lazaret chat` talks to.
    pub fn host_socket_dir(&self) -> PathBuf {
        self.state().join("host")
    }
    /// A group's files.
    pub fn workspace(&self, group: &GroupName) -> PathBuf {
        self.state().join("workspaces").join(group.as_str())
    }
    /// A group's transcripts.
    pub fn sessions(&self, group: &GroupName) -> PathBuf {
        self.state().join("sessions").join(group.as_str())
    }
    /// Images of groups' file systems: outside every mount.
    pub fn volumes(&self) -> PathBuf {
        self.state().join("volumes")
    }
    /// What of a group is a file system of its own where the settings say so: workspace and transcripts, each with its
    /// image.
    pub fn volumes_of(&self, group: &GroupName) -> [(PathBuf, PathBuf); 2] {
        let image = |what: &str| self.volumes().join(format!("{group}.{what}.ext4"));
        [(self.workspace(group), image("workspace")), (self.sessions(group), image("sessions"))]
    }
    /// A group's attachments.
    pub fn inbox(&self, group: &GroupName) -> PathBuf {
        self.state().join("inbox").join(group.as_str())
    }
    /// Files shared by all groups.
    pub fn global(&self) -> PathBuf {
        self.state().join("global")
    }
    /// Files that agents send, until they are sent: the host's own copies, outside every mount.
    pub fn spool(&self) -> PathBuf {
        self.state().join("spool")
    }
    /// Letters on their way.
    pub fn ipc(&self) -> PathBuf {
        self.state().join("ipc")
    }
    /// The wall of one run.
    pub fn run_ipc(&self, group: &GroupName, run: &RunId) -> PathBuf {
        self.ipc().join(group.as_str()).join(run.as_str())
    }
    /// Copies of a run's letters.
    pub fn letters(&self, group: &GroupName, run: &RunId) -> PathBuf {
        self.state().join("letters").join(group.as_str()).join(run.as_str())
    }
    /// Runners by digest.
    pub fn runners(&self) -> PathBuf {
        self.state().join("runner")
    }
    /// Directories of boxes on trial.
    pub fn trials(&self) -> PathBuf {
        self.state().join("trials")
    }
    /// Copies of images' `/etc/passwd` with one line more.
    pub fn passwd(&self) -> PathBuf {
        self.state().join("passwd")
    }
}
