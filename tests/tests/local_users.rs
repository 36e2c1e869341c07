//! What other users of the machine reach of an install: nothing.

#![cfg(test)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use journeys::world::{Engine, World};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

/// A user and a group that exist on no machine.
const NOBODY: u32 = 54_321;

/// Runs a command line of a shell as `NOBODY` with this group. Returns whether it succeeded.
fn does(gid: u32, line: &str) -> bool {
    let (uid, gid) = (NOBODY.to_string(), gid.to_string());
    let ids = ["--reuid", &uid, "--regid", &gid, "--clear-groups", "--", "/bin/sh", "-c", line];
    let mut shell = Command::new("setpriv");
    shell.args(ids).stderr(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    shell.status().unwrap().success()
}

/// Everybody may look into the root, as into `/var/lib/lazaret`.
fn open_root(world: &World, mode: u32) {
    fs::set_permissions(world.root(), Permissions::from_mode(mode)).unwrap();
}

/// The only entry of a folder.
fn only(dir: &Path) -> PathBuf {
    fs::read_dir(dir).unwrap().next().unwrap().unwrap().path()
}

#[tokio::test]
async fn g6_a_process_with_the_boxes_group_reaches_no_more_than_any_other() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    open_root(&world, 0o755);
    world.model.on("hello").says("Hello.");
    ann.says(&direct, "hello");
    assert_eq!(world.hears(&direct).await, "Hello.");
    let state = world.root().join("state");
    let (run, session) = (only(&state.join("ipc/main")), only(&state.join("sessions/main")));
    let shared = fs::metadata(run.join("from-agent")).unwrap().gid();
    assert!(shared > 60_000, "no group of people: {shared}");
    let at = |path: &Path| format!("'{}'", path.display());
    let (own, transcript) = (at(&state), at(&session.join("0000-forged.jsonl")));
    let attempts = [
        ("lists state/", format!("ls {own}")),
        ("renames the database", format!("mv {own}/lazaret.db {own}/lazaret.old")),
        ("reads the database", format!("cat {own}/lazaret.db")),
        ("writes a transcript", format!("echo forged > {transcript}")),
        ("reaches the gateway's socket", format!("test -S {}", at(&run.join("socket/gateway.sock")))),
        ("writes a letter", format!("echo x > {}", at(&run.join("from-agent/x")))),
        ("reaches the host's socket", format!("test -S {own}/host/host.sock")),
        (
            "replaces the host's socket",
            format!("rm -f {own}/host/host.sock && ! test -e {own}/host/host.sock"),
        ),
        ("writes into a workspace", format!("touch {}", at(&state.join("workspaces/main/x")))),
        ("reads the settings", format!("cat {}", at(&world.root().join("lazaret.toml")))),
        ("writes the settings", format!("echo >> {}", at(&world.root().join("lazaret.toml")))),
    ];
    println!("| attempt | group {shared}, which the boxes have | group {NOBODY} |\n|---|---|---|");
    let mut reached = Vec::new();
    for (what, line) in &attempts {
        let done = [shared, NOBODY].map(|gid| does(gid, line));
        let told = done.map(|done| if done { "REACHED" } else { "nothing" });
        println!("| {what} | {} | {} |", told[0], told[1]);
        if done.contains(&true) {
            reached.push(what);
        }
    }
    assert!(reached.is_empty(), "{reached:?}");
    assert!(
        does(shared, &format!("ls {}", at(world.root()))),
        "the attempts can succeed where rights allow it"
    );
    world.finish().await;
}

#[tokio::test]
async fn g6_an_install_of_an_earlier_version_is_closed_at_the_start() {
    let mut world = World::on(Engine::stand_in().await).await;
    let state = world.root().join("state");
    for folder in ["workspaces", "sessions/main", "ipc"] {
        fs::create_dir_all(state.join(folder)).unwrap();
        fs::set_permissions(state.join(folder), Permissions::from_mode(0o2770)).unwrap();
    }
    std::os::unix::fs::chown(&state, None, Some(20_000)).unwrap();
    fs::set_permissions(&state, Permissions::from_mode(0o2770)).unwrap();
    world.set("LAZARET_LOG", "info");
    let anew = world.run(&["up", "--chat", "--begin-anew"], "").await;
    assert!(anew.status.success(), "{}", String::from_utf8_lossy(&anew.stderr));
    // As an earlier version left it, with a database.
    std::os::unix::fs::chown(&state, None, Some(20_000)).unwrap();
    fs::set_permissions(&state, Permissions::from_mode(0o2770)).unwrap();
    fs::set_permissions(state.join("lazaret.db"), Permissions::from_mode(0o660)).unwrap();
    world.up().await;
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!((mode(&state), mode(&state.join("lazaret.db"))), (0o700, 0o600));
    assert_eq!(fs::metadata(&state).unwrap().gid(), 20_000, "its files have this group");
    assert_eq!(mode(&world.root().join("lazaret.toml")), 0o640);
    world.finish().await;
}

#[tokio::test]
async fn g6_a_root_that_everybody_may_write_is_refused_and_named() {
    let mut world = World::on(Engine::stand_in().await).await;
    let down = world.run(&["up", "--chat"], "").await;
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    open_root(&world, 0o777);
    let mend = format!("chmod o-w {}", world.root().display());
    for verb in [&["up"][..], &["doctor"], &["config", "check"], &["chat"]] {
        let output = world.run(verb, "hello\n").await;
        let told =
            [output.stdout, output.stderr].map(|told| String::from_utf8_lossy(&told).into_owned()).concat();
        assert_eq!(output.status.code(), Some(1), "{verb:?}: {told}");
        assert!(
            told.contains("every user of this machine may write") && told.contains(&mend),
            "{verb:?}: {told}"
        );
    }
    open_root(&world, 0o755);
    // Another user's link leads to it: that user could let it lead elsewhere.
    let link = world.root().with_extension("link");
    std::os::unix::fs::symlink(world.root(), &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(NOBODY), None).unwrap();
    let output = world.run(&["--root", &link.to_string_lossy(), "config", "check"], "").await;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    fs::remove_file(&link).unwrap();
    assert!(output.status.code() == Some(1) && told.contains("refused by `lazaret up`"), "{told}");
    world.up().await;
    world.finish().await;
}

/// Listens at `path` as another user, and returns what it is sent.
fn impostor(path: PathBuf) -> std::thread::JoinHandle<String> {
    let (ready, is_ready) = std::sync::mpsc::channel();
    let listening = std::thread::spawn(move || {
        // The kernel's call changes this thread only.
        set_thread_res_gid(Gid::from_raw(NOBODY), Gid::from_raw(NOBODY), Gid::from_raw(NOBODY)).unwrap();
        set_thread_res_uid(Uid::from_raw(NOBODY), Uid::from_raw(NOBODY), Uid::from_raw(NOBODY)).unwrap();
        let listener = UnixListener::bind(path).unwrap();
        ready.send(()).unwrap();
        let (mut client, _) = listener.accept().unwrap();
        client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).unwrap();
        heard
    });
    is_ready.recv().unwrap();
    listening
}

#[tokio::test]
async fn g6_nothing_is_typed_to_a_program_that_is_not_the_host() {
    let world = World::on(Engine::stand_in().await).await;
    let down = world.run(&["up", "--chat"], "").await;
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), Permissions::from_mode(0o777)).unwrap();
    let listening = impostor(place.path().join("s"));
    // As a process of the boxes' group could do while `state/` was open to it.
    fs::rename(place.path().join("s"), world.root().join("state/host/host.sock")).unwrap();
    let output = world.run(&["chat"], "my secret\n").await;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains(&format!("user {NOBODY} listens")) && told.contains("not the host"), "{told}");
    assert_eq!(listening.join().unwrap(), "");
    world.finish().await;
}
