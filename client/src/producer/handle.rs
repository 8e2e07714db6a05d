//! What others hold of a lane: where records gather for it, and how to ask it for them back.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::accumulator::Accumulator;
use super::batch::Batch;
use crate::error::Error;

/// What others hold of a lane.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    pub gathered: Arc<Accumulator>,
    orders: mpsc::Sender<Order>,
    /// Where the lane hears orders, until it is started.
    pub to_hear: Arc<Mutex<Option<mpsc::Receiver<Order>>>>,
}

/// An order to a lane, which obeys once nothing of it is under way.
#[derive(Debug)]
pub(super) enum Order {
    /// To hand over what the ring routed to it.
    Surrender(oneshot::Sender<Vec<Surrendered>>),
    /// To fail everything it has, and to end.
    End(Error, oneshot::Sender<()>),
}

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
        let (order, done) = oneshot::channel();
        self.give(Order::Surrender(order)).await;
        done.await.unwrap_or_default()
    }

    /// Ends the lane, and with this error what it has and is not written, once nothing of it is under way.
    pub async fn end(&self, why: &Error) {
        let (order, done) = oneshot::channel();
        self.give(Order::End(why.clone(), order)).await;
        // A lane that has ended before has settled everything.
        let _ = done.await;
    }

    /// A lane that was never started, or has ended, drops the order: it has nothing.
    async fn give(&self, order: Order) {
        if self.to_hear.lock().is_none() {
            let _ = self.orders.send(order).await;
        }
    }
}
