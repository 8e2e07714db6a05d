//! Ctrl-C, heard from a command's first moment to its last. A script starts what it puts into the background
//! with this signal ignored: one that comes while nobody listens is lost there, and the command goes on.

use std::future::pending;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Interrupts of this process since it began to listen.
#[derive(Debug)]
pub struct Interrupts(Signal);

impl Interrupts {
    /// Begins to listen: no interrupt is lost from here on, whether or not anybody awaits it.
    pub fn listen() -> io::Result<Interrupts> {
        Ok(Interrupts(signal(SignalKind::interrupt())?))
    }

    /// Returns at the next interrupt, at once if it came since the last call. Cancel-safe.
    pub async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            pending().await
        }
    }
}
