//! The default image, from the files that this program was built with.

use std::io;

use crate::domain::image::DEFAULT_IMAGE;
use crate::sandbox::{Engine, EngineError, Recipe};

const DOCKERFILE: &str = include_str!("../../../container/Dockerfile");
const PACKAGES: &str = include_str!("../../../container/packages.txt");
/// What the image was built from: one that has this label already is not built again.
const SOURCE: &str = "lazaret.source";
/// The base where there is a registry, or somebody who has pulled it.
pub const BASE: &str = "debian:bookworm-slim";

/// What there is to build.
#[derive(Debug, Clone)]
pub struct Built {
    /// The recipe.
    pub recipe: Recipe,
    /// The base that `make image` makes where no registry answers.
    pub offline_base: String,
}

/// The recipe of the default image over `base`.
///
/// # Errors
/// When the archive cannot be made: the program has no memory left.
pub fn recipe(base: &str) -> io::Result<Built> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, text) in [("Dockerfile", DOCKERFILE), ("packages.txt", PACKAGES)] {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append_data(&mut header, name, text.as_bytes())?;
    }
    let recipe = Recipe {
        name: format!("{DEFAULT_IMAGE}:latest"),
        archive: archive.into_inner()?,
        base: base.to_owned(),
        label: (SOURCE.to_owned(), digest(&[DOCKERFILE, PACKAGES])),
    };
    Ok(Built { recipe, offline_base: format!("lazaret-base:{}", digest(&[PACKAGES])) })
}

/// The packages of the default image, as `mmdebstrap --include` takes them.
pub fn packages() -> String {
    PACKAGES.lines().collect::<Vec<_>>().join(",")
}

impl Built {
    /// Whether the engine has this very image already.
    ///
    /// # Errors
    /// What the engine said.
    pub async fn is_there(&self, engine: &Engine) -> Result<bool, EngineError> {
        match engine.label_of_image(&self.recipe.name, SOURCE).await {
            Ok(label) => Ok(label.as_deref() == Some(&self.recipe.label.1)),
            Err(EngineError::NoImage { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// The same sixteen digits that `image.sh` takes of its files.
fn digest(texts: &[&str]) -> String {
    ipc_schema::sha256_hex(texts.concat().as_bytes()).chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipe_is_the_folder_of_the_repository() {
        let built = recipe(BASE).unwrap();
        let mut archive = tar::Archive::new(built.recipe.archive.as_slice());
        let mut files = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            io::Read::read_to_string(&mut entry, &mut text).unwrap();
            files.push((entry.path().unwrap().display().to_string(), text));
        }
        assert_eq!(
            files,
            [
                ("Dockerfile".to_owned(), DOCKERFILE.to_owned()),
                ("packages.txt".to_owned(), PACKAGES.to_owned())
            ]
        );
    }

    #[test]
    fn the_digests_are_those_of_the_script() {
        let script = "cd $1; cat Dockerfile packages.txt | sha256sum | cut -c1-16; sha256sum <packages.txt | cut -c1-16";
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../container");
        let told = std::process::Command::new("sh").args(["-c", script, "sh", folder]).output().unwrap();
        let told = String::from_utf8(told.stdout).unwrap();
        let built = recipe(BASE).unwrap();
        let base = built.offline_base.strip_prefix("lazaret-base:").unwrap();
        assert_eq!(told.lines().collect::<Vec<_>>(), [&built.recipe.label.1, base]);
    }
}
