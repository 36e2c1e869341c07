//! Removes and counts files of the box that are no valid letters.

use std::collections::BTreeMap;

use super::Run;
use crate::mailbox::RefusedFile;

impl Run {
    /// Removes and counts files whose name has no number. A box makes such names faster than a disk commits, so a pass
    /// costs one transaction per code.
    pub(super) async fn sweep_out(&mut self, refused: &[RefusedFile]) {
        let mut codes: BTreeMap<&'static str, u64> = BTreeMap::new();
        for r in refused {
            self.tell_refused(r);
            *codes.entry(r.refusal.code.as_str()).or_default() += 1;
            self.mailbox.done(&r.name);
        }
        for (code, count) in codes {
            if let Err(e) = self.services.store.count(code, count).await {
                tracing::warn!(run = %self.handle.run, code = e.code(), "refusals were not counted: {e}");
            }
        }
    }

    /// Marks the number of a refused letter as used.
    pub(super) async fn pass_over(&mut self, n: u64, r: &RefusedFile) {
        self.tell_refused(r);
        if let Err(e) = self.services.store.pass_over(self.handle.run.clone(), n, r.refusal.code).await {
            tracing::warn!(run = %self.handle.run, code = e.code(), "the refusal was not counted: {e}");
        }
        self.mailbox.done(&r.name);
    }

    fn tell_refused(&self, r: &RefusedFile) {
        let shown = ipc_schema::refusal::quote(&r.name.to_string_lossy(), 80);
        let code = r.refusal.code.as_str();
        tracing::warn!(run = %self.handle.run, code, "{shown} refused: {}", r.refusal.reason);
    }
}
