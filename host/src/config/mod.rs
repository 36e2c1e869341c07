//! The settings: `lazaret.toml` and each group's `group.toml`, read into the types of [`schema`], overridden from the
//! environment, checked, and given to the other modules as domain values.
//!
//! The host reads `lazaret.toml` at its start. It reads a group's file again when the file has changed, so a change
//! holds without a restart. A reading finds every mistake at once. Each one names the file, the line and column, what
//! was expected, and the right place or the nearest right name. Settings are the owner's: nothing here but
//! [`set_group_image`], [`first`] and [`personality_file`] writes a file.

mod check_mounts;
mod env_overrides;
#[cfg(test)]
mod example_tests;
pub mod first;
#[cfg(any(test, fuzzing))]
pub mod fuzz_targets;
mod group_cache;
pub mod heartbeats;
pub mod install_layout;
pub mod install_rights;
mod mistake;
mod models;
pub mod personality_file;
pub mod running_settings;
pub mod schema;
mod secrets;
pub mod set_group_image;
mod setting_list;
mod source;
mod values;
pub mod zone_data;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::channels::ChannelSettings;
use crate::domain::group_settings::{Group, ModelChoice};
use crate::domain::outbound::Delivery;
use crate::domain::transcription::TranscriptionChoice;
use crate::domain::{ChannelName, ChatId, GroupName, ProviderKind, Secret, SenderId};
use crate::host_files;
use crate::policy::mounts::AllowedRoot;
use crate::policy::sandbox_plan::check_foreign_runner;
pub use env_overrides::Shown;
use group_cache::GroupCache;
pub use install_layout::Root;
pub use mistake::{ConfigError, Mistake};
use schema::{GroupFile, InstallFile};
use setting_list::SettingsFile;
use source::Source;

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
    /// Where voice messages become text, if that is set.
    pub transcription: Option<TranscriptionChoice>,
    /// The secrets of the channels that have one.
    pub channel_secrets: BTreeMap<ChannelName, Secret>,
    /// Keys and tokens that the host needs and this environment does not have. The host's may have them.
    pub missing_secrets: Vec<Mistake>,
    allowed_mounts: Vec<AllowedRoot>,
    shown: Vec<Shown>,
    groups: GroupCache,
}

impl Install {
    /// Reads `lazaret.toml` below `root` and the environment. A missing file means every default.
    ///
    /// # Errors
    /// Every setting that cannot be used, and every key or token that the host needs and this environment lacks.
    pub fn load(root: Root, env: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let (install, mut mistakes) = Self::read(root, env);
        mistakes.extend(install.missing_secrets.iter().cloned());
        ConfigError::unless_empty(mistakes)?;
        Ok(install)
    }

    /// As [`Install::load`], for a command that calls no provider and no platform: keys and tokens may be missing.
    ///
    /// # Errors
    /// Every setting that cannot be used.
    pub fn load_for_command(root: Root, env: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let (install, mistakes) = Self::read(root, env);
        ConfigError::unless_empty(mistakes)?;
        Ok(install)
    }

    /// Reads the settings, and the mistakes of `lazaret.toml` and the environment. Settings with mistakes have their
    /// defaults, so that the groups' files can be checked too.
    pub fn read(root: Root, env: &BTreeMap<String, String>) -> (Self, Vec<Mistake>) {
        let path = root.install_file();
        let (text, unreadable) = match read_or_empty(&path) {
            Ok(text) => (text, None),
            Err(e) => (String::new(), Some(e)),
        };
        let (file, mut source) = Source::read::<InstallFile>(&path, &text);
        source.mistakes.extend(unreadable);
        let (file, shown) = env_overrides::over(file, &mut source, env);
        values::check_install(&file, &mut source);
        let mut missing_secrets = Vec::new();
        let providers = secrets::providers(&file, &root, env, &mut source, &mut missing_secrets);
        let transcription = secrets::transcription(&file, &root, env, &mut source, &mut missing_secrets);
        let channel_secrets = secrets::of_channels(&file, &root, env, &mut source, &mut missing_secrets);
        models::check(&file, &providers, &mut source);
        let model = model_choice(&file, &providers, &mut source);
        let allowed_mounts = check_mounts::allowed(&file, &root, &mut source);
        let shown = env_overrides::with_choice(shown, &model);
        let install = Self {
            root,
            owners: file.owners.clone(),
            file,
            providers,
            model,
            transcription,
            channel_secrets,
            missing_secrets,
            allowed_mounts,
            shown,
            groups: GroupCache::default(),
        };
        (install, source.into_mistakes())
    }

    /// Checks every settings file.
    ///
    /// # Errors
    /// Every mistake of `lazaret.toml`, the environment and the groups' files.
    pub fn check_all(root: Root, env: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let (install, mut mistakes) = Self::read(root, env);
        let mut group_of = BTreeMap::new();
        for name in install.group_names() {
            let path = install.root.group_file(&name);
            match read_or_empty(&path) {
                Ok(text) => {
                    let (file, mut source) = Source::read::<GroupFile>(&path, &text);
                    install.group_of(&name, &file, &mut source);
                    heartbeats::check_files(&file.heartbeat, &install.root.group_folder(&name), &mut source);
                    for (n, chat) in file.chats.iter().enumerate() {
                        if let Some(other) = group_of.insert(chat.clone(), name.clone()) {
                            let what = format!("the chat {chat} belongs to group {other} already");
                            source.refuse(&["chats", &n.to_string()], what);
                        }
                    }
                    mistakes.extend(source.into_mistakes());
                }
                Err(unreadable) => mistakes.push(unreadable),
            }
        }
        ConfigError::unless_empty(mistakes)?;
        Ok(install)
    }

    /// Every setting with its value and the source of the value.
    pub fn shown(&self) -> &[Shown] {
        &self.shown
    }

    /// A group's settings: those of its file, and the install's where the file is silent or missing. Each change of the
    /// file holds from the next call on. A call costs one stat(2) while the file stays as it is.
    ///
    /// # Errors
    /// Every setting that cannot be used. Other groups go on.
    pub fn group(&self, name: &GroupName) -> Result<Group, ConfigError> {
        let path = self.root.group_file(name);
        if !self.has_group(name) {
            let folder = self.root.groups().join(name.as_str());
            let gone = Mistake::of(
                folder.display().to_string(),
                "there is no such folder, so there is no such group",
            );
            let hint = format!("`lazaret groups add {name}` makes it again");
            return Err(gone.hint(hint).coded("group.gone").into());
        }
        let version = host_files::version(&path).map_err(|e| ConfigError::from(unreadable(&path, &e)))?;
        self.groups.get(name, version, || self.parse_group(name, &path))
    }

    /// Whether the group has a folder. `main` needs none.
    pub fn has_group(&self, name: &GroupName) -> bool {
        name.is_main() || host_files::is_dir(&self.root.groups().join(name.as_str()))
    }

    fn parse_group(&self, name: &GroupName, path: &Path) -> Result<Group, ConfigError> {
        let text = read_or_empty(path)?;
        let (file, mut source) = Source::read::<GroupFile>(path, &text);
        let group = self.group_of(name, &file, &mut source);
        ConfigError::unless_empty(source.into_mistakes())?;
        Ok(group)
    }

    /// The group of a file that was read, and what the install does not allow it.
    fn group_of(&self, name: &GroupName, file: &GroupFile, source: &mut Source<'_>) -> Group {
        self.check_granted(source);
        values::check_group(file, source);
        let mounts = check_mounts::of_group(file, &self.allowed_mounts, &self.root, source);
        if let Some(path) = &file.runner
            && let Err(why) = check_foreign_runner(path, &mounts)
        {
            source.refuse(&["runner"], Mistake::from(format!("runner = {path:?} {why}")));
        }
        let runtime = self.runtime(file, source);
        let model = self.model_of(file, source);
        let base = self.default_group(name.clone());
        let file = file.clone();
        let (zone, limits) = (file.zone.unwrap_or(base.zone), file.limits.over(&base.limits));
        let heartbeats = heartbeats::of_group(&file.heartbeat, &zone, limits.task_interval.0, source);
        Group {
            persona: file.persona.unwrap_or(base.persona),
            trigger: file.trigger.into(),
            senders: file.senders,
            may_stop: file.may_stop.into(),
            priority: file.priority.into(),
            image: file.image.unwrap_or(base.image),
            model,
            zone,
            limits,
            context: file.context.over(&base.context),
            tools: file.tools.map_or(base.tools, Into::into),
            mounts,
            runtime,
            runner: file.runner,
            delivery: file.delivery,
            heartbeats,
            name: base.name,
        }
    }

    /// A group without a file of its own. It also stands in where the file cannot be used.
    pub fn default_group(&self, name: GroupName) -> Group {
        Group {
            name,
            persona: self.file.persona.clone(),
            trigger: Default::default(),
            senders: None,
            may_stop: Default::default(),
            priority: Default::default(),
            image: self.file.image.clone(),
            model: self.model.clone(),
            zone: self.file.zone.clone(),
            limits: self.file.limits.clone(),
            context: self.file.context,
            tools: self.file.tools.clone().into(),
            mounts: Vec::new(),
            runtime: None,
            runner: None,
            delivery: None,
            heartbeats: Vec::new(),
        }
    }

    /// The delivery policy of a channel's chats whose group names none.
    pub fn delivery(&self, channel: ChannelName) -> Delivery {
        self.file.channels.named(channel.as_str()).map(ChannelSettings::delivery).unwrap_or_default()
    }

    /// Compares a group's values with what the install grants.
    fn check_granted(&self, source: &mut Source<'_>) {
        let granted = toml::Table::try_from(&self.file).unwrap_or_default();
        let file = source.usable();
        for setting in &GroupFile::definitions().settings {
            let Some(wanted) = setting.in_table(&file) else { continue };
            let keys: Vec<&str> = setting.path.iter().map(String::as_str).collect();
            let (name, most) = (setting.name(), setting.in_table(&granted));
            if let Some(most) = most.filter(|_| setting.is_at_most_install())
                && setting_list::measure(wanted) > setting_list::measure(most)
            {
                let what = Mistake::from(format!("{name} = {wanted} is above the install's {most}"));
                let hint = format!("raise {name} in lazaret.toml, or ask for less here");
                source.refuse(&keys, what.hint(hint));
            }
            if name == "limits.disk_images" && self.file.limits.disk_images && wanted.as_bool() == Some(false)
            {
                let what = "limits.disk_images = false takes away what the install has set for all";
                source.refuse(&keys, Mistake::from(what).hint("take it out here, or out of lazaret.toml"));
            }
        }
    }

    fn model_of(&self, file: &GroupFile, source: &mut Source<'_>) -> ModelChoice {
        let Some(wanted) = file.model.clone() else { return self.model.clone() };
        // The install's model belongs to the install's provider: another provider has its own default.
        let own_name = wanted.name.clone().flatten();
        let wanted = wanted.over(&self.file.model);
        let provider = wanted.provider.unwrap_or_else(|| self.model.provider.clone());
        values::check_answer_fits(wanted.max_tokens, wanted.window, source);
        let Some(known) = self.providers.get(&provider) else {
            let names: Vec<_> = self.providers.keys().map(String::as_str).collect();
            let what = Mistake::from(format!("model.provider = {provider:?} is not set up"));
            let hint = format!("lazaret.toml has the providers: {}", names.join(", "));
            source.refuse(&["model", "provider"], what.hint(hint));
            return self.model.clone();
        };
        let of_install = (provider == self.model.provider).then(|| self.model.model.clone());
        let model = own_name.or(of_install);
        ModelChoice {
            model: model.unwrap_or_else(|| known.kind.default_model().to_owned()),
            provider,
            max_tokens: wanted.max_tokens,
            window: wanted.window,
            images: wanted.images,
        }
    }

    /// The runtime that a group names. The install must allow it, because the runtime decides how strong the sandbox
    /// is.
    fn runtime(&self, file: &GroupFile, source: &mut Source<'_>) -> Option<String> {
        let known = &self.file.engine.runtimes;
        if let Some(name) = file.runtime.as_ref().filter(|name| !known.contains(name)) {
            let what = Mistake::from(format!("runtime = {name:?} is not one of this install's"));
            let names = known.join(", ");
            let hint = format!("add it to engine.runtimes in lazaret.toml; there are: {names}");
            source.refuse(&["runtime"], what.hint(hint));
        }
        file.runtime.clone()
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
            let text = read_or_empty(&path)?;
            let (file, source) = Source::read::<GroupFile>(&path, &text);
            ConfigError::unless_empty(source.into_mistakes())?;
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
    source: &mut Source<'_>,
) -> ModelChoice {
    let named = file.model.provider.as_ref();
    if let Some(name) = named.filter(|name| !providers.contains_key(*name)) {
        let names: Vec<_> = providers.keys().map(String::as_str).collect();
        let what = Mistake::from(format!("model.provider = {name:?} is not under [providers]"));
        source.refuse(&["model", "provider"], what.hint(format!("there are: {}", names.join(", "))));
    }
    // Real models come before the demo model, and the native wire before the translated one.
    let by_itself = ["anthropic", "openai", "demo"];
    let mut wanted = named.map(String::as_str).into_iter().chain(by_itself);
    let provider = wanted.find_map(|name| providers.get(name)).or_else(|| providers.values().next());
    let (name, kind) = provider.map_or(("demo", ProviderKind::Demo), |one| (one.name.as_str(), one.kind));
    ModelChoice {
        provider: name.to_owned(),
        model: file.model.name.clone().unwrap_or_else(|| kind.default_model().to_owned()),
        max_tokens: file.model.max_tokens,
        window: file.model.window,
        images: file.model.images,
    }
}

fn read_or_empty(path: &Path) -> Result<String, Mistake> {
    match host_files::read_text(path) {
        Ok(text) => Ok(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(unreadable(path, &e)),
    }
}

fn unreadable(path: &Path, e: &std::io::Error) -> Mistake {
    Mistake::of(path.display().to_string(), format!("cannot be read: {e}"))
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
