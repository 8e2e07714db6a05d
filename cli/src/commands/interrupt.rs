//! Ctrl-C during the whole life of a command. A script starts background commands with this signal ignored.
//! Without a listener, the signal would be lost there, and the command would continue.

use std::future::pending;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Interrupts of this process since it started to listen.
#[derive(Debug)]
pub struct Interrupts(Signal);

impl Interrupts {
    /// Starts to listen. From here on no interrupt is lost, even if no task awaits it.
    pub fn listen() -> io::Result<Interrupts> {
        Ok(Interrupts(signal(SignalKind::interrupt())?))
    }

    /// Waits for the next interrupt; returns at once if there was one since the last call. Cancel-safe.
    pub async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            pending().await
        }
    }
}
