//! `send_file`: out of the workspace into the spool, and into the chat's queue with the verdict.

use ipc_schema::letters::request::SendFile;
use ipc_schema::letters::to_agent::Verdict;
use ipc_schema::{LetterId, TurnId};
use serde_json::json;

use super::Run;
use crate::domain::outbound::{OutgoingText, SpooledFile, Voice};
use crate::policy::authorize::Allowed;
use crate::spool::Spool;
use crate::text;

/// Files that one turn may send.
const FILES: u64 = 20;
/// How many times the largest file all of them may have together.
const LARGEST: u64 = 5;

/// A file that goes out with its verdict.
pub(super) type Enclosed = (OutgoingText, SpooledFile);

impl Run {
    /// Copies the file, or says why not. Nothing is sent before the verdict is stored: a host that dies until then does
    /// this again, with the file as it is by then.
    pub(super) async fn send_file(
        &self,
        turn: TurnId,
        id: &LetterId,
        allowed: Allowed<SendFile>,
    ) -> Result<(Verdict, Enclosed), Verdict> {
        let refused = |code: &str, reason: String| Verdict::Refused { code: code.to_owned(), reason };
        let (ask, group) = allowed.into_parts();
        let Some((channel, chat)) = self.channel() else {
            return Err(refused("chat.away", "the chat cannot be reached now; try it again later".into()));
        };
        if !channel.takes_files() {
            let reason =
                "this chat takes no files; say in words what matters, or where the file is".to_owned();
            return Err(refused("file.unsupported", reason));
        }
        let most = self.services.install.file.host.attachment_bytes();
        let sent = match self.services.store.files_sent(turn).await {
            Ok(sent) => sent,
            Err(e) => return Err(refused(e.code(), "the host's store failed; try it again later".into())),
        };
        let left = most.saturating_mul(LARGEST).saturating_sub(sent.bytes);
        if sent.files >= FILES || left == 0 {
            let reason = format!(
                "this turn has sent {} files with {} MiB; at most {FILES} and {} MiB. Put the rest into one archive, in the next turn",
                sent.files,
                sent.bytes >> 20,
                most.saturating_mul(LARGEST) >> 20,
            );
            return Err(refused("file.rate", reason));
        }
        let root = &self.services.install.root;
        let (spool, workspace) = (Spool::at(root.spool()), root.workspace(&group));
        let (path, name) = (ask.path.clone(), text::file_name(ask.name.as_deref().unwrap_or(&ask.path)));
        let taken = tokio::task::spawn_blocking(move || spool.take(&workspace, &path, most.min(left))).await;
        let copied = match taken {
            Ok(Ok(copied)) => copied,
            Ok(Err(e)) => return Err(refused(e.code(), e.to_string())),
            Err(_) => return Err(refused("file.io", "the host failed while it copied the file".into())),
        };
        let result = json!({ "sha256": copied.sha256, "bytes": copied.bytes });
        let caption = ask.caption.unwrap_or_default().trim().to_owned();
        let outgoing = OutgoingText {
            chat,
            voice: Voice::Reply,
            key: id.to_string(),
            parts: vec![caption],
            answers: None,
        };
        let file = SpooledFile { sha256: copied.sha256, name, bytes: copied.bytes };
        Ok((Verdict::Ok { result }, (outgoing, file)))
    }
}
