//! Cache of cluster metadata: nodes, topics, leaders. An entry stays valid until a response shows that it is
//! out of date. The client then asks again, once for all callers that wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::partitioner::Partitioner;
use ropewalk_proto::v1;
use tokio::time::Instant;

use crate::client::Inner;
use crate::error::{Error, ErrorKind, Result};
use crate::one_cluster::OneCluster;

/// A partition's leader, as calls address it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leader {
    pub node_id: u64,
    /// host:port.
    pub address: String,
}

/// One partition of one topic. With an id, it never means a later topic of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionId {
    pub topic: Arc<str>,
    /// Id of the topic; 0 means the topic that has the name now.
    pub topic_id: u64,
    pub partition: u32,
}

impl PartitionId {
    pub fn new(topic: &str, topic_id: u64, partition: u32) -> PartitionId {
        PartitionId {
            topic: Arc::from(topic),
            topic_id,
            partition,
        }
    }

    /// Returns true if the partition belongs to this topic. The partition number is not checked.
    fn is_of(&self, topic: &Topic) -> bool {
        self.topic_id == 0 || self.topic_id == topic.id
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// The part of a topic that routing needs.
#[derive(Debug, Clone)]
pub(crate) struct Topic {
    pub id: u64,
    pub partitioner: Arc<Partitioner>,
    method: i32,
    pub max_batch_bytes: u32,
    /// The topic is compacted: it keeps the last record of each key and rejects records without a key.
    pub keys_only: bool,
    leaders: Vec<Leading>,
    learned: Instant,
}

/// Leader of a partition; node 0 if none is known.
#[derive(Debug, Clone, Copy, Default)]
struct Leading {
    node_id: u64,
    epoch: u64,
}

impl Topic {
    /// Number of partitions, at least 1. While the topic grows, keys map only to the first of them.
    pub fn partitions(&self) -> u32 {
        u32::try_from(self.leaders.len()).unwrap_or(u32::MAX)
    }

    /// Returns true if a node reported this topic at most `age` ago.
    pub fn is_of_the_last(&self, age: Duration) -> bool {
        self.learned.elapsed() <= age
    }

    /// Returns true if this is a later topic of the same name, or a later ring of the same topic.
    pub fn follows(&self, other: &Topic) -> bool {
        let order = |topic: &Topic| (topic.id, topic.partitioner.ring_version());
        order(self) > order(other)
    }

    /// Checks that this is the intended topic and that it has the partition.
    pub fn expect(&self, of: &PartitionId) -> Result<()> {
        let PartitionId {
            topic,
            topic_id,
            partition,
        } = of;
        if !of.is_of(self) && *topic_id < self.id {
            return Err(WireError::topic_recreated(topic, *topic_id, self.id).into());
        }
        if !of.is_of(self) {
            return Err(Error::new(
                ErrorKind::Cluster(ErrorCode::UnknownTopic),
                format!(
                    "topic {topic:?} with id {topic_id} is not known to the node asked yet; try again shortly"
                ),
            ));
        }
        if *partition >= self.partitions() {
            return Err(unknown_partition(topic, *partition, self.partitions()));
        }
        Ok(())
    }

    fn of(info: &v1::TopicInfo, known: Option<&Topic>) -> Result<Topic> {
        let settings = info.settings.unwrap_or_default();
        let count = u32::try_from(info.partitions.len()).unwrap_or(u32::MAX);
        let mapped = match info.ring_partitions {
            0 => count,
            some => some,
        };
        let known = known.filter(|known| known.id == info.topic_id);
        let same_mapping = known.filter(|known| {
            known.method == settings.partitioner
                && known.partitioner.ring_version() == info.ring_version
                && known.partitioner.partitions() == mapped.max(1)
        });
        let partitioner = match same_mapping {
            Some(known) => known.partitioner.clone(),
            None => Arc::new(Partitioner::of_topic(info)?),
        };
        let count = count.max(partitioner.partitions());
        let mut leaders = vec![Leading::default(); count as usize];
        for told in &info.partitions {
            let Some(place) = leaders.get_mut(told.partition as usize) else {
                continue;
            };
            let before = known.and_then(|known| known.leaders.get(told.partition as usize));
            *place = match before {
                // Another node reported a newer leader than this node knows.
                Some(before) if before.epoch > told.leader_epoch => *before,
                _ => Leading {
                    node_id: told.leader_node_id,
                    epoch: told.leader_epoch,
                },
            };
        }
        Ok(Topic {
            id: info.topic_id,
            partitioner,
            method: settings.partitioner,
            max_batch_bytes: settings.max_batch_bytes,
            keys_only: settings.cleanup() != v1::Cleanup::Delete,
            learned: Instant::now(),
            leaders,
        })
    }
}

#[derive(Debug, Default)]
pub(crate) struct Metadata {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The cluster of these topics. Topic ids of different clusters can't be compared.
    cluster: OneCluster,
    nodes: BTreeMap<u64, String>,
    topics: BTreeMap<String, Arc<Topic>>,
}

impl Metadata {
    /// Addresses of the nodes, as last reported.
    pub fn addresses(&self) -> Vec<String> {
        self.state.lock().nodes.values().cloned().collect()
    }

    /// Checks that a node that responds belongs to the cluster of this client.
    ///
    /// # Errors
    /// `NotServing`: another node may answer.
    pub fn check_cluster(
        &self,
        address: &str,
        cluster_id: &str,
    ) -> std::result::Result<(), WireError> {
        let mut state = self.state.lock();
        let is_node = state.is_node(address);
        state.cluster.check(address, cluster_id, is_node)
    }

    /// Drops addresses of other clusters. Addresses that belonged to this client's cluster earlier come last.
    pub fn of_one_cluster(&self, addresses: Vec<String>) -> Vec<String> {
        let state = self.state.lock();
        state
            .cluster
            .sort(addresses, |address| state.is_node(address))
    }

    /// The leader of a partition, if one is known.
    pub fn known_leader(&self, of: &PartitionId) -> Option<Leader> {
        let state = self.state.lock();
        let topic = state.topics.get(&*of.topic);
        let topic = topic.filter(|topic| of.is_of(topic))?;
        let leading = topic.leaders.get(of.partition as usize)?;
        let address = state.nodes.get(&leading.node_id)?;
        Some(Leader {
            node_id: leading.node_id,
            address: address.clone(),
        })
    }

    /// The topic, if the cache has it.
    pub fn known_topic(&self, topic: &str) -> Option<Arc<Topic>> {
        self.state.lock().topics.get(topic).cloned()
    }

    /// Records a node's report that another node leads. Without a hint, forgets that the reporting node
    /// leads.
    pub fn not_leader(&self, of: &PartitionId, node_id: u64, hint: Option<&v1::NodeInfo>) {
        let mut state = self.state.lock();
        let hint = hint.filter(|hint| hint.node_id != 0 && !hint.address.is_empty());
        if let Some(hint) = hint {
            state.nodes.insert(hint.node_id, hint.address.clone());
        }
        let topic = state.topics.get_mut(&*of.topic);
        let Some(topic) = topic.filter(|topic| of.is_of(topic)) else {
            return;
        };
        let Some(leading) = Arc::make_mut(topic).leaders.get_mut(of.partition as usize) else {
            return;
        };
        if leading.node_id == node_id {
            leading.node_id = hint.map_or(0, |hint| hint.node_id);
        }
    }

    /// Records a node's report that another topic has the name: drops the cached topic, which is the earlier
    /// one.
    pub fn recreated(&self, of: &PartitionId) {
        let mut state = self.state.lock();
        state
            .topics
            .retain(|name, topic| **name != *of.topic || !of.is_of(topic));
    }

    /// Takes the addresses of the nodes from a status.
    pub fn learn_nodes(&self, status: v1::ClusterStatusResponse) {
        let nodes = status.nodes.into_iter().filter_map(|node| node.info);
        let nodes = nodes.map(|node| (node.node_id, node.address));
        self.state.lock().nodes.extend(nodes);
    }

    /// Takes every requested topic from a response.
    pub fn learn_all(
        &self,
        names: &BTreeSet<String>,
        answer: v1::MetadataResponse,
    ) -> BTreeMap<String, Result<Arc<Topic>>> {
        let mut state = self.state.lock();
        if state.cluster.is_now(answer.cluster_id) {
            state.topics.clear();
        }
        if !answer.nodes.is_empty() {
            let nodes = answer.nodes.into_iter();
            state.nodes = nodes.map(|node| (node.node_id, node.address)).collect();
        }
        let topics = answer.topics.iter();
        let told: BTreeMap<&str, _> = topics.map(|topic| (topic.name.as_str(), topic)).collect();
        let learned = names.iter().map(|name| {
            let info = told.get(name.as_str()).copied();
            (name.clone(), state.learn(name, info))
        });
        learned.collect()
    }
}

impl State {
    fn is_node(&self, address: &str) -> bool {
        self.nodes.values().any(|node| node == address)
    }

    fn learn(&mut self, name: &str, info: Option<&v1::TopicInfo>) -> Result<Arc<Topic>> {
        let Some(info) = info else {
            self.topics.remove(name);
            return Err(unknown_topic(name));
        };
        let known = self.topics.get(name);
        // The asked node has not yet learned that this topic was deleted.
        if let Some(later) = known.filter(|known| known.id > info.topic_id) {
            return Ok(later.clone());
        }
        let topic = Topic::of(info, known.map(Arc::as_ref))?;
        let topic = Arc::new(topic);
        self.topics.insert(name.to_owned(), topic.clone());
        Ok(topic)
    }
}

impl Inner {
    /// The leader of a partition: the known one, or the one that the cluster names now.
    ///
    /// # Errors
    /// `TopicRecreated` if a later topic has the name.
    pub async fn leader(self: &Arc<Self>, of: &PartitionId) -> Result<Leader> {
        if let Some(leader) = self.metadata.known_leader(of) {
            return Ok(leader);
        }
        self.refresh(&of.topic).await?.expect(of)?;
        self.metadata.known_leader(of).ok_or_else(|| {
            Error::new(
                ErrorKind::Cluster(ErrorCode::NoLeader),
                format!("nobody leads {of} now: a leader is being elected, or a majority of its nodes is down; try again, and look at `ropewalk cluster status` if it stays so"),
            )
        })
    }
}

pub(crate) fn unknown_topic(name: &str) -> Error {
    Error::new(
        ErrorKind::Cluster(ErrorCode::UnknownTopic),
        format!("topic {name:?} does not exist; create it with `ropewalk topic create {name}`"),
    )
}

pub(crate) fn unknown_partition(topic: &str, partition: u32, partitions: u32) -> Error {
    Error::new(
        ErrorKind::Cluster(ErrorCode::UnknownPartition),
        format!("there is no partition {topic}/{partition}; it has {partitions}, numbered from 0"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(leader_node_id: u64, leader_epoch: u64) -> v1::MetadataResponse {
        let node = |node_id| v1::NodeInfo {
            node_id,
            address: format!("node-{node_id}:1"),
            ..Default::default()
        };
        v1::MetadataResponse {
            nodes: vec![node(1), node(2)],
            topics: vec![v1::TopicInfo {
                name: "t".into(),
                topic_id: 1,
                partitions: vec![v1::PartitionInfo {
                    leader_node_id,
                    leader_epoch,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn at(topic_id: u64) -> PartitionId {
        PartitionId::new("t", topic_id, 0)
    }

    fn learn(metadata: &Metadata, answer: v1::MetadataResponse) -> Result<Arc<Topic>> {
        let mut learned = metadata.learn_all(&["t".to_owned()].into(), answer);
        learned.remove("t").unwrap()
    }

    fn leader(metadata: &Metadata) -> Option<u64> {
        metadata.known_leader(&at(0)).map(|leader| leader.node_id)
    }

    #[test]
    fn a_node_that_is_behind_does_not_bring_back_an_old_leader() {
        let metadata = Metadata::default();
        learn(&metadata, told(2, 7)).unwrap();
        learn(&metadata, told(1, 6)).unwrap();
        assert_eq!(leader(&metadata), Some(2));
        learn(&metadata, told(1, 8)).unwrap();
        assert_eq!(leader(&metadata), Some(1));
    }

    #[test]
    fn a_refusal_counts_only_against_the_node_that_gave_it() {
        let metadata = Metadata::default();
        learn(&metadata, told(1, 1)).unwrap();
        metadata.not_leader(&at(1), 2, None);
        assert_eq!(leader(&metadata), Some(1));
        // A report about an earlier topic does not apply to this one.
        metadata.not_leader(&at(9), 1, None);
        assert_eq!(leader(&metadata), Some(1));
        metadata.not_leader(&at(1), 1, None);
        assert_eq!(leader(&metadata), None);
    }

    #[test]
    fn a_topic_that_is_gone_is_forgotten() {
        let metadata = Metadata::default();
        learn(&metadata, told(1, 1)).unwrap();
        let gone = v1::MetadataResponse::default();
        assert!(learn(&metadata, gone).unwrap_err().says_there_is_none());
        assert!(metadata.known_topic("t").is_none());
    }

    fn with_id(topic_id: u64) -> v1::MetadataResponse {
        let mut answer = told(1, 1);
        answer.topics[0].topic_id = topic_id;
        answer
    }

    #[test]
    fn a_node_that_is_behind_does_not_bring_back_a_deleted_topic() {
        let metadata = Metadata::default();
        let ids = [1, 2, 1].map(|id| learn(&metadata, with_id(id)).unwrap().id);
        assert_eq!(ids, [1, 2, 2]);
        // Another cluster counts its topic ids from the beginning.
        let mut other = with_id(1);
        other.cluster_id = "another".to_owned();
        assert_eq!(learn(&metadata, other).unwrap().id, 1);
    }

    #[test]
    fn the_leader_of_a_partition_is_not_that_of_a_later_topic_of_the_name() {
        let metadata = Metadata::default();
        let topic = learn(&metadata, with_id(2)).unwrap();
        let known = [0, 1, 2, 3].map(|id| metadata.known_leader(&at(id)).is_some());
        assert_eq!(known, [true, false, true, false]);
        let code = |id| topic.expect(&at(id)).err().and_then(|error| error.code());
        assert_eq!((code(0), code(2)), (None, None));
        assert_eq!(code(1), Some(ErrorCode::TopicRecreated));
        assert_eq!(code(3), Some(ErrorCode::UnknownTopic));
    }
}
