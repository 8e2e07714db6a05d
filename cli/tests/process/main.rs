//! The command in real use: processes on this machine's loopback, killed and started again. Behaviour that
//! can be shown inside one process, or simulated, is tested there.

#![allow(clippy::unwrap_used)] // test helpers may panic

mod compaction;
mod copies;
mod crash;
mod damaged;
mod dev;
mod disks;
mod filters;
mod floods;
mod garbage;
mod group_topics;
mod groups;
mod identity;
mod interrupts;
mod joining;
mod otlp;
mod readme;
mod records;
mod recreated;
mod secure;
mod space;
mod starting;
mod support;
mod tracing;
mod upgrade;
mod usage;
mod wiped;

#[allow(dead_code, reason = "each user of it uses a part")]
#[path = "../../../tls/tests/certificates/mod.rs"]
mod certificates;
