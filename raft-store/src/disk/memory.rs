//! A disk in memory with the one property of a real disk that matters: a power loss may take the writes
//! that were not synced.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::{self, BoxFuture};
use parking_lot::Mutex;

use super::{Change, ChangeBatch, Disk, DiskError, ScanLimit};

/// An ordered map that remembers the state that a power loss would leave.
#[derive(Debug, Default)]
pub struct MemoryDisk {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    map: BTreeMap<Bytes, Bytes>,
    /// The map as of the last sync.
    synced: BTreeMap<Bytes, Bytes>,
    /// The batches committed since the last sync, in order.
    unsynced: Vec<Vec<Change>>,
    next_failure: Option<DiskError>,
    failed: Option<DiskError>,
    free_bytes: Option<u64>,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    /// The disk after a power loss: everything up to the last sync, and the first `keep_unsynced` of the
    /// batches committed since.
    pub fn crash_image(&self, keep_unsynced: usize) -> MemoryDisk {
        let state = self.state.lock();
        let mut map = state.synced.clone();
        for changes in state.unsynced.iter().take(keep_unsynced) {
            apply(&mut map, changes);
        }
        let state = State {
            synced: map.clone(),
            map,
            ..State::default()
        };
        MemoryDisk {
            state: Mutex::new(state),
        }
    }

    /// The disk as the next process finds it when the last one ended without a power loss. Everything
    /// written is there, unsynced batches may still be lost, and a failure is over.
    pub fn reopened(&self) -> MemoryDisk {
        let state = self.state.lock();
        let state = State {
            map: state.map.clone(),
            synced: state.synced.clone(),
            unsynced: state.unsynced.clone(),
            ..State::default()
        };
        MemoryDisk {
            state: Mutex::new(state),
        }
    }

    /// The pairs that survive every power loss.
    pub fn durable(&self) -> BTreeMap<Bytes, Bytes> {
        self.state.lock().synced.clone()
    }

    /// Changes a stored value without a commit, as bit rot does. A newer value that is not synced is still
    /// in memory, and stays as it is.
    pub fn rot(&self, key: &Bytes, value: Bytes) {
        let mut state = self.state.lock();
        let old = state.synced.insert(key.clone(), value.clone());
        if old.is_some() && state.map.get(key) == old.as_ref() {
            state.map.insert(key.clone(), value);
        }
    }

    /// Number of batches that are committed but not synced, and that a power loss may take.
    pub fn unsynced_batches(&self) -> usize {
        self.state.lock().unsynced.len()
    }

    /// Makes the next commit fail, and with it every later one.
    pub fn fail_next_commit(&self, error: DiskError) {
        self.state.lock().next_failure = Some(error);
    }

    /// Cancels a failure that no commit has met yet. A failure that a commit has met remains.
    pub fn fail_no_commit(&self) {
        self.state.lock().next_failure = None;
    }

    /// Flips a bit in each stored value that `chosen` selects by key and value, as a rotting medium would.
    /// Returns the number of flipped values.
    pub fn damage(&self, mut chosen: impl FnMut(&[u8], &[u8]) -> bool) -> usize {
        let mut state = self.state.lock();
        let State { map, synced, .. } = &mut *state;
        let mut flipped = 0;
        for (key, value) in map.iter_mut().filter(|(_, value)| !value.is_empty()) {
            if chosen(key, value) {
                let mut bytes = BytesMut::from(&value[..]);
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0x10;
                *value = bytes.freeze();
                synced
                    .entry(key.clone())
                    .and_modify(|synced| *synced = value.clone());
                flipped += 1;
            }
        }
        flipped
    }

    /// Sets the result of [`Disk::free_bytes`].
    pub fn set_free_bytes(&self, bytes: u64) {
        self.state.lock().free_bytes = Some(bytes);
    }
}

impl Disk for MemoryDisk {
    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<Bytes>, DiskError>> {
        Box::pin(future::ready(Ok(self.state.lock().map.get(&key).cloned())))
    }

    fn scan(
        &self,
        range: Range<Bytes>,
        limit: ScanLimit,
    ) -> BoxFuture<'_, Result<Vec<(Bytes, Bytes)>, DiskError>> {
        let pairs = scan(&self.state.lock().map, range, limit);
        Box::pin(future::ready(Ok(pairs)))
    }

    fn last(
        &self,
        range: Range<Bytes>,
    ) -> BoxFuture<'_, Result<Option<(Bytes, Bytes)>, DiskError>> {
        let found = last(&self.state.lock().map, range);
        Box::pin(future::ready(Ok(found)))
    }

    fn commit(&self, batch: ChangeBatch, sync: bool) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(future::ready(self.state.lock().commit(batch, sync)))
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        Ok(self.state.lock().free_bytes.unwrap_or(u64::MAX))
    }
}

/// Read-only disk with the state that a power loss at this moment would leave.
#[derive(Debug)]
pub struct CrashOutcome(pub Arc<MemoryDisk>);

impl Disk for CrashOutcome {
    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<Bytes>, DiskError>> {
        let found = self.0.state.lock().synced.get(&key).cloned();
        Box::pin(future::ready(Ok(found)))
    }

    fn scan(
        &self,
        range: Range<Bytes>,
        limit: ScanLimit,
    ) -> BoxFuture<'_, Result<Vec<(Bytes, Bytes)>, DiskError>> {
        let pairs = scan(&self.0.state.lock().synced, range, limit);
        Box::pin(future::ready(Ok(pairs)))
    }

    fn last(
        &self,
        range: Range<Bytes>,
    ) -> BoxFuture<'_, Result<Option<(Bytes, Bytes)>, DiskError>> {
        let found = last(&self.0.state.lock().synced, range);
        Box::pin(future::ready(Ok(found)))
    }

    fn commit(&self, _: ChangeBatch, _: bool) -> BoxFuture<'_, Result<(), DiskError>> {
        let refused = DiskError::Failed("it is only looked at".to_owned());
        Box::pin(future::ready(Err(refused)))
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        Ok(0)
    }
}

fn scan(
    map: &BTreeMap<Bytes, Bytes>,
    range: Range<Bytes>,
    limit: ScanLimit,
) -> Vec<(Bytes, Bytes)> {
    let mut pairs = Vec::new();
    let mut bytes = 0;
    if range.start < range.end {
        for (key, value) in map.range(range) {
            bytes += key.len() + value.len();
            let full = pairs.len() >= limit.max_pairs || bytes > limit.max_bytes;
            if full && !pairs.is_empty() {
                break;
            }
            pairs.push((key.clone(), value.clone()));
        }
    }
    pairs
}

fn last(map: &BTreeMap<Bytes, Bytes>, range: Range<Bytes>) -> Option<(Bytes, Bytes)> {
    if range.start >= range.end {
        return None;
    }
    let (key, value) = map.range(range).next_back()?;
    Some((key.clone(), value.clone()))
}

impl State {
    fn commit(&mut self, batch: ChangeBatch, sync: bool) -> Result<(), DiskError> {
        if let Some(error) = self.next_failure.take() {
            self.failed = Some(error);
        }
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        apply(&mut self.map, &batch.changes);
        self.unsynced.push(batch.changes);
        if sync {
            for changes in std::mem::take(&mut self.unsynced) {
                apply(&mut self.synced, &changes);
            }
        }
        Ok(())
    }
}

fn apply(map: &mut BTreeMap<Bytes, Bytes>, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Put { key, head, body } => {
                map.insert(key.clone(), join(head, body));
            }
            Change::Delete { key } => {
                map.remove(key);
            }
            Change::DeleteRange { range } if range.start < range.end => {
                let gone: Vec<Bytes> = map
                    .range(range.clone())
                    .map(|(key, _)| key.clone())
                    .collect();
                for key in gone {
                    map.remove(&key);
                }
            }
            Change::DeleteRange { .. } => {}
        }
    }
}

fn join(head: &Bytes, body: &Bytes) -> Bytes {
    if head.is_empty() {
        return body.clone();
    }
    let mut value = BytesMut::with_capacity(head.len() + body.len());
    value.extend_from_slice(head);
    value.extend_from_slice(body);
    value.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static str, value: &'static str) -> ChangeBatch {
        let (key, body) = (
            Bytes::from_static(key.as_bytes()),
            Bytes::from_static(value.as_bytes()),
        );
        ChangeBatch {
            changes: vec![Change::Put {
                key,
                head: Bytes::new(),
                body,
            }],
        }
    }

    #[tokio::test]
    async fn a_power_loss_keeps_what_was_synced_and_a_prefix_of_the_rest() {
        let disk = MemoryDisk::new();
        disk.commit(put("a", "1"), true).await.expect("a commit");
        disk.commit(put("b", "2"), false).await.expect("a commit");
        disk.commit(put("c", "3"), false).await.expect("a commit");
        for (kept, expected) in [
            (0, vec!["a"]),
            (1, vec!["a", "b"]),
            (9, vec!["a", "b", "c"]),
        ] {
            let image = disk.crash_image(kept);
            let range = Bytes::new()..Bytes::from_static(b"z");
            let limit = ScanLimit {
                max_bytes: 100,
                max_pairs: 100,
            };
            let pairs = image.scan(range, limit).await.expect("a scan");
            let keys: Vec<_> = pairs.iter().map(|(key, _)| &key[..]).collect();
            assert_eq!(
                keys,
                expected
                    .iter()
                    .map(|key| key.as_bytes())
                    .collect::<Vec<_>>()
            );
        }
    }
}
