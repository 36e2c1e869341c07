//! Reads the kernel's table of mounts and the files behind loop devices.

#![allow(clippy::disallowed_methods, reason = "/proc and /sys, which the kernel writes")]

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) dir: PathBuf,
    /// The block device's numbers, such as `7:0`.
    pub(super) numbers: String,
    /// Whether it is read-only. ext4 becomes read-only after an error of the disk beneath it, such as a full one, and
    /// reports that here and not in statvfs(3).
    pub(super) shut: bool,
}

impl Mount {
    /// The file behind its loop device.
    pub(super) fn image(&self) -> Option<PathBuf> {
        backing(&Path::new("/sys/dev/block").join(&self.numbers))
    }
}

/// The topmost mount at a directory. `dir` must not contain links.
pub(super) fn at(dir: &Path) -> io::Result<Option<Mount>> {
    Ok(all()?.into_iter().rfind(|mount| mount.dir == dir))
}

fn all() -> io::Result<Vec<Mount>> {
    let table = fs::read("/proc/self/mountinfo")?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(read).collect())
}

/// Whether a loop device has this file open, in any mount namespace. A box has its own mounts.
pub(super) fn is_attached(image: &Path) -> bool {
    let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    devices.filter_map(|device| backing(&device.path())).any(|file| file == image)
}

fn backing(device: &Path) -> Option<PathBuf> {
    let mut name = fs::read(device.join("loop/backing_file")).ok()?;
    name.pop_if(|last| *last == b'\n');
    Some(OsString::from_vec(name).into())
}

/// Parses a line of proc_pid_mountinfo(5): `36 35 98:0 / /mnt rw,noatime shared:1 - ext4 /dev/root rw,errors=continue`.
fn read(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let numbers = String::from_utf8(fields.nth(2)?.to_vec()).ok()?;
    let dir = unescaped(fields.nth(1)?);
    let own = fields.next()?.to_vec();
    let mut after = fields.skip_while(|field| *field != b"-").skip(2);
    let options = after.nth(1)?;
    let says = |list: &[u8], word: &[u8]| list.split(|byte| *byte == b',').any(|option| option == word);
    let shut = says(&own, b"ro") || says(options, b"ro") || says(options, b"emergency_ro");
    Some(Mount { dir, numbers, shut })
}

/// Decodes space, tab, line feed and backslash, which the kernel writes as three octal digits: `\040`.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, more)) = rest.split_first() {
        let digits = more.get(..3).filter(|_| *first == b'\\').and_then(|d| std::str::from_utf8(d).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = more.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read_with_its_escapes() {
        let line = br"44 27 7:0 / /srv/our\040agent/state/workspaces/main rw,nosuid shared:1 master:2 - ext4 /dev/loop0 rw,discard";
        let mount = read(line).unwrap();
        assert_eq!(mount.dir, Path::new("/srv/our agent/state/workspaces/main"));
        assert!(mount.numbers == "7:0" && !mount.shut);
        for shut in [
            "1 2 7:0 / /a rw - ext4 /dev/loop0 rw,emergency_ro,discard",
            "1 2 7:0 / /a ro - ext4 /dev/loop0 rw",
        ] {
            assert!(read(shut.as_bytes()).unwrap().shut, "{shut}");
        }
        assert_eq!(read(b""), None);
        assert!(at(Path::new("/proc")).unwrap().is_some());
        assert_eq!(at(Path::new("/proc/self")).unwrap(), None);
    }
}
