//! Decides whether a box keeps the posture that its plan asks for. An engine may accept a limit and not enforce it,
//! and it ignores options that it does not know. So the host starts a probe box and compares three views of it with
//! the plan, line by line: the probe's report from inside, the engine's description and the kernel's.
//! [`super::sandbox_plan`] defines the plan. This module decides what follows when the box differs from it. It does no
//! I/O.

use ipc_schema::probe_report::{ALLOCATE_WITHOUT_WRITING, Attempt, Cgroup, NO_LIMIT, ProbeReport};
use serde::Serialize;

use super::sandbox_plan::{ContainerSpec, is_gvisor};

/// What follows when a line does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// The host refuses the run, and the owner cannot accept the loss: without this line there is no isolation.
    Core,
    /// The host refuses the run unless `[engine] accept` names the line.
    Owner,
    Named,
}

/// One line of the posture.
#[derive(Debug, Clone, Copy)]
struct Line {
    name: &'static str,
    weight: Weight,
    /// What the operator can do when the line does not hold.
    fix: &'static str,
}

const fn line(name: &'static str, weight: Weight, fix: &'static str) -> Line {
    Line { name, weight, fix }
}

const CGROUPS: &str = "give the engine its control groups (cgroup v2, or v1 with this controller; not rootless without \
                       delegation), and let the runtime keep them (gVisor: no `--ignore-cgroups` among its runtimeArgs)";

const AS_ASKED: Line = line(
    "as-asked",
    Weight::Core,
    "look at what else changes containers on this engine (a proxy before its socket, an authorization plugin)",
);
const LETTERS: Line = line(
    "letters",
    Weight::Core,
    "run the engine on this machine, where it sees the state directory: not in another mount namespace, nor in a virtual machine",
);
const USER: Line = line(
    "user",
    Weight::Core,
    "take `userns-remap` out of /etc/docker/daemon.json and restart the engine; boxes have users of their own already",
);
const CAPABILITIES: Line = line(
    "capabilities",
    Weight::Core,
    "use a runtime that keeps cap-drop ALL: runc, crun, or gVisor's runsc",
);
const NO_NEW_PRIVILEGES: Line = line(
    "no-new-privileges",
    Weight::Core,
    "use a runtime that keeps no-new-privileges: runc, crun, or gVisor's runsc",
);
const SECCOMP: Line =
    line("seccomp", Weight::Owner, "use an engine and a kernel with seccomp (`docker info` lists it)");
const SYSCALLS: Line = line(
    "syscalls",
    Weight::Owner,
    "use a runtime that loads the seccomp profile it is given: runc or crun, built with seccomp",
);
const INTERFACES: Line = line(
    "interfaces",
    Weight::Core,
    "look at what gives boxes a network (a plugin, hooks of the runtime): they are made with the network mode `none`",
);
const NETWORK: Line = line(
    "network",
    Weight::Core,
    "look at what gives boxes a network (a plugin, hooks of the runtime): they are made with the network mode `none`",
);
const NAMESPACES: Line = line(
    "namespaces",
    Weight::Core,
    "take what shares namespaces of the host out of the engine's settings and the runtime's arguments",
);
const PLACES: Line = line(
    "writable-places",
    Weight::Core,
    "use a runtime that keeps read-only mounts and a read-only root: runc, crun, or gVisor's runsc",
);
const MOUNTS: Line = line(
    "mounts",
    Weight::Core,
    "use an image in which none of these paths is or lies below a symbolic link (`lazaret image check` names them); \
     where none is, the engine mounts elsewhere than it is told to: use another",
);
const SECRETS: Line = line(
    "kernel-files",
    Weight::Core,
    "take out of the engine's settings what unmasks /proc and /sys or mounts a socket into containers",
);
const DEVICES: Line = line(
    "devices",
    Weight::Core,
    "take devices out of the engine's settings and the runtime's hooks (a default GPU runtime adds some)",
);
const TMPFS: Line = line(
    "memory-filesystems",
    Weight::Owner,
    "use a runtime that keeps the size and the options of a tmpfs: runc or crun",
);
const ROOM: Line = line(
    "room-at-once",
    Weight::Named,
    "set `limits.disk_images = true`: workspace and transcripts are file systems of their own, which end where they end",
);
const MEMORY: Line = line("memory-limit", Weight::Owner, CGROUPS);
const SWAP: Line =
    line("swap-limit", Weight::Owner, "boot with `swapaccount=1`, or turn swap off on this machine");
const PIDS: Line = line("pids-limit", Weight::Owner, CGROUPS);
const CPUS: Line = line("cpu-limit", Weight::Owner, CGROUPS);
const ULIMITS: Line = line("ulimits", Weight::Owner, "use a runtime that keeps ulimits: runc or crun");
const PROCESSES: Line = line(
    "processes",
    Weight::Core,
    "take what shares the host's processes out of the engine's settings and the runtime's arguments",
);
const ENVIRONMENT: Line =
    line("environment", Weight::Named, "look at what the engine adds to a container's environment");
const HOST_PATHS: Line = line(
    "host-paths",
    Weight::Named,
    "put the install where no name is in the path, such as /var/lib/lazaret (a box sees its mounts' sources)",
);
const CONFINEMENT: Line =
    line("apparmor", Weight::Named, "load the engine's AppArmor profile (`aa-status` lists it)");
const DISK_WATCH: Line = line(
    "disk-watch",
    Weight::Named,
    "run the host as root, and with limits.disk_images = true if a workspace must never be larger than its limit",
);

const LINES: [Line; 26] = [
    AS_ASKED,
    LETTERS,
    USER,
    CAPABILITIES,
    NO_NEW_PRIVILEGES,
    SECCOMP,
    SYSCALLS,
    INTERFACES,
    NETWORK,
    NAMESPACES,
    PLACES,
    MOUNTS,
    SECRETS,
    DEVICES,
    TMPFS,
    ROOM,
    MEMORY,
    SWAP,
    PIDS,
    CPUS,
    ULIMITS,
    PROCESSES,
    ENVIRONMENT,
    HOST_PATHS,
    CONFINEMENT,
    DISK_WATCH,
];

/// Lines that gVisor cannot keep. Its own kernel answers the box's system calls. So our seccomp filter does not apply
/// to them, and neither do the probe's checks: a namespace or a device node that gVisor grants is nothing of the
/// host's, and gVisor allocates space in one call. Its tmpfs takes a size and no other option. With `--ignore-cgroups`
/// nothing counts memory, processes or processors. A group that sets this runtime has chosen these losses, and the
/// host still reports each one.
const LOST_UNDER_GVISOR: [Line; 7] = [
    Line { fix: GVISORS_NATURE, ..SECCOMP },
    Line { fix: GVISORS_NATURE, ..SYSCALLS },
    Line { fix: GVISORS_NATURE, ..TMPFS },
    ROOM,
    MEMORY,
    PIDS,
    CPUS,
];
const GVISORS_NATURE: &str = "none under gVisor; a group without `runtime` has it";

/// Namespaces that gVisor's process may share with the host. gVisor creates the box's own namespaces itself.
const SHARED_BY_GVISOR: [&str; 2] = ["pid", "cgroup"];

/// Names that gVisor's kernel adds to /dev.
const DEVICES_OF_GVISOR: [&str; 2] = ["fuse", "net"];

/// Errors that mean that a system call was refused. Any other error means that the kernel has read the arguments.
const REFUSALS: [&str; 6] =
    ["EPERM", "EACCES", "ENOSYS", "EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT"];

/// Errors that mean that the box cannot reach an address. ECONNREFUSED is not among them: it comes from a host that
/// the box has reached.
const NO_WAY: [&str; 5] = ["ENETUNREACH", "EADDRNOTAVAIL", "EAFNOSUPPORT", "EPERM", "EACCES"];

/// Counts as unreachable only in a box without a network card. Linux returns it for a neighbour that does not answer,
/// which needs a network. gVisor returns it when there is no network.
const NO_WAY_WITHOUT_CARDS: &str = "EHOSTUNREACH";

/// Names in every container's /dev. None of them is a device of the host.
const HARMLESS: [&str; 16] = [
    "console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
    "stdout", "tty", "urandom", "zero",
];

/// tmpfs mounts that the engine makes in every container and that every user in it may write.
const OF_THE_ENGINE: [&str; 3] = ["/dev/shm", "/dev/mqueue", "/dev/pts"];

/// The probe and its init need no more processes than this. More mean that the box sees processes of somebody else.
const PROCESSES_AT_MOST: u32 = 4;

/// Checks that an owner may accept the loss of this line.
///
/// # Errors
/// A message with the names of the lines that can be accepted.
pub fn acceptable(name: &str) -> Result<(), String> {
    let names: Vec<&str> = LINES.iter().filter(|l| l.weight != Weight::Core).map(|l| l.name).collect();
    if names.contains(&name) {
        return Ok(());
    }
    let wall = LINES.iter().any(|l| l.name == name);
    let what = if wall { "cannot be done without" } else { "is no line of the posture" };
    Err(format!("{name:?} {what}; what can be accepted is: {}", names.join(", ")))
}

/// A box as the engine and the host's kernel describe it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outside {
    /// Fields in which the engine's description differs from the plan.
    pub differences: Vec<Difference>,
    /// Names of the environment variables, from the engine's description.
    pub environment: Vec<String>,
    /// The kernel's view. `None` where the host may not read it.
    pub kernel: Option<KernelView>,
}

/// A field in which the engine's description differs from the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub field: String,
    /// The value in the plan.
    pub asked: String,
    pub told: String,
}

/// A box's first process, as the host's /proc shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelView {
    /// Its user ids: real, effective, saved, file system.
    pub uids: Vec<u32>,
    /// Its capability bounding set in hexadecimal.
    pub bounding: String,
    pub no_new_privileges: bool,
    /// The seccomp mode, as in [`ProbeReport`].
    pub seccomp: u32,
    /// Namespaces that it shares with the host.
    pub shared: Vec<String>,
    pub cgroup: Cgroup,
}

/// Facts that the verdict needs besides the probe's report.
#[derive(Debug, Clone, Default)]
pub struct Circumstances {
    /// The nonce that the probe had to repeat.
    pub nonce: String,
    /// Lines whose loss the owner has accepted.
    pub accepted: Vec<String>,
    /// Names of other groups and of people. No path in a box may contain one.
    pub names: Vec<String>,
    /// Whether the engine reports AppArmor.
    pub apparmor: bool,
    /// Whether the host runs as root, and so can read every directory that a box creates.
    pub root: bool,
}

/// The verdict on a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    Held,
    /// The host cannot observe it from here.
    Unknown,
    /// Lost, and the owner has accepted that.
    Accepted,
    /// The group's runtime cannot keep it.
    Runtime,
    /// Lost. The host reports it and starts the run.
    Named,
    /// Lost. The host refuses the run.
    Lost,
}

/// The result for one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PostureFinding {
    pub name: &'static str,
    pub standing: Standing,
    pub expected: String,
    pub seen: String,
    pub fix: &'static str,
    pub acceptable: bool,
}

/// Compares a box with its plan.
pub fn judge(
    spec: &ContainerSpec,
    inside: &ProbeReport,
    outside: &Outside,
    about: &Circumstances,
) -> Vec<PostureFinding> {
    let mut all = Findings { spec, about, found: Vec::new() };
    all.identity(inside, outside);
    all.rights(inside, outside);
    all.reach(inside, outside);
    all.files(inside);
    all.limits(inside, outside);
    all.leaks(inside, outside);
    all.watch();
    all.found
}

/// Why the host refuses the run, and what to do. `None` if every line that must hold does.
pub fn refusal(findings: &[PostureFinding]) -> Option<String> {
    let lost: Vec<&PostureFinding> = findings.iter().filter(|f| f.standing == Standing::Lost).collect();
    let told =
        |f: &&PostureFinding| format!("{}: asked for {}, found {} ({})", f.name, f.expected, f.seen, f.fix);
    let told: Vec<String> = lost.iter().map(told).collect();
    let names: Vec<String> = lost.iter().map(|f| format!("\"{}\"", f.name)).collect();
    let accept = if lost.iter().all(|f| f.acceptable) {
        format!(
            ", and what it takes to accept this: [engine] accept = [{}] in lazaret.toml",
            names.join(", ")
        )
    } else {
        String::new()
    };
    let why = "the engine does not make the box that it is asked for";
    (!lost.is_empty())
        .then(|| format!("{why}; `lazaret box check` shows every line{accept}. {}", told.join(". ")))
}

/// What to do about a runtime that the engine does not know. gVisor blocks unix sockets of the host by default, and
/// the box's only connection to the host is one. Debian's build of gVisor cannot make networks. gVisor does not start
/// where the machine lacks a cgroup controller that it wants, so the text names the argument that starts it without
/// limits.
pub fn no_runtime(name: &str) -> String {
    let (path, arguments) = if is_gvisor(Some(name)) {
        ("/usr/bin/runsc", r#", "runtimeArgs": ["--host-uds=open", "--network=none"]"#)
    } else {
        ("/path/to/it", "")
    };
    let uncounted = if is_gvisor(Some(name)) {
        "; should no box start then, add \"--ignore-cgroups\" to its runtimeArgs, and nobody counts memory, processes and processors"
    } else {
        ""
    };
    format!(
        "the engine does not know the runtime {name}; install it, put {{\"runtimes\": {{\"{name}\": {{\"path\": \"{path}\"{arguments}}}}}}} \
         into /etc/docker/daemon.json, and run `systemctl reload docker`{uncounted}"
    )
}

/// A message if a limit is larger than the machine, because such a limit has no effect. `memory` is in bytes. A
/// machine value of 0 means unknown.
pub fn above_machine(memory: u64, milli_cpus: u64, has_memory: u64, has_cpus: u64) -> Option<String> {
    let above = |name: &str, wanted: u64, has: u64, what: &str| {
        format!(
            "limits.{name} = {wanted} is above the {has}{what} of this machine; lower it in lazaret.toml or the group's group.toml"
        )
    };
    if has_memory > 0 && memory > has_memory {
        return Some(above("memory_mib", memory >> 20, has_memory >> 20, " MiB"));
    }
    let has = has_cpus.saturating_mul(1000);
    (has > 0 && milli_cpus > has).then(|| above("milli_cpus", milli_cpus, has, " thousandths of processors"))
}

/// The lines that do not hold although the run starts. `status` shows them.
pub fn losses(findings: &[PostureFinding]) -> impl Iterator<Item = &PostureFinding> {
    let lived_with = [Standing::Accepted, Standing::Runtime, Standing::Named];
    findings.iter().filter(move |f| lived_with.contains(&f.standing))
}

struct Findings<'a> {
    spec: &'a ContainerSpec,
    about: &'a Circumstances,
    found: Vec<PostureFinding>,
}

impl Findings<'_> {
    /// Adds one line. `held` is `None` if the host cannot observe it.
    fn add(&mut self, line: Line, held: Option<bool>, expected: impl Into<String>, seen: impl Into<String>) {
        let by_nature = LOST_UNDER_GVISOR
            .iter()
            .find(|lost| self.gvisor() && held == Some(false) && lost.name == line.name);
        let standing = match held {
            Some(true) => Standing::Held,
            None => Standing::Unknown,
            Some(false) if self.about.accepted.iter().any(|name| name == line.name) => Standing::Accepted,
            Some(false) if by_nature.is_some() => Standing::Runtime,
            Some(false) if line.weight == Weight::Named => Standing::Named,
            Some(false) => Standing::Lost,
        };
        self.found.push(PostureFinding {
            name: line.name,
            standing,
            expected: expected.into(),
            seen: seen.into(),
            fix: by_nature.unwrap_or(&line).fix,
            acceptable: line.weight != Weight::Core,
        });
    }

    fn gvisor(&self) -> bool {
        is_gvisor(self.spec.runtime.as_deref())
    }

    /// The host's view of the box's user and capabilities. Under gVisor the host sees only gVisor's own process, which
    /// runs as nobody, so the probe's report is the only source.
    fn of_the_box<'k>(&self, outside: &'k Outside) -> Option<&'k KernelView> {
        outside.kernel.as_ref().filter(|_| !self.gvisor())
    }

    /// Adds a line that holds when `astray` is empty.
    fn none(&mut self, line: Line, expected: &str, astray: &[String]) {
        self.add(
            line,
            Some(astray.is_empty()),
            expected,
            if astray.is_empty() { expected.into() } else { astray.join(", ") },
        );
    }

    fn identity(&mut self, inside: &ProbeReport, outside: &Outside) {
        let differs: Vec<String> = outside
            .differences
            .iter()
            .map(|d| format!("{}: asked {}, told {}", d.field, d.asked, d.told))
            .collect();
        self.none(AS_ASKED, "the engine's account is the plan", &differs);
        let read = inside.nonce == self.about.nonce;
        self.add(LETTERS, Some(read), "the host's nonce", if read { "the same" } else { "another" });
        let who = &inside.identity;
        let uid = self.spec.user.split(':').next().and_then(|uid| uid.parse::<u32>().ok());
        let told: Vec<u32> = self.of_the_box(outside).map(|k| k.uids.clone()).unwrap_or_default();
        let own = format!("{}:{}", who.uid, who.gid) == self.spec.user
            && !who.groups.contains(&0)
            && told.iter().all(|seen| Some(*seen) == uid);
        self.add(
            USER,
            Some(own),
            self.spec.user.clone(),
            format!("{}:{} {:?}", who.uid, who.gid, who.groups),
        );
    }

    fn rights(&mut self, inside: &ProbeReport, outside: &Outside) {
        let zero = |set: &str| u64::from_str_radix(set, 16) == Ok(0);
        let sets = &inside.rights.capabilities;
        let bounding = self.of_the_box(outside).map(|k| k.bounding.as_str());
        let known = sets.iter().flatten().map(String::as_str).chain(bounding);
        let held = sets.iter().any(Option::is_some).then(|| known.clone().all(zero));
        self.add(CAPABILITIES, held, "none", known.collect::<Vec<_>>().join(" "));
        let kernel = outside.kernel.as_ref();
        let closed = inside.rights.no_new_privileges && kernel.is_none_or(|k| k.no_new_privileges);
        self.add(NO_NEW_PRIVILEGES, Some(closed), "on", if closed { "on" } else { "off" });
        let mode = kernel.map_or(inside.rights.seccomp, |k| k.seccomp.min(inside.rights.seccomp));
        self.add(SECCOMP, Some(mode == 2), "a filter", if mode == 2 { "a filter" } else { "none" });
        let reached = |call: &&Attempt| {
            call.what != ALLOCATE_WITHOUT_WRITING
                && call.refused.as_deref().is_none_or(|why| !REFUSALS.contains(&why))
        };
        let reached: Vec<String> = inside.calls.iter().filter(reached).map(told).collect();
        let expected = format!("{} calls refused", inside.calls.len());
        self.add(
            SYSCALLS,
            Some(reached.is_empty()),
            expected.clone(),
            if reached.is_empty() { expected } else { reached.join(", ") },
        );
    }

    fn reach(&mut self, inside: &ProbeReport, outside: &Outside) {
        let cards: Vec<String> = inside.interfaces.iter().filter(|name| *name != "lo").cloned().collect();
        self.none(INTERFACES, "lo alone", &cards);
        let no_way = |why: &str| NO_WAY.contains(&why) || (why == NO_WAY_WITHOUT_CARDS && cards.is_empty());
        let reached = |a: &&Attempt| !a.refused.as_deref().is_some_and(no_way);
        let reached: Vec<String> = inside.network.iter().filter(reached).map(told).collect();
        self.none(NETWORK, &format!("none of {} reached", inside.network.len()), &reached);
        match &outside.kernel {
            Some(kernel) => {
                let gvisor = self.gvisor();
                let own = |name: &&String| !(gvisor && SHARED_BY_GVISOR.contains(&name.as_str()));
                let shared: Vec<String> = kernel.shared.iter().filter(own).cloned().collect();
                self.none(NAMESPACES, "none shared with the host", &shared);
            }
            None => self.add(NAMESPACES, None, "none shared with the host", "not to be seen from here"),
        }
        let many = inside.processes > PROCESSES_AT_MOST;
        self.add(PROCESSES, Some(!many), "its own", format!("{} are seen", inside.processes));
    }

    fn files(&mut self, inside: &ProbeReport) {
        let mine = self.spec.mounts.iter().filter(|m| m.writable).map(|m| m.target.as_str());
        let free = self.spec.tmpfs.iter().map(|t| t.target.as_str()).chain(OF_THE_ENGINE);
        let writable: Vec<&str> = mine.clone().chain(free).collect();
        let mut astray: Vec<String> = inside
            .places
            .iter()
            .filter(|place| place.refused.is_none() && !writable.contains(&place.what.as_str()))
            .map(|place| format!("{} can be written", place.what))
            .collect();
        astray.extend(mine.filter_map(|target| {
            let place = inside.places.iter().find(|place| place.what == target);
            match place.map(|p| p.refused.as_deref()) {
                Some(None) => None,
                Some(Some(why)) => Some(format!("{target} cannot be written: {why}")),
                None => Some(format!("{target} is not there")),
            }
        }));
        self.none(PLACES, "the box's own and no other", &astray);
        self.mounts(inside);
        let open: Vec<String> = inside.secrets.iter().filter(|s| s.refused.is_none()).map(told).collect();
        self.none(SECRETS, "none can be read", &open);
        let harmless = |d: &str| HARMLESS.contains(&d) || (self.gvisor() && DEVICES_OF_GVISOR.contains(&d));
        let devices: Vec<String> = inside.devices.iter().filter(|d| !harmless(d)).cloned().collect();
        self.none(DEVICES, "those of every container", &devices);
        self.memory_filesystems(inside);
        let at_once = inside.calls.iter().find(|call| call.what == ALLOCATE_WITHOUT_WRITING);
        let taken = at_once.map(|call| call.refused.is_none());
        let seen = if taken == Some(true) { "any size in one call" } else { "not in one call" };
        self.add(ROOM, taken.map(|taken| !taken), "the disk is filled no faster than it is written", seen);
    }

    /// A symbolic link in the image moves a mount, possibly into a directory that the agent can write. The agent could
    /// then replace the mount. So each mount must be at its own target in mountinfo, whose paths contain no links.
    fn mounts(&mut self, inside: &ProbeReport) {
        let astray: Vec<String> = self
            .spec
            .mounts
            .iter()
            .filter_map(|mount| {
                let target = &mount.target;
                // A later mount covers an earlier one.
                let Some(seen) = inside.mounts.iter().rfind(|m| as_written(&m.target) == *target) else {
                    return Some(format!("{target} is not mounted there"));
                };
                let read_only = seen.options.split(',').any(|option| option == "ro");
                let right = |read_only: bool| if read_only { "read-only" } else { "writable" };
                (read_only == mount.writable).then(|| format!("{target} is {}", right(read_only)))
            })
            .collect();
        self.none(MOUNTS, "each at its own path, with its right", &astray);
    }

    fn memory_filesystems(&mut self, inside: &ProbeReport) {
        let sized = self.spec.tmpfs.iter().map(|tmpfs| {
            let size = tmpfs.options.split(',').find_map(|option| option.strip_prefix("size="));
            let bytes = size.and_then(|size| size.parse().ok());
            (tmpfs.target.as_str(), bytes.unwrap_or(NO_LIMIT), true)
        });
        let all: Vec<_> = sized.chain([("/dev/shm", self.spec.shm_bytes, false)]).collect();
        let mut astray = Vec::new();
        for (target, most, guarded) in &all {
            // A later mount covers an earlier one.
            let Some(mount) = inside.mounts.iter().rfind(|m| m.target == *target) else {
                astray.push(format!("{target} is not mounted"));
                continue;
            };
            let options: Vec<&str> = mount.options.split(',').collect();
            if mount.bytes.is_none_or(|bytes| bytes > *most) {
                astray.push(format!("{target}: {}", mount.bytes.map_or("no limit".into(), shown_bytes)));
            }
            if *guarded && !["nosuid", "nodev"].iter().all(|option| options.contains(option)) {
                astray.push(format!("{target}: {}", mount.options));
            }
        }
        let expected: Vec<String> =
            all.iter().map(|(target, most, _)| format!("{target} {}", shown_bytes(*most))).collect();
        self.none(TMPFS, &expected.join(", "), &astray);
    }

    fn limits(&mut self, inside: &ProbeReport, outside: &Outside) {
        let kernel = outside.kernel.as_ref().map(|k| k.cgroup).unwrap_or_default();
        let spec = self.spec;
        // Both views describe the same processes. If they differ, the looser limit counts.
        let of = |pick: fn(&Cgroup) -> Option<u64>| pick(&kernel).max(pick(&inside.cgroup));
        let mut limit = |line, seen: Option<u64>, most: u64, shown: fn(u64) -> String| {
            let told = seen.map_or("nothing that keeps it".into(), |n| {
                if n == NO_LIMIT { "no limit".into() } else { shown(n) }
            });
            self.add(line, Some(seen.is_some_and(|n| n <= most)), shown(most), told);
        };
        limit(MEMORY, of(|c| c.memory), spec.memory, shown_bytes);
        limit(PIDS, of(|c| c.pids), spec.pids.into(), |n| n.to_string());
        limit(CPUS, of(|c| c.milli_cpus), spec.nano_cpus / 1_000_000, |n| format!("{n} thousandths"));
        // A machine without swap needs no limit on swap.
        let swap = if inside.machine_swap { of(|c| c.swap) } else { Some(0) };
        limit(SWAP, swap, 0, shown_bytes);
        let r = inside.rlimits;
        let seen = [("nofile", r.nofile), ("fsize", r.fsize), ("core", r.core)];
        let astray: Vec<String> = spec
            .ulimits
            .iter()
            .filter(|(name, most)| seen.iter().find(|(n, _)| n == name).is_none_or(|(_, value)| value > most))
            .map(|(name, most)| format!("{name} is above {most}"))
            .collect();
        let expected: Vec<String> =
            spec.ulimits.iter().map(|(name, most)| format!("{name} {most}")).collect();
        self.none(ULIMITS, &expected.join(", "), &astray);
    }

    fn leaks(&mut self, inside: &ProbeReport, outside: &Outside) {
        let known = |name: &String| outside.environment.contains(name) || name == "HOSTNAME";
        let strange: Vec<String> = inside.environment.iter().filter(|name| !known(name)).cloned().collect();
        self.none(ENVIRONMENT, "what was asked for", &strange);
        let holds = |root: &str| root.split('/').any(|part| self.about.names.iter().any(|name| name == part));
        let mut paths: Vec<String> =
            inside.mounts.iter().filter(|m| holds(&m.root)).map(|m| m.root.clone()).collect();
        paths.dedup();
        self.none(HOST_PATHS, "no name of a person or of another group", &paths);
        if self.about.apparmor {
            let held = inside.confinement.as_deref().is_some_and(|c| !c.starts_with("unconfined"));
            self.add(
                CONFINEMENT,
                Some(held),
                "confined",
                inside.confinement.clone().unwrap_or_else(|| "unconfined".into()),
            );
        }
    }

    /// A host that is not root cannot read directories that an agent has closed, nor the tables of open files.
    fn watch(&mut self) {
        let expected = "all that a living box has written is counted";
        let seen = if self.about.root {
            expected
        } else {
            "folders that an agent shuts are counted after its run, not during it; files that it has deleted and holds \
             open are not"
        };
        self.add(DISK_WATCH, Some(self.about.root), expected, seen);
    }
}

/// Decodes the octal escapes that mountinfo uses for blanks and backslashes (proc_pid_mountinfo(5)).
fn as_written(path: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(path.to_owned(), |path, (octal, plain)| path.replace(octal, plain))
}

fn told(attempt: &Attempt) -> String {
    match &attempt.refused {
        Some(why) => format!("{}: {why}", attempt.what),
        None => format!("{}: done", attempt.what),
    }
}

fn shown_bytes(bytes: u64) -> String {
    match bytes {
        NO_LIMIT => "no limit".into(),
        _ if bytes >= 1 << 20 => format!("{} MiB", bytes >> 20),
        _ => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
#[path = "posture_tests.rs"]
mod tests;
