//! Facts about nodes that the machine and the leader's admission of registrations share: the refusals, and the
//! metadata of a node after its registration.

use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::NodeId;
use ropewalk_proto::v1::{MetaNode, NodeInfo, NodeState, RegisterNode};

use super::machine::state_of;

/// Length of a node's incarnation in bytes.
pub const INCARNATION_BYTES: usize = 16;

/// The refusal of a node that was removed. It may not know of its removal, since the others no longer contact
/// it.
pub fn removed(id: NodeId) -> WireError {
    WireError::new(
        ErrorCode::NodeRemoved,
        format!(
            "node {id} was removed from this cluster; to use the machine again, stop it, empty \
             its data directory and start it as a new node"
        ),
    )
}

/// The refusal of a process while another one runs under the node's identity, or after one has. Its data
/// directory is a copy, or an older state of the node's own.
pub fn started_twice(id: NodeId, address: &str) -> WireError {
    WireError::new(
        ErrorCode::StartedTwice,
        format!(
            "node {id} runs at {address} already, or has run there since: this data directory is \
             a copy or an older state (a restored backup), lacks the node's later changes, and \
             never runs again; to use the machine, empty the directory and start it as a new node"
        ),
    )
}

/// The refusal of an address that belongs to another node.
pub fn address_in_use(holder: NodeId, command: &RegisterNode) -> WireError {
    let incarnation = beginning_of(&command.incarnation);
    let address = &command.address;
    WireError::new(
        ErrorCode::AddressInUse,
        format!(
            "address {address} belongs to node {holder}, which is alive or may return, and the \
             node of incarnation {incarnation}… cannot have it: give that node an --advertise of \
             its own; to replace node {holder}, stop it and start the new node where {address} \
             leads"
        ),
    )
}

/// The refusal of a new node that does not answer at its registered address.
pub fn not_at_its_address(command: &RegisterNode) -> WireError {
    let incarnation = beginning_of(&command.incarnation);
    let address = &command.address;
    WireError::new(
        ErrorCode::AddressInUse,
        format!(
            "address {address} does not lead to the node of incarnation {incarnation}…, which \
             registers it: give that node an --advertise at which the other nodes reach it"
        ),
    )
}

/// The refusal of a registration that differs from the node's own.
pub fn says_otherwise(command: &RegisterNode) -> WireError {
    let incarnation = beginning_of(&command.incarnation);
    let address = &command.address;
    WireError::new(
        ErrorCode::InvalidRequest,
        format!(
            "registration of incarnation {incarnation}… was refused because it differs from what \
             the node at {address} reports about itself; a node registers by itself when it starts"
        ),
    )
}

/// The refusal of a node with an older command version than the cluster may have written.
pub fn too_old(command: &RegisterNode, understood: u32) -> WireError {
    let (version, known) = (&command.version, command.command_version);
    WireError::new(
        ErrorCode::UnsupportedVersion,
        format!(
            "node at {} is of version {version} and understands commands up to version {known}; \
             all nodes of this cluster understand version {understood}, which would stop it: \
             start it with the same version as the other nodes",
            command.address
        ),
    )
}

/// The first bytes of an incarnation, for messages and logs.
fn beginning_of(incarnation: &[u8]) -> String {
    let bytes = incarnation.iter().take(4);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

/// The description of a node, by its registration.
pub(super) fn info_of(id: NodeId, command: &RegisterNode, state: NodeState) -> NodeInfo {
    NodeInfo {
        node_id: id.0,
        address: command.address.clone(),
        http: command.http.clone(),
        rack: command.rack.clone(),
        state: state.into(),
        version: command.version.clone(),
        external: command.external.clone().unwrap_or_default(),
    }
}

/// The metadata of a known node after its registration.
pub fn refreshed(node: &MetaNode, id: NodeId, command: &RegisterNode) -> MetaNode {
    let before = node.info.as_ref().map_or("", |info| &info.external);
    MetaNode {
        info: Some(NodeInfo {
            external: command.external.as_deref().unwrap_or(before).to_owned(),
            ..info_of(id, command, state_of(node))
        }),
        start: command.start.or(node.start),
        command_version: command.command_version,
        ..node.clone()
    }
}
