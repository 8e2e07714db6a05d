//! Who is told which address of a node: a client that came in by the external listener can't reach the
//! one that nodes use among themselves.
//!
//! Every answer leaves through here with the addresses its client can use; inside the node there is
//! only the one of its own kind.

use futures_util::TryStreamExt;
use ropewalk_proto::v1;

use super::AnswerStream;

/// By which listener the clients of a service came.
#[derive(Debug, Clone, Copy)]
pub(super) enum Audience {
    Inside,
    Outside,
}

/// An answer on a stream, which may say why not, and who leads.
pub(super) trait Redirects {
    fn error(&mut self) -> Option<&mut v1::Error>;
}

impl Audience {
    /// Puts the address there that this audience reaches the node at, if there is one: an address that
    /// leads nowhere, or somewhere else, is worse than none.
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

    /// Does so in every answer of a stream.
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

impl Redirects for v1::ProduceResponse {
    fn error(&mut self) -> Option<&mut v1::Error> {
        self.error.as_mut()
    }
}

impl Redirects for v1::FetchResponse {
    fn error(&mut self) -> Option<&mut v1::Error> {
        self.error.as_mut()
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
