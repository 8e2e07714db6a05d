//! Free ports on loopback.

use std::net::TcpListener;

/// A port that no process listens on now.
pub fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
