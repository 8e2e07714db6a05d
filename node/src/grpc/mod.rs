//! The client API over gRPC. This room decodes requests, finds their caller, encodes answers, and drives
//! streams; `service/` decides. No decision may come in here.

mod counted;
mod fetch;
mod groups;
mod produce;
mod trace;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1;
use ropewalk_proto::v1::ropewalk_server::{Ropewalk, RopewalkServer};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::env::Remote;
use crate::guard::{Guard, Guarded};
use crate::metrics::Metrics;
use crate::service::forward::{FORWARDED, Route};
use crate::service::{Api, Availability, Caller, Listener, MAX_REQUEST_BYTES, check_filter};

use counted::Counted;

type AnswerStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The client service. It answers `NotServing` until the node has joined its cluster, and after the cluster
/// has removed the node.
#[derive(Debug, Clone)]
pub struct Service {
    availability: Availability,
    metrics: Arc<Metrics>,
    guard: Guard,
    listener: Listener,
}

impl Service {
    /// Creates the service for clients that reach nodes at their internal addresses.
    pub fn new(availability: Availability, metrics: Arc<Metrics>, guard: Guard) -> Service {
        Service {
            availability,
            metrics,
            guard,
            listener: Listener::Internal,
        }
    }

    /// Returns the same service for clients that reach nodes at their external addresses.
    pub fn for_outside(&self) -> Service {
        Service {
            listener: Listener::External,
            ..self.clone()
        }
    }

    /// Builds the tonic service.
    pub fn server(&self) -> Counted<Guarded<RopewalkServer<Service>>> {
        let server = RopewalkServer::new(self.clone())
            .max_decoding_message_size(MAX_REQUEST_BYTES)
            .max_encoding_message_size(usize::MAX);
        Counted::new(self.guard.around(server), self.metrics.clone())
    }

    /// Returns the origin of a request.
    fn caller<T>(&self, request: &Request<T>) -> Caller {
        let remote = request.extensions().get::<Remote>();
        self.availability.caller(self.listener, remote)
    }

    /// Returns the operations for the origin of a request.
    fn api<T>(&self, request: &Request<T>) -> Result<Api<'_>, WireError> {
        self.availability.api(self.caller(request))
    }
}

/// Returns the route of a call.
fn route(api: &Api<'_>, metadata: &MetadataMap) -> Route {
    api.caller().route(metadata.contains_key(FORWARDED))
}

/// Returns the code of an error inside a stream.
fn code(error: &Option<v1::Error>) -> Option<ErrorCode> {
    let error = error.as_ref()?;
    Some(ErrorCode::from_number(error.code))
}

#[tonic::async_trait]
impl Ropewalk for Service {
    async fn metadata(
        &self,
        request: Request<v1::MetadataRequest>,
    ) -> Result<Response<v1::MetadataResponse>, Status> {
        let answer = self.api(&request)?.metadata(request.get_ref());
        Ok(Response::new(answer))
    }

    async fn publish(
        &self,
        request: Request<v1::PublishRequest>,
    ) -> Result<Response<v1::PublishResponse>, Status> {
        let api = self.api(&request)?;
        let route = route(&api, request.metadata());
        let trace = trace::of_call(request.metadata(), request.get_ref());
        let record = request.into_inner();
        Ok(Response::new(api.publish(record, route, trace).await?))
    }

    async fn init_producer(
        &self,
        request: Request<v1::InitProducerRequest>,
    ) -> Result<Response<v1::InitProducerResponse>, Status> {
        let api = self.api(&request)?;
        Ok(Response::new(
            api.init_producer(request.into_inner()).await?,
        ))
    }

    type ProduceStream = AnswerStream<v1::ProduceResponse>;

    async fn produce(
        &self,
        request: Request<Streaming<v1::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStream>, Status> {
        self.availability.check()?;
        let caller = self.caller(&request);
        let answers = produce::stream(self.clone(), caller, request.into_inner());
        Ok(Response::new(answers))
    }

    type FetchStream = AnswerStream<v1::FetchResponse>;

    async fn fetch(
        &self,
        request: Request<Streaming<v1::FetchRequest>>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        self.availability.check()?;
        let caller = self.caller(&request);
        let answers = fetch::stream(self.clone(), caller, request);
        Ok(Response::new(answers))
    }

    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        let api = self.api(&request)?;
        Ok(Response::new(api.list_offsets(request.into_inner()).await?))
    }

    async fn check_filter(
        &self,
        request: Request<v1::CheckFilterRequest>,
    ) -> Result<Response<v1::CheckFilterResponse>, Status> {
        let caller = self.caller(&request);
        Ok(Response::new(check_filter(&caller, request.get_ref())?))
    }

    async fn backlog(
        &self,
        request: Request<v1::BacklogRequest>,
    ) -> Result<Response<v1::BacklogResponse>, Status> {
        let api = self.api(&request)?;
        Ok(Response::new(api.backlog(request.into_inner()).await?))
    }

    type JoinGroupStream = AnswerStream<v1::GroupResponse>;

    async fn join_group(
        &self,
        request: Request<Streaming<v1::GroupRequest>>,
    ) -> Result<Response<Self::JoinGroupStream>, Status> {
        self.availability.check()?;
        let caller = self.caller(&request);
        let answers = groups::session(self.clone(), caller, request.into_inner());
        Ok(Response::new(answers))
    }

    async fn list_groups(
        &self,
        request: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        let api = self.api(&request)?;
        Ok(Response::new(api.list_groups(request.into_inner()).await?))
    }

    async fn describe_group(
        &self,
        request: Request<v1::DescribeGroupRequest>,
    ) -> Result<Response<v1::GroupInfo>, Status> {
        let api = self.api(&request)?;
        let route = route(&api, request.metadata());
        let request = request.into_inner();
        Ok(Response::new(api.describe_group(request, route).await?))
    }

    async fn group_lag(
        &self,
        request: Request<v1::GroupLagRequest>,
    ) -> Result<Response<v1::GroupLagResponse>, Status> {
        let api = self.api(&request)?;
        let route = route(&api, request.metadata());
        let request = request.into_inner();
        Ok(Response::new(api.group_lag(request, route).await?))
    }

    async fn seek_group(
        &self,
        request: Request<v1::SeekGroupRequest>,
    ) -> Result<Response<v1::SeekGroupResponse>, Status> {
        let api = self.api(&request)?;
        let route = route(&api, request.metadata());
        let request = request.into_inner();
        Ok(Response::new(api.seek_group(request, route).await?))
    }

    async fn delete_group(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        let api = self.api(&request)?;
        let route = route(&api, request.metadata());
        let request = request.into_inner();
        Ok(Response::new(api.delete_group(request, route).await?))
    }

    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::TopicInfo>, Status> {
        let api = self.api(&request)?;
        Ok(Response::new(api.create_topic(request.into_inner()).await?))
    }

    async fn alter_topic(
        &self,
        request: Request<v1::AlterTopicRequest>,
    ) -> Result<Response<v1::TopicInfo>, Status> {
        let api = self.api(&request)?;
        Ok(Response::new(api.alter_topic(request.into_inner()).await?))
    }

    async fn grow_topic(
        &self,
        request: Request<v1::GrowTopicRequest>,
    ) -> Result<Response<v1::TopicInfo>, Status> {
        let api = self.api(&request)?;
        Ok(Response::new(api.grow_topic(request.into_inner()).await?))
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        let api = self.api(&request)?;
        Ok(Response::new(api.delete_topic(request.into_inner()).await?))
    }

    async fn cluster_status(
        &self,
        request: Request<v1::ClusterStatusRequest>,
    ) -> Result<Response<v1::ClusterStatusResponse>, Status> {
        let answer = self.api(&request)?.cluster_status();
        Ok(Response::new(answer))
    }

    async fn list_partitions(
        &self,
        request: Request<v1::ListPartitionsRequest>,
    ) -> Result<Response<v1::ListPartitionsResponse>, Status> {
        let answer = self.api(&request)?.list_partitions(request.get_ref());
        Ok(Response::new(answer))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        let api = self.api(&request)?;
        let route = route(&api, request.metadata());
        let request = request.into_inner();
        Ok(Response::new(api.transfer_leader(request, route).await?))
    }

    async fn move_partition(
        &self,
        request: Request<v1::MovePartitionRequest>,
    ) -> Result<Response<v1::MovePartitionResponse>, Status> {
        let api = self.api(&request)?;
        Ok(Response::new(
            api.move_partition(request.into_inner()).await?,
        ))
    }

    async fn set_node_state(
        &self,
        request: Request<v1::SetNodeStateRequest>,
    ) -> Result<Response<v1::SetNodeStateResponse>, Status> {
        let api = self.api(&request)?;
        Ok(Response::new(
            api.set_node_state(request.into_inner()).await?,
        ))
    }
}
