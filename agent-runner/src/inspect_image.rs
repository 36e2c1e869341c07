//! `agent-runner inspect-image`: writes an inventory of the image (shell, programs, certificates, zones) to one file.
//!
//! The host runs it in a container of a new image before any agent uses that image. It reads no letter, asks no model
//! and changes nothing but that file.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ipc_schema::image_inventory::{FILE, ImageInventory, PROGRAMS};

use crate::box_paths::BoxPaths;
use crate::tools::Shell;

/// Where distributions keep the CA bundle (the list of Go's crypto/x509).
const CERTIFICATES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const ZONES: &str = "/usr/share/zoneinfo/Europe";
/// os-release(5): the first path may be changed by the image's owner, the second is the distribution's.
const SYSTEM: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

/// Writes the inventory to the from-agent directory.
///
/// # Errors
/// When the from-agent directory cannot be written.
pub fn inspect(paths: &BoxPaths) -> io::Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).filter(|dir| dir.is_absolute()).collect();
    let inventory = ImageInventory {
        runner: env!("CARGO_PKG_VERSION").to_owned(),
        system: SYSTEM.iter().find_map(|file| pretty_name(&fs::read_to_string(file).ok()?)),
        shell: Shell::probe().map(|shell| shell.name()),
        programs: PROGRAMS
            .iter()
            .filter(|name| is_on_path(&dirs, name))
            .map(|name| (*name).to_owned())
            .collect(),
        certificates: CERTIFICATES.iter().any(|file| fs::metadata(file).is_ok_and(|m| m.len() > 0)),
        zones: Path::new(ZONES).is_dir(),
    };
    let dir = paths.ipc_from_agent();
    let draft = dir.join(format!(".{FILE}"));
    fs::write(&draft, serde_json::to_vec(&inventory)?)?;
    fs::rename(draft, dir.join(FILE))
}

fn is_on_path(dirs: &[PathBuf], name: &str) -> bool {
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
        assert!(inspect(&paths).is_err(), "nowhere to write");
        fs::create_dir_all(paths.ipc_from_agent()).unwrap();
        inspect(&paths).unwrap();
        let names: Vec<_> =
            fs::read_dir(paths.ipc_from_agent()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, [FILE]);
        let inventory = ImageInventory::read(&fs::read(paths.ipc_from_agent().join(FILE)).unwrap()).unwrap();
        assert_eq!(inventory.runner, env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn a_program_is_a_file_that_may_be_run() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = [dir.path().to_owned()];
        fs::write(dir.path().join("git"), "").unwrap();
        fs::create_dir(dir.path().join("make")).unwrap();
        assert!(!is_on_path(&dirs, "git") && !is_on_path(&dirs, "make"));
        fs::set_permissions(dir.path().join("git"), PermissionsExt::from_mode(0o755)).unwrap();
        assert!(is_on_path(&dirs, "git"));
    }

    #[test]
    fn a_system_says_its_name() {
        assert_eq!(pretty_name("ID=x\nPRETTY_NAME=\"A B\"\n").as_deref(), Some("A B"));
        assert_eq!(pretty_name("PRETTY_NAME=\n"), None);
        assert_eq!(pretty_name("NAME=x"), None);
    }
}
