//! Every command in one scripted log, with digests of the bytes that it comes to: replies, effects, the
//! checkpoint, and views. Other builds read these bytes, so the digests never change.

use ropewalk_proto::v1::{GrowTopic, PartitionFenced, RaiseReplicas};

use super::*;

/// FNV-1a.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Digest(u64);

impl Digest {
    fn new() -> Digest {
        Digest(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        let length = (bytes.len() as u64).to_be_bytes();
        for byte in length.iter().chain(bytes) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn add_effects(&mut self, effects: &[crate::machine::StateWrite]) {
        self.add(&(effects.len() as u64).to_be_bytes());
        for effect in effects {
            self.add(&effect.key);
            self.add(&[u8::from(effect.value.is_some())]);
            self.add(effect.value.as_deref().unwrap_or_default());
        }
    }
}

/// A machine, and the digests of all that came out of it.
#[derive(Debug)]
struct Script {
    machine: MetaMachine,
    index: u64,
    effects: Digest,
    replies: Digest,
    views: Digest,
    changes: Digest,
}

impl Script {
    fn run(&mut self, kind: Kind) {
        self.index += 1;
        let command = Command::Meta(MetaCommand {
            leader_time_ms: 0,
            kind: Some(kind),
        });
        let applied = self.machine.apply(self.index, 1, 100, Some(&command));
        let applied = applied.unwrap();
        self.effects.add_effects(&applied.effects);
        let reply = format!("{:?} {}", applied.reply, applied.checkpoint);
        self.replies.add(reply.as_bytes());
        self.changes.add(&self.machine.changed().to_be_bytes());
    }

    fn look(&mut self) {
        let view = format!("{:?}", self.machine.to_view());
        self.views.add(view.as_bytes());
    }

    /// A group of a partition, and the replicas that it should have.
    fn group(&self, topic: &str, partition: u32) -> (GroupId, Vec<u64>) {
        let view = self.machine.to_view();
        let partition = view.partition(topic, partition).unwrap();
        let replicas = partition.replicas.iter().map(|place| place.replica.0);
        (partition.group, replicas.collect())
    }

    fn fence(&mut self, topic: &str, partition: u32, ring_version: u32) {
        let group_id = self.group(topic, partition).0.0;
        self.run(Kind::PartitionFenced(PartitionFenced {
            group_id,
            ring_version,
            offset: 70 + u64::from(partition),
        }));
    }
}

fn nodes_of_a_cluster(script: &mut Script) {
    script.run(producers(1));
    script.run(found("c1", 3));
    script.run(found("c2", 3));
    script.look();
    for id in 1..=3 {
        script.run(register(id, &format!("host{id}:1")));
    }
    let Kind::RegisterNode(newest) = register(7, "host4:1") else {
        unreachable!()
    };
    let newest = RegisterNode {
        command_version: 9,
        external: Some("outside:4".into()),
        in_place_of: Some(0),
        start: Some(NodeStart { count: 3, nonce: 5 }),
        ..newest
    };
    script.run(Kind::RegisterNode(newest.clone()));
    script.run(Kind::RegisterNode(newest.clone()));
    script.run(Kind::RegisterNode(RegisterNode {
        start: Some(NodeStart { count: 2, nonce: 5 }),
        ..newest
    }));
    script.run(register(8, "host5:1"));
    script.run(register(8, ""));
    script.run(set_state(2, NodeState::Draining));
    script.run(set_state(2, NodeState::Active));
    script.run(set_state(9, NodeState::Draining));
    script.look();
}

fn topics_that_change(script: &mut Script) {
    script.run(create("orders", 4, 3));
    script.run(create("orders", 4, 3));
    script.run(create("bad name", 4, 3));
    script.run(Kind::CreateTopic(CreateTopic {
        name: "bounded".into(),
        partitions: 3,
        settings: None,
        max_replicas_per_node: 100,
    }));
    script.run(alter("orders", settings::defaults()));
    script.run(Kind::AlterTopic(AlterTopic {
        name: "bounded".into(),
        settings: Some(TopicSettings {
            retention_ms: 5_000,
            partitioner: Partitioner::Murmur2.into(),
            ..TopicSettings::default()
        }),
        changed: vec![2, 6],
    }));
    script.run(Kind::AlterTopic(AlterTopic {
        name: "bounded".into(),
        settings: Some(TopicSettings::default()),
        changed: vec![5],
    }));
    script.run(alter("nowhere", settings::defaults()));
    for partitions in [6, 3, 4, 8] {
        script.run(Kind::GrowTopic(GrowTopic {
            name: "orders".into(),
            partitions,
            max_replicas_per_node: 50,
        }));
    }
    script.look();
    for partition in [2, 0, 0, 3, 5, 1] {
        script.fence("orders", partition, 2);
        script.look();
    }
    script.run(create("few", 2, 1));
    for replicas in [3, 2, 9] {
        script.run(Kind::RaiseReplicas(RaiseReplicas {
            topic: "few".into(),
            replicas,
            node_ids: vec![1, 2, 3, 4, 5],
        }));
    }
    script.look();
}

fn replicas_that_move(script: &mut Script) {
    let (group, replicas) = script.group("few", 0);
    script.run(moved(group, &[5, 4, 3]));
    script.run(moved(group, &[5, 4, 4]));
    script.run(settled(group, replicas.iter().copied()));
    script.look();
    let (_, wished) = script.group("few", 0);
    script.run(settled(group, wished.iter().copied()));
    script.run(damaged(group, wished[0]));
    script.run(damaged(group, wished[0]));
    script.run(damaged(group, wished[1]));
    script.look();
    let (_, wished) = script.group("few", 0);
    script.run(settled(group, wished));
    script.run(damaged(GroupId(999), 1));
    // A new node at the address of a lost one takes over its replicas.
    script.run(register(12, "host3:1"));
    script.look();
    script.run(set_state(1, NodeState::Decommissioning));
    script.run(set_state(1, NodeState::Removed));
    script.run(set_state(3, NodeState::Active));
    script.look();
}

fn producers_and_deletions(script: &mut Script) {
    script.run(producers(0));
    script.run(producers(30_000));
    script.run(renew(1, 0));
    script.run(renew(1, 4));
    script.run(renew(900_000, 4));
    script.run(renew(5, 40_000));
    for id in 2..=10_003 {
        script.run(renew(id, (id % 3) as u32));
    }
    script.run(delete("orders"));
    script.run(delete("orders"));
    script.run(create("orders", 1, 1));
    script.run(Kind::DeleteTopic(DeleteTopic {
        name: "bounded".into(),
        keep_ring_version: false,
    }));
    script.look();
}

#[test]
fn a_scripted_log_comes_to_the_same_bytes_in_every_build() {
    let mut script = Script {
        machine: MetaMachine::new(),
        index: 0,
        effects: Digest::new(),
        replies: Digest::new(),
        views: Digest::new(),
        changes: Digest::new(),
    };
    nodes_of_a_cluster(&mut script);
    // The next entry is one after which the state is kept as a checkpoint.
    script.index = 999;
    topics_that_change(&mut script);
    replicas_that_move(&mut script);
    script.index = 1_999;
    producers_and_deletions(&mut script);
    let mut checkpoint = Digest::new();
    checkpoint.add(&script.machine.checkpoint());
    let mut restored = MetaMachine::new();
    let effects = restored.restore(script.machine.checkpoint()).unwrap();
    let mut everything = Digest::new();
    everything.add_effects(&effects);
    let digests = [
        script.effects,
        script.replies,
        script.views,
        script.changes,
        checkpoint,
        everything,
    ];
    let digests = digests.map(|digest| format!("{:016x}", digest.0));
    assert_eq!(
        digests, PINNED,
        "effects, replies, views, changes, checkpoint, all effects"
    );
}

/// Of the build that defined this script.
const PINNED: [&str; 6] = [
    "d30ceeb27b202b1f",
    "5d6d677daec4fc30",
    "8f5571b7e6cf98d7",
    "c1158dc981019a69",
    "096af7762a46278c",
    "22ea09edfd6e67fc",
];
