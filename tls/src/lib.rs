//! TLS for clients and nodes. Certificates are in files, and are reloaded when the files change. The
//! handshake runs on a stream that the caller has opened. Errors name the fault and the next step.
//!
//! Sockets, ports, and the fallback to plain bytes belong to the node and the client, and must never come
//! in here. Nor may system roots: the trusted CAs are always named.

mod dial;
mod error;
mod files;
mod material;
mod peer;
mod prefixed;
mod reloader;

pub use dial::{Dialed, dial};
pub use error::{Fault, TlsError};
pub use files::TlsFiles;
pub use material::{Acceptors, Certificates, ClientAuth};
pub use peer::PeerCertificate;
pub use prefixed::Prefixed;
pub use reloader::CertificateReloader;
