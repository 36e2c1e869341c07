//! Decides everything about a container: its mounts, user, limits and security options. The result is a value that
//! snapshot tests compare, and `sandbox` only translates it for the engine.
//!
//! The value has no field for a network, a capability, a device, a privilege or a mount that an agent asks for. So no
//! caller can ask for one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use ipc_schema::names_and_paths::{self, box_path};
use serde::Serialize;

use crate::domain::group_settings::ExtraMount;
use crate::domain::limits::RunLimits;
use crate::domain::{Lane, RunId};

/// Labels by which the host finds its containers. The host compares them for equality and never parses them.
pub mod label {
    /// The install that the box belongs to.
    pub const INSTALL: &str = "lazaret.install";
    pub const RUN: &str = "lazaret.run";
    pub const GROUP: &str = "lazaret.group";
    pub const LANE: &str = "lazaret.lane";
    pub const RUNNER: &str = "lazaret.runner";
    pub const POSTURE: &str = "lazaret.posture";
    /// Set on a box that was made for a check: the process id of the program that checks. Such a box belongs to no
    /// run, and the host removes it within [`super::CHECK_BOX_LIFETIME`]. A run's box has an empty value.
    pub const CHECKER: &str = "lazaret.look";
}

/// The host removes a box that was made for a check after this time, or when the process that made it has died.
pub const CHECK_BOX_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// Labels of a box that the process `checker` makes for a check. The cleanup finds it by the install's label.
pub fn labels_of_check(install: &str, look: &str, checker: &str) -> BTreeMap<String, String> {
    let labels = [(label::INSTALL, install), (label::RUN, look), (label::CHECKER, checker)];
    labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The engine's default profile allows more than a box needs.
pub const SECCOMP: &str = include_str!("../../../container/seccomp.json");

const MIB: u64 = 1 << 20;
const TMP_BYTES: u64 = 256 * MIB;
/// Inodes in `/tmp` and in each volume's tmpfs. A package tree has a hundred thousand files, and each takes a kilobyte
/// of kernel memory.
const TMP_NAMES: u64 = 1 << 18;
const VOLUME_BYTES: u64 = 16 * MIB;
const SHM_BYTES: u64 = 16 * MIB;
const FILE_BYTES: u64 = 512 * MIB;
const OPEN_FILES: u64 = 1024;
/// Tasks on the host per process in gVisor: the highest number measured in boxes of one to two hundred processes.
/// [`GVISOR_TASKS_IDLE`] is what gVisor's kernel needs while the box does nothing.
const GVISOR_TASKS: u32 = 12;
const GVISOR_TASKS_IDLE: u32 = 128;
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The input of [`plan`].
#[derive(Debug, Clone)]
pub struct PlanInput {
    pub install: String,
    pub run: RunId,
    pub lane: Lane,
    /// The group's own user id in its boxes.
    pub uid: u32,
    /// The group id that the host and all boxes share.
    pub gid: u32,
    pub image: ImageFacts,
    pub runner: String,
    /// The path of a program in the box that performs the runs; `None` is our own runner.
    pub foreign_runner: Option<String>,
    /// Mount sources. The host creates all of them, and no agent can replace one.
    pub sources: Sources,
    /// Mounts from the settings.
    pub extra: Vec<ExtraMount>,
    pub limits: RunLimits,
    /// The seccomp profile as JSON.
    pub seccomp: String,
    pub zone: String,
    /// `None` selects the engine's default runtime.
    pub runtime: Option<String>,
}

/// The facts about an image that the plan needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// `sha256:…`
    pub id: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    pub volumes: Vec<String>,
    pub path: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Sources {
    /// The directory with the runner.
    pub runner: PathBuf,
    /// The directory of letters to the agent.
    pub to_agent: PathBuf,
    pub from_agent: PathBuf,
    /// The directory of the gateway's socket.
    pub socket: PathBuf,
    pub session: PathBuf,
    pub workspace: PathBuf,
    pub inbox: PathBuf,
    pub global: PathBuf,
    /// A copy of the image's passwd with a line for the box's user.
    pub passwd: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContainerSpec {
    /// `lazaret-<run>`
    pub name: String,
    pub image: String,
    pub labels: BTreeMap<String, String>,
    pub entrypoint: Vec<String>,
    /// `uid:gid`
    pub user: String,
    pub working_dir: String,
    /// It contains no secrets.
    pub env: Vec<String>,
    /// In an order in which no mount hides another.
    pub mounts: Vec<Mount>,
    pub tmpfs: Vec<Tmpfs>,
    /// The limit of memory, and of memory and swap together: the box cannot use swap.
    pub memory: u64,
    pub nano_cpus: u64,
    /// Processes and threads that the host counts. Under gVisor these are the threads of its kernel.
    pub pids: u32,
    pub shm_bytes: u64,
    /// Limits of open files, of the size of a file and of core dumps.
    pub ulimits: Vec<(&'static str, u64)>,
    /// Security options in the engine's notation.
    pub security: Vec<String>,
    /// `None` selects the engine's default runtime.
    pub runtime: Option<String>,
    pub fixed: Fixed,
}

/// The part of the posture that no setting changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Fixed {
    pub hostname: &'static str,
    /// `none`: the box has no network card except the loopback.
    pub network: &'static str,
    /// `private`: the box shares no memory and no queues with others.
    pub ipc: &'static str,
    /// `private`: the box does not see the host's control groups.
    pub cgroup_namespace: &'static str,
    /// Always false. `true` would disable all other protection.
    pub privileged: bool,
    pub capabilities_dropped: &'static [&'static str],
    /// Always true: the box cannot write to the image.
    pub read_only_root: bool,
    /// The engine runs an init that reaps orphaned processes.
    pub init: bool,
    /// Disables the image's health check.
    pub health_check: &'static [&'static str],
    pub stop_signal: &'static str,
    pub log_driver: &'static str,
    pub log_options: &'static [(&'static str, &'static str)],
    /// Always false: the host reads the exit status before it removes the box.
    pub auto_remove: bool,
    /// The engine never restarts a box, because every run needs a new box.
    pub restart: &'static str,
    /// Always false: the host and the box exchange data only through the mounted directories and the socket.
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
    /// The same box with the runner's `probe` command, another name and other letter directories. It gets a lane of
    /// its own, because otherwise the host could take it for an earlier box of the group's lane.
    pub fn for_probe(
        &self,
        run: &RunId,
        checker: &str,
        to_agent: PathBuf,
        from_agent: PathBuf,
        socket: PathBuf,
    ) -> Self {
        let mut probe = self.clone();
        probe.name = box_name(run);
        probe.labels.insert(label::RUN.to_owned(), run.to_string());
        let group = self.labels.get(label::GROUP).map_or("", String::as_str);
        probe.labels.insert(label::LANE.to_owned(), format!("{group}/probe"));
        probe.labels.insert(label::CHECKER.to_owned(), checker.to_string());
        probe.entrypoint = own_runner("probe");
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

    /// The same box for a check by the process `checker`. It runs our own runner's command `program`, which ends by
    /// itself.
    /// The labels contain the install and no lane, so that the host does not take it for an earlier box of the lane.
    #[must_use]
    pub fn for_check(mut self, name: String, checker: &str, program: &str) -> Self {
        self.name = name;
        self.entrypoint = own_runner(program);
        let of = |label| self.labels.get(label).map_or("", String::as_str);
        self.labels = labels_of_check(of(label::INSTALL), of(label::RUN), checker);
        self
    }

    /// Every path that must not be a symbolic link: the mount targets and all their parent directories, parents first.
    /// A link at one of them would move the mount.
    pub fn ways(&self) -> BTreeSet<String> {
        let above = |target: &str| {
            let cuts = target.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0);
            cuts.filter_map(|at| target.get(..at).map(str::to_owned)).collect::<Vec<_>>()
        };
        self.mounts.iter().flat_map(|m| above(&m.target).into_iter().chain([m.target.clone()])).collect()
    }

    pub fn posture(&self) -> &str {
        self.labels.get(label::POSTURE).map_or("", String::as_str)
    }
}

/// A bind mount. It does not include mounts below the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mount {
    pub source: PathBuf,
    pub target: String,
    pub writable: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tmpfs {
    pub target: String,
    /// Options in the notation of mount(8).
    pub options: String,
}

/// Why the host cannot make a box of an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A volume of the image overlaps with one of our mounts.
    #[error(
        "the image {image} declares VOLUME {volume}, which overlaps {target}; use an image without it \
         (a Dockerfile cannot take a VOLUME back: build from the image's own base)"
    )]
    Volume { image: String, volume: String, target: String },
    /// The image has a volume whose path is not in plain form.
    #[error(
        "the image {image} declares VOLUME {volume:?}, which is no plain absolute path; use an image without it \
         (a Dockerfile cannot take a VOLUME back: build from the image's own base)"
    )]
    VolumePath { image: String, volume: String },
    /// The image is for another processor architecture.
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

/// The container's name. The host finds a box by its labels. The name makes the engine refuse a second box of the run.
pub fn box_name(run: &RunId) -> String {
    format!("lazaret-{run}")
}

/// Makes the plan of a box.
///
/// # Errors
/// The image cannot be used.
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
    let foreign = |program: &String| vec![program.clone(), "run".to_owned()];
    let mut spec = ContainerSpec {
        name: box_name(&input.run),
        image: input.image.id.clone(),
        labels: BTreeMap::new(),
        entrypoint: input.foreign_runner.as_ref().map_or_else(|| own_runner("run"), foreign),
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

/// The command line of our own runner. The host checks boxes and images with it, whatever program performs the runs.
fn own_runner(command: &str) -> Vec<String> {
    vec![format!("{}/{}", box_path::RUNNER_DIR, names_and_paths::RUNNER), command.to_owned()]
}

/// Checks where a group's own runner lies. A program that a box can write, or that people can send, would let one turn
/// take over all later ones.
///
/// # Errors
/// What is wrong, to follow `runner = …`.
pub fn check_foreign_runner(path: &str, extra: &[ExtraMount]) -> Result<(), String> {
    if path.is_empty() || !is_plain(path) {
        return Err(
            "is no plain absolute path: it begins with / and has no `.`, `..` or empty part".to_owned()
        );
    }
    let writable = extra.iter().filter(|mount| mount.writable).map(|mount| mount.target.clone());
    let others = [box_path::IPC, "/tmp", "/dev", "/proc"].map(str::to_owned);
    let place = own_targets().into_iter().chain(others).chain(writable).find(|place| overlaps(path, place));
    place.map_or(Ok(()), |place| {
        Err(format!("lies at {place}; name a program of the image, or of a mount that is not writable"))
    })
}

/// Whether a runtime is gVisor. The name must start with `runsc`, because a machine may have several gVisor runtimes.
pub fn is_gvisor(runtime: Option<&str>) -> bool {
    runtime.is_some_and(|name| name.starts_with("runsc"))
}

/// The limit of tasks to ask the engine for. gVisor's kernel is a process on the host, and it uses about ten threads
/// for each process in the box. At the limit it does not return an error to the caller: it dies. So the limit is large
/// enough for the number of processes in the settings.
fn tasks(input: &PlanInput) -> u32 {
    let pids = input.limits.pids;
    match is_gvisor(input.runtime.as_deref()) {
        true => pids.saturating_mul(GVISOR_TASKS).saturating_add(GVISOR_TASKS_IDLE),
        false => pids,
    }
}

/// The machine's processor architecture in the engine's notation.
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
    let sources = [
        (&s.runner, false),
        (&s.to_agent, false),
        (&s.from_agent, true),
        (&s.socket, false),
        (&s.session, true),
        (&s.workspace, true),
        (&s.inbox, false),
        (&s.global, main),
        (&s.passwd, false),
    ];
    let own = sources.into_iter().zip(own_targets());
    own.map(|((source, writable), target)| Mount { source: source.clone(), target, writable })
        .chain(input.extra.iter().map(|m| Mount {
            source: m.source.clone(),
            target: m.target.clone(),
            writable: m.writable,
        }))
        .collect()
}

/// The places of the mounts that every box has, in the order of [`mounts`].
fn own_targets() -> [String; 9] {
    let letters = |direction| format!("{}/{direction}", box_path::IPC);
    [
        box_path::RUNNER_DIR.to_owned(),
        letters(names_and_paths::TO_AGENT),
        letters(names_and_paths::FROM_AGENT),
        box_path::RUN.to_owned(),
        box_path::SESSION.to_owned(),
        box_path::WORKSPACE.to_owned(),
        box_path::INBOX.to_owned(),
        box_path::GLOBAL.to_owned(),
        "/etc/passwd".to_owned(),
    ]
}

/// tmpfs for `/tmp` and for every volume of the image. Without it the engine would create a writable directory of
/// unlimited size on the host's disk for each volume.
fn tmpfs(input: &PlanInput, mounts: &[Mount]) -> Result<Vec<Tmpfs>, PlanError> {
    // runc ignores `mode` and gives a tmpfs the mode of the image's own directory. If that is 0755, the box can write
    // only if its user owns the tmpfs.
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

/// Whether a box has one of our own mounts in the place of this volume. The engine then makes nothing for it.
pub fn replaces_volume(volume: &str) -> bool {
    let volume = volume.trim_end_matches('/');
    volume == "/tmp" || own_targets().iter().any(|target| target == volume)
}

/// Whether an absolute path is in plain form. The engine normalizes a volume's path and not the path of a tmpfs. With
/// another form both would be mounted in one place, in random order.
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
        // Overrides a label of this name in the image.
        (label::CHECKER, String::new()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// A digest of the whole plan without the image and without what differs between two runs of a group. Two boxes with
/// the same digest get the same restrictions from the engine.
fn posture(spec: &ContainerSpec) -> String {
    let mut same = ContainerSpec { name: String::new(), image: String::new(), ..spec.clone() };
    same.labels.clear();
    // The sources in the run's own directories differ in each run, and that of the session with each `/new`. The
    // sources from the settings do not.
    let per_run = |target: &str| {
        target.starts_with(box_path::IPC) || [box_path::RUN, box_path::SESSION].contains(&target)
    };
    same.mounts.iter_mut().filter(|m| per_run(&m.target)).for_each(|m| m.source = PathBuf::new());
    // Plain data always serializes.
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
            foreign_runner: None,
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
        let probe = spec.for_probe(&run, "7@1", "/p/to".into(), "/p/from".into(), "/p/gateway".into());
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
    fn a_foreign_runner_performs_the_runs_and_our_own_the_checks() {
        let own = plan(&input()).unwrap();
        let spec = plan(&PlanInput { foreign_runner: Some("/opt/agent".into()), ..input() }).unwrap();
        assert_eq!(spec.entrypoint, ["/opt/agent", "run"]);
        let run = "019ab000-0000-7000-8000-000000000009".parse().unwrap();
        let probe = spec.for_probe(&run, "7@1", "/p/to".into(), "/p/from".into(), "/p/gateway".into());
        assert_eq!(probe.entrypoint, ["/lazaret/agent-runner", "probe"]);
        let check = spec.clone().for_check("x".into(), "7@1", "unlock-dirs");
        assert_eq!(check.entrypoint, ["/lazaret/agent-runner", "unlock-dirs"]);
        assert_eq!(
            ContainerSpec { entrypoint: own.entrypoint, labels: own.labels, ..spec.clone() },
            plan(&input()).unwrap()
        );
    }

    #[test]
    fn a_foreign_runner_lies_where_no_box_can_write() {
        let mount =
            |target: &str, writable| ExtraMount { source: "/srv/x".into(), target: target.into(), writable };
        let extra = [mount("/mnt/code", false), mount("/mnt/work", true)];
        for good in ["/opt/agent", "/mnt/code/agent.py", "/usr/bin/agent", "/workspaces/agent"] {
            assert_eq!(check_foreign_runner(good, &extra), Ok(()), "{good}");
        }
        for bad in [
            "",
            "agent",
            "/opt/../tmp/x",
            "/",
            "/workspace/agent",
            "/session/x",
            "/tmp/x",
            "/dev/shm/x",
            "/proc/self/exe",
            "/inbox/x",
            "/global/x",
            "/mnt/work/agent",
            "/ipc/from-agent/x",
            "/lazaret/agent-runner",
        ] {
            assert!(check_foreign_runner(bad, &extra).is_err(), "{bad}");
        }
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
