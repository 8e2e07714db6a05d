//! Committed entries, collected from look to look: each group's log, and each partition's records with their
//! offsets.
//!
//! The first replica that reports an entry as committed is believed; the checks compare it with all other
//! replicas. The set of refused appends comes from a replica's state. The offsets are counted here; the
//! checks compare them with the replicas' offsets.

use std::collections::{BTreeMap, BTreeSet};

use ropewalk_proto::batch::BatchView;
use ropewalk_proto::command::Command;
use ropewalk_proto::ids::{GroupId, ReplicaId};
use ropewalk_raft_store::inspect::{Digest, InspectedEntry, LogPlace, Payload};

use super::{Image, Look, State, disk_reader};
use crate::history::{Place, RecordName};
use crate::load::record;

/// More than any batch of a run decompresses to.
const MAX_DECOMPRESSED_BYTES: usize = 64 << 20;

/// One committed record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its offset.
    pub offset: u64,
    /// Its name; none if it has none.
    pub name: Option<RecordName>,
    /// Its key; none if it has none, or not one of this run's keys.
    pub key: Option<u32>,
    /// Checksum of key and value.
    pub content: u32,
    /// True if it has no value.
    pub is_tombstone: bool,
    /// Its time, in ms since 1970.
    pub timestamp_ms: i64,
    /// Log index of its batch.
    pub index: u64,
    /// Ring that routed its key; 0 if none did.
    pub ring: u32,
}

/// An entry that is known to be committed, in order of the log.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The group.
    pub group: GroupId,
    /// Its partition, if it is one of a known topic.
    pub place: Option<Place>,
    /// The entry.
    pub entry: InspectedEntry,
    /// Offset of its first record, if it is an accepted append.
    pub base_offset: Option<u64>,
    /// Its records, if it is an accepted append.
    pub records: Vec<Record>,
    /// True if entries right before it were purged before a look could see them.
    pub after_a_gap: bool,
}

/// Knowledge of one group.
#[derive(Debug, Clone, Default)]
pub struct Group {
    /// Its partition, if it is one of a known topic.
    pub place: Option<Place>,
    /// Term and digest of committed entries, by log index.
    pub committed: BTreeMap<u64, (u64, Digest)>,
    /// Memberships, by the log index of their entry.
    pub voters: BTreeMap<u64, Vec<BTreeSet<ReplicaId>>>,
    /// The next offset after each log index.
    pub ends: BTreeMap<u64, u64>,
    /// Records, in order of offset.
    pub records: Vec<Record>,
    /// The next offset.
    pub next_offset: u64,
    /// The log start offset, from the trims in the log.
    pub log_start: u64,
    /// The log start offset after each trim, by log index.
    pub starts: BTreeMap<u64, u64>,
    /// Fences: each is a ring with the offset from which on the partition accepts only records routed by that
    /// ring or a newer one.
    pub fences: Vec<(u32, u64)>,
    /// True if entries were purged before a look could see them.
    pub has_gaps: bool,
    /// The next log index to count.
    next_index: u64,
    /// Committed entries that are not counted yet.
    waiting: BTreeMap<u64, InspectedEntry>,
}

/// All entries known to be committed.
#[derive(Debug, Clone, Default)]
pub struct CommittedModel {
    groups: BTreeMap<GroupId, Group>,
    places: BTreeMap<Place, GroupId>,
}

impl CommittedModel {
    /// Takes in a look. Returns the newly known entries, each group's in order.
    pub fn learn(&mut self, look: &Look) -> Vec<Committed> {
        for (group, place) in disk_reader::places(look) {
            self.name(group, place);
        }
        for replica in &look.replicas {
            let group = self.groups.entry(replica.seen.group).or_default();
            let Some(committed) = replica.seen.committed_index() else {
                continue;
            };
            for entry in &replica.seen.entries {
                if entry.place.index <= committed {
                    group.claim(entry);
                }
            }
        }
        let mut fresh = Vec::new();
        for (id, group) in &mut self.groups {
            group.count(*id, look, &mut fresh);
        }
        fresh
    }

    /// Records a group's partition.
    pub fn name(&mut self, group: GroupId, place: Place) {
        self.groups.entry(group).or_default().place = Some(place);
        self.places.insert(place, group);
    }

    /// One group.
    pub fn group(&self, group: GroupId) -> Option<&Group> {
        self.groups.get(&group)
    }

    /// One group, for fixtures.
    #[cfg(test)]
    pub fn group_mut(&mut self, group: GroupId) -> Option<&mut Group> {
        self.groups.get_mut(&group)
    }

    /// All groups.
    pub fn groups(&self) -> impl Iterator<Item = (GroupId, &Group)> {
        self.groups.iter().map(|(id, group)| (*id, group))
    }

    /// The group of a partition.
    pub fn at(&self, place: Place) -> Option<(GroupId, &Group)> {
        let id = *self.places.get(&place)?;
        Some((id, self.groups.get(&id)?))
    }

    /// The first log index of a group that is not counted yet.
    pub fn next_index(&self, group: GroupId) -> u64 {
        self.groups.get(&group).map_or(0, |group| group.next_index)
    }
}

impl Group {
    /// The log start after a log index.
    pub fn start_at(&self, index: u64) -> u64 {
        let last = self.starts.range(..=index).next_back();
        last.map_or(0, |(_, start)| *start)
    }

    /// The record at an offset.
    pub fn record(&self, offset: u64) -> Option<&Record> {
        let at = self
            .records
            .binary_search_by_key(&offset, |record| record.offset);
        self.records.get(at.ok()?)
    }

    /// The last entry known to be committed.
    pub fn last(&self) -> Option<LogPlace> {
        let (&index, &(term, _)) = self.committed.last_key_value()?;
        Some(LogPlace { term, index })
    }

    fn claim(&mut self, entry: &InspectedEntry) {
        let LogPlace { term, index } = entry.place;
        let first = self.committed.entry(index).or_insert((term, entry.digest));
        if *first == (term, entry.digest) && index >= self.next_index {
            self.waiting.entry(index).or_insert_with(|| entry.clone());
        }
        if let Payload::Voters(voters) = &entry.payload {
            self.voters.entry(index).or_insert_with(|| voters.clone());
        }
    }

    /// Counts the waiting entries, as far as a replica's state shows the refused ones.
    fn count(&mut self, id: GroupId, look: &Look, fresh: &mut Vec<Committed>) {
        if id == disk_reader::METADATA {
            self.count_metadata(id, fresh);
            return;
        }
        let replicas = look
            .of(Image::Live)
            .filter(|replica| replica.seen.group == id);
        let mut states: Vec<(u64, &State)> = replicas
            .filter_map(|replica| Some((replica.seen.applied?.index, replica.state.as_ref()?)))
            .filter(|(applied, _)| *applied >= self.next_index)
            .collect();
        // Prefers a state that knows all refused appends, and among those the most advanced one.
        states.sort_by_key(|(applied, state)| (state.purgeable_index >= self.next_index, !applied));
        let Some((applied, state)) = states.first() else {
            return;
        };
        let gap = state.purgeable_index >= self.next_index && state.purgeable_index > 0;
        let first = match gap {
            true => state.purgeable_index + 1,
            false => self.next_index,
        };
        if !(first..=*applied).all(|index| self.waiting.contains_key(&index)) {
            return;
        }
        if gap {
            self.skip(first, *applied, state);
        }
        for index in first..=*applied {
            let Some(entry) = self.waiting.remove(&index) else {
                return;
            };
            let accepted = !state.refused.contains(&index);
            let mut one = self.take(id, entry, accepted);
            one.after_a_gap = gap && index == first;
            fresh.push(one);
        }
    }

    /// Continues at `first`, since the entries before it were purged before a look could see them.
    fn skip(&mut self, first: u64, applied: u64, state: &State) {
        self.waiting = self.waiting.split_off(&first);
        let counted = self.waiting.range(first..=applied);
        let accepted = counted.filter(|(index, _)| !state.refused.contains(index));
        let records: u64 = accepted.map(|(_, entry)| offset_count(entry)).sum();
        self.next_offset = state.next_offset.saturating_sub(records);
        self.next_index = first;
        self.has_gaps = true;
    }

    fn count_metadata(&mut self, id: GroupId, fresh: &mut Vec<Committed>) {
        while let Some((index, entry)) = self.waiting.pop_first() {
            let gap = index != self.next_index;
            let mut one = self.take(id, entry, true);
            one.after_a_gap = gap;
            fresh.push(one);
        }
    }

    fn take(&mut self, group: GroupId, entry: InspectedEntry, accepted: bool) -> Committed {
        let index = entry.place.index;
        let mut base_offset = None;
        let mut records = Vec::new();
        match &entry.payload {
            Payload::Command(
                Command::Append { batch, stamp } | Command::Compacted { batch, stamp, .. },
            ) if accepted => {
                base_offset = Some(self.next_offset);
                records = unpack(batch.clone(), self.next_offset, (index, stamp.ring_version));
                self.next_offset += offset_count(&entry);
                self.records.extend(records.iter().cloned());
            }
            Payload::Command(Command::Trim { to_offset, .. }) => {
                self.log_start = (*to_offset).clamp(self.log_start, self.next_offset);
                self.starts.insert(index, self.log_start);
            }
            Payload::Command(Command::Fence { ring_version, .. }) => {
                let newest = self.fences.last().map_or(0, |(ring, _)| *ring);
                if *ring_version > newest {
                    self.fences.push((*ring_version, self.next_offset));
                }
            }
            _ => {}
        }
        self.next_index = index + 1;
        self.ends.insert(index, self.next_offset);
        Committed {
            group,
            place: self.place,
            entry,
            base_offset,
            records,
            after_a_gap: false,
        }
    }
}

/// Number of offsets that an entry takes, if it is accepted.
fn offset_count(entry: &InspectedEntry) -> u64 {
    let Payload::Command(command) = &entry.payload else {
        return 0;
    };
    let batch = command.as_append().map(|(_, batch)| batch.clone());
    let batch = batch.and_then(|batch| BatchView::trusted(batch).ok());
    batch.map_or(0, |batch| u64::from(batch.offset_count()))
}

/// Records of an entry, if it is a batch with this base offset.
pub fn records(entry: &InspectedEntry, base_offset: u64) -> Vec<Record> {
    let Payload::Command(command) = &entry.payload else {
        return Vec::new();
    };
    let Some((stamp, batch)) = command.as_append() else {
        return Vec::new();
    };
    unpack(
        batch.clone(),
        base_offset,
        (entry.place.index, stamp.ring_version),
    )
}

/// Records of a batch. A batch that does not parse has none; the checks will miss its records.
fn unpack(batch: bytes::Bytes, base_offset: u64, (index, ring): (u64, u32)) -> Vec<Record> {
    let records = BatchView::trusted(batch)
        .and_then(|batch| batch.records(MAX_DECOMPRESSED_BYTES))
        .unwrap_or_default();
    let records = records.into_iter().map(|found| Record {
        offset: base_offset + u64::from(found.offset_delta.unsigned_abs()),
        name: record::name(&found.headers),
        key: record::key(found.key.as_deref()),
        content: record::content(found.key.as_deref(), found.value.as_deref()),
        is_tombstone: found.value.is_none(),
        timestamp_ms: found.timestamp_ms,
        index,
        ring,
    });
    records.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::{GROUP, append, blank, place, replica, state};
    use crate::observe::Replica;

    /// A replica that has applied the last of these entries.
    fn applied(entries: Vec<InspectedEntry>, next_offset: u64) -> Replica {
        let last = entries.last().map(|entry| entry.place);
        let mut one = replica(1, |seen| {
            seen.entries = entries;
            seen.applied = last;
        });
        one.state = Some(state(next_offset));
        one
    }

    fn learn(truth: &mut CommittedModel, replicas: Vec<Replica>) -> Vec<(u64, Option<u64>)> {
        let look = Look {
            replicas,
            ..Look::default()
        };
        let fresh = truth.learn(&look);
        let fresh = fresh
            .iter()
            .map(|one| (one.entry.place.index, one.base_offset));
        fresh.collect()
    }

    #[test]
    fn appends_get_offsets_one_after_the_other_and_refused_ones_none() {
        let mut truth = CommittedModel::default();
        let mut one = applied(
            vec![
                blank(1, 0),
                append(1, 1, &[(1, 0), (1, 1)]),
                append(1, 2, &[(1, 0)]),
                append(1, 3, &[(1, 2)]),
            ],
            3,
        );
        one.state.as_mut().expect("a state").refused = [2].into();
        let learnt = learn(&mut truth, vec![one]);
        assert_eq!(learnt, [(0, None), (1, Some(0)), (2, None), (3, Some(2))]);
        let group = truth.group(GROUP).expect("a group");
        assert_eq!(group.record(2).and_then(|record| record.name), Some((1, 2)));
        assert_eq!((group.record(3), group.ends.get(&2)), (None, Some(&2)));
    }

    #[test]
    fn what_is_not_committed_or_not_applied_yet_waits() {
        let mut truth = CommittedModel::default();
        let entries = vec![
            blank(1, 0),
            append(1, 1, &[(1, 0)]),
            append(1, 2, &[(1, 1)]),
        ];
        let mut one = applied(entries.clone(), 0);
        one.seen.applied = place(1, 0);
        one.seen.committed = place(1, 1);
        assert_eq!(learn(&mut truth, vec![one]), [(0, None)]);
        assert_eq!(truth.group(GROUP).and_then(Group::last), place(1, 1));
        let later = learn(&mut truth, vec![applied(entries, 2)]);
        assert_eq!(later, [(1, Some(0)), (2, Some(1))]);
    }

    #[test]
    fn behind_what_was_trimmed_unseen_it_counts_back_from_a_state() {
        let mut truth = CommittedModel::default();
        let entries = vec![append(1, 8, &[(1, 5)]), append(1, 9, &[(1, 6)])];
        let mut one = applied(entries, 7);
        one.seen.purged = place(1, 7);
        one.state.as_mut().expect("a state").purgeable_index = 7;
        assert_eq!(learn(&mut truth, vec![one]), [(8, Some(5)), (9, Some(6))]);
        assert!(truth.group(GROUP).is_some_and(|group| group.has_gaps));
    }
}
