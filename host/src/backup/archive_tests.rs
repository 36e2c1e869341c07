//! Archives that are written, changed by hand, and restored.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::archive::{Archived, Links};
use super::layout::{Contents, MANIFEST};
use super::{BackupError, is_archive, stamp};
use crate::config::{Install, Root};
use crate::domain::WallMs;
use crate::host_files::{self, hex};
use crate::store::{Restored, Store};

const NOW: WallMs = WallMs(1_795_000_000_000);

fn write_file(root: &Root, name: &str, text: &str) {
    let path = root.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

async fn install() -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(&dir.path().join("a")).unwrap();
    write_file(&root, "lazaret.toml", "[channels.telegram]\ntoken_file = \"groups/token\"\n");
    write_file(&root, "groups/main/CLAUDE.md", "You are Laz.");
    write_file(&root, "groups/token", "4242:secret");
    write_file(&root, "state/sessions/main/conversation-1.jsonl", "{}\n");
    write_file(&root, "state/letters/main/x/to-agent/0000000001-begin.json", "{}");
    let long = format!("state/workspaces/main/{}/{}", "d".repeat(150), "f".repeat(150));
    write_file(&root, &long, "a name that is too long for an old header");
    let store = Store::open(&root.database()).unwrap();
    store.group(&crate::domain::GroupName::main(), NOW).await.unwrap();
    store.close().await;
    (dir, root)
}

fn write(root: &Root, to: &Path, links: Links, now: WallMs) -> Result<Archived, BackupError> {
    super::write(&Install::read(root.clone(), &BTreeMap::new()).0, to, links, now)
}

fn restore(root: &Root, from: &Path, now: WallMs) -> Result<(Contents, Restored), BackupError> {
    super::restore(root, shared_gid(), from, now)
}

/// Only root can give files to another group.
fn shared_gid() -> u32 {
    if rustix::process::geteuid().is_root() { 23_456 } else { rustix::process::getegid().as_raw() }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[tokio::test]
async fn keys_of_linked_accounts_are_in_an_archive_only_if_it_is_asked_for_them() {
    let (dir, root) = install().await;
    let folder = root.state().join("channels/chat");
    host_files::dir(&folder, 0o700).unwrap();
    let keys = folder.join("device.db");
    let database = rusqlite::Connection::open(&keys).unwrap();
    // The last change is in the log beside the database, as under a host that runs.
    let made = "PRAGMA journal_mode = WAL; CREATE TABLE device (x); INSERT INTO device VALUES (42)";
    database.execute_batch(made).unwrap();
    write_file(&root, "state/channels/chat/lock", "");

    let (without, with) = (dir.path().join("without.tar"), dir.path().join("with.tar"));
    let archived = write(&root, &without, Links::LeaveOut, NOW).unwrap().contents;
    let named = "state/channels/chat/device.db";
    assert!(archived.left_out.iter().any(|left| left.contains(named)), "{:?}", archived.left_out);
    assert!(!archived.files.contains_key(named));
    let archived = write(&root, &with, Links::TakeAlong, NOW).unwrap().contents;
    assert!(archived.files.contains_key(named) && !archived.left_out.iter().any(|left| left.contains(named)));
    assert!(!archived.files.contains_key("state/channels/chat/lock"));

    drop(database);
    restore(&root, &without, NOW).unwrap();
    assert!(keys.exists(), "an archive without keys leaves the link as it is");
    fs::remove_dir_all(&folder).unwrap();
    restore(&root, &with, WallMs(NOW.0 + 1_000)).unwrap();
    assert_eq!((mode(&folder), mode(&keys)), (0o700, 0o600));
    let database = rusqlite::Connection::open(&keys).unwrap();
    assert_eq!(database.query_row("SELECT x FROM device", [], |row| row.get(0)), Ok(42));
}

#[tokio::test]
async fn an_archive_holds_an_install_without_its_secrets_and_its_transport() {
    let (dir, root) = install().await;
    let tar = dir.path().join("a.tar");
    let archived = write(&root, &tar, Links::LeaveOut, NOW).unwrap();
    assert_eq!(archived.contents.left_out, [r#""groups/token" (a secret)"#]);
    assert!(is_archive(&tar) && !is_archive(&root.database()));
    let there = Root::new(&dir.path().join("b")).unwrap();
    fs::create_dir_all(there.state()).unwrap();
    let (contents, restored) = restore(&there, &tar, NOW).unwrap();
    assert_eq!((contents.files(), restored.replaced), (5, None));
    for name in ["groups/main/CLAUDE.md", "state/sessions/main/conversation-1.jsonl", "state/lazaret.db"] {
        assert!(there.path().join(name).exists(), "{name}");
    }
    for name in ["groups/token", "state/letters", ".restored", "state/.restored", "manifest.json"] {
        assert!(!there.path().join(name).exists(), "{name}");
    }
    drop(Store::open(&there.database()).unwrap());
}

#[tokio::test]
async fn what_was_there_is_kept_beside() {
    let (dir, root) = install().await;
    let tar = dir.path().join("a.tar");
    write(&root, &tar, Links::LeaveOut, NOW).unwrap();
    write_file(&root, "groups/main/CLAUDE.md", "You are somebody else.");
    write_file(&root, "state/inbox/main/later.jpg", "came after the copy");
    restore(&root, &tar, NOW).unwrap();
    let read = |name: &str| fs::read_to_string(root.path().join(name)).unwrap();
    assert_eq!(read("groups/main/CLAUDE.md"), "You are Laz.");
    let stamp = stamp(NOW);
    assert_eq!(read(&format!("replaced-{stamp}/groups/main/CLAUDE.md")), "You are somebody else.");
    assert_eq!(read(&format!("state/replaced-{stamp}/inbox/main/later.jpg")), "came after the copy");
    assert!(root.state().join(format!("lazaret.db.replaced-{stamp}")).exists());
}

#[tokio::test]
async fn an_archive_that_was_changed_or_cut_replaces_nothing() {
    let (dir, root) = install().await;
    let tar = dir.path().join("a.tar");
    write(&root, &tar, Links::LeaveOut, NOW).unwrap();
    let whole = fs::read(&tar).unwrap();
    let at = whole.windows(12).position(|w| w == b"You are Laz.").unwrap();
    let mut changed = whole.clone();
    changed[at] = b'Y' + 1;
    let cut = &whole[..whole.len() / 2];
    for (bytes, why) in [(changed.as_slice(), "groups/main/CLAUDE.md"), (cut, "")] {
        fs::write(&tar, bytes).unwrap();
        let error = restore(&root, &tar, NOW).unwrap_err();
        assert!(error.code() == "backup.archive" && error.to_string().contains(why), "{error}");
        assert!(root.path().join("groups/token").exists());
        drop(Store::open(&root.database()).unwrap());
    }
}

/// An entry that somebody could add by hand.
struct Planted<'a> {
    name: &'a str,
    kind: EntryType,
    target: &'a Path,
    mode: u32,
    uid: u64,
}

fn planted<'a>(kind: EntryType, name: &'a str, target: &'a (impl AsRef<Path> + ?Sized)) -> Planted<'a> {
    let uid = rustix::process::getuid().as_raw().into();
    Planted { name, kind, target: target.as_ref(), mode: 0o644, uid }
}

/// Builds a whole archive with additional entries. The list has those that are files.
fn with(from: &[u8], entries: &[Planted<'_>]) -> Vec<u8> {
    rebuilt(from, "", entries)
}

/// As [`with`], without the entry `omitted`.
fn rebuilt(from: &[u8], omitted: &str, entries: &[Planted<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for entry in tar::Archive::new(from).entries().unwrap() {
        let mut entry = entry.unwrap();
        let (mut header, path) = (entry.header().clone(), entry.path().unwrap().into_owned());
        let target = entry.link_name().unwrap().map(|target| target.into_owned());
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        if path == Path::new(omitted) {
            continue;
        }
        if path == Path::new(MANIFEST) {
            let mut list: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            for Planted { name, kind, target, mode, uid } in entries {
                let mut header = Header::new_gnu();
                header.set_entry_type(*kind);
                header.set_mode(*mode);
                header.set_size(0);
                header.set_uid(*uid);
                header.set_gid(rustix::process::getgid().as_raw().into());
                header.set_mtime(0);
                if target.as_os_str().is_empty() {
                    builder.append_data(&mut header, name, io::empty()).unwrap();
                } else {
                    builder.append_link(&mut header, name, target).unwrap();
                }
                if matches!(kind, EntryType::Regular | EntryType::Link) {
                    list["files"][name] = hex(Sha256::new()).into();
                }
            }
            bytes = serde_json::to_vec(&list).unwrap();
            header.set_size(bytes.len() as u64);
        }
        match target {
            Some(target) => builder.append_link(&mut header, path, target).unwrap(),
            None => builder.append_data(&mut header, path, bytes.as_slice()).unwrap(),
        }
    }
    builder.into_inner().unwrap()
}

#[tokio::test]
async fn what_an_archive_planted_carries_nothing_elsewhere() {
    let (dir, root) = install().await;
    let tar = dir.path().join("a.tar");
    write(&root, &tar, Links::LeaveOut, NOW).unwrap();
    let whole = fs::read(&tar).unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "").unwrap();
    let secret = outside.join("secret");
    let sessions = Path::new("../../sessions");
    let (a, b, inside) =
        ("state/workspaces/main/a", "state/workspaces/main/b", "state/workspaces/main/b/other/planted");
    let link = |name, target| planted(EntryType::Symlink, name, target);
    let file = |name| planted(EntryType::Regular, name, "");
    let again = |name, target| planted(EntryType::Link, name, target);
    let second = "a second name of no earlier file";
    let cases: [(&[Planted<'_>], &str); 17] = [
        (&[link(a, outside.as_path()), file("state/workspaces/main/a/newdir/x")], "below a link"),
        (&[link(b, sessions), file(inside)], "below a link"),
        (&[link(a, outside.as_path()), link(a, sessions)], "comes twice"),
        (&[link(a, outside.as_path()), file(a)], "comes twice"),
        (&[link("state/global", outside.as_path())], "is a Symlink"),
        (&[link("state/workspaces/family", outside.as_path())], "is a Symlink"),
        (&[planted(EntryType::Fifo, a, "")], "is a Fifo"),
        (&[planted(EntryType::Char, a, "")], "is a Char"),
        (&[planted(EntryType::Block, a, "")], "is a Block"),
        (&[again(a, Path::new("state/sessions/main/conversation-1.jsonl"))], second),
        (&[again(a, Path::new("groups/main/CLAUDE.md"))], second),
        (&[again(a, Path::new("state/lazaret.db"))], second),
        (&[again(a, secret.as_path())], second),
        (&[again(a, Path::new("state/workspaces/main/../../sessions/main/conversation-1.jsonl"))], second),
        (&[again(a, Path::new(b)), file(b)], second),
        (&[link(b, secret.as_path()), again(a, Path::new(b))], second),
        (&[file("state/inbox/x"), again("state/global", Path::new("state/inbox/x"))], second),
    ];
    for (entries, why) in cases {
        fs::write(&tar, with(&whole, entries)).unwrap();
        let error = restore(&root, &tar, NOW).unwrap_err();
        assert!(error.code() == "backup.archive" && error.to_string().contains(why), "{error}");
        assert!(error.to_string().contains("use another archive"), "{error}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        assert!(!root.state().join("sessions/other").exists());
        assert_eq!(fs::metadata(&secret).unwrap().nlink(), 1);
    }
    // An agent's own link is restored as it is, and nobody follows it.
    fs::write(&tar, with(&whole, &[link(a, outside.as_path()), file("state/workspaces/main/ab")])).unwrap();
    restore(&root, &tar, NOW).unwrap();
    assert!(root.state().join("workspaces/main/a").is_symlink());
}

/// A link costs no file's bytes, a file that was written once is one file again, and links do not join what was not
/// one file.
#[tokio::test]
async fn g1_a_file_of_many_names_is_written_once_and_comes_back_as_one() {
    let (dir, root) = install().await;
    let workspace = root.state().join("workspaces/main");
    let at = |name: &str| workspace.join(name);
    fs::create_dir_all(at("deep/er")).unwrap();
    fs::write(at("big"), vec![b'x'; 1 << 20]).unwrap();
    for n in 0..59 {
        fs::hard_link(at("big"), at(&format!("{}n{n}", ["", "deep/", "deep/er/"][n % 3]))).unwrap();
    }
    fs::write(at("twin"), "of two names").unwrap();
    fs::hard_link(at("twin"), at(&format!("deep/{}", "t".repeat(200)))).unwrap();
    // Two names that are no UTF-8 look alike in the list.
    let odd: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"odd-\xff");
    fs::write(workspace.join(odd), "odd").unwrap();
    fs::write(at("odd-\u{fffd}"), "even").unwrap();
    fs::hard_link(at("odd-\u{fffd}"), at("even")).unwrap();
    let tar = dir.path().join("a.tar");
    let archived = write(&root, &tar, Links::LeaveOut, NOW).unwrap();
    let before = fs::metadata(root.database()).unwrap().len();
    assert!(archived.bytes < (1 << 20) + before + (200 << 10), "{} bytes", archived.bytes);
    assert_eq!(archived.contents.left_out, [r#""groups/token" (a secret)"#]);
    let digest = |name: &str| archived.contents.files[&format!("state/workspaces/main/{name}")].clone();
    assert_eq!((digest("big"), digest("twin") == digest("big")), (digest("deep/er/n2"), false));

    let there = Root::new(&dir.path().join("b")).unwrap();
    fs::create_dir_all(there.state()).unwrap();
    restore(&there, &tar, NOW).unwrap();
    let restored = there.state().join("workspaces/main");
    let seen = |name: &str| fs::symlink_metadata(restored.join(name)).unwrap();
    assert_eq!((seen("big").nlink(), seen("big").len()), (60, 1 << 20));
    assert_eq!(seen("big").ino(), seen("deep/er/n2").ino());
    assert_eq!(
        (seen("twin").nlink(), fs::read_to_string(restored.join("twin")).unwrap()),
        (2, "of two names".into())
    );
    assert_eq!(fs::read_to_string(restored.join(odd)).unwrap(), "odd");
    assert_eq!(fs::read_to_string(restored.join("even")).unwrap(), "even");

    // A second name that is missing is noticed. The first one of the archive has the content.
    let whole = fs::read(&tar).unwrap();
    let mut archive = tar::Archive::new(whole.as_slice());
    let is_link = |entry: &tar::Entry<'_, _>| entry.header().entry_type() == EntryType::Link;
    let second = archive.entries().unwrap().map(|entry| entry.unwrap()).find(is_link).unwrap();
    let second = second.path().unwrap().to_string_lossy().into_owned();
    fs::write(&tar, rebuilt(&whole, &second, &[])).unwrap();
    let told = restore(&there, &tar, NOW).unwrap_err().to_string();
    assert!(told.contains(&second) && told.contains("is missing or was changed"), "{told}");
}

#[tokio::test]
async fn g1_what_exceeds_a_groups_limit_stays_out_and_costs_no_other_group_its_files() {
    let (dir, root) = install().await;
    write_file(&root, "groups/main/group.toml", "limits.workspace_mib = 1\n");
    write_file(&root, "state/workspaces/family/notes", "kept");
    write_file(&root, "state/workspaces/main/small", "kept, too");
    for n in 0..200 {
        let hole = File::create(root.state().join(format!("workspaces/main/{n}"))).unwrap();
        hole.set_len(if n == 0 { 1 << 40 } else { 2 << 20 }).unwrap();
    }
    let hole = File::create(root.state().join("workspaces/family/hole")).unwrap();
    hole.set_len(2 << 20).unwrap();
    let tar = dir.path().join("a.tar");
    let archived = write(&root, &tar, Links::LeaveOut, NOW).unwrap();
    assert!(archived.bytes < 4 << 20, "{} bytes", archived.bytes);
    let Contents { files, left_out, left_out_more, .. } = archived.contents;
    for name in ["main/small", "family/notes", "family/hole"] {
        assert!(files.contains_key(&format!("state/workspaces/{name}")), "{name}");
    }
    let holes =
        left_out.iter().filter(|left| left.contains("are holes, and the archive takes no more")).count();
    assert_eq!((holes as u64 + left_out_more, left_out.len()), (200, 101), "{left_out:?}");
}

#[tokio::test]
async fn g2_no_archive_carries_setuid_setgid_or_a_foreign_owner() {
    let (dir, root) = install().await;
    let name = "state/workspaces/main/tool";
    write_file(&root, name, "#!/bin/sh\n");
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    set(&root.path().join(name), 0o7755);
    set(&root.state().join("workspaces/main"), 0o7770);
    let tar = dir.path().join("a.tar");
    write(&root, &tar, Links::LeaveOut, NOW).unwrap();
    let mut archive = tar::Archive::new(File::open(&tar).unwrap());
    for entry in archive.entries().unwrap() {
        let header = entry.unwrap().header().clone();
        let kept = if header.entry_type() == EntryType::Directory { 0o2777 } else { 0o777 };
        assert_eq!(header.mode().unwrap() & !kept, 0);
    }
    // An archive of an earlier version, or one made by hand, has them.
    let (of_main, global, inbox) =
        ("state/workspaces/main/own", "state/global/planted", "state/inbox/main/a.jpg");
    let plant = |name, uid| Planted { mode: 0o7755, uid, ..planted(EntryType::Regular, name, "") };
    let folder = Planted { mode: 0o7770, ..planted(EntryType::Directory, "state/workspaces/main/d", "") };
    let owned = [
        plant(of_main, 70_001),
        plant(global, 70_001),
        plant(inbox, 70_001),
        plant("state/workspaces/main/foreign", 1_000),
        plant("state/workspaces/family/foreign", 70_001),
        plant("groups/main/foreign", 1_000),
        folder,
    ];
    fs::write(&tar, with(&fs::read(&tar).unwrap(), &owned)).unwrap();
    let there = Root::new(&dir.path().join("b")).unwrap();
    fs::create_dir_all(there.state()).unwrap();
    let root_runs = rustix::process::geteuid().is_root();
    if root_runs {
        lchown(there.path(), Some(12_345), Some(12_346)).unwrap();
    }
    restore(&there, &tar, NOW).unwrap();
    let seen = |name: &str| {
        let seen = fs::symlink_metadata(there.path().join(name)).unwrap();
        (seen.mode() & 0o7777, seen.uid())
    };
    let host = rustix::process::geteuid().as_raw();
    let (own, settings) = if root_runs { (70_001, 12_345) } else { (host, host) };
    assert_eq!(seen(name), (0o755, host));
    assert_eq!((seen(of_main), seen(global), seen(inbox)), ((0o755, own), (0o755, own), (0o755, host)));
    assert_eq!(seen("state/workspaces/main/foreign"), (0o755, host));
    assert_eq!(seen("state/workspaces/family/foreign"), (0o755, host), "another group's user");
    assert_eq!(seen("groups/main/foreign"), (0o755, settings));
    assert_eq!((seen("state/workspaces/main/d").0, seen("state/workspaces/main").0), (0o2770, 0o2770));
    let gid = |name: &str| fs::symlink_metadata(there.path().join(name)).unwrap().gid();
    let shared = ["state/workspaces/main", global, inbox, of_main].map(gid);
    assert_eq!(shared, [shared_gid(); 4]);
    assert_eq!(gid("state/workspaces"), gid("state"), "no box opens the folders of all groups");
}
