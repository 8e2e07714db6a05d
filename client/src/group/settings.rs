//! How a member is to behave, what it is told to do, and how it may end.

use std::time::Duration;

use ropewalk_proto::error::{ErrorCode, Retry};
use tokio::time::Instant;

use super::commit::Waiter;
use super::session::Refused;
use crate::error::Error;
use crate::record::Offset;

/// What a member says of itself, and how it behaves.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub group: String,
    pub topics: Vec<String>,
    pub pattern: String,
    pub instance_id: String,
    pub client: String,
    /// What it asks for; none for what the node has as its default.
    pub session: Option<Duration>,
    pub rebalance_within: Duration,
    pub start_at: Offset,
    pub auto_commit: Option<Duration>,
    pub max_poll: Duration,
}

/// What the application asks of the member.
#[derive(Debug)]
pub(super) enum Command {
    Commit(Option<Waiter>),
    /// To end; whether also to leave, or as is usual for such a member.
    Close {
        leave: Option<bool>,
        reply: Waiter,
    },
}

/// A member on its way out.
#[derive(Debug)]
pub(super) struct Closing {
    pub leave: bool,
    pub until: Instant,
    pub reply: Option<Waiter>,
    /// Why it goes, or what went wrong on the way.
    pub error: Option<Error>,
}

/// How a session ended.
#[derive(Debug)]
pub(super) enum End {
    /// As it was meant to.
    Left,
    /// It can go on elsewhere, or again.
    Broke(Refused),
    /// The coordinator does not know the member any more.
    Unknown(Error),
    Fatal(Error),
}

/// Whether a refusal ends the session, and how.
pub(super) fn end_of(refused: Refused) -> End {
    match refused.error.code().map(ErrorCode::retry) {
        _ if refused.error.code() == Some(ErrorCode::UnknownMember) => End::Unknown(refused.error),
        Some(Retry::Never) => End::Fatal(refused.error),
        _ if refused.error.is_retryable() => End::Broke(refused),
        _ => End::Fatal(refused.error),
    }
}
