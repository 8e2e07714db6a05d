//! Calls that this node forwards to the node that can carry them out, and their mark.

use std::time::Duration;

use ropewalk_proto::error::WireError;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Response, Status};

use super::Caller;

/// Mark of a forwarded call, which must not be forwarded again.
const FORWARDED: &str = "ropewalk-forwarded";
/// Timeout of a call forwarded to another node.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(10);

/// Place where a call is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// The node that can carry it out.
    Anywhere,
    /// This node: another node has forwarded the call.
    Here,
}

/// Returns the route of a call. Only nodes may mark a call as forwarded; the mark of any other caller is
/// ignored.
pub fn route(caller: &Caller, metadata: &MetadataMap) -> Route {
    match metadata.contains_key(FORWARDED) {
        true if caller.is_peer => Route::Here,
        true => {
            tracing::debug!(%caller, "forwarding mark ignored: the caller is not a node");
            Route::Anywhere
        }
        false => Route::Anywhere,
    }
}

/// Returns a call for another node, which carries it out itself.
pub fn marked<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(FORWARD_TIMEOUT);
    let mark = MetadataValue::from_static("1");
    request.metadata_mut().insert(FORWARDED, mark);
    request
}

/// Returns the other node's answer.
pub fn answer<T>(answer: Result<Response<T>, Status>) -> Result<T, WireError> {
    match answer {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) => Err(WireError::from(&status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Listener;
    use crate::service::caller::Principal;

    #[test]
    fn the_mark_of_a_caller_that_is_not_a_node_is_ignored() {
        let caller = |is_peer| Caller {
            principal: Principal::Anonymous,
            listener: Listener::Internal,
            is_peer,
        };
        let marked = marked(());
        assert_eq!(route(&caller(true), marked.metadata()), Route::Here);
        assert_eq!(route(&caller(false), marked.metadata()), Route::Anywhere);
        let unmarked = MetadataMap::new();
        assert_eq!(route(&caller(true), &unmarked), Route::Anywhere);
    }
}
