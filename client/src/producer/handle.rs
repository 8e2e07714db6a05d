//! Handle of a lane: its accumulator, and the orders to it.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::accumulator::Accumulator;
use super::batch::Batch;
use crate::error::Error;

/// Handle of a lane.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    pub gathered: Arc<Accumulator>,
    orders: mpsc::Sender<Order>,
    /// Receiver of the lane's orders, until the lane starts.
    pub to_hear: Arc<Mutex<Option<mpsc::Receiver<Order>>>>,
}

/// An order to a lane, which carries it out once none of its batches are in flight.
#[derive(Debug)]
pub(super) enum Order {
    /// Hand over the batches that the ring routed here.
    Reclaim(oneshot::Sender<Vec<ReclaimedBatch>>),
    /// Fail all batches, and end.
    End(Error, oneshot::Sender<()>),
}

/// A batch on its way to other partitions.
#[derive(Debug)]
pub(super) struct ReclaimedBatch {
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

    /// Takes over the unwritten batches that the ring routed to this partition, in order, once none of them
    /// are in flight.
    pub async fn reclaim(&self) -> Vec<ReclaimedBatch> {
        let (order, done) = oneshot::channel();
        self.give(Order::Reclaim(order)).await;
        done.await.unwrap_or_default()
    }

    /// Ends the lane, and fails its unwritten batches with this error, once none of them are in flight.
    pub async fn end(&self, why: &Error) {
        let (order, done) = oneshot::channel();
        self.give(Order::End(why.clone(), order)).await;
        // A lane that ended earlier has settled everything.
        let _ = done.await;
    }

    /// Sends an order. A lane that was never started, or has ended, drops it: it has no batches.
    async fn give(&self, order: Order) {
        if self.to_hear.lock().is_none() {
            let _ = self.orders.send(order).await;
        }
    }
}
