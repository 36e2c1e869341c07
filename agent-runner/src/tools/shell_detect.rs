//! Finds the shell of the image.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A shell and how to pass it a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shell {
    program: PathBuf,
    /// `busybox` alone is not a shell; `busybox sh` is.
    applet: Option<&'static str>,
}

const PLACES: [(&str, Option<&str>); 9] = [
    ("/bin/bash", None),
    ("/usr/bin/bash", None),
    ("/usr/local/bin/bash", None),
    ("/bin/sh", None),
    ("/usr/bin/sh", None),
    ("/bin/ash", None),
    ("/bin/busybox", Some("sh")),
    ("/usr/bin/busybox", Some("sh")),
    ("/busybox/busybox", Some("sh")),
];

impl Shell {
    /// Looks in the usual directories, then along PATH, because some images keep everything elsewhere.
    pub fn probe() -> Option<Self> {
        let usual = PLACES.into_iter().map(|(program, applet)| (PathBuf::from(program), applet));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let along_path: Vec<_> = std::env::split_paths(&path).collect();
        let along_path = ["bash", "sh"].into_iter().flat_map(|name| {
            along_path.iter().filter(|dir| dir.is_absolute()).map(move |dir| (dir.join(name), None))
        });
        Self::first_of(usual.chain(along_path))
    }

    fn first_of(candidates: impl Iterator<Item = (PathBuf, Option<&'static str>)>) -> Option<Self> {
        candidates
            .into_iter()
            .find(|(program, _)| is_executable(program))
            .map(|(program, applet)| Self { program, applet })
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    pub fn arguments<'a>(&self, command: &'a str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.applet.into_iter().chain(["-c", command])
    }

    /// The name in `ready` and in the prompt.
    pub fn name(&self) -> String {
        let program = self.program.display();
        self.applet.map_or_else(|| program.to_string(), |applet| format!("{program} {applet}"))
    }
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_program_that_can_run_is_the_shell() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("text"), "").unwrap();
        std::fs::create_dir(path("dir")).unwrap();
        std::fs::write(path("busybox"), "").unwrap();
        std::fs::set_permissions(path("busybox"), PermissionsExt::from_mode(0o755)).unwrap();
        let candidates = || {
            ["missing", "text", "dir", "busybox"]
                .into_iter()
                .map(|name| (path(name), (name == "busybox").then_some("sh")))
        };
        let shell = Shell::first_of(candidates()).unwrap();
        assert!(shell.name().ends_with("busybox sh"));
        assert_eq!(shell.arguments("ls").collect::<Vec<_>>(), ["sh", "-c", "ls"]);
        assert_eq!(Shell::first_of(candidates().take(3)), None);
    }
}
