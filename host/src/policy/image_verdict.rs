//! Judges an image: what works in it, what does not, and whether it can be used at all. `images` and the command line
//! call it.

use ipc_schema::image_inventory::ImageInventory;

use super::sandbox_plan::{ImageFacts, replaces_volume};

/// An image larger than this, in bytes, gets a note.
const LARGE: u64 = 4 << 30;

/// The metadata of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageAbout {
    /// The part that the plan of a box needs.
    pub facts: ImageFacts,
    /// The operating system; only `linux` works.
    pub os: String,
    /// Bytes on disk.
    pub size: u64,
    /// The creation time in the engine's notation.
    pub created: String,
    /// The image's default user.
    pub user: String,
    pub entrypoint: Vec<String>,
    pub working_dir: String,
    /// Whether the image defines a health check.
    pub health_check: bool,
    /// Whether the image has ONBUILD instructions.
    pub on_build: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Good,
    Note,
    /// Something that agents need does not work.
    Loses,
    /// The image cannot be used.
    Breaks,
}

impl Severity {
    /// The name in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Note => "note",
            Self::Loses => "loses",
            Self::Breaks => "BREAKS",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFinding {
    pub severity: Severity,
    /// What the check looked at. For a finding that breaks the image, the error code.
    pub what: &'static str,
    /// For a person: the result and what to do.
    pub told: String,
}

/// The result of an image check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageCheck {
    pub findings: Vec<ImageFinding>,
    /// The runner's inventory, if the runner ran.
    pub offers: Option<ImageInventory>,
}

impl ImageCheck {
    /// The finding that makes the image unusable.
    pub fn broken(&self) -> Option<&ImageFinding> {
        self.findings.iter().find(|f| f.severity == Severity::Breaks)
    }

    /// A check that failed before or while the runner ran.
    pub fn breaks(about: &ImageAbout, code: &'static str, told: String) -> Self {
        let mut findings = outside(about);
        findings.push(ImageFinding { severity: Severity::Breaks, what: code, told });
        Self { findings, offers: None }
    }

    /// A check that failed because the image has links at mount points.
    pub fn linked(about: &ImageAbout, links: &[String]) -> Self {
        let told = format!(
            "the image {} has a symbolic link at {}, where this host mounts its own: with it, that would lie elsewhere, \
             where the agent could exchange it; use an image without it (a Dockerfile takes it away: RUN rm {})",
            about.facts.id,
            links.join(" and "),
            links.join(" ")
        );
        Self::breaks(about, "image.link", told)
    }

    /// A check with the runner's inventory.
    pub fn of(about: &ImageAbout, offers: ImageInventory) -> Self {
        let mut findings = outside(about);
        findings.extend(inside(&offers));
        Self { findings, offers: Some(offers) }
    }
}

/// Findings from the metadata.
fn outside(about: &ImageAbout) -> Vec<ImageFinding> {
    let mut found = Vec::new();
    let mut note = |what, told: String| found.push(ImageFinding { severity: Severity::Note, what, told });
    if !about.entrypoint.is_empty() {
        note("entrypoint", format!("{} is not run: the runner is", about.entrypoint.join(" ")));
    }
    if !about.user.is_empty() {
        note("user", format!("{} is not used: each group has a user of its own", about.user));
    }
    if !matches!(about.working_dir.as_str(), "" | "/" | "/workspace") {
        note("directory", format!("{} is not used: agents work in /workspace", about.working_dir));
    }
    let (ours, memory): (Vec<_>, Vec<_>) =
        about.facts.volumes.iter().map(String::as_str).partition(|volume| replaces_volume(volume));
    if !ours.is_empty() {
        note("volumes", format!("{}: without effect, the box has its own there", ours.join(", ")));
    }
    if !memory.is_empty() {
        note("volumes", format!("{}: each is 16 MiB of memory, empty in every run", memory.join(", ")));
    }
    if about.health_check {
        note("health", "its health check is not run".into());
    }
    if about.on_build {
        note("onbuild", "its ONBUILD lines matter only to images built from it".into());
    }
    if about.size > LARGE {
        note("size", format!("{} GiB", about.size >> 30));
    }
    found
}

/// Findings from the runner's inventory.
fn inside(offers: &ImageInventory) -> Vec<ImageFinding> {
    let line = |good: bool, what, yes: String, no: &str| ImageFinding {
        severity: if good { Severity::Good } else { Severity::Loses },
        what,
        told: if good { yes } else { no.to_owned() },
    };
    let mut found = vec![
        ImageFinding {
            severity: Severity::Good,
            what: "runner",
            told: format!("version {} starts in it, in the whole posture", offers.runner),
        },
        line(
            offers.shell.is_some(),
            "shell",
            offers.shell.clone().unwrap_or_default(),
            "there is none: run_command cannot work, the file tools do",
        ),
    ];
    let programs = offers.programs.join(", ");
    found.push(ImageFinding {
        severity: Severity::Note,
        what: "programs",
        told: if programs.is_empty() { "none of those that are looked for".into() } else { programs },
    });
    found.push(line(
        offers.certificates,
        "certificates",
        "there is a bundle".into(),
        "there is no bundle: programs in it trust no server (install ca-certificates)",
    ));
    found.push(line(
        offers.zones,
        "zones",
        "there are time zones".into(),
        "there are no time zones: programs in it tell the time in UTC (install tzdata)",
    ));
    found
}

/// The name with its implied tag. Without a tag the engine would pull every tag of the name.
pub fn with_tag(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') || name.contains('@') { name.to_owned() } else { format!("{name}:latest") }
}

/// Checks an image name: the engine's grammar (distribution/reference), without characters that a shell or terminal
/// would interpret.
///
/// # Errors
/// Why not, for a person.
pub fn check_name(name: &str) -> Result<(), String> {
    let (rest, digest) = name.split_once('@').map_or((name, None), |(rest, digest)| (rest, Some(digest)));
    let last = rest.rfind('/').map_or(0, |at| at + 1);
    // A colon before the last slash belongs to the registry's port.
    let colon = rest.get(last..).and_then(|part| part.find(':')).map(|at| at + last);
    let (path, tag) = colon.map_or((rest, None), |at| (rest.get(..at).unwrap_or(rest), rest.get(at + 1..)));
    let word =
        |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    let (registry, path) = match path.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (Some(first), rest),
        _ => (None, path),
    };
    let plain = |part: &str| {
        let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        word(part)
            && part.starts_with(edge)
            && part.ends_with(edge)
            && !part.contains(|c: char| c.is_ascii_uppercase())
    };
    let host = |registry: &str| {
        let (host, port) = registry.split_once(':').unwrap_or((registry, "0"));
        word(host) && !host.starts_with(['.', '-']) && port.parse::<u16>().is_ok()
    };
    let good = name.len() <= 255
        && path.split('/').all(plain)
        && registry.is_none_or(host)
        && tag.is_none_or(|tag| word(tag) && !tag.starts_with(['.', '-']) && tag.len() <= 128)
        && digest
            .is_none_or(|digest| digest.split_once(':').is_some_and(|(kind, hex)| word(kind) && word(hex)));
    if good {
        return Ok(());
    }
    Err(format!(
        "{name:?} is no image's name; names look like \"python:3.12\" or \"registry.example/tools:1\""
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> ImageAbout {
        ImageAbout {
            facts: ImageFacts { id: "i".into(), architecture: "amd64".into(), volumes: vec![], path: None },
            os: "linux".into(),
            size: 1,
            created: String::new(),
            user: String::new(),
            entrypoint: vec![],
            working_dir: String::new(),
            health_check: false,
            on_build: false,
        }
    }

    #[test]
    fn a_verdict_names_what_is_lost_and_breaks_only_on_what_breaks() {
        let mut image = about();
        image.entrypoint = vec!["false".into()];
        image.user = "nobody".into();
        image.working_dir = "/not/there".into();
        let bare = ImageInventory {
            runner: "0.1.0".into(),
            system: None,
            shell: None,
            programs: vec![],
            certificates: false,
            zones: false,
        };
        let verdict = ImageCheck::of(&image, bare);
        assert_eq!(verdict.broken(), None);
        let of = |severity| {
            let found = verdict.findings.iter().filter(move |f| f.severity == severity);
            found.map(|f| f.what).collect::<Vec<_>>()
        };
        assert_eq!(of(Severity::Note), ["entrypoint", "user", "directory", "programs"]);
        assert_eq!(of(Severity::Loses), ["shell", "certificates", "zones"]);
        let broken = ImageCheck::breaks(&about(), "image.volume", "why".into());
        assert_eq!(broken.broken().map(|f| f.what), Some("image.volume"));
        let linked = ImageCheck::linked(&about(), &["/inbox".into(), "/run".into()]);
        let told = linked.broken().filter(|f| f.what == "image.link").map(|f| f.told.clone()).unwrap();
        assert!(told.contains("at /inbox and /run,") && told.contains("RUN rm /inbox /run"), "{told}");
    }

    #[test]
    fn a_volume_is_memory_unless_the_box_has_its_own_there() {
        let mut image = about();
        image.facts.volumes =
            ["/workspace", "/data", "/tmp/", "/session/", "/ipc/to-agent"].map(String::from).into();
        let found = outside(&image);
        let told: Vec<_> = found.iter().map(|f| (f.what, f.told.as_str())).collect();
        assert_eq!(
            told,
            [
                (
                    "volumes",
                    "/workspace, /tmp/, /session/, /ipc/to-agent: without effect, the box has its own there"
                ),
                ("volumes", "/data: each is 16 MiB of memory, empty in every run"),
            ]
        );
    }

    #[test]
    fn a_bare_name_means_its_latest_tag() {
        for (name, full) in [
            ("python", "python:latest"),
            ("python:3.12", "python:3.12"),
            ("registry.example:5000/tools", "registry.example:5000/tools:latest"),
            ("a/b@sha256:00", "a/b@sha256:00"),
        ] {
            assert_eq!(with_tag(name), full);
        }
    }

    #[test]
    fn a_name_is_nothing_but_a_name() {
        for good in ["python:3.12", "registry.example:5000/a/b_c-d:1.0", "x@sha256:abc", "sha256:abc"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in [
            "", "-rf", "a b", "a\nb", "../x", "a;b", "$(x)", "ä", "Python:3", "a:1:2", "a//b", "a:", "a@b",
            "a/-b",
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
