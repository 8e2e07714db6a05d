//! Certificates in use. The files are checked repeatedly. Valid certificates stay in use until the files
//! hold other valid ones.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::TlsError;
use crate::files::{Contents, TlsFiles};
use crate::material::{Certificates, ClientAuth};

/// Minimum time between checks of the files on behalf of connections.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// Holds certificates, and reloads them when their files change.
pub struct CertificateReloader {
    files: TlsFiles,
    client_auth: ClientAuth,
    state: Mutex<State>,
}

struct State {
    current: Arc<Certificates>,
    read: Contents,
    looked: Instant,
    bad: Option<Bad>,
}

/// Files that could not be used at the last check.
struct Bad {
    why: TlsError,
    contents: Option<Contents>,
    said: bool,
}

impl CertificateReloader {
    /// Reads the files, and parses the certificates.
    ///
    /// # Errors
    /// A file cannot be read, holds no PEM of its kind, or the key is not the certificate's.
    pub async fn open(
        files: TlsFiles,
        client_auth: ClientAuth,
    ) -> Result<CertificateReloader, TlsError> {
        let read = files.read().await?;
        let current = Arc::new(Certificates::parse(&read, &files, client_auth)?);
        Ok(CertificateReloader {
            state: Mutex::new(State {
                current,
                read,
                looked: Instant::now(),
                bad: None,
            }),
            files,
            client_auth,
        })
    }

    /// The certificates in use.
    pub fn current(&self) -> Arc<Certificates> {
        self.state.lock().current.clone()
    }

    /// The certificates in use, after a check of the files if the last one was a while ago.
    pub async fn fresh(&self) -> Arc<Certificates> {
        if self.state.lock().looked.elapsed() >= FRESH_FOR {
            self.look().await;
        }
        self.current()
    }

    /// Loads the contents of the files if they are new and valid, and returns true if they were. Invalid
    /// contents are logged the second time they are found: the first time, files that belong together may
    /// be only partly written.
    pub async fn look(&self) -> bool {
        let read = self.files.read().await;
        let parsed = match &read {
            Ok(contents) if self.state.lock().knows(contents) => return false,
            Ok(contents) => Certificates::parse(contents, &self.files, self.client_auth),
            Err(error) => Err(error.clone()),
        };
        let mut state = self.state.lock();
        state.looked = Instant::now();
        match (parsed, read) {
            (Ok(certificates), Ok(contents)) => {
                let not_after_ms = certificates.not_after_ms;
                tracing::info!(
                    files = %self.files,
                    not_after_ms,
                    "new certificates loaded; new connections use them"
                );
                state.current = Arc::new(certificates);
                state.read = contents;
                state.bad = None;
                true
            }
            (Err(why), read) => {
                state.note_bad(why, read.ok());
                false
            }
            (Ok(_), Err(_)) => false, // files that were not read are not parsed
        }
    }
}

impl State {
    /// Returns true if these contents are those in use.
    fn knows(&mut self, contents: &Contents) -> bool {
        let same = self.read == *contents;
        if same {
            self.looked = Instant::now();
            self.bad = None;
        }
        same
    }

    fn note_bad(&mut self, why: TlsError, contents: Option<Contents>) {
        let before = self.bad.take();
        let before = before.filter(|bad| bad.why == why && bad.contents == contents);
        let said = match before {
            Some(bad) => {
                if !bad.said {
                    tracing::error!(
                        %why,
                        "new certificates cannot be used; the previous ones stay in use"
                    );
                }
                true
            }
            None => false,
        };
        self.bad = Some(Bad {
            why,
            contents,
            said,
        });
    }
}

impl fmt::Display for TlsFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.ca.display())?;
        match &self.own {
            Some(own) => write!(f, ", {}, {}", own.cert.display(), own.key.display()),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for CertificateReloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateReloader")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}
