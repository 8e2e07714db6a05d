//! The Ropewalk client: publishes keyed records, and reads them back in order.
//!
//! [`Client::connect`] takes the addresses of some nodes, and [`Client::from_env`] reads them from
//! `ROPEWALK_BOOTSTRAP`. Everything else starts from the [`Client`]:
//!
//! | task | entry point |
//! |---|---|
//! | publish records | [`Client::producer`], or [`Client::publish`] for a single record |
//! | read one partition | [`Client::reader`] |
//! | read topics as a group | [`Client::subscribe`] |
//! | manage topics, nodes and groups | [`Client::admin`] |
//!
//! # Producing
//!
//! ```no_run
//! use ropewalk_client::{Client, Record};
//!
//! # async fn example() -> ropewalk_client::Result<()> {
//! let client = Client::connect("127.0.0.1:7101").await?;
//! let producer = client.producer("flights").build().await?;
//! // Returns once there is room for the record. Records with the same key keep their order.
//! let pending = producer.send(Record::new().key("N14228").value("departed")).await?;
//! // Completes once a majority of the replicas has synced the record.
//! let metadata = pending.await?;
//! println!("{}/{}", metadata.partition, metadata.offset);
//! producer.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! A [`Producer`] groups records into batches and sends them to the partition leaders. It retries within its
//! delivery timeout, so leader changes are invisible to the application. [`Record::event`] creates a record
//! that can be traced from topic to topic.
//!
//! # Reading
//!
//! A [`Reader`] is a stream of the records of one partition. It starts [`from`](ReaderBuilder::from) an
//! [`Offset`], or from a time with [`Offset::timestamp`].
//!
//! ```no_run
//! use futures_util::StreamExt;
//! use ropewalk_client::{Client, Offset};
//!
//! # async fn example(client: Client) -> ropewalk_client::Result<()> {
//! let mut reader = client.reader("flights", 0).from(Offset::Beginning).build().await?;
//! while let Some(record) = reader.next().await {
//!     let record = record?;
//!     println!("{}: {:?}", record.offset, record.value);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Groups
//!
//! A [`Subscription`] is a member of a consumer group. The members of a group share the partitions of their
//! topics, and resume from the committed offsets. [`Subscription::run_concurrent`] calls a handler for each
//! record. A subscription is also a stream of [`Delivery`]s, which the application acknowledges with
//! [`Delivery::ack`].
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
//! let ended = subscription.run_concurrent(8, |delivery| async move { book(&delivery).await });
//! if let Err(error) = ended.await {
//!     eprintln!("{error}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Errors
//!
//! Every failure is an [`Error`]. Decide by its methods, not by its text:
//!
//! - [`Error::is_retryable`]: the same call may succeed later. The client has already retried within its
//!   timeout.
//! - [`Error::outcome_unknown`]: the call may have taken effect. A record that is published again can be in
//!   the log twice.
//! - [`Error::kind`]: the category of the failure, an [`ErrorKind`]. Match on it to handle one category.
//! - [`Error::code`]: the reason that the cluster gave, an [`ErrorCode`]; none if the failure is not the
//!   cluster's.
//!
//! `ErrorKind` belongs to this client: an unreachable node, a timeout, an invalid argument, a trimmed offset.
//! One of its variants, [`ErrorKind::Cluster`], is an answer of the cluster, and holds the `ErrorCode`. An
//! `ErrorCode` is a row of the cluster's error table. Clients in other languages and the command line get the
//! same codes.
//!
//! # Delivery guarantees
//!
//! - An acknowledged record is on the disks of a majority of its replicas. A retry does not write it twice,
//!   for as long as the partition remembers the producer (`docs/limits.md`).
//! - Records with the same key are read in the order in which one producer sent them.
//! - A group gets every record at least once. A crash between the handler and the commit repeats the record.
//!   A [`Deduplicator`] skips events that were already processed.
//! - A reader and a group see committed records only.
//!
//! `docs/groups.md` in the repository has the guarantees of groups, and `docs/limits.md` their bounds.
//!
//! # TLS, tracing and the runtime
//!
//! [`Tls`] sets the CA that a client trusts and the certificate that it presents; see `docs/secure.md`.
//!
//! With the feature `opentelemetry`, records carry the current trace context, and the spans of their handlers
//! are its children; see `docs/tracing.md`.
//!
//! All times except record timestamps come from tokio's clock. Everything here needs a tokio runtime.

#![warn(missing_docs, rustdoc::private_intra_doc_links)]

/// Compiles the examples of the README files and of the pages on groups, filters, tracing and TLS.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct FrontPage;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ClientPage;

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
mod bootstrap;
mod client;
mod clock;
mod connections;
mod dedup;
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
mod telling;
mod timestamp;
mod tls;

pub use admin::{
    Admin, Cleanup, ClusterStatus, GroupInfo, GroupMember, GroupPartition, GroupSummary, NodeState,
    NodeStatus, PartitionInfo, PartitionLag, Partitioner, SeekGroup, TopicInfo, TopicSettings,
};
pub use bootstrap::Bootstrap;
pub use client::{Client, ClientBuilder};
pub use dedup::{DedupStore, Deduplicator, FileDedupStore, MemoryDedupStore};
pub use error::{Error, ErrorKind, Result};
pub use group::{
    Delivery, Rebalance, RunError, Subscription, SubscriptionBuilder, SubscriptionHandle,
    TopicPartition,
};
pub use producer::{PendingAck, Producer, ProducerBuilder};
pub use reader::{OnTrimmed, OnUnreadable, Reader, ReaderBuilder, Skipped};
pub use record::{ConsumedRecord, Header, Offset, Record, RecordMetadata};
pub use ropewalk_proto::batch::Compression;
pub use ropewalk_proto::error::ErrorCode;
pub use ropewalk_proto::headers;
pub use ropewalk_proto::trace::TraceContext;
pub use tls::Tls;
