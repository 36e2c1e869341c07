//! The one image: a static busybox, a link per applet, and `/etc/passwd`.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::NotServing;
use super::answer::Refused;

pub const NAME: &str = "lazaret-stand-in";

/// The image's id. The content never changes while a stand-in lives.
const ID: &str = "sha256:1a2a9e757a4d1100000000000000000000000000000000000000000000000000";
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n";
const BUSYBOX: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];

#[derive(Debug)]
pub(super) struct Image {
    dir: PathBuf,
}

impl Image {
    /// Creates the image below `dir`.
    pub(super) fn make(dir: &Path) -> Result<Self, NotServing> {
        let failed = |what: &str| {
            let what = format!("{what} of the image in {}", dir.display());
            move |e: std::io::Error| NotServing::new(what.clone(), e)
        };
        let source = static_busybox()?;
        let bin = dir.join("bin");
        std::fs::create_dir_all(&bin).map_err(failed("bin"))?;
        std::fs::copy(source, bin.join("busybox")).map_err(failed("busybox"))?;
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(bin.join("busybox"), executable).map_err(failed("busybox"))?;
        let applets = Command::new(source).arg("--list").output().map_err(failed("the applets"))?;
        for applet in String::from_utf8_lossy(&applets.stdout).lines().filter(|applet| *applet != "busybox") {
            let link = bin.join(applet);
            if !link.is_symlink() {
                symlink("busybox", link).map_err(failed(applet))?;
            }
        }
        std::fs::write(dir.join("passwd"), PASSWD).map_err(failed("passwd"))?;
        Ok(Self { dir: dir.to_owned() })
    }

    pub(super) fn bin(&self) -> PathBuf {
        self.dir.join("bin")
    }

    pub(super) fn passwd(&self) -> PathBuf {
        self.dir.join("passwd")
    }

    /// Finds the image by name, by name and tag, or by id.
    pub(super) fn named(name: &str) -> Result<&'static str, Refused> {
        let tagged = name.strip_suffix(":latest").unwrap_or(name);
        if tagged == NAME || name == ID || ID.strip_prefix("sha256:") == Some(name) {
            return Ok(ID);
        }
        let shown = if name.contains(':') { name.to_owned() } else { format!("{name}:latest") };
        Err(Refused::new(404, format!("No such image: {shown}")))
    }

    /// The answer to `GET /images/{name}/json`.
    pub(super) fn inspect(name: &str) -> Result<Value, Refused> {
        let id = Self::named(name)?;
        Ok(json!({
            "Id": id,
            "RepoTags": [format!("{NAME}:latest")],
            "Architecture": architecture(),
            "Os": "linux",
            "Config": { "Env": ["PATH=/bin:/usr/bin"], "Volumes": null, "Entrypoint": null, "Cmd": null },
        }))
    }

    /// Returns a file of the image in a tar archive.
    pub(super) fn archive(container: &str, path: &str) -> Result<Vec<u8>, Refused> {
        match path {
            "/etc/passwd" => Ok(tar("passwd", PASSWD.as_bytes())),
            other => {
                Err(Refused::new(404, format!("Could not find the file {other} in container {container}")))
            }
        }
    }
}

/// The engine's name of this machine's architecture.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn static_busybox() -> Result<&'static str, NotServing> {
    let install = "install it: `apt-get install busybox-static`";
    let found = BUSYBOX.into_iter().find(|path| Path::new(path).exists());
    let path = found.ok_or_else(|| NotServing::new("there is no /bin/busybox", install))?;
    let program = std::fs::read(path).map_err(|e| NotServing::new(path, e))?;
    // A dynamic program names its interpreter near its start, after the headers.
    let head = program.get(..4096).unwrap_or(&program);
    if head.windows(4).any(|w| w == b"/ld-") {
        return Err(NotServing::new(format!("{path} is not static"), install));
    }
    Ok(path)
}

/// Returns one file as POSIX ustar: a header of 512 bytes, the content, and zeros to the end of the archive.
fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = vec![0; 512];
    let mut put = |at: usize, text: &str| archive[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", content.len()));
    put(136, "00000000000\0");
    // The checksum is the sum of the header's bytes, with blanks in the checksum's own field.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = archive.iter().copied().map(u32::from).sum();
    archive[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_tar_program_reads_the_archive() {
        let mut tar = Command::new("tar")
            .args(["-xOf", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        tar.stdin.take().unwrap().write_all(&Image::archive("c", "/etc/passwd").unwrap()).unwrap();
        let output = tar.wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!(output.stdout, PASSWD.as_bytes());
    }

    #[test]
    fn the_image_has_a_name_a_tag_and_an_id() {
        for name in [NAME, "lazaret-stand-in:latest", ID] {
            assert_eq!(Image::named(name), Ok(ID));
        }
        assert_eq!(Image::named("python"), Err(Refused::new(404, "No such image: python:latest")));
    }
}
