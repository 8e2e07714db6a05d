//! Operations that a client can ask for, without a transport.

mod caller;
pub mod forward;

pub use caller::{Caller, Listener};
