//! The address of a node that a client gets. A client of the external listener cannot reach the addresses
//! that nodes use among themselves.
//!
//! Every answer passes through here, and leaves with the addresses that its client can use. Everything inside
//! the node knows only the internal address.

use futures_util::TryStreamExt;
use ropewalk_proto::v1;

use super::AnswerStream;

/// Listener through which the clients of a service connect.
#[derive(Debug, Clone, Copy)]
pub(super) enum Audience {
    Inside,
    Outside,
}

/// An answer on a stream that may carry an error with the leader.
pub(super) trait Redirects {
    fn error(&mut self) -> Option<&mut v1::Error>;
}

impl Audience {
    /// Replaces the node's address by the one that this audience can reach. Returns `None` if there is no
    /// such address, because a wrong address is worse than none.
    pub(super) fn reach(self, mut node: v1::NodeInfo) -> Option<v1::NodeInfo> {
        match self {
            Audience::Inside => Some(node),
            Audience::Outside if node.external.is_empty() => None,
            Audience::Outside => {
                node.address.clone_from(&node.external);
                Some(node)
            }
        }
    }

    /// Replaces the leader's address in every answer of a stream.
    pub(super) fn redirect<T: Redirects + 'static>(
        self,
        answers: AnswerStream<T>,
    ) -> AnswerStream<T> {
        match self {
            Audience::Inside => answers,
            Audience::Outside => Box::pin(answers.map_ok(move |mut answer| {
                if let Some(error) = answer.error() {
                    error.leader = error.leader.take().and_then(|node| self.reach(node));
                }
                answer
            })),
        }
    }
}

impl Redirects for v1::GroupResponse {
    fn error(&mut self) -> Option<&mut v1::Error> {
        match self.kind.as_mut()? {
            v1::group_response::Kind::Error(error) => Some(error),
            _ => None,
        }
    }
}
