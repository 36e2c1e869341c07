use super::*;
use crate::domain::limits::RunLimits;
use crate::policy::sandbox_plan;
use ipc_schema::probe_report::{Identity, Mounted, Rights, Rlimits};

fn spec() -> ContainerSpec {
    sandbox_plan::for_tests(&RunLimits::default())
}

fn refused(what: &str) -> Attempt {
    Attempt { what: what.into(), refused: Some("EPERM".into()) }
}

fn done(what: &str) -> Attempt {
    Attempt { what: what.into(), refused: None }
}

/// A box that keeps the whole plan.
fn sound() -> ProbeReport {
    let zeros = Some("0000000000000000".to_owned());
    let tmpfs = |target: &str, bytes| Mounted {
        target: target.into(),
        root: "/".into(),
        kind: "tmpfs".into(),
        options: "rw,nosuid,nodev,rw".into(),
        bytes: Some(bytes),
    };
    let mounted = |mount: &sandbox_plan::Mount| Mounted {
        target: mount.target.clone(),
        root: "/somewhere".into(),
        kind: "ext4".into(),
        options: if mount.writable { "rw,relatime,rw" } else { "ro,relatime,rw" }.into(),
        bytes: None,
    };
    let own = spec().mounts.iter().map(mounted).collect::<Vec<_>>();
    ProbeReport {
        nonce: "n".into(),
        identity: Identity { uid: 70_001, gid: 20_000, groups: vec![20_000] },
        rights: Rights { capabilities: vec![zeros; 5], no_new_privileges: true, seccomp: 2 },
        calls: vec![
            refused("mount"),
            Attempt { what: "socket".into(), refused: Some("EAFNOSUPPORT".into()) },
            Attempt { what: ALLOCATE_WITHOUT_WRITING.into(), refused: Some("EOPNOTSUPP".into()) },
        ],
        interfaces: vec!["lo".into()],
        network: vec![Attempt { what: "tcp 1.1.1.1:443".into(), refused: Some("ENETUNREACH".into()) }],
        places: vec![
            refused("/"),
            done("/ipc/from-agent"),
            done("/session"),
            done("/workspace"),
            done("/tmp"),
        ],
        secrets: vec![refused("/proc/kcore")],
        mounts: [tmpfs("/tmp", 256 << 20), tmpfs("/dev/shm", 16 << 20)].into_iter().chain(own).collect(),
        cgroup: Cgroup { memory: Some(1 << 30), swap: Some(0), pids: Some(256), milli_cpus: Some(1000) },
        rlimits: Rlimits { nofile: 1024, fsize: 512 << 20, core: 0 },
        machine_swap: true,
        devices: vec!["null".into(), "shm".into()],
        environment: vec!["PATH".into(), "HOSTNAME".into()],
        processes: 2,
        confinement: None,
    }
}

fn mount<'a>(report: &'a mut ProbeReport, target: &str) -> &'a mut Mounted {
    report.mounts.iter_mut().find(|m| m.target == target).unwrap_or_else(|| panic!("no mount {target}"))
}

fn outside() -> Outside {
    Outside {
        environment: vec!["PATH".into()],
        kernel: Some(KernelView {
            uids: vec![70_001; 4],
            bounding: "0000000000000000".into(),
            no_new_privileges: true,
            seccomp: 2,
            shared: vec![],
            cgroup: sound().cgroup,
        }),
        ..Outside::default()
    }
}

fn about() -> Circumstances {
    Circumstances { nonce: "n".into(), root: true, ..Circumstances::default() }
}

fn standing(findings: &[PostureFinding], name: &str) -> Standing {
    findings.iter().find(|f| f.name == name).unwrap_or_else(|| panic!("no line {name}")).standing
}

/// The findings for a sound box with a change.
fn found(name: &str, change: impl FnOnce(&mut ProbeReport, &mut Outside)) -> PostureFinding {
    let (mut inside, mut outside) = (sound(), outside());
    change(&mut inside, &mut outside);
    let all = judge(&spec(), &inside, &outside, &about());
    let astray: Vec<&PostureFinding> = all.iter().filter(|f| f.standing != Standing::Held).collect();
    assert_eq!(astray.iter().map(|f| f.name).collect::<Vec<_>>(), [name], "{astray:?}");
    astray[0].clone()
}

#[test]
fn a_box_that_is_what_was_asked_for_holds_every_line() {
    let all = judge(&spec(), &sound(), &outside(), &about());
    assert!(all.iter().all(|f| f.standing == Standing::Held), "{all:?}");
    assert_eq!((refusal(&all), losses(&all).count()), (None, 0));
    assert_eq!(all.len(), LINES.len() - 1, "one for each line, but for AppArmor where there is none");
}

#[test]
fn each_line_is_lost_by_itself_and_there_is_no_run() {
    for finding in [
        found("letters", |i, _| i.nonce = "another".into()),
        found("user", |i, _| i.identity.uid = 0),
        found("user", |i, _| i.identity.groups.push(0)),
        found("user", |_, o| o.kernel.as_mut().unwrap().uids[2] = 0),
        found("capabilities", |i, _| i.rights.capabilities[3] = Some("00000000a80425fb".into())),
        found("capabilities", |_, o| o.kernel.as_mut().unwrap().bounding = "1".into()),
        found("no-new-privileges", |i, _| i.rights.no_new_privileges = false),
        found("seccomp", |i, _| i.rights.seccomp = 0),
        found("syscalls", |i, _| i.calls.push(done("unshare user"))),
        found("syscalls", |i, _| i.calls[0].refused = Some("EINVAL".into())),
        found("interfaces", |i, _| i.interfaces.push("eth0".into())),
        found("network", |i, _| i.network.push(done("tcp 169.254.169.254:80"))),
        found("network", |i, _| i.network[0].refused = Some("ECONNREFUSED".into())),
        found("namespaces", |_, o| o.kernel.as_mut().unwrap().shared.push("net".into())),
        found("writable-places", |i, _| i.places.push(done("/lazaret"))),
        found("writable-places", |i, _| i.places[2] = refused("/session")),
        found("writable-places", |i, _| drop(i.places.remove(3))),
        found("mounts", |i, _| mount(i, "/inbox").target = "/workspace/i".into()),
        found("mounts", |i, _| mount(i, "/lazaret").options = "rw,relatime,rw".into()),
        found("mounts", |i, _| mount(i, "/session").options = "ro,relatime,rw".into()),
        found("mounts", |i, _| i.mounts.retain(|m| m.target != "/run/lazaret")),
        found("mounts", |i, _| {
            let over = Mounted { options: "rw,rw".into(), ..mount(i, "/etc/passwd").clone() };
            i.mounts.push(over);
        }),
        found("kernel-files", |i, _| i.secrets.push(done("/run/docker.sock"))),
        found("devices", |i, _| i.devices.push("sda".into())),
        found("memory-filesystems", |i, _| i.mounts[0].bytes = Some(1 << 40)),
        found("memory-filesystems", |i, _| i.mounts[0].options = "rw,nodev".into()),
        found("memory-filesystems", |i, _| drop(i.mounts.remove(1))),
        found("ulimits", |i, _| i.rlimits.core = NO_LIMIT),
        found("processes", |i, _| i.processes = 200),
        found("as-asked", |_, o| {
            o.differences.push(Difference {
                field: "Privileged".into(),
                asked: "false".into(),
                told: "true".into(),
            });
        }),
    ] {
        assert_eq!(finding.standing, Standing::Lost, "{finding:?}");
        let told = refusal(std::slice::from_ref(&finding)).unwrap();
        assert!(told.contains(finding.name) && told.contains(finding.fix), "{told}");
        assert_eq!(told.contains("accept = ["), finding.acceptable, "{told}");
    }
}

#[test]
fn a_limit_that_the_engine_ignored_is_found_by_looking() {
    for (name, forget) in [
        ("memory-limit", (|c| c.memory = Some(NO_LIMIT)) as fn(&mut Cgroup)),
        ("pids-limit", |c| c.pids = Some(NO_LIMIT)),
        ("cpu-limit", |c| c.milli_cpus = Some(2000)),
        ("swap-limit", |c| c.swap = Some(NO_LIMIT)),
    ] {
        let finding = found(name, |_, o| forget(&mut o.kernel.as_mut().unwrap().cgroup));
        assert_eq!(finding.standing, Standing::Lost, "{name}: the looser view counts");
        found(name, |i, o| {
            forget(&mut i.cgroup);
            o.kernel = Some(KernelView { cgroup: Cgroup::default(), ..o.kernel.clone().unwrap() });
        });
    }
    let unseen = found("memory-limit", |i, o| {
        i.cgroup.memory = None;
        o.kernel.as_mut().unwrap().cgroup.memory = None;
    });
    assert_eq!((unseen.standing, unseen.seen.as_str()), (Standing::Lost, "nothing that keeps it"));
}

#[test]
fn a_machine_without_swap_needs_no_limit_on_it() {
    let (mut inside, mut outside) = (sound(), outside());
    (inside.machine_swap, inside.cgroup.swap) = (false, None);
    outside.kernel.as_mut().unwrap().cgroup.swap = None;
    let all = judge(&spec(), &inside, &outside, &about());
    assert_eq!(standing(&all, "swap-limit"), Standing::Held);
}

#[test]
fn an_owner_accepts_a_loss_by_its_name_and_no_other() {
    let (mut inside, mut outside) = (sound(), outside());
    inside.cgroup.memory = None;
    outside.kernel.as_mut().unwrap().cgroup.memory = Some(NO_LIMIT);
    let accepted = Circumstances { accepted: vec!["memory-limit".into()], ..about() };
    let all = judge(&spec(), &inside, &outside, &accepted);
    assert_eq!(standing(&all, "memory-limit"), Standing::Accepted);
    assert_eq!(refusal(&all), None);
    assert_eq!(losses(&all).map(|f| f.name).collect::<Vec<_>>(), ["memory-limit"], "named all the same");
    inside.interfaces.push("eth0".into());
    assert!(refusal(&judge(&spec(), &inside, &outside, &accepted)).unwrap().contains("interfaces"));
    assert_eq!(acceptable("memory-limit"), Ok(()));
    assert!(acceptable("network").unwrap_err().contains("cannot be done without"));
    let unknown = acceptable("memory").unwrap_err();
    assert!(unknown.contains("no line") && unknown.contains("memory-limit"), "{unknown}");
}

#[test]
fn what_gvisor_loses_by_its_nature_is_named_and_the_rest_must_hold() {
    let gvisor = ContainerSpec { runtime: Some("runsc".into()), ..spec() };
    let (mut inside, mut outside) = (sound(), outside());
    let kernel = outside.kernel.take();
    inside.rights.seccomp = 0;
    inside.calls.push(done("unshare user"));
    inside.calls[2] = done(ALLOCATE_WITHOUT_WRITING);
    inside.devices.push("fuse".into());
    inside.mounts[0].options = "rw,mode=1777,size=268435456".into();
    inside.network[0].refused = Some("EHOSTUNREACH".into());
    (inside.cgroup, inside.machine_swap) = (Cgroup::default(), false);
    let all = judge(&gvisor, &inside, &outside, &about());
    assert_eq!(refusal(&all), None);
    let named = |all: &[PostureFinding]| losses(all).map(|f| f.name).collect::<Vec<_>>().join(" ");
    let by_nature = "seccomp syscalls memory-filesystems room-at-once";
    assert_eq!(named(&all), format!("{by_nature} memory-limit pids-limit cpu-limit"));
    assert_eq!(standing(&all, "namespaces"), Standing::Unknown);
    assert!(refusal(&judge(&spec(), &inside, &outside, &about())).is_some(), "runc has no such excuse");

    // The limits of gVisor's control group are the box's limits. Its process on the host is not the box's process.
    outside.kernel = kernel.map(|kernel| KernelView {
        uids: vec![65_534; 4],
        bounding: "000001ffffffffff".into(),
        shared: vec!["pid".into(), "cgroup".into()],
        ..kernel
    });
    let counted = judge(&gvisor, &inside, &outside, &about());
    assert_eq!((refusal(&counted), named(&counted)), (None, by_nature.to_owned()));
    assert_eq!(standing(&counted, "namespaces"), Standing::Held);
    outside.kernel.as_mut().unwrap().shared.push("net".into());
    assert!(refusal(&judge(&gvisor, &inside, &outside, &about())).unwrap().contains("namespaces"));

    outside.kernel = None;
    inside.network.push(done("tcp 1.1.1.1:443"));
    assert!(refusal(&judge(&gvisor, &inside, &outside, &about())).is_some());
}

#[test]
fn room_that_is_taken_in_one_call_is_named_and_ends_no_run() {
    let mut inside = sound();
    assert_eq!(standing(&judge(&spec(), &inside, &outside(), &about()), "room-at-once"), Standing::Held);
    inside.calls[2] = done(ALLOCATE_WITHOUT_WRITING);
    let all = judge(&spec(), &inside, &outside(), &about());
    assert_eq!(standing(&all, "room-at-once"), Standing::Named);
    assert_eq!(standing(&all, "syscalls"), Standing::Held, "one thing is one line");
    assert_eq!(refusal(&all), None);
    assert!(losses(&all).all(|loss| loss.fix.contains("limits.disk_images")));
    inside.calls.truncate(2);
    assert_eq!(standing(&judge(&spec(), &inside, &outside(), &about()), "room-at-once"), Standing::Unknown);
}

#[test]
fn a_path_that_names_a_person_or_another_group_is_named() {
    let mut inside = sound();
    inside.mounts[0].root = "/home/ann/.local/share/lazaret/state/sessions/family".into();
    let with = |names: &[&str]| {
        let about = Circumstances { names: names.iter().map(|n| (*n).to_owned()).collect(), ..about() };
        standing(&judge(&spec(), &inside, &outside(), &about), "host-paths")
    };
    assert_eq!(with(&["work", "an"]), Standing::Held, "whole names only");
    assert_eq!(with(&["ann"]), Standing::Named);
}

#[test]
fn apparmor_is_asked_for_where_the_engine_has_it() {
    let mut inside = sound();
    let about = Circumstances { apparmor: true, ..about() };
    let found = |inside: &ProbeReport| standing(&judge(&spec(), inside, &outside(), &about), "apparmor");
    assert_eq!(found(&inside), Standing::Named);
    inside.confinement = Some("docker-default (enforce)".into());
    assert_eq!(found(&inside), Standing::Held);
}

#[test]
fn a_host_without_root_counts_what_is_shut_later_and_says_so() {
    let user = Circumstances { root: false, ..about() };
    let all = judge(&spec(), &sound(), &outside(), &user);
    assert_eq!((standing(&all, "disk-watch"), refusal(&all)), (Standing::Named, None));
    let lost: Vec<_> = losses(&all).map(|f| f.seen.as_str()).collect();
    assert!(lost.len() == 1 && lost[0].contains("counted after its run, not during it"), "{lost:?}");
}

#[test]
fn a_ceiling_above_the_machines_own_is_named_with_the_fix() {
    let gib = 1u64 << 30;
    assert_eq!(above_machine(gib, 1000, 2 * gib, 2), None);
    assert_eq!(above_machine(64 * gib, 9000, 0, 0), None, "an engine that does not say");
    let told = above_machine(64 * gib, 1000, 8 * gib, 2).unwrap();
    assert!(told.contains("memory_mib = 65536") && told.contains("8192 MiB"), "{told}");
    let told = above_machine(gib, 4000, 8 * gib, 2).unwrap();
    assert!(told.contains("milli_cpus = 4000") && told.contains("2000"), "{told}");
}

#[test]
fn an_unknown_runtime_is_told_with_the_line_to_add() {
    let told = no_runtime("runsc");
    let (_, rest) = told.split_once("put ").unwrap();
    let (json, _) = rest.split_once(" into ").unwrap();
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    let arguments = &json["runtimes"]["runsc"]["runtimeArgs"];
    assert_eq!(arguments, &serde_json::json!(["--host-uds=open", "--network=none"]));
    assert!(told.contains("--ignore-cgroups") && told.contains("nobody counts"), "{told}");
    assert!(!no_runtime("kata").contains("host-uds"));
}
