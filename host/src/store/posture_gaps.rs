//! What a group's boxes lack of the posture, as the last probe found it: the owner has accepted it, the runtime loses
//! it by its nature, or it is only named.

use rusqlite::params;

use super::{Result, Store};
use crate::domain::{GroupName, WallMs};

/// A line of the posture that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The line.
    pub name: String,
    /// `accepted`, `runtime` or `named`.
    pub why: String,
    /// What was asked for.
    pub expected: String,
    /// What was found.
    pub seen: String,
    /// What to do about it.
    pub fix: String,
}

impl Store {
    /// Puts what a probe found in place of what the last one did.
    pub async fn note_losses(&self, group: &GroupName, losses: Vec<Loss>, now: WallMs) -> Result<()> {
        let group = group.to_string();
        self.write(move |c| {
            c.execute("DELETE FROM loss WHERE grp = ?1", [&group])?;
            let mut row = c.prepare("INSERT INTO loss VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
            for loss in &losses {
                row.execute(params![group, loss.name, loss.why, loss.expected, loss.seen, loss.fix, now.0])?;
            }
            Ok(())
        })
        .await
    }

    /// Every group's.
    pub async fn losses(&self) -> Result<Vec<(String, Loss)>> {
        self.read(|c| {
            let mut rows =
                c.prepare("SELECT grp, name, why, expected, seen, fix FROM loss ORDER BY grp, name")?;
            let rows = rows.query_map([], |r| {
                let loss = Loss {
                    name: r.get(1)?,
                    why: r.get(2)?,
                    expected: r.get(3)?,
                    seen: r.get(4)?,
                    fix: r.get(5)?,
                };
                Ok((r.get(0)?, loss))
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_probe_of_a_group_counts() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("lazaret.db")).unwrap();
        let loss = |name: &str| Loss {
            name: name.into(),
            why: "accepted".into(),
            expected: "1 GiB".into(),
            seen: "no limit".into(),
            fix: "mend it".into(),
        };
        let (main, family): (GroupName, GroupName) = (GroupName::main(), "family".parse().unwrap());
        for group in [&main, &family] {
            store.group(group, WallMs(1)).await.unwrap();
            store.note_losses(group, vec![loss("memory-limit"), loss("seccomp")], WallMs(1)).await.unwrap();
        }
        store.note_losses(&main, vec![loss("seccomp")], WallMs(2)).await.unwrap();
        let names: Vec<_> = store
            .losses()
            .await
            .unwrap()
            .into_iter()
            .map(|(group, loss)| format!("{group} {}", loss.name))
            .collect();
        assert_eq!(names, ["family memory-limit", "family seccomp", "main seccomp"]);
    }
}
