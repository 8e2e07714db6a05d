//! TLS to the nodes: the trusted CA, and the client's own certificate.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use ropewalk_tls::{CertificateReloader, ClientAuth, Dialed, TlsFiles, dial};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::error::{Error, Result};

/// Minimum interval between two log lines about connections that can't be secured.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// TLS to every node of a cluster. The files are PEM. The client checks them for changes on every new
/// connection, and uses their new content.
///
/// ```no_run
/// use ropewalk_client::{Client, Tls};
///
/// # async fn example() -> ropewalk_client::Result<()> {
/// let tls = Tls::new("ca.pem").identity("billing.pem", "billing.key");
/// let client = Client::builder("broker-1.example.com:7101").tls(tls).connect().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "it takes effect by ClientBuilder::tls"]
pub struct Tls {
    files: TlsFiles,
}

impl Tls {
    /// Trusts nodes whose certificate is signed by a CA in this file and matches the host name used to reach
    /// them. The CAs of the operating system are not trusted.
    pub fn new(ca: impl Into<PathBuf>) -> Tls {
        Tls {
            files: TlsFiles::new(ca),
        }
    }

    /// Presents this certificate to the nodes, which they require with `tls_client_auth = required`.
    pub fn identity(self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Tls {
        Tls {
            files: self.files.with_own(certificate, key),
        }
    }
}

/// State that secures connections.
#[derive(Debug)]
pub(crate) struct Secure {
    keeper: CertificateReloader,
    /// True once a connection was secured. Before that, the caller of `connect` reports failures.
    worked: AtomicBool,
    logged: Mutex<Option<Instant>>,
}

impl Secure {
    /// Reads the files.
    pub async fn open(tls: Tls) -> Result<Secure> {
        let keeper = CertificateReloader::open(tls.files, ClientAuth::None).await;
        Ok(Secure {
            keeper: keeper.map_err(|error| Error::invalid(error.to_string()))?,
            worked: AtomicBool::new(false),
            logged: Mutex::default(),
        })
    }

    /// Performs the TLS handshake on a stream to this address.
    pub async fn dial<S>(&self, stream: S, address: &str) -> io::Result<Dialed<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let certificates = self.keeper.fresh().await;
        let dialed = dial(stream, address, &certificates).await;
        match &dialed {
            Ok(_) => self.worked.store(true, Ordering::Relaxed),
            Err(error) if self.worked.load(Ordering::Relaxed) && self.may_log() => {
                tracing::warn!(address, %error, "a connection can't be secured");
            }
            Err(_) => {}
        }
        dialed
    }

    fn may_log(&self) -> bool {
        let mut logged = self.logged.lock();
        let may = logged.is_none_or(|at| at.elapsed() >= LOG_EVERY);
        if may {
            *logged = Some(Instant::now());
        }
        may
    }
}
