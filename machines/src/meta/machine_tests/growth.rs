//! Topics that get more partitions.

use ropewalk_proto::v1::{GrowTopic, PartitionFenced};

use super::*;
use crate::meta::view::TopicImage;

pub(super) fn grow(name: &str, partitions: u32) -> Kind {
    Kind::GrowTopic(GrowTopic {
        name: name.into(),
        partitions,
        ..GrowTopic::default()
    })
}

impl Bench {
    fn view_of(&self, topic: &str) -> TopicImage {
        let view = self.machine.to_view();
        view.topics[topic].clone()
    }

    fn fence(&mut self, topic: &str, partition: u32, ring_version: u32, offset: u64) {
        let group_id = self.partition(topic, partition).group.0;
        let fact = PartitionFenced {
            group_id,
            ring_version,
            offset,
        };
        assert_eq!(self.run(Kind::PartitionFenced(fact)), Ok(None));
    }
}

#[test]
fn keys_map_to_new_partitions_only_when_every_old_one_is_fenced() {
    let mut bench = Bench::cluster(3);
    bench.create("t", 2, 3).unwrap();
    bench.run(grow("t", 5)).unwrap();
    let topic = bench.view_of("t");
    assert_eq!(
        (
            topic.partitions.len(),
            topic.ring_partitions,
            topic.ring_version
        ),
        (5, 2, 1)
    );
    assert!(topic.growing().is_some());
    bench.fence("t", 1, 2, 70);
    bench.fence("t", 1, 2, 71);
    bench.fence("t", 3, 2, 9);
    bench.fence("t", 0, 3, 9);
    assert_eq!(bench.view_of("t").ring_version, 1);
    bench.fence("t", 0, 2, 40);
    let topic = bench.view_of("t");
    assert_eq!((topic.ring_partitions, topic.ring_version), (5, 2));
    assert!(topic.growing().is_none());
    let fences: Vec<_> = topic.growths[0]
        .fences
        .iter()
        .map(|fence| (fence.partition, fence.offset))
        .collect();
    assert_eq!(fences, [(0, 40), (1, 70)]);
    let mut replica = MetaMachine::default();
    replica
        .load(bench.index, bench.disk.clone().into_iter().collect())
        .unwrap();
    assert_eq!(replica.to_view().topics["t"].growths, topic.growths);
}

#[test]
fn one_growth_at_a_time_and_no_shrinking() {
    let mut bench = Bench::cluster(3);
    bench.create("t", 2, 3).unwrap();
    assert_eq!(bench.run(grow("t", 1)), Err(ErrorCode::InvalidRequest));
    assert_eq!(bench.run(grow("t", 10_001)), Err(ErrorCode::InvalidRequest));
    assert_eq!(bench.run(grow("nowhere", 4)), Err(ErrorCode::UnknownTopic));
    bench.run(grow("t", 2)).unwrap();
    assert!(bench.view_of("t").growths.is_empty());
    bench.run(grow("t", 3)).unwrap();
    assert_eq!(bench.run(grow("t", 4)), Err(ErrorCode::Unsafe));
    let murmur2 = TopicSettings {
        partitioner: Partitioner::Murmur2.into(),
        ..TopicSettings::default()
    };
    assert_eq!(bench.run(alter("t", murmur2)), Err(ErrorCode::Unsafe));
    // The same command again is no error: the first answer may have been lost.
    bench.run(grow("t", 3)).unwrap();
    bench.fence("t", 0, 2, 1);
    bench.fence("t", 1, 2, 1);
    bench.run(grow("t", 4)).unwrap();
}

#[test]
fn a_topic_grows_so_many_times_and_no_more() {
    let mut bench = Bench::cluster(1);
    bench.create("t", 1, 1).unwrap();
    for from in 1..=100 {
        bench.run(grow("t", from + 1)).unwrap();
        (0..from).for_each(|old| bench.fence("t", old, from + 1, 0));
    }
    assert_eq!(bench.view_of("t").ring_partitions, 101);
    assert_eq!(bench.run(grow("t", 102)), Err(ErrorCode::InvalidRequest));
}

#[test]
fn murmur2_grows_by_multiples_so_that_keys_move_to_new_partitions_only() {
    let mut bench = Bench::cluster(3);
    bench.create("t", 4, 3).unwrap();
    let murmur2 = TopicSettings {
        partitioner: Partitioner::Murmur2.into(),
        ..TopicSettings::default()
    };
    bench.run(alter("t", murmur2)).unwrap();
    assert_eq!(bench.run(grow("t", 6)), Err(ErrorCode::InvalidRequest));
    bench.run(grow("t", 8)).unwrap();
}
