//! Library of the demo: a Ropewalk cluster of real processes, and the flights that the demo publishes. The tests
//! of the command-line program kill and restart their nodes through the same [`cluster`] module.

pub mod build;
pub mod check;
pub mod cluster;
pub mod flights;
pub mod publish;
pub mod read;
