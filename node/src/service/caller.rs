//! Origin of a request. Every operation gets it, so that permissions and quotas can depend on it. How a
//! connection is secured must not come in here.

use std::fmt;
use std::sync::Arc;

use ropewalk_proto::v1;

use crate::env::Remote;

/// Listener of this node that a request arrived at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// The listener for nodes, and for clients inside the cluster's network.
    Internal,
    /// The listener for clients outside the cluster's network.
    External,
}

/// Identity of a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// A caller that presented no certificate.
    Anonymous,
    /// Subject of the certificate that the caller presented, as in RFC 4514.
    Certificate(Arc<str>),
}

/// Origin of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Identity, as far as the connection proves one.
    pub principal: Principal,
    /// Listener that the request arrived at.
    pub listener: Listener,
    /// True if the caller can be a node of this cluster.
    pub is_peer: bool,
}

impl Listener {
    /// Replaces the node's address by the one that callers of this listener can reach. Returns `None` if there
    /// is no such address, because a wrong address is worse than none. All other code knows only the internal
    /// address.
    pub fn reach(self, mut node: v1::NodeInfo) -> Option<v1::NodeInfo> {
        match self {
            Listener::Internal => Some(node),
            Listener::External if node.external.is_empty() => None,
            Listener::External => {
                node.address.clone_from(&node.external);
                Some(node)
            }
        }
    }
}

impl Caller {
    /// Returns the origin of a request. The nodes' addresses, `host:port`, are those in the metadata. Without
    /// `remote`, nothing is known of the connection.
    pub fn new<'a>(
        listener: Listener,
        remote: Option<&Remote>,
        nodes: impl IntoIterator<Item = &'a str>,
    ) -> Caller {
        let certificate = remote.and_then(Remote::certificate);
        let subject = certificate.and_then(|certificate| certificate.subject());
        let is_a_nodes = certificate.map(|certificate| certificate.could_serve_at(nodes));
        Caller {
            principal: subject.map_or(Principal::Anonymous, |subject| {
                Principal::Certificate(subject.clone())
            }),
            listener,
            is_peer: remote.is_some() && can_be_a_node(listener, is_a_nodes),
        }
    }
}

/// True if a connection can be a node's. Nodes only dial internal listeners. A node's certificate permits
/// `serverAuth` and names the node's address, or its peers could not dial it.
///
/// Without a certificate, the listener decides alone. The address of a connection proves nothing: behind NAT or
/// in Kubernetes it is not the one that the node advertises.
fn can_be_a_node(listener: Listener, has_a_nodes_certificate: Option<bool>) -> bool {
    listener == Listener::Internal && has_a_nodes_certificate.unwrap_or(true)
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Listener::Internal => "internal",
            Listener::External => "external",
        })
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.principal {
            Principal::Anonymous => f.write_str("anonymous")?,
            Principal::Certificate(subject) => f.write_str(subject)?,
        }
        write!(f, " ({} listener)", self.listener)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_calls_an_internal_listener_with_a_nodes_certificate_or_none() {
        for (listener, certificate, expected) in [
            (Listener::Internal, None, true),
            (Listener::Internal, Some(true), true),
            (Listener::Internal, Some(false), false),
            (Listener::External, None, false),
            (Listener::External, Some(true), false),
        ] {
            let found = can_be_a_node(listener, certificate);
            assert_eq!(found, expected, "{listener} {certificate:?}");
        }
    }

    #[test]
    fn a_caller_without_a_certificate_is_anonymous() {
        let remote = Remote::of("10.0.0.1:1");
        let caller = Caller::new(Listener::External, Some(&remote), []);
        assert_eq!(caller.principal, Principal::Anonymous);
        assert_eq!(caller.to_string(), "anonymous (external listener)");
    }
}
