//! What the fuzz targets do to settings files, and what must hold.

use std::collections::BTreeMap;
use std::path::Path;

use super::schema::GroupFile;
use super::{ConfigError, env_overrides, parse};

/// `lazaret.toml`: refused with its place, or taken and shown.
pub fn install(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let path = Path::new("lazaret.toml");
    if let Err(e) = env_overrides::with_overrides(path, text, &BTreeMap::new()) {
        has_its_place(&e, text);
    }
}

/// `group.toml`.
pub fn group(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(e) = parse::<GroupFile>(Path::new("group.toml"), text) {
        has_its_place(&e, text);
    }
}

fn has_its_place(error: &ConfigError, text: &str) {
    let mut place = error.place.split(':').skip(1).map(|number| number.parse::<usize>().unwrap_or(0));
    let (line, column) = (place.next().unwrap_or(0), place.next().unwrap_or(0));
    assert!((1..=text.lines().count() + 1).contains(&line), "{error} in {text:?}");
    assert!(column >= 1, "{error}");
}
