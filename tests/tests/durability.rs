//! Durability of the database: copies under load and their restore, damaged files, and full disks.

#![cfg(test)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use journeys::database_crash_copies;
use journeys::telegram::Chat;
use journeys::world::{Engine, World};
use rusqlite::Connection;
use rusqlite::types::Value;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

async fn hears(world: &World, chat: &Chat, text: &str) {
    world.soon(&format!("{text:?} is heard"), async { while chat.hears().await != text {} }).await;
}

/// Runs a command that must fail, and returns its standard error.
async fn refused(world: &World, args: &[&str]) -> String {
    let output = world.run(args, "").await;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "lazaret {} said:\n{out}{err}", args.join(" "));
    err.into_owned()
}

fn database(root: &Path) -> PathBuf {
    root.join("state/lazaret.db")
}

/// Returns every row of every table, in order.
fn rows(database: &Path) -> BTreeMap<String, Vec<Vec<Value>>> {
    let c = Connection::open(database).unwrap();
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'";
    let names: Vec<String> =
        c.prepare(sql).unwrap().query_map([], |r| r.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    names
        .into_iter()
        .map(|name| {
            let mut statement = c.prepare(&format!("SELECT * FROM {name}")).unwrap();
            let columns = statement.column_count();
            let rows = statement.query_map([], |r| (0..columns).map(|i| r.get(i)).collect()).unwrap();
            let mut rows: Vec<Vec<Value>> = rows.collect::<Result<_, _>>().unwrap();
            rows.sort_by_key(|row| format!("{row:?}"));
            (name, rows)
        })
        .collect()
}

/// Returns every file below a folder: owner, group, mode, bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, (u32, u32, u32, Vec<u8>)> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(dir) = folders.pop() {
        for entry in fs::read_dir(&dir).unwrap().flatten() {
            let (path, seen) = (entry.path(), entry.metadata().unwrap());
            let name = path.strip_prefix(folder).unwrap().to_owned();
            let bytes = match () {
                () if seen.is_symlink() => {
                    fs::read_link(&path).unwrap().to_string_lossy().into_owned().into()
                }
                () if seen.is_file() => fs::read(&path).unwrap(),
                () => Vec::new(),
            };
            if seen.is_dir() {
                folders.push(path);
            }
            found.insert(name, (seen.uid(), seen.gid(), seen.mode(), bytes));
        }
    }
    found
}

const KEPT: [&str; 3] = ["state/sessions", "state/workspaces", "groups"];

#[tokio::test]
async fn a_copy_made_under_load_is_put_back_in_an_empty_place_and_the_talk_goes_on() {
    let (mut world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    world.model.on("line ").says("noted");
    let notes =
        serde_json::json!({ "command": "ln -s /etc/passwd link; mkfifo pipe; echo Tom > cat; ln cat tom" });
    world.model.on("my cat is").runs("run_command", notes).says("Tom!");
    ann.says(&direct, "my cat is called Tom");
    hears(&world, &direct, "Tom!").await;

    // Ann keeps writing while copies are made.
    let mut copies = Vec::new();
    for n in 0..8 {
        let file = world.root().join(format!("copy-{n}"));
        let name = file.to_string_lossy().into_owned();
        let args: &[&str] = if n % 2 == 0 { &["backup", &name] } else { &["backup", "--all", &name] };
        let talk = async {
            for m in 0..8 {
                ann.says(&direct, &format!("line {n}.{m}"));
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        };
        let (told, ()) = tokio::join!(world.lazaret(args), talk);
        assert!(told.contains("verified"), "{told}");
        assert!(n % 2 == 0 || told.contains("pipe\" (neither a file nor a folder nor a link)"), "{told}");
        copies.push(file);
    }
    assert!(refused(&world, &["backup", &copies[0].to_string_lossy()]).await.contains("overwrites nothing"));
    let archive = copies.pop().unwrap().to_string_lossy().into_owned();
    let told = refused(&world, &["restore", &archive]).await;
    assert!(told.contains("host.locked"), "{told}");
    world.model.on("the end of it").says("good night");
    ann.says(&direct, "the end of it");
    hears(&world, &direct, "good night").await;
    world.stop_host().await;

    // The restored state must be the state at the time of the archive: nothing that is newer, and no gap.
    let old = world.root().to_owned();
    let place = tempfile::tempdir().unwrap();
    world.set("LAZARET_ROOT", &place.path().to_string_lossy());
    let told = world.lazaret(&["restore", &archive]).await;
    assert!(told.contains("restored"), "{told}");
    let (mut before, mut after) = (rows(&database(&old)), rows(&database(place.path())));
    // The last column says how far the agent has heard; the talk after the archive moved it.
    for chat in before.get_mut("chat").into_iter().chain(after.get_mut("chat")).flatten() {
        chat.pop();
    }
    for table in ["grp", "chat", "owner"] {
        assert_eq!(before[table], after[table], "{table}");
    }
    let texts = |rows: &BTreeMap<String, Vec<Vec<Value>>>| {
        let mut texts: Vec<_> =
            rows["message"].iter().map(|row| (format!("{:?}", row[0]), row[10].clone())).collect();
        texts.sort_by_key(|(seq, _)| (seq.len(), seq.clone()));
        texts
    };
    let (before, after) = (texts(&before), texts(&after));
    assert!(after.len() >= 30 && before.starts_with(&after), "{before:?} {after:?}");
    for kept in KEPT {
        let (there, here) = (files(&old.join(kept)), files(&place.path().join(kept)));
        assert!(!here.is_empty(), "{kept}");
        for (name, (uid, gid, mode, bytes)) in here {
            let (was_uid, was_gid, was_mode, was) = &there[&name];
            assert_eq!((uid, gid, mode), (*was_uid, *was_gid, *was_mode), "{}", name.display());
            // Transcripts only grow.
            assert!(was.starts_with(&bytes), "{}", name.display());
        }
    }

    let inode =
        |name: &str| fs::metadata(place.path().join("state/workspaces/main").join(name)).unwrap().ino();
    assert_eq!(inode("cat"), inode("tom"), "two names of one file are two names of one file again");

    // The conversation continues where the copy ended.
    world.model.on("what is my cat called").says("Tom, you said.");
    world.up().await;
    ann.says(&direct, "what is my cat called?");
    hears(&world, &direct, "Tom, you said.").await;
    let asked = world.model.requests().last().unwrap().body.to_string();
    assert!(asked.contains("my cat is called Tom") && asked.contains("line 3.7"), "{asked}");
    world.stop_host().await;

    // A copy of a host that is down has the same rows and files.
    let still = place.path().join("still.tar").to_string_lossy().into_owned();
    world.lazaret(&["backup", "--all", &still]).await;
    let third = tempfile::tempdir().unwrap();
    world.set("LAZARET_ROOT", &third.path().to_string_lossy());
    world.lazaret(&["restore", &still]).await;
    assert_eq!(rows(&database(place.path())), rows(&database(third.path())));
    for kept in KEPT {
        assert_eq!(files(&place.path().join(kept)), files(&third.path().join(kept)), "{kept}");
    }
    world.finish().await;
}

#[tokio::test]
async fn a_damaged_database_is_refused_with_the_command_and_the_copy_brings_the_talk_back() {
    let (mut world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    world.model.on("").says("noted");
    ann.says(&direct, "remember the milk");
    hears(&world, &direct, "noted").await;
    world.lazaret(&["backup"]).await;
    // These messages come after the copy. The transcript has them, but the copy does not.
    ann.says(&direct, "and the bread");
    hears(&world, &direct, "noted").await;
    world.stop_host().await;
    let path = database(world.root());
    let whole = fs::read(&path).unwrap();
    let mut overwritten = whole.clone();
    let middle = whole.len() / 2;
    overwritten[middle..middle + 8192].fill(0xa5);
    let mut headless = whole.clone();
    headless[..100].fill(0);
    for bytes in [&overwritten[..], &headless[..], &whole[..middle]] {
        fs::write(&path, bytes).unwrap();
        let told = refused(&world, &["up"]).await;
        assert!(told.contains("store.damaged") && told.contains("lazaret restore "), "{told}");
    }
    let told = refused(&world, &["up"]).await;
    let command = told.split("lazaret restore ").nth(1).unwrap().split(" [").next().unwrap().to_owned();
    // A damaged copy does not replace the database.
    let bad = world.root().join("bad.db");
    fs::write(&bad, &overwritten).unwrap();
    let told = refused(&world, &["restore", &bad.to_string_lossy()]).await;
    assert!(told.contains("use another copy"), "{told}");
    world.lazaret(&["restore", &command]).await;
    world.up().await;
    world.model.on("what was it").says("the milk");
    ann.says(&direct, "what was it?");
    hears(&world, &direct, "the milk").await;
    let kept = fs::read_dir(world.root().join("state")).unwrap().flatten();
    assert!(kept.into_iter().any(|e| e.file_name().to_string_lossy().starts_with("lazaret.db.replaced-")));
    world.finish().await;
}

#[tokio::test]
async fn a_database_of_a_newer_host_is_left_alone() {
    let mut world = World::on(Engine::stand_in().await).await;
    world.up().await;
    world.stop_host().await;
    let path = database(world.root());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 77).unwrap();
    let before = files(&world.root().join("state"));
    for command in ["up", "status", "backup"] {
        let told = refused(&world, &[command]).await;
        assert!(told.contains("schema 77, this lazaret knows ") && told.contains("store.newer"), "{told}");
    }
    let mut after = files(&world.root().join("state"));
    // The lock file has the name of its last holder. The refused `backup` created the folder of copies.
    after.retain(|name, _| !name.starts_with("backups"));
    let names = |files: &BTreeMap<PathBuf, _>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after));
    assert_eq!(before[Path::new("lazaret.db")], after[Path::new("lazaret.db")]);
    world.finish().await;
}

#[tokio::test]
async fn what_a_crash_would_leave_opens_at_any_moment() {
    let (mut world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    world.model.on("").says("noted");
    for n in 0..60 {
        ann.says(&direct, &format!("line {n}"));
    }
    let (pid, path) = (world.host().pid().unwrap(), database(world.root()));
    let taken = tokio::task::spawn_blocking(move || {
        let mut seqs = 0;
        let random = || Duration::from_micros(u64::from(uuid::Uuid::new_v4().as_bytes()[0]) * 80);
        let replayed = database_crash_copies::take(pid, &path, 40, random, |c| {
            // A later copy must have every earlier message.
            let seq: i64 =
                c.query_row("SELECT coalesce(max(seq), 0) FROM message", [], |r| r.get(0)).unwrap();
            assert!(seq >= seqs);
            seqs = seq;
        });
        assert!(seqs >= 30, "only {seqs} messages: there was no load");
        replayed
    });
    assert!(taken.await.unwrap() > 30);
    world.model.on("the end of it").says("good night");
    ann.says(&direct, "the end of it");
    hears(&world, &direct, "good night").await;
    world.finish().await;
}

#[tokio::test]
async fn damage_that_only_a_full_check_sees_ends_the_host_with_the_command() {
    let (mut world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    world.model.on("hello again").says("hello");
    ann.says(&direct, "hello again");
    hears(&world, &direct, "hello").await;
    world.lazaret(&["backup"]).await;
    world.kill_host().await;
    let spoil = "PRAGMA foreign_keys = off; UPDATE message SET turn = 4711 WHERE turn IS NOT NULL";
    Connection::open(database(world.root())).unwrap().execute_batch(spoil).unwrap();
    world.up().await;
    wait_for_log(&world, "refers to a missing row of turn").await;
    assert!(world.log().contains("lazaret restore "), "{}", world.log());
    let told = async || {
        let told = world.run(&["status"], "").await;
        String::from_utf8_lossy(&told.stdout).contains("host      down").then_some(())
    };
    world.patiently("the host has ended by itself", told).await;
    let down = world.run(&["status"], "").await;
    assert_eq!(down.status.code(), Some(3), "no host runs");
    assert!(String::from_utf8_lossy(&down.stdout).contains("DAMAGED"));
    world.kill_host().await;
    assert!(refused(&world, &["up"]).await.contains("store.damaged"));
    world.finish().await;
}

#[tokio::test]
async fn a_host_without_a_copy_makes_one() {
    let mut world = World::on(Engine::stand_in().await).await;
    world.up().await;
    assert!(world.lazaret(&["status"]).await.contains("none yet"));
    wait_for_log(&world, "verified").await;
    let status = world.lazaret(&["status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let copy = PathBuf::from(status["copy"]["file"].as_str().unwrap());
    let there = rows(&copy);
    assert!(there["grp"].len() == 1 && there.contains_key("message"));
    world.finish().await;
}

// The disk

/// A small filesystem for a world's state.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn under(world: &World, mib: u64) -> Self {
        let place = world.root().join("state");
        fs::create_dir_all(&place).unwrap();
        let options = std::ffi::CString::new(format!("size={mib}m,mode=750")).unwrap();
        mount("tmpfs", &place, "tmpfs", MountFlags::empty(), options.as_c_str()).unwrap();
        Self(place)
    }

    fn read_only(&self, yes: bool) {
        let flags = if yes { MountFlags::RDONLY } else { MountFlags::empty() };
        mount_remount(&self.0, flags, "").unwrap();
    }

    fn free(&self) -> u64 {
        let told = rustix::fs::statvfs(&self.0).unwrap();
        told.f_bavail * told.f_frsize
    }

    /// Writes until nothing more fits.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = fs::File::create(&path).unwrap();
        let piece = vec![7; 64 << 10];
        while std::io::Write::write_all(&mut file, &piece).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The host may still have open files on it, so the unmount is lazy.
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

async fn wait_for_log(world: &World, words: &str) {
    world
        .patiently(&format!("{words:?} is logged"), async || world.log().contains(words).then_some(()))
        .await;
}

async fn ballast(world: &World, bytes: u64) {
    let path = world.root().join("state/ballast");
    let made = async || fs::metadata(&path).is_ok_and(|m| m.len() == bytes).then_some(());
    world.patiently("the ballast is made", made).await;
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_the_host_goes_on_by_itself() {
    let mut world = World::on(Engine::stand_in().await).await;
    let disk = SmallDisk::under(&world, 128);
    world.set("LAZARET_HOST_BALLAST_MIB", "8").set("LAZARET_HOST_FREE_FLOOR_MIB", "1");
    let ann = world.telegram.person(5, "Ann");
    let direct = ann.direct();
    world.up().await;
    ann.says(&direct, "hello?");
    world.admit(&direct.address(), "main").await;
    world.model.on("before").says("still there");
    ann.says(&direct, "before");
    hears(&world, &direct, "still there").await;
    ballast(&world, 8 << 20).await;

    // The disk fills at once, before the host measures it. So the first error comes from a commit.
    let filler = disk.fill();
    assert!(disk.free() < 64 << 10);
    world.model.on("number").says("counted");
    for n in 0..12 {
        ann.says(&direct, &format!("number {n} {}", "x".repeat(3_900)));
    }
    wait_for_log(&world, "disk.full").await;
    let told = "[lazaret] The disk is full. I read no messages until there is room: what you write waits at the platform and is not lost.";
    hears(&world, &direct, told).await;
    assert!(!world.root().join("state/ballast").exists(), "the host must release the ballast");
    assert!(world.lazaret(&["status"]).await.contains("host      up"));

    fs::remove_file(filler).unwrap();
    hears(&world, &direct, "[lazaret] The disk has room again. I go on.").await;
    world.model.on("after").says("all of it");
    ann.says(&direct, "after");
    hears(&world, &direct, "all of it").await;
    ballast(&world, 8 << 20).await;
    let stored = rows(&database(world.root()));
    let texts: Vec<String> = stored["message"].iter().map(|row| format!("{:?}", row[10])).collect();
    for n in 0..12 {
        let found = texts.iter().filter(|text| text.contains(&format!("number {n} x"))).count();
        assert_eq!(found, 1, "number {n} is stored once");
    }
    let told = stored["outbox"].iter().filter(|row| format!("{row:?}").contains("The disk is full")).count();
    assert_eq!(told, 1, "the owner is told once");
    world.finish().await;
}

/// Without a ballast there is no space even for the notice. The host tries again from time to time, without a busy
/// loop.
#[tokio::test]
async fn a_full_disk_without_a_ballast_is_waited_for_in_peace() {
    let mut world = World::on(Engine::stand_in().await).await;
    let disk = SmallDisk::under(&world, 128);
    world.set("LAZARET_HOST_BALLAST_MIB", "0").set("LAZARET_HOST_FREE_FLOOR_MIB", "1");
    let ann = world.telegram.person(5, "Ann");
    let direct = ann.direct();
    world.up().await;
    ann.says(&direct, "hello?");
    world.admit(&direct.address(), "main").await;
    let filler = disk.fill();
    world.model.on("number").says("counted");
    for n in 0..12 {
        ann.says(&direct, &format!("number {n} {}", "x".repeat(3_900)));
    }
    wait_for_log(&world, "the owner is not told yet").await;
    fs::remove_file(filler).unwrap();
    world.model.on("after").says("all of it");
    ann.says(&direct, "after");
    hears(&world, &direct, "all of it").await;
    let tries = world.log().matches("the owner is not told yet").count();
    assert!(tries <= 3, "{tries} tries:\n{}", world.log());
    world.finish().await;
}

#[tokio::test]
async fn below_the_floor_nothing_comes_in_and_what_runs_may_finish() {
    let mut world = World::on(Engine::stand_in().await).await;
    let disk = SmallDisk::under(&world, 192);
    world.set("LAZARET_HOST_BALLAST_MIB", "0").set("LAZARET_HOST_FREE_FLOOR_MIB", "64");
    let ann = world.telegram.person(5, "Ann");
    let direct = ann.direct();
    world.up().await;
    ann.says(&direct, "hello?");
    world.admit(&direct.address(), "main").await;
    let gate = journeys::model::Gate::new();
    world.model.on("think").waits_for(&gate).says("thought");
    ann.says(&direct, "think");
    world.soon("it thinks", gate.arrived()).await;

    let mut filler = fs::File::create(disk.0.join("filler")).unwrap();
    while disk.free() > 32 << 20 {
        std::io::Write::write_all(&mut filler, &vec![7; 1 << 20]).unwrap();
    }
    wait_for_log(&world, "disk.low").await;
    gate.open();
    hears(&world, &direct, "thought").await;
    world.model.on("more").says("more it is");
    ann.says(&direct, "more");
    assert!(
        !rows(&database(world.root()))["message"].iter().any(|row| format!("{:?}", row[10]).contains("more"))
    );
    fs::remove_file(disk.0.join("filler")).unwrap();
    drop(filler);
    hears(&world, &direct, "more it is").await;
    world.finish().await;
}

#[tokio::test]
async fn a_read_only_disk_is_refused_in_words() {
    let mut world = World::on(Engine::stand_in().await).await;
    let disk = SmallDisk::under(&world, 64);
    world.set("LAZARET_HOST_FREE_FLOOR_MIB", "1");
    world.up().await;
    world.stop_host().await;
    disk.read_only(true);
    let told = refused(&world, &["up"]).await;
    assert!(told.contains("mounted read-only") && told.contains("disk.read_only"), "{told}");
    disk.read_only(false);
    world.up().await;
    world.finish().await;
    drop(disk);
}

#[tokio::test]
async fn a_full_disk_at_the_start_gives_the_ballast_back_and_waits() {
    let mut world = World::on(Engine::stand_in().await).await;
    let disk = SmallDisk::under(&world, 128);
    world.set("LAZARET_HOST_BALLAST_MIB", "8").set("LAZARET_HOST_FREE_FLOOR_MIB", "16");
    let ann = world.telegram.person(5, "Ann");
    let direct = ann.direct();
    world.up().await;
    ann.says(&direct, "hello?");
    world.admit(&direct.address(), "main").await;
    ballast(&world, 8 << 20).await;
    world.kill_host().await;
    let filler = disk.fill();
    world.model.on("anybody").says("yes");
    ann.says(&direct, "anybody?");
    world.up().await;
    wait_for_log(&world, "disk.low").await;
    fs::remove_file(filler).unwrap();
    hears(&world, &direct, "yes").await;
    world.finish().await;
}

#[tokio::test]
async fn a_database_that_another_program_holds_is_waited_for() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let theirs = Connection::open(database(world.root())).unwrap();
    theirs.execute_batch("BEGIN IMMEDIATE").unwrap();
    world.model.on("are you there").says("I am");
    ann.says(&direct, "are you there?");
    wait_for_log(&world, "store.busy").await;
    theirs.execute_batch("ROLLBACK").unwrap();
    hears(&world, &direct, "I am").await;
    world.finish().await;
}
