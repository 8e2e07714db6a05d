//! The service of one node. It refuses calls that no test needs.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use parking_lot::Mutex;
use ropewalk_client::Offset;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1;
use ropewalk_proto::v1::list_offsets_request::Position;
use ropewalk_proto::v1::ropewalk_server::{Ropewalk, RopewalkServer};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::TOPIC;
use super::groups::GROUP;
use super::world::{Act, World};

#[derive(Clone)]
pub struct Service {
    pub node_id: u64,
    pub world: Arc<Mutex<World>>,
    pub changed: Arc<watch::Sender<u64>>,
    pub stop: CancellationToken,
}

type AnswerStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    pub fn server(self) -> RopewalkServer<Service> {
        RopewalkServer::new(self).max_decoding_message_size(64 << 20)
    }

    async fn produce_all(
        self,
        mut requests: Streaming<v1::ProduceRequest>,
        answers: mpsc::UnboundedSender<Result<v1::ProduceResponse, Status>>,
    ) {
        while let Some(Ok(request)) = requests.next().await {
            let (act, response) = self.world.lock().produce(self.node_id, &request);
            self.changed.send_modify(|changes| *changes += 1);
            let answer = match act {
                Act::Obey | Act::Refuse(_) => Ok(response),
                Act::ObeyAndBreak | Act::Break => Err(Status::unavailable("the connection broke")),
                Act::ObeyLate(requests) | Act::RefuseLate(_, requests) => {
                    let late = self.clone().once_seen(requests);
                    let answers = answers.clone();
                    tokio::spawn(async move {
                        late.await;
                        // The caller may have left the stream by then.
                        let _ = answers.send(Ok(response));
                    });
                    continue;
                }
                Act::Ignore | Act::ObeyInSilence => continue,
            };
            let broke = answer.is_err();
            if answers.send(answer).is_err() || broke {
                return;
            }
        }
    }

    async fn once_seen(self, requests: usize) {
        let mut changed = self.changed.subscribe();
        while self.world.lock().seen.len() < requests && changed.changed().await.is_ok() {}
    }

    async fn fetch_one(&self, request: &v1::FetchRequest) -> v1::FetchResponse {
        let mut changed = self.changed.subscribe();
        let deadline = Duration::from_millis(request.max_wait_ms.into());
        let patience = tokio::time::sleep(deadline);
        tokio::pin!(patience);
        loop {
            changed.borrow_and_update();
            let response = self.try_fetch(request);
            let moves = response
                .next_offset
                .is_some_and(|next| next > request.offset);
            if !response.batches.is_empty() || response.error.is_some() || moves {
                return response;
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = &mut patience => return response,
            }
        }
    }

    fn try_fetch(&self, request: &v1::FetchRequest) -> v1::FetchResponse {
        let mut world = self.world.lock();
        let filter = request.filter.parse::<u64>().ok();
        let filter = filter.filter(|_| world.knows_filters);
        let mut response = v1::FetchResponse {
            next_offset: filter.map(|_| request.offset),
            request_id: request.request_id,
            ..Default::default()
        };
        let scripted = (world.fetch_script)(request);
        let found = match scripted {
            Some(code) => Err(WireError::new(code, "the script says so")),
            None => world
                .led(self.node_id, request.topic_id, request.partition)
                .and_then(|log| {
                    if (log.start..=log.end).contains(&request.offset) {
                        Ok(log)
                    } else {
                        Err(WireError::new(
                            ErrorCode::OffsetOutOfRange,
                            "not in the log",
                        ))
                    }
                }),
        };
        match found {
            Ok(log) => {
                let mut bytes = 0;
                let after = log
                    .batches
                    .iter()
                    .skip(1)
                    .map(|batch| batch.0)
                    .chain([log.end]);
                for ((base_offset, batch), end) in log.batches.iter().zip(after) {
                    let full = bytes > 0 && bytes + batch.len() > request.max_bytes as usize;
                    if end <= request.offset {
                        continue;
                    }
                    if full {
                        break;
                    }
                    bytes += batch.len();
                    if let (Some(every), Some(next)) = (filter, &mut response.next_offset) {
                        *next = end;
                        if base_offset / 10 % every != 0 {
                            continue;
                        }
                    }
                    response.batches.push(v1::FetchedBatch {
                        base_offset: *base_offset,
                        leader_epoch: log.epoch,
                        batch: batch.clone(),
                    });
                }
                response.high_watermark = log.end;
                response.log_start_offset = log.start;
                response.leader_epoch = log.epoch;
            }
            Err(error) => response.error = Some(world.error(request.partition, error)),
        }
        response
    }
}

fn known(group: &str) -> Result<(), Status> {
    if group == GROUP {
        return Ok(());
    }
    Err(WireError::new(ErrorCode::UnknownGroup, "no such group").into())
}

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("no test asks for this"))
}

#[tonic::async_trait]
impl Ropewalk for Service {
    async fn metadata(
        &self,
        request: Request<v1::MetadataRequest>,
    ) -> Result<Response<v1::MetadataResponse>, Status> {
        let mut world = self.world.lock();
        world.metadata_asked += 1;
        let nodes = (1..=world.addresses.len() as u64).map(|node_id| world.node(node_id));
        let known = request.into_inner().topics.iter().any(|name| name == TOPIC);
        Ok(Response::new(v1::MetadataResponse {
            cluster_id: "fake".into(),
            nodes: nodes.collect(),
            topics: known.then(|| world.topic()).into_iter().collect(),
            controller_node_id: 1,
        }))
    }

    async fn publish(
        &self,
        request: Request<v1::PublishRequest>,
    ) -> Result<Response<v1::PublishResponse>, Status> {
        let request = request.into_inner();
        if request.topic != TOPIC {
            return Err(WireError::new(ErrorCode::UnknownTopic, "no such topic").into());
        }
        let partition = request.partition.unwrap_or(0);
        Ok(Response::new(v1::PublishResponse {
            partition,
            offset: 41,
        }))
    }

    async fn init_producer(
        &self,
        request: Request<v1::InitProducerRequest>,
    ) -> Result<Response<v1::InitProducerResponse>, Status> {
        let request = request.into_inner();
        if request.producer_id != 0 {
            return Ok(Response::new(v1::InitProducerResponse {
                producer_id: request.producer_id,
                producer_epoch: request.producer_epoch + 1,
            }));
        }
        let mut world = self.world.lock();
        if !world.led {
            return Err(WireError::new(ErrorCode::NoLeader, "nobody leads").into());
        }
        world.next_producer += 1;
        Ok(Response::new(v1::InitProducerResponse {
            producer_id: world.next_producer,
            producer_epoch: 0,
        }))
    }

    type ProduceStream = AnswerStream<v1::ProduceResponse>;

    async fn produce(
        &self,
        request: Request<Streaming<v1::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStream>, Status> {
        let (answers, receiver) = mpsc::unbounded_channel();
        let (serving, stop) = (self.clone(), self.stop.clone());
        tokio::spawn(
            stop.run_until_cancelled_owned(serving.produce_all(request.into_inner(), answers)),
        );
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(
            receiver,
        ))))
    }

    type FetchStream = AnswerStream<v1::FetchResponse>;

    async fn fetch(
        &self,
        request: Request<Streaming<v1::FetchRequest>>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let serving = self.clone();
        let answers = request.into_inner().then(move |request| {
            let serving = serving.clone();
            async move { Ok(serving.fetch_one(&request?).await) }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn check_filter(
        &self,
        request: Request<v1::CheckFilterRequest>,
    ) -> Result<Response<v1::CheckFilterResponse>, Status> {
        if !self.world.lock().knows_filters {
            return not_here();
        }
        match request.into_inner().filter.parse::<u64>() {
            Ok(_) => Ok(Response::new(v1::CheckFilterResponse {})),
            Err(_) => Err(WireError::new(ErrorCode::InvalidFilter, "line 1, column 2").into()),
        }
    }

    async fn backlog(
        &self,
        _request: Request<v1::BacklogRequest>,
    ) -> Result<Response<v1::BacklogResponse>, Status> {
        not_here()
    }

    type JoinGroupStream = AnswerStream<v1::GroupResponse>;

    async fn join_group(
        &self,
        request: Request<Streaming<v1::GroupRequest>>,
    ) -> Result<Response<Self::JoinGroupStream>, Status> {
        let (answers, receiver) = mpsc::unbounded_channel();
        let (serving, stop) = (self.clone(), self.stop.clone());
        tokio::spawn(
            stop.run_until_cancelled_owned(serving.coordinate(request.into_inner(), answers)),
        );
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(
            receiver,
        ))))
    }

    async fn list_groups(
        &self,
        _request: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        let groups = vec![v1::GroupSummary {
            group: GROUP.into(),
            ..Default::default()
        }];
        Ok(Response::new(v1::ListGroupsResponse { groups }))
    }

    async fn describe_group(
        &self,
        request: Request<v1::DescribeGroupRequest>,
    ) -> Result<Response<v1::GroupInfo>, Status> {
        known(&request.into_inner().group)?;
        Ok(Response::new(v1::GroupInfo {
            group: GROUP.into(),
            generation: self.world.lock().groups.generation,
            ..Default::default()
        }))
    }

    async fn group_lag(
        &self,
        request: Request<v1::GroupLagRequest>,
    ) -> Result<Response<v1::GroupLagResponse>, Status> {
        known(&request.into_inner().group)?;
        let partitions = self.world.lock().lags();
        Ok(Response::new(v1::GroupLagResponse { partitions }))
    }

    async fn seek_group(
        &self,
        request: Request<v1::SeekGroupRequest>,
    ) -> Result<Response<v1::SeekGroupResponse>, Status> {
        let request = request.into_inner();
        known(&request.group)?;
        let positions = match request.position {
            Some(_) => vec![v1::SeekTo {
                partition: 0,
                offset: 99,
            }],
            None => request.to,
        };
        Ok(Response::new(v1::SeekGroupResponse { positions }))
    }

    async fn delete_group(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        known(&request.into_inner().group)?;
        Err(self.world.lock().too_late(ErrorCode::UnknownGroup))
    }

    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        let request = request.into_inner();
        let mut world = self.world.lock();
        let log = world.led(self.node_id, request.topic_id, request.partition)?;
        let place = match request.position {
            Some(Position::Beginning(_)) => Offset::Beginning,
            _ => Offset::End,
        };
        Ok(Response::new(v1::ListOffsetsResponse {
            offset: if place == Offset::Beginning {
                log.start
            } else {
                log.end
            },
            timestamp_ms: -1,
            leader_epoch: log.epoch,
        }))
    }

    async fn cluster_status(
        &self,
        _request: Request<v1::ClusterStatusRequest>,
    ) -> Result<Response<v1::ClusterStatusResponse>, Status> {
        let world = self.world.lock();
        let nodes = (1..=world.addresses.len() as u64).map(|node_id| v1::NodeStatus {
            info: Some(world.node(node_id)),
            alive: true,
            ..Default::default()
        });
        Ok(Response::new(v1::ClusterStatusResponse {
            cluster_id: "fake".into(),
            nodes: nodes.collect(),
            ..Default::default()
        }))
    }

    async fn list_partitions(
        &self,
        _request: Request<v1::ListPartitionsRequest>,
    ) -> Result<Response<v1::ListPartitionsResponse>, Status> {
        let topics = vec![self.world.lock().topic()];
        Ok(Response::new(v1::ListPartitionsResponse { topics }))
    }

    async fn delete_topic(
        &self,
        _request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        Err(self.world.lock().too_late(ErrorCode::UnknownTopic))
    }

    async fn create_topic(
        &self,
        _request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::TopicInfo>, Status> {
        Err(self.world.lock().too_late(ErrorCode::TopicExists))
    }

    async fn alter_topic(
        &self,
        _request: Request<v1::AlterTopicRequest>,
    ) -> Result<Response<v1::TopicInfo>, Status> {
        not_here()
    }

    async fn grow_topic(
        &self,
        request: Request<v1::GrowTopicRequest>,
    ) -> Result<Response<v1::TopicInfo>, Status> {
        let mut topic = self.world.lock().topic();
        topic.ring_partitions = topic.partitions.len() as u32;
        let count = request.into_inner().partitions;
        let more = topic.ring_partitions..count;
        topic
            .partitions
            .extend(more.map(|partition| v1::PartitionInfo {
                partition,
                ..Default::default()
            }));
        Ok(Response::new(topic))
    }

    async fn transfer_leader(
        &self,
        _request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        not_here()
    }

    async fn move_partition(
        &self,
        _request: Request<v1::MovePartitionRequest>,
    ) -> Result<Response<v1::MovePartitionResponse>, Status> {
        not_here()
    }

    async fn set_node_state(
        &self,
        _request: Request<v1::SetNodeStateRequest>,
    ) -> Result<Response<v1::SetNodeStateResponse>, Status> {
        not_here()
    }
}
