//! The paths of the box's directories, and the translation of paths that the model writes.
//!
//! Every module that touches the file system asks here. The root is `/` in a box and a temporary directory in tests;
//! no other module may build an absolute path itself.

use std::path::{Path, PathBuf};

use ipc_schema::names_and_paths::{self, box_path};

/// The protocol's directories below one root.
#[derive(Debug, Clone)]
pub struct BoxPaths {
    root: PathBuf,
}

impl BoxPaths {
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub fn ipc_to_agent(&self) -> PathBuf {
        self.absolute(box_path::IPC).join(names_and_paths::TO_AGENT)
    }

    pub fn ipc_from_agent(&self) -> PathBuf {
        self.absolute(box_path::IPC).join(names_and_paths::FROM_AGENT)
    }

    pub fn socket(&self) -> PathBuf {
        self.absolute(box_path::RUN).join(names_and_paths::GATEWAY_SOCKET)
    }

    pub fn session(&self) -> PathBuf {
        self.absolute(box_path::SESSION)
    }

    /// The group's files. Commands run here.
    pub fn workspace(&self) -> PathBuf {
        self.absolute(box_path::WORKSPACE)
    }

    /// Files that all groups share.
    pub fn global(&self) -> PathBuf {
        self.absolute(box_path::GLOBAL)
    }

    /// `$HOME`.
    pub fn home(&self) -> PathBuf {
        self.workspace().join(".home")
    }

    /// The search index of the memory. It can be deleted at any time.
    pub fn memory_index(&self) -> PathBuf {
        self.home().join(".cache/memory-index.db")
    }

    /// Log files of background commands.
    pub fn background(&self) -> PathBuf {
        self.home().join("background")
    }

    /// A path as the model writes it: absolute, below `~/`, or relative to the workspace.
    pub fn resolve(&self, path: &str) -> PathBuf {
        match path.strip_prefix("~/") {
            Some(rest) => self.home().join(rest),
            None if path == "~" => self.home(),
            None if path.starts_with('/') => self.absolute(path),
            None => self.workspace().join(path),
        }
    }

    /// The path as the model knows it: without the root.
    pub fn shown(&self, path: &Path) -> String {
        match path.strip_prefix(&self.root) {
            Ok(inside) => Path::new("/").join(inside).display().to_string(),
            Err(_) => path.display().to_string(),
        }
    }

    fn absolute(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_model_land_below_the_root() {
        let paths = BoxPaths::below("/r");
        for (written, meant, shown) in [
            ("notes/a.md", "/r/workspace/notes/a.md", "/workspace/notes/a.md"),
            ("/inbox/x", "/r/inbox/x", "/inbox/x"),
            ("~/b", "/r/workspace/.home/b", "/workspace/.home/b"),
            ("~", "/r/workspace/.home", "/workspace/.home"),
        ] {
            assert_eq!(paths.resolve(written), Path::new(meant));
            assert_eq!(paths.shown(Path::new(meant)), shown);
        }
        let real = BoxPaths::below("/");
        assert_eq!(real.resolve("/etc/hosts"), Path::new("/etc/hosts"));
        assert_eq!(real.shown(Path::new("/etc/hosts")), "/etc/hosts");
        assert_eq!(real.socket(), Path::new("/run/lazaret/gateway.sock"));
    }
}
