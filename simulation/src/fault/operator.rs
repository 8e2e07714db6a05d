//! The operator: a client host that carries out orders. It also surveys the cluster all the time, so that the
//! injector knows which faults the cluster can take.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ropewalk_client::{Admin, Client, Error, NodeState, PartitionInfo};
use tokio::time::{sleep, timeout};
use turmoil::Sim;

use crate::cluster::{self, Cluster};

use super::fault_budget::REPLICAS;
use super::operations::Operations;

/// Name of its host.
const HOST: &str = "desk";
/// Pause between two surveys.
const PAUSE: Duration = Duration::from_millis(500);
/// Timeout of one survey, and of one attempt to carry out an order.
const BOUND: Duration = Duration::from_secs(5);
/// Attempts for an order.
const PATIENCE: u32 = 3;

/// An order to carry out.
#[derive(Debug, Clone)]
pub(super) enum Order {
    /// An operation, if it is possible.
    Do(Operations),
    /// The same, as a part of a fault.
    Provoke(Operations),
    /// Activate a node again, with as many attempts as it takes, unless it has left.
    Restore(usize),
}

/// Result of one survey.
#[derive(Debug, Clone, Default)]
pub(super) struct Survey {
    /// Its start.
    pub at: Duration,
    /// Metadata index of the node that answered.
    metadata_index: u64,
    /// Nodes that have not left, by address.
    pub nodes: BTreeMap<String, Seen>,
    /// Ids of nodes that have left.
    pub removed: BTreeSet<u64>,
    /// True if every partition has a leader and all its replicas in sync, and the metadata group has enough
    /// voters to lose one, all alive.
    pub whole: bool,
    /// Fewest replicas of a partition; 0 if there is none.
    pub fewest_replicas: usize,
    partitions: Vec<Partition>,
}

/// One node in a survey.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// Its id.
    pub id: u64,
    /// True if it is alive.
    pub alive: bool,
    /// True if it is neither drained nor leaving.
    pub active: bool,
}

#[derive(Debug, Clone)]
struct Partition {
    topic: String,
    number: u32,
    leader: u64,
    replicas: Vec<u64>,
}

/// State shared with the host.
#[derive(Debug, Default)]
struct Shared {
    orders: Mutex<VecDeque<Order>>,
    busy: Mutex<bool>,
    survey: Mutex<Survey>,
    done: Mutex<Vec<&'static str>>,
}

/// The operator.
#[derive(Debug, Default)]
pub(super) struct Operator {
    shared: Arc<Shared>,
    begun: bool,
}

impl Operator {
    /// Starts the host on the first call.
    pub fn begin(&mut self, sim: &mut Sim<'_>, cluster: &Cluster, seed: u64) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let (shared, addresses) = (self.shared.clone(), cluster.addresses());
        sim.client(HOST, async move {
            let client = connect(&addresses, seed).await;
            let admin = client.admin();
            loop {
                if let Ok(Ok(survey)) = timeout(BOUND, look(&admin)).await {
                    shared.take(survey);
                }
                let next = shared.orders.lock().pop_front();
                if let Some(order) = next {
                    *shared.busy.lock() = true;
                    shared.carry_out(&admin, order).await;
                    *shared.busy.lock() = false;
                }
                sleep(PAUSE).await;
            }
        });
    }

    /// Adds an order.
    pub fn order(&self, order: Order) {
        self.shared.orders.lock().push_back(order);
    }

    /// Drops the orders that are optional.
    pub fn drop_orders(&self) {
        let mut orders = self.shared.orders.lock();
        orders.retain(|order| matches!(order, Order::Restore(_)));
    }

    /// True if no order is left.
    pub fn is_idle(&self) -> bool {
        self.shared.orders.lock().is_empty() && !*self.shared.busy.lock()
    }

    /// The last survey.
    pub fn survey(&self) -> Survey {
        self.shared.survey.lock().clone()
    }

    /// Kinds of the operations carried out since the last call.
    pub fn take_done(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.shared.done.lock())
    }
}

impl Survey {
    /// A node in the survey, by its number.
    pub fn node(&self, cluster: &Cluster, number: usize) -> Option<&Seen> {
        self.at(cluster.name(number))
    }

    /// A node in the survey, by the name of its host; its port may have changed.
    fn at(&self, host: &str) -> Option<&Seen> {
        let mut nodes = self.nodes.iter();
        let found = nodes.find(|(address, _)| {
            address
                .rsplit_once(':')
                .is_some_and(|(name, _)| name == host)
        });
        found.map(|(_, seen)| seen)
    }

    /// True if the survey has every node of the cluster, active and alive.
    pub fn all_alive(&self, cluster: &Cluster) -> bool {
        let known = (0..cluster.len()).map(|number| self.node(cluster, number));
        self.nodes.values().all(|node| node.alive)
            && known.flatten().filter(|node| node.active).count() == cluster.len()
    }
}

impl Shared {
    /// Takes over a survey, unless the node that answered lags behind: such a node does not know the latest
    /// changes.
    fn take(&self, survey: Survey) {
        let mut last = self.survey.lock();
        if survey.metadata_index >= last.metadata_index {
            *last = survey;
        }
    }

    async fn carry_out(&self, admin: &Admin, order: Order) {
        let survey = self.survey.lock().clone();
        match order {
            Order::Do(operation) => {
                if self.attempt(admin, &survey, &operation).await {
                    self.done.lock().push(operation.kind());
                }
            }
            Order::Provoke(operation) => {
                self.attempt(admin, &survey, &operation).await;
            }
            Order::Restore(node) => {
                let Some(id) = id_of(&survey, node) else {
                    // It has left, or is not known yet.
                    return;
                };
                let restored = admin.set_node_state(id, NodeState::Active);
                if !matches!(timeout(BOUND, restored).await, Ok(Ok(()))) {
                    self.orders.lock().push_back(Order::Restore(node));
                }
            }
        }
    }

    /// Tries an operation a few times. True if it was carried out.
    async fn attempt(&self, admin: &Admin, survey: &Survey, operation: &Operations) -> bool {
        for _ in 0..PATIENCE {
            match timeout(BOUND, operate(admin, survey, operation)).await {
                Ok(Some(Ok(()))) => return true,
                Ok(Some(Err(error))) => tracing::debug!(?operation, %error, "refused"),
                Ok(None) => return false,
                Err(_) => tracing::debug!(?operation, "no answer"),
            }
            sleep(PAUSE).await;
        }
        false
    }
}

/// Carries out an operation; `None` if its target does not exist.
async fn operate(
    admin: &Admin,
    survey: &Survey,
    operation: &Operations,
) -> Option<Result<(), Error>> {
    let partition = |number: usize| {
        let count = survey.partitions.len();
        (count > 0).then(|| &survey.partitions[number % count])
    };
    Some(match operation {
        Operations::Transfer {
            partition: number,
            replica,
        } => {
            let one = partition(*number)?;
            let others = one.replicas.iter().filter(|node| **node != one.leader);
            let others: Vec<u64> = others.copied().collect();
            let to = *others.get(replica % others.len().max(1))?;
            admin.transfer_leader(&one.topic, one.number, to).await
        }
        Operations::Move {
            partition: number,
            first,
        } => {
            let one = partition(*number)?;
            let active = survey.nodes.values().filter(|node| node.active);
            let active: Vec<u64> = active.map(|node| node.id).collect();
            let around = active.iter().cycle().skip(*first);
            let to = around.take(one.replicas.len().min(active.len()));
            let to: Vec<u64> = to.copied().collect();
            let moves = to.iter().any(|node| !one.replicas.contains(node));
            if !moves {
                return None;
            }
            admin.move_partition(&one.topic, one.number, to).await
        }
        Operations::Drain { node } => {
            let id = id_of(survey, *node)?;
            admin.set_node_state(id, NodeState::Draining).await
        }
        Operations::Decommission { node } => {
            let id = id_of(survey, *node)?;
            admin.set_node_state(id, NodeState::Decommissioning).await
        }
        Operations::Join => return None,
    })
}

fn id_of(survey: &Survey, node: usize) -> Option<u64> {
    let name = cluster::node_name(node);
    survey.at(&name).map(|seen| seen.id)
}

async fn look(admin: &Admin) -> Result<Survey, Error> {
    let at = turmoil::sim_elapsed().unwrap_or_default();
    let status = admin.cluster_status().await?;
    let topics = admin.topics().await?;
    let mut survey = Survey {
        at,
        metadata_index: status.metadata_index,
        removed: status.removed_node_ids.into_iter().collect(),
        ..Survey::default()
    };
    for node in status.nodes {
        let seen = Seen {
            id: node.node_id,
            alive: node.alive,
            active: node.state == NodeState::Active,
        };
        survey.nodes.insert(node.address, seen);
    }
    let voters = &status.metadata_voter_node_ids;
    let alive = |voter| {
        survey
            .nodes
            .values()
            .any(|node| node.id == voter && node.alive)
    };
    survey.whole = voters.len() >= REPLICAS && voters.iter().copied().all(alive);
    for topic in &topics {
        for one in &topic.partitions {
            survey.whole &= is_whole(one);
            survey.partitions.push(Partition {
                topic: topic.name.clone(),
                number: one.partition,
                leader: one.leader_node_id.unwrap_or(0),
                replicas: one.replica_node_ids.clone(),
            });
        }
    }
    let replicas = survey.partitions.iter().map(|one| one.replicas.len());
    survey.fewest_replicas = replicas.min().unwrap_or(0);
    Ok(survey)
}

fn is_whole(one: &PartitionInfo) -> bool {
    let in_sync = |node| one.in_sync_node_ids.contains(node);
    one.leader_node_id.is_some()
        && !one.replica_node_ids.is_empty()
        && one.replica_node_ids.iter().all(in_sync)
}

async fn connect(addresses: &[String], seed: u64) -> Client {
    loop {
        let connecting = Client::builder(addresses.to_vec())
            .connector(|address| async move { turmoil::net::TcpStream::connect(address).await })
            .clock(|| turmoil::since_epoch().map_or(0, |time| time.as_millis() as i64))
            .seed(seed.rotate_left(29))
            .connect();
        match connecting.await {
            Ok(client) => return client,
            Err(_) => sleep(PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_that_lags_says_of_the_cluster_is_not_believed() {
        let shared = Shared::default();
        let survey = |metadata_index, removed: &[u64]| Survey {
            metadata_index,
            removed: removed.iter().copied().collect(),
            ..Survey::default()
        };
        shared.take(survey(9, &[4]));
        shared.take(survey(7, &[]));
        assert_eq!(shared.survey.lock().removed, BTreeSet::from([4]));
        shared.take(survey(9, &[4, 5]));
        assert_eq!(shared.survey.lock().removed, BTreeSet::from([4, 5]));
    }
}
