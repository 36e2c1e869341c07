//! The image of each group's boxes, pinned by id, and the images that have passed the check. `images` and `run` call
//! it.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::audit;
use super::{Result, Store, StoreError, parse};
use crate::domain::image::{Named, NotTaken, Pin};
use crate::domain::{GroupName, WallMs};

const COLUMNS: &str = "grp, name, image, pinned_at, before_name, before_image, passed_over,
                       refused_name, refused_image, refused_why, refused_at";

impl Store {
    /// The group's pin. `None` before its first run.
    pub async fn pin(&self, group: &GroupName) -> Result<Option<Pin>> {
        let group = group.clone();
        self.read(move |c| read(c, &group)).await
    }

    /// The pins of all groups.
    pub async fn pins(&self) -> Result<Vec<(GroupName, Pin)>> {
        self.read(|c| {
            let mut rows = c.prepare(&format!("SELECT {COLUMNS} FROM pin ORDER BY grp"))?;
            let rows = rows.query_map([], |r| Ok((r.get::<_, String>(0)?, pin_of(r)?)))?;
            rows.map(|row| {
                let (group, pin) = row?;
                Ok((parse("pin.grp", &group)?, pin))
            })
            .collect()
        })
        .await
    }

    /// Pins an image for the group's next runs and remembers the present one for a rollback. If the image is pinned
    /// already, only its name changes. Both forget the refused image.
    pub async fn pin_image(&self, group: &GroupName, to: Named, by: &'static str, now: WallMs) -> Result<()> {
        let group = group.clone();
        self.write(move |c| {
            let known = read(c, &group)?;
            if known.as_ref().is_some_and(|pin| pin.now.id == to.id) {
                let sql =
                    "UPDATE pin SET name = ?2, refused_name = NULL, refused_image = NULL, refused_why = NULL,
                                          refused_at = NULL WHERE grp = ?1";
                c.execute(sql, params![group.as_str(), to.name])?;
                return Ok(());
            }
            put(c, &group, &to, known.map(|pin| pin.now), None, now)?;
            audit(c, now, by, "image", &format!("{group}: {}", to.shown()))
        })
        .await
    }

    /// Rolls back to the previous image if that is still `to`, and remembers the present one, so that a rollback can be
    /// undone. Returns false and changes nothing if the previous image is another one by now.
    pub async fn roll_back_pin(
        &self,
        group: &GroupName,
        to: Named,
        by: &'static str,
        now: WallMs,
    ) -> Result<bool> {
        let group = group.clone();
        self.write(move |c| {
            let Some(pin) = read(c, &group)? else { return Ok(false) };
            if pin.before.as_ref() != Some(&to) {
                return Ok(pin.now == to);
            }
            let from = pin.now;
            put(c, &group, &to, Some(from.clone()), Some(&from.id), now)?;
            audit(c, now, by, "image back", &format!("{group}: {}", to.shown()))?;
            Ok(true)
        })
        .await
    }

    /// Records an image that was refused. Returns whether it is another one than the last.
    pub async fn image_refused(&self, group: &GroupName, refused: NotTaken) -> Result<bool> {
        let group = group.clone();
        self.write(move |c| {
            let known = read(c, &group)?.and_then(|pin| pin.refused);
            let sql =
                "UPDATE pin SET refused_name = ?2, refused_image = ?3, refused_why = ?4, refused_at = ?5
                       WHERE grp = ?1";
            let NotTaken { name, id, why, at } = &refused;
            c.execute(sql, params![group.as_str(), name, id, why, at.0])?;
            Ok(known.is_none_or(|known| (&known.name, &known.id) != (name, id)))
        })
        .await
    }

    /// What a checked image offers, as the JSON that [`Store::image_passed`] stored.
    pub async fn image_offers(&self, id: &str, runner: &str) -> Result<Option<String>> {
        let (id, runner) = (id.to_owned(), runner.to_owned());
        self.read(move |c| {
            let sql = "SELECT offers FROM image WHERE id = ?1 AND runner = ?2";
            Ok(c.query_row(sql, params![id, runner], |r| r.get(0)).optional()?)
        })
        .await
    }

    /// Records that an image has passed the check with this runner.
    pub async fn image_passed(&self, id: &str, runner: &str, offers: String, now: WallMs) -> Result<()> {
        let (id, runner) = (id.to_owned(), runner.to_owned());
        self.write(move |c| {
            let sql = "INSERT INTO image VALUES (?1, ?2, ?3, ?4)
                       ON CONFLICT(id, runner) DO UPDATE SET checked_at = ?3, offers = ?4";
            c.execute(sql, params![id, runner, now.0, offers])?;
            Ok(())
        })
        .await
    }
}

fn put(
    c: &Connection,
    group: &GroupName,
    to: &Named,
    before: Option<Named>,
    passed_over: Option<&str>,
    now: WallMs,
) -> Result<()> {
    let (before_name, before_image) = before.map(|b| (b.name, b.id)).unzip();
    let sql =
        "INSERT OR REPLACE INTO pin(grp, name, image, pinned_at, before_name, before_image, passed_over)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    c.execute(sql, params![group.as_str(), to.name, to.id, now.0, before_name, before_image, passed_over])?;
    Ok(())
}

fn read(c: &Connection, group: &GroupName) -> Result<Option<Pin>> {
    let sql = format!("SELECT {COLUMNS} FROM pin WHERE grp = ?1");
    c.query_row(&sql, [group.as_str()], pin_of).optional().map_err(StoreError::from)
}

fn pin_of(r: &Row<'_>) -> rusqlite::Result<Pin> {
    let before = r.get::<_, Option<String>>(4)?.zip(r.get(5)?);
    let refused = r.get::<_, Option<String>>(7)?.zip(r.get::<_, Option<String>>(9)?).zip(r.get(10)?);
    let refused_id = r.get(8)?;
    Ok(Pin {
        now: Named { name: r.get(1)?, id: r.get(2)? },
        at: WallMs(r.get(3)?),
        before: before.map(|(name, id)| Named { name, id }),
        passed_over: r.get(6)?,
        refused: refused.map(|((name, why), at)| NotTaken { name, id: refused_id, why, at: WallMs(at) }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: WallMs = WallMs(1_795_000_000_000);

    async fn store() -> (Store, GroupName, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("lazaret.db")).unwrap();
        let family: GroupName = "family".parse().unwrap();
        store.group(&family, T).await.unwrap();
        (store, family, dir)
    }

    fn named(name: &str, id: &str) -> Named {
        Named { name: name.into(), id: format!("sha256:{id}") }
    }

    #[tokio::test]
    async fn a_rollback_goes_back_and_forth_between_two_images() {
        let (store, family, _dir) = store().await;
        assert_eq!(store.pin(&family).await.unwrap(), None);
        let (old, new) = (named("python:3.11", "a"), named("python:3.12", "b"));
        store.pin_image(&family, old.clone(), "terminal", T).await.unwrap();
        store.pin_image(&family, new.clone(), "terminal", T).await.unwrap();
        let pin = store.pin(&family).await.unwrap().unwrap();
        assert_eq!((&pin.now, &pin.before, &pin.passed_over), (&new, &Some(old.clone()), &None));

        assert!(store.roll_back_pin(&family, old.clone(), "terminal", T).await.unwrap());
        let pin = store.pin(&family).await.unwrap().unwrap();
        assert_eq!((&pin.now, pin.before.as_ref()), (&old, Some(&new)));
        assert_eq!(pin.passed_over.as_deref(), Some("sha256:b"), "a rebuild does not pin it again by itself");
        assert!(
            store.roll_back_pin(&family, old, "terminal", T).await.unwrap(),
            "a run in between has done it already"
        );
        assert!(store.roll_back_pin(&family, new.clone(), "terminal", T).await.unwrap());
        assert_eq!(store.pin(&family).await.unwrap().unwrap().now, new);
        assert!(!store.roll_back_pin(&family, named("else", "c"), "terminal", T).await.unwrap());
    }

    #[tokio::test]
    async fn the_same_image_under_another_name_leaves_the_way_back_as_it_is() {
        let (store, family, _dir) = store().await;
        store.pin_image(&family, named("one", "a"), "terminal", T).await.unwrap();
        store.pin_image(&family, named("two", "b"), "terminal", T).await.unwrap();
        store.pin_image(&family, named("three", "b"), "terminal", T).await.unwrap();
        let pin = store.pin(&family).await.unwrap().unwrap();
        assert_eq!((pin.now, pin.before), (named("three", "b"), Some(named("one", "a"))));
    }

    #[tokio::test]
    async fn what_is_refused_is_news_once_and_forgotten_when_something_is_taken() {
        let (store, family, _dir) = store().await;
        store.pin_image(&family, named("one", "a"), "terminal", T).await.unwrap();
        let refused = |name: &str| NotTaken { name: name.into(), id: None, why: "no".into(), at: T };
        assert!(store.image_refused(&family, refused("bad")).await.unwrap());
        assert!(!store.image_refused(&family, refused("bad")).await.unwrap());
        assert!(store.image_refused(&family, refused("worse")).await.unwrap());
        assert_eq!(store.pins().await.unwrap()[0].1.refused, Some(refused("worse")));
        store.pin_image(&family, named("two", "b"), "terminal", T).await.unwrap();
        assert_eq!(store.pin(&family).await.unwrap().unwrap().refused, None);
    }

    #[tokio::test]
    async fn an_image_passes_for_the_runner_that_looked() {
        let (store, _, _dir) = store().await;
        store.image_passed("sha256:a", "r1", "{}".into(), T).await.unwrap();
        assert_eq!(store.image_offers("sha256:a", "r1").await.unwrap().as_deref(), Some("{}"));
        assert_eq!(store.image_offers("sha256:a", "r2").await.unwrap(), None);
    }
}
