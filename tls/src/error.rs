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
        let message = format!(
            "the node at {name} takes nothing but TLS: name the CA of its certificate (--tls-ca)"
        );
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
                    "the node at {name} does not speak TLS: name no CA (--tls-ca), or switch TLS on there (tls_mode)"
                ),
            ),
            Some(Rustls::InvalidCertificate(wrong)) => (
                Fault::Theirs,
                format!(
                    "the certificate of the node at {name} is not to be trusted: it {}",
                    Wrong(wrong)
                ),
            ),
            Some(Rustls::AlertReceived(AlertDescription::CertificateRequired)) => (
                Fault::Ours,
                format!(
                    "the node at {name} asks who is there: give a certificate and its key (--tls-cert, --tls-key)"
                ),
            ),
            Some(Rustls::AlertReceived(alert)) if about_certificate(*alert) => (
                Fault::Ours,
                format!(
                    "the node at {name} refused this side's certificate ({alert:?}): show one that is valid now and signed by the CA that node trusts"
                ),
            ),
            Some(other) => (
                Fault::Broken,
                format!("no TLS with the node at {name}: {other}"),
            ),
            None => (
                Fault::Broken,
                format!(
                    "the node at {name} ended the TLS handshake ({error}): does it speak TLS, and what does its log say?"
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
                "it shows no certificate, and tls_client_auth is required".to_owned(),
            ),
            Some(Rustls::InvalidCertificate(wrong)) => (
                Fault::Theirs,
                format!("its certificate is not to be trusted: it {}", Wrong(wrong)),
            ),
            Some(Rustls::AlertReceived(alert)) if about_certificate(*alert) => (
                Fault::Ours,
                format!(
                    "it does not trust this node's certificate ({alert:?}): is it valid now, for this node's address, and signed by the CA the other side knows?"
                ),
            ),
            Some(other) => (Fault::Broken, other.to_string()),
            None => (Fault::Broken, format!("the handshake broke off: {error}")),
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
                write!(f, "has expired; give it a new one ({})", self.0)
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                write!(f, "is not valid yet; check the clocks ({})", self.0)
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => write!(
                f,
                "was signed by no CA in the file named here; name the CA that signed it"
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                write!(
                    f,
                    "is for other names; it needs the host that was dialed among its subjectAltNames ({})",
                    self.0
                )
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                write!(
                    f,
                    "may not be used for this; nodes need one for serverAuth and clientAuth, clients one for clientAuth ({})",
                    self.0
                )
            }
            other => write!(f, "is refused: {other}"),
        }
    }
}
