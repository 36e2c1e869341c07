//! Decides which image a run uses, and judges an image before its first use. The run, `images` and the command line
//! call it.
//!
//! The host looks a name up and checks its image once. From then on the group's runs use that image by its id. The
//! image changes if the settings name another one or if the operator runs `lazaret image set`. The default image also
//! changes when it is rebuilt: it is built on this machine, and upgrades reach it by a rebuild. A pulled name keeps
//! its image, because whoever can move a tag in a registry must not change what agents run in. If an image fails its
//! check, the group keeps the image that it has.

use std::time::Duration;

use ipc_schema::image_inventory::ImageInventory;

use super::sandbox_plan::ImageFacts;
use crate::domain::WallMs;
use crate::domain::image::{DEFAULT_IMAGE, Pin};

/// The host checks a refused image again after this.
const AGAIN: Duration = Duration::from_secs(600);
/// An image larger than this, in bytes, gets a note.
const LARGE: u64 = 4 << 30;

/// Which image a run uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageChoice {
    Pinned,
    /// The previous one, which the settings name again: pin it again.
    Back,
    /// The one with this id, after a check: pin it.
    Take(String),
    /// The pinned one, because the one in the settings failed its check a short time ago.
    Kept,
    /// None: the engine does not have the image.
    Missing,
}

/// Whether the host looks the name up again for every run, as it does only for the default image.
pub fn is_followed(name: &str) -> bool {
    let name = name.strip_suffix(":latest").unwrap_or(name);
    name == DEFAULT_IMAGE
}

/// Decides. `found` is the id that the name has in the engine now.
pub fn choose(wanted: &str, found: Option<&str>, pin: Option<&Pin>, now: WallMs) -> ImageChoice {
    let take = |id: &str| ImageChoice::Take(id.to_owned());
    let Some(pin) = pin else { return found.map_or(ImageChoice::Missing, take) };
    let moved = found.is_some_and(|id| id != pin.now.id && pin.passed_over.as_deref() != Some(id));
    if pin.now.name == wanted && !(is_followed(wanted) && moved) {
        return ImageChoice::Pinned;
    }
    if pin.now.name != wanted && pin.before.as_ref().is_some_and(|before| before.name == wanted) {
        return ImageChoice::Back;
    }
    let refused = pin.refused.as_ref().is_some_and(|refused| {
        refused.name == wanted && refused.id.as_deref() == found && now.since(refused.at) < AGAIN
    });
    match found {
        Some(_) if refused => ImageChoice::Kept,
        Some(id) => take(id),
        None => ImageChoice::Missing,
    }
}

/// The id or name by which to inspect the image of a group's next run: the id if one is pinned, otherwise the name.
pub fn of_next_run<'a>(wanted: &'a str, pin: Option<&'a Pin>) -> &'a str {
    let Some(pin) = pin else { return wanted };
    if pin.now.name == wanted {
        let looks_again = is_followed(wanted) && pin.passed_over.is_none();
        return if looks_again { wanted } else { &pin.now.id };
    }
    pin.before.as_ref().filter(|before| before.name == wanted).map_or(wanted, |before| &before.id)
}

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
    if !about.facts.volumes.is_empty() {
        let names = about.facts.volumes.join(", ");
        note("volumes", format!("{names}: each is 16 MiB of memory, empty in every run"));
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
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if name.len() <= 255 && starts && name.chars().all(allowed) {
        return Ok(());
    }
    Err(format!(
        "{:?} is no image's name; names look like \"python:3.12\" or \"registry.example/tools:1\"",
        name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::image::{Named, NotTaken};

    const T: WallMs = WallMs(1_795_000_000_000);

    fn named(name: &str, id: &str) -> Named {
        Named { name: name.into(), id: id.into() }
    }

    fn pin(name: &str, id: &str) -> Pin {
        Pin { now: named(name, id), at: T, before: None, passed_over: None, refused: None }
    }

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
    fn the_first_use_takes_what_the_name_means_and_later_ones_use_that() {
        assert_eq!(choose("python:3.12", Some("a"), None, T), ImageChoice::Take("a".into()));
        assert_eq!(choose("python:3.12", None, None, T), ImageChoice::Missing);
        let pin = pin("python:3.12", "a");
        assert_eq!(choose("python:3.12", Some("a"), Some(&pin), T), ImageChoice::Pinned);
        assert_eq!(choose("python:3.12", Some("b"), Some(&pin), T), ImageChoice::Pinned, "a tag that moved");
        assert_eq!(choose("python:3.12", None, Some(&pin), T), ImageChoice::Pinned, "a tag that went");
    }

    #[test]
    fn only_the_default_image_follows_a_rebuild_and_not_back_to_what_was_passed_over() {
        let mut pin = pin(DEFAULT_IMAGE, "a");
        assert_eq!(choose(DEFAULT_IMAGE, Some("a"), Some(&pin), T), ImageChoice::Pinned);
        assert_eq!(choose(DEFAULT_IMAGE, Some("b"), Some(&pin), T), ImageChoice::Take("b".into()));
        assert_eq!(choose(DEFAULT_IMAGE, None, Some(&pin), T), ImageChoice::Pinned);
        pin.passed_over = Some("b".into());
        assert_eq!(choose(DEFAULT_IMAGE, Some("b"), Some(&pin), T), ImageChoice::Pinned);
        assert_eq!(choose(DEFAULT_IMAGE, Some("c"), Some(&pin), T), ImageChoice::Take("c".into()));
        assert!(
            is_followed("lazaret-agent:latest") && !is_followed("lazaret-agent:1") && !is_followed("debian")
        );
    }

    #[test]
    fn a_look_is_at_the_image_of_the_next_run() {
        let mut pinned = pin("busybox", "b");
        pinned.before = Some(named("python", "old"));
        assert_eq!(of_next_run("busybox", Some(&pinned)), "b", "whatever the name means by now");
        assert_eq!(of_next_run("python", Some(&pinned)), "old", "it is gone back to");
        assert_eq!(of_next_run("debian", Some(&pinned)), "debian");
        assert_eq!(of_next_run("debian", None), "debian");
        let mut followed = pin(DEFAULT_IMAGE, "a");
        assert_eq!(of_next_run(DEFAULT_IMAGE, Some(&followed)), DEFAULT_IMAGE, "it was built anew");
        followed.passed_over = Some("c".into());
        assert_eq!(of_next_run(DEFAULT_IMAGE, Some(&followed)), "a", "the owner has gone back");
    }

    #[test]
    fn another_name_is_taken_and_the_one_before_is_gone_back_to() {
        let mut pin = pin("busybox", "b");
        assert_eq!(choose("python", Some("p"), Some(&pin), T), ImageChoice::Take("p".into()));
        assert_eq!(choose("python", None, Some(&pin), T), ImageChoice::Missing);
        pin.before = Some(named("python", "old"));
        assert_eq!(
            choose("python", Some("p"), Some(&pin), T),
            ImageChoice::Back,
            "what it meant then, not now"
        );
    }

    #[test]
    fn what_was_not_taken_is_tried_again_after_a_while_or_when_it_is_another() {
        let mut pin = pin("busybox", "b");
        let refused =
            |id: &str| NotTaken { name: "bad".into(), id: Some(id.into()), why: "no".into(), at: T };
        pin.refused = Some(refused("x"));
        let at = |minutes: i64| WallMs(T.0 + minutes * 60_000);
        assert_eq!(choose("bad", Some("x"), Some(&pin), at(9)), ImageChoice::Kept);
        assert_eq!(choose("bad", Some("x"), Some(&pin), at(10)), ImageChoice::Take("x".into()));
        assert_eq!(choose("bad", Some("y"), Some(&pin), at(1)), ImageChoice::Take("y".into()));
        assert_eq!(choose("busybox", Some("b"), Some(&pin), at(1)), ImageChoice::Pinned);
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
        for bad in ["", "-rf", "a b", "a\nb", "../x", "a;b", "$(x)", "ä"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
