//! Consumer groups: the members of a group share the partitions of its topics, and resume from the committed
//! offsets.
//!
//! A subscription has two parts. The *member* (`member`, `session_loop`, `responses`, `session`) talks to the group's
//! coordinator: it joins, sends heartbeats and commits, and applies assignments (`apply`). The *stream*
//! (`stream`, `state`, `delivery`) hands out the records that the readers of the assigned partitions fetch.
//! The two meet in `shared`, behind one lock. Decisions are in small parts that know neither time nor
//! network: `assignment` (changes of the assignment), `progress` (the position to commit), `key_queues`
//! (the next record to handle), `commit` (the waiters).
//!
//! This module must not keep records of its own, or know how they are fetched: that is `reader`.

mod apply;
mod assigned_partition;
mod assignment;
mod builder;
mod commit;
mod delivery;
mod handle;
mod key_queues;
mod member;
mod progress;
mod readers;
mod rebalance;
mod responses;
mod run;
mod session;
mod session_loop;
mod settings;
mod shared;
mod state;
mod stream;

pub use builder::SubscriptionBuilder;
pub use delivery::Delivery;
pub use handle::SubscriptionHandle;
pub use rebalance::{Rebalance, TopicPartition};
pub use run::RunError;
pub use stream::Subscription;
