//! The list of containers: creates, finds and removes them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::Setup;
use super::answer::Refused;
use super::container::{Container, New};
use super::image::Image;
use super::spec;

/// The stand-in waits this long for killed boxes at its end.
const LAST_MOMENT: Duration = Duration::from_secs(5);

/// The containers, in the order of their creation.
#[derive(Debug)]
pub(super) struct Containers {
    pub setup: Setup,
    containers: Mutex<Vec<Arc<Container>>>,
}

impl Containers {
    pub(super) fn new(setup: Setup) -> Self {
        Self { setup, containers: Mutex::default() }
    }

    fn containers(&self) -> MutexGuard<'_, Vec<Arc<Container>>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds a container by its id, its name, or the beginning of its id.
    pub(super) fn find(&self, name: &str) -> Result<Arc<Container>, Refused> {
        let all = self.containers();
        let exact = all.iter().find(|c| c.id == name || c.name == name.trim_start_matches('/'));
        let found = exact.or_else(|| all.iter().find(|c| !name.is_empty() && c.id.starts_with(name)));
        found.cloned().ok_or_else(|| Refused::no_container(name))
    }

    /// Creates a container, with a generated name if none is given.
    pub(super) fn create(&self, name: Option<&str>, body: Value) -> Result<Arc<Container>, Refused> {
        let id = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        let name = name.map_or_else(|| format!("nameless_{}", id.split_at(12).0), str::to_owned);
        check_name(&name)?;
        let wanted = spec::read(&body, &id)?;
        let image = Image::named(&wanted.image)?;
        let mut all = self.containers();
        if let Some(other) = all.iter().find(|c| c.name == name) {
            let why = format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{}\". You have to remove \
                 (or rename) that container to be able to reuse that name.",
                other.id
            );
            return Err(Refused::new(409, why));
        }
        let new = New { id, name, image, labels: wanted.labels, spec: wanted.spec, body };
        let container = Arc::new(Container::new(new));
        all.push(Arc::clone(&container));
        Ok(container)
    }

    /// Kills a running container if `force` is set, and removes it from the list. As in the engine, the removal goes on
    /// if the client dies in the middle of its call.
    pub(super) async fn remove(
        self: &Arc<Self>,
        container: Arc<Container>,
        force: bool,
    ) -> Result<(), Refused> {
        let all = Arc::clone(self);
        let removal = tokio::spawn(async move {
            container.end_for_good(force).await?;
            all.containers().retain(|other| other.id != container.id);
            Ok(())
        });
        removal.await.unwrap_or_else(|panic| Err(Refused::new(500, panic.to_string())))
    }

    /// Lists the running containers, or all, that have these labels: `name` or `name=value`.
    pub(super) fn list(&self, all: bool, filters: &str) -> Result<Vec<Value>, Refused> {
        let filters: HashMap<String, Vec<String>> = match filters {
            "" => HashMap::new(),
            text => {
                serde_json::from_str(text).map_err(|e| Refused::new(400, format!("invalid filter: {e}")))?
            }
        };
        if let Some(unknown) = filters.keys().find(|name| *name != "label") {
            return Err(Refused::new(400, format!("invalid filter '{unknown}'")));
        }
        let labels = filters.get("label").map(Vec::as_slice).unwrap_or_default();
        let matches = |c: &&Arc<Container>| {
            (all || c.runs())
                && labels.iter().all(|label| match label.split_once('=') {
                    Some((name, value)) => c.labels.get(name).is_some_and(|v| v == value),
                    None => c.labels.contains_key(label),
                })
        };
        // The engine lists the newest first.
        Ok(self.containers().iter().filter(matches).rev().map(|c| c.listed()).collect())
    }

    /// Kills every box.
    pub(super) async fn end_all(&self) {
        let all = self.containers().clone();
        let ends = all.iter().map(|container| container.signal(Signal::KILL));
        // A container that refuses the signal does not run.
        let ended = futures_util::future::join_all(ends);
        if tokio::time::timeout(LAST_MOMENT, ended).await.is_err() {
            eprintln!("the engine stand-in stops while some boxes still run");
        }
    }
}

fn check_name(name: &str) -> Result<(), Refused> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.len() > 1 && name.chars().all(allowed) && name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Ok(());
    }
    let why = format!("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed");
    Err(Refused::new(400, why))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::{IMAGE, NotServing};

    fn containers() -> (tempfile::TempDir, Arc<Containers>) {
        let dir = tempfile::tempdir().unwrap();
        let image = Image::make(&dir.path().join("image")).map_err(|e: NotServing| e.to_string()).unwrap();
        let containers = Containers::new(Setup { image, root: dir.path().join("root") });
        (dir, Arc::new(containers))
    }

    fn body(labels: Value) -> Value {
        json!({ "Image": IMAGE, "Cmd": ["/x"], "Labels": labels })
    }

    #[tokio::test]
    async fn a_name_is_used_once_and_free_again() {
        let (_dir, containers) = containers();
        let first = containers.create(Some("box-1"), body(json!({}))).unwrap();
        let refused = containers.create(Some("box-1"), body(json!({}))).unwrap_err();
        assert_eq!(refused.answer().status(), 409);
        assert!(format!("{refused:?}").contains("is already in use by container"));
        assert_eq!(containers.find("/box-1").unwrap().id, first.id);
        assert_eq!(containers.find(&first.id[..12]).unwrap().id, first.id);
        containers.remove(Arc::clone(&first), false).await.unwrap();
        assert_eq!(containers.find("box-1").unwrap_err(), Refused::new(404, "No such container: box-1"));
        assert!(containers.create(Some("box-1"), body(json!({}))).is_ok());
        for bad in ["a", "-ab", "a/b", "a b"] {
            assert!(containers.create(Some(bad), body(json!({}))).is_err(), "{bad}");
        }
    }

    #[test]
    fn boxes_are_listed_by_the_equality_of_their_labels() {
        let (_dir, containers) = containers();
        for (name, install) in [("one", "i-1"), ("two", "i-2"), ("three", "i-1")] {
            containers.create(Some(name), body(json!({ "lazaret.install": install }))).unwrap();
        }
        let names = |all, filters: &str| {
            let listed = containers.list(all, filters).unwrap();
            listed.iter().map(|c| c["Names"][0].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(true, r#"{"label":["lazaret.install=i-1"]}"#), ["/three", "/one"]);
        assert_eq!(names(true, r#"{"label":["lazaret.install"]}"#).len(), 3);
        assert_eq!(names(true, r#"{"label":["lazaret.install=i-"]}"#), [""; 0]);
        assert_eq!(names(false, ""), [""; 0], "none of them runs");
        assert!(containers.list(true, r#"{"color":["red"]}"#).is_err());
    }
}
