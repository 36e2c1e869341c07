//! Inspects images for the plan of a box, and makes the `/etc/passwd` that the host mounts over the image's own.

use std::path::{Path, PathBuf};

use bollard::models::{ContainerCreateBody, ImageInspect};
use bollard::query_parameters::{ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder};
use futures_util::TryStreamExt;

use super::process_identity::this_process;
use super::{Engine, EngineError, QUICK, SLOW, write_shared};
use crate::policy::image_verdict::ImageAbout;
use crate::policy::sandbox_plan::{ImageFacts, labels_of_check};

/// The bit of a symbolic link in the file modes that the engine reports: Go's `fs.ModeSymlink`.
const GO_SYMLINK: u32 = 1 << 27;
/// The host reads at most this many bytes of an image's passwd.
const PASSWD_MAX: usize = 256 * 1024;

impl Engine {
    /// Inspects an image by name or id. From then on the host uses the id, because a name may need ten seconds to
    /// resolve if no registry answers, and because a tag can move.
    ///
    /// # Errors
    /// [`EngineError::NoImage`], or another error of the engine.
    pub async fn image(&self, name: &str) -> Result<ImageFacts, EngineError> {
        self.about_image(name).await.map(|about| about.facts)
    }

    /// Inspects an image and returns everything that the image check reads.
    ///
    /// # Errors
    /// As [`Engine::image`].
    pub async fn about_image(&self, name: &str) -> Result<ImageAbout, EngineError> {
        failpoint!("sandbox.image.before", |e| self.away(&e));
        let told = self.inspect_image(name).await?;
        let config = told.config.unwrap_or_default();
        let path =
            config.env.unwrap_or_default().iter().find_map(|e| e.strip_prefix("PATH=").map(str::to_owned));
        let check = config.healthcheck.and_then(|check| check.test).unwrap_or_default();
        Ok(ImageAbout {
            facts: ImageFacts {
                id: told.id.unwrap_or_default(),
                architecture: told.architecture.unwrap_or_default(),
                volumes: config.volumes.unwrap_or_default().into_iter().collect(),
                path,
            },
            os: told.os.unwrap_or_default(),
            size: told.size.and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
            created: told.created.map(|at| at.to_string()).unwrap_or_default(),
            user: config.user.unwrap_or_default(),
            entrypoint: config.entrypoint.unwrap_or_default(),
            working_dir: config.working_dir.unwrap_or_default(),
            health_check: check.first().is_some_and(|first| first != "NONE"),
            on_build: config.on_build.is_some_and(|lines| !lines.is_empty()),
        })
    }

    /// One label of an image.
    ///
    /// # Errors
    /// As [`Engine::image`].
    pub async fn label_of_image(&self, name: &str, label: &str) -> Result<Option<String>, EngineError> {
        let told = self.inspect_image(name).await?;
        Ok(told.config.and_then(|c| c.labels).and_then(|mut labels| labels.remove(label)))
    }

    /// The error contains `name`. The engine's own error may contain another name.
    async fn inspect_image(&self, name: &str) -> Result<ImageInspect, EngineError> {
        let told = self.ask("look at the image", QUICK, self.docker()?.inspect_image(name)).await;
        told.map_err(|e| match e {
            EngineError::NoImage { .. } | EngineError::Absent { .. } => {
                EngineError::NoImage { image: name.to_owned() }
            }
            e => e,
        })
    }

    /// The file to mount over `/etc/passwd`: the image's own with a line for the box's user, so that `whoami`, git and
    /// ssh find their user. It is always the same for an image and a user, so the host makes it once.
    ///
    /// # Errors
    /// An error of the engine or of the file system.
    pub async fn passwd(
        &self,
        install: &str,
        image: &ImageFacts,
        uid: u32,
        gid: u32,
        dir: &Path,
    ) -> Result<PathBuf, EngineError> {
        let short: String = image.id.trim_start_matches("sha256:").chars().take(20).collect();
        let path = dir.join(format!("{short}-{uid}"));
        if crate::host_files::there(&path) {
            return Ok(path);
        }
        let mut text = self.image_passwd(install, &image.id).await?;
        if !text.is_empty() && !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        text.extend_from_slice(format!("agent:x:{uid}:{gid}:agent:/workspace/.home:/bin/sh\n").as_bytes());
        write_shared(&path, &text, 0o644)?;
        Ok(path)
    }

    /// Reads `/etc/passwd` from a container that never starts. Returns nothing for an image without one.
    async fn image_passwd(&self, install: &str, image: &str) -> Result<Vec<u8>, EngineError> {
        let made = self.never_started(install, image).await?;
        let options = DownloadFromContainerOptionsBuilder::default().path("/etc/passwd").build();
        let docker = self.docker()?;
        let archive = async {
            let mut bytes = Vec::new();
            let mut chunks = docker.download_from_container(&made, Some(options));
            while let Some(chunk) = chunks.try_next().await? {
                if bytes.len() + chunk.len() > PASSWD_MAX {
                    break;
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(bytes)
        };
        match self.removed_after(&made, self.ask("read the image's passwd", QUICK, archive)).await {
            Ok(archive) => Ok(first_file(&archive)),
            Err(EngineError::Absent { .. }) => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    /// Returns which of these paths are symbolic links in an image. It uses a container without mounts that never
    /// starts, because the engine follows links when it makes a mount.
    ///
    /// # Errors
    /// The error of the engine.
    pub async fn links(
        &self,
        install: &str,
        image: &ImageFacts,
        paths: impl IntoIterator<Item = String>,
    ) -> Result<Vec<String>, EngineError> {
        let made = self.never_started(install, &image.id).await?;
        let paths: Vec<String> = paths.into_iter().collect();
        let looked = async {
            let mut links = Vec::new();
            for path in paths {
                let options = ContainerArchiveInfoOptionsBuilder::default().path(&path).build();
                let about = self.docker()?.get_container_archive_info(&made, Some(options));
                match self.ask("look at a path of the image", QUICK, about).await {
                    Ok(about) if about.file_mode & GO_SYMLINK != 0 => links.push(path),
                    // Most of the paths do not exist.
                    Ok(_) | Err(EngineError::Absent { .. }) => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(links)
        };
        self.removed_after(&made, looked).await
    }

    /// Makes a container that never starts, to read files of an image.
    async fn never_started(&self, install: &str, image: &str) -> Result<String, EngineError> {
        let look = uuid::Uuid::now_v7().to_string();
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            entrypoint: Some(vec!["/never".into()]),
            network_disabled: Some(true),
            labels: Some(labels_of_check(install, &look, &this_process()).into_iter().collect()),
            ..Default::default()
        };
        let made = self.ask("look into the image", SLOW, self.docker()?.create_container(None, body)).await?;
        Ok(made.id)
    }
}

/// The first file of a tar archive (POSIX ustar: 512-byte header, octal size at 124, type at 156). Empty when it is
/// not a regular file.
pub fn first_file(archive: &[u8]) -> Vec<u8> {
    let header = archive.get(..512);
    let size = header.and_then(|h| h.get(124..135)).and_then(|octal| {
        let text = std::str::from_utf8(octal).ok()?.trim_matches(['\0', ' ']);
        usize::from_str_radix(text, 8).ok()
    });
    let regular = header.and_then(|h| h.get(156)).is_some_and(|kind| matches!(kind, b'0' | 0));
    match size {
        Some(size) if regular => archive.get(512..512 + size).unwrap_or_default().to_vec(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut header = vec![0u8; 512];
        header[..6].copy_from_slice(b"passwd");
        header[124..136].copy_from_slice(format!("{:011o}\0", body.len()).as_bytes());
        header[156] = kind;
        header.extend_from_slice(body);
        header
    }

    #[test]
    fn only_a_regular_file_is_read_out_of_an_archive() {
        assert_eq!(first_file(&tar(b'0', b"root:x:0:0::/:/bin/sh\n")), b"root:x:0:0::/:/bin/sh\n");
        assert_eq!(first_file(&tar(b'2', b"")), b"");
        assert_eq!(first_file(b"short"), b"");
        let mut cut = tar(b'0', b"0123456789");
        cut.truncate(515);
        assert_eq!(first_file(&cut), b"");
    }
}
