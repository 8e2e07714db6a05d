//! The operations, step by step.

use std::time::Duration;

use anyhow::Context;
use ropewalk_client::NodeState;
use tokio::time::sleep;

use super::environment::{Ground, MOST_NODES};
use super::{Order, secure};
use crate::fault_kind::Kind;
use crate::machine::Machine;
use crate::schedule::Fault;

/// Time limit for a node to stop.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// Duration of a full disk.
const FULL_FOR: Duration = Duration::from_secs(15);
/// Time between the decommissioning of a node and its kill.
const INTO_IT: Duration = Duration::from_millis(500);
/// Duration of the step without an operation, which measures an undisturbed cluster.
const QUIET: Duration = Duration::from_secs(5);

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// No operation.
    Nothing,
    /// Every node is stopped and restarted with a newer build.
    Upgrade,
    /// Every node is restarted, one after the other.
    RollingRestart,
    /// Nodes accept TLS, and clients switch to it.
    TlsBoth,
    /// Nodes refuse plaintext.
    TlsOn,
    /// The CA is replaced.
    Certificates,
    /// Two nodes are added.
    Grow,
    /// One node's disk is full for a while.
    FullDisk,
    /// A node is decommissioned, killed meanwhile, and restarted before it has left.
    Decommission,
    /// A node is lost and does not come back.
    LostForEver,
}

impl Step {
    /// All steps, in their order.
    pub const ALL: [Step; 10] = [
        Step::Nothing,
        Step::Upgrade,
        Step::RollingRestart,
        Step::TlsBoth,
        Step::TlsOn,
        Step::Certificates,
        Step::Grow,
        Step::FullDisk,
        Step::Decommission,
        Step::LostForEver,
    ];

    /// Name of the step in tables.
    pub fn name(self) -> &'static str {
        match self {
            Step::Nothing => "nothing",
            Step::Upgrade => "upgrade",
            Step::RollingRestart => "rolling-restart",
            Step::TlsBoth => "tls-both",
            Step::TlsOn => "tls-on",
            Step::Certificates => "certificates",
            Step::Grow => "3-to-5",
            Step::FullDisk => "full-disk",
            Step::Decommission => "decommission",
            Step::LostForEver => "lost-for-ever",
        }
    }

    /// Runs the step. Returns a description.
    pub(super) async fn run(
        self,
        ground: &mut Ground,
        order: &Order,
        machine: &Machine,
    ) -> anyhow::Result<String> {
        match self {
            Step::Nothing => {
                sleep(QUIET).await;
                Ok(format!("{} nodes, left alone", ground.fleet.nodes.len()))
            }
            Step::Upgrade => {
                ground.fleet.set_binary(&order.binary);
                rolling_restart(ground).await
            }
            Step::RollingRestart => rolling_restart(ground).await,
            Step::TlsBoth => secure::both(ground).await,
            Step::TlsOn => secure::on(ground).await,
            Step::Certificates => secure::rotate(ground).await,
            Step::Grow => grow(ground).await,
            Step::FullDisk => full_disk(ground, machine).await,
            Step::Decommission => decommission(ground).await,
            Step::LostForEver => lost_for_ever(ground).await,
        }
    }
}

/// Restarts every node, each once the one before is back in sync.
pub(super) async fn rolling_restart(ground: &mut Ground) -> anyhow::Result<String> {
    let count = ground.fleet.nodes.len();
    for node in 0..count {
        ground.fleet.nodes[node].stop(STOP_WITHIN).await?;
        ground.fleet.nodes[node].spawn()?;
        ground.well().await?;
    }
    Ok(format!("SIGTERM and start of {count} nodes, one by one"))
}

async fn grow(ground: &mut Ground) -> anyhow::Result<String> {
    while ground.fleet.nodes.len() < MOST_NODES {
        ground.fleet.add().await?;
    }
    ground
        .until("every node leads partitions", |status| {
            let leading = status.nodes.iter().filter(|node| node.leaders > 0);
            leading.count() == MOST_NODES
        })
        .await?;
    Ok("two nodes joined, and got their share of replicas and leaderships".to_owned())
}

async fn full_disk(ground: &mut Ground, machine: &Machine) -> anyhow::Result<String> {
    if let Some(why) = Kind::DiskFull.missing(machine) {
        return Ok(format!("not done: {why}"));
    }
    let (node, _) = ground.busiest().await?;
    let fault = Fault {
        kind: Kind::DiskFull,
        nodes: vec![node],
        hold: FULL_FOR,
        draw: 0,
    };
    let (full, _) = ground.fleet.inject(fault).await?;
    sleep(FULL_FOR).await;
    ground.fleet.heal(full).await?;
    Ok(format!(
        "the busiest node had not a byte left for {FULL_FOR:?}"
    ))
}

async fn decommission(ground: &mut Ground) -> anyhow::Result<String> {
    let (node, id) = ground.busiest().await?;
    ground.set_state(id, NodeState::Decommissioning).await?;
    sleep(INTO_IT).await;
    ground.fleet.nodes[node].kill().await?;
    // The decommissioning is cancelled and then requested again.
    ground.set_state(id, NodeState::Active).await?;
    ground.fleet.nodes[node].spawn()?;
    ground.set_state(id, NodeState::Decommissioning).await?;
    until_removed(ground, id).await?;
    ground.fleet.nodes[node].kill().await?;
    Ok("the busiest was killed on its way out, recommissioned, started, and taken out".to_owned())
}

async fn lost_for_ever(ground: &mut Ground) -> anyhow::Result<String> {
    let (node, id) = ground.busiest().await?;
    ground.fleet.nodes[node].kill().await?;
    ground.set_state(id, NodeState::Decommissioning).await?;
    until_removed(ground, id).await?;
    Ok("SIGKILL of the busiest; its replicas were rebuilt on the others".to_owned())
}

async fn until_removed(ground: &mut Ground, id: u64) -> anyhow::Result<()> {
    let gone = ground.until("the node is out", |status| {
        status.removed_node_ids.contains(&id)
    });
    gone.await.context("taking a node out")
}
