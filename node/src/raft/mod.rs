//! One running replica of a Raft group, with any state machine. Partitions and the metadata group use the same
//! code.
//!
//! openraft elects leaders. The conditions of an election are in `config` (timeouts, pre-vote), and the first
//! election of a group in `founding`. `leadership` transfers the lead to another replica; the choice of that
//! replica is the caller's (`partition::balance`, `cluster::controller`).
//!
//! Topics, records, metadata and clients must never come in here. Callers decide which step to take, and word
//! the errors for their own clients.

mod config;
mod founding;
pub mod leadership;
mod membership;
mod propose;
mod replica;
mod replication_status;

pub use founding::{EagerElections, found, patience};
pub use membership::{FormerVoters, NotTaken, Step, take_step};
pub use propose::{Unanswered, propose};
pub use replica::{Replica, STOP_WITHIN, StartError};
pub use replication_status::{CatchUpBaseline, CaughtUp, ReplicationStatus};
