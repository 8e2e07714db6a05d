//! Simulator runs that each show one thing. They are one program, since each program links the whole node.

mod compaction;
mod directory;
mod disk;
mod faults;
mod found;
mod groups;
mod log;
mod one_node_first;
mod rebalance;
mod runner;
mod sessions;
mod storm;
mod wrong_clock;
