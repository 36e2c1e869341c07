//! What the fuzz targets do to settings files, and what must hold.

use std::collections::BTreeMap;
use std::path::Path;

use super::schema::{GroupFile, InstallFile};
use super::{Mistake, Source, env_overrides};

/// `lazaret.toml`: refused with its places, or taken and shown.
pub fn install(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (file, mut source) = Source::read::<InstallFile>(Path::new("lazaret.toml"), text);
    env_overrides::over(file, &mut source, &BTreeMap::new());
    source.into_mistakes().iter().for_each(|mistake| has_its_place(mistake, text));
}

/// `group.toml`.
pub fn group(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (_, source) = Source::read::<GroupFile>(Path::new("group.toml"), text);
    source.into_mistakes().iter().for_each(|mistake| has_its_place(mistake, text));
}

fn has_its_place(mistake: &Mistake, text: &str) {
    let (line, column) = mistake.at.unwrap_or_default();
    assert!((1..=text.lines().count() + 1).contains(&line), "{mistake} in {text:?}");
    assert!(column >= 1, "{mistake}");
}
