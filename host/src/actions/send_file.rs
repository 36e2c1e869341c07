//! `send_file`: copies a file of the workspace into the spool and queues it for the chat of the turn. Every group may
//! ask.

use ipc_schema::requests::SendFile;
use serde_json::json;

use super::{Asker, Outcome};
use crate::domain::outbound::{OutgoingText, PartText, SpooledFile, Voice};
use crate::host_files;
use crate::policy::authorize_request::Allowed;
use crate::spool::Spool;
use crate::text;

/// Copies the file, or says why not. Nothing is sent before the verdict is stored: a host that dies until then copies
/// the file again, as it is by then.
pub(super) async fn perform(asker: &Asker<'_>, allowed: Allowed<SendFile>) -> Outcome {
    let (ask, group) = allowed.into_parts();
    let services = asker.services;
    let Some((channel, chat)) = asker.chat.clone() else {
        return Outcome::refused("chat.away", "the chat cannot be reached now; try it again later");
    };
    if !channel.takes_files() {
        let reason = "this chat takes no files; say in words what matters, or where the file is";
        return Outcome::refused("file.unsupported", reason);
    }
    let sent = match services.store.files_sent(asker.turn).await {
        Ok(sent) => sent,
        Err(e) => return Outcome::refused(e.code(), "the host's store failed; try it again later"),
    };
    let largest = services.install.file.host.attachment_bytes();
    let (files, bytes) = (SendFile::FILES_PER_TURN, largest.saturating_mul(SendFile::LARGEST_FILES_PER_TURN));
    let left = bytes.saturating_sub(sent.bytes);
    if sent.files >= files || left == 0 {
        let reason = format!(
            "this turn has sent {} files with {} MiB; at most {files} and {} MiB. Put the rest into one archive, in the next turn",
            sent.files,
            sent.bytes >> 20,
            bytes >> 20,
        );
        return Outcome::refused("file.rate", reason);
    }
    let root = &services.install.root;
    let (spool, workspace) = (Spool::at(root.spool()), root.workspace(&group));
    let name = text::file_name(ask.name.as_deref().unwrap_or(&ask.path));
    let path = ask.path;
    let taken = host_files::blocking(move || spool.take(&workspace, &path, largest.min(left))).await;
    let copied = match taken {
        Ok(copied) => copied,
        Err(e) => return Outcome::refused(e.code(), e.to_string()),
    };
    let result = json!({ "sha256": copied.sha256, "bytes": copied.bytes });
    let caption = ask.caption.unwrap_or_default();
    let caption = text::without_internal(&caption).trim().to_owned();
    let key = asker.id.to_string();
    let file = Some(Box::new(SpooledFile { sha256: copied.sha256, name, bytes: copied.bytes }));
    // Words that the platform does not take below the file follow it.
    let parts = if channel.takes_caption(&caption) {
        vec![PartText { text: caption, markup: None, file }]
    } else {
        std::iter::once(PartText { file, ..PartText::default() }).chain(channel.split(&caption)).collect()
    };
    Outcome::File(
        result,
        OutgoingText { chat, voice: Voice::Reply, key, parts, answers: None, choices: None },
    )
}
