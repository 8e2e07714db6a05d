//! Nodes by their doors: what callers send, and what they are answered. One program, since each is linked
//! with all of the node.

mod support;

mod bad_input;
mod bounds;
mod damaged_node;
mod failed_disk;
mod filters;
mod forged;
mod group_room;
mod group_topics;
mod groups;
mod producers;
mod scrapes;
mod settings;
mod topic_ids;
mod tracing;
mod unpacking;
