//! Observes an install: chats, the database, letters and the groups' files. Most methods wait until their result
//! exists.

use std::path::PathBuf;

use super::World;
use crate::telegram::Chat;

impl World {
    /// Waits for the next text in a chat.
    pub async fn hears(&self, chat: &Chat) -> String {
        self.soon(&format!("{} hears something", chat.address()), chat.hears()).await
    }

    /// Waits until every sent text has its receipt. Telegram accepts no message id of the host. A host that is killed
    /// before it stored the receipt may send the text again, and counts it as uncertain.
    pub async fn delivered(&self) {
        let unsent = "SELECT count(*) FROM outbox WHERE state NOT IN ('sent', 'failed', 'expired')";
        let sent = async || {
            let database = self.database();
            database.query_row(unsent, [], |r| r.get::<_, i64>(0)).is_ok_and(|n| n == 0).then_some(())
        };
        self.patiently("everything said has its receipt", sent).await;
    }

    /// Opens the install's database.
    pub fn database(&self) -> rusqlite::Connection {
        let path = self.root().join("state/lazaret.db");
        match rusqlite::Connection::open(&path) {
            Ok(database) => database,
            Err(e) => panic!("{}: {e}", path.display()),
        }
    }

    /// Returns the folder of a group's session with this number, which has had a run. Its transcript is the file of the
    /// folder's name with `.jsonl`.
    pub fn session(&self, group: &str, number: u32) -> PathBuf {
        let sql = "SELECT session FROM run WHERE grp = ?1 AND session LIKE 'conversation-' || ?2 || '-%'";
        match self.database().query_row(sql, rusqlite::params![group, number], |r| r.get::<_, String>(0)) {
            Ok(name) => self.root().join("state/sessions").join(group).join(name),
            Err(e) => panic!("session {number} of {group}: {e}"),
        }
    }

    /// Returns how many runs a group has had, by their letter folders.
    pub fn runs_of(&self, group: &str) -> usize {
        let letters = self.root().join("state/letters").join(group);
        std::fs::read_dir(letters).into_iter().flatten().count()
    }

    /// Returns how many inputs the host has written for the group's living run.
    pub fn inputs(&self, group: &str) -> usize {
        let runs =
            std::fs::read_dir(self.root().join("state/ipc").join(group)).into_iter().flatten().flatten();
        // The host removes acknowledged letters from the mailbox, so this counts the copies.
        let copies = self.root().join("state/letters").join(group);
        let letters = runs.flat_map(|run| {
            std::fs::read_dir(copies.join(run.file_name()).join("to-agent")).into_iter().flatten()
        });
        letters.flatten().filter(|l| l.file_name().to_string_lossy().ends_with("-input.json")).count()
    }

    /// Waits until the group's living run has been written this number of inputs.
    pub async fn given(&self, group: &str, inputs: usize) {
        let written = async || (self.inputs(group) >= inputs).then_some(());
        self.patiently(&format!("{group} is given {inputs} inputs"), written).await;
    }

    /// Returns the path of a file in a group's workspace.
    pub fn in_workspace(&self, group: &str, name: &str) -> PathBuf {
        self.root().join("state/workspaces").join(group).join(name)
    }

    /// Waits until a command in a box has created this file in its workspace.
    pub async fn made_in_workspace(&self, group: &str, name: &str) {
        let path = self.in_workspace(group, name);
        self.patiently(&format!("the box has made {name}"), async || path.exists().then_some(())).await;
    }
}
