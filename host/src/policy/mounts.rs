//! Decides which directories of the machine a group's boxes may mount besides their own. Mounts come only from two
//! files on the host's disk. No letter has a field for one.
//!
//! The install's `[mounts] allow` names roots, and a group's `mounts` may name paths below them. A mount is writable
//! only if both say so. A second check follows: paths that usually hold secrets, system directories and the install
//! itself are refused even if a root allows them.

use std::path::{Component, Path, PathBuf};

use crate::domain::group_settings::ExtraMount;

/// Extra mounts must have targets below this directory, because none of our own mounts is there.
const BELOW: &str = "/mnt/";
/// System directories. A mount may not be one, lie in one or contain one.
const MACHINE: [&str; 11] = [
    "/proc",
    "/sys",
    "/dev",
    "/etc",
    "/root",
    "/boot",
    "/run",
    "/var/run",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/spool/cron",
];
/// Names that usually hold secrets, anywhere in a path.
pub const SECRETS: [&str; 30] = [
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".kube",
    ".docker",
    ".config",
    ".gcloud",
    ".password-store",
    ".mozilla",
    ".thunderbird",
    ".netrc",
    ".npmrc",
    ".pypirc",
    ".pgpass",
    ".git-credentials",
    ".vault-token",
    ".env",
    ".local",
    ".bitcoin",
    "credentials",
    "secrets",
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    "shadow",
    "docker.sock",
    "containerd.sock",
    "podman.sock",
];
const SECRET_ENDINGS: [&str; 7] = [".pem", ".key", ".p12", ".pfx", ".kdbx", ".sock", ".keystore"];

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// The target is not allowed.
    #[error("the target {target:?} {why}; targets look like \"/mnt/photos\"")]
    Target { target: String, why: &'static str },
    /// The path on the host is not in plain form.
    #[error("{} is no plain absolute path: it begins with / and has no `.`, `..` or empty part", source_path.display())]
    NotPlain { source_path: PathBuf },
    #[error("{} lies below nothing that [mounts] allow in lazaret.toml names; add {{ path = {:?} }} there",
            source_path.display(), source_path.display().to_string())]
    NotAllowed { source_path: PathBuf },
    #[error("{} may only be read: [mounts] allow in lazaret.toml has {} without writable = true",
            source_path.display(), root.display())]
    ReadOnly {
        source_path: PathBuf,
        /// The root that contains the source.
        root: PathBuf,
    },
    /// The path is or contains something that no box may see.
    #[error("{} {why}; boxes never see that, whatever is allowed", source_path.display())]
    Secret { source_path: PathBuf, why: String },
    #[error("the mount source {} is not there; make it, or take it out of `mounts` in group.toml", source_path.display())]
    Gone { source_path: PathBuf },
    #[error("{} is a symbolic link on the way to the mount source {}; name where it leads",
            link.display(), source_path.display())]
    Link { source_path: PathBuf, link: PathBuf },
    /// Another user could replace the source.
    #[error("{} {why}, so the mount source {} could be exchanged; give it to root (or the host's user) and take away \
             the others' right to write: chmod go-w", dir.display(), source_path.display())]
    Exchangeable { source_path: PathBuf, dir: PathBuf, why: String },
    #[error("the mount source {} is neither a directory nor a file", source_path.display())]
    Kind { source_path: PathBuf },
    #[error("the mount source {}: {why}", source_path.display())]
    Io { source_path: PathBuf, why: String },
}

impl MountError {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Target { .. } => "mount.target",
            Self::NotPlain { .. } => "mount.path",
            Self::NotAllowed { .. } => "mount.not_allowed",
            Self::ReadOnly { .. } => "mount.read_only",
            Self::Secret { .. } => "mount.secret",
            Self::Gone { .. } => "mount.gone",
            Self::Link { .. } => "mount.link",
            Self::Exchangeable { .. } => "mount.exchangeable",
            Self::Kind { .. } => "mount.kind",
            Self::Io { .. } => "mount.io",
        }
    }
}

/// A root from `[mounts] allow`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedRoot {
    pub path: PathBuf,
    pub writable: bool,
}

/// Checks a root of `[mounts] allow`.
///
/// # Errors
/// Why it is refused.
pub fn check_root(root: &Path, install: &Path) -> Result<(), MountError> {
    check_source(root, install)
}

/// Checks a group's mounts. Returns the index of each refused mount, and why it is refused.
pub fn check(wanted: &[ExtraMount], allowed: &[AllowedRoot], install: &Path) -> Vec<(usize, MountError)> {
    let check = |(n, mount): (usize, _)| {
        let before = wanted.get(..n).unwrap_or_default();
        Some((n, check_one(mount, before, allowed, install).err()?))
    };
    wanted.iter().enumerate().filter_map(check).collect()
}

fn check_one(
    mount: &ExtraMount,
    before: &[ExtraMount],
    allowed: &[AllowedRoot],
    install: &Path,
) -> Result<(), MountError> {
    let target = |why| Err(MountError::Target { target: mount.target.clone(), why });
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.len() <= 64
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    match mount.target.strip_prefix(BELOW) {
        Some(rest) if rest.split('/').all(plain) => {}
        Some(_) => {
            return target(
                "has a part that is empty, begins with a dot, or holds more than letters, digits and ._-",
            );
        }
        None => return target("does not lie below /mnt/"),
    }
    // The engine would create the missing inner target inside the outer mount, which is the owner's directory.
    if before.iter().any(|other| overlaps(Path::new(&mount.target), Path::new(&other.target))) {
        return target("is, holds or lies in another mount's target");
    }
    check_source(&mount.source, install)?;
    let root = allowed
        .iter()
        .filter(|root| mount.source.starts_with(&root.path))
        .max_by_key(|root| root.path.components().count())
        .ok_or_else(|| MountError::NotAllowed { source_path: mount.source.clone() })?;
    if mount.writable && !root.writable {
        return Err(MountError::ReadOnly { source_path: mount.source.clone(), root: root.path.clone() });
    }
    // A box that may write to the outer source could replace the inner one with a link.
    let inside = |inner: &ExtraMount, outer: &ExtraMount| {
        outer.writable && inner.source != outer.source && inner.source.starts_with(&outer.source)
    };
    match before.iter().find(|other| inside(mount, other) || inside(other, mount)) {
        Some(other) => Err(MountError::Exchangeable {
            source_path: mount.source.clone(),
            dir: other.source.clone(),
            why: "overlaps with a mount that this group may write".into(),
        }),
        None => Ok(()),
    }
}

fn check_source(source: &Path, install: &Path) -> Result<(), MountError> {
    let text = source.to_str().unwrap_or_default();
    let plain = text.strip_prefix('/').is_some_and(|rest| {
        rest.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.chars().any(char::is_control))
    });
    if !plain {
        return Err(MountError::NotPlain { source_path: source.to_owned() });
    }
    let secret = |why: String| Err(MountError::Secret { source_path: source.to_owned(), why });
    if let Some(own) = MACHINE.iter().find(|own| overlaps(source, Path::new(own))) {
        return secret(format!("is, holds or lies in {own}, which is the machine's own"));
    }
    if overlaps(source, install) {
        return secret("is, holds or lies in this install".into());
    }
    let parts: Vec<&str> = source
        .components()
        .filter_map(|c| if let Component::Normal(part) = c { part.to_str() } else { None })
        .collect();
    if parts.first() == Some(&"home") && parts.len() <= 2 {
        return secret("is a whole home directory".into());
    }
    match parts.iter().find(|part| is_secret(part)) {
        Some(part) => secret(format!("has {part} in it, a usual name of secrets")),
        None => Ok(()),
    }
}

fn is_secret(part: &str) -> bool {
    let part = part.to_lowercase();
    SECRETS.contains(&part.as_str())
        || part.starts_with(".env.")
        || SECRET_ENDINGS.iter().any(|ending| part.ends_with(ending))
}

fn overlaps(a: &Path, b: &Path) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INSTALL: &str = "/srv/lazaret";

    fn mount(source: &str, target: &str, writable: bool) -> ExtraMount {
        ExtraMount { source: source.into(), target: target.into(), writable }
    }

    fn allowed() -> Vec<AllowedRoot> {
        vec![
            AllowedRoot { path: "/srv/photos".into(), writable: false },
            AllowedRoot { path: "/srv/photos/inbox".into(), writable: true },
            // This root allows too much. The second check still refuses secrets.
            AllowedRoot { path: "/".into(), writable: true },
        ]
    }

    fn code(mounts: &[ExtraMount], allowed: &[AllowedRoot]) -> &'static str {
        check(mounts, allowed, Path::new(INSTALL)).first().map_or("ok", |(_, e)| e.code())
    }

    #[test]
    fn what_is_allowed_is_read_and_written_only_where_both_say_so() {
        let photos = &allowed()[..2];
        for (source, writable, verdict) in [
            ("/srv/photos", false, "ok"),
            ("/srv/photos/2024", false, "ok"),
            ("/srv/photos", true, "mount.read_only"),
            ("/srv/photos/inbox/new", true, "ok"),
            ("/srv/photosynthesis", false, "mount.not_allowed"),
            ("/srv", false, "mount.secret"),
            ("/data", false, "mount.not_allowed"),
        ] {
            assert_eq!(code(&[mount(source, "/mnt/p", writable)], photos), verdict, "{source} {writable}");
        }
        assert_eq!(code(&[mount("/data", "/mnt/p", false)], &[]), "mount.not_allowed");
    }

    #[test]
    fn b9_what_holds_secrets_or_is_the_machines_is_refused_even_if_it_is_allowed() {
        for source in [
            "/home",
            "/home/ann",
            "/home/ann/.ssh",
            "/home/ann/.ssh/id_ed25519",
            "/home/ann/.AWS",
            "/home/ann/.config/gh",
            "/data/server.pem",
            "/data/.env",
            "/data/.env.production",
            "/data/docker.sock",
            "/var/run/docker.sock",
            "/run/containerd/containerd.sock",
            "/var/lib/docker",
            "/var/lib",
            "/var",
            "/proc",
            "/etc/shadow",
            "/etc",
            "/root/x",
            "/dev/sda",
            "/srv/lazaret",
            "/srv/lazaret/state/lazaret.db",
            "/srv/lazaret/state/channels/chat/device.db",
            "/srv",
        ] {
            assert_eq!(code(&[mount(source, "/mnt/p", false)], &allowed()), "mount.secret", "{source}");
        }
        for source in ["/", "relative", "", "/data/../etc", "/data/./x", "/data//x", "/data/", "/data/a\nb"] {
            assert_eq!(code(&[mount(source, "/mnt/p", false)], &allowed()), "mount.path", "{source:?}");
        }
        assert_eq!(code(&[mount("/home/ann/notes", "/mnt/notes", true)], &allowed()), "ok");
    }

    #[test]
    fn b3_targets_lie_below_mnt_and_not_in_each_other() {
        for target in [
            "/workspace/x",
            "/mnt",
            "/mnt/",
            "/mnt/../ipc",
            "/mnt/a/../b",
            "/mnt//a",
            "/mnt/a/",
            "/mnt/.ssh",
            "mnt/a",
            "/mnt/a b",
            "/mnt/a:ro",
            "",
        ] {
            assert_eq!(code(&[mount("/data", target, false)], &allowed()), "mount.target", "{target:?}");
        }
        let two = |a: &str, b: &str| code(&[mount("/data", a, false), mount("/other", b, false)], &allowed());
        assert_eq!(two("/mnt/a", "/mnt/a"), "mount.target");
        assert_eq!(two("/mnt/a", "/mnt/a/b"), "mount.target");
        assert_eq!(two("/mnt/a", "/mnt/ab"), "ok");
    }

    #[test]
    fn nothing_is_mounted_from_inside_what_the_group_may_write() {
        let nested = |outer, inner| {
            code(&[mount("/data", "/mnt/a", outer), mount("/data/x", "/mnt/b", inner)], &allowed())
        };
        assert_eq!(nested(true, false), "mount.exchangeable");
        assert_eq!(nested(false, true), "ok", "the outer one cannot be written");
        let turned = [mount("/data/x", "/mnt/b", false), mount("/data", "/mnt/a", true)];
        assert_eq!(code(&turned, &allowed()), "mount.exchangeable");
    }

    proptest! {
        /// For any settings, an accepted mount is in plain form, allowed, and not a system directory.
        #[test]
        fn what_passes_is_below_an_allowed_root(
            source in "(/|/\\.\\.?|/srv|/photos|/etc|/[a-z.]{1,4}){1,5}/?", target in "(/mnt)?(/|/\\.\\.|/[a-z.]{1,3}){1,3}",
        ) {
            let roots = [AllowedRoot { path: "/srv/photos".into(), writable: true }];
            if check(&[mount(&source, &target, true)], &roots, Path::new(INSTALL)).is_empty() {
                prop_assert!(Path::new(&source).starts_with("/srv/photos"));
                let goes_up = |path: &str| path.split('/').any(|name| name == "..");
                prop_assert!(!goes_up(&source) && !goes_up(&target));
                prop_assert!(target.starts_with("/mnt/") && !target.ends_with('/'));
            }
        }
    }
}
