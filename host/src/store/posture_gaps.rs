//! The lines of the posture that a group's boxes lack, as the last probe found them. `run` stores them; `status` and
//! `doctor` show them.

use rusqlite::params;

use super::{Result, Store};
use crate::domain::{GroupName, WallMs};

/// A line of the posture that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostureGap {
    pub name: String,
    /// Why runs start all the same: `accepted` by the owner, `runtime` (this container runtime cannot hold it), or
    /// `named` (it is only reported).
    pub why: String,
    pub expected: String,
    /// The value that the probe found.
    pub seen: String,
    /// How to close the gap.
    pub fix: String,
}

impl Store {
    /// Replaces the group's gaps with those of its newest probe.
    pub async fn set_posture_gaps(
        &self,
        group: &GroupName,
        gaps: Vec<PostureGap>,
        now: WallMs,
    ) -> Result<()> {
        let group = group.to_string();
        self.write(move |c| {
            c.execute("DELETE FROM loss WHERE grp = ?1", [&group])?;
            let mut row = c.prepare("INSERT INTO loss VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
            for gap in &gaps {
                row.execute(params![group, gap.name, gap.why, gap.expected, gap.seen, gap.fix, now.0])?;
            }
            Ok(())
        })
        .await
    }

    /// The gaps of every group.
    pub async fn posture_gaps(&self) -> Result<Vec<(String, PostureGap)>> {
        self.read(|c| {
            let mut rows =
                c.prepare("SELECT grp, name, why, expected, seen, fix FROM loss ORDER BY grp, name")?;
            let rows = rows.query_map([], |r| {
                let gap = PostureGap {
                    name: r.get(1)?,
                    why: r.get(2)?,
                    expected: r.get(3)?,
                    seen: r.get(4)?,
                    fix: r.get(5)?,
                };
                Ok((r.get(0)?, gap))
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
        let gap = |name: &str| PostureGap {
            name: name.into(),
            why: "accepted".into(),
            expected: "1 GiB".into(),
            seen: "no limit".into(),
            fix: "mend it".into(),
        };
        let (main, family): (GroupName, GroupName) = (GroupName::main(), "family".parse().unwrap());
        for group in [&main, &family] {
            store.group(group, WallMs(1)).await.unwrap();
            store
                .set_posture_gaps(group, vec![gap("memory-limit"), gap("seccomp")], WallMs(1))
                .await
                .unwrap();
        }
        store.set_posture_gaps(&main, vec![gap("seccomp")], WallMs(2)).await.unwrap();
        let names: Vec<_> = store
            .posture_gaps()
            .await
            .unwrap()
            .into_iter()
            .map(|(group, gap)| format!("{group} {}", gap.name))
            .collect();
        assert_eq!(names, ["family memory-limit", "family seccomp", "main seccomp"]);
    }
}
