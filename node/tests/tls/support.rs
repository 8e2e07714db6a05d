//! Nodes in this process, on sockets of this machine, that can restart with other settings.

use std::sync::Arc;
use std::time::Duration;

use ropewalk_client::{Bootstrap, Client, ClientBuilder, Tls};
use ropewalk_demo::cluster::free_port;
use ropewalk_node::env::tls::{ClientAuth, TlsFiles, TlsNet, TlsSettings};
use ropewalk_node::env::{Net, SystemClock, TcpNet};
use ropewalk_node::{Config, Env, RunError};
use ropewalk_raft_store::disk::MemoryDisk;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::certificates::{Authority, Folder, HOST};

pub const PATIENCE: Duration = Duration::from_secs(60);
/// Maximum time for a client to get its error at once.
pub const AT_ONCE: Duration = Duration::from_secs(5);

pub fn free_address() -> String {
    format!("127.0.0.1:{}", free_port().expect("a free port"))
}

/// A certificate authority, and the files of a client that it has signed for.
pub fn own_files() -> (Authority, Folder) {
    let ours = Authority::new("ours");
    let folder = Folder::new(&[&ours], &ours.issue(HOST, 100));
    (ours, folder)
}

/// The client settings for these files.
pub fn identity(files: &TlsFiles) -> Tls {
    let own = files.own.as_ref().expect("a certificate");
    Tls::new(&files.ca).identity(&own.cert, &own.key)
}

pub fn builder(nodes: &[Node]) -> ClientBuilder {
    let addresses = nodes.iter().map(|node| node.config.listen.as_str());
    Client::builder(Bootstrap::from_iter(addresses)).request_timeout(PATIENCE)
}

pub struct Node {
    pub config: Config,
    pub net: Option<Arc<TlsNet>>,
    disk: Arc<MemoryDisk>,
    running: Option<(CancellationToken, JoinHandle<Result<(), RunError>>)>,
}

/// This number of nodes of one cluster, not started.
pub fn nodes(count: usize) -> Vec<Node> {
    let addresses: Vec<String> = (0..count).map(|_| free_address()).collect();
    let node = |address: &String| {
        let mut config = Config {
            advertise: address.clone(),
            listen: address.clone(),
            http: Some(free_address()),
            probes: Some(free_address()),
            seeds: addresses.clone(),
            ..Config::default()
        };
        config.limits.election_timeout_ms = 500;
        config.limits.heartbeat_ms = 100;
        Node {
            config,
            net: None,
            disk: Arc::new(MemoryDisk::new()),
            running: None,
        }
    };
    addresses.iter().map(node).collect()
}

/// Starts one node with these settings.
pub async fn one(tls: TlsSettings) -> Vec<Node> {
    let mut nodes = nodes(1);
    start_all(&mut nodes, &tls).await;
    nodes
}

pub fn on(files: &Folder, auth: ClientAuth) -> TlsSettings {
    TlsSettings::On(files.files(), auth)
}

pub async fn start_all(nodes: &mut [Node], tls: &TlsSettings) {
    let mut starting = Vec::new();
    for node in nodes {
        starting.push(node.spawn(tls.clone()).await);
    }
    for ready in starting {
        let ready = timeout(PATIENCE, ready).await.expect("ready in time");
        ready.expect("the node starts");
    }
}

impl Node {
    async fn spawn(&mut self, tls: TlsSettings) -> oneshot::Receiver<ropewalk_node::Ready> {
        let net = TlsNet::new(Arc::new(TcpNet), tls, Arc::new(SystemClock)).await;
        let net = Arc::new(net.expect("good files"));
        self.net = Some(net.clone());
        let env = Env {
            clock: Arc::new(SystemClock),
            disk: self.disk.clone(),
            net: net as Arc<dyn Net>,
            seed: 1,
            log_lines_lost: || 0,
        };
        let (ready, is_ready) = oneshot::channel();
        let stop = CancellationToken::new();
        let running = ropewalk_node::run(self.config.clone(), env, stop.clone(), ready);
        self.running = Some((stop, tokio::spawn(running)));
        is_ready
    }

    /// Stops the node, and starts it with these settings on the same disk.
    pub async fn restart(&mut self, tls: &TlsSettings) {
        self.stop().await;
        start_all(std::slice::from_mut(self), tls).await;
    }

    pub async fn stop(&mut self) {
        let (stop, running) = self.running.take().expect("it runs");
        stop.cancel();
        let ended = timeout(PATIENCE, running).await.expect("ends in time");
        ended.expect("no panic").expect("a clean end");
    }
}

/// Waits until every partition of the topic has a leader and all its replicas are in sync.
pub async fn healthy(client: &Client, topic: &str, replicas: usize) {
    let admin = client.admin();
    let waiting = async {
        loop {
            if let Ok(Some(info)) = admin.topic(topic).await
                && info.partitions.iter().all(|partition| {
                    partition.leader_node_id.is_some()
                        && partition.in_sync_node_ids.len() == replicas
                })
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("healthy in time");
}
