//! A file system of its own for a directory that a box fills, in an image file beside the others of `state/volumes`.
//!
//! It is the kernel's limit, where the watchdog's is one of looking: a box that writes too much is told ENOSPC in the
//! same moment and goes on, the host's disk loses no more than the image may take, and what the box deletes is given
//! back (`discard` makes holes in the image). A mount outlives the host that made it, and the boxes in it do; after a
//! reboot it comes back with the group's next run.
//!
//! Nobody goes without the limit unknowingly. What cannot be had is a refusal; and the directory beneath the mount
//! can be entered by nobody but root, so that a box of an engine which does not see the mount (it lives in another
//! mount namespace) finds a locked door and not the host's disk.
//!
//! An image promises more than the disk may have. When the host's disk is full, writing in it fails like writing to a
//! disk that is broken: ext4 shuts itself, and is refused until somebody has made room and mounts it anew.

mod mounts;
mod tools;

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ipc_schema::untrusted_fs::UntrustedDir;
use rustix::fs::statvfs;
use rustix::mount::{UnmountFlags, unmount};

use crate::disk;
use crate::policy::disk_image::{limit_mib, shape};

/// Another run of the group, or `lazaret box check`, may be making the same one.
const LOCKED: Duration = Duration::from_secs(90);
const LOCK_AGAIN: Duration = Duration::from_millis(10);

/// Why a directory has no file system of its own.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Only root mounts.
    #[error(
        "disk images are mounted by root; run the host as root, or take limits.disk_images out of the settings"
    )]
    NotRoot,
    /// The kernel has none.
    #[error(
        "disk images need loop devices, and this machine has no /dev/loop-control; `modprobe loop`, or take limits.disk_images out of the settings"
    )]
    NoLoop,
    /// It is not installed.
    #[error(
        "disk images need {program}; install the packages e2fsprogs and mount, or take limits.disk_images out of the settings"
    )]
    NoProgram {
        /// Its name.
        program: &'static str,
    },
    /// Mounting over them would hide them.
    #[error(
        "{} holds files, and its disk image is not mounted over them: stop the host, move them away, start it and let the group run once, move them back", dir.display()
    )]
    Holds {
        /// Where.
        dir: PathBuf,
    },
    /// File systems in use are not made smaller.
    #[error(
        "{} was made for {made} MiB, and the settings say {wanted}: a disk image can grow, not shrink; set the limit back, or stop the host, copy the files out, unmount and remove the image, start it and copy them in", image.display()
    )]
    Shrinks {
        /// Which.
        image: PathBuf,
        /// For which limit it was made, in MiB.
        made: u64,
        /// What is asked for.
        wanted: u64,
    },
    /// It grows while nobody has it mounted.
    #[error(
        "the file system of {} was made for {made} MiB, and the settings say {wanted}: when no box of the group runs, `umount {}`, and it grows with the next run", dir.display(), dir.display()
    )]
    Grows {
        /// Where.
        dir: PathBuf,
        /// For which limit it was made, in MiB.
        made: u64,
        /// What is asked for.
        wanted: u64,
    },
    /// Somebody else mounted it.
    #[error("something else than {} is mounted at {}; unmount it", image.display(), dir.display())]
    Foreign {
        /// Where.
        dir: PathBuf,
        /// What should be there.
        image: PathBuf,
    },
    /// The kernel writes no more into it.
    #[error(
        "the file system of {} has shut itself after an error, mostly because the host's disk was full: make room, stop the host, `umount {}`, and start it", dir.display(), dir.display()
    )]
    Shut {
        /// Where.
        dir: PathBuf,
    },
    /// It did not grow.
    #[error("{} holds {mib} MiB and should hold {wanted}; stop the host, `umount` it, `e2fsck -fy {}`, and start it", image.display(), image.display())]
    Small {
        /// Which.
        image: PathBuf,
        /// What it holds, in MiB.
        mib: u64,
        /// What is asked for.
        wanted: u64,
    },
    /// The settings have none any more.
    #[error(
        "limits.disk_images is off, and the files are in {}: switch it on again; or stop the host, copy them out, unmount and remove the image, and copy them into {}", image.display(), dir.display()
    )]
    Off {
        /// Where it was.
        dir: PathBuf,
        /// Which.
        image: PathBuf,
    },
    /// A program of the system failed.
    #[error("{program} failed: {why}")]
    Program {
        /// Which.
        program: &'static str,
        /// How it ended, and what it said.
        why: String,
    },
    /// The system refused.
    #[error("{}: {why}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// What it said.
        why: String,
    },
}

impl VolumeError {
    /// The machine's word.
    #[expect(clippy::unused_self, reason = "errors are asked for their word the same way everywhere")]
    pub fn code(&self) -> &'static str {
        "disk.image"
    }

    fn io(path: &Path, e: impl ToString) -> Self {
        Self::Io { path: path.to_owned(), why: e.to_string() }
    }
}

/// A directory and the image that is mounted over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Where.
    pub dir: PathBuf,
    /// The file.
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
    /// Sees to it that the directory is a file system of its own, in which `limit` bytes are usable, and that the group
    /// `gid` may write it. Makes the image, lets it grow, and mounts it, whatever of that is left to do. Waits for the
    /// disk.
    ///
    /// # Errors
    /// What is in the way, with the fix. What was done until then stays, and the next call goes on from there.
    pub fn have(&self, limit: u64, gid: u32) -> Result<(), VolumeError> {
        let io = |e: io::Error| VolumeError::io(&self.dir, e);
        let lock = self.lock()?;
        if self.mounted()?.is_none() {
            let began = Instant::now();
            self.possible()?;
            if !disk::there(&self.image) {
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
        // The last part of a file system that has grown may be too small to be used.
        if usable < limit - limit / 16 {
            let (image, mib, wanted) = (self.image.clone(), usable >> 20, limit >> 20);
            return Err(VolumeError::Small { image, mib, wanted });
        }
        disk::shared_dir(&self.dir, gid, 0o2770).map_err(io)
    }

    /// Mounts the image if there is one and it is not mounted: for who only reads.
    ///
    /// # Errors
    /// As [`Volume::have`].
    pub fn open(&self) -> Result<(), VolumeError> {
        let readable = || match self.mounted() {
            Err(VolumeError::Shut { .. }) => Ok(true),
            mounted => mounted.map(|mount| mount.is_some()),
        };
        if !disk::there(&self.image) || readable()? {
            return Ok(());
        }
        let lock = self.lock()?;
        if readable()? {
            return Ok(());
        }
        self.possible()?;
        self.mount(&lock)
    }

    /// Takes the mount away, if there is one of this image.
    ///
    /// # Errors
    /// What umount(2) says: somebody may be standing in it.
    pub fn close(&self) -> Result<(), VolumeError> {
        match mounts::at(&resolved(&self.dir)).map_err(|e| VolumeError::io(&self.dir, e))? {
            Some(mount) if mount.image() == Some(resolved(&self.image)) => {
                unmount(&self.dir, UnmountFlags::NOFOLLOW).map_err(|e| VolumeError::io(&self.dir, e))
            }
            _ => Ok(()),
        }
    }

    /// Whether the directory can be had, as far as that can be told without doing anything.
    ///
    /// # Errors
    /// As [`Volume::have`].
    pub fn look(&self, limit: u64) -> Result<(), VolumeError> {
        let mounted = self.mounted()?.is_some();
        if !mounted {
            self.possible()?;
        }
        if disk::there(&self.image) {
            self.not_smaller(limit)?;
        }
        if mounted { self.not_larger(limit) } else { Ok(()) }
    }

    /// Where the settings have no image: that there is none with the group's files in it.
    ///
    /// # Errors
    /// [`VolumeError::Off`].
    pub fn absent(&self) -> Result<(), VolumeError> {
        if disk::there(&self.image) {
            return Err(VolumeError::Off { dir: self.dir.clone(), image: self.image.clone() });
        }
        Ok(())
    }

    /// Two that make one image would mount it twice.
    fn lock(&self) -> Result<File, VolumeError> {
        let path = self.image.with_extension("lock");
        let io = |e: io::Error| VolumeError::io(&path, e);
        disk::dir(path.parent().unwrap_or(Path::new("/")), 0o700).map_err(io)?;
        let lock =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path).map_err(io)?;
        let began = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::Error(e)) => return Err(io(e)),
                Err(TryLockError::WouldBlock) if began.elapsed() > LOCKED => {
                    let why = format!("somebody has been at work on it for {} seconds", LOCKED.as_secs());
                    return Err(VolumeError::io(&path, why));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_AGAIN),
            }
        }
    }

    /// The mount, if it is there, is ours, and can be written.
    fn mounted(&self) -> Result<Option<mounts::Mount>, VolumeError> {
        let found = mounts::at(&resolved(&self.dir)).map_err(|e| VolumeError::io(&self.dir, e))?;
        let Some(mount) = found else { return Ok(None) };
        if mount.image() != Some(resolved(&self.image)) {
            return Err(VolumeError::Foreign { dir: self.dir.clone(), image: self.image.clone() });
        }
        if mount.shut {
            return Err(VolumeError::Shut { dir: self.dir.clone() });
        }
        Ok(Some(mount))
    }

    /// What can be told before anything is made.
    fn possible(&self) -> Result<(), VolumeError> {
        let io = |e: io::Error| VolumeError::io(&self.dir, e);
        if !rustix::process::geteuid().is_root() {
            return Err(VolumeError::NotRoot);
        }
        if !disk::there(Path::new("/dev/loop-control")) {
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

    /// Makes the image under another name first: what has the name is whole.
    fn make(&self, limit: u64, gid: u32, lock: &File) -> Result<(), VolumeError> {
        let shape = shape(limit);
        let staged = disk::beside(&self.image, ".part");
        let io = |e: io::Error| VolumeError::io(&staged, e);
        disk::remove(&staged).map_err(io)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged).map_err(io)?;
        file.set_len(shape.bytes).map_err(io)?;
        let owner = format!("root_owner={}:{gid}", rustix::process::geteuid().as_raw());
        let (inodes, journal) = (shape.inodes.to_string(), format!("size={}", shape.journal_mib));
        let fixed = ["-q", "-F", "-m", "0", "-b", "4096", "-I", "256"];
        let own = ["-N", &inodes, "-J", &journal, "-E", &owner];
        let args = fixed.into_iter().chain(own).map(OsStr::new).chain([staged.as_os_str()]);
        let made = tools::run("mkfs.ext4", &args.collect::<Vec<_>>(), lock)
            .and_then(|()| file.sync_all().map_err(io))
            .and_then(|()| fs::rename(&staged, &self.image).map_err(io))
            .and_then(|()| disk::sync_dir(self.image.parent().unwrap_or(Path::new("/"))).map_err(io));
        made.inspect_err(|_| drop(disk::remove(&staged)))
    }

    fn mount(&self, lock: &File) -> Result<(), VolumeError> {
        let io = |e: io::Error| VolumeError::io(&self.dir, e);
        // A check of a file system in use would damage it, and a box may still have it mounted.
        if !mounts::is_attached(&resolved(&self.image)) {
            tools::run("e2fsck", &["-p".as_ref(), self.image.as_os_str()], lock)?;
        }
        disk::dir(&self.dir, 0o700).map_err(io)?;
        // Who does not see the mount does not get past this.
        let root = rustix::process::geteuid().as_raw();
        chown(&self.dir, Some(root), Some(0)).map_err(io)?;
        disk::dir(&self.dir, 0o000).map_err(io)?;
        let options = "loop,nosuid,nodev,discard,errors=remount-ro";
        let (image, dir) = (self.image.as_os_str(), self.dir.as_os_str());
        let args = ["-t".as_ref(), "ext4".as_ref(), "-o".as_ref(), options.as_ref(), image, dir];
        tools::run("mount", &args, lock)?;
        if self.mounted()?.is_none() {
            return Err(VolumeError::io(&self.dir, "it was mounted, and is not"));
        }
        // e2fsck makes it again when it needs it. To an agent it is a folder that it cannot look into.
        let _ = UntrustedDir::open(&self.dir).and_then(|dir| dir.unlink("lost+found".as_ref()));
        Ok(())
    }

    /// Nobody has it mounted. What the kernel can do while it is in use needs rights that not every root has.
    fn grow(&self, limit: u64, lock: &File) -> Result<(), VolumeError> {
        let io = |e: io::Error| VolumeError::io(&self.image, e);
        let wanted = shape(limit).bytes;
        // Also one whose growing was cut short: then the file has its size, and what is in it has not.
        if self.len()? >= wanted && self.made_for()? >= wanted {
            return Ok(());
        }
        if mounts::is_attached(&resolved(&self.image)) {
            return self.not_larger(limit);
        }
        let file = OpenOptions::new().write(true).open(&self.image).map_err(io)?;
        tools::run("e2fsck", &["-fp".as_ref(), self.image.as_os_str()], lock)?;
        file.set_len(wanted).map_err(io)?;
        tools::run("resize2fs", &[self.image.as_os_str()], lock)?;
        file.sync_all().map_err(io)
    }

    fn len(&self) -> Result<u64, VolumeError> {
        disk::size(&self.image).map_err(|e| VolumeError::io(&self.image, e))
    }

    /// The bytes that the file system in it knows of: its superblock stands a kilobyte from the beginning and holds the
    /// number of its blocks, the lower half at 4 and the upper one at 0x150.
    fn made_for(&self) -> Result<u64, VolumeError> {
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

/// Links in the way to a directory are in no table of mounts.
#[allow(clippy::disallowed_methods, reason = "a directory of the host's")]
fn resolved(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// What may be written in a file system all together.
fn usable(dir: &Path) -> Result<u64, VolumeError> {
    let told = statvfs(dir).map_err(|e| VolumeError::io(dir, e))?;
    Ok(told.f_blocks.saturating_mul(told.f_frsize))
}

#[cfg(test)]
mod tests;
