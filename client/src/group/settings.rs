//! Settings of a member, its commands, and its ways to end.

use std::time::Duration;

use ropewalk_proto::error::{ErrorCode, Retry};
use tokio::time::Instant;

use super::commit::Waiter;
use super::session::Refused;
use crate::error::Error;
use crate::record::Offset;

/// Settings that a member joins with and follows.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub group: String,
    pub topics: Vec<String>,
    pub pattern: String,
    pub instance_id: String,
    pub client: String,
    /// Requested session timeout; none for the node's default.
    pub session_timeout: Option<Duration>,
    pub rebalance_timeout: Duration,
    pub from: Offset,
    pub auto_commit: Option<Duration>,
    pub max_poll_interval: Duration,
}

/// A command of the application.
#[derive(Debug)]
pub(super) enum Command {
    Commit(Option<Waiter>),
    /// Closes the member. `leave` overrides the default, which is that only members without an instance id
    /// leave.
    Close {
        leave: Option<bool>,
        reply: Waiter,
    },
}

/// A member that is closing.
#[derive(Debug)]
pub(super) struct Closing {
    pub leave: bool,
    pub until: Instant,
    pub reply: Option<Waiter>,
    /// Reason for the close, or the first failure during it.
    pub error: Option<Error>,
}

/// End of a session.
#[derive(Debug)]
pub(super) enum End {
    /// The member left as intended.
    Left,
    /// The member can continue, here or through another node.
    Broke(Refused),
    /// The coordinator no longer knows the member.
    Unknown(Error),
    Fatal(Error),
}

/// Maps a refusal to the end of the session.
pub(super) fn end_of(refused: Refused) -> End {
    match refused.error.code().map(ErrorCode::retry) {
        _ if refused.error.code() == Some(ErrorCode::UnknownMember) => End::Unknown(refused.error),
        Some(Retry::Never) => End::Fatal(refused.error),
        _ if refused.error.is_retryable() => End::Broke(refused),
        _ => End::Fatal(refused.error),
    }
}
