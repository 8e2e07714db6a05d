//! The newest entries of each replica's log, in memory, within one budget for the whole node.
//!
//! Replication, apply and tailing consumers read from here. Evicted entries are read from the disk. An
//! entry is evicted only once it is synced: until then it can be read only here. Eviction follows the order
//! of arrival over all replicas: the node's oldest entries first.

use std::collections::VecDeque;
use std::sync::Weak;

use parking_lot::Mutex;

use crate::entry::StoredEntry;
use crate::types::Entry;

/// Cost of an entry besides its own bytes. It also bounds the number of entries that the budget can hold.
const ENTRY_OVERHEAD_BYTES: u64 = 160;

/// The tail of one replica's log: its newest entries, without a gap up to the last.
#[derive(Debug, Default)]
pub(crate) struct LogCache {
    entries: VecDeque<Held>,
    /// The last synced append. Appends are numbered, since a log index can be written twice.
    synced_append: u64,
}

#[derive(Debug)]
struct Held {
    append: u64,
    stored: StoredEntry,
}

impl LogCache {
    /// First index held.
    pub(crate) fn first(&self) -> Option<u64> {
        self.entries
            .front()
            .map(|held| held.stored.entry.log_id.index)
    }

    /// Adds the next entry. [`LogCache::get`] finds entries by their distance from the first.
    pub(crate) fn push(&mut self, append: u64, stored: StoredEntry) {
        let index = stored.entry.log_id.index;
        if let Some(last) = self.entries.back() {
            let next = last.stored.entry.log_id.index + 1;
            assert_eq!(index, next, "the tail has no gap");
            assert!(append >= last.append, "appends come in order");
        }
        self.entries.push_back(Held { append, stored });
    }

    pub(crate) fn get(&self, index: u64) -> Option<&StoredEntry> {
        let place = index.checked_sub(self.first()?)?;
        let held = self.entries.get(usize::try_from(place).ok()?)?;
        let found = held.stored.entry.log_id.index;
        assert_eq!(found, index, "the tail has no gap");
        Some(&held.stored)
    }

    /// Entries from `start`, which must be held, to before `end`, up to `max_bytes`; the first even if
    /// larger.
    pub(crate) fn read(&self, start: u64, end: u64, max_bytes: u64) -> Vec<Entry> {
        let stored = self.stored(start, end, max_bytes);
        stored.map(|stored| stored.entry.clone()).collect()
    }

    /// Like [`LogCache::read`], with the entries' lengths.
    pub(crate) fn stored(
        &self,
        start: u64,
        end: u64,
        max_bytes: u64,
    ) -> impl Iterator<Item = &StoredEntry> {
        let mut bytes = 0;
        (start..end)
            .map_while(|index| self.get(index))
            .take_while(move |stored| {
                let first = bytes == 0;
                bytes += stored.bytes;
                first || bytes <= max_bytes
            })
    }

    /// Replaces the held entry of the same log id, if there is one. The budget still counts the old length.
    pub(crate) fn replace(&mut self, stored: StoredEntry) {
        let place = self
            .first()
            .and_then(|first| stored.entry.log_id.index.checked_sub(first));
        let place = place.and_then(|place| usize::try_from(place).ok());
        if let Some(held) = place.and_then(|place| self.entries.get_mut(place))
            && held.stored.entry.log_id == stored.entry.log_id
        {
            held.stored = stored;
        }
    }

    /// Drops the entries from `index` on.
    pub(crate) fn truncate(&mut self, index: u64) {
        let keep = self.first().map_or(0, |first| index.saturating_sub(first));
        self.entries
            .truncate(usize::try_from(keep).unwrap_or(usize::MAX));
    }

    /// Drops the entries through `index`.
    pub(crate) fn drop_through(&mut self, index: u64) {
        self.drop_while(|held| held.stored.entry.log_id.index <= index);
    }

    pub(crate) fn mark_synced(&mut self, append: u64) {
        self.synced_append = self.synced_append.max(append);
    }

    /// Evicts the entries of `append` and of earlier appends; false if it is not synced yet.
    pub(crate) fn evict(&mut self, append: u64) -> bool {
        if append > self.synced_append {
            return false;
        }
        self.drop_while(|held| held.append <= append);
        true
    }

    fn drop_while(&mut self, gone: impl Fn(&Held) -> bool) {
        while self.entries.front().is_some_and(&gone) {
            self.entries.pop_front();
        }
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
    }
}

/// Owner of cached entries, which frees memory when the budget is exceeded.
pub(crate) trait Evict: Send + Sync {
    /// Evicts the entries of `append` and of earlier appends; false if it is not synced yet.
    fn evict(&self, append: u64) -> bool;
}

/// The node's budget for all tails. Memory that a purge has freed counts until its claim is the oldest,
/// which keeps this a queue.
#[derive(Debug)]
pub(crate) struct LogCacheBudget<E> {
    limit_bytes: u64,
    claims: Mutex<Claims<E>>,
}

#[derive(Debug)]
struct Claims<E> {
    bytes: u64,
    queue: VecDeque<Claim<E>>,
}

#[derive(Debug)]
struct Claim<E> {
    owner: Weak<E>,
    append: u64,
    bytes: u64,
}

impl<E: Evict> LogCacheBudget<E> {
    pub(crate) fn new(limit_bytes: u64) -> LogCacheBudget<E> {
        LogCacheBudget {
            limit_bytes,
            claims: Mutex::new(Claims {
                bytes: 0,
                queue: VecDeque::new(),
            }),
        }
    }

    /// Counts an append, and evicts the oldest ones to make room. Unsynced entries stay even beyond the
    /// budget; the committer's queue bounds them.
    pub(crate) fn claim(&self, owner: Weak<E>, append: u64, entries: u64, entry_bytes: u64) {
        let bytes = entry_bytes + entries * ENTRY_OVERHEAD_BYTES;
        let mut claims = self.claims.lock();
        claims.bytes += bytes;
        claims.queue.push_back(Claim {
            owner,
            append,
            bytes,
        });
        while claims.bytes > self.limit_bytes {
            let Some(oldest) = claims.queue.front() else {
                break;
            };
            let owner = oldest.owner.upgrade();
            if owner.is_some_and(|owner| !owner.evict(oldest.append)) {
                break;
            }
            let freed = oldest.bytes;
            claims.bytes -= freed;
            claims.queue.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use openraft::EntryPayload;

    use super::*;
    use crate::types::LogId;

    fn stored(index: u64) -> StoredEntry {
        StoredEntry {
            entry: Entry {
                log_id: LogId::new_term_index(1, index),
                payload: EntryPayload::Blank,
            },
            bytes: 100,
            end_bytes: 0,
        }
    }

    fn indices(entries: &[Entry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.log_id.index).collect()
    }

    #[test]
    fn a_read_ends_at_its_end_its_bytes_or_the_log() {
        let mut tail = LogCache::default();
        (5..9).for_each(|index| tail.push(1, stored(index)));
        assert_eq!(indices(&tail.read(5, 7, 1_000)), [5, 6]);
        assert_eq!(indices(&tail.read(6, 20, 200)), [6, 7]);
        assert_eq!(indices(&tail.read(7, 20, 0)), [7]);
        assert!(tail.read(9, 20, 1_000).is_empty());
        assert!(tail.read(4, 20, 1_000).is_empty());
    }

    #[test]
    fn an_index_written_again_does_not_leave_before_its_own_sync() {
        let mut tail = LogCache::default();
        (1..4).for_each(|index| tail.push(1, stored(index)));
        tail.truncate(2);
        tail.push(2, stored(2));
        tail.mark_synced(1);
        assert!(tail.evict(1));
        assert_eq!(tail.first(), Some(2));
        assert!(!tail.evict(2));
        assert_eq!(tail.first(), Some(2));
    }

    impl Evict for Mutex<LogCache> {
        fn evict(&self, append: u64) -> bool {
            self.lock().evict(append)
        }
    }

    #[test]
    fn the_oldest_of_all_replicas_leaves_first_and_only_once_synced() {
        let budget = LogCacheBudget::new(3 * (100 + ENTRY_OVERHEAD_BYTES));
        let tails = [(), ()].map(|()| Arc::new(Mutex::new(LogCache::default())));
        let append = |which: usize, append: u64| {
            tails[which].lock().push(append, stored(append));
            budget.claim(Arc::downgrade(&tails[which]), append, 1, 100);
        };
        append(0, 1);
        append(1, 1);
        append(0, 2);
        append(1, 2);
        assert_eq!(tails[0].lock().first(), Some(1), "nothing is synced yet");
        tails[0].lock().mark_synced(1);
        append(1, 3);
        assert_eq!(tails[0].lock().first(), Some(2));
        assert_eq!(
            tails[1].lock().first(),
            Some(1),
            "the next in turn is not synced"
        );
        tails[1].lock().mark_synced(3);
        append(1, 4);
        assert_eq!(tails[0].lock().first(), Some(2));
        assert_eq!(tails[1].lock().first(), Some(2));
    }

    #[test]
    fn a_replica_that_is_gone_holds_no_budget() {
        let budget: LogCacheBudget<Mutex<LogCache>> = LogCacheBudget::new(0);
        budget.claim(Weak::new(), 1, 1, 100);
        assert_eq!(budget.claims.lock().bytes, 0);
    }
}
