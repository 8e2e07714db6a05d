//! TLS faults between two sides, in words that help an operator to repair them.

use std::error::Error;
use std::fmt;
use std::io;

use rustls::{AlertDescription, CertificateError, Error as Rustls};

/// Reason that there is no TLS with the other side, and the next step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TlsError {
    fault: Fault,
    message: String,
}

/// Kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The other side does not speak TLS.
    NotTls,
    /// The other side accepts only TLS.
    TlsOnly,
    /// The other side's certificate is missing, or is not trusted here.
    Theirs,
    /// The other side does not trust this side's certificate, or requires one.
    Ours,
    /// The handshake failed for another reason, often known only to the other side.
    Broken,
    /// A file of this side can't be used.
    Files,
}

impl TlsError {
    /// Kind of fault.
    pub fn fault(&self) -> Fault {
        self.fault
    }

    /// Error for a named side that accepts only TLS.
    pub fn tls_only(name: &str) -> TlsError {
        let message =
            format!("node at {name} accepts TLS only: name the CA of its certificate (--tls-ca)");
        TlsError {
            fault: Fault::TlsOnly,
            message,
        }
    }

    pub(crate) fn files(message: String) -> TlsError {
        TlsError {
            fault: Fault::Files,
            message,
        }
    }

    /// Finds the first `TlsError` beneath an error, even inside an [`io::Error`].
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a TlsError> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<TlsError>() {
                return Some(found);
            }
            let wrapped = error
                .downcast_ref::<io::Error>()
                .and_then(io::Error::get_ref);
            if let Some(found) = wrapped.and_then(|error| TlsError::find(error)) {
                return Some(found);
            }
            next = error.source();
        }
        None
    }

    /// Error of a handshake with the node at `name`, which this side dialed.
    pub(crate) fn of_dialing(name: &str, error: &io::Error) -> TlsError {
        let (fault, message) = match rustls_error(error) {
            Some(Rustls::InvalidMessage(_)) => (
                Fault::NotTls,
                format!(
                    "node at {name} does not use TLS: leave out the CA (--tls-ca), or turn TLS on \
                     at that node (tls_mode)"
                ),
            ),
            Some(Rustls::InvalidCertificate(wrong)) => (
                Fault::Theirs,
                format!(
                    "certificate of the node at {name} is not trusted: it {}",
                    Wrong(wrong)
                ),
            ),
            Some(Rustls::AlertReceived(AlertDescription::CertificateRequired)) => (
                Fault::Ours,
                format!(
                    "node at {name} requires a client certificate: give a certificate and its key \
                     (--tls-cert, --tls-key)"
                ),
            ),
            Some(Rustls::AlertReceived(alert)) if about_certificate(*alert) => (
                Fault::Ours,
                format!(
                    "node at {name} refused this side's certificate ({alert:?}): use one that is \
                     valid now and signed by a CA that the node trusts"
                ),
            ),
            Some(other) => (
                Fault::Broken,
                format!("TLS handshake with the node at {name} failed: {other}"),
            ),
            None => (
                Fault::Broken,
                format!(
                    "node at {name} ended the TLS handshake ({error}): check whether it uses TLS, \
                     and read its log"
                ),
            ),
        };
        TlsError { fault, message }
    }

    /// Error of a handshake with a side that connected to this one.
    pub fn of_accepting(error: &io::Error) -> TlsError {
        let (fault, message) = match rustls_error(error) {
            Some(Rustls::NoCertificatesPresented) => (
                Fault::Theirs,
                "it sent no certificate, and tls_client_auth is required".to_owned(),
            ),
            Some(Rustls::InvalidCertificate(wrong)) => (
                Fault::Theirs,
                format!("its certificate is not trusted: it {}", Wrong(wrong)),
            ),
            Some(Rustls::AlertReceived(alert)) if about_certificate(*alert) => (
                Fault::Ours,
                format!(
                    "it does not trust this node's certificate ({alert:?}): check that the \
                     certificate is valid now, names this node's address, and is signed by a CA \
                     that the other side knows"
                ),
            ),
            Some(other) => (Fault::Broken, other.to_string()),
            None => (Fault::Broken, format!("TLS handshake failed: {error}")),
        };
        TlsError { fault, message }
    }
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

fn rustls_error(error: &io::Error) -> Option<&Rustls> {
    error.get_ref()?.downcast_ref()
}

fn about_certificate(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::NoCertificate
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError
            | Alert::CertificateRequired
    )
}

/// Fault of a certificate, as the end of a sentence that begins with "it".
struct Wrong<'a>(&'a CertificateError);

impl fmt::Display for Wrong<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                write!(f, "has expired; replace it ({})", self.0)
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                write!(f, "is not valid yet; check the clocks ({})", self.0)
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => write!(
                f,
                "was signed by no CA in the given file; name the CA that signed it"
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                write!(
                    f,
                    "is for other names; add the dialed host to its subjectAltNames ({})",
                    self.0
                )
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                write!(
                    f,
                    "is not valid for this purpose; nodes need serverAuth and clientAuth, clients \
                     clientAuth ({})",
                    self.0
                )
            }
            other => write!(f, "is invalid: {other}"),
        }
    }
}
