//! The room that one call holds for its requests. Small messages have a room that large ones cannot use, so that
//! heartbeats and questions for metadata never wait behind records.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::charge::{Charge, Requests};
use crate::env::Remote;

/// Rooms that a kind of call may use.
#[derive(Debug, Clone)]
pub(super) struct Rooms {
    /// Room for messages of any size.
    pub large: Requests,
    /// Room for small messages only, which may use the other too.
    pub small: Option<Requests>,
    /// True if each address has a share of its own.
    pub is_shared: bool,
}

/// Room that one call holds.
#[derive(Debug)]
pub(super) struct Charges {
    large: Charge,
    small: Option<Charge>,
}

impl Rooms {
    /// Creates empty charges for one call.
    pub fn charges(&self, remote: Option<&Remote>) -> Charges {
        let host = remote.filter(|_| self.is_shared).map_or("", Remote::host);
        let host: Arc<str> = Arc::from(host);
        let charge = |room: &Requests| room.charge(host.clone(), remote.cloned());
        Charges {
            large: charge(&self.large),
            small: self.small.as_ref().map(charge),
        }
    }
}

impl Charges {
    /// Bytes that are charged.
    fn bytes(&self) -> usize {
        self.large.bytes() + self.small.as_ref().map_or(0, Charge::bytes)
    }

    /// True while the message in progress goes on without room.
    pub fn has_turn(&self) -> bool {
        self.large.has_turn() || self.small.as_ref().is_some_and(Charge::has_turn)
    }

    /// Takes room for the next bytes of a message, or waits for it. A message that already holds some may get
    /// the turn to go on without. Until this is ready, it must be called with the same bytes.
    pub fn poll_take(&mut self, cx: &Context<'_>, bytes: usize, is_small: bool) -> Poll<()> {
        if bytes == 0 || self.has_turn() {
            return Poll::Ready(());
        }
        let is_begun = self.bytes() > 0;
        let Some(small) = self.small.as_mut().filter(|_| is_small) else {
            return self.large.poll_take(cx, bytes, is_begun);
        };
        let is_new = !small.is_waiting();
        if is_new && (small.try_take(bytes, is_begun) || self.large.try_take(bytes, is_begun)) {
            return Poll::Ready(());
        }
        small.poll_take(cx, bytes, is_begun)
    }

    /// Keeps at most room for this many bytes, those of an incomplete message.
    pub fn settle(&mut self, unfinished: usize) {
        let held = self.bytes();
        let over = held.saturating_sub(unfinished);
        let of_large = over.min(self.large.bytes());
        self.large.give_back(of_large);
        if let Some(small) = &mut self.small {
            small.give_back(over - of_large);
        }
        if held >= unfinished {
            self.end_turn();
        }
    }

    /// Ends the turn: the message that went on without room is complete.
    pub fn end_turn(&mut self) {
        self.large.end_turn();
        if let Some(small) = &mut self.small {
            small.end_turn();
        }
    }
}
