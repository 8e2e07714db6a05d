//! Certificate that the other side of an accepted connection presented.

use std::fmt::{self, Write};
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;
use tokio_rustls::server::TlsStream;
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::ExtendedKeyUsage;

use crate::dial::server_name;

/// The extended key usage `serverAuth`.
const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");

/// A certificate that the handshake has verified.
pub struct PeerCertificate {
    subject: Option<Arc<str>>,
    permits_server: bool,
    encoded: CertificateDer<'static>,
}

impl PeerCertificate {
    /// Returns the certificate of the connecting side; `None` if it was not asked for one.
    pub fn of<S>(stream: &TlsStream<S>) -> Option<PeerCertificate> {
        let (_, session) = stream.get_ref();
        let encoded = session.peer_certificates()?.first()?.clone();
        // The verifier has parsed it too. A certificate that only this parser rejects gives no rights.
        let parsed = x509_cert::Certificate::from_der(&encoded).ok();
        Some(PeerCertificate {
            subject: parsed.as_ref().and_then(subject),
            permits_server: parsed.as_ref().is_some_and(permits_server),
            encoded,
        })
    }

    /// Distinguished name of the subject, as in RFC 4514. `None` if it is empty.
    pub fn subject(&self) -> Option<&Arc<str>> {
        self.subject.as_ref()
    }

    /// True if a side that dials one of these addresses, `host:port`, would accept this certificate there. Its
    /// CA is not checked again.
    pub fn could_serve_at<'a>(&self, addresses: impl IntoIterator<Item = &'a str>) -> bool {
        if !self.permits_server {
            return false;
        }
        let Ok(parsed) = ParsedCertificate::try_from(&self.encoded) else {
            return false;
        };
        addresses.into_iter().any(|address| {
            let name = server_name(address);
            name.is_ok_and(|name| verify_server_name(&parsed, &name).is_ok())
        })
    }
}

/// Distinguished name of the subject. `None` if it is empty, or cannot be written.
fn subject(certificate: &x509_cert::Certificate) -> Option<Arc<str>> {
    let mut subject = String::new();
    // Unlike `to_string`, this does not panic.
    write!(subject, "{}", certificate.tbs_certificate.subject).ok()?;
    (!subject.is_empty()).then(|| subject.into())
}

/// True if the certificate lists `serverAuth` as a usage, or no extended usages at all.
fn permits_server(certificate: &x509_cert::Certificate) -> bool {
    match certificate.tbs_certificate.get::<ExtendedKeyUsage>() {
        Ok(None) => true,
        Ok(Some((_, usages))) => usages.0.contains(&SERVER_AUTH),
        Err(_) => false,
    }
}

impl fmt::Debug for PeerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerCertificate")
            .field("subject", &self.subject)
            .finish_non_exhaustive()
    }
}
