//! Outgoing connections: TLS if it is on. In mode `both`, a peer without TLS is dialed in plaintext.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ropewalk_tls::{CertificateReloader, Fault, TlsError, dial};
use tokio::time::Instant;

use crate::env::{Connection, Net};
use crate::log_limiter::LogLimiter;

/// Time for which a peer without TLS is dialed in plaintext at once. Short: it may be restarted with TLS.
const PLAIN_FOR: Duration = Duration::from_secs(3);
/// Maximum number of such remembered addresses; beyond it, all are forgotten.
const ADDRESSES: usize = 1_024;

/// Connects to peers.
#[derive(Debug)]
pub(super) struct Dialer {
    keeper: Option<Arc<CertificateReloader>>,
    plain_too: bool,
    plain: Mutex<BTreeMap<String, Instant>>,
    failed: LogLimiter,
    fell_back: LogLimiter,
}

impl Dialer {
    pub fn new(keeper: Option<Arc<CertificateReloader>>, plain_too: bool) -> Dialer {
        Dialer {
            keeper,
            plain_too,
            plain: Mutex::default(),
            failed: LogLimiter::default(),
            fell_back: LogLimiter::rare(),
        }
    }

    /// Number of suppressed log lines.
    pub fn lines_left_out(&self) -> u64 {
        self.failed.left_out() + self.fell_back.left_out()
    }

    pub async fn connect(&self, net: &dyn Net, address: &str) -> io::Result<Connection> {
        let Some(keeper) = &self.keeper else {
            return net.connect(address).await;
        };
        if self.plain_too && self.was_plain(address) {
            return net.connect(address).await;
        }
        let connection = net.connect(address).await?;
        let error = match dial(connection, address, &keeper.current()).await {
            Ok(secured) => return Ok(Box::new(secured)),
            Err(error) => error,
        };
        if self.plain_too && speaks_no_tls(&error) {
            if let Some(left_out) = self.fell_back.pass() {
                tracing::info!(
                    address,
                    left_out,
                    "peer does not use TLS: falling back to a plain connection, because tls_mode \
                     is both"
                );
            }
            self.remember_plain(address);
            return net.connect(address).await;
        }
        if let Some(left_out) = self.failed.pass() {
            tracing::warn!(address, %error, left_out, "TLS connection to a peer failed");
        }
        Err(error)
    }

    fn was_plain(&self, address: &str) -> bool {
        let plain = self.plain.lock();
        plain
            .get(address)
            .is_some_and(|at| at.elapsed() < PLAIN_FOR)
    }

    fn remember_plain(&self, address: &str) {
        let mut plain = self.plain.lock();
        if plain.len() >= ADDRESSES {
            plain.clear();
        }
        plain.insert(address.to_owned(), Instant::now());
    }
}

/// True if the peer does not speak TLS. False for a bad certificate: the fault must show before TLS becomes
/// mandatory.
fn speaks_no_tls(error: &io::Error) -> bool {
    TlsError::find(error).is_some_and(|error| error.fault() == Fault::NotTls)
}
