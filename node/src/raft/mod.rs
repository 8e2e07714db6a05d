//! One running replica of a Raft group, with any state machine. Partitions and the metadata group use the same
//! code.
//!
//! Topics, records, metadata and clients must never come in here. Callers decide which step to take, and word
//! the errors for their own clients.

mod config;
mod founding;
mod group;
pub mod leadership;
mod membership;
mod propose;
mod replica;

pub use founding::{EagerElections, found, patience};
pub use group::{CaughtUp, Group, Pace};
pub use membership::{FormerVoters, NotTaken, Step, take_step};
pub use propose::{Unanswered, propose};
pub use replica::{Replica, STOP_WITHIN, StartError};
