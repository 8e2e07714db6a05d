//! One run in this process, on a fresh thread: earlier randomness of the C library (the keys of hash maps)
//! cannot leak into the run.

use std::any::Any;
use std::sync::Arc;

use parking_lot::Mutex;

use super::report::PANIC;
use crate::plan::Plan;
use crate::run::{Outcome, Violation, run};

/// Stack of the thread, in bytes: the same as that of a process's first thread.
const STACK_BYTES: usize = 8 << 20;
/// Maximum number of panics reported; the first is the one that matters.
const PANICS: usize = 8;

/// Runs a plan. `prepare` is called on the run's own thread before anything else.
///
/// A panic anywhere in the process is a violation, even if no code noticed it: tasks that panic end in
/// silence. So call this once per process.
pub fn here(plan: &Plan, prepare: impl FnOnce() + Send) -> Outcome {
    let panics = listen_for_panics();
    let ran = std::thread::scope(|scope| {
        let run = || {
            prepare();
            run(plan)
        };
        let thread = std::thread::Builder::new()
            .name("simulation".to_string())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, run);
        thread.map(|thread| thread.join())
    });
    let mut outcome = match ran {
        Ok(Ok(outcome)) => outcome,
        // The list already has the panic.
        Ok(Err(_)) => Outcome::default(),
        Err(error) => Outcome {
            violations: vec![Violation {
                check: "thread",
                what: error.to_string(),
            }],
            ..Outcome::default()
        },
    };
    outcome.seed = plan.seed;
    let panics = panics.lock().clone().into_iter();
    outcome
        .violations
        .extend(panics.map(|what| Violation { check: PANIC, what }));
    outcome
}

/// Records the place of each panic, and then calls the previous hook.
fn listen_for_panics() -> Arc<Mutex<Vec<String>>> {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let (listening, before) = (heard.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(|place| place.to_string());
        let place = place.unwrap_or_else(|| "nowhere".to_string());
        let said = words(panic.payload());
        let mut listening = listening.lock();
        if listening.len() < PANICS {
            listening.push(format!("{place}: {said}"));
        }
        drop(listening);
        before(panic);
    }));
    heard
}

fn words(payload: &(dyn Any + Send)) -> &str {
    let fixed = payload.downcast_ref::<&str>().copied();
    let made = || payload.downcast_ref::<String>().map(String::as_str);
    fixed.or_else(made).unwrap_or("no words")
}
