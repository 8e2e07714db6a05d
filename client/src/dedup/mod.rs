//! Deduplication for consumers: remembers the ids of processed events.
//!
//! Records are delivered again after a failure, and a publisher may publish an event twice. Recording
//! processed event ids lets a consumer skip duplicates. For records that are not events, the application
//! supplies the id.

mod file;
mod window;

use std::fmt;
use std::num::NonZeroUsize;

use tokio::sync::Mutex;

pub use file::FileDedupStore;

use crate::error::Result;
use window::Window;

/// Store of ids. Implement it beside the effects of the handlers (the same database, the same transaction) if
/// processing an event twice costs more than the transaction.
pub trait DedupStore: Send {
    /// Returns true if this id was inserted and is not forgotten yet.
    fn contains(&mut self, id: &[u8]) -> impl Future<Output = Result<bool>> + Send;

    /// Inserts an id. The store may forget older ones to make room.
    fn insert(&mut self, id: &[u8]) -> impl Future<Output = Result<()>> + Send;

    /// Makes the inserted ids survive a power failure.
    fn sync(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// Skips events that were already processed.
///
/// ```no_run
/// # use ropewalk_client::{Delivery, Error, FileDedupStore, Deduplicator};
/// # async fn book(_: &Delivery) -> Result<(), Error> { Ok(()) }
/// # async fn example(subscription: ropewalk_client::Subscription) -> Result<(), Error> {
/// let store = FileDedupStore::open("processed.ids", 100_000.try_into().unwrap()).await?;
/// let dedup = std::sync::Arc::new(Deduplicator::new(store));
/// let run = subscription.run_concurrent(8, move |delivery| {
///     let dedup = dedup.clone();
///     async move {
///         let Some(id) = delivery.event_id() else {
///             return book(&delivery).await;
///         };
///         // None if the event was processed earlier: then there is nothing to do.
///         dedup.once(id.as_bytes(), book(&delivery)).await?;
///         Ok::<(), Error>(())
///     }
/// });
/// # Ok(())
/// # }
/// ```
///
/// An id is stored after its event was processed. A crash between the two processes the event again: delivery
/// is at least once, and twice only in this case. Two events with the same id are both processed if they are
/// handled concurrently; records with the same key never are.
pub struct Deduplicator<S> {
    store: Mutex<S>,
}

impl<S: DedupStore> Deduplicator<S> {
    /// Creates a deduplicator with this store.
    pub fn new(store: S) -> Deduplicator<S> {
        Deduplicator {
            store: Mutex::new(store),
        }
    }

    /// Returns true if an event with this id was already processed.
    ///
    /// # Errors
    /// The error of the store.
    pub async fn contains(&self, id: &[u8]) -> Result<bool> {
        self.store.lock().await.contains(id).await
    }

    /// Records that the event with this id is processed.
    ///
    /// # Errors
    /// The error of the store.
    pub async fn insert(&self, id: &[u8]) -> Result<()> {
        self.store.lock().await.insert(id).await
    }

    /// Makes all ids so far survive a power failure. Call it before a commit, for records that would
    /// otherwise be delivered again.
    ///
    /// # Errors
    /// The error of the store.
    pub async fn sync(&self) -> Result<()> {
        self.store.lock().await.sync().await
    }

    /// Processes an event unless it was already processed, and then stores its id. Returns none if it was
    /// already processed.
    ///
    /// # Errors
    /// The error of `process`, in which case the id is not stored; or the error of the store.
    pub async fn once<T, E: From<crate::Error>>(
        &self,
        id: &[u8],
        process: impl Future<Output = std::result::Result<T, E>>,
    ) -> std::result::Result<Option<T>, E> {
        if self.contains(id).await? {
            return Ok(None);
        }
        let result = process.await?;
        self.insert(id).await?;
        Ok(Some(result))
    }
}

impl<S> fmt::Debug for Deduplicator<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Deduplicator")
    }
}

/// Keeps the last ids in memory: detects duplicates within one run of a process.
#[derive(Debug)]
pub struct MemoryDedupStore {
    window: Window,
}

impl MemoryDedupStore {
    /// Keeps the last `window` ids.
    pub fn new(window: NonZeroUsize) -> MemoryDedupStore {
        MemoryDedupStore {
            window: Window::new(window),
        }
    }
}

impl DedupStore for MemoryDedupStore {
    async fn contains(&mut self, id: &[u8]) -> Result<bool> {
        Ok(self.window.contains(id))
    }

    async fn insert(&mut self, id: &[u8]) -> Result<()> {
        self.window.insert(id);
        Ok(())
    }

    async fn sync(&mut self) -> Result<()> {
        Ok(())
    }
}
