//! Admission of registrations by the leader of the metadata group, before it proposes them. The leader knows
//! which nodes are alive. The entity `node` of `ropewalk_machines::meta` applies
//! the command and knows nothing of time.
//!
//! **A registration changes only what the node itself says at the address that it names.** The leader asks
//! there before it proposes. A call alone moves no node and changes neither its version nor its external
//! address. One address belongs to one node: a new node may take a free address, or that of a dead node. One
//! identity belongs to one process: a start that is alive keeps its place against a copy.

use std::time::Duration;

use ropewalk_machines::meta::machine::{address_of, state_of};
use ropewalk_machines::meta::nodes;
use ropewalk_proto::command::IDENTITY_SINCE_VERSION;
use ropewalk_proto::error::WireError;
use ropewalk_proto::ids::NodeId;
use ropewalk_proto::planted_bug::{PlantedBug, is_planted};
use ropewalk_proto::v1::{HelloAnswer, MetaNode, NodeState, RegisterNode};
use tokio::time::timeout;

use super::bootstrap::hello;
use super::context::{ClusterContext, MetadataReplica};
use super::naming;

/// Maximum time for one question to an address.
const PROBE_WITHIN: Duration = Duration::from_secs(1);

/// Refuses a registration that would take a living node's address or identity. Sets the command's fields
/// about both, if every node understands them.
pub(super) async fn admit(
    shared: &ClusterContext,
    meta: &MetadataReplica,
    command: &mut RegisterNode,
) -> Result<(), WireError> {
    naming::check_registration(command)?;
    let (known, holders, understood) = look(meta, command);
    let told = understood >= IDENTITY_SINCE_VERSION;
    command.in_place_of = None;
    if !told {
        command.start = None;
    }
    match known {
        Some((_, node)) if state_of(&node) == NodeState::Removed => Ok(()),
        Some((id, node)) => {
            check_start(shared, id, &node, command).await?;
            if nodes::refreshed(&node, id, command) == node {
                return Ok(());
            }
            check_version(command, understood)?;
            let holder = holders.first().map(|(holder, _)| *holder);
            check_at_address(shared, command, holder).await
        }
        None => {
            check_version(command, understood)?;
            let dead = check_newcomer(shared, &holders, command).await?;
            command.in_place_of = told.then_some(dead.0);
            Ok(())
        }
    }
}

type Known = (NodeId, MetaNode);

/// The registering node, if it is known; the other nodes at its address; and the lowest command version of
/// all nodes.
fn look(meta: &MetadataReplica, command: &RegisterNode) -> (Option<Known>, Vec<Known>, u32) {
    let machine = meta.view.machine();
    let (mut known, mut holders) = (None, Vec::new());
    for (id, node) in machine.nodes() {
        if node.incarnation == command.incarnation {
            known = Some((id, node.clone()));
        } else if address_of(node) == command.address && state_of(node) != NodeState::Removed {
            holders.push((id, node.clone()));
        }
    }
    let understood = machine
        .oldest_understood()
        .map_or(0, |(_, version)| version);
    (known, holders, understood)
}

/// Refuses a second start of a node while its known start answers at the node's known address.
async fn check_start(
    shared: &ClusterContext,
    id: NodeId,
    node: &MetaNode,
    command: &RegisterNode,
) -> Result<(), WireError> {
    let (Some(known), Some(told)) = (node.start, command.start) else {
        return Ok(());
    };
    if known == told {
        return Ok(());
    }
    let answer = probe(shared, address_of(node)).await;
    let lives = answer.is_some_and(|answer| {
        answer.incarnation == command.incarnation && answer.start == Some(known)
    });
    match lives {
        true => Err(nodes::started_twice(id, address_of(node))),
        false => Ok(()),
    }
}

/// Refuses a node with a lower command version than every node of the cluster. It would stop at a command
/// that the log may already hold, and it would block newer commands for the others.
fn check_version(command: &RegisterNode, understood: u32) -> Result<(), WireError> {
    match command.command_version < understood {
        true => Err(nodes::too_old(command, understood)),
        false => Ok(()),
    }
}

/// The dead node that a new node replaces; 0 if the address is free. The new node must answer at its address:
/// peers reach it only there, and replicas placed on an unreachable node are lost from the start.
async fn check_newcomer(
    shared: &ClusterContext,
    holders: &[Known],
    command: &RegisterNode,
) -> Result<NodeId, WireError> {
    let first = holders.first().map(|(id, _)| *id);
    if let Some(first) = first
        && is_planted(PlantedBug::AddressTakenOver)
    {
        return Ok(first);
    }
    let living = holders.iter().find(|(id, _)| shared.leaders.may_live(*id));
    if let Some((holder, _)) = living {
        return Err(nodes::address_in_use(*holder, command));
    }
    check_at_address(shared, command, first).await?;
    Ok(first.unwrap_or(NodeId(0)))
}

/// Asks at the address of a registration whether the node there sends the same registration. `holder` is
/// another node that has the address in the metadata.
async fn check_at_address(
    shared: &ClusterContext,
    command: &RegisterNode,
    holder: Option<NodeId>,
) -> Result<(), WireError> {
    let answer = probe(shared, &command.address).await;
    let answer = answer.filter(|answer| answer.incarnation == command.incarnation);
    match (answer, holder) {
        (Some(answer), _) if says(&answer, command) => Ok(()),
        (Some(_), _) => Err(nodes::says_otherwise(command)),
        (None, Some(holder)) => Err(nodes::address_in_use(holder, command)),
        (None, None) => Err(nodes::not_at_its_address(command)),
    }
}

/// True if the answering node's own registration matches the command. Nodes too old to send theirs pass, and
/// fields that the command leaves out match.
fn says(answer: &HelloAnswer, command: &RegisterNode) -> bool {
    let Some(own) = answer.registration.clone() else {
        return true;
    };
    let told = RegisterNode {
        external: command.external.clone().or(own.external.clone()),
        start: command.start.or(own.start),
        in_place_of: own.in_place_of,
        ..command.clone()
    };
    told == own
}

async fn probe(shared: &ClusterContext, address: &str) -> Option<HelloAnswer> {
    if address == shared.config.advertise {
        return Some(shared.introduction());
    }
    timeout(PROBE_WITHIN, hello(shared, address))
        .await
        .ok()?
        .ok()
}
