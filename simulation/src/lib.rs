//! Whole clusters of the real node code in virtual time: the same `node::run` as the binary's, over
//! turmoil's network and a disk that can lose power.
//!
//! A [`plan::Plan`] is drawn from a seed; [`run::run`] lets its clients ([`load`]) and its faults
//! ([`fault`]) loose on a [`cluster`], writes down what clients see ([`history`]), and in the end
//! asks each invariant ([`check`]). [`runner`] runs many, and [`trace`] tells what happened in one.

pub mod ask;
pub mod check;
pub mod clock;
pub mod cluster;
pub mod disk;
pub mod fault;
pub mod gate;
pub mod history;
pub mod load;
pub mod look;
pub mod net;
pub mod plan;
pub mod process;
pub mod run;
pub mod runner;
pub mod trace;
pub mod virtual_time;
