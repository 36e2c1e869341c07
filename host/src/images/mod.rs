//! Which image a group's boxes are made of: looked up, checked, pinned by its id, and kept until another one passes.
//!
//! `policy::image_selection` holds the rule. A run never fetches an image: it uses what the engine has, and what it has
//! not is refused with the command that fetches it.

mod check;
mod recipe;

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::config::Root;
use crate::domain::GroupName;
use crate::domain::image::{Named, NotTaken, Pin};
use crate::policy::image_selection::{ImageAbout, ImageCheck, ImageChoice, choose, is_followed};
use crate::policy::sandbox_plan::ImageFacts;
use crate::sandbox::{Engine, EngineError};
use crate::store::{Store, StoreError};
pub use check::sweep;
pub use recipe::{BASE, Built, packages, recipe};

/// A pull over a slow line.
pub const FETCH_WITHIN: Duration = Duration::from_secs(30 * 60);

/// Why a run has no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is pinned is not there any more. The name may mean anything by now: a person decides.
    #[error(
        "the image {} of group {group} is gone from this machine; \
         `lazaret image set {group} {}` takes what that name means now", image.shown(), image.name
    )]
    Gone {
        /// Whose.
        group: GroupName,
        /// What.
        image: Named,
    },
    /// It does not pass the check.
    #[error("{why}")]
    Unfit {
        /// The machine's word.
        code: &'static str,
        /// What was found.
        why: String,
    },
    /// The check could not be carried out.
    #[error("the image could not be checked: {path}: {why}")]
    Check {
        /// Which file.
        path: String,
        /// What the system said.
        why: String,
    },
}

impl ImageError {
    /// The machine's word.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Engine(e) => e.code(),
            Self::Store(e) => e.code(),
            Self::Gone { .. } => "image.gone",
            Self::Unfit { code, .. } => code,
            Self::Check { .. } => "image.check",
        }
    }
}

/// What a run is made of.
#[derive(Debug, Clone)]
pub struct ForRun {
    /// The image.
    pub facts: ImageFacts,
    /// News for the chat: another image was named and not taken.
    pub kept: Option<Kept>,
}

/// An image that stays in the place of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// What was named.
    pub name: String,
    /// Why it was not taken.
    pub why: String,
    /// What serves.
    pub serves: String,
}

/// Looks images up, checks and pins them.
#[derive(Debug)]
pub struct Images {
    engine: Engine,
    store: Store,
    clock: Clock,
    place: Place,
    /// One check at a time: the second run of an image that everybody waits for finds it checked.
    checking: Mutex<()>,
}

/// What a check needs of the install.
#[derive(Debug, Clone)]
pub struct Place {
    /// Where the install lies.
    pub root: Root,
    /// Its id.
    pub install: String,
    /// The group that host and boxes share.
    pub gid: u32,
    /// The runner's digest.
    pub runner: String,
    /// The folder of the runner.
    pub runner_dir: PathBuf,
}

impl Images {
    /// Images of an install.
    pub fn new(engine: Engine, store: Store, clock: Clock, place: Place) -> Self {
        Self { engine, store, clock, place, checking: Mutex::default() }
    }

    /// The image of a group's next run, whose settings name `wanted`.
    ///
    /// # Errors
    /// When there is none that serves: nothing was ever pinned and what is named is missing or does not pass, or what
    /// is pinned is gone.
    pub async fn for_run(&self, group: &GroupName, wanted: &str) -> Result<ForRun, ImageError> {
        let pin = self.store.pin(group).await?;
        let settled = pin.as_ref().is_some_and(|pin| pin.now.name == wanted) && !is_followed(wanted);
        // A name that is settled is not looked up: its meaning is the pin's.
        let found = if settled { None } else { self.found(wanted).await? };
        let id = found.as_ref().map(|about| about.facts.id.as_str());
        let choice = choose(wanted, id, pin.as_ref(), self.clock.wall());
        match (choice, pin, found) {
            (ImageChoice::Pinned | ImageChoice::Kept, Some(pin), _) => self.pinned(group, &pin.now).await,
            (ImageChoice::Back, Some(Pin { before: Some(before), .. }), _) => {
                let run = self.pinned(group, &before).await?;
                self.store.roll_back_pin(group, before, "group.toml", self.clock.wall()).await?;
                Ok(run)
            }
            (ImageChoice::Take(_), pin, Some(about)) => self.take(group, wanted, about, pin).await,
            (_, Some(pin), _) => {
                let missing = EngineError::NoImage { image: wanted.to_owned() };
                self.keep(group, wanted, None, missing.to_string(), &pin.now).await
            }
            (_, None, _) => Err(EngineError::NoImage { image: wanted.to_owned() }.into()),
        }
    }

    async fn found(&self, name: &str) -> Result<Option<ImageAbout>, ImageError> {
        match self.engine.about_image(name).await {
            Ok(about) => Ok(Some(about)),
            Err(EngineError::NoImage { .. }) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    async fn pinned(&self, group: &GroupName, image: &Named) -> Result<ForRun, ImageError> {
        match self.engine.image(&image.id).await {
            Ok(facts) => Ok(ForRun { facts, kept: None }),
            Err(EngineError::NoImage { .. }) => {
                Err(ImageError::Gone { group: group.clone(), image: image.clone() })
            }
            Err(e) => Err(e.into()),
        }
    }

    async fn take(
        &self,
        group: &GroupName,
        wanted: &str,
        about: ImageAbout,
        pin: Option<Pin>,
    ) -> Result<ForRun, ImageError> {
        let verdict = self.passed(&about).await?;
        let Some(broken) = verdict.broken() else {
            let to = Named { name: wanted.to_owned(), id: about.facts.id.clone() };
            tracing::info!(%group, image = %to.shown(), "the image passed the check and is pinned");
            self.store.pin_image(group, to, "group.toml", self.clock.wall()).await?;
            return Ok(ForRun { facts: about.facts, kept: None });
        };
        match pin {
            Some(pin) => self.keep(group, wanted, Some(about.facts.id), broken.told.clone(), &pin.now).await,
            None => Err(ImageError::Unfit { code: broken.what, why: broken.told.clone() }),
        }
    }

    /// Goes on with what serves. The reason is told once, kept in the pin for `status`, and logged.
    async fn keep(
        &self,
        group: &GroupName,
        wanted: &str,
        id: Option<String>,
        why: String,
        serves: &Named,
    ) -> Result<ForRun, ImageError> {
        let run = self.pinned(group, serves).await?;
        let serves = serves.shown();
        tracing::warn!(%group, code = "image.kept", "{wanted} is not taken, {serves} goes on: {why}");
        let refused = NotTaken { name: wanted.to_owned(), id, why: why.clone(), at: self.clock.wall() };
        let news = self.store.image_refused(group, refused).await?;
        let kept = news.then(|| Kept { name: wanted.to_owned(), why, serves });
        Ok(ForRun { kept, ..run })
    }

    /// The verdict on an image; one that has passed with this runner is not tried again.
    async fn passed(&self, about: &ImageAbout) -> Result<ImageCheck, ImageError> {
        let _one = self.checking.lock().await;
        let known = self.store.image_offers(&about.facts.id, &self.place.runner).await?;
        // An answer that cannot be read any more was another version's.
        if let Some(offers) = known.and_then(|json| serde_json::from_str(&json).ok()) {
            return Ok(ImageCheck::of(about, offers));
        }
        self.check(about).await
    }
}
