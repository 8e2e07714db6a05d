//! The store on its disks. One program, since each is linked with RocksDB.

#[macro_use]
mod support;

mod checkpoint_cost;
mod committer;
mod data_dir;
mod disk_contract;
mod openraft_suite;
mod rewrite;
mod rocks_crash;
mod rocks_damage;
mod rocks_manifest;
mod rocks_reclaim;
mod store_damage;
mod store_quarantine;
mod store_recovery;
