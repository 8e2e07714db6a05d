//! Mapping of keys to partitions. The partition of a key, for a given number of partitions, never changes,
//! in any build on any machine: `proto/tests/vectors/` fixes both mappings.
//!
//! **The ring**, Ropewalk's own mapping, is consistent hashing with [`POINTS_PER_PARTITION`] points a
//! partition. Point `i` of a partition is at XXH64, seed 0, of the partition's number and `i`, both as 32
//! bits little-endian. A key is at XXH64, seed 0, of its bytes. It belongs to the partition of the first
//! point at or after it; after the last point, to that of the first point of all.
//!
//! **murmur2** is the mapping of Kafka's Java clients: the hash of the key, without its sign, modulo the
//! number of partitions. It is for topics whose keys Kafka producers share.
//!
//! Measured with keys `key-0` to `key-999999`. A share of 1 is a partition's fair one. Lookups are those of
//! one core of a shared virtual machine:
//!
//! | partitions | largest share | smallest | standard deviation | lookups/s | to build | memory |
//! |---|---|---|---|---|---|---|
//! | 3 | 1.03 | 0.95 | 0.034 | 41 million | 0.05 ms | 24 KiB |
//! | 12 | 1.09 | 0.89 | 0.060 | 32 million | 0.3 ms | 96 KiB |
//! | 100 | 1.14 | 0.88 | 0.048 | 21 million | 2.3 ms | 800 KiB |
//! | 1000 | 1.18 | 0.83 | 0.055 | 4 million | 29 ms | 8 MiB |
//!
//! Growth from 12 to 13 partitions moves 7.4 % of the keys; no mapping can move fewer than 1/13 and stay
//! even. Growth from 3 to 12 moves 73.9 % (9/12). With murmur2 the figures are 92 % and 75 %. The ring
//! moves keys only to new partitions, never from one old partition to another. Build a mapping once, and
//! keep it.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};

use hashring::HashRing;
use twox_hash::XxHash64;

use crate::error::{ErrorCode, WireError};
use crate::v1::{self, TopicInfo, TopicSettings};

/// Number of ring points of each partition. More points make the shares more even and the ring longer. The
/// number never changes, since that would move keys.
pub const POINTS_PER_PARTITION: u32 = 512;

/// Maximum number of partitions of a topic. It bounds the cost of a number from outside to a node or a
/// client: 80 MiB for a ring of this size.
pub const MAX_PARTITIONS: u32 = 10_000;

const MURMUR2_SEED: u32 = 0x9747_b28c;

/// The mapping of keys to the partitions of one topic.
#[derive(Clone)]
pub struct Partitioner {
    mapping: Mapping,
    partitions: u32,
    ring_version: u32,
}

#[derive(Clone)]
enum Mapping {
    Ring(HashRing<Point, Xxh64>),
    Murmur2,
}

impl Partitioner {
    /// The mapping in a topic's metadata, with its version.
    ///
    /// # Errors
    /// [`ErrorCode::UnsupportedVersion`] for a mapping that this build does not know: a guess would
    /// separate a key's records.
    pub fn of_topic(topic: &TopicInfo) -> Result<Partitioner, WireError> {
        let partitions = match topic.ring_partitions {
            0 => u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX),
            some => some,
        };
        let partitioner = match &topic.settings {
            Some(settings) => Partitioner::of_settings(settings, partitions)?,
            None => Partitioner::ring(partitions),
        };
        Ok(Partitioner {
            ring_version: topic.ring_version,
            ..partitioner
        })
    }

    /// The mapping of a topic with these settings and this number of partitions.
    ///
    /// # Errors
    /// As for [`Partitioner::of_topic`].
    pub fn of_settings(
        settings: &TopicSettings,
        partitions: u32,
    ) -> Result<Partitioner, WireError> {
        match v1::Partitioner::try_from(settings.partitioner) {
            Ok(v1::Partitioner::Murmur2) => Ok(Partitioner::murmur2(partitions)),
            Ok(v1::Partitioner::Ring | v1::Partitioner::Unspecified) => {
                Ok(Partitioner::ring(partitions))
            }
            Err(_) => Err(WireError::new(
                ErrorCode::UnsupportedVersion,
                format!(
                    "topic uses partitioner {}, which this version does not know; upgrade it",
                    settings.partitioner
                ),
            )),
        }
    }

    /// The ring over this number of partitions: at least 1, at most [`MAX_PARTITIONS`].
    pub fn ring(partitions: u32) -> Partitioner {
        let partitions = partitions.clamp(1, MAX_PARTITIONS);
        let points = (0..partitions)
            .flat_map(|partition| (0..POINTS_PER_PARTITION).map(move |i| Point { partition, i }));
        let mut ring = HashRing::with_hasher(Xxh64);
        ring.batch_add(points.collect());
        Partitioner {
            mapping: Mapping::Ring(ring),
            partitions,
            ring_version: 0,
        }
    }

    /// The Java clients' mapping to this number of partitions: at least 1, at most [`MAX_PARTITIONS`].
    pub fn murmur2(partitions: u32) -> Partitioner {
        Partitioner {
            mapping: Mapping::Murmur2,
            partitions: partitions.clamp(1, MAX_PARTITIONS),
            ring_version: 0,
        }
    }

    /// The partition of a key, below [`Partitioner::partitions`].
    pub fn partition(&self, key: &[u8]) -> u32 {
        match &self.mapping {
            Mapping::Ring(ring) => ring.get(&Key(key)).map_or(0, |point| point.partition),
            Mapping::Murmur2 => (murmur2(key) & 0x7fff_ffff) % self.partitions,
        }
    }

    /// Number of partitions.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Version for produce requests, so that an outdated mapping is detected. It is 0, which is never
    /// checked, if this mapping was made without a topic's metadata.
    pub fn ring_version(&self) -> u32 {
        self.ring_version
    }
}

impl fmt::Debug for Partitioner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mapping = match self.mapping {
            Mapping::Ring(_) => "ring",
            Mapping::Murmur2 => "murmur2",
        };
        f.debug_struct("Partitioner")
            .field("mapping", &mapping)
            .field("partitions", &self.partitions)
            .field("ring_version", &self.ring_version)
            .finish()
    }
}

/// One point of the ring.
#[derive(Debug, Clone, Copy)]
struct Point {
    partition: u32,
    i: u32,
}

// Implemented by hand, since std's derived `Hash` feeds integers in the machine's byte order.
impl Hash for Point {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let number = u64::from(self.partition) | u64::from(self.i) << 32;
        state.write(&number.to_le_bytes());
    }
}

struct Key<'a>(&'a [u8]);

// Implemented by hand, since std's `Hash` of a slice begins with its length, whose size depends on the
// machine.
impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0);
    }
}

/// XXH64 with seed 0 of a single write, which is all that a [`Point`] or [`Key`] makes.
#[derive(Debug, Clone, Copy)]
struct Xxh64;

impl BuildHasher for Xxh64 {
    type Hasher = Xxh64OfOneWrite;

    fn build_hasher(&self) -> Xxh64OfOneWrite {
        Xxh64OfOneWrite(0)
    }
}

struct Xxh64OfOneWrite(u64);

impl Hasher for Xxh64OfOneWrite {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = XxHash64::oneshot(self.0, bytes);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// MurmurHash2, 32 bits, as in the Java clients.
fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = MURMUR2_SEED ^ key.len() as u32;
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (i, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> impl Iterator<Item = String> {
        (0..100_000).map(|i| format!("key-{i}"))
    }

    fn moved(before: &Partitioner, after: &Partitioner) -> usize {
        keys()
            .filter(|key| before.partition(key.as_bytes()) != after.partition(key.as_bytes()))
            .count()
    }

    #[test]
    fn murmur2_gives_the_hashes_kafka_tests_its_own_with() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn every_partition_gets_close_to_its_share_of_keys() {
        for partitions in [3, 12, 100] {
            let ring = Partitioner::ring(partitions);
            let mut counts = vec![0_u32; partitions as usize];
            for key in keys() {
                counts[ring.partition(key.as_bytes()) as usize] += 1;
            }
            let mean = 100_000.0 / f64::from(partitions);
            let shares = counts.iter().map(|count| f64::from(*count) / mean);
            let variance = shares
                .clone()
                .map(|share| (share - 1.0).powi(2))
                .sum::<f64>();
            let deviation = (variance / f64::from(partitions)).sqrt();
            assert!(shares.clone().fold(0.0, f64::max) < 1.25, "{partitions}");
            assert!(shares.fold(2.0, f64::min) > 0.75, "{partitions}");
            assert!(deviation < 0.08, "{partitions}: {deviation}");
        }
    }

    #[test]
    fn a_topic_that_grows_moves_little_more_than_it_must() {
        let [three, twelve, thirteen] = [3, 12, 13].map(Partitioner::ring);
        let share = moved(&twelve, &thirteen) as f64 / 100_000.0;
        assert!((0.05..0.11).contains(&share), "{share}");
        let share = moved(&three, &twelve) as f64 / 100_000.0;
        assert!((0.65..0.85).contains(&share), "{share}");
    }

    #[test]
    fn keys_move_only_to_new_partitions() {
        let (before, after) = (Partitioner::ring(12), Partitioner::ring(13));
        for key in keys().take(20_000) {
            let (from, to) = (
                before.partition(key.as_bytes()),
                after.partition(key.as_bytes()),
            );
            assert!(from == to || to == 12, "{key}: {from} to {to}");
        }
    }

    #[test]
    fn a_count_of_partitions_that_makes_no_sense_costs_nothing_and_panics_nowhere() {
        for partitioner in [Partitioner::ring(0), Partitioner::murmur2(0)] {
            assert_eq!(partitioner.partitions(), 1);
            assert_eq!(partitioner.partition(b"key"), 0);
        }
        assert_eq!(Partitioner::murmur2(u32::MAX).partitions(), MAX_PARTITIONS);
    }

    #[test]
    fn a_topics_metadata_chooses_the_mapping_and_its_version() {
        let mut topic = TopicInfo {
            ring_version: 7,
            partitions: vec![Default::default(); 12],
            settings: Some(Default::default()),
            ..Default::default()
        };
        let by_default = Partitioner::of_topic(&topic).unwrap();
        topic.settings = Some(v1::TopicSettings {
            partitioner: v1::Partitioner::Murmur2 as i32,
            ..Default::default()
        });
        let asked_for = Partitioner::of_topic(&topic).unwrap();
        for (partitioner, expected) in [
            (by_default, Partitioner::ring(12)),
            (asked_for, Partitioner::murmur2(12)),
        ] {
            assert_eq!(partitioner.ring_version(), 7);
            for key in keys().take(100) {
                let key = key.as_bytes();
                assert_eq!(partitioner.partition(key), expected.partition(key));
            }
        }
    }

    #[test]
    fn a_mapping_of_a_newer_version_is_refused_and_not_guessed() {
        let topic = TopicInfo {
            settings: Some(TopicSettings {
                partitioner: 77,
                ..Default::default()
            }),
            ..Default::default()
        };
        let error = Partitioner::of_topic(&topic).unwrap_err();
        assert_eq!(error.code, ErrorCode::UnsupportedVersion);
    }
}
