//! What a test sees of an install: chats, the database, letters and the groups' files. The waits return when it is
//! there.

use std::path::PathBuf;

use super::World;
use crate::telegram::Chat;

impl World {
    /// The next text that comes in a chat.
    ///
    /// # Panics
    /// When none comes in time.
    pub async fn hears(&self, chat: &Chat) -> String {
        self.soon(&format!("{} hears something", chat.address()), chat.hears()).await
    }

    /// Waits until everything that was said has its receipt. Telegram takes no id of ours: a host that is killed
    /// before that may say it again, and owns up to it.
    ///
    /// # Panics
    /// When it does not come in time.
    pub async fn delivered(&self) {
        let unsent = "SELECT count(*) FROM outbox WHERE state NOT IN ('sent', 'failed', 'expired')";
        let sent = async || {
            let database = self.database();
            database.query_row(unsent, [], |r| r.get::<_, i64>(0)).is_ok_and(|n| n == 0).then_some(())
        };
        self.patiently("everything said has its receipt", sent).await;
    }

    /// The install's database, read from outside.
    ///
    /// # Panics
    /// When it cannot be opened.
    pub fn database(&self) -> rusqlite::Connection {
        let path = self.root().join("state/lazaret.db");
        match rusqlite::Connection::open(&path) {
            Ok(database) => database,
            Err(e) => panic!("{}: {e}", path.display()),
        }
    }

    /// How many runs a group has had, by their letters.
    pub fn runs_of(&self, group: &str) -> usize {
        let letters = self.root().join("state/letters").join(group);
        std::fs::read_dir(letters).into_iter().flatten().count()
    }

    /// How many inputs the group's living run has been written.
    pub fn inputs(&self, group: &str) -> usize {
        let runs =
            std::fs::read_dir(self.root().join("state/ipc").join(group)).into_iter().flatten().flatten();
        // What the agent has settled is gone from the letter box; the copies stay.
        let copies = self.root().join("state/letters").join(group);
        let letters = runs.flat_map(|run| {
            std::fs::read_dir(copies.join(run.file_name()).join("to-agent")).into_iter().flatten()
        });
        letters.flatten().filter(|l| l.file_name().to_string_lossy().ends_with("-input.json")).count()
    }

    /// Waits until there are so many.
    ///
    /// # Panics
    /// When that does not come in time.
    pub async fn given(&self, group: &str, inputs: usize) {
        let written = async || (self.inputs(group) >= inputs).then_some(());
        self.patiently(&format!("{group} is given {inputs} inputs"), written).await;
    }

    /// A file in a group's workspace.
    pub fn in_workspace(&self, group: &str, name: &str) -> PathBuf {
        self.root().join("state/workspaces").join(group).join(name)
    }

    /// Waits until a command in a box has made this file in its workspace.
    ///
    /// # Panics
    /// When it does not in time.
    pub async fn made_in_workspace(&self, group: &str, name: &str) {
        let path = self.in_workspace(group, name);
        self.patiently(&format!("the box has made {name}"), async || path.exists().then_some(())).await;
    }
}
