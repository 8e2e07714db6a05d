//! A cluster that follows the script of a test: nodes on loopback ports, with one shared world. By default it
//! follows the rules of a real partition.

mod groups;
mod service;
mod world;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use ropewalk_client::{Client, ClientBuilder};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

pub use groups::{GROUP, React, offer};
pub use world::{Act, Log, Seen, World};

pub const TOPIC: &str = "flights";
/// Timeout of a test step that hangs.
pub const SOON: Duration = Duration::from_secs(20);

/// The cluster. It ends when this is dropped.
pub struct Fake {
    pub addresses: Vec<String>,
    world: Arc<Mutex<World>>,
    changed: Arc<watch::Sender<u64>>,
    _stop: DropGuard,
}

impl Fake {
    /// Nodes 1 to `nodes`; node 1 leads all partitions of the one topic.
    pub async fn start(nodes: u64, partitions: u32) -> Fake {
        let stop = CancellationToken::new();
        let mut addresses = Vec::new();
        let mut incoming = Vec::new();
        for _ in 0..nodes {
            let listener = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let listener = listener.with_nodelay(Some(true));
            addresses.push(listener.local_addr().unwrap().to_string());
            incoming.push(listener);
        }
        let world = Arc::new(Mutex::new(World::new(addresses.clone(), partitions)));
        let changed = Arc::new(watch::channel(0).0);
        for (node_id, incoming) in (1..).zip(incoming) {
            let service = service::Service {
                node_id,
                world: world.clone(),
                changed: changed.clone(),
                stop: stop.clone(),
            };
            let server = Server::builder().add_service(service.server());
            let stopped = stop.clone().cancelled_owned();
            tokio::spawn(server.serve_with_incoming_shutdown(incoming, stopped));
        }
        Fake {
            addresses,
            world,
            changed,
            _stop: stop.drop_guard(),
        }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock()
    }

    /// Sets the reaction to produce requests, in place of the rules.
    pub fn script(&self, script: impl FnMut(&Seen) -> Act + Send + 'static) {
        self.world().script = Box::new(script);
    }

    pub fn move_leader(&self, partition: usize, to: u64) {
        let mut world = self.world();
        world.logs[partition].leader = to;
        world.logs[partition].epoch += 1;
        drop(world);
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// Deletes the topic and creates it again. Returns the deleted logs.
    pub fn recreate(&self, partitions: u32) -> Vec<Log> {
        let mut world = self.world();
        world.topic_id += 1;
        world.ring_version += 1;
        let new = (0..partitions).map(|_| Log {
            leader: 1,
            epoch: 1,
            ..Log::default()
        });
        let gone = std::mem::replace(&mut world.logs, new.collect());
        drop(world);
        self.changed.send_modify(|changes| *changes += 1);
        gone
    }

    pub fn builder(&self) -> ClientBuilder {
        Client::builder(self.addresses.clone())
            .request_timeout(Duration::from_secs(5))
            .clock(|| 1_700_000_000_000)
            .seed(7)
    }

    pub async fn client(&self) -> Client {
        self.builder().connect().await.unwrap()
    }

    /// All produce requests, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.world().seen.clone()
    }

    /// The values in a partition's log, in order.
    pub fn values(&self, partition: usize) -> Vec<String> {
        self.world().logs[partition].values()
    }
}

/// Fails the test if the future hangs.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future)
        .await
        .expect("this hangs")
}
