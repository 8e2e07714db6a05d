//! Compaction keeps the last value of each key. In the end every replica of a compacted topic holds the last
//! committed record of each key at its offset. Tombstones are exempt.

use std::collections::BTreeMap;

use ropewalk_proto::command::Command;
use ropewalk_proto::ids::GroupId;
use ropewalk_raft_store::inspect::Payload;

use super::{Check, Now, Seen};
use crate::observe::committed_model::{Committed, Record};
use crate::observe::{Image, Replica, committed_model};

/// The check.
#[derive(Debug, Default)]
pub struct LastValuesAreKept {
    groups: BTreeMap<GroupId, Rows>,
}

/// State of one group.
#[derive(Debug, Default)]
struct Rows {
    /// True if a compaction of it was ever ordered.
    compacted: bool,
    /// Records by key and offset.
    records: BTreeMap<(u32, u64), Record>,
    /// Last record of each key, in the whole log and below the offset of the last compaction.
    last: BTreeMap<u32, Record>,
    below: BTreeMap<u32, Record>,
    /// Base offset of each batch, by log index.
    base_offsets: BTreeMap<u64, u64>,
}

impl Check for LastValuesAreKept {
    fn name(&self) -> &'static str {
        "last-values-are-kept"
    }

    fn look(&mut self, now: &Now<'_>) -> Result<(), String> {
        for one in now.fresh {
            self.groups.entry(one.group).or_default().take(one);
        }
        Ok(())
    }

    fn end(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        for replica in seen.look.of(Image::Live) {
            let rows = self.groups.get(&replica.seen.group);
            let Some(rows) = rows.filter(|rows| rows.compacted) else {
                continue;
            };
            // This check does not judge trimmed or damaged logs.
            if replica.seen.damaged.is_empty() && replica.seen.purged.is_none() {
                rows.check(replica)?;
            }
        }
        Ok(())
    }
}

impl Rows {
    fn take(&mut self, one: &Committed) {
        if let Payload::Command(Command::Compact { .. } | Command::Compacted { .. }) =
            &one.entry.payload
        {
            self.compacted = true;
        }
        if let Payload::Command(Command::Compact { to_offset, .. }) = &one.entry.payload {
            let before = self.records.values();
            let before = before.filter(|record| record.offset < *to_offset);
            let keyed = before.filter_map(|record| Some((record.key?, record.clone())));
            self.below = keyed.collect();
        }
        if let Some(base_offset) = one.base_offset {
            self.base_offsets.insert(one.entry.place.index, base_offset);
        }
        for record in &one.records {
            if let Some(key) = record.key {
                self.last.insert(key, record.clone());
                self.records.insert((key, record.offset), record.clone());
            }
        }
    }

    fn check(&self, replica: &Replica) -> Result<(), String> {
        let mut held = BTreeMap::new();
        for entry in &replica.seen.entries {
            if let Some(base_offset) = self.base_offsets.get(&entry.place.index) {
                let records = committed_model::records(entry, *base_offset);
                held.extend(records.into_iter().map(|record| (record.offset, record)));
            }
        }
        let log_end = replica.seen.last.map_or(0, |last| last.index);
        for (key, last) in self.last.iter().chain(&self.below) {
            let same = held.get(&last.offset) == Some(last);
            if !same && !last.is_tombstone && last.index <= log_end {
                return Err(format!(
                    "{}: the last record of key {key} is {last:?}, and there stands {:?}",
                    replica.name(),
                    held.get(&last.offset)
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ropewalk_proto::command::Stamp;

    use super::*;
    use crate::check::fixtures::{GROUP, Story, of_command, replica};
    use ropewalk_proto::batch::{BatchBuilder, Compression};
    use ropewalk_raft_store::inspect::InspectedEntry;

    /// A batch of one record of the one key.
    fn row(index: u64, value: Option<&[u8]>) -> InspectedEntry {
        let mut batch = BatchBuilder::new(Compression::None, 1 << 20);
        let pushed = batch.push(Some(b"key-1"), value, &[], 0);
        assert!(pushed.expect("a record"), "it fits");
        let command = Command::Append {
            stamp: Stamp::default(),
            batch: batch.build(),
        };
        of_command(index, command).entry
    }

    /// Judges the log of one compacted replica against the entries that another replica committed.
    fn judge(committed: &[InspectedEntry], held: Vec<InspectedEntry>) -> Result<(), String> {
        let mut check = LastValuesAreKept::default();
        let rows = check.groups.entry(GROUP).or_default();
        let mut base_offset = 0;
        for entry in committed {
            let records = committed_model::records(entry, base_offset);
            let mut one = of_command(entry.place.index, Command::Roll { leader_time_ms: 0 });
            one.entry = entry.clone();
            one.base_offset = Some(base_offset);
            base_offset += records.len() as u64;
            one.records = records;
            rows.take(&one);
        }
        rows.compacted = true;
        let mut story = Story::default();
        story.look.replicas = vec![replica(1, |seen| {
            seen.last = held.last().map(|entry| entry.place);
            seen.entries = held;
        })];
        story.end(&mut check)
    }

    #[test]
    fn the_last_record_of_a_key_must_be_there_and_no_other() {
        let (first, last) = (row(1, Some(b"1")), row(2, Some(b"2")));
        let committed = [first.clone(), last.clone()];
        assert_eq!(judge(&committed, committed.to_vec()), Ok(()));
        let mut none = last.clone();
        none.payload = Payload::Blank;
        assert!(judge(&committed, vec![first.clone(), none]).is_err());
        let mut gone = first.clone();
        gone.payload = Payload::Blank;
        assert_eq!(judge(&committed, vec![gone.clone(), last]), Ok(()));
        let mut gone_too = row(2, None);
        let committed = [first, gone_too.clone()];
        gone_too.payload = Payload::Blank;
        assert_eq!(judge(&committed, vec![gone, gone_too]), Ok(()));
    }
}
