//! Runs every case of the table of attacks as a separate test on one host. See [`journeys::hostile`].

use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use journeys::hostile::{Harness, SLOTS, cases};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;

/// The shared host, which starts with the first selected case.
#[derive(Default)]
struct SharedHarness {
    harness: Mutex<Option<Arc<Harness>>>,
}

impl SharedHarness {
    fn harness(&self, runtime: &Runtime) -> Arc<Harness> {
        let mut harness = self.harness.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(harness.get_or_insert_with(|| Arc::new(runtime.block_on(Harness::open("")))))
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The cases on one host wait for the engine and for each other's neighbour groups, not for a processor.
    arguments.test_threads.get_or_insert(SLOTS);
    // The check of a case may block its thread, so there are more threads than parallel cases.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(8).enable_all().build();
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime: &'static Runtime = match runtime {
        Ok(runtime) => RUNTIME.get_or_init(|| runtime),
        Err(e) => {
            eprintln!("hostile: {e}");
            return ExitCode::FAILURE;
        }
    };
    let shared = Arc::new(SharedHarness::default());
    let trials = cases().into_iter().map(|case| {
        let shared = Arc::clone(&shared);
        Trial::test(case.name, move || {
            let harness = shared.harness(runtime);
            let outcome = runtime.block_on(harness.run(&case));
            outcome.broken.map_or(Ok(()), |why| Err(Failed::from(format!("{}: {why}", case.what))))
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    let harness = shared.harness.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(harness) = harness.and_then(Arc::into_inner) {
        runtime.block_on(harness.close());
    }
    conclusion.exit_code()
}
