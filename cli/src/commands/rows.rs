//! Printed rows of cluster data. The JSON names here are part of the contract.

use ropewalk_client::{NodeState, NodeStatus, TopicInfo};
use ropewalk_machines::meta::settings;
use ropewalk_proto::v1;
use serde::Serialize;

use crate::output::{NONE, Row, bytes, list, millis};

/// A topic.
#[derive(Debug, Serialize)]
pub struct TopicRow {
    pub topic: String,
    pub partitions: usize,
    pub replicas: u32,
    pub retention_ms: i64,
    pub retention_bytes: i64,
    pub segment_bytes: u64,
    pub max_batch_bytes: u32,
    pub partitioner: &'static str,
    pub cleanup: &'static str,
    pub delete_horizon_ms: i64,
    pub min_compaction_lag_ms: i64,
    pub min_dirty_percent: u32,
    pub max_timestamp_ahead_ms: i64,
}

impl From<&TopicInfo> for TopicRow {
    fn from(topic: &TopicInfo) -> TopicRow {
        let settings = v1::TopicSettings::from(topic.settings);
        TopicRow {
            topic: topic.name.clone(),
            partitions: topic.partitions.len(),
            replicas: settings.replicas,
            retention_ms: settings.retention_ms,
            retention_bytes: settings.retention_bytes,
            segment_bytes: settings.segment_bytes,
            max_batch_bytes: settings.max_batch_bytes,
            partitioner: match settings.partitioner() {
                v1::Partitioner::Ring => "ring",
                v1::Partitioner::Murmur2 => "murmur2",
                v1::Partitioner::Unspecified => "unknown",
            },
            cleanup: settings::cleanup_name(&settings),
            delete_horizon_ms: settings::delete_horizon_ms(&settings),
            min_compaction_lag_ms: settings.min_compaction_lag_ms,
            min_dirty_percent: settings::min_dirty_percent(&settings),
            max_timestamp_ahead_ms: settings::max_timestamp_ahead_ms(&settings),
        }
    }
}

/// A setting of a topic, under its name in `topic set`.
#[derive(Debug)]
pub struct SettingRow {
    pub name: &'static str,
    pub value: String,
    /// None if the value is the default.
    pub default: Option<String>,
}

impl TopicRow {
    /// All settings of the topic.
    pub fn settings(&self) -> Vec<SettingRow> {
        let mut defaults = TopicInfo::default();
        defaults.settings = settings::defaults().into();
        let defaults = TopicRow::from(&defaults);
        let both = self.named_values().into_iter().zip(defaults.named_values());
        both.map(|((name, value), (_, default))| SettingRow {
            name,
            default: Some(default).filter(|default| *default != value),
            value,
        })
        .collect()
    }

    fn named_values(&self) -> [(&'static str, String); 10] {
        [
            ("retention", millis(self.retention_ms)),
            ("retention_size", bytes(self.retention_bytes)),
            ("segment_bytes", bytes(self.segment_bytes.cast_signed())),
            ("max_batch_bytes", bytes(self.max_batch_bytes.into())),
            ("partitioner", self.partitioner.to_owned()),
            ("cleanup", self.cleanup.to_owned()),
            ("delete_horizon", millis(self.delete_horizon_ms)),
            ("min_compaction_lag", millis(self.min_compaction_lag_ms)),
            ("min_dirty_percent", self.min_dirty_percent.to_string()),
            ("max_timestamp_ahead", millis(self.max_timestamp_ahead_ms)),
        ]
    }
}

impl Row for TopicRow {
    const COLUMNS: &'static [&'static str] = &[
        "topic",
        "partitions",
        "replicas",
        "retention",
        "retention_size",
        "partitioner",
        "cleanup",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.topic.clone(),
            self.partitions.to_string(),
            self.replicas.to_string(),
            millis(self.retention_ms),
            bytes(self.retention_bytes),
            self.partitioner.to_string(),
            self.cleanup.to_string(),
        ]
    }
}

/// A partition. Ids are of nodes; log_start and high_watermark are offsets.
#[derive(Debug, Serialize)]
pub struct PartitionRow {
    pub topic: String,
    pub partition: u32,
    pub leader: Option<u64>,
    pub epoch: u64,
    pub replicas: Vec<u64>,
    pub in_sync: Vec<u64>,
    pub log_start: u64,
    pub high_watermark: u64,
}

impl PartitionRow {
    /// The rows of a topic, by partition.
    pub fn of(topic: &TopicInfo) -> impl Iterator<Item = PartitionRow> + '_ {
        topic.partitions.iter().map(|partition| PartitionRow {
            topic: topic.name.clone(),
            partition: partition.partition,
            leader: partition.leader_node_id,
            epoch: partition.leader_epoch,
            replicas: partition.replica_node_ids.clone(),
            in_sync: sorted(&partition.in_sync_node_ids),
            log_start: partition.log_start_offset,
            high_watermark: partition.high_watermark,
        })
    }

    /// Returns true if every replica is in sync.
    pub fn is_in_sync(&self) -> bool {
        self.replicas.iter().all(|node| self.in_sync.contains(node))
    }
}

impl Row for PartitionRow {
    const COLUMNS: &'static [&'static str] = &[
        "topic",
        "partition",
        "leader",
        "epoch",
        "replicas",
        "in_sync",
        "log_start",
        "high_watermark",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.topic.clone(),
            self.partition.to_string(),
            self.leader.map_or(NONE.into(), |node| node.to_string()),
            self.epoch.to_string(),
            list(&self.replicas),
            list(&self.in_sync),
            self.log_start.to_string(),
            self.high_watermark.to_string(),
        ]
    }
}

/// A node.
#[derive(Debug, Serialize)]
pub struct NodeRow {
    pub node_id: u64,
    pub address: String,
    pub http: Option<String>,
    pub rack: String,
    pub state: &'static str,
    pub leaders: u32,
    pub replicas: u32,
    pub controller: bool,
    pub version: String,
}

impl From<&NodeStatus> for NodeRow {
    fn from(status: &NodeStatus) -> NodeRow {
        NodeRow {
            node_id: status.node_id,
            state: state(status.state, status.alive),
            address: status.address.clone(),
            http: status.http.clone(),
            rack: status.rack.clone().unwrap_or_default(),
            leaders: status.leaders,
            replicas: status.replicas,
            controller: status.controller,
            version: status.version.clone(),
        }
    }
}

impl NodeRow {
    /// The HTTP address of the node, or only the port if the host is that of `address`.
    fn http_port(&self) -> &str {
        let http = self.http.as_deref().unwrap_or_default();
        let host = self.address.rsplit_once(':').map_or("", |(host, _)| host);
        let port = http.strip_prefix(host).filter(|port| port.starts_with(':'));
        port.unwrap_or(http)
    }
}

impl Row for NodeRow {
    const COLUMNS: &'static [&'static str] = &[
        "node",
        "address",
        "http",
        "rack",
        "state",
        "leaders",
        "replicas",
        "controller",
        "version",
    ];

    fn cells(&self) -> Vec<String> {
        let or_none = |text: &str| {
            if text.is_empty() {
                NONE.into()
            } else {
                text.to_string()
            }
        };
        vec![
            self.node_id.to_string(),
            self.address.clone(),
            or_none(self.http_port()),
            or_none(&self.rack),
            self.state.to_string(),
            self.leaders.to_string(),
            self.replicas.to_string(),
            if self.controller { "yes" } else { "" }.to_string(),
            self.version.clone(),
        ]
    }
}

/// Name of a node's state. A node that does not respond is dead, regardless of its desired state.
fn state(state: NodeState, alive: bool) -> &'static str {
    match (state, alive) {
        (NodeState::Removed, _) => "removed",
        (_, false) => "dead",
        (NodeState::Active, true) => "active",
        (NodeState::Draining, true) => "draining",
        (NodeState::Decommissioning, true) => "decommissioning",
        (_, true) => "unknown",
    }
}

fn sorted(nodes: &[u64]) -> Vec<u64> {
    let mut nodes = nodes.to_vec();
    nodes.sort_unstable();
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::columns_within;

    #[test]
    fn a_partition_reads_as_the_contract_says() {
        let topic = v1::TopicInfo {
            name: "flights".into(),
            partitions: vec![v1::PartitionInfo {
                partition: 3,
                leader_node_id: 2,
                leader_epoch: 7,
                replica_node_ids: vec![2, 1, 3],
                in_sync_node_ids: vec![3, 2],
                log_start_offset: 10,
                high_watermark: 42,
                log_bytes: 0,
            }],
            ..Default::default()
        };
        let row = PartitionRow::of(&topic.into()).next().unwrap();
        assert!(!row.is_in_sync());
        let expected = concat!(
            r#"{"topic":"flights","partition":3,"leader":2,"epoch":7,"replicas":[2,1,3],"#,
            r#""in_sync":[2,3],"log_start":10,"high_watermark":42}"#
        );
        assert_eq!(serde_json::to_string(&row).unwrap(), expected);
    }

    #[test]
    fn a_topic_shows_every_setting_and_the_default_of_those_that_differ() {
        let set = [("retention_size", "1GiB"), ("min_compaction_lag", "10m")];
        let set = settings::merge(&settings::defaults(), set).unwrap();
        let topic = v1::TopicInfo {
            name: "flights".into(),
            settings: Some(set),
            ..Default::default()
        };
        let row = TopicRow::from(&topic.into());
        let json = serde_json::to_value(&row).unwrap();
        let mut in_json: Vec<&str> = json
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        in_json.retain(|name| !["topic", "partitions", "replicas"].contains(name));
        let shown = row.settings();
        assert_eq!(shown.len(), in_json.len());
        for name in in_json {
            let plain = name.strip_suffix("_ms").unwrap_or(name);
            let plain = plain.replace("retention_bytes", "retention_size");
            assert!(shown.iter().any(|one| one.name == plain), "{name}");
        }
        let differ = shown.iter().filter_map(|one| {
            let default = one.default.as_deref()?;
            Some((one.name, one.value.as_str(), default))
        });
        let expected = [
            ("retention_size", "1GiB", "unlimited"),
            ("min_compaction_lag", "10m", "0s"),
        ];
        assert_eq!(differ.collect::<Vec<_>>(), expected);
        // `topic set` accepts each printed name and value.
        let back = shown.iter().map(|one| (one.name, one.value.as_str()));
        let back = settings::merge(&settings::defaults(), back).unwrap();
        assert_eq!(back.retention_bytes, set.retention_bytes);
        assert_eq!(back.min_compaction_lag_ms, set.min_compaction_lag_ms);
    }

    #[test]
    fn three_nodes_of_this_machine_fit_into_80_characters() {
        let node = |number: u16| NodeRow {
            node_id: number.into(),
            address: format!("127.0.0.1:{}", 28_000 + number),
            http: Some(format!("127.0.0.1:{}", 28_100 + number)),
            rack: String::new(),
            state: "active",
            leaders: 11,
            replicas: 32,
            controller: number == 1,
            version: "0.1.0".into(),
        };
        let rows: Vec<Vec<String>> = (1..=3).map(|number| node(number).cells()).collect();
        assert_eq!(rows[0][2], ":28101");
        let text = columns_within(Some(80), NodeRow::COLUMNS, &rows);
        assert_eq!(text.lines().count(), 4, "{text}");
        let elsewhere = NodeRow {
            http: Some("10.0.0.1:28101".into()),
            ..node(1)
        };
        assert_eq!(elsewhere.cells()[2], "10.0.0.1:28101");
    }

    #[test]
    fn a_node_reads_as_the_contract_says() {
        let row = |status: v1::NodeStatus| NodeRow::from(&NodeStatus::from(status));
        let status = v1::NodeStatus {
            info: Some(v1::NodeInfo {
                node_id: 1,
                address: "a:1".into(),
                state: v1::NodeState::Active as i32,
                version: "0.1.0".into(),
                ..Default::default()
            }),
            alive: true,
            leaders: 4,
            replicas: 12,
            controller: true,
        };
        let expected = concat!(
            r#"{"node_id":1,"address":"a:1","http":null,"rack":"","state":"active","#,
            r#""leaders":4,"replicas":12,"controller":true,"version":"0.1.0"}"#
        );
        assert_eq!(
            serde_json::to_string(&row(status.clone())).unwrap(),
            expected
        );
        let dead = v1::NodeStatus {
            alive: false,
            ..status
        };
        assert_eq!(row(dead).state, "dead");
    }
}
