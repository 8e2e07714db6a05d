//! A cluster of one node in this process, and the raw calls of a client.

pub mod member;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ropewalk_demo::cluster::free_port;
use ropewalk_node::env::{Connection, Net, SystemClock, TcpNet};
use ropewalk_node::{Config, Env, RunError};
use ropewalk_proto::batch::{BatchBuilder, Compression};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1;
use ropewalk_proto::v1::ropewalk_client::RopewalkClient;
use ropewalk_raft_store::disk::MemoryDisk;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

pub const TOPIC: &str = "flights";
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Node {
    pub config: Config,
    pub disk: Arc<MemoryDisk>,
    pub client: RopewalkClient<Channel>,
    pub shutdown: CancellationToken,
    pub running: JoinHandle<Result<(), RunError>>,
}

pub fn free_address() -> String {
    format!("127.0.0.1:{}", free_port().expect("a free port"))
}

pub fn start(
    config: &Config,
    disk: &Arc<MemoryDisk>,
    shutdown: &CancellationToken,
) -> (
    JoinHandle<Result<(), RunError>>,
    oneshot::Receiver<ropewalk_node::Ready>,
) {
    let env = Env {
        clock: Arc::new(SystemClock),
        disk: disk.clone(),
        net: Arc::new(TcpNet),
        seed: 1,
        log_lines_lost: || 0,
    };
    let (ready, is_ready) = oneshot::channel();
    let running = ropewalk_node::run(config.clone(), env, shutdown.clone(), ready);
    (tokio::spawn(running), is_ready)
}

impl Node {
    /// A cluster of one node, with a topic of one partition.
    pub async fn start() -> Node {
        Node::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Node {
        let address = free_address();
        let mut config = Config {
            advertise: address.clone(),
            listen: address.clone(),
            http: Some(free_address()),
            ..Config::default()
        };
        config.limits.election_timeout_ms = 300;
        config.limits.heartbeat_ms = 50;
        change(&mut config);
        let disk = Arc::new(MemoryDisk::new());
        let shutdown = CancellationToken::new();
        let (running, is_ready) = start(&config, &disk, &shutdown);
        timeout(PATIENCE, is_ready)
            .await
            .expect("ready in time")
            .expect("the node starts");
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .expect("an address")
            .connect_lazy();
        let mut node = Node {
            config,
            disk,
            client: RopewalkClient::new(channel),
            shutdown,
            running,
        };
        node.create_topic(TOPIC, 1)
            .await
            .expect("a topic of one replica");
        node.produce_until_led(batch((-1, -1, -1), &[b"first"]))
            .await;
        node
    }

    pub async fn create_topic(&mut self, name: &str, partitions: u32) -> Result<(), WireError> {
        let settings = v1::TopicSettings {
            replicas: 1,
            ..Default::default()
        };
        let request = v1::CreateTopicRequest {
            name: name.to_string(),
            partitions,
            settings: Some(settings),
        };
        let answer = self.client.create_topic(request).await;
        answer
            .map(|_| ())
            .map_err(|status| WireError::from(&status))
    }

    pub async fn produce(
        &mut self,
        partition: u32,
        batch: Bytes,
    ) -> Result<u64, (ErrorCode, String)> {
        self.produce_to(TOPIC, partition, batch).await
    }

    pub async fn produce_to(
        &mut self,
        topic: &str,
        partition: u32,
        batch: Bytes,
    ) -> Result<u64, (ErrorCode, String)> {
        let request = v1::ProduceRequest {
            topic: topic.to_string(),
            partition,
            batch,
            ..Default::default()
        };
        let answers = self
            .client
            .produce(futures_util::stream::iter([request]))
            .await;
        let mut answers = answers.expect("the stream opens").into_inner();
        let answer = answers
            .message()
            .await
            .expect("the stream lives")
            .expect("an answer");
        match answer.error {
            Some(error) => Err((ErrorCode::from_number(error.code), error.message)),
            None => Ok(answer.base_offset),
        }
    }

    pub async fn publish(&mut self, topic: &str, value: &[u8]) -> Result<u64, (ErrorCode, String)> {
        let request = v1::PublishRequest {
            topic: topic.to_string(),
            value: Some(value.to_vec().into()),
            ..Default::default()
        };
        match self.client.publish(request).await {
            Ok(answer) => Ok(answer.into_inner().offset),
            Err(status) => {
                let error = WireError::from(&status);
                Err((error.code, error.message))
            }
        }
    }

    /// Retries until the new partition has a leader.
    pub async fn produce_until_led(&mut self, batch: Bytes) -> u64 {
        let produced = async {
            loop {
                match self.produce(0, batch.clone()).await {
                    Ok(offset) => return offset,
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        timeout(PATIENCE, produced).await.expect("a leader in time")
    }

    /// Sends one request and then closes this side of the stream.
    pub async fn fetch(&mut self, partition: u32, offset: u64) -> v1::FetchResponse {
        let request = v1::FetchRequest {
            topic: TOPIC.to_string(),
            partition,
            offset,
            max_bytes: 1 << 20,
            ..Default::default()
        };
        let mut answers = self
            .client
            .fetch(futures_util::stream::iter([request]))
            .await
            .expect("opens")
            .into_inner();
        answers
            .message()
            .await
            .expect("the stream lives")
            .expect("an answer")
    }

    pub async fn connect(&self, address: &str) -> Connection {
        TcpNet.connect(address).await.expect("a connection")
    }

    /// Checks that the record acknowledged at the start is still there, and that writes succeed.
    pub async fn still_serves(mut self) {
        let fetched = self.fetch(0, 0).await;
        assert_eq!(fetched.error, None);
        assert_eq!(
            fetched.batches.first().map(|batch| batch.base_offset),
            Some(0)
        );
        let next = fetched.high_watermark;
        assert_eq!(
            self.produce(0, batch((-1, -1, -1), &[b"next"])).await,
            Ok(next)
        );
        self.shutdown.cancel();
        let ended = timeout(PATIENCE, self.running).await.expect("ends in time");
        ended.expect("no panic").expect("a clean end");
    }
}

pub fn batch(producer: (i64, i16, i32), values: &[&[u8]]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, 32 << 20);
    for value in values {
        assert!(
            builder
                .push(Some(b"key"), Some(value), &[], 1)
                .expect("a record")
        );
    }
    builder.set_producer(producer.0, producer.1, producer.2);
    builder.build()
}
