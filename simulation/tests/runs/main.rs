//! Runs of the simulator that show one thing each. One program, since each is linked with all of the node.

mod compaction;
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
