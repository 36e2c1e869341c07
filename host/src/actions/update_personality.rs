//! `update_personality`: replaces the `CLAUDE.md` of the asker's own group. Every group may ask.

use ipc_schema::requests::UpdatePersonality;
use serde_json::json;

use super::{Asker, Outcome};
use crate::config::personality_file::{self, ChangeError};
use crate::policy::authorize_request::Allowed;

pub(super) async fn perform(asker: &Asker<'_>, allowed: Allowed<UpdatePersonality>) -> Outcome {
    let (change, group) = allowed.into_parts();
    let services = asker.services;
    let path = services.install.root.personality(&group);
    let sha256 = match personality_file::replace(&path, &change.text, change.base_sha256.as_deref()) {
        Ok(sha256) => sha256,
        Err(e @ ChangeError::Conflict) => return Outcome::refused("personality.conflict", e.to_string()),
        Err(e @ (ChangeError::NothingToUndo | ChangeError::Io { .. })) => {
            return Outcome::refused("personality.io", e.to_string());
        }
    };
    let (now, detail) = (services.clock.wall(), format!("{group}: {sha256}"));
    if let Err(e) = services.store.audit(now, format!("agent:{group}"), "personality", detail).await {
        tracing::error!(run = %asker.run, code = e.code(), "the change was not audited: {e}");
    }
    Outcome::Done(json!({ "sha256": sha256 }))
}
