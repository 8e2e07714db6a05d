//! The formats of everything that Ropewalk sends or stores. They are record batches, ids, Raft commands,
//! the error table, the mapping of keys to partitions, header names, the trace context, and the gRPC
//! messages.
//!
//! Pure: nothing here does I/O, reads the time or draws a random number.

#![warn(missing_docs, rustdoc::private_intra_doc_links)]

pub mod batch;
pub mod command;
pub mod error;
pub mod headers;
pub mod ids;
pub mod partitioner;
pub mod planted_bug;
pub mod shape;
#[cfg(feature = "grpc")]
pub mod status;
pub mod trace;
pub mod units;

/// The gRPC messages, and with the feature `grpc` the services, generated from `proto/ropewalk/v1/*.proto`.
#[allow(missing_debug_implementations, missing_docs, clippy::all)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/ropewalk.v1.rs"));
}
