//! Whole clusters of the real node code in virtual time: the same `node::run` as the binary's, over
//! turmoil's network and a disk that can lose power.

pub mod ask;
pub mod clock;
pub mod cluster;
pub mod net;
