//! TLS as clients and nodes both need it: certificates in files that are read again when they change,
//! a handshake on a stream that somebody else opened, and errors that say what is wrong and what to do.
//!
//! Sockets, ports, and when to fall back to plain bytes belong to the node and the client; they must
//! not come in here. Nor may system roots: whom to trust is always named.

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
