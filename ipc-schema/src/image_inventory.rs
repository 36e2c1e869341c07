//! The inventory of an image: what `agent-runner inspect-image` reports before the host uses the image for agents.
//!
//! The runner looks from inside a container, because only there do links, PATH and permissions mean what they mean to
//! the agent. It runs no program of the image.

use serde::{Deserialize, Serialize};

use crate::refusal::{Refusal, RefusalCode, quote};
use crate::text_sanitize::line;

/// The file name of the inventory in the from-agent directory.
pub const FILE: &str = "0000000001-offers.json";

/// The programs to look for along PATH, sorted.
pub const PROGRAMS: [&str; 34] = [
    "apk", "apt-get", "bash", "bun", "cargo", "clang", "cmake", "curl", "dnf", "dotnet", "ffmpeg", "file",
    "gcc", "git", "go", "java", "jq", "make", "node", "npm", "openssl", "perl", "php", "pip3", "psql",
    "python3", "rg", "ruby", "sqlite3", "ssh", "tar", "unzip", "uv", "wget",
];

/// Characters kept of each text that comes from the image.
const WORDS: usize = 120;

/// The content of the inventory file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageInventory {
    /// The version of the runner that made the inventory.
    pub runner: String,
    /// The image's own name for its system (`PRETTY_NAME` of os-release(5)).
    pub system: Option<String>,
    /// The shell that `run_command` would use; absent if there is none.
    pub shell: Option<String>,
    /// The [`PROGRAMS`] that the image has, in that order.
    pub programs: Vec<String>,
    /// Whether there is a CA bundle. Without one, programs trust no server.
    pub certificates: bool,
    /// Whether there is time zone data. Without it, local times are UTC.
    pub zones: bool,
}

/// Makes text of the image safe for a terminal and a table.
fn plain(text: &str) -> String {
    line(text, WORDS)
}

impl ImageInventory {
    /// Parses an inventory. The bytes come from a box: unknown program names are dropped, and texts are cut.
    ///
    /// # Errors
    /// [`RefusalCode::Json`] for bytes that are not an inventory.
    pub fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut inventory: Self = serde_json::from_slice(bytes)
            .map_err(|e| Refusal::new(RefusalCode::Json, quote(&e.to_string(), WORDS)))?;
        // Each program once and in the order of the list, however often it was named.
        let named = |program: &&str| inventory.programs.iter().any(|name| name == program);
        inventory.programs = PROGRAMS.iter().copied().filter(named).map(str::to_owned).collect();
        inventory.runner = plain(&inventory.runner);
        inventory.system = inventory.system.as_deref().map(plain);
        inventory.shell = inventory.shell.as_deref().map(plain);
        Ok(inventory)
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
