//! Numbers, each with its default; `lazaret config show` prints them.

use std::time::Duration;

/// What one turn and one run may do. One value per group: the install's, narrowed by the group's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunLimits {
    /// A listening box is closed after this much quiet; zero means one box per turn.
    pub idle_window: Duration,
    /// A turn's time.
    pub turn: Duration,
    /// A run's time.
    pub run: Duration,
    /// Model calls per turn.
    pub model_calls: u32,
    /// Requests to the host per turn.
    pub requests: u32,
    /// Interim replies per turn.
    pub messages: u32,
    /// A command's time when the model names none.
    pub command: Duration,
    /// The longest time the model may ask for.
    pub command_max: Duration,
    /// Bytes of a command's output that reach the model.
    pub output_bytes: u32,
    /// Memory of the box in bytes; swap is the same number, so there is none.
    pub memory: u64,
    /// Processors of the box, in thousandths.
    pub milli_cpus: u64,
    /// Processes and threads in the box.
    pub pids: u32,
    /// What the box may leave in from-agent at one time.
    pub letters: Budget,
    /// Bytes of letters that a turn may write, all together.
    pub turn_bytes: u64,
    /// Letters, and files that are none, that a turn may write.
    pub turn_letters: u64,
    /// Bytes of the group's workspace.
    pub workspace: u64,
    /// Bytes of the group's transcripts.
    pub session: u64,
    /// Bytes of the files that people have sent to the group.
    pub inbox: u64,
    /// Whether workspace and transcripts are each a file system of its own, of that size.
    pub disk_images: bool,
}

impl Default for RunLimits {
    fn default() -> Self {
        Self {
            idle_window: Duration::from_secs(5 * 60),
            turn: Duration::from_secs(15 * 60),
            run: Duration::from_secs(6 * 3600),
            model_calls: 40,
            requests: 200,
            messages: 50,
            command: Duration::from_secs(120),
            command_max: Duration::from_secs(600),
            output_bytes: 30_000,
            memory: 1 << 30,
            milli_cpus: 1000,
            pids: 256,
            letters: Budget { bytes: 16 << 20, names: 4096 },
            turn_bytes: 64 << 20,
            turn_letters: 10_000,
            workspace: 2 << 30,
            session: 256 << 20,
            inbox: 1 << 30,
            disk_images: false,
        }
    }
}

/// Room in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Bytes on disk.
    pub bytes: u64,
    /// Names of any kind.
    pub names: u64,
}

/// How much of the unanswered talk goes with a wake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContextLimits {
    /// At most this many messages, newest first.
    pub messages: usize,
    /// At most this many tokens, estimated as four bytes each.
    pub tokens: usize,
}

impl Default for ContextLimits {
    fn default() -> Self {
        Self { messages: 50, tokens: 8_000 }
    }
}
