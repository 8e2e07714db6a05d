//! Reads the disks: each entry of each replica once, and again while it may still change.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt;
use ropewalk_machines::Machine;
use ropewalk_machines::log::PartitionMachine;
use ropewalk_machines::meta::MetaMachine;
use ropewalk_machines::meta::view::TopicImage;
use ropewalk_proto::ids::{GroupId, ReplicaId};
use ropewalk_raft_store::Disk;
use ropewalk_raft_store::inspect::{self, Inspection};

use super::committed_model::CommittedModel;
use super::{Image, Look, Replica, State};
use crate::cluster::Cluster;
use crate::disk::SimDisk;
use crate::history::Place;
use crate::load;

/// The Raft group of the cluster's metadata.
pub const METADATA: GroupId = GroupId(0);

/// Depth of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Images that are cheap to read.
    Usual,
    /// Also images that are costly to read.
    Thorough,
    /// Every entry, even those seen before.
    Whole,
}

/// Looks at a cluster's disks repeatedly.
#[derive(Debug, Default)]
pub struct DiskReader {
    /// First log index to read of a replica at the next look.
    next: BTreeMap<(String, Image, ReplicaId), u64>,
    /// Last result, with the version of the disk.
    last: BTreeMap<(String, Image), (u64, Vec<Inspection>)>,
}

impl DiskReader {
    /// Takes one look. `truth` names the old entries that are still needed.
    pub fn look(
        &mut self,
        at: Duration,
        cluster: &Cluster,
        truth: &CommittedModel,
        depth: Depth,
    ) -> Look {
        let whole = depth == Depth::Whole;
        let mut look = Look {
            at,
            whole,
            survivors: 0,
            replicas: Vec::new(),
            set_aside: Vec::new(),
        };
        for number in 0..cluster.len() {
            let machine = cluster.machine(cluster.name(number));
            let (host, disk) = (machine.directory_name(), machine.disk());
            look.set_aside.extend(machine.directory().all_set_aside());
            let (setbacks, version) = (disk.setbacks(), disk.version());
            for image in [Image::Live, Image::Durable] {
                let costly = image == Image::Durable && !disk.survivor_is_cheap();
                if costly && depth == Depth::Usual {
                    continue;
                }
                let seen = self.see((&*disk, version), &host, image, truth, whole);
                let Some(replicas) = seen else {
                    continue;
                };
                look.survivors += usize::from(image == Image::Durable);
                look.replicas
                    .extend(replicas.into_iter().map(|seen| Replica {
                        host: host.clone(),
                        image,
                        setbacks: setbacks.power_losses + setbacks.losses,
                        losses: setbacks.losses,
                        on_damaged_disk: setbacks.damaged,
                        state: (image == Image::Live).then(|| state(&seen)).flatten(),
                        seen,
                    }));
            }
        }
        look
    }

    /// Content of one image; none if the image does not exist. An unchanged image is not read again.
    fn see(
        &mut self,
        (disk, version): (&dyn SimDisk, Option<u64>),
        host: &str,
        image: Image,
        truth: &CommittedModel,
        whole: bool,
    ) -> Option<Vec<Inspection>> {
        let of = (host.to_owned(), image);
        let from = |seen: &Inspection| {
            let next = self.next.get(&(host.to_owned(), image, seen.replica));
            from(next, truth, seen.group)
        };
        if let Some((read, last)) = self.last.get_mut(&of)
            && !whole
            && Some(*read) == version
            && last.iter().all(|seen| from(seen) >= seen.from_index)
        {
            last.iter_mut().for_each(|seen| skip(seen, from(seen)));
            return Some(last.clone());
        }
        let opened = match image {
            Image::Live => disk.live(),
            Image::Durable => disk.survivor(),
        };
        let read = self.read(&*opened?, host, image, truth, whole);
        if let Some(version) = version {
            self.last.insert(of, (version, read.clone()));
        }
        Some(read)
    }

    fn read(
        &mut self,
        disk: &dyn Disk,
        host: &str,
        image: Image,
        truth: &CommittedModel,
        whole: bool,
    ) -> Vec<Inspection> {
        let replicas = inspect::replicas(disk).now_or_never();
        let replicas = replicas.and_then(Result::ok).unwrap_or_default();
        let mut seen = Vec::new();
        for (group, replica) in replicas {
            let next = self.next.entry((host.to_owned(), image, replica));
            let next = next.or_default();
            let from = match whole {
                true => 0,
                false => from(Some(next), truth, group),
            };
            let read = inspect::replica(disk, group, replica, from).now_or_never();
            if let Some(Ok(read)) = read {
                // Damage may hide the committed index, so reading restarts at the beginning.
                let healthy = read.damaged.is_empty();
                let committed = read.committed_index().filter(|_| healthy);
                *next = committed.map_or(0, |index| index + 1);
                seen.push(read);
            }
        }
        seen
    }
}

/// The first entry to read: entries before it cannot change and were counted.
fn from(next: Option<&u64>, truth: &CommittedModel, group: GroupId) -> u64 {
    next.map_or(0, |next| truth.next_index(group).min(*next))
}

/// Drops the entries before `from`.
fn skip(seen: &mut Inspection, from: u64) {
    seen.from_index = from;
    seen.entries.retain(|entry| entry.place.index >= from);
}

/// State of the partition; none if it cannot be read as a whole, or the replica is not a partition's.
fn state(seen: &Inspection) -> Option<State> {
    if seen.group == METADATA || !seen.damaged.is_empty() {
        return None;
    }
    let mut machine = PartitionMachine::default();
    machine
        .load(seen.applied?.index, seen.effects.clone())
        .ok()?;
    let indexes = seen.entries.iter().map(|entry| entry.place.index);
    Some(State {
        next_offset: machine.next_offset(),
        log_start: machine.log_start(),
        purgeable_index: machine.purgeable_index(),
        refused: indexes.filter(|index| machine.is_refused(*index)).collect(),
        groups: machine.groups().clone(),
    })
}

/// Partition of each group, from the newest copy of the cluster's metadata.
pub fn places(look: &Look) -> BTreeMap<GroupId, Place> {
    placed(look, |name, _, partition| {
        Some(Place {
            topic: load::topic_number(name)?,
            partition,
        })
    })
}

/// The same for the topic that is deleted and created again; each life of it is a topic number.
pub fn lives(look: &Look) -> BTreeMap<GroupId, Place> {
    placed(look, |name, topic, partition| {
        (name == load::RECREATED_NAME).then(|| load::place_of_life(topic.id.0, partition))
    })
}

fn placed(
    look: &Look,
    place: impl Fn(&str, &TopicImage, u32) -> Option<Place>,
) -> BTreeMap<GroupId, Place> {
    let metadata = look.of(Image::Live).map(|replica| &replica.seen);
    let metadata = metadata.filter(|seen| seen.group == METADATA && seen.damaged.is_empty());
    let newest = metadata.max_by_key(|seen| seen.applied.map(|place| place.index));
    let mut machine = MetaMachine::new();
    let Some((applied, seen)) = newest.and_then(|seen| Some((seen.applied?, seen))) else {
        return BTreeMap::new();
    };
    if machine.load(applied.index, seen.effects.clone()).is_err() {
        return BTreeMap::new();
    }
    let view = machine.to_view();
    let mut places = BTreeMap::new();
    for (name, topic) in &view.topics {
        for (partition, of) in (0..).zip(&topic.partitions) {
            places.extend(place(name, topic, partition).map(|place| (of.group, place)));
        }
    }
    places
}
