//! axum over the seam's sockets.

use std::time::Duration;

use crate::env::{Connection, Listener};

/// After a failed accept (no more file handles, say), how long to wait before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Incoming {
    listener: Box<dyn Listener>,
}

impl Incoming {
    pub(super) fn new(listener: Box<dyn Listener>) -> Incoming {
        Incoming { listener }
    }
}

impl axum::serve::Listener for Incoming {
    type Io = Connection;
    type Addr = String;

    async fn accept(&mut self) -> (Connection, String) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    tracing::warn!(%error, "an HTTP connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<String> {
        Ok(self.listener.local_address())
    }
}
