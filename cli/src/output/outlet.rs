//! The reader of stdout, and the moment it goes away. A pipe takes bytes that its reader never looks at. Only
//! a reader that is still there some time later has read them.

use std::io;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Stdout, watched for the end of its reader.
pub struct Outlet(Option<AsyncFd<io::Stdout>>);

impl Outlet {
    /// Begins to watch. A file has no reader that could go away.
    #[expect(
        deprecated,
        reason = "stdout stays open for the life of the process; the replacement is an unsafe function"
    )]
    pub fn new() -> Outlet {
        Outlet(AsyncFd::with_interest(io::stdout(), Interest::ERROR).ok())
    }

    /// True if the end of a reader would be noticed.
    pub fn has_reader(&self) -> bool {
        self.0.is_some()
    }

    /// Returns when nobody reads stdout any longer; never if that can't be noticed. Cancel-safe.
    pub async fn closed(&self) {
        match &self.0 {
            Some(stdout) if stdout.ready(Interest::ERROR).await.is_ok() => {}
            _ => std::future::pending().await,
        }
    }
}
