//! The setup of most journeys: a running host, and Ann, who talks to it in her own chat.

use super::{Engine, World};
use crate::telegram::{Chat, Person};

impl World {
    /// Starts a host on `engine` with these environment variables. Ann talks to the group `main` in her own chat.
    pub async fn ann_at_home(engine: Engine, settings: &[(&str, &str)]) -> (Self, Person, Chat) {
        Self::on(engine).await.with_ann(settings).await
    }

    /// Like [`World::ann_at_home`], with a host that does not run as root.
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
