//! What time it is in the simulation that this thread runs, for those who must not ask turmoil:
//! the trace, which is told of events while turmoil's world is borrowed, and the clocks that the
//! binary puts in the place of the C library's.
//!
//! It goes in steps of the simulation. Nodes and clients never ask here: they have `Env` and tokio.

use std::cell::Cell;
use std::time::Duration;

thread_local! {
    // Without a destructor and known at compile time: clocks are read before `main` and while
    // threads end.
    static NOW: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// Time passes in a simulation on this thread until this is dropped.
#[derive(Debug)]
pub struct Running(());

/// Begins a simulation at zero.
pub fn begin() -> Running {
    set(Duration::ZERO);
    Running(())
}

/// Tells how much time has passed since the simulation began.
pub fn set(elapsed: Duration) {
    NOW.set(Some(elapsed));
}

/// How much time has passed since the simulation of this thread began; none if it runs none.
pub fn now() -> Option<Duration> {
    NOW.get()
}

impl Drop for Running {
    fn drop(&mut self) {
        NOW.set(None);
    }
}
