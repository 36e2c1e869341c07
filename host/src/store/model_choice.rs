//! The models that people have chosen for groups with `/model`.

use rusqlite::{OptionalExtension, params};

use super::{Result, Store, audit};
use crate::domain::{GroupName, WallMs};

impl Store {
    /// The provider and the model that were chosen for a group; `None` if its file decides.
    pub async fn model_choice(&self, group: GroupName) -> Result<Option<(String, String)>> {
        self.read(move |c| {
            let sql = "SELECT provider, model FROM model_choice WHERE grp = ?1 AND model <> ''";
            Ok(c.query_row(sql, [group.as_str()], |r| Ok((r.get(0)?, r.get(1)?))).optional()?)
        })
        .await
    }

    /// Chooses a model for a group. Without one the file decides again; the row stays, because a box that is older than
    /// the choice gets no further turn.
    pub async fn choose_model(
        &self,
        group: GroupName,
        model: Option<(String, String)>,
        by: String,
        now: WallMs,
    ) -> Result<()> {
        self.write(move |c| {
            let sql =
                "INSERT INTO model_choice(grp, provider, model, made_by, made_at) VALUES (?1, ?2, ?3, ?4, ?5)
                       ON CONFLICT(grp) DO UPDATE SET provider = ?2, model = ?3, made_by = ?4, made_at = ?5";
            let (provider, model) = model.unwrap_or_default();
            c.execute(sql, params![group.as_str(), provider, model, by, now.0])?;
            let what =
                if model.is_empty() { "of the file".to_owned() } else { format!("{provider}/{model}") };
            audit(c, now, &by, "model", &format!("{group}: {what}"))
        })
        .await
    }
}
