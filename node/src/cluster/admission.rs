//! The judgement of a registration before it is proposed, by the node that leads the metadata group: it
//! knows which nodes live. [`super::nodes`] applies what comes of it, and knows nothing of time.
//!
//! **A registration changes only what the node says of itself at the address it names**: the leader asks there
//! before it proposes. A call alone moves no node, gives it no other version and no other external address.
//! One address, one node: a new node may have the address of a dead one or of nobody. One identity, one
//! process: a start that lives keeps its place against a copy.

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
            if nodes::refreshed(&node, id, command) == node {
                return Ok(());
            }
            check_version(command, understood)?;
            let holder = holders.first().map(|(holder, _)| *holder);
            check_word(shared, command, holder).await
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

/// A node that understands less than all others do would stop at what the log may hold already, and would keep
/// the others from going on.
fn check_version(command: &RegisterNode, understood: u32) -> Result<(), WireError> {
    match command.command_version < understood {
        true => Err(nodes::too_old(command, understood)),
        false => Ok(()),
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
    check_word(shared, command, first).await?;
    Ok(first.unwrap_or(NodeId(0)))
}

/// Asks at the address of a registration whether the node there says the same of itself. `holder` is another
/// node that has the address in the metadata.
async fn check_word(
    shared: &Shared,
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

/// True if a node registers this, as far as it is new enough to say, and as far as the command tells it.
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

async fn probe(shared: &Shared, address: &str) -> Option<HelloAnswer> {
    if address == shared.config.advertise {
        return Some(shared.introduction());
    }
    timeout(PROBE_WITHIN, hello(shared, address))
        .await
        .ok()?
        .ok()
}
