//! The list of all failpoints. `tests/tests/failpoints.rs` checks that the code has the same ones.

use Kind::{Call, Disk, Step};
use Side::{Host, Runner};

/// The actions that are possible at a failpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Lies between two steps: it can kill, delay or panic.
    Step,
    /// Lies before a step that can fail: it can also return the step's own error.
    Call,
    /// Lies before a write to the disk: it can also return ENOSPC and EIO.
    Disk,
}

/// The program that contains a failpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The host.
    Host,
    /// The runner.
    Runner,
}

/// A failpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// `module.step.when`
    pub name: &'static str,
    /// The program that contains it.
    pub side: Side,
    /// The actions that are possible at it.
    pub kind: Kind,
}

const fn host(name: &'static str, kind: Kind) -> Point {
    Point { name, side: Host, kind }
}

const fn runner(name: &'static str, kind: Kind) -> Point {
    Point { name, side: Runner, kind }
}

/// All failpoints, in the order in which a message reaches them.
pub const TABLE: &[Point] = &[
    host("channel.poll.before", Call),
    host("channel.poll.after", Step),
    host("store.tx1.begin", Disk),
    host("store.tx1.before_commit", Step),
    host("store.tx1.committed", Step),
    host("channel.committed.before", Step),
    host("channel.committed.after", Step),
    host("intake.announce.before", Step),
    host("store.commit.before", Disk),
    host("store.commit.after", Step),
    host("store.new_run.begin", Disk),
    host("store.new_run.committed", Step),
    host("sandbox.image.before", Call),
    host("run.launch.mailbox", Step),
    host("store.letter.begin", Disk),
    host("store.letter.committed", Step),
    host("mailbox.write.before", Disk),
    host("mailbox.write.after", Step),
    host("run.session.taken", Step),
    host("run.launch.begin", Step),
    host("run.launch.socket", Step),
    host("sandbox.list.before", Call),
    host("sandbox.create.before", Call),
    host("sandbox.create.after", Step),
    host("run.launch.noted", Step),
    host("sandbox.start.before", Call),
    host("sandbox.start.after", Step),
    host("store.input.begin", Disk),
    host("store.input.committed", Step),
    host("run.attachment.kept", Step),
    host("run.event", Step),
    host("run.disk.look", Step),
    host("run.input.written", Step),
    host("gateway.accept.after", Step),
    host("gateway.upstream.before", Call),
    host("gateway.upstream.after", Step),
    host("gateway.stream.chunk", Step),
    host("gateway.book.before", Step),
    host("mailbox.list.before", Disk),
    host("mailbox.read.before", Step),
    host("store.tx2.begin", Disk),
    host("store.tx2.before_commit", Step),
    host("store.tx2.committed", Step),
    host("mailbox.keep.before", Step),
    host("mailbox.unlink.before", Step),
    host("mailbox.unlink.after", Step),
    host("run.request.before", Step),
    host("run.react.before", Step),
    host("run.request.performed", Step),
    host("store.verdict.begin", Disk),
    host("run.request.answered", Step),
    host("run.turn_over.before", Step),
    host("delivery.look", Step),
    host("store.claim.begin", Disk),
    host("store.claim.committed", Step),
    host("delivery.send.before", Call),
    host("delivery.send.after", Step),
    host("delivery.draft.before", Step),
    host("delivery.mark.before", Step),
    host("delivery.mark.after", Step),
    host("store.tx3.begin", Disk),
    host("store.tx3.before_commit", Step),
    host("store.tx3.committed", Step),
    host("run.close.written", Step),
    host("sandbox.signal.before", Call),
    host("sandbox.log.before", Call),
    host("run.collect.letters", Step),
    host("sandbox.remove.before", Call),
    host("sandbox.remove.after", Step),
    host("store.collect.begin", Disk),
    host("store.collect.committed", Step),
    host("supervisor.recover.begin", Step),
    host("supervisor.recover.run", Step),
    host("run.adopt.letter", Step),
    host("run.adopt.socket", Step),
    host("supervisor.recover.sweep", Step),
    host("supervisor.recover.turns", Step),
    host("daemon.recover.sending", Step),
    host("daemon.recover.commands", Step),
    host("run.adopt.caught_up", Step),
    host("sandbox.state.before", Call),
    host("run.reap.box", Step),
    host("run.clear.before", Step),
    host("supervisor.event", Step),
    host("supervisor.task.before", Step),
    host("supervisor.model.chosen", Step),
    host("supervisor.command.answered", Step),
    host("store.answer.begin", Disk),
    host("store.answer.committed", Step),
    host("store.task.add", Disk),
    host("store.task.change", Disk),
    host("scheduler.look", Step),
    host("store.fires.plan", Disk),
    host("store.fires.planned", Step),
    host("scheduler.planned", Step),
    host("store.fires.open", Disk),
    host("store.fires.opened", Step),
    host("scheduler.opened", Step),
    host("maintenance.disk.look", Step),
    host("maintenance.nightly.look", Step),
    runner("runner.ready.before", Step),
    runner("runner.append.before", Disk),
    runner("runner.append.written", Step),
    runner("runner.append.synced", Step),
    runner("runner.letter.before", Disk),
    runner("runner.letter.after", Step),
    runner("runner.gate.before", Step),
    runner("runner.gate.after", Step),
    runner("runner.input.taken", Step),
    runner("runner.model.before", Step),
    runner("runner.model.after", Step),
    runner("runner.tool.before", Step),
    runner("runner.tool.after", Step),
    runner("runner.request.before", Step),
    runner("runner.permission.granted", Step),
    runner("runner.turn_done.before", Step),
    runner("runner.turn_done.after", Step),
    runner("runner.compact.archived", Step),
    runner("runner.compact.written", Disk),
    runner("runner.compact.replaced", Step),
    runner("runner.close.seen", Step),
];
