//! What an image offers an agent: the answer of `agent-runner look`, which a host reads before it takes an image.
//!
//! The runner looks from inside a box, because only there a name means what it will mean to the agent: links, PATH
//! and permissions included. Nothing of the image runs for it.

use serde::{Deserialize, Serialize};

use crate::refusal::{Refusal, RefusalCode, quote};
use crate::text_sanitize::line;

/// The file in from-agent that holds the answer.
pub const FILE: &str = "0000000001-offers.json";

/// Programs that an agent may reach for, by the names under which they are looked for along PATH.
pub const PROGRAMS: [&str; 34] = [
    "apk", "apt-get", "bash", "bun", "cargo", "clang", "cmake", "curl", "dnf", "dotnet", "ffmpeg", "file",
    "gcc", "git", "go", "java", "jq", "make", "node", "npm", "openssl", "perl", "php", "pip3", "psql",
    "python3", "rg", "ruby", "sqlite3", "ssh", "tar", "unzip", "uv", "wget",
];

/// The most of an image's own words that is kept of one of its files.
const WORDS: usize = 120;

/// What the runner found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageInventory {
    /// The runner's version.
    pub runner: String,
    /// What the image calls itself (`PRETTY_NAME` of os-release(5)).
    pub system: Option<String>,
    /// The shell that `run_command` would use.
    pub shell: Option<String>,
    /// Those of [`PROGRAMS`] that are there, in that order.
    pub programs: Vec<String>,
    /// Whether there is a bundle of certificates, without which programs trust no server.
    pub certificates: bool,
    /// Whether there are time zones, without which local times are UTC.
    pub zones: bool,
}

/// Words that a terminal and a table can take.
fn plain(text: &str) -> String {
    line(text, WORDS)
}

impl ImageInventory {
    /// Reads the answer. The bytes come out of a box: names that nobody asked for are not taken, and words are cut.
    ///
    /// # Errors
    /// [`RefusalCode::Json`] for what is no answer.
    pub fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut offers: Self = serde_json::from_slice(bytes)
            .map_err(|e| Refusal::new(RefusalCode::Json, quote(&e.to_string(), WORDS)))?;
        // Each once and in our order, however often it was named.
        let named = |program: &&str| offers.programs.iter().any(|name| name == program);
        offers.programs = PROGRAMS.iter().copied().filter(named).map(str::to_owned).collect();
        offers.runner = plain(&offers.runner);
        offers.system = offers.system.as_deref().map(plain);
        offers.shell = offers.shell.as_deref().map(plain);
        Ok(offers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_back_without_what_nobody_asked_for() {
        let told = ImageInventory {
            runner: "0.1.0".into(),
            system: Some("Evil\u{1b}[2J OS".into()),
            shell: Some("/bin/sh".into()),
            programs: ["python3", "git", "rm -rf /", "git"].map(str::to_owned).to_vec(),
            certificates: true,
            zones: false,
        };
        let read = ImageInventory::read(&serde_json::to_vec(&told).unwrap()).unwrap();
        assert_eq!(read.programs, ["git", "python3"]);
        assert_eq!(read.system.as_deref(), Some("Evil[2J OS"));
        assert_eq!((read.shell, read.certificates, read.zones), (told.shell, true, false));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for bad in ["", "{}", "[]", r#"{"runner":"x","more":1}"#] {
            assert_eq!(ImageInventory::read(bad.as_bytes()).unwrap_err().code, RefusalCode::Json, "{bad}");
        }
    }

    #[test]
    fn the_programs_are_sorted_so_that_people_find_them() {
        assert!(PROGRAMS.is_sorted());
    }
}
