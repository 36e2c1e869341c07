//! Whole runs against a scripted model. The test plays the host.

mod context_window;
mod conversation;
mod endings;
mod fires;
mod memory;
mod orders;
mod permissions;
mod resumed;
mod seeing;

use std::future::Future;
use std::time::Duration;

use ipc_schema::TurnId;
use ipc_schema::letters::FromAgent;
use ipc_schema::letters::from_agent::{Activity, Outcome};
use ipc_schema::letters::to_agent::{Begin, OpenTurn};

use crate::run_loop;
use crate::tests_support::host::{self, Host};
use crate::tests_support::script::{self, Play, Script};
use crate::transcript::{Body, Transcript};

const TURN: TurnId = TurnId(41);
const NEXT: TurnId = TurnId(42);

/// Performs a run while `dialogue` plays the host; returns the run's exit code.
async fn live(host: &Host, script: &Script, dialogue: impl Future<Output = ()>) -> u8 {
    let run = run_loop::run(host.paths(), |_| script.clone());
    let both = async { tokio::join!(run, dialogue).0 };
    // So that a broken test ends. Long enough for half an hour of retries on a paused clock.
    tokio::time::timeout(Duration::from_secs(4000), both).await.expect("the run or its host waits for ever")
}

/// Lives a run that is killed when `dialogue` ends.
async fn killed_after(host: &Host, script: &Script, dialogue: impl Future<Output = ()>) {
    tokio::select! {
        code = run_loop::run(host.paths(), |_| script.clone()) => panic!("ended by itself with {code}"),
        () = dialogue => {}
    }
}

fn begin_open(consumed: &[&str]) -> Begin {
    let consumed = consumed.iter().map(|id| id.parse().unwrap()).collect();
    Begin { open: Some(OpenTurn { turn: TURN, consumed }), ..host::begin() }
}

/// Kinds of the letters that are not coalesced.
fn kinds(host: &Host) -> Vec<&'static str> {
    host.said().iter().map(|letter| letter.body.kind()).collect()
}

/// Results of tools in the transcript, in order.
fn results(transcript: &Transcript) -> Vec<(String, bool)> {
    let bodies = transcript.entries().iter().map(|entry| &entry.body);
    bodies
        .filter_map(|body| match body {
            Body::Results(results) => Some(results.blocks.clone()),
            _ => None,
        })
        .flatten()
        .map(|result| (result.content, result.is_error))
        .collect()
}

/// Waits until the runner says that it does this.
async fn doing(host: &Host, state: Activity) {
    host.until(|letter| matches!(&letter.body, FromAgent::Status(status) if status.state == state)).await;
}
