//! The settings: `lazaret.toml` and each group's `group.toml`, read into the types of [`schema`], overridden from the
//! environment, checked, and given to the other modules as domain values.
//!
//! The host reads `lazaret.toml` at its start. It reads a group's file again when the file has changed, so a change
//! holds without a restart. Every error names the file, the line and column, what was expected, and the nearest right
//! name. Settings are the owner's: nothing here but [`set_group_image`], [`first`] and [`personality_file`] writes a
//! file.

mod check_mounts;
mod env_overrides;
#[cfg(test)]
mod example_tests;
pub mod first;
#[cfg(any(test, fuzzing))]
pub mod fuzz_targets;
mod group_cache;
pub mod install_layout;
mod line_and_column;
pub mod personality_file;
pub mod schema;
mod secrets;
pub mod set_group_image;
mod setting_list;
pub mod zone_data;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::channels::{ChannelSettings, ChannelsFile};
use crate::domain::group_settings::{Group, ModelChoice};
use crate::domain::outbound::Delivery;
use crate::domain::{ChannelName, ChatId, GroupName, ProviderKind, Secret, SenderId};
use crate::host_files;
use crate::policy::mounts::AllowedRoot;
use crate::policy::posture::acceptable;
pub use env_overrides::Shown;
use group_cache::GroupCache;
pub use install_layout::Root;
use schema::{GroupFile, InstallFile};

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}{}", hint.as_ref().map(|h| format!("; {h}")).unwrap_or_default())]
pub struct ConfigError {
    /// `lazaret.toml:3:7`, or the name of an environment variable.
    pub place: String,
    pub what: String,
    /// What the person can do.
    pub hint: Option<String>,
    code: &'static str,
}

impl ConfigError {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into(), hint: None, code: "config.value" }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn coded(mut self, code: &'static str) -> Self {
        self.code = code;
        self
    }

    pub fn code(&self) -> &'static str {
        self.code
    }
}

/// A provider with its key.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Its name in `[providers]`.
    pub name: String,
    pub kind: ProviderKind,
    /// Its address, without the path that the wire adds.
    pub base_url: String,
    pub key: Option<Secret>,
}

/// The install's settings, checked.
#[derive(Debug, Clone)]
pub struct Install {
    pub root: Root,
    /// The values of the file and the environment, and the defaults of the others.
    pub file: InstallFile,
    /// The owners that the settings name. The store knows those who were paired.
    pub owners: Vec<SenderId>,
    pub providers: BTreeMap<String, Provider>,
    /// The model that groups use unless they name one.
    pub model: ModelChoice,
    /// The secrets of the channels that have one.
    pub channel_secrets: BTreeMap<ChannelName, Secret>,
    allowed_mounts: Vec<AllowedRoot>,
    shown: Vec<Shown>,
    groups: GroupCache,
}

impl Install {
    /// Reads `lazaret.toml` below `root` and the environment. A missing file means every default.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn load(root: Root, env: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let path = root.install_file();
        let text = read_or_empty(&path)?;
        let (file, shown) = env_overrides::with_overrides(&path, &text, env)?;
        let providers = secrets::providers(&file, &root, env)?;
        let model = model_choice(&file, &providers)?;
        for name in &file.engine.accept {
            acceptable(name).map_err(|why| {
                ConfigError::new(line_and_column::of(&path, &text, &["engine", "accept"]), why)
            })?;
        }
        let channel_secrets = secrets::of_channels(&file, &root, env)?;
        let owners = line_and_column::of(&path, &text, &["owners"]);
        on_known_channels(file.owners.iter().map(|owner| owner.channel()), owners)?;
        let allowed_mounts = check_mounts::allowed(&path, &text, &file, &root)?;
        let shown = env_overrides::with_choice(shown, &model);
        Ok(Self {
            root,
            owners: file.owners.clone(),
            file,
            providers,
            model,
            channel_secrets,
            allowed_mounts,
            shown,
            groups: GroupCache::default(),
        })
    }

    /// Every setting with its value and the source of the value.
    pub fn shown(&self) -> &[Shown] {
        &self.shown
    }

    /// A group's settings: those of its file, and the install's where the file is silent or missing. Each change of the
    /// file holds from the next call on. A call costs one stat(2) while the file stays as it is.
    ///
    /// # Errors
    /// The first setting that cannot be used. Other groups go on.
    pub fn group(&self, name: &GroupName) -> Result<Group, ConfigError> {
        let path = self.root.group_file(name);
        let version = host_files::version(&path).map_err(|e| unreadable(&path, &e))?;
        self.groups.get(name, version, || self.parse_group(name, &path))
    }

    fn parse_group(&self, name: &GroupName, path: &Path) -> Result<Group, ConfigError> {
        let text = read_or_empty(path)?;
        let file: GroupFile = parse(path, &text)?;
        let place = |keys: &[&str]| line_and_column::of(path, &text, keys);
        self.check_group(&parse(path, &text)?, place)?;
        on_known_channels(file.chats.iter().map(|chat| chat.channel()), place(&["chats"]))?;
        on_known_channels(file.senders.iter().flatten().map(|one| one.channel()), place(&["senders"]))?;
        let mounts = check_mounts::of_group(path, &text, &file, &self.allowed_mounts, &self.root)?;
        let runtime = self.runtime(&file, place)?;
        let model = self.model_of(&file, place)?;
        let base = self.default_group(name.clone());
        Ok(Group {
            persona: file.persona.unwrap_or(base.persona),
            trigger: file.trigger.into(),
            senders: file.senders,
            priority: file.priority.into(),
            image: file.image.unwrap_or(base.image),
            model,
            zone: file.zone.unwrap_or(base.zone),
            limits: file.limits.over(&base.limits),
            context: file.context.over(&base.context),
            tools: file.tools.map_or(base.tools, Into::into),
            mounts,
            runtime,
            delivery: file.delivery,
            name: base.name,
        })
    }

    /// A group without a file of its own. It also stands in where the file cannot be used.
    pub fn default_group(&self, name: GroupName) -> Group {
        Group {
            name,
            persona: self.file.persona.clone(),
            trigger: Default::default(),
            senders: None,
            priority: Default::default(),
            image: self.file.image.clone(),
            model: self.model.clone(),
            zone: self.file.zone.clone(),
            limits: self.file.limits.clone(),
            context: self.file.context,
            tools: self.file.tools.clone().into(),
            mounts: Vec::new(),
            runtime: None,
            delivery: None,
        }
    }

    /// The delivery policy of a channel's chats whose group names none.
    pub fn delivery(&self, channel: ChannelName) -> Delivery {
        self.file.channels.named(channel.as_str()).map(ChannelSettings::delivery).unwrap_or_default()
    }

    /// Checks the numbers of a group's file: whether they are allowed at all, and whether the install grants them.
    fn check_group(&self, file: &toml::Table, place: impl Fn(&[&str]) -> String) -> Result<(), ConfigError> {
        let granted = toml::Table::try_from(&self.file).unwrap_or_default();
        for setting in setting_list::settings::<GroupFile>() {
            let Some(wanted) = setting.in_table(file) else { continue };
            let keys: Vec<&str> = setting.path.iter().map(String::as_str).collect();
            setting.check(wanted).map_err(|why| ConfigError::new(place(&keys), why))?;
            let (name, most) = (setting.name(), setting.in_table(&granted));
            if let Some(most) = most.filter(|_| setting.is_at_most_install())
                && setting_list::measure(wanted) > setting_list::measure(most)
            {
                let what = format!("{name} = {wanted} is above the install's {most}");
                let hint = format!("raise {name} in lazaret.toml, or ask for less here");
                return Err(ConfigError::new(place(&keys), what).hint(hint));
            }
            if name == "limits.disk_images" && self.file.limits.disk_images && wanted.as_bool() == Some(false)
            {
                let what = "limits.disk_images = false takes away what the install has set for all";
                return Err(
                    ConfigError::new(place(&keys), what).hint("take it out here, or out of lazaret.toml")
                );
            }
        }
        Ok(())
    }

    fn model_of(
        &self,
        file: &GroupFile,
        place: impl Fn(&[&str]) -> String,
    ) -> Result<ModelChoice, ConfigError> {
        let Some(wanted) = file.model.clone() else { return Ok(self.model.clone()) };
        // The install's model belongs to the install's provider: another provider has its own default.
        let own_name = wanted.name.clone().flatten();
        let wanted = wanted.over(&self.file.model);
        let provider = wanted.provider.unwrap_or_else(|| self.model.provider.clone());
        let known = self.providers.get(&provider).ok_or_else(|| {
            let names: Vec<_> = self.providers.keys().map(String::as_str).collect();
            let what = format!("model.provider = {provider:?} is not set up");
            ConfigError::new(place(&["model", "provider"]), what)
                .hint(format!("lazaret.toml has the providers: {}", names.join(", ")))
        })?;
        let of_install = (provider == self.model.provider).then(|| self.model.model.clone());
        let model = own_name.or(of_install);
        Ok(ModelChoice {
            model: model.unwrap_or_else(|| known.kind.default_model().to_owned()),
            provider,
            max_tokens: wanted.max_tokens,
            window: wanted.window,
        })
    }

    /// The runtime that a group names. The install must allow it, because the runtime decides how strong the sandbox
    /// is.
    fn runtime(
        &self,
        file: &GroupFile,
        place: impl Fn(&[&str]) -> String,
    ) -> Result<Option<String>, ConfigError> {
        let known = &self.file.engine.runtimes;
        match &file.runtime {
            Some(name) if !known.contains(name) => {
                let what = format!("runtime = {name:?} is not one of this install's");
                let names = known.join(", ");
                let hint = format!("add it to engine.runtimes in lazaret.toml; there are: {names}");
                Err(ConfigError::new(place(&["runtime"]), what).hint(hint))
            }
            wanted => Ok(wanted.clone()),
        }
    }

    /// Makes the folder of a group that has none.
    ///
    /// # Errors
    /// The file system's error.
    pub fn add_group(&self, name: &GroupName) -> std::io::Result<()> {
        if crate::host_files::there(&self.root.groups().join(name.as_str())) {
            return Ok(());
        }
        first::add_group(&self.root, name)
    }

    /// The groups that have a folder, `main` first. Folders whose name is not a group name are ignored.
    pub fn group_names(&self) -> Vec<GroupName> {
        let folders =
            host_files::inside(&self.root.groups()).into_iter().filter(|path| host_files::is_dir(path));
        let mut names: Vec<GroupName> =
            folders.filter_map(|path| path.file_name()?.to_str()?.parse().ok()).collect();
        names.sort_by_key(|n| (!n.is_main(), n.clone()));
        names
    }

    /// The chats that group files name. A file that cannot be used names none: the group's runs report its error.
    pub fn chats(&self) -> Vec<(ChatId, GroupName)> {
        let chats_of = |name: &GroupName| {
            let path = self.root.group_file(name);
            let file: GroupFile = parse(&path, &read_or_empty(&path)?)?;
            Ok::<_, ConfigError>(file.chats)
        };
        let mut chats = Vec::new();
        for name in self.group_names() {
            match chats_of(&name) {
                Ok(named) => chats.extend(named.into_iter().map(|chat| (chat, name.clone()))),
                Err(e) => tracing::error!(group = %name, code = e.code(), "{e}"),
            }
        }
        chats
    }
}

/// Refuses addresses of channels that this build does not have.
fn on_known_channels<'a>(
    mut channels: impl Iterator<Item = &'a str>,
    place: String,
) -> Result<(), ConfigError> {
    let known = ChannelsFile::default();
    let Some(unknown) = channels.find(|name| known.named(name).is_none()) else { return Ok(()) };
    let names: Vec<&str> = known.all().map(|channel| channel.name().as_str()).collect();
    let error = ConfigError::new(place, format!("there is no channel {unknown:?}"));
    Err(error.hint(format!("there are: {}", names.join(", "))))
}

/// The JSON Schema of `lazaret.toml`.
pub fn schema_of_install() -> serde_json::Value {
    setting_list::published::<InstallFile>()
}

/// The JSON Schema of `group.toml`.
pub fn schema_of_group() -> serde_json::Value {
    setting_list::published::<GroupFile>()
}

fn model_choice(
    file: &InstallFile,
    providers: &BTreeMap<String, Provider>,
) -> Result<ModelChoice, ConfigError> {
    let choose = |name: &str| providers.get(name);
    let provider = match &file.model.provider {
        Some(name) => choose(name).ok_or_else(|| {
            ConfigError::new("lazaret.toml", format!("model.provider = {name:?} is not under [providers]"))
        })?,
        // Real models come before the demo model, and the native wire before the translated one.
        None => ["anthropic", "openai", "demo"]
            .into_iter()
            .find_map(choose)
            .or_else(|| providers.values().next())
            .ok_or_else(|| ConfigError::new("lazaret.toml", "there is no provider"))?,
    };
    Ok(ModelChoice {
        provider: provider.name.clone(),
        model: file.model.name.clone().unwrap_or_else(|| provider.kind.default_model().to_owned()),
        max_tokens: file.model.max_tokens,
        window: file.model.window,
    })
}

fn read_or_empty(path: &Path) -> Result<String, ConfigError> {
    match host_files::read_text(path) {
        Ok(text) => Ok(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(unreadable(path, &e)),
    }
}

fn unreadable(path: &Path, e: &std::io::Error) -> ConfigError {
    ConfigError::new(path.display().to_string(), format!("cannot be read: {e}"))
}

/// Reads one settings file into its type.
fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|e| explain(path, text, &e))
}

/// Turns a parser's error into one with file, line, column and the nearest right name.
fn explain(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let at = error.span().map_or(0, |s| s.start).min(text.len());
    let place = line_and_column::at(path, text.get(..at).unwrap_or_default());
    let message = error.message().lines().next().unwrap_or_default().to_owned();
    let unknown = message.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`'));
    match unknown {
        None => ConfigError::new(place, message),
        Some((name, rest)) => {
            let known = rest.split('`').skip(1).step_by(2);
            let error = ConfigError::new(place, format!("there is no setting `{name}` here"))
                .coded("config.unknown_key");
            match nearest(name, known) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint("`lazaret config show` lists every setting"),
            }
        }
    }
}

/// The known name that is most like `name`, if one is.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|k| (strsim::damerau_levenshtein(name, k), k))
        .filter(|(distance, k)| *distance <= 1 + k.len().min(name.len()) / 3)
        .min()
        .map(|(_, k)| k)
}

/// A path as messages show it: relative to the current folder where it is below it.
pub fn shown_path(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests;
