//! What others hold of a lane: where records gather for it, and how to ask it for them back.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::accumulator::Accumulator;
use super::batch::Batch;

/// What others hold of a lane.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    pub gathered: Arc<Accumulator>,
    orders: mpsc::Sender<Order>,
    /// Where the lane hears orders, until it is started.
    pub to_hear: Arc<Mutex<Option<mpsc::Receiver<Order>>>>,
}

/// Asks a lane for what the ring routed to it.
pub(super) type Order = oneshot::Sender<Vec<Surrendered>>;

/// A batch on its way to other partitions.
#[derive(Debug)]
pub(super) struct Surrendered {
    pub partition: u32,
    pub batch: Batch,
    pub bytes: Bytes,
}

impl Handle {
    pub fn new(gathered: Arc<Accumulator>) -> Handle {
        let (orders, to_hear) = mpsc::channel(1);
        Handle {
            gathered,
            orders,
            to_hear: Arc::new(Mutex::new(Some(to_hear))),
        }
    }

    /// Takes over what the ring routed to this partition and is not written, in its order, once
    /// nothing of it is under way.
    pub async fn surrender(&self) -> Vec<Surrendered> {
        if self.to_hear.lock().is_some() {
            // A lane that was never started has nothing.
            return Vec::new();
        }
        let (order, done) = oneshot::channel();
        if self.orders.send(order).await.is_err() {
            return Vec::new();
        }
        done.await.unwrap_or_default()
    }
}
