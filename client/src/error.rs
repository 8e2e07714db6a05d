//! The one error type of this crate: the failure, its subject, and whether a retry may succeed.

use std::fmt;
use std::io;
use std::sync::Arc;

use ropewalk_proto::error::{ErrorCode, Outcome, Retry, WireError};
use ropewalk_proto::planted_bug::{PlantedBug, is_planted};
use ropewalk_proto::status::ERROR_METADATA_KEY;
use ropewalk_tls::TlsError;
use tonic::{Code, ConnectError, Status};

/// The result of every fallible call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// The kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The cluster refused or failed the call; the code is a row of the cluster's error table.
    Cluster(ErrorCode),
    /// No node could be reached, or the connection broke.
    Unreachable,
    /// The connection could not be secured: one side speaks TLS and the other does not, or a certificate is
    /// not trusted. Nothing was sent. The error may be temporary, since certificates and settings of a
    /// running cluster change one node at a time.
    Tls,
    /// The timeout of the call, or of the delivery of a record, is over.
    Timeout,
    /// A setting or an argument is invalid.
    InvalidArgument,
    /// A record is larger than a batch, or than the producer's memory.
    TooLarge,
    /// The producer or subscription was closed or dropped.
    Closed,
    /// The member left its consumer group because the application did not keep up.
    LeftGroup,
    /// This library could not read or write a file on this machine.
    Storage,
    /// The offset to read was trimmed by retention.
    Trimmed,
    /// The offset to read is past the end of the log: its records are gone.
    Truncated,
    /// The data read does not match its checksum, does not parse, or does not unpack within the limit.
    Corrupt,
}

/// Failure of a call or a record. Cheap to clone: all records of a batch share one.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    inner: Arc<Inner>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    kind: ErrorKind,
    outcome_unknown: bool,
    /// Index of the record for which its batch was refused.
    record: Option<u32>,
    refused: bool,
    message: String,
}

impl Error {
    /// The kind of the failure.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// The row of the cluster's error table, if the cluster returned the error.
    pub fn code(&self) -> Option<ErrorCode> {
        match self.inner.kind {
            ErrorKind::Cluster(code) => Some(code),
            _ => None,
        }
    }

    /// Returns true if the same call may succeed later without a change by the caller. This client has
    /// already retried for as long as it was allowed to.
    pub fn is_retryable(&self) -> bool {
        match self.inner.kind {
            // The intended topic is gone. The caller must decide whether the record belongs in the new one.
            ErrorKind::Cluster(ErrorCode::TopicRecreated) => false,
            ErrorKind::Cluster(code) => code.retry() != Retry::Never,
            ErrorKind::Unreachable | ErrorKind::Tls | ErrorKind::Timeout => true,
            _ => false,
        }
    }

    /// Returns true if the operation may have taken effect, or may still take effect. A record that is
    /// published again after such an error can be in the log twice.
    pub fn outcome_unknown(&self) -> bool {
        self.inner.outcome_unknown && !is_planted(PlantedBug::UnknownIsFailure)
    }

    /// True if the connection was refused: the machine was reachable, and nothing listened at the address.
    pub fn is_refused(&self) -> bool {
        self.inner.refused
    }

    /// Returns true if the asked node does not know the topic or partition. It may have been created shortly
    /// before.
    pub(crate) fn says_there_is_none(&self) -> bool {
        matches!(
            self.code(),
            Some(ErrorCode::UnknownTopic | ErrorCode::UnknownPartition)
        )
    }

    /// True if the intended topic or partition does not exist, as far as the asked node knows, or another
    /// topic has its name.
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

    /// Index of the record for which its batch was refused, if there is one.
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

    /// Sets whether the outcome is unknown.
    pub(crate) fn with_outcome_unknown(self, outcome_unknown: bool) -> Error {
        self.with(|inner| inner.outcome_unknown = outcome_unknown)
    }

    /// Prefixes the message with the operation that failed.
    pub(crate) fn context(self, what: impl fmt::Display) -> Error {
        self.with(|inner| inner.message = format!("{what}: {}", inner.message))
    }

    /// Applies one change.
    fn with(self, change: impl FnOnce(&mut Inner)) -> Error {
        let mut inner = Arc::unwrap_or_clone(self.inner);
        change(&mut inner);
        Error {
            inner: Arc::new(inner),
        }
    }

    /// The error that came with a gRPC status, or a failure of the transport itself.
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

/// The TLS failure that caused a call to fail, if there is one.
fn insecure(status: &Status, address: &str) -> Option<TlsError> {
    let first = std::error::Error::source(status)?;
    if let Some(error) = TlsError::find(first) {
        return Some(error.clone());
    }
    // A node's reply to a plaintext connection if it accepts only TLS.
    let refused = causes(status).any(|error| {
        let error = error.downcast_ref::<h2::Error>();
        error.is_some_and(|error| error.reason() == Some(h2::Reason::INADEQUATE_SECURITY))
    });
    refused.then(|| TlsError::tls_only(address))
}

/// Returns true if nothing was sent, because there was no connection.
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
