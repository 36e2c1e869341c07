//! The reasons why the host cannot start a box or cannot go on with one. `launch`, `ensure_posture`, `gateway_session`,
//! `adoption` and `after_box_cleanup` return it. The run's end stores it, and a notice tells the chat the reason.

use crate::domain::group_settings::Group;
use crate::domain::image::Named;
use crate::images::ImageError;
use crate::mailbox::MailboxError;
use crate::policy::mounts::MountError;
use crate::policy::sandbox_plan::PlanError;
use crate::sandbox::EngineError;
use crate::store::StoreError;

/// The host has no box, or no mailbox for it.
#[derive(Debug)]
pub struct LaunchError {
    pub code: &'static str,
    /// The reason with what to do, for a person.
    pub why: String,
    /// Whether the engine may still have the box.
    pub box_may_exist: bool,
}

impl LaunchError {
    pub(super) fn new(code: &'static str, why: impl ToString) -> Self {
        Self { code, why: why.to_string(), box_may_exist: false }
    }

    /// Turns an engine's error about making or starting a box into a launch error. Somebody may have removed an image
    /// or a mount of the settings between the check and the start; the error then names the setting.
    pub(super) fn of_engine(group: &Group, e: EngineError) -> Self {
        match e {
            EngineError::NoImage { .. } => {
                let image = Named { name: group.image.clone(), id: String::new() };
                ImageError::Gone { group: group.name.clone(), image }.into()
            }
            EngineError::NoMountSource { path, .. } if group.mounts.iter().any(|m| m.source == path) => {
                MountError::Gone { source_path: path }.into()
            }
            e => e.into(),
        }
    }
}

macro_rules! from_errors_with_codes {
    ($($error:ty),*) => {
        $(impl From<$error> for LaunchError {
            fn from(e: $error) -> Self {
                Self::new(e.code(), e)
            }
        })*
    };
}

from_errors_with_codes!(StoreError, EngineError, ImageError, MailboxError, MountError, PlanError);
