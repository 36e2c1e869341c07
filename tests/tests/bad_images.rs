//! Unusual images: missing, for another processor, empty, with their own settings. The host uses an image unchanged or
//! refuses it with the reason. It answers waiting messages once there is a usable image.

#![cfg(test)]

use std::process::Stdio;

use journeys::world::{Engine, World, docker};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

#[track_caller]
fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
}

/// The end of an archive without files (POSIX ustar): two empty blocks.
const EMPTY_TAR: [u8; 1024] = [0; 1024];

/// Pipes `input` into the engine's command line.
async fn pipe(args: &[&str], input: &[u8]) {
    let mut command = Command::new("docker");
    // The classic builder, which every engine has.
    command.args(args).env("DOCKER_BUILDKIT", "0").stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {}: {told}", args.join(" "));
}

/// Builds busybox with one more line of a Dockerfile, under its own name.
async fn busybox_with(name: &str, line: &str) -> String {
    let image = format!("lazaret-journeys-{name}");
    let dockerfile = format!("FROM {}\n{line}\n", Engine::docker().image());
    pipe(&["build", "--quiet", "--tag", &image, "-"], dockerfile.as_bytes()).await;
    image
}

/// Imports an image from an archive, with one setting. Each import makes a new image, so the earlier one is removed
/// first.
async fn imported(name: &str, change: &str, archive: &[u8]) -> String {
    let image = format!("lazaret-journeys-{name}");
    let _ = Command::new("docker").args(["rmi", &image]).output().await;
    pipe(&["import", "--change", change, "-", &image], archive).await;
    image
}

async fn empty(name: &str, change: &str) -> String {
    imported(name, change, &EMPTY_TAR).await
}

/// Makes an image without files for another processor. The engine imports only for its own processor, so the test loads
/// the image as an archive from elsewhere (OCI image specification, "Image JSON Description").
async fn foreign(architecture: &str) -> String {
    let image = "lazaret-journeys-foreign:latest";
    let config = json!({ "architecture": architecture, "os": "linux", "config": {},
                         "rootfs": { "type": "layers", "diff_ids": [] } });
    let manifest = json!([{ "Config": "config.json", "RepoTags": [image], "Layers": [] }]);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    std::fs::write(dir.path().join("manifest.json"), manifest.to_string()).unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(dir.path()).args(["-c", "config.json", "manifest.json"]);
    pipe(&["load", "--quiet"], &tar.output().await.unwrap().stdout).await;
    image.to_owned()
}

/// Sets the image of `main` from the next turn on. Each box lives for only one turn.
fn use_image(world: &World, image: &str) {
    world.write("groups/main/group.toml", format!("image = {image:?}\nlimits.idle_window = 0\n"));
}

/// Runs one turn on the terminal with a command in the box.
async fn one_turn(world: &World, name: &str) -> String {
    let (ask, answer) = (format!("look at {name}"), format!("I looked at {name}."));
    world
        .model
        .on(&ask)
        .runs("run_command", json!({ "command": format!("echo works in {name}") }))
        .says(&answer);
    let said = world.chat(&format!("{ask}\n")).await;
    has(&said, &[&answer]);
    world.model.tool_results().pop().unwrap()
}

/// Returns what the chat gets for a line whose box cannot be started. It does not wait for an answer.
async fn told_of(world: &World, line: &str) -> String {
    let told = async || {
        let newest: Value = serde_json::from_str(&world.lazaret(&["trace", "--json"]).await).ok()?;
        let message = newest.as_array()?.iter().find(|m| m["text"] == line)?["message"].as_str()?.to_owned();
        let trace: Value = serde_json::from_str(&world.lazaret(&["trace", &message, "--json"]).await).ok()?;
        let notice = trace["turn"]["said"].as_array()?.iter().find(|said| said["voice"] == "notice")?.clone();
        notice["text"].as_str().map(str::to_owned)
    };
    let typed = format!("{line}\n");
    tokio::select! {
        said = world.chat(&typed) => panic!("the chat ended too early:\n{said}"),
        told = world.patiently("the chat is told", told) => told,
    }
}

async fn complaints(world: &World) -> String {
    let output = world.run(&["doctor"], "").await;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    told.lines().filter(|line| line.starts_with("BAD")).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn an_image_that_is_missing_is_told_and_the_message_is_answered_when_it_comes() {
    const ABSENT: &str = "lazaret-journeys-absent";
    let _ = Command::new("docker").args(["rmi", ABSENT]).output().await;
    let mut world = World::new().await;
    world.up().await;
    use_image(&world, ABSENT);
    world.model.on("hello").says("Hello.");
    let comes = async {
        let refused = async || world.log().contains("image.missing").then_some(());
        world.patiently("the run is refused", refused).await;
        has(&complaints(&world).await, &["image", ABSENT, "is not on this machine", "docker pull"]);
        docker(&["tag", Engine::docker().image(), ABSENT]).await;
    };
    let (said, ()) = tokio::join!(world.chat("hello\n"), comes);
    has(
        &said,
        &["[lazaret] The agent cannot start: the image lazaret-journeys-absent is not on this machine"],
    );
    has(&said, &["docker pull lazaret-journeys-absent", "Your message is kept", "Hello."]);
    world.lazaret(&["doctor"]).await;
    docker(&["rmi", ABSENT]).await;
    world.finish().await;
}

#[tokio::test]
async fn an_image_for_another_processor_is_refused_with_both_names() {
    let (other, own) =
        if std::env::consts::ARCH == "x86_64" { ("arm64", "amd64") } else { ("amd64", "arm64") };
    let image = foreign(other).await;
    let mut world = World::new().await;
    world.up().await;
    use_image(&world, &image);
    let told = told_of(&world, "hello").await;
    has(&told, &[&format!("is for {other}, this machine is {own}"), &format!("pull or build it for {own}")]);
    has(&world.log(), &["image.architecture"]);
    has(&complaints(&world).await, &[&format!("{image} is for {other}, this machine is {own}")]);
    world.finish().await;
}

#[tokio::test]
async fn an_images_own_settings_do_not_matter_and_a_change_of_image_holds_from_the_next_turn_on() {
    let mut world = World::new().await;
    world.up().await;
    for (name, line) in [
        ("entrypoint", r#"ENTRYPOINT ["false"]"#),
        ("cmd", r#"CMD ["false"]"#),
        ("nobody", "USER nobody"),
        ("volume", "VOLUME /data"),
        ("our-volume", "VOLUME /workspace"),
        ("unhealthy", "HEALTHCHECK --interval=1s --retries=1 CMD false"),
        ("stopsignal", "STOPSIGNAL SIGUSR1"),
        ("onbuild", "ONBUILD RUN false"),
        ("env", "ENV HOME=/root HTTPS_PROXY=http://example.org LD_PRELOAD=/nowhere.so"),
        ("busybox-again", "LABEL lazaret.group=main lazaret.install=other"),
    ] {
        let image = busybox_with(name, line).await;
        use_image(&world, &image);
        assert_eq!(one_turn(&world, name).await, format!("works in {name}\n"));
        let id = docker(&["image", "inspect", "--format", "{{.Id}}", &image]).await;
        let used = format!("{}-", &id.trim_start_matches("sha256:")[..20]);
        let passwd = std::fs::read_dir(world.root().join("state/passwd")).unwrap().flatten();
        let mut names = passwd.map(|e| e.file_name().to_string_lossy().into_owned());
        assert!(names.any(|n| n.starts_with(&used)), "{name}: the box was not of {image}");
    }
    world.finish().await;
}

#[tokio::test]
async fn a_working_directory_that_does_not_exist_does_not_matter() {
    let container = docker(&["create", Engine::docker().image(), "none"]).await;
    let files = Command::new("docker").args(["export", container.trim()]).output().await.unwrap().stdout;
    docker(&["rm", container.trim()]).await;
    let image = imported("workdir", "WORKDIR /not/there", &files).await;
    let mut world = World::new().await;
    world.up().await;
    use_image(&world, &image);
    assert_eq!(one_turn(&world, "workdir").await, "works in workdir\n");
    world.finish().await;
}

#[tokio::test]
async fn a_volume_over_what_is_ours_is_refused_with_the_reason() {
    for (name, volume) in [("volume-inside", "/workspace/x"), ("volume-around", "/ipc"), ("volume-root", "/")]
    {
        let mut world = World::new().await;
        world.set("LAZARET_IMAGE", &empty(name, &format!("VOLUME {volume}")).await);
        world.up().await;
        let told = told_of(&world, "hello").await;
        has(&told, &[&format!("declares VOLUME {volume}, which overlaps /"), "use an image without it"]);
        has(&world.log(), &["image.volume"]);
        world.finish().await;
    }
}

#[tokio::test]
async fn in_an_empty_image_the_agent_answers_and_is_told_that_there_is_no_shell() {
    let image = empty("empty", "LABEL empty=yes").await;
    let mut world = World::new().await;
    world.set("LAZARET_IMAGE", &image);
    world.up().await;
    world
        .model
        .on("look around")
        .runs("run_command", json!({ "command": "ls" }))
        .runs("write_file", json!({ "path": "note.md", "content": "it works" }))
        .runs("read_file", json!({ "path": "note.md" }))
        .says("There is nothing here.");
    has(&world.chat("look around\n").await, &["There is nothing here."]);
    let body = world.model.requests().pop().unwrap().body.to_string();
    let results = world.model.tool_results();
    has(&results[0], &["this image has no shell", "ask the owner to set another image"]);
    has(&results[2], &["it works"]);
    assert_eq!(body.matches(r#""is_error":true"#).count(), 1, "{body}");
    world.finish().await;
}

#[tokio::test]
async fn b3_an_image_whose_links_would_move_a_mount_is_refused_before_a_box_is_made_of_it() {
    let mut world = World::new().await;
    world.up().await;
    for (name, links, told_as) in [
        ("link-inbox", "ln -s /workspace/i /inbox", "/inbox"),
        ("link-runner", "ln -s /workspace/g /lazaret && ln -s /workspace/i /inbox", "/inbox and /lazaret"),
        ("link-above", "mkdir -p /var && rm -rf /run && ln -s /workspace/r /run", "/run"),
        ("link-dangling", "mkdir -p /ipc && ln -s nowhere /ipc/to-agent", "/ipc/to-agent"),
    ] {
        let image = busybox_with(name, &format!("RUN {links}")).await;
        let output = world.run(&["image", "check", &image], "").await;
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        has(&told, &["image.link", &format!("a symbolic link at {told_as}, where"), "RUN rm "]);
    }
    // Setting a bad image for a group does not replace the image in use.
    world.write("groups/main/group.toml", "limits.idle_window = 0\n");
    assert_eq!(one_turn(&world, "before").await, "works in before\n");
    use_image(&world, "lazaret-journeys-link-inbox");
    world.model.on("and now").says("Now too.");
    has(
        &world.chat("and now\n").await,
        &["Now too.", "[lazaret] I do not use the image", "a symbolic link at /inbox"],
    );
    let workspace = world.root().join("state/workspaces/main");
    assert!(
        !workspace.join("i").exists() && !workspace.join("g").exists(),
        "nothing was made in the workspace"
    );
    let trials = std::fs::read_dir(world.root().join("state/trials"));
    assert_eq!(trials.map_or(0, |left| left.count()), 0, "no trial left a folder");
    world.finish().await;
}

#[tokio::test]
async fn a_familys_chat_hears_no_command_and_the_operator_does() {
    let (world, ann, direct) = World::ann_at_home(Engine::docker(), &[]).await;
    let (bob, family) = (world.telegram.person(6, "Bob"), world.telegram.room(-100_123, "Family"));
    bob.says(&family, "@laz_bot hello?");
    world.admit(&family.address(), "family").await;
    world.write("groups/family/group.toml", "image = \"lazaret-journeys-nowhere\"\n");
    world.model.on("supper").says("Soup.");
    bob.says(&family, "@laz_bot what is for supper?");
    assert_eq!(
        world.hears(&family).await,
        "[lazaret] The agent cannot start: its image cannot be used (image.missing). The operator was told. Your message \
         is kept, and I keep trying for a day."
    );
    let told = world.hears(&direct).await;
    has(&told, &["The agent of group family cannot start", "docker pull lazaret-journeys-nowhere"]);
    has(&complaints(&world).await, &["image", "docker pull lazaret-journeys-nowhere"]);
    has(&world.log(), &["docker pull lazaret-journeys-nowhere"]);

    bob.says(&family, "/status@laz_bot");
    assert!(!world.hears(&family).await.contains("lazaret "));
    world.lazaret(&["image", "set", "family", Engine::docker().image()]).await;
    assert_eq!(world.hears(&family).await, "Soup.");

    // The group keeps its image: only the operator hears of the other one.
    world.write(
        "groups/family/group.toml",
        "image = \"lazaret-journeys-nowhere\"\nmay_stop = \"anyone\"\nlimits.idle_window = 0\n",
    );
    bob.says(&family, "/new@laz_bot");
    assert!(world.hears(&family).await.contains("new session"));
    world.model.on("dessert").says("Cake.");
    bob.says(&family, "@laz_bot and dessert?");
    assert_eq!(world.hears(&family).await, "Cake.");
    has(&world.hears(&direct).await, &["Group family does not use the image lazaret-journeys-nowhere"]);
    assert!(direct.unheard().is_empty() && family.unheard().is_empty());
    world.model.on("thanks").says("You are welcome.");
    ann.says(&direct, "thanks");
    assert_eq!(world.hears(&direct).await, "You are welcome.");
    world.finish().await;
}

#[tokio::test]
async fn a_check_tells_what_becomes_of_each_volume() {
    let mut world = World::new().await;
    world.up().await;
    let image = busybox_with("two-volumes", "VOLUME /workspace /data").await;
    let told = world.lazaret(&["image", "check", &image]).await;
    has(
        &told,
        &[
            "/workspace: without effect, the box has its own there",
            "/data: each is 16 MiB of memory, empty in every run",
        ],
    );
    use_image(&world, &image);
    world
        .model
        .on("volumes")
        .runs("run_command", json!({ "command": "df -k /workspace /data | tail -n 2" }))
        .says("Seen.");
    has(&world.chat("volumes\n").await, &["Seen."]);
    let seen = world.model.tool_results().pop().unwrap();
    let size = |line: &str| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
    let sizes: Vec<u64> = seen.lines().filter(|line| line.contains('%')).map(size).collect();
    assert!(sizes[0] > 1 << 20, "the workspace is the host's directory: {seen}");
    assert_eq!(sizes[1], 16 << 10, "{seen}");
    world.finish().await;
}
