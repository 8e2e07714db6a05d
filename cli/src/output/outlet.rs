//! Whoever reads stdout, and the moment they stop. A pipe takes bytes that its reader never looks at: only
//! a reader that is still there some time later has had them.

use std::io;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Stdout, looked at from its other end.
pub struct Outlet(Option<AsyncFd<io::Stdout>>);

impl Outlet {
    /// Begins to look. A file has no reader that could stop.
    #[expect(
        deprecated,
        reason = "stdout stays open for the life of the process; the replacement is an unsafe function"
    )]
    pub fn new() -> Outlet {
        Outlet(AsyncFd::with_interest(io::stdout(), Interest::ERROR).ok())
    }

    /// Whether a reader's end would be seen.
    pub fn has_reader(&self) -> bool {
        self.0.is_some()
    }

    /// Returns when nobody reads stdout any longer; never if that can't be seen. Cancel-safe.
    pub async fn closed(&self) {
        match &self.0 {
            Some(stdout) if stdout.ready(Interest::ERROR).await.is_ok() => {}
            _ => std::future::pending().await,
        }
    }
}
