//! The client against a scripted cluster in this process, over real connections.

#![allow(clippy::unwrap_used)] // tests may panic

mod errors;
mod events;
mod fake;
mod filters;
mod group;
mod producer_batches;
mod producer_limits;
mod producer_pace;
mod producer_retries;
mod producer_rings;
mod reader;
mod recreated;
mod unreadable;
