//! Decides what follows for a turn when its run ends: another attempt, or a notice.

use std::time::Duration;

use ipc_schema::letters::to_agent::InterruptWhy;

use super::end_and_notice::interrupted;
use crate::domain::Ending;
use crate::domain::ending::TurnEnd;
use crate::policy::backoff::doubling;
use crate::text::{self, Reader};

/// The host gives a turn up after this many crashed runs.
pub const ATTEMPTS: u32 = 3;
/// The host gives a turn up whose box never became ready, when the turn is older than this.
const START_DAY: Duration = Duration::from_secs(24 * 3600);

/// What follows for the turn of an ended run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AfterRun {
    /// The turn gets another run.
    Again {
        /// How many of the [`ATTEMPTS`] it has used up.
        cost: u32,
        wait: Duration,
        /// The notice for the chat. The store sends it once per turn, even if this is decided again.
        tell: Option<String>,
    },
    GiveUp {
        end: TurnEnd,
        tell: String,
    },
}

/// Decides when the host collects a run, once per run. `attempt` counts from 1. `failed_starts` is the number of the
/// turn's boxes that never became ready, including this one. `age` is the turn's age.
pub fn after_run(
    reader: Reader,
    ending: &Ending,
    attempt: u32,
    failed_starts: u32,
    age: Duration,
) -> AfterRun {
    let free = AfterRun::Again { cost: 0, wait: Duration::ZERO, tell: None };
    let give_up =
        |state, why: &str, tell| AfterRun::GiveUp { end: TurnEnd { state, why: why.to_owned() }, tell };
    let stopped = |why| {
        let (end, tell) = interrupted(why);
        AfterRun::GiveUp { end, tell }
    };
    match ending {
        Ending::Finished | Ending::Killed => free,
        Ending::TimedOut => stopped(InterruptWhy::Time),
        Ending::Stopped => stopped(InterruptWhy::Stop),
        Ending::OverLimit { code, what } => give_up("failed", code, text::over_limit(code, what)),
        Ending::Silent { .. } | Ending::Crashed { .. } if attempt >= ATTEMPTS => {
            give_up("failed", "attempts", text::gave_up(ending, attempt))
        }
        Ending::Silent { .. } | Ending::Crashed { .. } => {
            let wait = if attempt == 1 { Duration::from_secs(1) } else { Duration::from_secs(5) };
            AfterRun::Again { cost: 1, wait, tell: None }
        }
        Ending::NeverStarted { code, why } if age >= START_DAY => {
            give_up("failed", "never_started", text::never_started(reader, code, why))
        }
        Ending::NeverStarted { code, why } => {
            let wait = doubling(Duration::from_secs(5), failed_starts, Duration::from_secs(600));
            AfterRun::Again { cost: 0, wait, tell: Some(text::cannot_start(reader, code, why)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_run(ending: &Ending, attempt: u32, failed_starts: u32, age: Duration) -> AfterRun {
        super::after_run(Reader::Operator, ending, attempt, failed_starts, age)
    }

    const HOUR: Duration = Duration::from_secs(3600);

    fn crash() -> Ending {
        Ending::Crashed { code: Some(1), oom: false, why: "x".into() }
    }

    #[test]
    fn what_took_too_much_is_not_done_again() {
        let what = "wrote 65 MiB of letters in one turn, of 64 MiB".to_owned();
        let ending = Ending::OverLimit { code: "ipc.flood", what };
        let AfterRun::GiveUp { end, tell } = after_run(&ending, 1, 0, HOUR) else { panic!() };
        assert_eq!((end.state, end.why.as_str()), ("failed", "ipc.flood"));
        assert!(tell.contains("it wrote 65 MiB of letters"), "{tell}");
    }

    #[test]
    fn memory_is_named_with_its_limit() {
        let why = "out of memory at 1 GiB".to_owned();
        let AfterRun::GiveUp { tell, .. } =
            after_run(&Ending::Crashed { code: Some(137), oom: true, why }, 3, 0, HOUR)
        else {
            panic!()
        };
        assert!(tell.contains("ran out of memory at 1 GiB"), "{tell}");
    }

    #[test]
    fn a_close_a_drain_and_a_lost_host_cost_nothing() {
        for ending in [Ending::Finished, Ending::Killed] {
            let again = AfterRun::Again { cost: 0, wait: Duration::ZERO, tell: None };
            assert_eq!(after_run(&ending, 3, 0, 30 * HOUR), again);
        }
    }

    #[test]
    fn three_crashes_end_in_a_notice() {
        assert!(matches!(after_run(&crash(), 1, 0, HOUR), AfterRun::Again { cost: 1, tell: None, .. }));
        assert!(matches!(after_run(&crash(), 2, 0, HOUR), AfterRun::Again { cost: 1, .. }));
        assert!(matches!(after_run(&crash(), 3, 0, HOUR), AfterRun::GiveUp { .. }));
    }

    #[test]
    fn a_box_that_never_came_up_is_tried_for_a_day_at_no_cost() {
        let never = Ending::NeverStarted { code: "image.missing".into(), why: "no image".into() };
        let AfterRun::Again { cost: 0, wait, tell: Some(told) } = after_run(&never, 3, 1, HOUR) else {
            panic!()
        };
        assert_eq!(wait, Duration::from_secs(5));
        assert!(told.contains("no image"));
        let AfterRun::Again { tell: Some(told), .. } = super::after_run(Reader::Member, &never, 3, 1, HOUR)
        else {
            panic!()
        };
        assert!(
            told.contains("(image.missing). The operator was told.") && !told.contains("no image"),
            "{told}"
        );
        let AfterRun::Again { wait, .. } = after_run(&never, 1, 40, HOUR) else { panic!() };
        assert_eq!(wait, Duration::from_secs(600));
        assert!(matches!(after_run(&never, 1, 200, START_DAY), AfterRun::GiveUp { .. }));
    }

    #[test]
    fn time_and_stop_end_the_turn_at_once() {
        for ending in [Ending::TimedOut, Ending::Stopped] {
            assert!(matches!(after_run(&ending, 1, 0, HOUR), AfterRun::GiveUp { .. }));
        }
    }
}
