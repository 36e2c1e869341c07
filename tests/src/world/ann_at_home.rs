//! The start of most journeys: a running host, and Ann, who talks to it in a chat of her own.

use super::{Engine, World};
use crate::telegram::{Chat, Person};

impl World {
    /// A host that is up on `engine`, with these variables set, and Ann, who talks to `main` in her own chat.
    ///
    /// # Panics
    /// As [`World::on`] and [`World::up`].
    pub async fn ann_at_home(engine: Engine, settings: &[(&str, &str)]) -> (Self, Person, Chat) {
        Self::on(engine).await.with_ann(settings).await
    }

    /// The same with a host that root does not run.
    ///
    /// # Panics
    /// As [`World::ann_at_home`] and [`World::without_root`].
    pub async fn ann_at_home_without_root(settings: &[(&str, &str)]) -> (Self, Person, Chat) {
        Self::on(Engine::docker()).await.without_root().with_ann(settings).await
    }

    async fn with_ann(mut self, settings: &[(&str, &str)]) -> (Self, Person, Chat) {
        for (name, value) in settings {
            self.set(name, value);
        }
        let ann = self.telegram.person(5, "Ann");
        let direct = ann.direct();
        self.up().await;
        ann.says(&direct, "hello?");
        self.admit(&direct.address(), "main").await;
        (self, ann, direct)
    }
}
