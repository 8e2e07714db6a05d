//! User input: durations, sizes, addresses, positions in a log. The syntax is the same on the command line,
//! in the environment and in the config file. This module must not do I/O or read a clock.

mod name;
mod quantity;
mod record;
mod start;

pub use name::{Address, HeaderArg, PartitionName, Setting};
pub use quantity::{Rate, duration, rate, retention_size, retention_time, size};
pub use record::{Piece, RecordFormat, TopicPattern};
pub use start::StartAt;
