//! TLS for clients and nodes: certificates in files that are reloaded when they change, a handshake on a
//! stream that the caller has opened, and errors that name the fault and the next step.
//!
//! Sockets, ports, and the fallback to plain bytes belong to the node and the client, and must never come
//! in here. Nor may system roots: the trusted CAs are always named.

mod dial;
mod error;
mod files;
mod keeper;
mod material;
mod prefixed;

pub use dial::{Dialed, dial};
pub use error::{Fault, TlsError};
pub use files::TlsFiles;
pub use keeper::Keeper;
pub use material::{Acceptors, Certificates, ClientAuth};
pub use prefixed::Prefixed;
