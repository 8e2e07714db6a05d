//! axum over the seam's sockets.

use crate::env::{Accepted, Incoming};

impl axum::serve::Listener for Incoming {
    type Io = Accepted;
    type Addr = String;

    async fn accept(&mut self) -> (Accepted, String) {
        self.next().await
    }

    fn local_addr(&self) -> std::io::Result<String> {
        Ok(self.local_address())
    }
}
