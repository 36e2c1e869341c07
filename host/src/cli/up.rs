//! `lazaret up` runs the host in the foreground. With `--chat` it also runs a chat on this terminal.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{CliError, Done, Here, chat};
use crate::daemon::Host;
use crate::dispatch::Unfinished;
use crate::domain::GroupName;

/// After the second signal, the host waits this long for the engine.
const END_NOW: Duration = Duration::from_secs(15);

/// Run the host in the foreground.
#[derive(Debug, Args)]
pub struct Up {
    /// Chat on this terminal as well; the host ends with the chat. With text on standard input, each line is one turn.
    #[arg(long)]
    pub chat: bool,
}

pub(super) async fn run(here: &Here, up: &Up) -> Done {
    #[cfg(feature = "failpoints")]
    ::failpoint::arm_by_environment().map_err(CliError::Plain)?;
    let mut host = Host::start(here.root.clone(), &here.env).await?;
    let mut signals = Signals::new()?;
    let install = &host.services.install;
    tracing::info!(root = %here.root.path().display(), model = %install.model.model, "lazaret is up");
    let mut code = ExitCode::SUCCESS;
    let chatting = async {
        match up.chat {
            true => chat::talk_to(here, GroupName::main()).await,
            false => std::future::pending().await,
        }
    };
    let damaged = host.damaged();
    tokio::select! {
        ended = chatting => code = ended?,
        () = signals.next() => {}
        // The store has printed what is wrong and which command repairs it.
        () = damaged => code = ExitCode::FAILURE,
        () = host.collapsed() => return Ok(ExitCode::FAILURE),
    }
    // A host with a chat belongs to a person's session and leaves nothing behind. Any other host is restarted, and its
    // boxes run on.
    host.drain(if up.chat { Unfinished::Closes } else { Unfinished::GoesOn });
    let end_now = host.ender();
    let drained = host.drained();
    tokio::pin!(drained);
    tokio::select! {
        () = &mut drained => return Ok(code),
        () = signals.next() => end_now(),
    }
    // An engine that does not answer must not hold up the host. The next host removes what still runs.
    match tokio::time::timeout(END_NOW, drained).await {
        Ok(()) => Ok(code),
        Err(_) => Err(CliError::Plain(
            "the engine did not end every box in time; the next start removes them".into(),
        )),
    }
}

/// The host treats SIGTERM and SIGINT alike.
struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> Result<Self, CliError> {
        let listen =
            |kind| signal(kind).map_err(|e| CliError::Plain(format!("signals cannot be heard: {e}")));
        Ok(Self { term: listen(SignalKind::terminate())?, int: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
