//! Nodes whose connections are secured, and those who connect to them in the right way and in wrong
//! ones.

mod cluster;
mod external;
mod reload;
mod strangers;
mod support;

#[allow(dead_code, reason = "each user of it uses a part")]
#[path = "../../../tls/tests/certificates/mod.rs"]
mod certificates;
