//! A Ropewalk cluster of real processes, and the flights of the demonstration. The tests of the `ropewalk`
//! command start and kill nodes through the same [`cluster`].

pub mod build;
pub mod check;
pub mod cluster;
pub mod flights;
pub mod publish;
pub mod read;
