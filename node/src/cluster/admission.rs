//! The judgement of a registration before it is proposed, by the node that leads the metadata group: it
//! knows which nodes live. [`super::nodes`] applies what comes of it, and knows nothing of time.
//!
//! One address, one node: a new node gets a place only where its address leads to it, be it that of a dead
//! one or of nobody. A node that has moved may be at an address that the metadata has for nobody. One identity,
//! one process: a start that lives keeps its place against a copy.

use std::time::Duration;

use ropewalk_proto::command::IDENTITY_SINCE_VERSION;
use ropewalk_proto::error::WireError;
use ropewalk_proto::ids::NodeId;
use ropewalk_proto::mistake::{Mistake, made};
use ropewalk_proto::v1::{HelloAnswer, MetaNode, NodeState, RegisterNode};
use tokio::time::timeout;

use super::formation::hello;
use super::machine::{address_of, state_of};
use super::shared::{Meta, Shared};
use super::{naming, nodes};

/// Bound of one question to an address.
const PROBE_WITHIN: Duration = Duration::from_secs(1);

/// Refuses a registration that would take a living node's address or identity, and fills in what the
/// command says of either, as far as every node understands it.
pub(super) async fn admit(
    shared: &Shared,
    meta: &Meta,
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
            match address_of(&node) == command.address {
                true => Ok(()),
                false => check_move(shared, &holders, command).await,
            }
        }
        None => {
            let dead = check_newcomer(shared, &holders, command).await?;
            command.in_place_of = told.then_some(dead.0);
            Ok(())
        }
    }
}

type Known = (NodeId, MetaNode);

/// The node that registers, if it is known; the others at its address; and what all nodes understand.
fn look(meta: &Meta, command: &RegisterNode) -> (Option<Known>, Vec<Known>, u32) {
    let machine = meta.state.machine();
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

/// Another start of the node that answers where the node is known to be keeps its place.
async fn check_start(
    shared: &Shared,
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

/// A node that is known and has moved must be reached where it says it is, if another was there.
async fn check_move(
    shared: &Shared,
    holders: &[Known],
    command: &RegisterNode,
) -> Result<(), WireError> {
    let Some((holder, _)) = holders.first() else {
        return Ok(());
    };
    match leads_to(shared, command).await {
        true => Ok(()),
        false => Err(nodes::address_in_use(*holder, command)),
    }
}

/// The dead node whose place a new one takes; 0 if the address is free. Nobody reaches a node elsewhere than
/// at its address: replicas there would be lost from the beginning.
async fn check_newcomer(
    shared: &Shared,
    holders: &[Known],
    command: &RegisterNode,
) -> Result<NodeId, WireError> {
    let first = holders.first().map(|(id, _)| *id);
    if let Some(first) = first
        && made(Mistake::AddressTakenOver)
    {
        return Ok(first);
    }
    let living = holders.iter().find(|(id, _)| shared.leaders.may_live(*id));
    if let Some((holder, _)) = living {
        return Err(nodes::address_in_use(*holder, command));
    }
    match (leads_to(shared, command).await, first) {
        (true, first) => Ok(first.unwrap_or(NodeId(0))),
        (false, Some(holder)) => Err(nodes::address_in_use(holder, command)),
        (false, None) => Err(nodes::not_at_its_address(command)),
    }
}

/// True if the node that registers answers at the address it names.
async fn leads_to(shared: &Shared, command: &RegisterNode) -> bool {
    let answer = probe(shared, &command.address).await;
    answer.is_some_and(|answer| answer.incarnation == command.incarnation)
}

async fn probe(shared: &Shared, address: &str) -> Option<HelloAnswer> {
    if address == shared.config.advertise {
        return Some(shared.introduction());
    }
    timeout(PROBE_WITHIN, hello(shared, address))
        .await
        .ok()?
        .ok()
}
