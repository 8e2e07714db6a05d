//! Certificate files, and their contents.

use std::path::{Path, PathBuf};

use tokio::fs::File;
use tokio::io::AsyncReadExt;

use crate::error::TlsError;

/// Maximum size of a file. No certificate, key or bundle of CAs in use comes near it.
const FILE_BYTES: u64 = 4 << 20;

/// Files of one side's certificates, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the CAs that may sign the other side's certificate; several while one CA replaces
    /// the other.
    pub ca: PathBuf,
    /// Certificate that this side presents.
    pub own: Option<OwnFiles>,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnFiles {
    /// This side's certificate, followed by those between it and its CA.
    pub cert: PathBuf,
    /// The private key of that certificate: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key: PathBuf,
}

impl TlsFiles {
    /// Trusts the CAs in this file, and presents no certificate.
    pub fn new(ca: impl Into<PathBuf>) -> TlsFiles {
        TlsFiles {
            ca: ca.into(),
            own: None,
        }
    }

    /// The same, presenting this certificate.
    pub fn with_own(self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> TlsFiles {
        let own = OwnFiles {
            cert: cert.into(),
            key: key.into(),
        };
        TlsFiles {
            own: Some(own),
            ..self
        }
    }

    pub(crate) async fn read(&self) -> Result<Contents, TlsError> {
        let own = match &self.own {
            Some(own) => Some((read(&own.cert).await?, read(&own.key).await?)),
            None => None,
        };
        Ok(Contents {
            ca: read(&self.ca).await?,
            own,
        })
    }
}

/// Contents of the files. A change is detected by its contents, since an orchestrator swaps links rather
/// than writing files.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    pub ca: Vec<u8>,
    /// Certificate and key.
    pub own: Option<(Vec<u8>, Vec<u8>)>,
}

async fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let reading = async {
        let mut bytes = Vec::new();
        let file = File::open(path).await?;
        file.take(FILE_BYTES + 1).read_to_end(&mut bytes).await?;
        std::io::Result::Ok(bytes)
    };
    match reading.await {
        Ok(bytes) if bytes.len() as u64 > FILE_BYTES => Err(TlsError::files(format!(
            "{} is over {FILE_BYTES} bytes, too large for a certificate or key; check the path",
            path.display()
        ))),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(TlsError::files(format!(
            "{} cannot be read: {error}",
            path.display()
        ))),
    }
}
