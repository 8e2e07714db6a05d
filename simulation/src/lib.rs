//! Whole clusters of the real node code in virtual time: the same `supervise` as the binary's, over turmoil's
//! network and a data directory whose disk can lose power.
//!
//! A [`plan::Plan`] is drawn from a seed. [`run::run`] starts its clients ([`load`]) and its faults
//! ([`fault`]) on a [`cluster`] and records the clients' observations ([`history`]). At the end it evaluates
//! each invariant ([`check`]). [`runner`] runs many seeds, and [`trace`] shows the events of one run.

pub mod ask;
pub mod check;
pub mod clock;
pub mod cluster;
pub mod directory;
pub mod disk;
pub mod fault;
pub mod gate;
pub mod history;
pub mod load;
pub mod net;
pub mod observe;
pub mod plan;
pub mod process;
pub mod run;
pub mod runner;
pub mod trace;
pub mod virtual_time;
