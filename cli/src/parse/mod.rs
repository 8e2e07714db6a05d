//! What people type: durations, sizes, addresses, places in a log. Each reads one way everywhere,
//! on the command line, in the environment and in the config file. No I/O and no clock here.

mod name;
mod quantity;
mod record;
mod start;

pub use name::{Address, HeaderArg, PartitionName, Setting};
pub use quantity::{Rate, duration, rate, retention_size, retention_time, size};
pub use record::{Piece, RecordFormat, TopicPattern};
pub use start::StartAt;
