//! Detects the end of stdout's reader. A pipe accepts bytes that its reader never reads. Only a reader that
//! is still there some time later has read them.

use std::io;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Stdout, watched for the end of its reader.
pub struct Outlet {
    stdout: Option<AsyncFd<io::Stdout>>,
    is_pipe: bool,
}

impl Outlet {
    /// Starts to watch. A file has no reader that could go away.
    #[expect(
        deprecated,
        reason = "stdout stays open for the life of the process; the replacement is an unsafe function"
    )]
    pub fn new() -> Outlet {
        Outlet {
            stdout: AsyncFd::with_interest(io::stdout(), Interest::ERROR).ok(),
            is_pipe: rustix::fs::fstat(io::stdout())
                .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_fifo()),
        }
    }

    /// True if the end of a reader can be detected.
    pub fn has_reader(&self) -> bool {
        self.stdout.is_some()
    }

    /// Number of bytes in the pipe that its reader has not taken. Zero if stdout is not a pipe, since it
    /// can't be known.
    pub fn unread(&self) -> u64 {
        match self.is_pipe {
            true => rustix::io::ioctl_fionread(io::stdout()).unwrap_or(0),
            false => 0,
        }
    }

    /// Waits until stdout has no reader any longer; for ever if that can't be detected. Cancel-safe.
    pub async fn closed(&self) {
        match &self.stdout {
            Some(stdout) if stdout.ready(Interest::ERROR).await.is_ok() => {}
            _ => std::future::pending().await,
        }
    }
}
