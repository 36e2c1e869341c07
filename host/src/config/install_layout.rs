//! The layout of an install's folder. Whoever needs a path of it asks here; nobody else joins names.

use std::path::{Path, PathBuf};

use crate::domain::{ChannelName, GroupName, RunId};

/// An install's root directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Root {
    /// Makes the path absolute, because the engine needs absolute mount sources.
    ///
    /// # Errors
    /// When there is no current directory.
    pub fn new(path: &Path) -> std::io::Result<Self> {
        std::path::absolute(path).map(Self)
    }

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
    /// `groups/NAME`
    pub fn group_folder(&self, group: &GroupName) -> PathBuf {
        self.groups().join(group.as_str())
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
    pub fn database(&self) -> PathBuf {
        self.state().join("lazaret.db")
    }
    /// The index of what was said, which is made anew if it is gone.
    pub fn history_index(&self) -> PathBuf {
        self.state().join(crate::store::HISTORY_INDEX)
    }
    /// The file with the install's id.
    pub fn install_id(&self) -> PathBuf {
        self.state().join("install")
    }
    /// The file with the place of `state/` at the last start. A copy of the install is known by it.
    pub fn install_place(&self) -> PathBuf {
        self.state().join("install.place")
    }
    /// The settings that the running host was started with.
    pub fn running_settings(&self) -> PathBuf {
        self.host_socket_dir().join("settings.json")
    }
    /// The nightly copies of the database.
    pub fn backups(&self) -> PathBuf {
        self.state().join("backups")
    }
    /// The file that a host locks, so that there is only one.
    pub fn lock(&self) -> PathBuf {
        self.state().join("host.lock")
    }
    /// The folder of the host's own socket, which `lazaret chat` talks to.
    pub fn host_socket_dir(&self) -> PathBuf {
        self.state().join("host")
    }
    /// The files of one channel, such as the keys of a linked account. Only the host's user can open it.
    pub fn channel_folder(&self, channel: &ChannelName) -> PathBuf {
        self.state().join("channels").join(channel.as_str())
    }
    /// The files that a group's agent works on.
    pub fn workspace(&self, group: &GroupName) -> PathBuf {
        self.state().join("workspaces").join(group.as_str())
    }
    /// The transcripts of a group: a folder for each session, the ended ones too. A box sees the folder of its session.
    pub fn sessions(&self, group: &GroupName) -> PathBuf {
        self.state().join("sessions").join(group.as_str())
    }
    /// Image files of groups' file systems. No box sees them.
    pub fn volumes(&self) -> PathBuf {
        self.state().join("volumes")
    }
    /// The folders of a group that `limits.disk_images` makes file systems of their own, each with its image file:
    /// workspace and transcripts.
    pub fn volumes_of(&self, group: &GroupName) -> [(PathBuf, PathBuf); 2] {
        let image = |what: &str| self.volumes().join(format!("{group}.{what}.ext4"));
        [(self.workspace(group), image("workspace")), (self.sessions(group), image("sessions"))]
    }
    /// Files that people have sent to a group.
    pub fn inbox(&self, group: &GroupName) -> PathBuf {
        self.state().join("inbox").join(group.as_str())
    }
    /// Files shared by all groups.
    pub fn global(&self) -> PathBuf {
        self.state().join("global")
    }
    /// The host's copies of files that agents send, until they are sent. No box sees them.
    pub fn spool(&self) -> PathBuf {
        self.state().join("spool")
    }
    /// The mailboxes of runs that live.
    pub fn ipc(&self) -> PathBuf {
        self.state().join("ipc")
    }
    /// The mailbox of one run.
    pub fn run_ipc(&self, group: &GroupName, run: &RunId) -> PathBuf {
        self.ipc().join(group.as_str()).join(run.as_str())
    }
    /// Copies of a run's letters.
    pub fn letters(&self, group: &GroupName, run: &RunId) -> PathBuf {
        self.state().join("letters").join(group.as_str()).join(run.as_str())
    }
    /// Copies of the agent-runner, by digest.
    pub fn runners(&self) -> PathBuf {
        self.state().join("runner")
    }
    /// Folders of boxes that only check an image.
    pub fn trials(&self) -> PathBuf {
        self.state().join("trials")
    }
    /// Copies of images' `/etc/passwd` with a line for the box's user.
    pub fn passwd(&self) -> PathBuf {
        self.state().join("passwd")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_folder_that_a_box_sees_holds_the_keys_of_linked_accounts() {
        let root = Root::new(Path::new("/srv/lazaret")).unwrap();
        let group: GroupName = "channels".parse().unwrap();
        let keys = root.channel_folder(&ChannelName::new("chat"));
        // A box sees these folders, or folders in them.
        for seen in [
            root.workspace(&group),
            root.sessions(&group),
            root.inbox(&group),
            root.global(),
            root.ipc(),
            root.runners(),
            root.trials(),
            root.passwd(),
        ] {
            assert!(!keys.starts_with(&seen) && !seen.starts_with(&keys), "{}", seen.display());
        }
    }
}
