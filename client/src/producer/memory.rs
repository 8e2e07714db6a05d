//! The producer's memory: a fixed budget that records hold until they are settled. If none is left, callers
//! wait in the order of their requests.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::error::{Error, ErrorKind, Result};

#[derive(Debug, Clone)]
pub(super) struct Memory {
    room: Arc<Semaphore>,
    budget_bytes: usize,
}

impl Memory {
    pub fn new(budget_bytes: usize) -> Memory {
        let budget_bytes = budget_bytes.clamp(1, Semaphore::MAX_PERMITS);
        Memory {
            room: Arc::new(Semaphore::new(budget_bytes)),
            budget_bytes,
        }
    }

    /// Takes `bytes`, and waits at most `within` for them to become free.
    pub async fn take(&self, bytes: usize, within: Duration) -> Result<MemoryPermit> {
        let permits = match u32::try_from(bytes) {
            Ok(permits) if bytes <= self.budget_bytes => permits,
            _ => return Err(self.never_fits(bytes)),
        };
        let permit = match self.room.try_acquire_many(permits) {
            Ok(permit) => permit,
            Err(_) => match timeout(within, self.room.acquire_many(permits)).await {
                Ok(Ok(permit)) => permit,
                Ok(Err(_)) => return Err(super::closed()),
                Err(_) => return Err(self.no_room(within)),
            },
        };
        permit.forget();
        Ok(MemoryPermit {
            room: Some(self.room.clone()),
            bytes,
        })
    }

    /// Rejects all current and future callers.
    pub fn close(&self) {
        self.room.close();
    }

    fn never_fits(&self, bytes: usize) -> Error {
        Error::new(
            ErrorKind::TooLarge,
            format!(
                "a record of {bytes} bytes is over the producer's memory of {}; split it or raise buffer_bytes",
                self.budget_bytes
            ),
        )
    }

    fn no_room(&self, within: Duration) -> Error {
        Error::new(
            ErrorKind::Timeout,
            format!(
                "the producer's {} bytes were full of unacknowledged records for {within:?}, so this one was not sent; check that the cluster takes writes, or send more slowly",
                self.budget_bytes
            ),
        )
    }
}

/// A part of the budget; dropping it returns it.
#[derive(Default)]
pub(super) struct MemoryPermit {
    room: Option<Arc<Semaphore>>,
    bytes: usize,
}

impl MemoryPermit {
    pub fn nothing() -> MemoryPermit {
        MemoryPermit::default()
    }

    /// Takes over another part.
    pub fn join(&mut self, other: &mut MemoryPermit) {
        if self.room.is_none() {
            self.room = other.room.take();
        }
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Hands over everything.
    pub fn take(&mut self) -> MemoryPermit {
        std::mem::take(self)
    }

    /// Splits off `bytes`, or everything if there is less.
    pub fn split(&mut self, bytes: usize) -> MemoryPermit {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        MemoryPermit {
            room: self.room.clone(),
            bytes,
        }
    }
}

impl Drop for MemoryPermit {
    fn drop(&mut self) {
        if let Some(room) = self.room.as_ref().filter(|_| self.bytes > 0) {
            room.add_permits(self.bytes);
        }
    }
}

impl fmt::Debug for MemoryPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({})", self.bytes)
    }
}
