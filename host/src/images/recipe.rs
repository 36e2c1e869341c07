//! The default image, from the files that this program was built with.

use std::io;

use crate::domain::image::DEFAULT_IMAGE;
use crate::sandbox::{Engine, EngineError, Recipe};

const DOCKERFILE: &str = include_str!("../../../container/Dockerfile");
const PACKAGES: &str = include_str!("../../../container/packages.txt");
/// The label with the digest of the files that an image was built from. An image that has it is not built again.
const SOURCE: &str = "lazaret.source";
/// The base image, from a registry or pulled before.
pub const BASE: &str = "debian:bookworm-slim";

#[derive(Debug, Clone)]
pub struct DefaultImage {
    pub recipe: Recipe,
    /// The base image that `make image` makes when no registry answers.
    pub offline_base: String,
}

/// The recipe of the default image over `base`.
///
/// # Errors
/// When the archive cannot be written.
pub fn recipe(base: &str) -> io::Result<DefaultImage> {
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
    Ok(DefaultImage { recipe, offline_base: format!("lazaret-base:{}", digest(&[PACKAGES])) })
}

/// The packages of the default image, as `mmdebstrap --include` takes them.
pub fn packages() -> String {
    PACKAGES.lines().collect::<Vec<_>>().join(",")
}

impl DefaultImage {
    /// Whether the engine has an image built from the same files.
    ///
    /// # Errors
    /// What the engine said.
    pub async fn is_built(&self, engine: &Engine) -> Result<bool, EngineError> {
        match engine.label_of_image(&self.recipe.name, SOURCE).await {
            Ok(label) => Ok(label.as_deref() == Some(&self.recipe.label.1)),
            Err(EngineError::NoImage { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// The first sixteen digits of the hash, as `image.sh` computes it.
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
