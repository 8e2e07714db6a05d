//! For consumers that must not do a thing twice: which events were processed already, by their ids.
//!
//! Records come again after a failure, and a publisher may publish an event twice. Who notes the id
//! of each event when it is processed can skip those. Where the id of a record that is not an event
//! stands is the application's.

mod file;
mod window;

use std::fmt;
use std::num::NonZeroUsize;

use tokio::sync::Mutex;

pub use file::FileSeen;

use crate::error::Result;
use window::Window;

/// Where ids are kept. Implement it beside the effects of the handlers (the same database, the same
/// transaction) where doing a thing twice is worse than that costs.
pub trait SeenStore: Send {
    /// Whether this id was inserted, and is not forgotten yet.
    fn contains(&mut self, id: &[u8]) -> impl Future<Output = Result<bool>> + Send;

    /// Keeps an id. Older ones may be forgotten for it.
    fn insert(&mut self, id: &[u8]) -> impl Future<Output = Result<()>> + Send;

    /// Makes what was inserted safe against a loss of power.
    fn sync(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// Skips events that were processed already.
///
/// ```no_run
/// # use ropewalk_client::{Delivery, Error, FileSeen, Seen};
/// # async fn book(_: &Delivery) -> Result<(), Error> { Ok(()) }
/// # async fn example(subscription: ropewalk_client::Subscription) -> Result<(), Error> {
/// let seen = FileSeen::open("seen.ids", 100_000.try_into().unwrap()).await?;
/// let seen = std::sync::Arc::new(Seen::new(seen));
/// let run = subscription.run(8, move |delivery| {
///     let seen = seen.clone();
///     async move {
///         let Some(id) = delivery.event_id() else {
///             return book(&delivery).await;
///         };
///         // None if it was processed before: then there is nothing to do.
///         seen.once(id.as_bytes(), book(&delivery)).await?;
///         Ok::<(), Error>(())
///     }
/// });
/// # Ok(())
/// # }
/// ```
///
/// An id is kept after its event was processed, so that a crash between the two processes the event
/// again: at least once, and twice only then. Two events of one id that are handled at the same
/// time are both processed; records of one key are not.
pub struct Seen<S> {
    store: Mutex<S>,
}

impl<S: SeenStore> Seen<S> {
    /// Keeps ids in this store.
    pub fn new(store: S) -> Seen<S> {
        Seen {
            store: Mutex::new(store),
        }
    }

    /// Whether an event of this id was processed already.
    ///
    /// # Errors
    /// What the store said.
    pub async fn contains(&self, id: &[u8]) -> Result<bool> {
        self.store.lock().await.contains(id).await
    }

    /// The event of this id is processed.
    ///
    /// # Errors
    /// What the store said.
    pub async fn insert(&self, id: &[u8]) -> Result<()> {
        self.store.lock().await.insert(id).await
    }

    /// Makes all ids so far safe against a loss of power: before a commit, for those whose records
    /// would come again otherwise.
    ///
    /// # Errors
    /// What the store said.
    pub async fn sync(&self) -> Result<()> {
        self.store.lock().await.sync().await
    }

    /// Processes an event, unless that was done before, and keeps its id when it is done. None if it
    /// was.
    ///
    /// # Errors
    /// What `process` said, and then the id is not kept; or what the store said.
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

impl<S> fmt::Debug for Seen<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seen")
    }
}

/// Keeps the last ids in memory: for repetitions within one life of a process.
#[derive(Debug)]
pub struct MemorySeen {
    window: Window,
}

impl MemorySeen {
    /// Keeps the last `window` ids.
    pub fn new(window: NonZeroUsize) -> MemorySeen {
        MemorySeen {
            window: Window::new(window),
        }
    }
}

impl SeenStore for MemorySeen {
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
