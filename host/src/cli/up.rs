//! `lazaret up` runs the host in the foreground. With `--chat` it also runs a chat on this terminal.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{CliError, Done, Here, chat};
use crate::backup;
use crate::clock::Clock;
use crate::config::{Install, running_settings};
use crate::daemon::{self, Host};
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
    /// Begin with an empty database and no files of agents. What there was stays, as `state.before-TIME`.
    #[arg(long)]
    pub begin_anew: bool,
}

pub(super) async fn run(here: &Here, up: &Up) -> Done {
    #[cfg(feature = "failpoints")]
    ::failpoint::arm_by_environment().map_err(CliError::Plain)?;
    if up.begin_anew
        && let Some(aside) = daemon::begin_anew(&here.root, &backup::stamp(Clock::new().wall()))?
    {
        tracing::warn!(
            code = "state.anew",
            "the install begins anew; what there was is in {}",
            aside.display()
        );
    }
    let mut host = Host::start(here.root.clone(), &here.env).await?;
    let mut signals = Signals::new(up.chat || std::io::stderr().is_terminal())?;
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
        () = signals.end(|| check_again(here)) => {}
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
        () = signals.end(|| ()) => end_now(),
    }
    // An engine that does not answer must not hold up the host. The next host removes what still runs.
    match tokio::time::timeout(END_NOW, drained).await {
        Ok(()) => Ok(code),
        Err(_) => Err(CliError::Plain(
            "the engine did not end every box in time; the next start removes them".into(),
        )),
    }
}

/// Reads the settings again on SIGHUP. Those of groups hold at once in any case; the log says which of the others wait
/// for the next start.
fn check_again(here: &Here) {
    match Install::check_all(here.root.clone(), &here.env) {
        Ok(install) => {
            let waiting = running_settings::differences(&install);
            let told: Vec<String> = waiting.iter().map(ToString::to_string).collect();
            let told =
                if told.is_empty() { "nothing waits for a restart".to_owned() } else { told.join("; ") };
            tracing::info!(code = "settings.read", "the settings were read again: {told}");
        }
        Err(e) => {
            for mistake in e.mistakes() {
                tracing::error!(code = mistake.code, "{mistake}");
            }
        }
    }
}

/// The host treats SIGTERM and SIGINT alike. SIGHUP ends it like them if it belongs to a terminal, which is gone then.
struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    of_terminal: bool,
}

impl Signals {
    fn new(of_terminal: bool) -> Result<Self, CliError> {
        let listen =
            |kind| signal(kind).map_err(|e| CliError::Plain(format!("signals cannot be heard: {e}")));
        let (term, int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        Ok(Self { term, int, hup: listen(SignalKind::hangup())?, of_terminal })
    }

    /// Returns when the host must end; calls `again` for each SIGHUP before.
    async fn end(&mut self, again: impl Fn()) {
        loop {
            tokio::select! {
                _ = self.term.recv() => return,
                _ = self.int.recv() => return,
                _ = self.hup.recv() => if self.of_terminal { return } else { again() },
            }
        }
    }
}
