//! Time of the simulation that this thread runs, for code that must not ask turmoil. Such code is the trace,
//! which receives events while turmoil's world is borrowed, and the clocks that replace the C library's in
//! the binary.
//!
//! It advances in steps of the simulation. Nodes and clients never use it: they have `Env` and tokio.

use std::cell::Cell;
use std::time::Duration;

thread_local! {
    // Without a destructor and known at compile time: clocks are read before `main` and while threads end.
    static NOW: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// Guard of a simulation on this thread: time passes until it is dropped.
#[derive(Debug)]
pub struct Running(());

/// Begins a simulation at zero.
pub fn begin() -> Running {
    set(Duration::ZERO);
    Running(())
}

/// Sets the time since the simulation began.
pub fn set(elapsed: Duration) {
    NOW.set(Some(elapsed));
}

/// Time since the simulation of this thread began; none if it runs none.
pub fn now() -> Option<Duration> {
    NOW.get()
}

impl Drop for Running {
    fn drop(&mut self) {
        NOW.set(None);
    }
}
