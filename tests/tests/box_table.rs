//! Checks a running box against every row of the posture's table: with the engine's description, with the host's /proc
//! and cgroups, and with a probe inside. A canary key must not occur anywhere in the box.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use journeys::model::{Gate, KEY};
use journeys::telegram::TOKEN;
use journeys::world::{World, docker};
use serde_json::{Value, json};

/// The script of the probe inside the box. It prints lines of the form `name=value`.
const PROBE: &str = r#"
echo "id=$(id -u):$(id -g):$(id -G)"
echo "whoami=$(whoami)"
echo "caps=$(grep CapEff /proc/self/status | cut -f2)$(grep CapBnd /proc/self/status | cut -f2)"
echo "nnp=$(grep NoNewPrivs /proc/self/status | cut -f2)"
echo "seccomp=$(grep '^Seccomp:' /proc/self/status | cut -f2)"
echo "umask=$(umask)"
echo "links=$(ls /sys/class/net | tr '\n' ' ')"
echo "root=$(touch /probe 2>&1 | grep -c Read-only)"
echo "to=$(touch /ipc/to-agent/x 2>&1 | grep -c Read-only)"
echo "runner=$(touch /lazaret/x 2>&1 | grep -c Read-only)"
echo "inbox=$(touch /inbox/x 2>&1 | grep -c Read-only)"
echo "global=$(touch /global/x 2>/dev/null && echo writable || echo closed)"
echo "passwd=$(echo x 2>/dev/null >>/etc/passwd && echo writable || echo closed)"
echo "swap=$(mv /ipc/from-agent /ipc/other 2>&1 | grep -c -e busy -e Read-only)"
echo "tmp=$(df -k /tmp | tail -1 | awk '{print $2}')"
echo "shm=$(df -k /dev/shm | tail -1 | awk '{print $2}')"
echo "nofile=$(ulimit -n)"
echo "fsize=$(ulimit -f)"
echo "core=$(ulimit -c)"
echo "home=$HOME user=$USER lang=$LANG tz=$TZ"
echo "proxy=$HTTPS_PROXY $NO_PROXY"
echo "dev=$(ls /dev | tr '\n' ' ')"
echo "mknod=$(mknod /tmp/d b 8 0 2>&1 | grep -c -i -e permitted -e denied)"
echo "mount=$(mount -t tmpfs x /tmp 2>&1 | grep -c -i -e permitted -e denied)"
echo "pids=$(ls /proc | grep -c '^[0-9]')"
echo "docker=$(ls /var/run/docker.sock /run/docker.sock /run/containerd 2>/dev/null | wc -l)"
echo "keys=$(cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\0' '\n' | grep -c 'journeys-can[a]ry')"
"#;

fn line<'a>(report: &'a str, name: &str) -> &'a str {
    let found = report.lines().find_map(|l| l.strip_prefix(name).and_then(|l| l.strip_prefix('=')));
    found.unwrap_or_else(|| panic!("the probe did not print {name}:\n{report}"))
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))
}

#[tokio::test]
async fn a_running_box_is_the_table_row_by_row() {
    let mut world = World::new().await;
    let ann = world.telegram.person(5, "Ann");
    let room = world.telegram.room(-7, "Family");
    world.up().await;
    ann.says(&room, "hello");
    world.admit(&room.address(), "family").await;
    let gate = Gate::new();
    world
        .model
        .on("look around")
        .runs("run_command", json!({ "command": PROBE }))
        .waits_for(&gate)
        .says("Done.");
    ann.says(&room, "@laz_bot look around");
    world.soon("the box has probed", gate.arrived()).await;

    let names = world.boxes().await;
    assert_eq!(names.len(), 1, "one container per run: {names:?}");
    let inspected = docker(&["inspect", &names[0]]).await;
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    let report = world.model.tool_results().pop().unwrap();

    as_the_engine_says(&inspected[0], &names[0]);
    c11_c12_it_is_the_golden_profile(&world, &inspected[0]);
    as_the_host_sees(&inspected[0]);
    as_the_box_finds(&report);
    no_key_anywhere(&world, &inspected.to_string(), &names[0]).await;

    gate.open();
    assert_eq!(world.soon("the answer", room.hears()).await, "Done.");
    world.finish().await;
}

fn as_the_engine_says(b: &Value, name: &str) {
    let (config, host) = (&b["Config"], &b["HostConfig"]);
    let run = config["Labels"]["lazaret.run"].as_str().unwrap();
    assert_eq!(name, format!("lazaret-{run}"));
    for label in ["install", "group", "lane", "runner", "posture"] {
        assert!(
            config["Labels"][format!("lazaret.{label}")].as_str().is_some_and(|l| !l.is_empty()),
            "{label}"
        );
    }
    // network, namespaces
    assert_eq!(host["NetworkMode"], "none");
    assert_eq!(host["IpcMode"], "private");
    assert_eq!((&host["PidMode"], &host["UTSMode"]), (&json!(""), &json!("")), "of its own");
    assert_eq!(host["CgroupnsMode"], "private");
    assert!(host["Devices"].as_array().is_none_or(Vec::is_empty), "a device: {}", host["Devices"]);
    // rights
    assert_eq!(
        (&host["Privileged"], &host["CapDrop"], &host["CapAdd"]),
        (&json!(false), &json!(["ALL"]), &Value::Null)
    );
    let security = host["SecurityOpt"].as_array().unwrap();
    assert_eq!(security[0], "no-new-privileges");
    assert!(security[1].as_str().unwrap().contains("SCMP_ACT_ERRNO"), "the profile is not the host's own");
    // user
    let (uid, gid) = config["User"].as_str().unwrap().split_once(':').unwrap();
    assert!((70_001..100_000).contains(&uid.parse::<u32>().unwrap()) && gid != "0", "{uid}:{gid}");
    // root; the image's own settings are not used
    assert_eq!(host["ReadonlyRootfs"], true);
    assert_eq!(host["Init"], true);
    assert_eq!(config["Entrypoint"], json!(["/lazaret/agent-runner", "run"]));
    assert_eq!((&config["Cmd"], &config["Healthcheck"]["Test"]), (&json!([]), &json!(["NONE"])));
    // mounts
    assert_eq!(host["Binds"], Value::Null);
    let mut mounts: Vec<String> = b["Mounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| {
            format!("{} {} {}", m["Destination"].as_str().unwrap(), m["Type"].as_str().unwrap(), m["RW"])
        })
        .collect();
    mounts.sort();
    assert_eq!(
        mounts,
        [
            "/etc/passwd bind false",
            "/global bind false",
            "/inbox bind false",
            "/ipc/from-agent bind true",
            "/ipc/to-agent bind false",
            "/lazaret bind false",
            "/run/lazaret bind false",
            "/session bind true",
            "/workspace bind true",
        ]
    );
    for mount in host["Mounts"].as_array().unwrap() {
        assert_eq!(mount["BindOptions"]["NonRecursive"], true, "{mount}");
    }
    // memory, processor, processes
    let gib = 1u64 << 30;
    assert_eq!((host["Memory"].as_u64(), host["MemorySwap"].as_u64()), (Some(gib), Some(gib)));
    assert_eq!((host["NanoCpus"].as_u64(), host["PidsLimit"].as_u64()), (Some(1_000_000_000), Some(256)));
    assert_eq!(host["ShmSize"].as_u64(), Some(16 << 20));
    // logs, life
    assert_eq!(
        host["LogConfig"],
        json!({ "Type": "local", "Config": { "max-size": "1m", "max-file": "2" } })
    );
    assert_eq!((&host["AutoRemove"], &host["RestartPolicy"]["Name"]), (&json!(false), &json!("no")));
}

/// Compares every non-empty member of the engine's description with the committed file (`UPDATE_GOLDEN=1` writes it).
/// An added device, capability or namespace is a difference, whatever its name is.
fn c11_c12_it_is_the_golden_profile(world: &World, b: &Value) {
    /// Each version of the engine fills these members differently. The probe inside checks their effect.
    const ENGINES_OWN: [&str; 5] = ["ConsoleSize", "Isolation", "MaskedPaths", "ReadonlyPaths", "Runtime"];
    let mut host = b["HostConfig"].clone();
    ENGINES_OWN.iter().for_each(|name| drop(host.as_object_mut().unwrap().remove(*name)));
    let mut profile = something(&json!({ "Config": b["Config"], "HostConfig": host }));
    let seccomp = &mut profile["HostConfig"]["SecurityOpt"][1];
    let ours = include_str!("../../container/seccomp.json");
    assert_eq!(seccomp, &json!(format!("seccomp={ours}")), "the profile is not byte by byte the host's own");
    *seccomp = "seccomp=container/seccomp.json".into();
    let mut shown = serde_json::to_string_pretty(&profile).unwrap() + "\n";
    let labels = b["Config"]["Labels"].as_object().unwrap();
    for name in ["run", "install", "posture", "runner"] {
        let value = labels[&format!("lazaret.{name}")].as_str().unwrap();
        shown = shown.replace(value, &name.to_uppercase());
    }
    let session = shown.split("/sessions/family/").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    assert!(session.starts_with("conversation-1-"), "{session}");
    shown = shown.replace(session, "SESSION");
    let image = b["Config"]["Image"].as_str().unwrap();
    let short: String = image.trim_start_matches("sha256:").chars().take(20).collect();
    let root = world.root().to_str().unwrap();
    let user = b["Config"]["User"].as_str().unwrap();
    let (uid, gid) = user.split_once(':').unwrap();
    let gid = format!("gid={gid}");
    for (value, name) in [
        (image, "IMAGE"),
        (&short, "IMAGE"),
        (root, "ROOT"),
        (user, "UID:GID"),
        (uid, "UID"),
        (&gid, "gid=GID"),
    ] {
        shown = shown.replace(value, name);
    }
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/inspected.json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(golden, &shown).unwrap();
    }
    assert_eq!(shown, read(golden));
}

/// Removes empty members. New versions of the engine add such members.
fn something(value: &Value) -> Value {
    let says = |value: &Value| {
        let nothing = [json!(null), json!(""), json!(0), json!(false), json!([]), json!({})];
        !nothing.contains(value)
    };
    match value {
        Value::Object(map) => {
            map.iter().map(|(k, v)| (k.clone(), something(v))).filter(|(_, v)| says(v)).collect()
        }
        Value::Array(list) => list.iter().map(something).collect(),
        other => other.clone(),
    }
}

/// Checks the kernel's values, because the engine's description could be wrong.
fn as_the_host_sees(b: &Value) {
    let pid = b["State"]["Pid"].as_u64().unwrap();
    let status = read(format!("/proc/{pid}/status"));
    let field = |name: &str| {
        let found = status.lines().find_map(|l| l.strip_prefix(name).map(str::trim));
        found.unwrap_or_else(|| panic!("no {name}")).to_owned()
    };
    let uid = b["Config"]["User"].as_str().unwrap().split(':').next().unwrap();
    assert_eq!(field("Uid:").split_whitespace().collect::<Vec<_>>(), [uid; 4]);
    assert_eq!(field("CapBnd:"), "0000000000000000");
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1".into(), "2".into()));
    for namespace in ["net", "ipc", "pid", "uts", "mnt", "cgroup"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap();
        assert_ne!(of(&pid.to_string()), of("self"), "{namespace} is shared with the host");
    }
    let limits = read(format!("/proc/{pid}/limits"));
    for (name, value) in
        [("Max open files", "1024"), ("Max file size", "536870912"), ("Max core file size", "0")]
    {
        let found = limits.lines().find(|l| l.starts_with(name)).unwrap();
        let numbers: Vec<_> = found[name.len()..].split_whitespace().take(2).collect();
        assert_eq!(numbers, [value, value], "{name}");
    }
    let cgroup = cgroup_file(pid, "memory", &["memory.limit_in_bytes", "memory.max"]);
    assert_eq!(cgroup, "1073741824");
    assert_eq!(cgroup_file(pid, "pids", &["pids.max"]), "256");
    let tcp = read(format!("/proc/{pid}/net/route"));
    assert_eq!(tcp.lines().count(), 1, "a route out: {tcp}");
}

/// Returns a limit that the kernel enforces, under cgroup v1 or v2.
fn cgroup_file(pid: u64, controller: &str, names: &[&str]) -> String {
    let groups = read(format!("/proc/{pid}/cgroup"));
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap(), fields.next().unwrap());
        let base = match controllers {
            "" => "/sys/fs/cgroup".to_owned(),
            list if list.split(',').any(|c| c == controller) => format!("/sys/fs/cgroup/{controller}"),
            _ => continue,
        };
        for name in names {
            if let Ok(value) = fs::read_to_string(format!("{base}{path}/{name}")) {
                return value.trim().to_owned();
            }
        }
    }
    panic!("no {controller} limit in {groups}");
}

fn as_the_box_finds(report: &str) {
    let is = |name: &str, value: &str| assert_eq!(line(report, name), value, "{name}\n{report}");
    let id = line(report, "id");
    let (uid, groups) = id.split_once(':').unwrap();
    assert!(uid.parse::<u32>().unwrap() >= 70_001, "{id}");
    assert!(!groups.split([':', ' ']).any(|g| g == "0"), "root's group: {id}");
    is("whoami", "agent");
    is("caps", "00000000000000000000000000000000");
    is("nnp", "1");
    is("seccomp", "2");
    is("umask", "0007");
    is("links", "lo ");
    for read_only in ["root", "to", "runner", "inbox", "swap"] {
        is(read_only, "1");
    }
    is("global", "closed");
    is("passwd", "closed");
    is("tmp", "262144");
    is("shm", "16384");
    is("nofile", "1024");
    is("fsize", "1048576");
    is("core", "0");
    is("home", "/workspace/.home user=agent lang=C.UTF-8 tz=UTC");
    is("proxy", "http://127.0.0.1:3128 127.0.0.1,localhost");
    let devices = line(report, "dev");
    for device in devices.split_whitespace() {
        const HARMLESS: [&str; 15] = [
            "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
            "stdout", "tty", "urandom", "zero",
        ];
        assert!(HARMLESS.contains(&device), "{device}");
    }
    is("mknod", "1");
    is("mount", "1");
    assert!(line(report, "pids").parse::<u32>().unwrap() < 12, "it sees other processes\n{report}");
    is("docker", "0");
    is("keys", "0");
}

/// The keys of the model and of Telegram are in the host's environment. They must not be anywhere else.
async fn no_key_anywhere(world: &World, inspected: &str, name: &str) {
    let logs = docker(&["logs", name]).await;
    let processes = docker(&["top", name, "-o", "pid"]).await;
    let mut places = vec![("inspect".to_owned(), inspected.to_owned()), ("the box's log".to_owned(), logs)];
    for pid in processes.lines().skip(1) {
        for file in ["environ", "cmdline"] {
            let bytes = fs::read(format!("/proc/{}/{file}", pid.trim())).unwrap();
            places.push((format!("{file} of {pid}"), String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    assert!(places.len() > 4, "no process of the box was found");
    for (place, text) in places {
        assert!(!text.contains(KEY) && !text.contains(TOKEN), "a key is in {place}");
    }
    let mut files = vec![world.root().to_owned()];
    while let Some(path) = files.pop() {
        if path.is_dir() && !path.is_symlink() {
            files.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if path.is_file() {
            let bytes = fs::read(&path).unwrap();
            for key in [KEY, TOKEN] {
                let found = bytes.windows(key.len()).any(|w| w == key.as_bytes());
                assert!(!found, "a key is in {}", path.display());
            }
        }
    }
}
