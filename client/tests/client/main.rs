//! The client against a scripted cluster in this process, over real connections.

#![allow(clippy::unwrap_used)] // a test that is surprised fails

mod errors;
mod events;
mod fake;
mod filters;
mod group;
mod producer_batches;
mod producer_limits;
mod producer_retries;
mod producer_rings;
mod reader;
mod recreated;
mod unreadable;
