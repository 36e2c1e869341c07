//! One run, from the `begin` letter to the exit code. `main` calls it.
//!
//! It takes turn after turn until the host writes `_close`, and reports a fatal error in a `failed` letter.

use ipc_schema::letters::FromAgent;
use ipc_schema::letters::from_agent::{Activity, Failed, Ready, Status};
use ipc_schema::letters::to_agent::Begin;
use ipc_schema::{MINOR, RunId, TurnId};

use crate::box_paths::BoxPaths;
use crate::fatal::Fatal;
use crate::mailbox::Mailbox;
use crate::mailbox::inbox::Inbox;
use crate::mailbox::outbox::{Outbox, Transient, fit_to_letter};
use crate::model::Model;
use crate::tools::{Shell, Toolbox};
use crate::transcript::Transcript;
use crate::turn::decide::{self, Step};
use crate::turn::{Agent, TurnExit};

/// Performs one run and returns its exit code: 0 when the host closed it, 1 after a fatal error.
pub async fn run<M: Model>(paths: BoxPaths, model: impl FnOnce(&BoxPaths) -> M) -> u8 {
    let mut inbox = Inbox::open(paths.ipc_to_agent());
    let (run, begin) = match inbox.first().await {
        Ok(Some(begin)) => begin,
        Ok(None) => return 0,
        Err(fatal) => {
            let outbox = inbox.run_named_by_first().map(|run| Outbox::open(paths.ipc_from_agent(), run));
            return failed(outbox.and_then(Result::ok), &fatal).await;
        }
    };
    tracing::info!(%run, group = %begin.group, lane = begin.lane, session = begin.session, "the run starts");
    match prepare(&paths, run.clone(), inbox, begin, model) {
        Err(fatal) => failed(Outbox::open(paths.ipc_from_agent(), run).ok(), &fatal).await,
        Ok(mut agent) => match live(&mut agent).await {
            Ok(()) => 0,
            Err(fatal) => failed(Some(agent.mailbox.outbox), &fatal).await,
        },
    }
}

fn prepare<M: Model>(
    paths: &BoxPaths,
    run: RunId,
    inbox: Inbox,
    begin: Begin,
    model: impl FnOnce(&BoxPaths) -> M,
) -> Result<Agent<M>, Fatal> {
    if let Err(error) = std::fs::create_dir_all(paths.home()) {
        // Only commands need it.
        tracing::warn!(%error, "cannot create $HOME; commands may miss it");
    }
    let outbox = Outbox::open(paths.ipc_from_agent(), run)?;
    let mut transcript = Transcript::load(paths.session(), &begin.session)?;
    transcript.pass_over_numbers(begin.open.iter().flat_map(|open| &open.consumed));
    let mailbox = Mailbox::new(inbox, outbox, begin.closed.iter().copied());
    let tools = Toolbox::new(paths.clone(), Shell::probe(), begin.limits.clone());
    Ok(Agent::new(begin, mailbox, transcript, tools, model(paths), paths.socket()))
}

/// Repairs what an earlier run left, writes `ready`, then works on turn after turn until the host closes the run.
async fn live<M: Model>(agent: &mut Agent<M>) -> Result<(), Fatal> {
    let resumed = agent.repair()?;
    agent.mailbox.outbox.acknowledge(1);
    failpoint!("runner.ready.before");
    let ready = agent.ready(resumed);
    agent.mailbox.outbox.announce(FromAgent::Ready(ready)).await?;
    if let Some(turn) = resumed
        && resume(agent, turn).await? == TurnExit::Closing
    {
        return Ok(());
    }
    let mut said_idle = false;
    loop {
        agent.mailbox.receive_all().await?;
        if agent.mailbox.closing() {
            return Ok(());
        }
        match agent.mailbox.waiting_turn() {
            Some(turn) => {
                said_idle = false;
                if agent.work(turn).await? == TurnExit::Closing {
                    return Ok(());
                }
            }
            None => {
                if !said_idle {
                    agent.mailbox.outbox.write_transient(None, Transient::Status(IDLE));
                    said_idle = true;
                }
                agent.wait_idle().await?;
            }
        }
    }
}

pub const IDLE: Status = Status { state: Activity::Idle, tool: None, detail: None, deadline_s: None };

/// Repeats the letters of the open turn. If the transcript already holds the turn's end, it also writes `turn_done`;
/// otherwise the turn goes on with its first input, like any other.
///
/// `turn_done` waits for the turn's messages, which the host always writes again. Its `ack` says which of them it
/// answers; the host moves the others to the next turn.
async fn resume<M: Model>(agent: &mut Agent<M>, turn: TurnId) -> Result<TurnExit, Fatal> {
    tracing::info!(%turn, "resuming the open turn");
    agent.repeat(turn).await?;
    if !matches!(decide::next(&agent.transcript, turn), Step::Done(_)) {
        return Ok(TurnExit::Done);
    }
    let mailbox = &mut agent.mailbox;
    let input = async {
        while !mailbox.closing() && mailbox.waiting_turn() != Some(turn) {
            mailbox.receive().await?;
        }
        Ok(())
    };
    match input.await {
        Err(fatal) => Err(fatal),
        Ok(()) if agent.mailbox.closing() => Ok(TurnExit::Closing),
        Ok(()) => agent.work(turn).await,
    }
}

impl<M: Model> Agent<M> {
    fn ready(&self, resumes: Option<TurnId>) -> Ready {
        Ready {
            minor: MINOR,
            runner: env!("CARGO_PKG_VERSION").into(),
            arch: std::env::consts::ARCH.into(),
            shell: self.shell(),
            entries: self.transcript.entries().len() as u64,
            resumes,
            lost: self.transcript.lost(),
        }
    }
}

/// Writes the `failed` letter if it can, and returns the exit code.
async fn failed(outbox: Option<Outbox>, fatal: &Fatal) -> u8 {
    tracing::error!(code = fatal.code(), "{fatal}");
    let body = Failed { code: fatal.code().into(), reason: fit_to_letter(&fatal.to_string()) };
    if let Some(mut outbox) = outbox
        && let Err(error) = outbox.announce(FromAgent::Failed(body)).await
    {
        tracing::error!(%error, "cannot write the `failed` letter");
    }
    1
}
