//! The Ropewalk client: publishes keyed records and reads them back in order.
//!
//! ```no_run
//! use futures_util::StreamExt;
//! use ropewalk_client::{Client, Record};
//!
//! # async fn example() -> ropewalk_client::Result<()> {
//! let client = Client::connect(["127.0.0.1:7101"]).await?;
//!
//! // Records with the same key keep their order. The ticket resolves once a majority has synced the record.
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
//! The consumers of a group share the partitions of their topics and resume from the committed offsets:
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
//! // Up to eight handlers run at a time; records with the same key run one after another.
//! let ended = subscription.run(8, |delivery| async move { book(&delivery).await });
//! if let Err(error) = ended.await {
//!     eprintln!("{error}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A [`Producer`] groups records into batches and sends them to the partition leaders. It retries within its
//! delivery timeout, so leader changes are invisible to the application. No record is written twice.
//! A [`Reader`] follows one partition. A [`Subscription`] is a member of a consumer group, and [`Seen`] helps
//! it to skip duplicates. [`Admin`] manages topics, nodes, leaders and groups. [`Record::event`] creates a
//! record that can be traced from topic to topic. Every [`Error`] states whether a retry may succeed and
//! whether the outcome is known.
//!
//! [`Tls`] sets the CA that a client trusts and the certificate that it presents; see `docs/secure.md`.
//!
//! With the feature `opentelemetry`, records carry the current trace context, and the spans of their handlers
//! are its children; see `docs/tracing.md`.
//!
//! All times except record timestamps come from tokio's clock. Everything here needs a tokio runtime.

#![warn(missing_docs, rustdoc::private_intra_doc_links)]

/// Compiles the examples of the front page and of the pages on groups, filters, tracing and TLS.
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
