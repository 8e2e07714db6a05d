//! The bytes of a room, by the address that holds them.
//!
//! **One address holds no more than is left for the others** (the dynamic thresholds of Choudhury and Hahne,
//! "Dynamic queue length thresholds for shared-memory packet switches", 1998). One address alone gets half of
//! the room, two get a third each, and a further one still finds some.

use std::collections::HashMap;
use std::sync::Arc;

/// Bytes of one room, by address. The empty address is the node itself, or one without a bound.
#[derive(Debug)]
pub(super) struct Shares {
    bytes: usize,
    held: usize,
    by_host: HashMap<Arc<str>, usize>,
}

impl Shares {
    /// Creates an empty room of this many bytes.
    pub fn of(bytes: usize) -> Shares {
        Shares {
            bytes,
            held: 0,
            by_host: HashMap::new(),
        }
    }

    /// Bytes that nobody holds.
    pub fn left(&self) -> usize {
        self.bytes.saturating_sub(self.held)
    }

    /// Bytes that an address holds.
    pub fn held_by(&self, host: &str) -> usize {
        self.by_host.get(host).copied().unwrap_or(0)
    }

    /// Bytes that must be left before an address may take this many.
    pub fn need(&self, host: &str, bytes: usize) -> usize {
        match host.is_empty() {
            true => bytes,
            false => self.held_by(host).saturating_add(bytes),
        }
    }

    /// Takes bytes for an address, also beyond its share.
    pub fn take(&mut self, host: &Arc<str>, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.held = self.held.saturating_add(bytes);
        match self.by_host.get_mut(host) {
            Some(held) => *held = held.saturating_add(bytes),
            None => {
                self.by_host.insert(host.clone(), bytes);
            }
        }
    }

    /// Gives bytes of an address back.
    pub fn give_back(&mut self, host: &str, bytes: usize) {
        self.held = self.held.saturating_sub(bytes);
        if let Some(held) = self.by_host.get_mut(host) {
            *held = held.saturating_sub(bytes);
            if *held == 0 {
                self.by_host.remove(host);
            }
        }
    }

    /// True if no address holds anything.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.held == 0 && self.by_host.is_empty()
    }
}
