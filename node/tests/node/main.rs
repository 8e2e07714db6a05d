//! Tests of nodes through their public ports. They are one program, since each program links the whole node.

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
mod supervised;
mod topic_ids;
mod tracing;
mod unpacking;
