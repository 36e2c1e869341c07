//! Chooses the image of a group's boxes: looks it up, checks it, and pins its id until another one passes the check.
//!
//! `run` asks for the image of each run, and `cli` sets and builds images. `policy::image_selection` decides. A run
//! never fetches an image: it uses one that the engine has, or is refused with the command that fetches it.

mod check;
mod recipe;

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::config::Root;
use crate::domain::GroupName;
use crate::domain::image::{Named, NotTaken, Pin};
use crate::policy::image_selection::{ImageChoice, choose, is_followed};
use crate::policy::image_verdict::{ImageAbout, ImageCheck};
use crate::policy::sandbox_plan::ImageFacts;
use crate::sandbox::{Engine, EngineError};
use crate::store::{Store, StoreError};
pub use check::sweep;
pub use recipe::{BASE, DefaultImage, packages, recipe};

/// A pull over a slow line.
pub const FETCH_WITHIN: Duration = Duration::from_secs(30 * 60);

/// Why a run has no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The pinned image was removed. Its name may mean another image now, so a person decides.
    #[error(
        "the image {} of group {group} is gone from this machine; \
         `lazaret image set {group} {}` takes what that name means now", image.shown(), image.name
    )]
    Gone { group: GroupName, image: Named },
    #[error("{why}")]
    Unfit { code: &'static str, why: String },
    #[error("the image could not be checked: {path}: {why}")]
    Check { path: String, why: String },
}

impl ImageError {
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

/// The image of a run.
#[derive(Debug, Clone)]
pub struct RunImage {
    pub facts: ImageFacts,
    /// News for the chat: the settings name another image, which was not taken.
    pub kept: Option<KeptImage>,
}

/// A pinned image that stays because another was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptImage {
    /// The image that the settings name.
    pub name: String,
    pub why: String,
    pub serves: String,
}

/// Looks images up, checks and pins them.
#[derive(Debug)]
pub struct Images {
    engine: Engine,
    store: Store,
    clock: Clock,
    context: CheckContext,
    /// One check at a time: a second run that waits for the same image finds it checked.
    checking: Mutex<()>,
}

/// What a check needs to know of the install.
#[derive(Debug, Clone)]
pub struct CheckContext {
    pub root: Root,
    pub install: String,
    /// The Unix group that host and boxes share.
    pub gid: u32,
    pub runner: String,
    pub runner_dir: PathBuf,
}

impl Images {
    pub fn new(engine: Engine, store: Store, clock: Clock, context: CheckContext) -> Self {
        Self { engine, store, clock, context, checking: Mutex::default() }
    }

    /// The image of a group's next run, whose settings name `wanted`.
    ///
    /// # Errors
    /// When no image can be used: the pinned one is gone, or none was pinned and the named one is missing or fails the
    /// check.
    pub async fn for_run(&self, group: &GroupName, wanted: &str) -> Result<RunImage, ImageError> {
        let pin = self.store.pin(group).await?;
        let is_pinned = pin.as_ref().is_some_and(|pin| pin.now.name == wanted) && !is_followed(wanted);
        // A pinned name is not looked up: it means the pinned id.
        let named = if is_pinned { None } else { self.look_up(wanted).await? };
        let id = named.as_ref().map(|about| about.facts.id.as_str());
        let choice = choose(wanted, id, pin.as_ref(), self.clock.wall());
        match (choice, pin, named) {
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

    async fn look_up(&self, name: &str) -> Result<Option<ImageAbout>, ImageError> {
        match self.engine.about_image(name).await {
            Ok(about) => Ok(Some(about)),
            Err(EngineError::NoImage { .. }) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    async fn pinned(&self, group: &GroupName, image: &Named) -> Result<RunImage, ImageError> {
        match self.engine.image(&image.id).await {
            Ok(facts) => Ok(RunImage { facts, kept: None }),
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
    ) -> Result<RunImage, ImageError> {
        let check = self.checked(&about).await?;
        let Some(broken) = check.broken() else {
            let to = Named { name: wanted.to_owned(), id: about.facts.id.clone() };
            tracing::info!(%group, image = %to.shown(), "the image passed the check and is pinned");
            self.store.pin_image(group, to, "group.toml", self.clock.wall()).await?;
            return Ok(RunImage { facts: about.facts, kept: None });
        };
        match pin {
            Some(pin) => self.keep(group, wanted, Some(about.facts.id), broken.told.clone(), &pin.now).await,
            None => Err(ImageError::Unfit { code: broken.what, why: broken.told.clone() }),
        }
    }

    /// Goes on with the pinned image. The chat is told the reason once; the pin keeps it for `status`, and it is
    /// logged.
    async fn keep(
        &self,
        group: &GroupName,
        wanted: &str,
        id: Option<String>,
        why: String,
        serves: &Named,
    ) -> Result<RunImage, ImageError> {
        let run = self.pinned(group, serves).await?;
        let serves = serves.shown();
        tracing::warn!(%group, code = "image.kept", "{wanted} is not taken, {serves} goes on: {why}");
        let refused = NotTaken { name: wanted.to_owned(), id, why: why.clone(), at: self.clock.wall() };
        let news = self.store.image_refused(group, refused).await?;
        let kept = news.then(|| KeptImage { name: wanted.to_owned(), why, serves });
        Ok(RunImage { kept, ..run })
    }

    /// Checks an image. One that has passed with this runner before is not run again.
    async fn checked(&self, about: &ImageAbout) -> Result<ImageCheck, ImageError> {
        let _one = self.checking.lock().await;
        let known = self.store.image_offers(&about.facts.id, &self.context.runner).await?;
        // A stored inventory that cannot be parsed was written by another version.
        if let Some(offers) = known.and_then(|json| serde_json::from_str(&json).ok()) {
            return Ok(ImageCheck::of(about, offers));
        }
        self.check(about).await
    }
}
