//! A Ropewalk cluster of real processes, and the flights it carries in the demonstration. The tests
//! of the command kill and restart their nodes through the same [`cluster`].

pub mod build;
pub mod check;
pub mod cluster;
pub mod flights;
pub mod publish;
pub mod read;
