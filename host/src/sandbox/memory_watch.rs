//! Notices that the kernel killed a process of a box for lack of memory, from the box's control group. [`Engine::wait`]
//! uses it, because the engine can miss it: the engine removes the control group when the box ends, and then its own
//! report of the kill may be lost.
//!
//! Nobody can read a file of a removed control group, not even through an open descriptor (ENODEV). So the watch takes
//! the kernel's notifications while the box lives:
//!
//! - **Version 1** adds one to an eventfd for each lack of memory, and one when the control group is removed. A
//!   notification while the control group stands is a lack of memory; of two notifications, one is. The kernel counts
//!   before it kills, so the number is complete when the box has ended, however late the host reads it.
//! - **Version 2** changes `memory.events`. The watch reads the file at each change. It misses a kill only if the
//!   control group is removed before the host reads; then the engine's report remains.
//!
//! The host sees no control group of an engine on another machine or in another namespace, and only root may ask
//! version 1 for notifications. There is no watch then, and the engine's report decides.
//!
//! [`Engine::wait`]: super::Engine::wait

#![allow(clippy::disallowed_methods, reason = "control groups, which the kernel writes")]

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;
use tokio::net::unix::pipe::Receiver;

use super::procfs;

/// How long the watch waits for the notification of the removal, if it cannot know yet whether it has got it. A busy
/// kernel takes a tenth of this.
const REMOVAL: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct MemoryWatch {
    /// An eventfd or an inotify descriptor. Tokio waits for it like for a pipe.
    notifications: Receiver,
    /// The same. Tokio does not read before it has seen that there is something, and the end of a box does not wait.
    now: File,
    version: Version,
    /// `memory.oom_control` or `memory.events`.
    file: PathBuf,
    /// The notifications so far. One of them may be that of the removal.
    count: u64,
    killed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl MemoryWatch {
    /// Watches the control group of a box. `pid` is its first process.
    pub(super) fn of(pid: i64, container: &str) -> Option<Self> {
        let groups = procfs::groups(pid, container)?;
        procfs::group_dirs(&groups, "memory").find_map(|dir| Self::one(&dir).or_else(|| Self::two(&dir)))
    }

    fn one(group: &Path) -> Option<Self> {
        let file = group.join("memory.oom_control");
        let control = File::open(&file).ok()?;
        let notifications = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()?;
        let order = format!("{} {}", notifications.as_raw_fd(), control.as_raw_fd());
        let mut orders = OpenOptions::new().write(true).open(group.join("cgroup.event_control")).ok()?;
        orders.write_all(order.as_bytes()).ok()?;
        Self::new(notifications, Version::One, file)
    }

    fn two(group: &Path) -> Option<Self> {
        let file = group.join("memory.events");
        let notifications =
            inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok()?;
        inotify::add_watch(&notifications, &file, inotify::WatchFlags::MODIFY).ok()?;
        Self::new(notifications, Version::Two, file)
    }

    fn new(notifications: OwnedFd, version: Version, file: PathBuf) -> Option<Self> {
        let now = File::from(notifications.try_clone().ok()?);
        let notifications = Receiver::from_file_unchecked(File::from(notifications)).ok()?;
        let killed = kills(&fs::read_to_string(&file).ok()?) > 0;
        Some(Self { notifications, now, version, file, count: 0, killed })
    }

    /// Notes each notification. It never returns.
    pub(super) async fn follow(&mut self) {
        while self.notifications.readable().await.is_ok() {
            self.take();
        }
        std::future::pending().await
    }

    /// Notes the notifications that are there.
    fn take(&mut self) {
        let mut bytes = [0; 4096];
        let read = self.notifications.try_read(&mut bytes).or_else(|_| self.now.read(&mut bytes));
        if let Ok(read) = read {
            self.note(bytes.get(..read).unwrap_or_default());
        }
    }

    fn note(&mut self, bytes: &[u8]) {
        let now = fs::read_to_string(&self.file).ok();
        if self.version == Version::One {
            let more = bytes.first_chunk().map_or(0, |count| u64::from_ne_bytes(*count));
            self.count = self.count.saturating_add(more);
            self.killed |= self.count > 1 || (self.count == 1 && now.is_some());
        }
        self.killed |= now.is_some_and(|text| kills(&text) > 0);
    }

    /// Returns whether the kernel killed a process of the box, after the box has ended.
    pub(super) async fn has_killed(&mut self) -> bool {
        // Whatever came before the end is there now.
        self.take();
        if self.version == Version::One && self.count == 1 && !self.killed {
            let _ = tokio::time::timeout(REMOVAL, self.notifications.readable()).await;
            self.take();
        }
        self.killed
    }
}

/// Returns the number of killed processes in `memory.oom_control` or `memory.events`. Both have lines `name number`.
fn kills(text: &str) -> u64 {
    let number = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
    number.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: &str = "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n";

    /// A control group of version 1 that the test plays, and the kernel's side of its eventfd.
    fn one() -> (tempfile::TempDir, MemoryWatch, File) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("memory.oom_control");
        fs::write(&file, CALM).unwrap();
        let ours = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let kernels = File::from(ours.try_clone().unwrap());
        (dir, MemoryWatch::new(ours, Version::One, file).unwrap(), kernels)
    }

    fn notifies(kernel: &mut File) {
        kernel.write_all(&1_u64.to_ne_bytes()).unwrap();
    }

    #[test]
    fn the_counters_of_both_versions_are_read() {
        let events = "low 0\nhigh 0\nmax 1043\noom 3\noom_kill 2\noom_group_kill 0\n";
        assert_eq!((kills(events), kills(CALM)), (2, 0));
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 1\noom_kill 1\n"), 1);
        assert_eq!((kills("oom_kill"), kills(""), kills("oom_kill many\n")), (0, 0, 0));
    }

    #[tokio::test]
    async fn a_notification_while_the_control_group_stands_is_a_lack_of_memory() {
        let (_dir, mut watch, mut kernel) = one();
        notifies(&mut kernel);
        assert!(watch.has_killed().await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_notification_of_the_removal_is_none() {
        let (dir, mut watch, mut kernel) = one();
        drop(dir);
        assert!(!watch.has_killed().await, "nothing was notified");
        notifies(&mut kernel);
        assert!(!watch.has_killed().await);
    }

    #[tokio::test]
    async fn a_host_that_reads_late_counts() {
        let (dir, mut watch, mut kernel) = one();
        notifies(&mut kernel);
        drop(dir);
        notifies(&mut kernel);
        assert!(watch.has_killed().await, "one of the two was a lack of memory");

        let (dir, mut watch, mut kernel) = one();
        drop(dir);
        notifies(&mut kernel);
        let later = tokio::spawn(async move { notifies(&mut kernel) });
        assert!(watch.has_killed().await, "the removal is notified last");
        later.await.unwrap();
    }

    #[tokio::test]
    async fn version_two_is_read_at_each_change_and_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("memory.events");
        fs::write(&file, "max 0\noom_kill 0\n").unwrap();
        let mut watch = MemoryWatch::two(dir.path()).unwrap();
        fs::write(&file, "max 9\noom_kill 0\n").unwrap();
        assert!(!watch.has_killed().await, "the limit was reached, and nobody was killed");
        fs::write(&file, "max 9\noom_kill 1\n").unwrap();
        let _ = tokio::time::timeout(Duration::from_millis(50), watch.follow()).await;
        drop(dir);
        assert!(watch.has_killed().await);
    }

    #[test]
    fn there_is_no_watch_where_the_host_sees_no_control_group_of_the_box() {
        let own = std::process::id().into();
        assert!(MemoryWatch::of(own, "0123456789abcdef").is_none());
        assert!(MemoryWatch::of(0, "").is_none());
    }
}
