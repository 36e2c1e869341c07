//! `agent-runner inspect-image`: what the image offers, told to the host in one file, before any agent lives in it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ipc_schema::image_inventory::{FILE, ImageInventory, PROGRAMS};

use crate::box_paths::BoxPaths;
use crate::tools::Shell;

/// Where distributions keep the certificates that programs trust (Go's crypto/x509 has the same list).
const CERTIFICATES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const ZONES: &str = "/usr/share/zoneinfo/Europe";
/// os-release(5): the second is where a distribution keeps it, the first is what its owner may change.
const SYSTEM: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

/// Looks around and writes down what is there.
///
/// # Errors
/// When the host gave no place to write to.
pub fn look(paths: &BoxPaths) -> io::Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).filter(|dir| dir.is_absolute()).collect();
    let offers = ImageInventory {
        runner: env!("CARGO_PKG_VERSION").to_owned(),
        system: SYSTEM.iter().find_map(|file| pretty_name(&fs::read_to_string(file).ok()?)),
        shell: Shell::probe().map(|shell| shell.name()),
        programs: PROGRAMS
            .iter()
            .filter(|name| is_along(&dirs, name))
            .map(|name| (*name).to_owned())
            .collect(),
        certificates: CERTIFICATES.iter().any(|file| fs::metadata(file).is_ok_and(|m| m.len() > 0)),
        zones: Path::new(ZONES).is_dir(),
    };
    let dir = paths.ipc_from_agent();
    let draft = dir.join(format!(".{FILE}"));
    fs::write(&draft, serde_json::to_vec(&offers)?)?;
    fs::rename(draft, dir.join(FILE))
}

fn is_along(dirs: &[PathBuf], name: &str) -> bool {
    dirs.iter().any(|dir| {
        fs::metadata(dir.join(name)).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    })
}

/// `PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"`
fn pretty_name(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    let name = value.trim().trim_matches(['"', '\'']);
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_lies_where_the_host_looks_for_it() {
        let root = tempfile::tempdir().unwrap();
        let paths = BoxPaths::below(root.path());
        assert!(look(&paths).is_err(), "nowhere to write");
        fs::create_dir_all(paths.ipc_from_agent()).unwrap();
        look(&paths).unwrap();
        let names: Vec<_> =
            fs::read_dir(paths.ipc_from_agent()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, [FILE]);
        let offers = ImageInventory::read(&fs::read(paths.ipc_from_agent().join(FILE)).unwrap()).unwrap();
        assert_eq!(offers.runner, env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn a_program_is_a_file_that_may_be_run() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = [dir.path().to_owned()];
        fs::write(dir.path().join("git"), "").unwrap();
        fs::create_dir(dir.path().join("make")).unwrap();
        assert!(!is_along(&dirs, "git") && !is_along(&dirs, "make"));
        fs::set_permissions(dir.path().join("git"), PermissionsExt::from_mode(0o755)).unwrap();
        assert!(is_along(&dirs, "git"));
    }

    #[test]
    fn a_system_says_its_name() {
        assert_eq!(pretty_name("ID=x\nPRETTY_NAME=\"A B\"\n").as_deref(), Some("A B"));
        assert_eq!(pretty_name("PRETTY_NAME=\n"), None);
        assert_eq!(pretty_name("NAME=x"), None);
    }
}
