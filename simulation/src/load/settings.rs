//! The clients' behaviour in one run. It is drawn from the seed apart from the faults, so that faults can be
//! left out without a change to the load.

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use ropewalk_proto::v1::TopicSettings;
use serde::{Deserialize, Serialize};

use super::MAIN;
use crate::history::Place;

/// Value of a topic's retention without a limit.
const UNLIMITED: i64 = -1;
const KIB: u64 = 1 << 10;

/// The load of the clients.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Load {
    /// Partitions of the topic.
    pub partitions: u32,
    /// Maximum size of a batch of it, in bytes.
    pub max_batch_bytes: u32,
    /// Size at which its segments end, in bytes.
    pub segment_bytes: u64,
    /// Minimum retention of its records, in ms; less than 0 for ever.
    pub retention_ms: i64,
    /// Minimum size of a partition that is retained, in bytes; less than 0 for all.
    pub retention_bytes: i64,
    /// Distinct keys.
    pub keys: u32,
    /// Producers, each on a separate host.
    pub producers: Vec<Producing>,
    /// Interval between records published without a producer, in ms; 0 for none.
    pub publish_every_ms: u64,
    /// Number of readers that begin anywhere, read a little, and ask for offsets.
    pub wanderers: u32,
    /// Interval between two reads of one of them, in ms.
    pub wander_every_ms: u64,
    /// Interval between two stops of a reader that resumes from its stored position, in ms.
    pub resume_every_ms: u64,
    /// Interval between changes to topics beside the first, in ms; 0 for none.
    pub garden_every_ms: u64,
    /// Consumer groups, each of which reads all of the topic.
    #[serde(default)]
    pub groups: Vec<Consuming>,
    /// Interval between records of a compacted topic, in ms; 0 for none.
    #[serde(default)]
    pub table_every_ms: u64,
    /// Interval between batches of the raw producer, in ms; 0 for none.
    #[serde(default)]
    pub stranger_every_ms: u64,
    /// Additions of partitions to the topic, in order of time.
    #[serde(default)]
    pub growths: Vec<Growing>,
    /// A reader with a filter.
    #[serde(default)]
    pub sieve: Option<Sieving>,
    /// Interval at which a topic is deleted and created again under its name, in ms; 0 for never.
    #[serde(default)]
    pub recreate_every_ms: u64,
}

/// The reader with a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sieving {
    /// Its partition.
    pub partition: u32,
    /// Last digit of the keys it selects.
    pub digit: u32,
}

impl Sieving {
    /// Filter expression that the broker evaluates. It fails on a record without a key.
    pub fn expression(&self) -> String {
        format!("key.endsWith('{}')", self.digit)
    }

    /// True if the filter selects a record with this key.
    pub fn wants(&self, key: Option<u32>) -> bool {
        key.is_some_and(|key| key % 10 == self.digit)
    }

    /// The partition it reads.
    pub fn place(&self) -> Place {
        Place {
            topic: MAIN,
            partition: self.partition,
        }
    }
}

/// One addition of partitions to the topic.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Growing {
    /// Its time, in ms from the beginning.
    pub at_ms: u64,
    /// New total number of partitions.
    pub partitions: u32,
}

/// Behaviour of the members of one group.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Consuming {
    /// Number of members, each on a separate host.
    pub members: u32,
    /// True if they subscribe to every existing topic by a pattern.
    pub by_pattern: bool,
    /// True if the group begins at the end of its partitions, and not at their beginning.
    #[serde(default)]
    pub from_end: bool,
    /// True if they keep their partitions from one start to the next.
    pub fixed: bool,
    /// See the client's setting of this name.
    pub session_ms: u64,
    /// See the client's setting of this name.
    pub rebalance_within_ms: u64,
    /// Interval between commits, in ms.
    pub commit_every_ms: u64,
    /// True if the application commits, instead of the client.
    pub by_hand: bool,
    /// Number of concurrent handlers of a member; 0 if it processes one record after another.
    pub handlers: usize,
    /// See the client's setting of this name.
    pub in_flight: usize,
    /// Approximate time after which a member stops and restarts, in ms; 0 for never.
    pub restart_every_ms: u64,
    /// Approximate time after which a member receives nothing for up to three session timeouts, in ms; 0 for
    /// never.
    pub freeze_every_ms: u64,
}

/// Behaviour of one producer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Producing {
    /// Pause between two sends, in ms.
    pub pause_ms: u64,
    /// Size of most values, in bytes.
    pub value_bytes: usize,
    /// See the client's setting of this name.
    pub linger_ms: u64,
    /// See the client's setting of this name.
    pub batch_bytes: usize,
    /// See the client's setting of this name.
    pub in_flight: usize,
    /// The number of the codec.
    pub compression: u8,
    /// See the client's setting of this name. A short one makes outcomes unknown.
    pub delivery_timeout_ms: u64,
    /// Number of records that it sometimes sends at once; 0 for never.
    pub burst: u32,
    /// Approximate time after which another producer replaces it, in ms; 0 for never.
    pub replace_every_ms: u64,
}

impl Load {
    /// Draws the load of a seed, for a storm of this length.
    pub fn draw(seed: u64, storm_ms: u64) -> Load {
        let mut random = SmallRng::seed_from_u64(seed.wrapping_mul(0xD1B5_4A32_D192_ED03));
        let random = &mut random;
        let trims = random.random_bool(0.35);
        let by_time = random.random_bool(0.5);
        let producers = random.random_range(1..=3);
        Load {
            partitions: random.random_range(1..=4),
            max_batch_bytes: pick(random, &[16, 64, 256, 1_024]) as u32 * KIB as u32,
            segment_bytes: match trims {
                true => pick(random, &[16, 32, 64]) * KIB,
                false => pick(random, &[64, 64 * KIB]) * KIB,
            },
            retention_ms: match trims && by_time {
                true => random.random_range(4_000..=20_000),
                false => UNLIMITED,
            },
            retention_bytes: match trims && !by_time {
                true => random.random_range(20..=200) * KIB as i64,
                false => UNLIMITED,
            },
            keys: random.random_range(1..=50),
            producers: (0..producers).map(|_| Producing::draw(random)).collect(),
            publish_every_ms: pick(random, &[0, 200, 1_000]),
            wanderers: random.random_range(0..=2),
            wander_every_ms: pick(random, &[300, 1_000, 3_000]),
            resume_every_ms: pick(random, &[500, 2_000, 8_000]),
            garden_every_ms: pick(random, &[0, 1_500, 4_000]),
            groups: Vec::new(),
            table_every_ms: 0,
            stranger_every_ms: 0,
            growths: Vec::new(),
            sieve: None,
            recreate_every_ms: 0,
        }
        .with_groups(seed, storm_ms)
        .with_ends(seed)
        .with_table(seed)
        .with_stranger(seed)
        .with_sieve(seed)
        .with_recreation(seed)
    }

    /// Draws groups and growths, apart from all other draws. Seeds from before either existed keep their
    /// load.
    fn with_groups(mut self, seed: u64, storm_ms: u64) -> Load {
        let mut random = SmallRng::seed_from_u64(seed.wrapping_mul(0xA24B_AED4_963E_E407));
        let random = &mut random;
        if random.random_bool(0.6) {
            let groups = random.random_range(1..=2);
            self.groups = (0..groups).map(|_| Consuming::draw(random)).collect();
        }
        if random.random_bool(0.4) {
            let mut partitions = self.partitions;
            let mut at_ms = random.random_range(storm_ms / 10..=storm_ms / 2);
            for _ in 0..random.random_range(1..=2) {
                partitions += random.random_range(1..=3);
                self.growths.push(Growing { at_ms, partitions });
                at_ms += random.random_range(storm_ms / 10..=storm_ms / 3);
            }
        }
        self
    }

    /// Draws the end at which groups begin, apart from all other draws.
    fn with_ends(mut self, seed: u64) -> Load {
        let mut random = SmallRng::seed_from_u64(seed.wrapping_mul(0xBF58_476D_1CE4_E5B9));
        for group in &mut self.groups {
            group.from_end = random.random_bool(0.5);
        }
        self
    }

    /// Draws a compacted topic, apart from all other draws.
    fn with_table(mut self, seed: u64) -> Load {
        let mut random = SmallRng::seed_from_u64(seed.wrapping_mul(0xC2B2_AE3D_27D4_EB4F));
        if random.random_bool(0.25) {
            self.table_every_ms = pick(&mut random, &[20, 50, 200]);
        }
        self
    }

    /// Draws a raw producer, apart from all other draws.
    fn with_stranger(mut self, seed: u64) -> Load {
        let mut random = SmallRng::seed_from_u64(seed.wrapping_mul(0x8CB9_2BA7_2F3D_8DD7));
        if random.random_bool(0.4) {
            self.stranger_every_ms = pick(&mut random, &[20, 100, 400]);
        }
        self
    }

    /// Draws a reader with a filter, apart from all other draws.
    fn with_sieve(mut self, seed: u64) -> Load {
        let mut random = SmallRng::seed_from_u64(seed.wrapping_mul(0xE703_7ED1_A0B4_28DB));
        if random.random_bool(0.4) {
            self.sieve = Some(Sieving {
                partition: random.random_range(0..self.partitions),
                digit: random.random_range(0..self.keys.min(10)),
            });
        }
        self
    }

    /// Draws a topic to delete and create again, apart from all other draws.
    fn with_recreation(mut self, seed: u64) -> Load {
        let mut random = SmallRng::seed_from_u64(seed.wrapping_mul(0x9FB2_1C65_1E98_DF25));
        if random.random_bool(0.4) {
            self.recreate_every_ms = pick(&mut random, &[1_000, 3_000, 8_000]);
        }
        self
    }

    /// Final number of partitions of the topic, if it grows as planned.
    pub fn most_partitions(&self) -> u32 {
        let last = self.growths.last();
        last.map_or(self.partitions, |last| last.partitions)
    }

    /// The settings of the topic.
    pub fn topic(&self) -> TopicSettings {
        TopicSettings {
            retention_ms: self.retention_ms,
            retention_bytes: self.retention_bytes,
            segment_bytes: self.segment_bytes,
            max_batch_bytes: self.max_batch_bytes,
            ..TopicSettings::default()
        }
    }
}

impl Producing {
    fn draw(random: &mut SmallRng) -> Producing {
        Producing {
            pause_ms: random.random_range(10..=80),
            value_bytes: pick(random, &[10, 10, 100, 2_000]) as usize,
            linger_ms: pick(random, &[0, 1, 5, 100]),
            batch_bytes: pick(random, &[128, 1_000, 256 * KIB]) as usize,
            in_flight: pick(random, &[1, 2, 8, 16]) as usize,
            compression: random.random_range(0..=4),
            delivery_timeout_ms: pick(random, &[500, 3_000, 10_000, 60_000]),
            burst: pick(random, &[0, 0, 50, 1_500]) as u32,
            replace_every_ms: pick(random, &[0, 5_000, 20_000]),
        }
    }
}

impl Consuming {
    fn draw(random: &mut SmallRng) -> Consuming {
        Consuming {
            members: random.random_range(1..=4),
            by_pattern: random.random_bool(0.25),
            from_end: false,
            fixed: random.random_bool(0.3),
            session_ms: pick(random, &[1_000, 2_000, 3_000]),
            rebalance_within_ms: pick(random, &[500, 2_000, 10_000]),
            commit_every_ms: pick(random, &[50, 300, 1_000]),
            by_hand: random.random_bool(0.4),
            handlers: pick(random, &[0, 0, 1, 4, 16]) as usize,
            in_flight: pick(random, &[10, 200, 4_096]) as usize,
            restart_every_ms: pick(random, &[0, 4_000, 15_000]),
            freeze_every_ms: pick(random, &[0, 0, 10_000]),
        }
    }
}

fn pick(random: &mut SmallRng, from: &[u64]) -> u64 {
    from.choose(random).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORM_MS: u64 = 60_000;

    #[test]
    fn a_seed_has_one_load_and_seeds_differ_in_everything_that_is_drawn() {
        let again = |seed| serde_json::to_string(&Load::draw(seed, STORM_MS)).unwrap();
        assert_eq!(again(7), again(7));
        let loads: Vec<Load> = (0..200).map(|seed| Load::draw(seed, STORM_MS)).collect();
        let both = |of: &dyn Fn(&Load) -> bool| loads.iter().any(of) && !loads.iter().all(of);
        assert!(both(&|load| load.retention_ms > 0));
        assert!(both(&|load| load.retention_bytes > 0));
        assert!(both(&|load| load.publish_every_ms > 0));
        assert!(both(&|load| load.garden_every_ms > 0));
        assert!(both(&|load| load.wanderers > 0));
        assert!(both(&|load| load.table_every_ms > 0));
        assert!(both(&|load| load.stranger_every_ms > 0));
        assert!(both(&|load| load.sieve.is_some()));
        assert!(both(&|load| load.recreate_every_ms > 0));
        assert!(both(&|load| load.growths.len() == 2));
        assert!(both(&|load| !load.groups.is_empty()));
        assert!(both(&|load| load.groups.iter().any(|one| one.by_pattern)));
        assert!(both(&|load| load.groups.iter().any(|one| one.from_end)));
        assert!(both(&|load| load.groups.iter().any(|one| one.handlers > 0)));
        assert!(both(&|load| load.producers.iter().any(|one| one.burst > 0)));
        assert!(both(&|load| load
            .producers
            .iter()
            .any(|one| one.replace_every_ms > 0)));
    }
}
