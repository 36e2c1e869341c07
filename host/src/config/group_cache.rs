//! Group files as they were parsed last. Each message and each event of the supervisor asks for its group's settings;
//! the file is parsed again only when it has changed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::ConfigError;
use crate::domain::GroupName;
use crate::domain::group_settings::Group;
use crate::host_files::Version;

type Parsed = Result<Group, ConfigError>;
type ByGroup = BTreeMap<GroupName, (Option<Version>, Parsed)>;

/// What each group's file held at a version of it. A file that cannot be used is kept as its error.
#[derive(Debug, Clone, Default)]
pub(super) struct GroupCache(Arc<Mutex<ByGroup>>);

impl GroupCache {
    /// The settings at a `version` of the file; `parse` reads the file where that version is not known. The caller
    /// looks up the version first: a change between the two is then a new version at the next call.
    pub(super) fn get(
        &self,
        name: &GroupName,
        version: Option<Version>,
        parse: impl FnOnce() -> Parsed,
    ) -> Parsed {
        let groups = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, parsed)) = groups().get(name)
            && *known == version
        {
            return parsed.clone();
        }
        // A file that was changed just now can change again and keep its version: it is not remembered yet.
        let settled = version.is_none_or(|version| version.is_settled(SystemTime::now()));
        let parsed = parse();
        if settled {
            groups().insert(name.clone(), (version, parsed.clone()));
        }
        parsed
    }
}
