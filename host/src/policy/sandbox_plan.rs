//! The box as a value. What a box may be is decided here and snapshot-tested; the sandbox only translates it.
//!
//! There is no field for a network, a capability, a device, a privilege or a mount by request: what is not
//! expressible cannot be asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use ipc_schema::names_and_paths::{self, box_path};
use serde::Serialize;

use crate::domain::group_settings::ExtraMount;
use crate::domain::limits::RunLimits;
use crate::domain::{Lane, RunId};

/// Labels that find our boxes again. They are compared for equality, never parsed for meaning.
pub mod label {
    /// Which install a box belongs to.
    pub const INSTALL: &str = "lazaret.install";
    pub const RUN: &str = "lazaret.run";
    pub const GROUP: &str = "lazaret.group";
    pub const LANE: &str = "lazaret.lane";
    /// Digest of the runner.
    pub const RUNNER: &str = "lazaret.runner";
    /// Digest of the posture.
    pub const POSTURE: &str = "lazaret.posture";
    /// It is made for a look, has no run, and goes within [`super::LOOKS`]. The value is the process that looks;
    /// a run's has none.
    pub const LOOK: &str = "lazaret.look";
}

/// A box that is made for a look is gone after this, or whoever made it has died.
pub const LOOKS: Duration = Duration::from_secs(5 * 60);

/// Labels of a box that the process `looker` makes for a look: a reaper finds it by its install's.
pub fn labels_of_look(install: &str, look: &str, looker: u32) -> BTreeMap<String, String> {
    let looker = looker.to_string();
    let labels = [(label::INSTALL, install), (label::RUN, look), (label::LOOK, &looker)];
    labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The engine's own default allows more than a box needs; ours is part of the posture.
pub const SECCOMP: &str = include_str!("../../../container/seccomp.json");

const MIB: u64 = 1 << 20;
const TMP_BYTES: u64 = 256 * MIB;
/// Names in `/tmp` and in each cover: a package tree has a hundred thousand, and each takes a kilobyte of the kernel's.
const TMP_NAMES: u64 = 1 << 18;
const VOLUME_BYTES: u64 = 16 * MIB;
const SHM_BYTES: u64 = 16 * MIB;
const FILE_BYTES: u64 = 512 * MIB;
const OPEN_FILES: u64 = 1024;
/// Tasks of the host's that a process in gVisor may take, at the most that was seen of boxes with one to two hundred;
/// and what its kernel has while nothing happens in it.
const GVISOR_TASKS: u32 = 12;
const GVISOR_TASKS_IDLE: u32 = 128;
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the plan is made from.
#[derive(Debug, Clone)]
pub struct PlanInput {
    pub install: String,
    pub run: RunId,
    pub lane: Lane,
    /// The group's box user.
    pub uid: u32,
    /// The group that host and boxes share.
    pub gid: u32,
    pub image: ImageFacts,
    /// Digest of the runner.
    pub runner: String,
    /// Mount sources, all of them made by the host and outside any agent's reach.
    pub sources: Sources,
    /// What the settings mount beside ours.
    pub extra: Vec<ExtraMount>,
    pub limits: RunLimits,
    /// The seccomp profile's JSON.
    pub seccomp: String,
    pub zone: String,
    /// The engine's runtime; its default where there is none.
    pub runtime: Option<String>,
}

/// What the plan must know of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// `sha256:…`
    pub id: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// Its `VOLUME`s.
    pub volumes: Vec<String>,
    /// Its `PATH`.
    pub path: Option<String>,
}

/// Mount sources on the host.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Folder of the runner.
    pub runner: PathBuf,
    /// Letters to the agent.
    pub to_agent: PathBuf,
    pub from_agent: PathBuf,
    /// Folder of the gateway's socket.
    pub socket: PathBuf,
    pub session: PathBuf,
    pub workspace: PathBuf,
    pub inbox: PathBuf,
    pub global: PathBuf,
    /// The image's passwd and one line more.
    pub passwd: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContainerSpec {
    /// `lazaret-<run>`
    pub name: String,
    pub image: String,
    /// What finds it again.
    pub labels: BTreeMap<String, String>,
    pub entrypoint: Vec<String>,
    /// `uid:gid`
    pub user: String,
    pub working_dir: String,
    /// Its environment: nothing secret.
    pub env: Vec<String>,
    /// Its mounts, in an order that no target hides another.
    pub mounts: Vec<Mount>,
    pub tmpfs: Vec<Tmpfs>,
    /// Memory, and memory with swap: the same number.
    pub memory: u64,
    pub nano_cpus: u64,
    /// Processes and threads that the host sees: under gVisor, those of its kernel.
    pub pids: u32,
    pub shm_bytes: u64,
    /// Open files, largest file, core dumps.
    pub ulimits: Vec<(&'static str, u64)>,
    /// Security options as the engine takes them.
    pub security: Vec<String>,
    /// The engine's runtime; its default where there is none.
    pub runtime: Option<String>,
    /// What is the same for every box.
    pub fixed: Fixed,
}

/// The part of the posture that no setting reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Fixed {
    /// The box's name for itself.
    pub hostname: &'static str,
    /// No network card but the loopback.
    pub network: &'static str,
    /// Shared memory and queues of its own.
    pub ipc: &'static str,
    /// A view of control groups of its own.
    pub cgroup_namespace: &'static str,
    /// Never: it would undo all the rest.
    pub privileged: bool,
    /// Capabilities that are taken away.
    pub capabilities_dropped: &'static [&'static str],
    /// The image cannot be written.
    pub read_only_root: bool,
    /// The engine's init reaps orphans.
    pub init: bool,
    /// The image's health check is not run.
    pub health_check: &'static [&'static str],
    /// What asks the runner to end.
    pub stop_signal: &'static str,
    /// Where stdout and stderr go.
    pub log_driver: &'static str,
    /// How much of them is kept.
    pub log_options: &'static [(&'static str, &'static str)],
    /// The engine keeps a box that has ended: its exit is read first.
    pub auto_remove: bool,
    /// A box is never started twice.
    pub restart: &'static str,
    /// Nothing is written to a box or read from it but through its directories.
    pub attached: bool,
}

const FIXED: Fixed = Fixed {
    hostname: "box",
    network: "none",
    ipc: "private",
    cgroup_namespace: "private",
    privileged: false,
    capabilities_dropped: &["ALL"],
    read_only_root: true,
    init: true,
    health_check: &["NONE"],
    stop_signal: "SIGTERM",
    log_driver: "local",
    log_options: &[("max-file", "2"), ("max-size", "1m")],
    auto_remove: false,
    restart: "no",
    attached: false,
};

impl ContainerSpec {
    /// The same box for a probe: another name, other directories for letters, and the runner's `probe` for a program.
    /// Its lane is its own, so that nobody takes it for an earlier box of the group.
    pub fn for_probe(
        &self,
        run: &RunId,
        looker: u32,
        to_agent: PathBuf,
        from_agent: PathBuf,
        socket: PathBuf,
    ) -> Self {
        let mut probe = self.clone();
        probe.name = box_name(run);
        probe.labels.insert(label::RUN.to_owned(), run.to_string());
        let group = self.labels.get(label::GROUP).map_or("", String::as_str);
        probe.labels.insert(label::LANE.to_owned(), format!("{group}/probe"));
        probe.labels.insert(label::LOOK.to_owned(), looker.to_string());
        if let Some(command) = probe.entrypoint.last_mut() {
            "probe".clone_into(command);
        }
        let letters = |direction: &str| format!("{}/{direction}", box_path::IPC);
        for mount in &mut probe.mounts {
            match mount.target.as_str() {
                target if target == letters(names_and_paths::TO_AGENT) => mount.source.clone_from(&to_agent),
                target if target == letters(names_and_paths::FROM_AGENT) => {
                    mount.source.clone_from(&from_agent)
                }
                target if target == box_path::RUN => mount.source.clone_from(&socket),
                _ => {}
            }
        }
        probe
    }

    /// The same box, made by the process `looker` for one of the runner's short programs, which ends by itself. Its
    /// labels say whose install it is and name a run that no row has: nobody takes it for an earlier box of the lane.
    #[must_use]
    pub fn on_trial(mut self, name: String, looker: u32, program: &str) -> Self {
        self.name = name;
        if let Some(command) = self.entrypoint.last_mut() {
            program.clone_into(command);
        }
        let of = |label| self.labels.get(label).map_or("", String::as_str);
        self.labels = labels_of_look(of(label::INSTALL), of(label::RUN), looker);
        self
    }

    /// Every path that must be no link, so that the mounts lie where they are meant to: their targets and all above
    /// those, the upper ones first.
    pub fn ways(&self) -> BTreeSet<String> {
        let above = |target: &str| {
            let cuts = target.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0);
            cuts.filter_map(|at| target.get(..at).map(str::to_owned)).collect::<Vec<_>>()
        };
        self.mounts.iter().flat_map(|m| above(&m.target).into_iter().chain([m.target.clone()])).collect()
    }

    /// The digest that its label says.
    pub fn posture(&self) -> &str {
        self.labels.get(label::POSTURE).map_or("", String::as_str)
    }
}

/// A bind mount, non-recursive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mount {
    pub source: PathBuf,
    pub target: String,
    /// Whether the box may write.
    pub writable: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tmpfs {
    pub target: String,
    /// Options as mount(8) takes them.
    pub options: String,
}

/// Why there is no box.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The image has a volume above or below something of ours.
    #[error(
        "the image {image} declares VOLUME {volume}, which overlaps {target}; use an image without it \
         (a Dockerfile cannot take a VOLUME back: build from the image's own base)"
    )]
    Volume { image: String, volume: String, target: String },
    /// The image has a volume whose path is not plain.
    #[error(
        "the image {image} declares VOLUME {volume:?}, which is no plain absolute path; use an image without it \
         (a Dockerfile cannot take a VOLUME back: build from the image's own base)"
    )]
    VolumePath { image: String, volume: String },
    /// The image is for another processor.
    #[error(
        "the image {image} is for {image_arch}, this machine is {machine}; pull or build it for {machine}"
    )]
    Architecture { image: String, image_arch: String, machine: String },
}

impl PlanError {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Volume { .. } | Self::VolumePath { .. } => "image.volume",
            Self::Architecture { .. } => "image.architecture",
        }
    }
}

/// The name of a run's box. A box is found by its labels; its name keeps the engine from making it twice.
pub fn box_name(run: &RunId) -> String {
    format!("lazaret-{run}")
}

/// Makes the plan of one box.
///
/// # Errors
/// When the image cannot be a box as it is.
pub fn plan(input: &PlanInput) -> Result<ContainerSpec, PlanError> {
    let machine = machine_architecture();
    if input.image.architecture != machine {
        return Err(PlanError::Architecture {
            image: input.image.id.clone(),
            image_arch: input.image.architecture.clone(),
            machine: machine.to_owned(),
        });
    }
    let mounts = mounts(input);
    let tmpfs = tmpfs(input, &mounts)?;
    let mut spec = ContainerSpec {
        name: box_name(&input.run),
        image: input.image.id.clone(),
        labels: BTreeMap::new(),
        entrypoint: vec![format!("{}/{}", box_path::RUNNER_DIR, names_and_paths::RUNNER), "run".into()],
        user: format!("{}:{}", input.uid, input.gid),
        working_dir: "/".into(),
        env: env(input),
        mounts,
        tmpfs,
        memory: input.limits.memory(),
        nano_cpus: input.limits.milli_cpus * 1_000_000,
        pids: tasks(input),
        shm_bytes: SHM_BYTES,
        ulimits: vec![("nofile", OPEN_FILES), ("fsize", FILE_BYTES), ("core", 0)],
        security: vec!["no-new-privileges".into(), format!("seccomp={}", input.seccomp)],
        runtime: input.runtime.clone(),
        fixed: FIXED,
    };
    spec.labels = labels(input, &spec);
    Ok(spec)
}

/// Whether a runtime is gVisor, by the name that it has in everybody's settings; more than one may be set up.
pub fn is_gvisor(runtime: Option<&str>) -> bool {
    runtime.is_some_and(|name| name.starts_with("runsc"))
}

/// What the engine is asked to count. gVisor's kernel is a process of the host with threads of its own, and spends
/// some ten on each of the box's; at the limit it gives no error to who asked, but dies. So a box of it gets as many
/// as let it have the processes of its settings.
fn tasks(input: &PlanInput) -> u32 {
    let pids = input.limits.pids;
    match is_gvisor(input.runtime.as_deref()) {
        true => pids.saturating_mul(GVISOR_TASKS).saturating_add(GVISOR_TASKS_IDLE),
        false => pids,
    }
}

/// The engine's word for this machine's processor.
pub fn machine_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn mounts(input: &PlanInput) -> Vec<Mount> {
    let s = &input.sources;
    let main = input.lane.group.is_main();
    [
        (&s.runner, box_path::RUNNER_DIR.to_owned(), false),
        (&s.to_agent, format!("{}/{}", box_path::IPC, names_and_paths::TO_AGENT), false),
        (&s.from_agent, format!("{}/{}", box_path::IPC, names_and_paths::FROM_AGENT), true),
        (&s.socket, box_path::RUN.to_owned(), false),
        (&s.session, box_path::SESSION.to_owned(), true),
        (&s.workspace, box_path::WORKSPACE.to_owned(), true),
        (&s.inbox, box_path::INBOX.to_owned(), false),
        (&s.global, box_path::GLOBAL.to_owned(), main),
        (&s.passwd, "/etc/passwd".to_owned(), false),
    ]
    .into_iter()
    .map(|(source, target, writable)| Mount { source: source.clone(), target, writable })
    .chain(input.extra.iter().map(|m| Mount {
        source: m.source.clone(),
        target: m.target.clone(),
        writable: m.writable,
    }))
    .collect()
}

/// `/tmp`, and a small cover for every volume of the image: the engine would otherwise make a writable directory on
/// the host's disk for it, without any limit.
fn tmpfs(input: &PlanInput, mounts: &[Mount]) -> Result<Vec<Tmpfs>, PlanError> {
    // runc gives a memory filesystem the mode of the image's own directory, whatever it was asked for: where that is
    // 0755, only a directory of the box's user can be written.
    let owner = format!("uid={},gid={}", input.uid, input.gid);
    let cover = |target: &str, bytes: u64| Tmpfs {
        target: target.to_owned(),
        options: format!("rw,exec,nosuid,nodev,mode=1777,{owner},size={bytes},nr_inodes={TMP_NAMES}"),
    };
    let mut all = vec![cover("/tmp", TMP_BYTES)];
    let ours: Vec<&str> = mounts.iter().map(|m| m.target.as_str()).chain(["/tmp", box_path::IPC]).collect();
    for volume in &input.image.volumes {
        let volume = volume.trim_end_matches('/');
        if !is_plain(volume) {
            return Err(PlanError::VolumePath { image: input.image.id.clone(), volume: volume.to_owned() });
        }
        if ours.contains(&volume) && volume != box_path::IPC {
            continue;
        }
        if let Some(target) = ours.iter().find(|target| overlaps(volume, target)) {
            return Err(PlanError::Volume {
                image: input.image.id.clone(),
                volume: if volume.is_empty() { "/".into() } else { volume.to_owned() },
                target: (*target).to_owned(),
            });
        }
        all.push(cover(volume, VOLUME_BYTES));
    }
    Ok(all)
}

/// An absolute path that is written in one way only. The engine cleans a volume's path and not what covers it: with any
/// other, a volume on the host's disk and its cover would lie in one place, in a random order.
fn is_plain(path: &str) -> bool {
    path.is_empty()
        || path
            .strip_prefix('/')
            .is_some_and(|rest| !rest.split('/').any(|part| ["", ".", ".."].contains(&part)))
}

fn overlaps(a: &str, b: &str) -> bool {
    let below =
        |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
    a == b || below(a, b) || below(b, a)
}

fn env(input: &PlanInput) -> Vec<String> {
    let proxy = "http://127.0.0.1:3128";
    let path = input.image.path.as_deref().unwrap_or(DEFAULT_PATH);
    let mut env = vec![
        format!("PATH={path}"),
        format!("HOME={}/.home", box_path::WORKSPACE),
        "USER=agent".into(),
        "LANG=C.UTF-8".into(),
        format!("TZ={}", input.zone),
        "NO_PROXY=127.0.0.1,localhost".into(),
        "no_proxy=127.0.0.1,localhost".into(),
    ];
    env.extend(
        ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"].map(|name| format!("{name}={proxy}")),
    );
    env
}

fn labels(input: &PlanInput, spec: &ContainerSpec) -> BTreeMap<String, String> {
    [
        (label::INSTALL, input.install.clone()),
        (label::RUN, input.run.to_string()),
        (label::GROUP, input.lane.group.to_string()),
        (label::LANE, input.lane.to_string()),
        (label::RUNNER, input.runner.clone()),
        (label::POSTURE, posture(spec)),
        // An image's own label of that name would come through.
        (label::LOOK, String::new()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// A digest of the whole value but for what differs between two runs of one group, and but for the image: what the
/// engine is asked for is in it, so two boxes of one digest are held to the same.
fn posture(spec: &ContainerSpec) -> String {
    let mut same = ContainerSpec { name: String::new(), image: String::new(), ..spec.clone() };
    same.labels.clear();
    // What lies in directories of the run is another place each time; what the settings mount is the same in each.
    let per_run = |target: &str| target.starts_with(box_path::IPC) || target == box_path::RUN;
    same.mounts.iter_mut().filter(|m| per_run(&m.target)).for_each(|m| m.source = PathBuf::new());
    // Plain data: there is nothing in it that JSON cannot say.
    let bytes = serde_json::to_vec(&same).unwrap_or_default();
    ipc_schema::sha256_hex(&bytes).chars().take(16).collect()
}

/// A planned box with every default.
#[cfg(test)]
pub fn for_tests(limits: &RunLimits) -> ContainerSpec {
    plan(&PlanInput { limits: limits.clone(), ..tests::input() }).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn input() -> PlanInput {
        let at = |name: &str| PathBuf::from("/srv/lazaret/state").join(name);
        PlanInput {
            install: "i-1".into(),
            run: "019ab000-0000-7000-8000-000000000001".parse().unwrap(),
            lane: Lane::conversation("family".parse().unwrap()),
            uid: 70_001,
            gid: 20_000,
            image: ImageFacts {
                id: "sha256:abc".into(),
                architecture: machine_architecture().into(),
                volumes: vec![],
                path: None,
            },
            runner: "d1".into(),
            sources: Sources {
                runner: at("runner/d1"),
                to_agent: at("ipc/family/r/to-agent"),
                from_agent: at("ipc/family/r/from-agent"),
                socket: at("ipc/family/r/gateway"),
                session: at("sessions/family"),
                workspace: at("workspaces/family"),
                inbox: at("inbox/family"),
                global: at("global"),
                passwd: at("passwd/abc-70001"),
            },
            extra: vec![],
            limits: RunLimits::default(),
            seccomp: "{}".into(),
            zone: "UTC".into(),
            runtime: None,
        }
    }

    #[test]
    fn the_posture_is_the_golden_one() {
        let spec = plan(&input()).unwrap();
        let shown = serde_json::to_string_pretty(&spec).unwrap() + "\n";
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/src/policy/golden/container.json");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(golden, &shown).unwrap();
        }
        assert_eq!(shown, std::fs::read_to_string(golden).unwrap());
    }

    #[test]
    fn only_main_may_write_what_all_groups_read() {
        let writable = |input: &PlanInput| {
            plan(input)
                .unwrap()
                .mounts
                .into_iter()
                .filter(|m| m.writable)
                .map(|m| m.target)
                .collect::<Vec<_>>()
        };
        assert_eq!(writable(&input()), ["/ipc/from-agent", "/session", "/workspace"]);
        let mut main = input();
        main.lane = Lane::conversation("main".parse().unwrap());
        assert!(writable(&main).contains(&"/global".to_owned()));
    }

    #[test]
    fn mounts_of_the_settings_come_last_and_are_part_of_the_posture() {
        let with = |source: &str, writable| {
            let extra = ExtraMount { source: source.into(), target: "/mnt/photos".into(), writable };
            plan(&PlanInput { extra: vec![extra], ..input() }).unwrap()
        };
        let spec = with("/srv/photos", false);
        assert_eq!(spec.mounts.last().map(|m| (m.target.as_str(), m.writable)), Some(("/mnt/photos", false)));
        let digest = |spec: &ContainerSpec| spec.labels[label::POSTURE].clone();
        let digests =
            [&plan(&input()).unwrap(), &spec, &with("/srv/photos", true), &with("/srv/films", false)];
        let digests: std::collections::BTreeSet<_> = digests.into_iter().map(digest).collect();
        assert_eq!(digests.len(), 4, "source, target and right are in it");
        let mut volume = PlanInput { extra: vec![], ..input() };
        volume.image.volumes = vec!["/mnt".into()];
        volume.extra.push(ExtraMount {
            source: "/srv/photos".into(),
            target: "/mnt/photos".into(),
            writable: false,
        });
        assert_eq!(plan(&volume).unwrap_err().code(), "image.volume");
    }

    #[test]
    fn b3_no_target_lies_inside_what_an_agent_may_write() {
        let spec = plan(&input()).unwrap();
        for outer in spec.mounts.iter().filter(|m| m.writable) {
            for inner in &spec.mounts {
                assert!(!inner.target.starts_with(&format!("{}/", outer.target)), "{inner:?}");
                assert!(!inner.source.starts_with(&outer.source) || inner == outer, "{inner:?}");
            }
        }
    }

    #[test]
    fn an_images_volumes_are_covered_or_refused() {
        let with = |volumes: &[&str]| {
            let mut input = input();
            input.image.volumes = volumes.iter().map(|v| (*v).to_owned()).collect();
            plan(&input)
        };
        let spec = with(&["/var/lib/data", "/workspace", "/tmp"]).unwrap();
        let covered: Vec<_> = spec.tmpfs.iter().map(|t| t.target.as_str()).collect();
        assert_eq!(covered, ["/tmp", "/var/lib/data"]);
        for bad in ["/", "/ipc", "/workspace/deep", "/run", "/etc", "/lazaret/x"] {
            assert_eq!(with(&[bad]).unwrap_err().code(), "image.volume", "{bad}");
        }
        assert!(with(&["/workspaces"]).is_ok(), "a longer name is another place");
        for odd in ["data", "/data/../evil", "//data", "/data//deep", "/a/./b", "/.."] {
            assert!(matches!(with(&[odd]), Err(PlanError::VolumePath { .. })), "{odd}");
        }
    }

    #[test]
    fn an_image_of_another_processor_is_refused() {
        let mut input = input();
        input.image.architecture = "riscv64".into();
        let error = plan(&input).unwrap_err();
        assert_eq!(error.code(), "image.architecture");
        assert!(error.to_string().contains("riscv64"), "{error}");
    }

    #[test]
    fn a_probe_differs_from_a_run_in_name_letters_and_program_only() {
        let spec = plan(&input()).unwrap();
        let run = "019ab000-0000-7000-8000-000000000009".parse().unwrap();
        let probe = spec.for_probe(&run, 7, "/p/to".into(), "/p/from".into(), "/p/gateway".into());
        assert_eq!(probe.entrypoint, ["/lazaret/agent-runner", "probe"]);
        assert_eq!(probe.name, "lazaret-019ab000-0000-7000-8000-000000000009");
        assert_eq!(probe.labels[label::INSTALL], spec.labels[label::INSTALL], "the reaper finds it");
        assert_eq!(probe.labels[label::LANE], "family/probe", "no run is taken for it");
        assert_eq!(probe.posture(), spec.posture());
        let moved: Vec<&str> =
            probe.mounts.iter().filter(|m| m.source.starts_with("/p")).map(|m| m.target.as_str()).collect();
        assert_eq!(moved, ["/ipc/to-agent", "/ipc/from-agent", "/run/lazaret"]);
        let mut same = ContainerSpec { name: spec.name.clone(), labels: spec.labels.clone(), ..probe };
        (same.entrypoint, same.mounts) = (spec.entrypoint.clone(), spec.mounts.clone());
        assert_eq!(same, spec);
    }

    #[test]
    fn two_runs_of_a_group_have_one_posture() {
        let mut other = input();
        other.run = "019ab000-0000-7000-8000-000000000002".parse().unwrap();
        let posture = |i: &PlanInput| plan(i).unwrap().labels[label::POSTURE].clone();
        assert_eq!(posture(&input()), posture(&other));
        other.limits.memory_mib *= 2;
        assert_ne!(posture(&input()), posture(&other));
        let runsc = PlanInput { runtime: Some("runsc".into()), ..input() };
        assert_ne!(posture(&input()), posture(&runsc));
    }

    #[test]
    fn gvisor_gets_room_for_the_threads_that_each_process_costs_it() {
        let pids = |runtime: Option<&str>| {
            plan(&PlanInput { runtime: runtime.map(str::to_owned), ..input() }).unwrap().pids
        };
        assert_eq!(pids(None), RunLimits::default().pids);
        assert_eq!(pids(Some("runc")), pids(None));
        assert!(pids(Some("runsc")) > 10 * pids(None), "or a box of twenty processes would die");
        assert_eq!(pids(Some("runsc-uncounted")), pids(Some("runsc")));
    }

    #[test]
    fn b3_the_ways_to_all_mounts_are_known() {
        let ways: Vec<String> = for_tests(&RunLimits::default()).ways().into_iter().collect();
        let known = ["/etc", "/etc/passwd", "/global", "/inbox", "/ipc", "/ipc/from-agent", "/ipc/to-agent"];
        let more = ["/lazaret", "/run", "/run/lazaret", "/session", "/workspace"];
        assert_eq!(ways, [known.as_slice(), more.as_slice()].concat());
    }
}
