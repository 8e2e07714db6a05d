//! Nodes with secured connections, and clients that connect to them with valid and invalid settings.

mod cluster;
mod external;
mod forwarded;
mod reload;
mod strangers;
mod support;

#[allow(dead_code, reason = "each user of it uses a part")]
#[path = "../../../tls/tests/certificates/mod.rs"]
mod certificates;
