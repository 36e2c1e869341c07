//! Images and mounts. The host pins a usable image and checks a new one before it replaces the old one. One command
//! rolls back. The owner mounts directories of the machine for a group.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use journeys::engine::Proxy;
use journeys::world::{Engine, World};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

#[track_caller]
fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
}

/// Runs the engine's command line on the given engine.
async fn docker(engine: &Engine, args: &[&str], input: &[u8]) -> String {
    let mut command = Command::new("docker");
    command.args(args).env("DOCKER_HOST", engine.socket()).env("DOCKER_BUILDKIT", "0");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The write fails if the command has closed its input, because it does not read it.
    let _ = child.stdin.take().unwrap().write_all(input).await;
    let output = child.wait_with_output().await.unwrap();
    assert!(
        output.status.success(),
        "docker {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Builds busybox with one more line of a Dockerfile.
async fn built(engine: &Engine, name: &str, line: &str) -> String {
    let dockerfile = format!("FROM {}\n{line}\n", engine.image());
    docker(engine, &["build", "--quiet", "--tag", name, "-"], dockerfile.as_bytes()).await
}

/// Imports an image without files and with one setting (POSIX ustar: two empty blocks end an archive).
async fn empty(engine: &Engine, name: &str, change: &str) {
    docker(engine, &["import", "--change", change, "-", name], &[0; 1024]).await;
}

/// Gives each turn its own box.
fn one_box_per_turn(world: &World, more: &str) {
    world.write("groups/main/group.toml", format!("{more}\n[limits]\nidle_window = 0\n"));
}

async fn asked(world: &World, ask: &str) -> String {
    world.model.on(ask).says(&format!("Here: {ask}"));
    let said = world.chat(&format!("{ask}\n")).await;
    has(&said, &[&format!("Here: {ask}")]);
    said
}

/// Runs a command in `main`'s box, and returns the command's result.
async fn run_in_box(world: &World, ask: &str, command: &str) -> String {
    world.model.on(ask).runs("run_command", json!({ "command": command })).says("Done.");
    has(&world.chat(&format!("{ask}\n")).await, &["Done."]);
    world.model.tool_results().pop().unwrap()
}

async fn listed(world: &World) -> Value {
    let listed: Value = serde_json::from_str(&world.lazaret(&["image", "list", "--json"]).await).unwrap();
    listed.as_array().unwrap().iter().find(|row| row["group"] == "main").unwrap().clone()
}

fn group_file(world: &World) -> String {
    fs::read_to_string(world.root().join("groups/main/group.toml")).unwrap()
}

#[tokio::test]
async fn busybox_an_empty_image_debian_and_a_crooked_one_each_serve_a_group_unchanged() {
    let engine = Engine::docker();
    empty(&engine, "lazaret-journeys-bare", "LABEL bare=yes").await;
    let crooked = "ENTRYPOINT [\"false\"]\nUSER nobody\nWORKDIR /made/then/gone\nUSER root\nRUN rm -r /made\nUSER nobody";
    built(&engine, "lazaret-journeys-crooked", crooked).await;
    let mut world = World::on(engine).await;
    world.up().await;
    one_box_per_turn(&world, "");
    for (image, shell) in [
        ("lazaret-journeys-busybox", true),
        ("lazaret-agent", true),
        ("lazaret-journeys-crooked", true),
        ("lazaret-journeys-bare", false),
    ] {
        let told = world.lazaret(&["image", "set", "main", image]).await;
        has(&told, &[image, "starts in it, in the whole posture", "from its next run on"]);
        let result = run_in_box(&world, &format!("try {image}"), "pwd; id -u").await;
        match shell {
            true => has(&result, &["/workspace\n7"]),
            false => has(&result, &["this image has no shell"]),
        }
        let row = listed(&world).await;
        assert_eq!((&row["pinned"]["name"], &row["there"]), (&json!(image), &json!(true)), "{row}");
    }
    let report = world.lazaret(&["image", "check", "lazaret-journeys-crooked"]).await;
    has(
        &report,
        &["false is not run", "nobody is not used", "/made/then/gone is not used", "it can be used"],
    );
    world.finish().await;
}

#[tokio::test]
async fn a_tag_that_moves_changes_nothing_until_somebody_says_so_and_one_command_goes_back() {
    let engine = Engine::docker();
    let name = "lazaret-journeys-moving";
    let first = built(&engine, name, "ENV WHICH=first").await;
    let mut world = World::on(engine.clone()).await;
    world.set("LAZARET_IMAGE", name);
    world.up().await;
    one_box_per_turn(&world, "# ours, and it stays");
    assert_eq!(listed(&world).await["pinned"], Value::Null);
    asked(&world, "hello").await;
    assert_eq!(listed(&world).await["pinned"], json!({ "name": name, "id": first }));

    let second = built(&engine, name, "ENV WHICH=second").await;
    asked(&world, "and now?").await;
    assert_eq!(
        listed(&world).await["pinned"]["id"],
        json!(first),
        "the tag moved, and the group keeps its image"
    );
    world.lazaret(&["image", "set", "main", name]).await;
    asked(&world, "after set").await;
    let row = listed(&world).await;
    assert_eq!((&row["pinned"]["id"], &row["before"]["id"]), (&json!(second), &json!(first)));

    has(&world.lazaret(&["image", "rollback", "main"]).await, &["again from its next run on"]);
    asked(&world, "after going back").await;
    let row = listed(&world).await;
    assert_eq!((&row["pinned"]["id"], &row["before"]["id"]), (&json!(first), &json!(second)));
    world.lazaret(&["image", "rollback", "main"]).await;
    assert_eq!(listed(&world).await["pinned"]["id"], json!(second), "a second rollback undoes the first");

    world.lazaret(&["image", "set", "main", engine.image()]).await;
    has(&group_file(&world), &["# ours, and it stays", &format!("image = {:?}", engine.image())]);
    world.lazaret(&["image", "rollback", "main"]).await;
    has(&group_file(&world), &[&format!("image = {name:?}")]);
    asked(&world, "the file and the pin agree").await;
    let row = listed(&world).await;
    assert_eq!((&row["named"], &row["pinned"]["id"]), (&json!(name), &json!(second)));
    world.finish().await;
}

#[tokio::test]
async fn an_image_that_cannot_be_a_box_does_not_take_the_place_of_one_that_serves() {
    let engine = Engine::docker();
    empty(&engine, "lazaret-journeys-overlap", "VOLUME /workspace/x").await;
    let mut world = World::on(engine.clone()).await;
    world.up().await;
    one_box_per_turn(&world, "");
    asked(&world, "hello").await;
    let row = listed(&world).await;
    assert_eq!(row["pinned"]["name"], json!(engine.image()));

    for (bad, why) in [
        ("lazaret-journeys-overlap", "declares VOLUME /workspace/x"),
        ("lazaret-journeys-no-such", "is not on this machine"),
    ] {
        one_box_per_turn(&world, &format!("image = {bad:?}"));
        let first = asked(&world, &format!("first with {bad}")).await;
        has(&first, &[&format!("[lazaret] I do not use the image {bad}: "), why, "I go on with"]);
        let second = asked(&world, &format!("second with {bad}")).await;
        assert!(!second.contains("I do not use"), "the chat is told once:\n{second}");
        has(&world.lazaret(&["status"]).await, &[&format!("main goes on with {}", engine.image()), bad, why]);
        assert_eq!(listed(&world).await["pinned"], row["pinned"]);
    }
    one_box_per_turn(&world, &format!("image = {:?}", engine.image()));
    let set = world.run(&["image", "set", "main", "lazaret-journeys-overlap"], "").await;
    assert_eq!(set.status.code(), Some(1));
    has(&String::from_utf8_lossy(&set.stdout), &["BREAKS", "image.volume", "it cannot be used"]);
    has(&String::from_utf8_lossy(&set.stderr), &["nothing was changed: group main keeps its image"]);

    one_box_per_turn(&world, &format!("image = {:?}", engine.image()));
    asked(&world, "good again").await;
    world.lazaret(&["image", "set", "main", engine.image()]).await;
    assert!(!world.lazaret(&["status"]).await.contains("goes on with"));
    world.finish().await;
}

/// Uses a separate engine, on which the default image may be rebuilt and removed.
#[tokio::test]
async fn the_default_image_is_taken_up_when_it_is_rebuilt_and_not_after_it_was_rolled_back() {
    let engine = Engine::own_docker(false);
    let rebuilt = async |mark: &str| built(&engine, "lazaret-agent", &format!("ENV WHICH={mark}")).await;
    let first = rebuilt("first").await;
    let mut world = World::on(engine.clone()).await;
    world.set("LAZARET_IMAGE", "lazaret-agent");
    world.up().await;
    one_box_per_turn(&world, "");
    let pinned = async |ask: &str| {
        asked(&world, ask).await;
        listed(&world).await["pinned"]["id"].as_str().unwrap().to_owned()
    };
    assert_eq!(pinned("one").await, first);
    let second = rebuilt("second").await;
    assert_eq!(pinned("two").await, second, "an upgrade reaches every group");
    world.lazaret(&["image", "rollback", "main"]).await;
    assert_eq!(pinned("three").await, first, "an image that was rolled back does not come back by itself");
    let third = rebuilt("third").await;
    assert_eq!(pinned("four").await, third);
    empty(&engine, "lazaret-agent", "VOLUME /ipc").await;
    assert_eq!(pinned("five").await, third, "a rebuild that cannot run as a box is not used");

    // If the image is gone from the machine, the host refuses the run and names the command that repairs it.
    docker(&engine, &["tag", &first, "lazaret-agent"], b"").await;
    world.lazaret(&["image", "rollback", "main"]).await;
    let serving = listed(&world).await["pinned"]["id"].as_str().unwrap().to_owned();
    docker(&engine, &["rmi", "--force", &serving], b"").await;
    world.model.on("still there?").says("I am.");
    let mend = async {
        let gone = async || world.log().contains("image.gone").then_some(());
        world.patiently("the run is refused", gone).await;
        has(&world.lazaret(&["image", "list"]).await, &["GONE from this machine"]);
        world.lazaret(&["image", "set", "main", engine.image()]).await;
    };
    let (said, ()) = tokio::join!(world.chat("still there?\n"), mend);
    has(&said, &["is gone from this machine", "lazaret image set main", "Your message is kept", "I am."]);
    world.finish().await;
}

/// Returns whether a call creates a run's box, and not a trial box.
fn makes_a_run(call: &str) -> bool {
    call.contains("/containers/create?name=lazaret-") && !call.contains("lazaret-trial-")
}

/// Returns a host behind a proxy. The proxy calls `deed` just before the first box of a run is created.
async fn world_with(engine: Engine, deed: impl Fn() + Send + Sync + 'static) -> (World, Proxy) {
    let done = AtomicBool::new(false);
    let proxy = Proxy::new(&engine.socket(), move |call| {
        if makes_a_run(call) && !done.swap(true, Ordering::SeqCst) {
            deed();
        }
    });
    let mut world = World::on(engine).await;
    world.set("DOCKER_HOST", &proxy.socket());
    (world, proxy)
}

#[tokio::test]
async fn an_image_that_goes_between_the_check_and_the_box_is_refused_and_costs_no_attempt() {
    let engine = Engine::docker();
    let name = "lazaret-journeys-fleeting";
    built(&engine, name, "ENV WHICH=fleeting").await;
    let socket = engine.socket();
    let (mut world, _between) = world_with(engine.clone(), move || {
        let mut rmi = std::process::Command::new("docker");
        rmi.env("DOCKER_HOST", &socket).args(["rmi", "--force", name]).stdout(Stdio::null());
        assert!(rmi.status().unwrap().success());
    })
    .await;
    world.set("LAZARET_IMAGE", name);
    world.up().await;
    world.model.on("hello").says("Hello.");
    let mend = async {
        let gone = async || world.log().contains("image.gone").then_some(());
        world.patiently("the run is refused", gone).await;
        world.lazaret(&["image", "set", "main", engine.image()]).await;
    };
    let (said, ()) = tokio::join!(world.chat("hello\n"), mend);
    has(&said, &["[lazaret] The agent cannot start", "lazaret image set main", "Hello."]);
    let trace: Value = serde_json::from_str(&world.lazaret(&["trace", "m-1", "--json"]).await).unwrap();
    assert_eq!(trace["turn"]["attempt"], json!(1), "{trace}");
    world.finish().await;
}

/// Makes a directory of the owner, outside the world's directory.
fn photos() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::Builder::new().prefix("lazaret-photos-").tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    for name in ["album", "new"] {
        fs::create_dir(path.join(name)).unwrap();
    }
    fs::write(path.join("album/summer.txt"), "the sea").unwrap();
    for name in ["", "album", "new"] {
        use std::os::unix::fs::PermissionsExt;
        // The boxes run as other users.
        let mode = if name == "new" { 0o777 } else { 0o755 };
        fs::set_permissions(path.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    (dir, path)
}

fn allow(world: &World, root: &Path) {
    let (album, new) = (root.join("album"), root.join("new"));
    world.write(
        "lazaret.toml",
        format!("[mounts]\nallow = [{{ path = {album:?} }}, {{ path = {new:?}, writable = true }}]\n"),
    );
}

fn mounts(world: &World, root: &Path, more: &str) {
    let (album, new) = (root.join("album"), root.join("new"));
    one_box_per_turn(
        world,
        &format!(
            "mounts = [\n  {{ source = {album:?}, target = \"/mnt/album\" }},\n  {{ source = {new:?}, target = \
             \"/mnt/new\", writable = true }},\n{more}]"
        ),
    );
}

#[tokio::test]
async fn a_group_sees_what_both_files_say_and_writes_only_where_both_say_so() {
    let (_photos, root) = photos();
    let mut world = World::new().await;
    world.write("groups/main/CLAUDE.md", "");
    allow(&world, &root);
    mounts(&world, &root, "");
    world.up().await;
    let told = run_in_box(
        &world,
        "look",
        "cat /mnt/album/summer.txt; touch /mnt/album/x 2>&1; echo made > /mnt/new/y; ln -s /etc/shadow /mnt/new/link; \
         grep -c ' /mnt/' /proc/self/mountinfo",
    )
    .await;
    has(&told, &["the sea", "Read-only file system", "\n2"]);
    assert_eq!(fs::read_to_string(root.join("new/y")).unwrap(), "made\n");
    assert!(!root.join("album/x").exists());

    // B2: a box can replace an entry of a writable mount with a link. The next box must not follow it.
    let link = root.join("new/link");
    mounts(&world, &root, &format!("  {{ source = {link:?}, target = \"/mnt/other\" }},\n"));
    let doctor = world.run(&["doctor"], "").await;
    has(&String::from_utf8_lossy(&doctor.stdout), &["overlaps with a mount that this group may write"]);
    one_box_per_turn(&world, &format!("mounts = [{{ source = {link:?}, target = \"/mnt/other\" }}]"));
    let doctor = world.run(&["doctor"], "").await;
    has(&String::from_utf8_lossy(&doctor.stdout), &["is a symbolic link"]);
    world.model.on("through the link?").says("It was refused.");
    let refused = async {
        let told = async || world.log().contains("mount.link").then_some(());
        world.patiently("the run is refused", told).await;
        mounts(&world, &root, "");
    };
    let (said, ()) = tokio::join!(world.chat("through the link?\n"), refused);
    has(&said, &["is a symbolic link", "It was refused."]);
    world.finish().await;
}

#[tokio::test]
async fn b4_a_mount_that_goes_between_the_check_and_the_box_is_refused_and_costs_no_attempt() {
    let (_photos, root) = photos();
    let album = root.join("album");
    let taken = album.clone();
    let (mut world, _between) = world_with(Engine::docker(), move || {
        fs::remove_dir_all(&taken).unwrap();
    })
    .await;
    allow(&world, &root);
    mounts(&world, &root, "");
    world.up().await;
    world.model.on("hello").says("Hello.");
    let back = async {
        let told = async || world.log().contains("mount.gone").then_some(());
        world.patiently("the run is refused", told).await;
        assert!(!album.exists(), "the engine has made nothing in its place");
        fs::create_dir(&album).unwrap();
    };
    let (said, ()) = tokio::join!(world.chat("hello\n"), back);
    has(
        &said,
        &[
            "[lazaret] The agent cannot start: the mount source",
            "is not there; make it, or take it out",
            "Hello.",
        ],
    );
    let trace: Value = serde_json::from_str(&world.lazaret(&["trace", "m-1", "--json"]).await).unwrap();
    assert_eq!(trace["turn"]["attempt"], json!(1), "{trace}");
    world.finish().await;
}

#[tokio::test]
async fn a_rollback_after_a_mistyped_name_returns_to_the_image_that_serves() {
    let engine = Engine::docker();
    let (first, second) = ("lazaret-journeys-one", "lazaret-journeys-two");
    for name in [first, second] {
        built(&engine, name, &format!("ENV WHICH={name}")).await;
    }
    let mut world = World::on(engine).await;
    world.up().await;
    for name in [first, second] {
        world.lazaret(&["image", "set", "main", name]).await;
    }
    let stays =
        [&format!("main stays with {second} ("), "typo was never taken", &format!("goes back to {first} (")];
    // By the command, which fails; by the command with no name at all; and in the file, before and after a run.
    for typo in ["localhost:1/lazaret-journeys-typo", "lazaret journeys typo"] {
        assert_eq!(world.run(&["image", "set", "main", typo], "").await.status.code(), Some(1));
        assert_eq!(listed(&world).await["refused"]["name"], json!(typo));
        has(&world.lazaret(&["image", "rollback", "main"]).await, &stays);
        assert_eq!(listed(&world).await["refused"], Value::Null);
    }
    for run in [false, true] {
        one_box_per_turn(&world, "image = \"lazaret-journeys-typo\"");
        if run {
            has(&asked(&world, "hello").await, &["I do not use the image lazaret-journeys-typo"]);
        }
        has(&world.lazaret(&["image", "rollback", "main"]).await, &stays);
        has(&group_file(&world), &[&format!("image = {second:?}")]);
    }
    let row = listed(&world).await;
    assert_eq!((&row["named"], &row["pinned"]["name"]), (&json!(second), &json!(second)), "{row}");
    has(&world.lazaret(&["image", "rollback", "main"]).await, &[&format!("uses {first} (")]);
    has(&group_file(&world), &[&format!("image = {first:?}")]);
    world.finish().await;
}

#[tokio::test]
async fn a_new_image_takes_a_box_that_is_up_now_if_the_operator_says_so() {
    let engine = Engine::docker();
    let which = async |world: &World, ask: &str| run_in_box(world, ask, "echo $WHICH").await;
    let names = ["lazaret-journeys-one", "lazaret-journeys-two"];
    for name in names {
        built(&engine, name, &format!("ENV WHICH={name}")).await;
    }
    let mut world = World::on(engine).await;
    world.up().await;
    let told = world.lazaret(&["image", "set", "main", names[0], "--now"]).await;
    assert!(!told.contains("box"), "none is up:\n{told}");
    has(&which(&world, "first look").await, &[names[0]]);

    let told = world.lazaret(&["image", "set", "main", names[1]]).await;
    has(&told, &["goes on with the old image until it has been idle for 5 min", "--now ends it"]);
    has(&which(&world, "second look").await, &[names[0]]);
    has(&world.lazaret(&["image", "set", "main", names[1], "--now"]).await, &["its idle box closes now"]);
    has(&which(&world, "third look").await, &[names[1]]);

    // A box at work finishes its turn.
    let work = json!({ "command": "touch begun; while [ ! -e go ]; do usleep 20000; done; echo $WHICH" });
    world.model.on("work").runs("run_command", work).says("Worked.");
    let change = async {
        world.made_in_workspace("main", "begun").await;
        let told = world.lazaret(&["image", "rollback", "main", "--now"]).await;
        has(&told, &[&format!("uses {} (", names[0]), "closes after this turn"]);
        fs::write(world.in_workspace("main", "go"), "").unwrap();
    };
    let (said, ()) = tokio::join!(world.chat("work\n"), change);
    has(&said, &["Worked."]);
    has(&world.model.tool_results().pop().unwrap(), &[names[1]]);
    has(&which(&world, "last look").await, &[names[0]]);
    world.stop_host().await;
    world.finish().await;
}
