//! The Ropewalk client: publish keyed records, and read them back in order.
//!
//! ```no_run
//! use futures_util::StreamExt;
//! use ropewalk_client::{Client, Record};
//!
//! # async fn example() -> ropewalk_client::Result<()> {
//! let client = Client::connect(["127.0.0.1:7101"]).await?;
//!
//! // Records of one key keep their order; the ticket says when one is on the disks of a majority.
//! let producer = client.producer("flights").build().await?;
//! let ticket = producer.send(Record::new().key("N14228").value("took off")).await?;
//! let receipt = ticket.await?;
//! producer.close().await?;
//!
//! // A reader is a stream of the records of one partition.
//! let mut reader = client.reader("flights", receipt.partition).build().await?;
//! while let Some(record) = reader.next().await {
//!     let record = record?;
//!     println!("{}: {:?}", record.offset, record.value);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Consumers in a group share the partitions of their topics, and go on where the group has left off:
//!
//! ```no_run
//! # async fn book(_: &ropewalk_client::Delivery) -> ropewalk_client::Result<()> { Ok(()) }
//! # async fn example(client: ropewalk_client::Client) -> ropewalk_client::Result<()> {
//! let subscription = client.subscribe("billing").topics(["flights"]).build().await?;
//! let stop = subscription.handle();
//! tokio::spawn(async move {
//!     let _ = tokio::signal::ctrl_c().await;
//!     stop.shutdown();
//! });
//! // Eight at a time; those of one key one after the other.
//! let ended = subscription.run(8, |delivery| async move { book(&delivery).await });
//! if let Err(error) = ended.await {
//!     eprintln!("{error}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A [`Producer`] gathers records in batches, sends them to the leaders of their partitions, and
//! sends them again for as long as its delivery timeout lets it: changes of leaders pass unseen,
//! and no record is written twice. A [`Reader`] follows one partition; a [`Subscription`] is a
//! member of a consumer group, and [`Seen`] helps it to do nothing twice. [`Admin`] is for topics,
//! nodes, leaders and groups. [`Record::event`] publishes
//! what can be followed from topic to topic. Every [`Error`] says whether to try again and whether the outcome is
//! known.
//!
//! [`Tls`] says whom a client trusts and what it shows of itself; `docs/secure.md` has more.
//!
//! With the feature `opentelemetry`, records carry the current trace context, and the spans of their
//! handlers are its children; `docs/tracing.md` has more.
//!
//! All time but record timestamps is tokio's; everything here needs a tokio runtime.

/// The front page of the project and those on groups, filters, tracing and TLS hold examples too; they are kept compiling here.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct FrontPage;

#[cfg(doctest)]
#[doc = include_str!("../../docs/groups.md")]
struct GroupsPage;

#[cfg(doctest)]
#[doc = include_str!("../../docs/tracing.md")]
struct TracingPage;

#[cfg(doctest)]
#[doc = include_str!("../../docs/filters.md")]
struct FiltersPage;

#[cfg(doctest)]
#[doc = include_str!("../../docs/secure.md")]
struct SecurePage;

mod admin;
mod backoff;
mod client;
mod clock;
mod connections;
mod error;
mod event;
mod group;
mod metadata;
mod offsets;
mod one_cluster;
mod producer;
mod publish;
mod reader;
mod record;
mod refresh;
mod seen;
mod tls;

pub use admin::{Admin, SeekGroup};
pub use client::{Client, ClientBuilder};
pub use error::{Error, ErrorKind, Result};
pub use group::{
    Delivery, Rebalance, RunError, Subscription, SubscriptionBuilder, SubscriptionHandle,
    TopicPartition,
};
pub use producer::{Producer, ProducerBuilder, Ticket};
pub use reader::{Reader, ReaderBuilder, Skipped, Trimmed, Unreadable};
pub use record::{ConsumedRecord, Header, Offset, Receipt, Record};
pub use ropewalk_proto::batch::Compression;
pub use ropewalk_proto::error::ErrorCode;
pub use ropewalk_proto::headers;
pub use ropewalk_proto::trace::TraceContext;
pub use ropewalk_proto::v1;
pub use seen::{FileSeen, MemorySeen, Seen, SeenStore};
pub use tls::Tls;
