//! What a turn, a run and a box may use.

use super::settings_macro::{Span, settings};

settings! {
    /// Limits of every run. A group's file may name others. Of what the machine has (memory, processors, processes,
    /// disk) a group may only take less.
    RunLimits / LimitsFile {
        /// How long a box listens for more messages after a turn; 0 gives one container per turn.
        idle_window: Span = Span::minutes(5);
        /// How long a turn may take.
        turn: Span = Span::minutes(15), in Span::seconds(1)..;
        /// How long a run may take.
        run: Span = Span::hours(6), in Span::seconds(1)..;
        /// How many times a turn may call the model.
        model_calls: u32 = 40, in 1..=1_000_000;
        /// How many turns a person who is no owner may begin in a chat in an hour; 0: any number. Further messages are
        /// kept as context for the next turn.
        sender_turns: u32 = 20, in 0..=1_000_000;
        /// How many turns a chat may have in an hour before only owners begin more; 0: any number.
        chat_turns: u32 = 60, in 0..=1_000_000;
        /// How many requests a turn may send to the host.
        requests: u32 = 200, in 0..=1_000_000;
        /// How much a turn may send before its last reply: parts of interim replies, files, questions, reactions and
        /// reminders.
        messages: u32 = 50, in 0..=1_000_000;
        /// How many active and paused tasks a group may have.
        tasks: u32 = 50, in 0..=10_000;
        /// The shortest time between two fires of a task.
        task_interval: Span = Span::minutes(1), in Span::seconds(60)..;
        /// How long a command may take when the model names no time.
        command: Span = Span::minutes(2), in Span::seconds(1)..;
        /// The longest time that the model may give a command.
        command_max: Span = Span::minutes(10), in Span::seconds(1)..;
        /// How many bytes of a command's output the model reads: the beginning and the end.
        output_bytes: u32 = 30_000, in 1..=16_777_216;
        /// Memory of a box, in MiB. There is no swap.
        memory_mib: u64 = 1024, in 32..=1_073_741_824, at_most_install;
        /// Processors of a box, in thousandths.
        milli_cpus: u64 = 1000, in 10..=10_000_000, at_most_install;
        /// Processes and threads of a box.
        pids: u32 = 256, in 16..=4_194_304, at_most_install;
        /// How much the letters in a box's letter directory may take at one time, in MiB.
        letters_mib: u64 = 16, in 1..=1_048_576, at_most_install;
        /// How many files may lie there at one time.
        letters_names: u64 = 4096, in 16..=1_000_000_000, at_most_install;
        /// How much a turn's letters may take all together, in MiB.
        turn_mib: u64 = 64, in 1..=1_048_576, at_most_install;
        /// How many letters, and files that are not letters, a turn may write.
        turn_letters: u64 = 10_000, in 16..=1_000_000_000, at_most_install;
        /// The size of a group's workspace, in MiB. The host ends a box that fills more, and tells the chat.
        workspace_mib: u64 = 2048, in 1..=1_073_741_824, at_most_install;
        /// The size of a group's transcripts, in MiB.
        session_mib: u64 = 256, in 1..=1_073_741_824, at_most_install;
        /// The size of the files that people have sent to a group, in MiB. The host removes the oldest first.
        inbox_mib: u64 = 1024, in 1..=1_073_741_824, at_most_install;
        /// Gives workspace and transcripts a file system each, of their limit's size. The kernel then refuses what does
        /// not fit, and the box goes on. Needs root, loop devices and `mkfs.ext4`.
        disk_images: bool = false;
    }
}

impl RunLimits {
    /// Bytes of memory; swap has the same limit, so there is none.
    pub fn memory(&self) -> u64 {
        mib(self.memory_mib)
    }
    /// What a box may leave in its letter directory at one time.
    pub fn letters(&self) -> Budget {
        Budget { bytes: mib(self.letters_mib), names: self.letters_names }
    }
    /// Bytes of all letters of a turn.
    pub fn turn_bytes(&self) -> u64 {
        mib(self.turn_mib)
    }
    /// Bytes of the workspace.
    pub fn workspace(&self) -> u64 {
        mib(self.workspace_mib)
    }
    /// Bytes of the transcripts.
    pub fn session(&self) -> u64 {
        mib(self.session_mib)
    }
    /// Bytes of the files that people have sent.
    pub fn inbox(&self) -> u64 {
        mib(self.inbox_mib)
    }
}

fn mib(n: u64) -> u64 {
    n.saturating_mul(1 << 20)
}

/// How much a directory may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Bytes on disk.
    pub bytes: u64,
    /// Names of any kind.
    pub names: u64,
}

settings! {
    /// Earlier messages that go along when a message wakes the agent.
    #[derive(Copy)]
    ContextLimits / ContextFile {
        /// At most this many messages, newest first.
        messages: usize = 50, in 0..=1_000_000;
        /// At most this many tokens, estimated as four bytes each.
        tokens: usize = 8_000, in 0..=100_000_000;
    }
}
