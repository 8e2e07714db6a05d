//! Consumer groups: the members of a group share the partitions of its topics, and go on where the
//! group has left off.
//!
//! A subscription is two things side by side. The *member* (`member`, `attend`, `answers`,
//! `session`) talks to the group's coordinator: it joins, sends heartbeats and commits, and takes
//! assignments over (`apply`). The *stream* (`stream`, `state`, `delivery`) hands out what the
//! readers of the assigned partitions fetch. Both meet in `shared`, behind one lock. What there is to
//! decide stands in small parts that know neither time nor network: `assignment` (what changes),
//! `progress` (what may be committed), `lanes` (what may be handled next), `commit` (who waits).
//!
//! Nothing here keeps records of its own or knows how they are fetched: that is `reader`.

mod answers;
mod apply;
mod assignment;
mod attend;
mod builder;
mod commit;
mod delivery;
mod handle;
mod lanes;
mod member;
mod part;
mod progress;
mod readers;
mod rebalance;
mod run;
mod session;
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
