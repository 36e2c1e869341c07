//! Decides which image a run uses. The run, `images` and the command line call it.
//!
//! The host looks a name up and checks its image once. From then on the group's runs use that image by its id. The
//! image changes if the settings name another one or if the operator runs `lazaret image set`. The default image also
//! changes when it is rebuilt: it is built on this machine, and upgrades reach it by a rebuild. A pulled name keeps
//! its image, because whoever can move a tag in a registry must not change what agents run in. If an image fails its
//! check, the group keeps the image that it has.

use std::time::Duration;

use crate::domain::WallMs;
use crate::domain::image::{DEFAULT_IMAGE, Named, NotTaken, Pin};

/// The host checks a refused image again after this.
const AGAIN: Duration = Duration::from_secs(600);

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

/// What a rollback does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rollback<'a> {
    /// The group's last change named an image that its runs never took. The group stays with the pinned one.
    Stays {
        never_taken: &'a str,
    },
    To(&'a Named),
    /// The group has used no other image.
    Nowhere,
}

/// Decides what a rollback undoes: a change that was not taken, else the last pin.
pub fn roll_back<'a>(wanted: &'a str, pin: &'a Pin) -> Rollback<'a> {
    if wanted != pin.now.name {
        return Rollback::Stays { never_taken: wanted };
    }
    // Nobody named a rebuild of the default image.
    let named = |refused: &&NotTaken| refused.name != wanted || !is_followed(wanted);
    match (pin.refused.as_ref().filter(named), &pin.before) {
        (Some(refused), _) => Rollback::Stays { never_taken: &refused.name },
        (None, Some(before)) => Rollback::To(before),
        (None, None) => Rollback::Nowhere,
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

#[cfg(test)]
mod tests {
    use super::*;

    const T: WallMs = WallMs(1_795_000_000_000);

    fn named(name: &str, id: &str) -> Named {
        Named { name: name.into(), id: id.into() }
    }

    fn pin(name: &str, id: &str) -> Pin {
        Pin { now: named(name, id), at: T, before: None, passed_over: None, refused: None }
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
    fn a_rollback_undoes_a_mistyped_name_before_it_undoes_an_image() {
        let mut pin = pin("busybox", "b");
        assert_eq!(roll_back("busybox", &pin), Rollback::Nowhere);
        pin.before = Some(named("python", "old"));
        assert_eq!(roll_back("busybox", &pin), Rollback::To(&named("python", "old")));
        assert_eq!(
            roll_back("busybxo", &pin),
            Rollback::Stays { never_taken: "busybxo" },
            "no run has read it yet"
        );
        pin.refused = Some(NotTaken { name: "busybxo".into(), id: None, why: "no".into(), at: T });
        assert_eq!(
            roll_back("busybox", &pin),
            Rollback::Stays { never_taken: "busybxo" },
            "a run or a command has"
        );
        let rebuild =
            |name: &str| NotTaken { name: name.into(), id: Some("c".into()), why: "no".into(), at: T };
        pin.refused = Some(rebuild("busybox"));
        assert_eq!(roll_back("busybox", &pin), Rollback::Stays { never_taken: "busybox" }, "its tag moved");
        pin.now.name = DEFAULT_IMAGE.into();
        pin.refused = Some(rebuild(DEFAULT_IMAGE));
        assert_eq!(roll_back(DEFAULT_IMAGE, &pin), Rollback::To(&named("python", "old")));
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
}
