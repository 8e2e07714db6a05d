//! The one error of this crate: what happened, to what, and whether to try again.

use std::fmt;
use std::io;
use std::sync::Arc;

use ropewalk_proto::error::{ERROR_METADATA_KEY, ErrorCode, Outcome, Retry, WireError};
use ropewalk_proto::mistake::{Mistake, made};
use ropewalk_tls::TlsError;
use tonic::{Code, ConnectError, Status};

/// The result of everything here that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of thing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The cluster refused or failed it; the code is a row of the cluster's table of errors.
    Cluster(ErrorCode),
    /// No node could be reached, or the connection broke.
    Unreachable,
    /// The connection could not be secured: one side speaks TLS and the other does not, or a certificate
    /// is not to be trusted. Nothing was sent. It may pass, as certificates and settings of a running
    /// cluster change one node at a time.
    Tls,
    /// The time set for the call, or for the delivery of a record, was up.
    Timeout,
    /// A setting or an argument makes no sense.
    InvalidArgument,
    /// A record is larger than a batch or the producer's memory may be.
    TooLarge,
    /// The producer or subscription was closed or dropped.
    Closed,
    /// The member has left its consumer group, as the application did not keep up with it.
    LeftGroup,
    /// A file of this library's on this machine could not be read or written.
    Storage,
    /// The offset to read was trimmed by retention.
    Trimmed,
    /// The offset to read is past the end of the log: what was there is no more.
    Truncated,
    /// What was read does not match its checksum, or does not parse or unpack within the limit.
    Corrupt,
}

/// Why something did not work. Cheap to clone: all records of a batch share one.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    inner: Arc<Inner>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    kind: ErrorKind,
    outcome_unknown: bool,
    /// The record of a batch that was refused, by its place there.
    record: Option<u32>,
    refused: bool,
    message: String,
}

impl Error {
    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// The row of the cluster's table of errors, if the cluster gave the error.
    pub fn code(&self) -> Option<ErrorCode> {
        match self.inner.kind {
            ErrorKind::Cluster(code) => Some(code),
            _ => None,
        }
    }

    /// Whether the same thing, tried again later, may succeed without a change by the caller. This
    /// client has tried for as long as it was allowed to.
    pub fn is_retryable(&self) -> bool {
        match self.inner.kind {
            // What was meant is gone. Whether it belongs to the new topic is for the caller to decide.
            ErrorKind::Cluster(ErrorCode::TopicRecreated) => false,
            ErrorKind::Cluster(code) => code.retry() != Retry::Never,
            ErrorKind::Unreachable | ErrorKind::Tls | ErrorKind::Timeout => true,
            _ => false,
        }
    }

    /// Whether what was asked for may have taken effect all the same, or may yet: a record that is
    /// published again after such an error can be there twice.
    pub fn outcome_unknown(&self) -> bool {
        self.inner.outcome_unknown && !made(Mistake::UnknownIsFailure)
    }

    /// True if the connection was refused: the machine was there, and nothing listened at the address.
    pub fn is_refused(&self) -> bool {
        self.inner.refused
    }

    /// Whether the cluster does not know the topic or partition. It may be younger than what the
    /// asked node has seen, but not by much.
    pub(crate) fn says_there_is_none(&self) -> bool {
        matches!(
            self.code(),
            Some(ErrorCode::UnknownTopic | ErrorCode::UnknownPartition)
        )
    }

    /// True if the topic or partition that was meant does not exist, as far as the asked node knows, or
    /// another has its name.
    pub(crate) fn says_topic_is_gone(&self) -> bool {
        self.says_there_is_none() || self.code() == Some(ErrorCode::TopicRecreated)
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        let outcome_unknown = match kind {
            ErrorKind::Cluster(code) => code.outcome() == Outcome::Unknown,
            ErrorKind::Unreachable => true,
            _ => false,
        };
        Error {
            inner: Arc::new(Inner {
                kind,
                outcome_unknown,
                record: None,
                refused: false,
                message: message.into(),
            }),
        }
    }

    /// The record of a batch for which the batch was refused, if it was for one, by its place there.
    pub(crate) fn record(&self) -> Option<u32> {
        self.inner.record
    }

    /// True if the cause is the record itself.
    pub(crate) fn is_of_the_record(&self) -> bool {
        matches!(
            self.kind(),
            ErrorKind::TooLarge | ErrorKind::InvalidArgument
        )
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidArgument, message)
    }

    /// The same error, with what is known about the outcome.
    pub(crate) fn with_outcome_unknown(self, outcome_unknown: bool) -> Error {
        self.with(|inner| inner.outcome_unknown = outcome_unknown)
    }

    /// The same error, with what was being done in front of its message.
    pub(crate) fn context(self, what: impl fmt::Display) -> Error {
        self.with(|inner| inner.message = format!("{what}: {}", inner.message))
    }

    /// The same error with one change.
    fn with(self, change: impl FnOnce(&mut Inner)) -> Error {
        let mut inner = Arc::unwrap_or_clone(self.inner);
        change(&mut inner);
        Error {
            inner: Arc::new(inner),
        }
    }

    /// An error that travelled beside a gRPC status, or a failure of the transport itself.
    pub(crate) fn from_status(status: &Status, address: &str) -> Error {
        if status.metadata().contains_key(ERROR_METADATA_KEY) {
            return WireError::from(status).into();
        }
        if let Some(error) = insecure(status, address) {
            return Error::new(ErrorKind::Tls, error.to_string());
        }
        let said = status.message();
        match status.code() {
            Code::DeadlineExceeded | Code::Cancelled => Error::new(
                ErrorKind::Timeout,
                format!(
                    "{address} did not answer in time ({said}); try again, or raise the timeout"
                ),
            )
            .with_outcome_unknown(true),
            Code::Unimplemented => Error::new(
                ErrorKind::Cluster(ErrorCode::UnsupportedVersion),
                format!(
                    "{address} does not know this call ({said}); is it a Ropewalk node, and as new as this client?"
                ),
            ),
            Code::OutOfRange | Code::ResourceExhausted => Error::new(
                ErrorKind::TooLarge,
                format!(
                    "a message to or from {address} is over its limit ({said}); send less at once"
                ),
            ),
            _ => Error::new(
                ErrorKind::Unreachable,
                format!(
                    "{address} is not reachable ({said}); check that the node runs and the address is right"
                ),
            )
            .with_outcome_unknown(!never_connected(status))
            .with(|inner| inner.refused = refused(status)),
        }
    }
}

/// The causes of a status, the nearest first.
fn causes(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(status), |error| error.source())
}

/// What kept the connection from being secured, if that is why the call failed.
fn insecure(status: &Status, address: &str) -> Option<TlsError> {
    let first = std::error::Error::source(status)?;
    if let Some(error) = TlsError::find(first) {
        return Some(error.clone());
    }
    // What a node says to those who speak plainly where it takes nothing but TLS.
    let refused = causes(status).any(|error| {
        let error = error.downcast_ref::<h2::Error>();
        error.is_some_and(|error| error.reason() == Some(h2::Reason::INADEQUATE_SECURITY))
    });
    refused.then(|| TlsError::tls_only(address))
}

/// Whether nothing can have been sent, since there was no connection.
fn never_connected(status: &Status) -> bool {
    causes(status).any(|error| error.is::<ConnectError>())
}

/// True if the operating system at the address refused the connection.
fn refused(status: &Status) -> bool {
    causes(status).any(|error| {
        let error = error.downcast_ref::<io::Error>();
        error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    })
}

impl From<WireError> for Error {
    fn from(error: WireError) -> Error {
        let record = error.record;
        Error::new(ErrorKind::Cluster(error.code), error.message)
            .with(|inner| inner.record = record)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.inner.kind)
            .field("outcome_unknown", &self.inner.outcome_unknown)
            .field("message", &self.inner.message)
            .finish()
    }
}

impl std::error::Error for Error {}
