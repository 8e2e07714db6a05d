//! A plain client of a simulated cluster. It makes one call at a time and repeats it until a node answers
//! with success. Records it publishes may be duplicated; every acknowledged record must be present.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use ropewalk_node::config::Limits;
use ropewalk_node::peer::Peers;
use ropewalk_proto::batch::BatchView;
use ropewalk_proto::v1;
use ropewalk_proto::v1::ropewalk_client::RopewalkClient;
use ropewalk_proto::v1::seek_group_request::Position;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, Response, Status, Streaming};

use crate::cluster;
use crate::net::SimNet;

/// Timeout of one call.
const CALL: Duration = Duration::from_secs(3);
/// Pause between two rounds that ask every node.
const PAUSE: Duration = Duration::from_millis(200);
const FETCH_BYTES: u32 = 1 << 20;

/// gRPC client of one node.
pub type Node = RopewalkClient<Channel>;

/// Nodes to ask, and the topic to ask about.
#[derive(Debug)]
pub struct Ask {
    peers: Peers,
    nodes: Vec<String>,
    topic: String,
}

/// One partition, read to its end: the batches as received, by base offset.
#[derive(Debug, Default, PartialEq)]
pub struct Contents {
    /// First offset that can be read.
    pub log_start_offset: u64,
    /// Batches by base offset.
    pub batches: BTreeMap<u64, Bytes>,
}

impl Contents {
    /// The values, by offset.
    ///
    /// # Panics
    /// If a batch does not parse.
    pub fn values(&self) -> BTreeMap<u64, Bytes> {
        let mut values = BTreeMap::new();
        for (base_offset, batch) in &self.batches {
            let view = BatchView::trusted(batch.clone()).expect("a batch");
            for record in view.records(FETCH_BYTES as usize).expect("records") {
                let offset = base_offset + record.offset_delta as u64;
                values.insert(offset, record.value.unwrap_or_default());
            }
        }
        values
    }
}

impl Ask {
    /// A client that asks the named nodes about one topic.
    pub fn new(nodes: &[&str], topic: &str) -> Ask {
        Ask {
            peers: Peers::new(Arc::new(SimNet::default()), &Limits::default()),
            nodes: nodes.iter().map(ToString::to_string).collect(),
            topic: topic.to_string(),
        }
    }

    /// Asks one node after another until one answers with success.
    pub async fn until_answered<T, F>(&self, mut ask: impl FnMut(Node) -> F) -> T
    where
        F: Future<Output = Result<T, Status>>,
    {
        loop {
            for name in &self.nodes {
                let channel = self.peers.channel(&cluster::address(name));
                match timeout(CALL, ask(RopewalkClient::new(channel))).await {
                    Ok(Ok(answer)) => return answer,
                    Ok(Err(status)) => tracing::debug!(name, %status, "refused"),
                    Err(_) => tracing::debug!(name, "no answer"),
                }
            }
            sleep(PAUSE).await;
        }
    }

    /// Asks one of the nodes once. Returns `None` if it did not answer.
    pub async fn once<T, F>(&self, number: usize, ask: impl FnOnce(Node) -> F) -> Option<T>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let name = self.nodes.get(number)?;
        let channel = self.peers.channel(&cluster::address(name));
        let answer = timeout(CALL, ask(RopewalkClient::new(channel))).await;
        answer.ok()?.ok()
    }

    /// Creates the topic with one partition.
    pub async fn create_topic(&self, settings: Option<v1::TopicSettings>) {
        self.until_answered(|mut node| async move {
            let request = v1::CreateTopicRequest {
                name: self.topic.clone(),
                partitions: 1,
                settings,
            };
            match node.create_topic(request).await {
                // An earlier attempt may have succeeded although its answer was lost.
                Err(status) if status.message().contains("exists") => Ok(()),
                answer => answer.map(|_| ()),
            }
        })
        .await;
    }

    /// Publishes one record and returns its offset.
    pub async fn publish(&self, key: &'static str, value: &str) -> u64 {
        self.until_answered(|mut node| async move {
            let request = v1::PublishRequest {
                topic: self.topic.clone(),
                key: Some(Bytes::from_static(key.as_bytes())),
                value: Some(Bytes::copy_from_slice(value.as_bytes())),
                ..Default::default()
            };
            Ok(node.publish(request).await?.into_inner().offset)
        })
        .await
    }

    /// Sets the committed offset of a group that has no members.
    pub async fn seek_group(&self, group: &str, offset: u64) {
        self.until_answered(|mut node| async move {
            node.seek_group(v1::SeekGroupRequest {
                group: group.to_owned(),
                topic: self.topic.clone(),
                position: Some(Position::Offset(offset)),
                create: true,
                ..v1::SeekGroupRequest::default()
            })
            .await
        })
        .await;
    }

    /// Committed offset of a group in the first partition of this topic.
    pub async fn committed(&self, group: &str) -> Option<u64> {
        let told = self.until_answered(|mut node| async move {
            let request = v1::DescribeGroupRequest {
                group: group.to_owned(),
            };
            match node.describe_group(request).await {
                Err(status) if status.code() == Code::NotFound => Ok(None),
                answer => answer.map(|answer| Some(answer.into_inner())),
            }
        });
        let told = told.await?;
        told.partitions.first().and_then(|first| first.committed)
    }

    /// The cluster's metadata of the partition.
    pub async fn partition(&self) -> v1::PartitionInfo {
        self.until_answered(|mut node| async move {
            let request = v1::ListPartitionsRequest {
                topics: vec![self.topic.clone()],
            };
            let answer = node.list_partitions(request).await?.into_inner();
            let partitions = answer
                .topics
                .into_iter()
                .next()
                .map(|topic| topic.partitions);
            let first = partitions.and_then(|partitions| partitions.into_iter().next());
            first.ok_or_else(|| Status::unavailable("the topic is not there yet"))
        })
        .await
    }

    /// Polls the partition's metadata until it meets the condition.
    pub async fn until_partition(&self, wished: impl Fn(&v1::PartitionInfo) -> bool) {
        while !wished(&self.partition().await) {
            sleep(PAUSE).await;
        }
    }

    /// Transfers the partition's leadership to one node.
    pub async fn lead_by(&self, node_id: u64) {
        while self.partition().await.leader_node_id != node_id {
            let moved = self.until_answered(|mut node| async move {
                let request = v1::TransferLeaderRequest {
                    topic: self.topic.clone(),
                    partition: 0,
                    to_node_id: node_id,
                };
                // A refused transfer shows as an unchanged leader.
                Ok(node.transfer_leader(request).await.is_ok())
            });
            // Awaited apart from the log line: an expression inside a disabled log line is not evaluated.
            let moved = moved.await;
            tracing::debug!(moved, node_id, "asked for the leader to move");
            sleep(PAUSE).await;
        }
    }

    /// Reads the partition from its log start offset to its end.
    pub async fn contents(&self) -> Contents {
        let mut contents = Contents::default();
        let mut next = 0;
        loop {
            let answer = self.until_answered(|node| self.fetch(node, next)).await;
            contents.log_start_offset = answer.log_start_offset;
            next = next.max(answer.log_start_offset);
            for fetched in answer.batches {
                let view = BatchView::trusted(fetched.batch.clone()).expect("a batch");
                next = fetched.base_offset + view.last_offset_delta() as u64 + 1;
                contents.batches.insert(fetched.base_offset, fetched.batch);
            }
            if next >= answer.high_watermark {
                return contents;
            }
        }
    }

    async fn fetch(&self, mut node: Node, offset: u64) -> Result<v1::FetchResponse, Status> {
        let request = v1::FetchRequest {
            topic: self.topic.clone(),
            offset,
            max_bytes: FETCH_BYTES,
            ..Default::default()
        };
        // The node treats the end of the request stream as a reader that has left.
        let requests = futures_util::stream::iter([request]).chain(futures_util::stream::pending());
        let answer = first(node.fetch(requests).await?).await?;
        match &answer.error {
            Some(error) => Err(Status::unavailable(error.message.clone())),
            None => Ok(answer),
        }
    }
}

/// The first answer of a stream.
///
/// # Errors
/// Those of the stream, and `Unavailable` if the stream ends before an answer.
pub async fn first<T>(answers: Response<Streaming<T>>) -> Result<T, Status> {
    let answer = answers.into_inner().message().await?;
    answer.ok_or_else(|| Status::unavailable("the stream ended"))
}
