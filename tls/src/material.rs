//! TLS configurations for both ends of a handshake, made from the files.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, Error as Rustls, InconsistentKeys, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_cert::der::Decode;

use crate::error::TlsError;
use crate::files::{Contents, OwnFiles, TlsFiles};

/// Marker in PEM of a private key that needs a passphrase.
const ENCRYPTED: &[u8] = b"ENCRYPTED";
const HTTP_2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// Certificates required from connecting sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuth {
    /// A connecting side is not asked for a certificate.
    #[default]
    None,
    /// A connecting side without a certificate signed by a trusted CA is refused.
    Required,
}

/// Certificates that are in use.
pub struct Certificates {
    pub(crate) connector: TlsConnector,
    /// Acceptors for connecting sides, if this side has a certificate.
    pub acceptors: Option<Acceptors>,
    /// End of the validity of this side's certificate, in ms since 1970.
    pub not_after_ms: Option<i64>,
}

/// Acceptors for connecting sides. Both present the same certificate.
#[derive(Clone)]
pub struct Acceptors {
    /// HTTP/2 for clients and peers, which present a certificate if required.
    pub grpc: TlsAcceptor,
    /// HTTP/1.1 for probes and scrapers, which never present one.
    pub http: TlsAcceptor,
}

impl Certificates {
    pub(crate) fn parse(
        contents: &Contents,
        files: &TlsFiles,
        client_auth: ClientAuth,
    ) -> Result<Certificates, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let roots = Arc::new(roots(contents, files)?);
        let own = own(contents, files, &provider)?;
        let not_after_ms = own
            .as_ref()
            .and_then(|own| own.cert.first().and_then(not_after_ms));
        let acceptors = match &own {
            Some(own) => Some(Acceptors {
                grpc: acceptor(&provider, &roots, own, client_auth, HTTP_2)?,
                http: acceptor(&provider, &roots, own, ClientAuth::None, HTTP_1_1)?,
            }),
            None => None,
        };
        Ok(Certificates {
            connector: connector(&provider, &roots, own)?,
            acceptors,
            not_after_ms,
        })
    }
}

fn roots(contents: &Contents, files: &TlsFiles) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let certificates = certificates(&contents.ca)
        .map_err(|why| TlsError::files(format!("{}: {why}", files.ca.display())))?;
    for certificate in certificates {
        roots.add(certificate).map_err(|error| {
            TlsError::files(format!(
                "{} is not a CA certificate: {error}",
                files.ca.display()
            ))
        })?;
    }
    Ok(roots)
}

fn own(
    contents: &Contents,
    files: &TlsFiles,
    provider: &CryptoProvider,
) -> Result<Option<Arc<CertifiedKey>>, TlsError> {
    let (Some((cert, key)), Some(paths)) = (&contents.own, &files.own) else {
        return Ok(None);
    };
    let chain = certificates(cert)
        .map_err(|why| TlsError::files(format!("{}: {why}", paths.cert.display())))?;
    let key = private_key(key)
        .map_err(|why| TlsError::files(format!("{}: {why}", paths.key.display())))?;
    let key = provider.key_provider.load_private_key(key).map_err(|error| {
        TlsError::files(format!(
            "{} is a private key of an unsupported kind ({error}): use ECDSA on P-256 or P-384, \
             Ed25519, or RSA of at least 2048 bits",
            paths.key.display()
        ))
    })?;
    let own = CertifiedKey::new(chain, key);
    match own.keys_match() {
        // The public half of some keys is unknown; a handshake shows if they match.
        Ok(()) | Err(Rustls::InconsistentKeys(InconsistentKeys::Unknown)) => {
            Ok(Some(Arc::new(own)))
        }
        Err(error) => Err(apart(&own, &error, paths)),
    }
}

/// Error for a key that is not that of the first certificate.
fn apart(own: &CertifiedKey, error: &Rustls, paths: &OwnFiles) -> TlsError {
    let (cert, key) = (paths.cert.display(), paths.key.display());
    let of_another = own.cert.iter().skip(1).any(|other| {
        let alone = CertifiedKey::new(vec![other.clone()], own.key.clone());
        alone.keys_match().is_ok()
    });
    TlsError::files(match of_another {
        true => format!(
            "{cert} has its certificates in the wrong order: put the one of {key} first, then the \
             CA that signed it, then the CA of that one"
        ),
        false => format!(
            "{cert} and {key} do not match ({error}): give the key that the certificate was made \
             with"
        ),
    })
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        // The word is in the label of PKCS #8, and in a header of the older formats.
        let encrypted = pem.windows(ENCRYPTED.len()).any(|part| part == ENCRYPTED);
        match error {
            _ if encrypted => {
                "the private key is encrypted, and the passphrase cannot be asked for: decrypt \
                 it, as with `openssl pkey -in KEY -out DECRYPTED`, and protect that file instead"
                    .to_owned()
            }
            pem::Error::NoItemsFound => "no private key in PEM".to_owned(),
            error => format!("no private key in PEM: {error}"),
        }
    })
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let parsed = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match parsed {
        Ok(certificates) if certificates.is_empty() => Err("no certificate in PEM".to_owned()),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("not valid PEM: {error}")),
    }
}

fn connector(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    own: Option<Arc<CertifiedKey>>,
) -> Result<TlsConnector, TlsError> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(unusable)?;
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_webpki_verifier(verifier);
    let mut config = match own {
        Some(own) => config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![HTTP_2.to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn acceptor(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    own: &Arc<CertifiedKey>,
    client_auth: ClientAuth,
    protocol: &[u8],
) -> Result<TlsAcceptor, TlsError> {
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let config = match client_auth {
        ClientAuth::None => config.with_no_client_auth(),
        ClientAuth::Required => config.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
                .build()
                .map_err(unusable)?,
        ),
    };
    let mut config = config.with_cert_resolver(Arc::new(SingleCertAndKey::from(own.clone())));
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn unusable(error: impl fmt::Display) -> TlsError {
    TlsError::files(format!("certificates cannot be used: {error}"))
}

/// End of the validity of a certificate, in ms since 1970.
fn not_after_ms(certificate: &CertificateDer<'_>) -> Option<i64> {
    let parsed = x509_cert::Certificate::from_der(certificate).ok()?;
    let not_after = parsed.tbs_certificate.validity.not_after.to_unix_duration();
    i64::try_from(not_after.as_millis()).ok()
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates")
            .field("not_after_ms", &self.not_after_ms)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Acceptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acceptors")
    }
}
