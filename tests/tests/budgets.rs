//! The host ends a box that exceeds a limit, and a notice tells the chat the usage and the limit.

#![cfg(test)]

use std::path::PathBuf;
use std::process::Command;

use journeys::telegram::{Chat, Person};
use journeys::world::{Engine, World};
use serde_json::json;

/// Ann's agent runs a command. Returns the world with what her chat was told of it.
async fn runs(settings: &[(&str, &str)], command: &str) -> (World, Person, Chat, String) {
    let (world, ann, direct) = World::ann_at_home(Engine::docker(), settings).await;
    world.model.on("do it").runs("run_command", json!({ "command": command })).says("It is done.");
    ann.says(&direct, "do it");
    let told = world.hears(&direct).await;
    (world, ann, direct, told)
}

/// Checks that the host still serves the chat.
async fn goes_on(world: World, ann: &Person, direct: &Chat) {
    world.model.on("are you there").says("I am.");
    ann.says(direct, "are you there?");
    assert_eq!(world.hears(direct).await, "I am.");
    world.finish().await;
}

fn has(told: &str, words: &[&str]) {
    for word in words {
        assert!(told.contains(word), "{word:?} is not in: {told}");
    }
}

#[tokio::test]
async fn a_full_workspace_is_named_with_its_limit() {
    let settings = [("LAZARET_LIMITS_WORKSPACE_MIB", "16")];
    let fill =
        "echo hello >/workspace/note; sleep 2; dd if=/dev/zero of=/workspace/fill bs=1M count=200; sleep 60";
    let (world, ann, direct, told) = runs(&settings, fill).await;
    has(
        &told,
        &["[lazaret]", "it filled its workspace with", "and 16 MiB may be kept (limits.workspace_mib)"],
    );
    // The limit would be useless if the files beyond it stayed.
    has(&world.hears(&direct).await, &["[lazaret]", "the newest file", "I removed it"]);
    assert!(!world.in_workspace("main", "fill").exists());
    assert!(world.in_workspace("main", "note").exists(), "files from before the run stay");
    goes_on(world, &ann, &direct).await;
}

#[tokio::test]
async fn a_flood_of_letters_is_named_with_its_limit() {
    let settings = [("LAZARET_LIMITS_LETTERS_NAMES", "200")];
    let flood = "cd /ipc/from-agent; i=0; while i=$((i+1)); do : >.$i; done; sleep 60";
    let (world, ann, direct, told) = runs(&settings, flood).await;
    has(&told, &["it left more than 200 files in from-agent"]);
    goes_on(world, &ann, &direct).await;
}

/// Only few letters exist at any one time, but many pass through the directory.
#[tokio::test]
async fn a_stream_of_letters_is_named_with_its_limit() {
    let settings = [("LAZARET_LIMITS_TURN_LETTERS", "300")];
    let flood = "cd /ipc/from-agent; i=0; while i=$((i+1)); do : >junk; usleep 2000; done";
    let (world, ann, direct, told) = runs(&settings, flood).await;
    has(&told, &["letters in one turn, and may write 300"]);
    let log = world.log();
    assert!(log.matches("is not a letter name").count() <= 25, "the box wrote the operator's log:\n{log}");
    goes_on(world, &ann, &direct).await;
}

/// A small filesystem over a directory. Dropping it unmounts it.
struct Small(PathBuf);

impl Small {
    fn over(dir: PathBuf, options: &str) -> Self {
        std::fs::create_dir_all(&dir).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(&dir).status();
        assert!(mounted.unwrap().success());
        Self(dir)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        journeys::engine::unmount_below(&self.0);
    }
}

/// Empty files use up the filesystem's inodes, which all groups share and a limit in bytes does not count.
#[tokio::test]
async fn b5_a_box_that_takes_the_disks_names_is_ended_and_most_of_them_come_back() {
    let mut world = World::on(Engine::docker()).await;
    let state = Small::over(world.root().join("state"), "nr_inodes=40000,size=2g,mode=2770");
    let ann = world.telegram.person(5, "Ann");
    let direct = ann.direct();
    world.up().await;
    ann.says(&direct, "hello?");
    world.admit(&direct.address(), "main").await;
    let flood = "mkdir /workspace/many; cd /workspace/many; seq 1 25000 | xargs touch; sleep 60";
    world.model.on("do it").runs("run_command", json!({ "command": flood })).says("It is done.");
    ann.says(&direct, "do it");
    has(&world.hears(&direct).await, &["[lazaret]", "it filled its workspace with more than 10000 files"]);
    has(&world.hears(&direct).await, &["[lazaret]", "newest files", "I removed them"]);
    let left = std::fs::read_dir(world.in_workspace("main", "many")).unwrap().count();
    assert!((9_000..=10_000).contains(&left), "{left} are left");
    goes_on(world, &ann, &direct).await;
    drop(state);
}

/// Returns how many bytes of the host's disk an image uses.
fn taken(world: &World, image: &str) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(world.root().join("state/volumes").join(image)).unwrap().blocks() * 512
}

/// The agent of `main` runs a command. Returns the command's result.
async fn does(world: &World, ann: &Person, direct: &Chat, order: &str, command: &str) -> String {
    world.model.on(order).runs("run_command", json!({ "command": command })).says("It is done.");
    ann.says(direct, order);
    assert_eq!(world.hears(direct).await, "It is done.");
    // A host that is killed before it stored the receipt would send the text again.
    world.delivered().await;
    world.model.tool_results().pop().unwrap()
}

const IMAGES: [(&str, &str); 2] =
    [("LAZARET_LIMITS_DISK_IMAGES", "true"), ("LAZARET_LIMITS_WORKSPACE_MIB", "64")];

/// The kernel refuses a write at the limit. The agent gets the error and can free space itself.
#[tokio::test]
async fn b5_in_a_file_system_of_its_own_a_full_workspace_ends_nothing() {
    let (mut world, ann, direct) = World::ann_at_home(Engine::docker(), &IMAGES).await;
    let fill = "cd /workspace; echo mine > kept; dd if=/dev/zero of=fill bs=1M count=400; ls -l";
    let told = does(&world, &ann, &direct, "fill it", fill).await;
    has(&told, &["No space left on device", "kept", "fill"]);
    let written = std::fs::metadata(world.in_workspace("main", "fill")).unwrap().len();
    assert!((64 << 20..70 << 20).contains(&written), "{written} bytes fit");
    let image = "main.workspace.ext4";
    assert!((64 << 20..78 << 20).contains(&taken(&world, image)), "the host's disk holds no more than that");
    let full =
        does(&world, &ann, &direct, "what of more", "dd if=/dev/zero of=/workspace/more bs=1M count=8").await;
    has(&full, &["No space left on device"]);

    let flags = "echo flags: $(grep -E ' /(workspace|session) ' /proc/self/mountinfo | grep -c nosuid,nodev)";
    has(&does(&world, &ann, &direct, "what of devices", flags).await, &["flags: 2"]);

    let found = "cd /workspace; cat kept; rm fill; sync; dd if=/dev/zero of=again bs=1M count=30 && rm again";
    has(&does(&world, &ann, &direct, "clear up", found).await, &["mine", "30+0 records out"]);
    // The filesystem returns freed blocks when it writes its journal.
    let given_back = async || (taken(&world, image) < 40 << 20).then_some(());
    world.patiently("the host's disk has its room back", given_back).await;

    // Files survive a host that is killed, and a host that stops together with its box.
    world.kill_host().await;
    assert_eq!(std::fs::read_to_string(world.in_workspace("main", "kept")).unwrap(), "mine\n");
    world.up().await;
    has(&does(&world, &ann, &direct, "still there?", "cat /workspace/kept").await, &["mine"]);
    let archive = world.root().join("all.tar").to_string_lossy().into_owned();
    let told = world.lazaret(&["backup", "--all", &archive]).await;
    assert!(!told.contains("left out"), "{told}");
    world.stop_host().await;
    // Simulates a reboot: nothing is mounted. The next run or the next backup mounts the filesystem again.
    journeys::engine::unmount_below(world.root());
    assert!(!world.in_workspace("main", "kept").exists());
    let cold = world.root().join("cold.tar").to_string_lossy().into_owned();
    world.lazaret(&["backup", "--all", &cold]).await;
    for archive in [&archive, &cold] {
        let list = std::process::Command::new("tar")
            .args(["-xOf", archive, "state/workspaces/main/kept"])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(list.stdout).unwrap(), "mine\n", "{archive}");
    }
    journeys::engine::unmount_below(world.root());
    world.up().await;
    has(&does(&world, &ann, &direct, "and now?", "cat /workspace/kept").await, &["mine"]);
    has(&world.lazaret(&["box", "check"]).await, &["held"]);
    goes_on(world, &ann, &direct).await;
}

/// If the host cannot enforce a limit, it refuses the run and does not run without the limit.
#[tokio::test]
async fn files_that_an_image_would_hide_are_told_with_the_way_out() {
    let (mut world, ann, direct) = World::ann_at_home(Engine::docker(), &[]).await;
    does(&world, &ann, &direct, "note it", "echo Tom > /workspace/cat").await;
    world.stop_host().await;
    for (name, value) in IMAGES {
        world.set(name, value);
    }
    world.up().await;
    ann.says(&direct, "are you there?");
    let told = world.hears(&direct).await;
    has(&told, &["[lazaret]", "state/workspaces/main holds files", "move them away, start it"]);
    assert!(!told.contains(&*world.root().to_string_lossy()), "{told}");
    let doctor = String::from_utf8(world.run(&["doctor"], "").await.stdout).unwrap();
    has(&doctor, &["main: ", "holds files"]);

    // Follows the notice's instructions step by step.
    world.stop_host().await;
    let (place, away) = (world.root().join("state/workspaces/main"), world.root().join("away"));
    let moved = |from: &std::path::Path, to: &std::path::Path| {
        std::fs::create_dir_all(to).unwrap();
        let script = "cp -a \"$1\"/. \"$2\" && find \"$1\" -mindepth 1 -delete";
        let done = std::process::Command::new("sh").args(["-c", script, "sh"]).args([from, to]).status();
        assert!(done.unwrap().success());
    };
    let sessions = world.root().join("state/sessions/main");
    moved(&place, &away.join("w"));
    moved(&sessions, &away.join("s"));
    world.up().await;
    does(&world, &ann, &direct, "once", "true").await;
    world.stop_host().await;
    moved(&away.join("w"), &place);
    world.up().await;
    has(&does(&world, &ann, &direct, "my cat?", "cat /workspace/cat").await, &["Tom"]);

    // If disk images are switched off again, the files are hidden, and the host refuses.
    world.stop_host().await;
    world.set("LAZARET_LIMITS_DISK_IMAGES", "false").up().await;
    ann.says(&direct, "hello?");
    has(&world.hears(&direct).await, &["limits.disk_images is off", "switch it on again"]);
    world.stop_host().await;

    // A restore unpacks an archive as plain files. It keeps the earlier images with the replaced state.
    let archive = world.root().join("all.tar").to_string_lossy().into_owned();
    world.lazaret(&["backup", "--all", &archive]).await;
    world.lazaret(&["restore", &archive]).await;
    assert_eq!(std::fs::read_to_string(world.in_workspace("main", "cat")).unwrap(), "Tom\n");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&*world.root().to_string_lossy()), "{mounts}");
    assert!(!world.root().join("state/volumes").exists());
    world.up().await;
    goes_on(world, &ann, &direct).await;
}
