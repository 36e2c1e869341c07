//! Mounts a disk image over a directory to which a box writes, so that the kernel limits its size. `run` mounts a
//! group's images before its box starts. `cli` and `backup` open them to read. The image files are in `state/volumes`.
//!
//! A box that writes too much gets ENOSPC at once and goes on. The host's disk loses at most the image's size. Deleted
//! files give their space back, because `discard` makes holes in the image. Without an image the disk watch only
//! measures from time to time. A mount remains when the host ends, because the boxes remain too. After a reboot the
//! group's next run mounts the image again.
//!
//! No box runs without a limit that the settings ask for: if the host cannot mount the image, it refuses the run. Only
//! root may enter the directory beneath the mount. An engine in another mount namespace does not see the mount, so its
//! box gets that locked directory and not the host's disk.
//!
//! The images together may be larger than the disk. When the host's disk is full, a write into an image fails like a
//! disk error, and ext4 becomes read-only. The host then refuses the image until somebody has made room and unmounted
//! it.

mod mount_table;
mod run_program;

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ipc_schema::untrusted_fs::UntrustedDir;
use rustix::fs::statvfs;
use rustix::mount::{UnmountFlags, unmount};

use crate::host_files;
use crate::policy::disk_image::{limit_mib, shape};

/// How long to wait for another process that works on the same image: another run of the group, or
/// `lazaret box check`.
const LOCKED: Duration = Duration::from_secs(90);
const LOCK_AGAIN: Duration = Duration::from_millis(10);

#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error(
        "disk images are mounted by root; run the host as root, or take limits.disk_images out of the settings"
    )]
    NotRoot,
    #[error(
        "disk images need loop devices, and this machine has no /dev/loop-control; `modprobe loop`, or take limits.disk_images out of the settings"
    )]
    NoLoop,
    #[error(
        "disk images need {program}; install the packages e2fsprogs and mount, or take limits.disk_images out of the settings"
    )]
    NoProgram { program: &'static str },
    /// A mount would hide these files.
    #[error(
        "{} holds files, and its disk image is not mounted over them: stop the host, move them away, start it and let the group run once, move them back", dir.display()
    )]
    Holds { dir: PathBuf },
    /// The host does not shrink a file system, because it has files.
    #[error(
        "{} was made for {made} MiB, and the settings say {wanted}: a disk image can grow, not shrink; set the limit back, or stop the host, copy the files out, unmount and remove the image, start it and copy them in", image.display()
    )]
    Shrinks {
        image: PathBuf,
        /// The limits, in MiB.
        made: u64,
        wanted: u64,
    },
    /// The file system can grow only while it is not mounted.
    #[error(
        "the file system of {} was made for {made} MiB, and the settings say {wanted}: when no box of the group runs, `umount {}`, and it grows with the next run", dir.display(), dir.display()
    )]
    Grows {
        dir: PathBuf,
        /// The limits, in MiB.
        made: u64,
        wanted: u64,
    },
    #[error("something else than {} is mounted at {}; unmount it", image.display(), dir.display())]
    Foreign { dir: PathBuf, image: PathBuf },
    #[error(
        "the file system of {} has shut itself after an error, mostly because the host's disk was full: make room, stop the host, `umount {}`, and start it", dir.display(), dir.display()
    )]
    Shut { dir: PathBuf },
    /// The file system did not grow.
    #[error("{} holds {mib} MiB and should hold {wanted}; stop the host, `umount` it, `e2fsck -fy {}`, and start it", image.display(), image.display())]
    Small { image: PathBuf, mib: u64, wanted: u64 },
    /// The settings do not ask for an image any more.
    #[error(
        "limits.disk_images is off, and the files are in {}: switch it on again; or stop the host, copy them out, unmount and remove the image, and copy them into {}", image.display(), dir.display()
    )]
    Off { dir: PathBuf, image: PathBuf },
    #[error("{program} failed: {why}")]
    Program { program: &'static str, why: String },
    #[error("{}: {why}", path.display())]
    Io { path: PathBuf, why: String },
}

impl VolumeError {
    #[expect(clippy::unused_self, reason = "every error type has this method")]
    pub fn code(&self) -> &'static str {
        "disk.image"
    }

    fn io(path: &Path, e: impl ToString) -> Self {
        Self::Io { path: path.to_owned(), why: e.to_string() }
    }
}

/// A directory and the disk image that is mounted over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    pub dir: PathBuf,
    pub image: PathBuf,
}

impl From<(PathBuf, PathBuf)> for Volume {
    fn from((dir, image): (PathBuf, PathBuf)) -> Self {
        Self { dir, image }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "images, and the host's directories that they are mounted over; what lies in one goes through untrusted_fs"
)]
impl Volume {
    /// Mounts the image over the directory, with `limit` usable bytes, writable by Unix group `gid`. If necessary it
    /// first makes the image or lets it grow. It blocks on the disk.
    ///
    /// # Errors
    /// What prevents it, with the fix. Another call continues after the steps that succeeded.
    pub fn ensure_mounted(&self, limit: u64, gid: u32) -> Result<(), VolumeError> {
        let io = |e: io::Error| VolumeError::io(&self.dir, e);
        let lock = self.lock()?;
        if self.mounted()?.is_none() {
            let began = Instant::now();
            self.check_prerequisites()?;
            if !host_files::there(&self.image) {
                self.make(limit, gid, &lock)?;
            }
            self.not_smaller(limit)?;
            self.grow(limit, &lock)?;
            self.mount(&lock)?;
            let (image, mib) = (self.image.display(), limit >> 20);
            tracing::info!(%image, mib, ms = began.elapsed().as_millis(), "a disk image is mounted");
        }
        self.not_smaller(limit)?;
        self.not_larger(limit)?;
        let usable = usable(&self.dir)?;
        // ext4 may leave the last part of a grown file system unused, if that part is too small.
        if usable < limit - limit / 16 {
            let (image, mib, wanted) = (self.image.clone(), usable >> 20, limit >> 20);
            return Err(VolumeError::Small { image, mib, wanted });
        }
        host_files::shared_dir(&self.dir, gid, 0o2770).map_err(io)
    }

    /// Mounts an existing image to read from it, unless it is mounted.
    ///
    /// # Errors
    /// As [`Volume::ensure_mounted`].
    pub fn open(&self) -> Result<(), VolumeError> {
        let readable = || match self.mounted() {
            Err(VolumeError::Shut { .. }) => Ok(true),
            mounted => mounted.map(|mount| mount.is_some()),
        };
        if !host_files::there(&self.image) || readable()? {
            return Ok(());
        }
        let lock = self.lock()?;
        if readable()? {
            return Ok(());
        }
        self.check_prerequisites()?;
        self.mount(&lock)
    }

    /// Unmounts the image, if it is mounted.
    ///
    /// # Errors
    /// umount(2) fails, for instance because a process uses the image.
    pub fn close(&self) -> Result<(), VolumeError> {
        match mount_table::at(&resolved(&self.dir)).map_err(|e| VolumeError::io(&self.dir, e))? {
            Some(mount) if mount.image() == Some(resolved(&self.image)) => {
                unmount(&self.dir, UnmountFlags::NOFOLLOW).map_err(|e| VolumeError::io(&self.dir, e))
            }
            _ => Ok(()),
        }
    }

    /// Checks whether the image can be mounted. It changes nothing.
    ///
    /// # Errors
    /// As [`Volume::ensure_mounted`].
    pub fn check(&self, limit: u64) -> Result<(), VolumeError> {
        let mounted = self.mounted()?.is_some();
        if !mounted {
            self.check_prerequisites()?;
        }
        if host_files::there(&self.image) {
            self.not_smaller(limit)?;
        }
        if mounted { self.not_larger(limit) } else { Ok(()) }
    }

    /// Checks that no image contains the group's files. For settings without images.
    ///
    /// # Errors
    /// [`VolumeError::Off`].
    pub fn check_absent(&self) -> Result<(), VolumeError> {
        if host_files::there(&self.image) {
            return Err(VolumeError::Off { dir: self.dir.clone(), image: self.image.clone() });
        }
        Ok(())
    }

    /// Without the lock two processes could mount one image twice.
    fn lock(&self) -> Result<File, VolumeError> {
        let path = self.image.with_extension("lock");
        let io = |e: io::Error| VolumeError::io(&path, e);
        host_files::dir(path.parent().unwrap_or(Path::new("/")), 0o700).map_err(io)?;
        let lock =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path).map_err(io)?;
        let began = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::Error(e)) => return Err(io(e)),
                Err(TryLockError::WouldBlock) if began.elapsed() > LOCKED => {
                    let why = format!("another process has held it for {} seconds", LOCKED.as_secs());
                    return Err(VolumeError::io(&path, why));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_AGAIN),
            }
        }
    }

    /// The image's mount, if it is mounted. It is an error if something else is mounted there, or if the mount is
    /// read-only.
    fn mounted(&self) -> Result<Option<mount_table::Mount>, VolumeError> {
        let found = mount_table::at(&resolved(&self.dir)).map_err(|e| VolumeError::io(&self.dir, e))?;
        let Some(mount) = found else { return Ok(None) };
        if mount.image() != Some(resolved(&self.image)) {
            return Err(VolumeError::Foreign { dir: self.dir.clone(), image: self.image.clone() });
        }
        if mount.shut {
            return Err(VolumeError::Shut { dir: self.dir.clone() });
        }
        Ok(Some(mount))
    }

    /// Checks what the host needs to make or mount the image.
    fn check_prerequisites(&self) -> Result<(), VolumeError> {
        let io = |e: io::Error| VolumeError::io(&self.dir, e);
        if !rustix::process::geteuid().is_root() {
            return Err(VolumeError::NotRoot);
        }
        if !host_files::there(Path::new("/dev/loop-control")) {
            return Err(VolumeError::NoLoop);
        }
        match UntrustedDir::open(&self.dir) {
            Ok(dir) if dir.names(1).map_err(io)?.names.is_empty() => Ok(()),
            Ok(_) => Err(VolumeError::Holds { dir: self.dir.clone() }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(io(e)),
        }
    }

    fn not_smaller(&self, limit: u64) -> Result<(), VolumeError> {
        let len = self.len()?;
        if len > shape(limit).bytes {
            let (image, made, wanted) = (self.image.clone(), limit_mib(len), limit >> 20);
            return Err(VolumeError::Shrinks { image, made, wanted });
        }
        Ok(())
    }

    fn not_larger(&self, limit: u64) -> Result<(), VolumeError> {
        let len = self.len()?;
        if len < shape(limit).bytes {
            let (dir, made, wanted) = (self.dir.clone(), limit_mib(len), limit >> 20);
            return Err(VolumeError::Grows { dir, made, wanted });
        }
        Ok(())
    }

    /// Makes the image under another name and renames it, so that a file with this name is always complete.
    fn make(&self, limit: u64, gid: u32, lock: &File) -> Result<(), VolumeError> {
        let shape = shape(limit);
        let staged = host_files::beside(&self.image, ".part");
        let io = |e: io::Error| VolumeError::io(&staged, e);
        host_files::remove(&staged).map_err(io)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged).map_err(io)?;
        file.set_len(shape.bytes).map_err(io)?;
        let owner = format!("root_owner={}:{gid}", rustix::process::geteuid().as_raw());
        let (inodes, journal) = (shape.inodes.to_string(), format!("size={}", shape.journal_mib));
        let fixed = ["-q", "-F", "-m", "0", "-b", "4096", "-I", "256"];
        let own = ["-N", &inodes, "-J", &journal, "-E", &owner];
        let args = fixed.into_iter().chain(own).map(OsStr::new).chain([staged.as_os_str()]);
        let made = run_program::run("mkfs.ext4", &args.collect::<Vec<_>>(), lock)
            .and_then(|()| file.sync_all().map_err(io))
            .and_then(|()| fs::rename(&staged, &self.image).map_err(io))
            .and_then(|()| host_files::sync_dir(self.image.parent().unwrap_or(Path::new("/"))).map_err(io));
        made.inspect_err(|_| drop(host_files::remove(&staged)))
    }

    fn mount(&self, lock: &File) -> Result<(), VolumeError> {
        let io = |e: io::Error| VolumeError::io(&self.dir, e);
        // e2fsck would damage a mounted file system, and a box may still have it mounted.
        if !mount_table::is_attached(&resolved(&self.image)) {
            run_program::run("e2fsck", &["-p".as_ref(), self.image.as_os_str()], lock)?;
        }
        host_files::dir(&self.dir, 0o700).map_err(io)?;
        // A box that does not see the mount must not write into the directory beneath it.
        let root = rustix::process::geteuid().as_raw();
        chown(&self.dir, Some(root), Some(0)).map_err(io)?;
        host_files::dir(&self.dir, 0o000).map_err(io)?;
        let options = "loop,nosuid,nodev,discard,errors=remount-ro";
        let (image, dir) = (self.image.as_os_str(), self.dir.as_os_str());
        let args = ["-t".as_ref(), "ext4".as_ref(), "-o".as_ref(), options.as_ref(), image, dir];
        run_program::run("mount", &args, lock)?;
        if self.mounted()?.is_none() {
            return Err(VolumeError::io(&self.dir, "mount(8) succeeded, but nothing is mounted"));
        }
        // Removes a folder that an agent could not open. e2fsck makes it again if it needs it.
        let _ = UntrustedDir::open(&self.dir).and_then(|dir| dir.unlink("lost+found".as_ref()));
        Ok(())
    }

    /// Grows an image that is not mounted. To grow a mounted one, root needs capabilities that it does not always
    /// have.
    fn grow(&self, limit: u64, lock: &File) -> Result<(), VolumeError> {
        let io = |e: io::Error| VolumeError::io(&self.image, e);
        let wanted = shape(limit).bytes;
        // After an interrupted growth the file has its new size, and the file system in it has the old one.
        if self.len()? >= wanted && self.file_system_bytes()? >= wanted {
            return Ok(());
        }
        if mount_table::is_attached(&resolved(&self.image)) {
            return self.not_larger(limit);
        }
        let file = OpenOptions::new().write(true).open(&self.image).map_err(io)?;
        run_program::run("e2fsck", &["-fp".as_ref(), self.image.as_os_str()], lock)?;
        file.set_len(wanted).map_err(io)?;
        run_program::run("resize2fs", &[self.image.as_os_str()], lock)?;
        file.sync_all().map_err(io)
    }

    fn len(&self) -> Result<u64, VolumeError> {
        host_files::size(&self.image).map_err(|e| VolumeError::io(&self.image, e))
    }

    /// The size of the file system in the image. Its superblock begins at 1 KiB and holds the number of blocks, the
    /// lower half at 4 and the upper half at 0x150.
    fn file_system_bytes(&self) -> Result<u64, VolumeError> {
        let io = |e: io::Error| VolumeError::io(&self.image, e);
        let file = File::open(&self.image).map_err(io)?;
        let half = |at: u64| {
            let mut bytes = [0; 4];
            file.read_exact_at(&mut bytes, 1024 + at).map(|()| u64::from(u32::from_le_bytes(bytes)))
        };
        let (lower, upper) = (half(4).map_err(io)?, half(0x150).map_err(io)?);
        Ok((upper << 32 | lower).saturating_mul(4096))
    }
}

/// The kernel's table of mounts contains paths without links.
#[allow(clippy::disallowed_methods, reason = "a directory of the host's")]
fn resolved(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// The usable size of a file system.
fn usable(dir: &Path) -> Result<u64, VolumeError> {
    let told = statvfs(dir).map_err(|e| VolumeError::io(dir, e))?;
    Ok(told.f_blocks.saturating_mul(told.f_frsize))
}

#[cfg(test)]
mod tests;
