//! Every case of the table of attacks, as a test of its own name, on one host. See [`journeys::hostile`].

use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use journeys::hostile::{BERTHS, Harbour, cases};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;

/// The host comes up with the first case that is asked for.
#[derive(Default)]
struct Town {
    harbour: Mutex<Option<Arc<Harbour>>>,
}

impl Town {
    fn harbour(&self, runtime: &Runtime) -> Arc<Harbour> {
        let mut harbour = self.harbour.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(harbour.get_or_insert_with(|| Arc::new(runtime.block_on(Harbour::open("")))))
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The cases of one host wait for the engine and for each other's neighbours, not for a processor.
    arguments.test_threads.get_or_insert(BERTHS);
    // What a case requires may wait on a thread: there are more threads than cases at one time.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(8).enable_all().build();
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime: &'static Runtime = match runtime {
        Ok(runtime) => RUNTIME.get_or_init(|| runtime),
        Err(e) => {
            eprintln!("hostile: {e}");
            return ExitCode::FAILURE;
        }
    };
    let town = Arc::new(Town::default());
    let trials = cases().into_iter().map(|case| {
        let town = Arc::clone(&town);
        Trial::test(case.name, move || {
            let harbour = town.harbour(runtime);
            let outcome = runtime.block_on(harbour.run(&case));
            outcome.broken.map_or(Ok(()), |why| Err(Failed::from(format!("{}: {why}", case.what))))
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    let harbour = town.harbour.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(harbour) = harbour.and_then(Arc::into_inner) {
        runtime.block_on(harbour.close());
    }
    conclusion.exit_code()
}
