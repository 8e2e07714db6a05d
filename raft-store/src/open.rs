//! Opens a replica from the disk, and refuses state from which Raft can't continue safely.
//!
//! Three findings are damage: the log ends below the applied position, it does not begin where it was
//! purged, or it is purged without a checkpoint to replace it. openraft would continue from each of them,
//! and lose records silently.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use ropewalk_machines::machine::Machine;
use ropewalk_proto::ids::{GroupId, ReplicaId};
use ropewalk_proto::planted_bug::{PlantedBug, is_planted};
use tokio::sync::watch;

use crate::checkpoint;
use crate::checksum;
use crate::disk::{Disk, DiskError, ScanLimit};
use crate::entry;
use crate::keys::{self, Key, Part};
use crate::log::{LogBounds, NodeDisk, ReplicaLog};
use crate::openraft_state_machine::StateMachine;
use crate::reader::ReplicaReader;
use crate::store::StoreError;
use crate::values::{self, Position};

/// Limits of one read.
const STEP: ScanLimit = ScanLimit {
    max_bytes: 1 << 20,
    max_pairs: 4_096,
};

type Opened<M> = (Arc<ReplicaLog>, StateMachine<M>, ReplicaReader<M>);

/// The replicas recorded on a disk, with their groups.
pub(crate) async fn records(disk: &dyn Disk) -> Result<BTreeMap<ReplicaId, GroupId>, DiskError> {
    let mut known = BTreeMap::new();
    for (key, value) in scan_all(disk, keys::records()).await? {
        let Some(Key::Record(replica)) = Key::decode(&key) else {
            return Err(checksum::damaged(
                &key,
                "it is not the key of a replica's record",
            ));
        };
        known.insert(replica, values::read_record(&key, value)?);
    }
    Ok(known)
}

/// Opens one replica.
pub(crate) async fn replica<M: Machine>(
    node: Arc<NodeDisk>,
    group: GroupId,
    replica: ReplicaId,
    mut machine: M,
) -> Result<Opened<M>, StoreError> {
    let disk = Arc::clone(&node.disk);
    let marks = marks(disk.as_ref(), replica).await?;
    let position = position(disk.as_ref(), replica).await?;
    check_ends(replica, &marks, &position)?;
    if let Some(applied) = position.log_id {
        let effects = effects(disk.as_ref(), replica).await?;
        machine.load(applied.index, effects)?;
    }
    let log = Arc::new(ReplicaLog::new(group, replica, node, marks));
    check_snapshot(&log, machine.purgeable_index()).await?;
    let machine = Arc::new(RwLock::new(machine));
    let (applied, watched) = watch::channel(position.log_id.map_or(0, |applied| applied.index));
    let view = ReplicaReader::new(Arc::clone(&log), Arc::clone(&machine), watched);
    let state = StateMachine::new(Arc::clone(&log), machine, position, applied);
    Ok((log, state, view))
}

/// Reason that a replica must not run, if it is in quarantine.
pub(crate) async fn quarantined(
    disk: &dyn Disk,
    replica: ReplicaId,
) -> Result<Option<String>, DiskError> {
    match get(disk, replica, Part::Quarantine).await? {
        Some(_) if is_planted(PlantedBug::DamagedGoesOn) => Ok(None),
        Some((key, value)) => values::read_quarantine(&key, value).map(Some),
        None => Ok(None),
    }
}

async fn marks(disk: &dyn Disk, replica: ReplicaId) -> Result<LogBounds, DiskError> {
    let mut marks = LogBounds::default();
    if let Some((key, value)) = get(disk, replica, Part::Vote).await? {
        marks.vote = Some(values::read_vote(&key, value)?);
    }
    if let Some((key, value)) = get(disk, replica, Part::Committed).await? {
        marks.committed = Some(values::read_committed(&key, value)?);
    }
    if let Some((key, value)) = get(disk, replica, Part::Purged).await? {
        let purged = values::read_purged(&key, value)?;
        marks.purge(purged);
    }
    let range = keys::log(replica, 0, u64::MAX);
    let one = ScanLimit {
        max_pairs: 1,
        ..STEP
    };
    if let Some((key, value)) = disk.scan(range.clone(), one).await?.into_iter().next() {
        let first = entry::read(&key, value)?.entry.log_id;
        if first.index != marks.first() {
            return Err(DiskError::Damaged(format!(
                "replica {replica}: the log begins at {}, and should begin at {}",
                first.index,
                marks.first()
            )));
        }
    }
    if let Some((key, value)) = disk.last(range).await? {
        let last = entry::read(&key, value)?;
        marks.last = Some(last.entry.log_id);
        marks.end_bytes = last.end_bytes;
    }
    Ok(marks)
}

async fn position(disk: &dyn Disk, replica: ReplicaId) -> Result<Position, DiskError> {
    match get(disk, replica, Part::Applied).await? {
        Some((key, value)) => values::read_applied(&key, value),
        None => Ok(Position::default()),
    }
}

fn check_ends(replica: ReplicaId, marks: &LogBounds, position: &Position) -> Result<(), DiskError> {
    if position.log_id <= marks.last {
        return Ok(());
    }
    let index = |id: Option<crate::types::LogId>| {
        id.map_or_else(|| "nothing".to_owned(), |id| id.index.to_string())
    };
    Err(DiskError::Damaged(format!(
        "replica {replica}: the log ends at {}, below the applied {}",
        index(marks.last),
        index(position.log_id)
    )))
}

async fn check_snapshot(log: &ReplicaLog, purgeable_index: u64) -> Result<(), DiskError> {
    let Some(purged) = log.marks().purged else {
        return Ok(());
    };
    let boundary = checkpoint::boundary(log, purgeable_index);
    let newest = checkpoint::newest(log, boundary).await?;
    if newest.is_some_and(|(index, _)| index >= purged.log_id.index) {
        return Ok(());
    }
    Err(DiskError::Damaged(format!(
        "replica {}: the log is purged up to {}, and no checkpoint covers that part",
        log.replica, purged.log_id.index
    )))
}

async fn effects(disk: &dyn Disk, replica: ReplicaId) -> Result<Vec<(Bytes, Bytes)>, DiskError> {
    let stored = scan_all(disk, keys::effects(replica)).await?;
    let effects = stored.into_iter().map(|(key, value)| {
        let Some(Key::Of(_, Part::Effect(effect))) = Key::decode(&key) else {
            return Err(checksum::damaged(&key, "it is not the key of an effect"));
        };
        Ok((effect, checksum::open(&key, value)?))
    });
    effects.collect()
}

async fn get(
    disk: &dyn Disk,
    replica: ReplicaId,
    part: Part,
) -> Result<Option<(Bytes, Bytes)>, DiskError> {
    let key = Key::Of(replica, part).encode();
    let value = disk.get(key.clone()).await?;
    Ok(value.map(|value| (key, value)))
}

/// All pairs of a range. Only for ranges bounded otherwise: all of it is in memory at once.
pub(crate) async fn scan_all(
    disk: &dyn Disk,
    mut range: Range<Bytes>,
) -> Result<Vec<(Bytes, Bytes)>, DiskError> {
    let mut all = Vec::new();
    loop {
        let pairs = disk.scan(range.clone(), STEP).await?;
        let Some((last, _)) = pairs.last() else {
            return Ok(all);
        };
        range.start = keys::after(last);
        all.extend(pairs);
    }
}
