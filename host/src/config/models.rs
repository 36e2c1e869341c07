//! The models that `/model` can choose: those that the settings name.

use std::collections::BTreeMap;

use super::schema::InstallFile;
use super::{Install, Mistake, Provider, Source};
use crate::domain::ProviderKind;
use crate::domain::group_settings::{Group, ModelChoice};

impl Install {
    /// The models of a group: its file's, the install's, those under `[[models]]`, and the default of each provider
    /// that has its usual address. The group's own is the first one.
    pub fn models_for(&self, group: &Group) -> Vec<ModelChoice> {
        let named = self.file.models.iter().map(|one| ModelChoice {
            provider: one.provider.clone().unwrap_or_else(|| self.model.provider.clone()),
            model: one.name.clone(),
            max_tokens: one.max_tokens.unwrap_or(self.model.max_tokens),
            window: one.window.unwrap_or(self.model.window),
            images: one.images.unwrap_or(self.model.images),
        });
        let usual = |p: &&Provider| p.kind != ProviderKind::Demo && p.base_url == p.kind.default_base_url();
        let defaults = self.providers.values().filter(usual).map(|provider| ModelChoice {
            provider: provider.name.clone(),
            model: provider.kind.default_model().to_owned(),
            ..self.model.clone()
        });
        let mut models: Vec<ModelChoice> = Vec::new();
        for model in [group.model.clone(), self.model.clone()].into_iter().chain(named).chain(defaults) {
            if !models.iter().any(|m| (&m.provider, &m.model) == (&model.provider, &model.model)) {
                models.push(model);
            }
        }
        models
    }

    /// The model of a group after a choice. `None` if the settings do not know the chosen model any more.
    pub fn chosen(&self, group: &Group, (provider, model): (&str, &str)) -> Option<ModelChoice> {
        self.models_for(group)
            .into_iter()
            .find(|m| (m.provider.as_str(), m.model.as_str()) == (provider, model))
    }
}

pub(super) fn check(file: &InstallFile, providers: &BTreeMap<String, Provider>, source: &mut Source<'_>) {
    for (n, one) in file.models.iter().enumerate() {
        let n = n.to_string();
        if one.name.trim().is_empty() || one.name.contains(char::is_whitespace) {
            source.refuse(&["models", &n, "name"], "a model's name has no blanks and is not empty");
        }
        if let Some(name) = one.provider.as_ref().filter(|name| !providers.contains_key(*name)) {
            let names: Vec<_> = providers.keys().map(String::as_str).collect();
            let what = Mistake::from(format!("provider = {name:?} is not set up"));
            source.refuse(&["models", &n, "provider"], what.hint(format!("there are: {}", names.join(", "))));
        }
        let (most, window) =
            (one.max_tokens.unwrap_or(file.model.max_tokens), one.window.unwrap_or(file.model.window));
        if most == 0 || most >= window {
            let what = format!("max_tokens = {most} does not fit into window = {window}");
            source.refuse(&["models", &n], what);
        }
    }
}
