//! Requests that wait for room, by address. Those of an address that has used up its share delay no other
//! address.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::share::Shares;

/// Waiting requests of all addresses.
#[derive(Debug, Default)]
pub(super) struct Queue {
    lines: BTreeMap<Arc<str>, Line>,
    /// Addresses by the bytes that must be left before their first request may go on.
    by_need: BTreeSet<(usize, Arc<str>)>,
    /// Addresses with a waiting request that has arrived in part.
    begun: BTreeSet<Arc<str>>,
    /// Address that got the last turn to go on without room.
    had_turn: Arc<str>,
}

/// Waiting requests of one address, by number: the bytes that each wants.
#[derive(Debug, Default)]
struct Line {
    /// Key of this line in `by_need`.
    need: usize,
    /// Requests that hold room. They go first: only they can give some back.
    begun: BTreeMap<u64, usize>,
    fresh: BTreeMap<u64, usize>,
}

impl Line {
    fn first(&self) -> Option<(u64, usize)> {
        let first = self.begun.first_key_value();
        let first = first.or_else(|| self.fresh.first_key_value());
        first.map(|(number, bytes)| (*number, *bytes))
    }
}

impl Queue {
    /// True if an address has a waiting request.
    pub fn has(&self, host: &str) -> bool {
        self.lines.contains_key(host)
    }

    /// True if a request of this address must wait behind another of it.
    pub fn is_behind(&self, host: &str, is_begun: bool) -> bool {
        let line = self.lines.get(host);
        line.is_some_and(|line| !is_begun || !line.begun.is_empty())
    }

    /// Adds a request that wants this many bytes.
    pub fn join(&mut self, host: &Arc<str>, number: u64, bytes: usize, is_begun: bool) {
        let line = self.lines.entry(host.clone()).or_default();
        match is_begun {
            true => line.begun.insert(number, bytes),
            false => line.fresh.insert(number, bytes),
        };
    }

    /// Removes a request.
    pub fn leave(&mut self, host: &str, number: u64) {
        if let Some(line) = self.lines.get_mut(host) {
            line.begun.remove(&number);
            line.fresh.remove(&number);
        }
    }

    /// Corrects the order after a change to the requests or the share of an address.
    pub fn refresh(&mut self, host: &Arc<str>, shares: &Shares) {
        let Some(line) = self.lines.get_mut(host) else {
            return;
        };
        self.by_need.remove(&(line.need, host.clone()));
        match line.begun.is_empty() {
            true => self.begun.remove(host),
            false => self.begun.insert(host.clone()),
        };
        match line.first() {
            Some((_, bytes)) => {
                line.need = shares.need(host, bytes);
                self.by_need.insert((line.need, host.clone()));
            }
            None => {
                self.lines.remove(host);
            }
        }
    }

    /// The request that may take room, if this much is left. The address that holds least goes first.
    pub fn first_within(&self, left: usize) -> Option<u64> {
        let (need, host) = self.by_need.first()?;
        let (number, _) = self.lines.get(host)?.first()?;
        (*need <= left).then_some(number)
    }

    /// The request that may go on without room. Addresses take turns.
    pub fn next_turn(&mut self) -> Option<u64> {
        let after = (Bound::Excluded(&self.had_turn), Bound::Unbounded);
        let next = self.begun.range::<Arc<str>, _>(after).next();
        let host = next.or_else(|| self.begun.first())?.clone();
        let (number, _) = self.lines.get(&host)?.first()?;
        self.had_turn = host;
        Some(number)
    }

    /// Notes that an address got the turn without a wait.
    pub fn note_turn(&mut self, host: &Arc<str>) {
        self.had_turn = host.clone();
    }
}
