//! Calls that this node forwards to the node that can carry them out, and their mark.

use std::time::Duration;

use ropewalk_proto::error::WireError;
use ropewalk_proto::headers::{TRACEPARENT, TRACESTATE};
use ropewalk_proto::trace::TraceContext;
use ropewalk_proto::v1;
use ropewalk_proto::v1::ropewalk_client::RopewalkClient;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::Caller;

/// Mark of a forwarded call in its metadata. Such a call must not be forwarded again.
pub const FORWARDED: &str = "ropewalk-forwarded";
/// Timeout of a call forwarded to another node.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(10);

/// Another node of the cluster, for the calls that this node forwards to it.
pub(super) type OtherNode = RopewalkClient<Channel>;

/// Place where a call is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// The node that can carry it out.
    Anywhere,
    /// This node: another node has forwarded the call.
    Here,
}

impl Caller {
    /// Returns the route of a call. Only nodes may mark a call as forwarded; the mark of any other caller is
    /// ignored.
    pub fn route(&self, is_marked: bool) -> Route {
        match is_marked {
            true if self.is_peer => Route::Here,
            true => {
                tracing::debug!(caller = %self, "forwarding mark ignored: the caller is not a node");
                Route::Anywhere
            }
            false => Route::Anywhere,
        }
    }
}

/// Returns a call for another node, which carries it out itself.
pub(super) fn marked<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(FORWARD_TIMEOUT);
    let mark = MetadataValue::from_static("1");
    request.metadata_mut().insert(FORWARDED, mark);
    request
}

/// Adds the current span to a call to another node, or at least the trace that the request came with.
pub fn pass_on(trace: TraceContext, metadata: &mut MetadataMap) {
    let trace = TraceContext::current().unwrap_or(trace);
    let mut put = |name, text: &str| {
        if let Ok(text) = text.parse() {
            metadata.insert(name, text);
        }
    };
    put(TRACEPARENT, &trace.to_string());
    if let Some(state) = trace.state() {
        put(TRACESTATE, state);
    }
}

/// Publishes a record on the node that leads its partition.
pub(super) async fn publish(
    leader: Channel,
    record: v1::PublishRequest,
    trace: Option<TraceContext>,
) -> Result<v1::PublishResponse, WireError> {
    let mut request = marked(record);
    if let Some(trace) = trace {
        pass_on(trace, request.metadata_mut());
    }
    answer(OtherNode::new(leader).publish(request).await)
}

/// Returns the other node's answer.
pub(super) fn answer<T>(answer: Result<Response<T>, Status>) -> Result<T, WireError> {
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
        assert_eq!(caller(true).route(true), Route::Here);
        assert_eq!(caller(false).route(true), Route::Anywhere);
        assert_eq!(caller(true).route(false), Route::Anywhere);
    }
}
