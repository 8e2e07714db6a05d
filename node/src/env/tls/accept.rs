//! Incoming connections: the first bytes show if the client speaks TLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ropewalk_tls::{CertificateReloader, PeerCertificate, Prefixed, TlsError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::env::{Connection, ShownCertificate};
use crate::log_limiter::LogLimiter;

/// Maximum time for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time to send an error to a client that speaks the wrong protocol.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);
/// Maximum input that is read meanwhile: unread bytes would make the system drop the error.
const GOODBYE_BYTES: u64 = 256 << 10;
/// The first byte of a TLS handshake. No HTTP request begins with it.
const TLS_HANDSHAKE: u8 = 0x16;
/// Size of the buffer for the first bytes.
const FIRST_BYTES: usize = 512;

/// The beginning of an HTTP/2 connection. The rest of the line carries no information.
const HTTP_2_BEGINS: &[u8] = b"PRI";
/// Empty SETTINGS, and GOAWAY with INADEQUATE_SECURITY and this text.
const HTTP_2_TLS_ONLY: &[u8] = b"\
    \0\0\0\x04\0\0\0\0\0\
    \0\0\x37\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0cthis port takes TLS only: connect with --tls-ca";
const HTTP_1_TLS_ONLY: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\n\
    content-length: 40\r\nconnection: close\r\n\r\nthis port takes TLS only: use https://\r\n";
/// Bytes that a TLS client rejects as not TLS. They let it distinguish a port without TLS from a broken one.
const NO_TLS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

/// The protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    Grpc,
    Http,
}

/// The acceptor of connections, with or without TLS.
#[derive(Debug)]
pub(super) struct Acceptor {
    keeper: Option<Arc<CertificateReloader>>,
    plain_too: bool,
    refused: LogLimiter,
    plain: LogLimiter,
}

impl Acceptor {
    pub fn new(keeper: Option<Arc<CertificateReloader>>, plain_too: bool) -> Acceptor {
        Acceptor {
            keeper,
            plain_too,
            refused: LogLimiter::default(),
            plain: LogLimiter::rare(),
        }
    }

    /// Number of suppressed log lines.
    pub fn lines_left_out(&self) -> u64 {
        self.refused.left_out() + self.plain.left_out()
    }

    /// Secures a connection, so that it can be served. Stores the certificate of its remote end in `shown`.
    pub async fn secure(
        self: Arc<Self>,
        connection: Connection,
        from: String,
        port: Port,
        shown: ShownCertificate,
    ) -> io::Result<Connection> {
        let securing = self.meet(connection, &from, port, &shown);
        let met = timeout(HANDSHAKE_TIMEOUT, securing).await;
        let met = met.unwrap_or_else(|_| {
            let within = HANDSHAKE_TIMEOUT.as_secs();
            Err(Refusal::new(format!(
                "no complete handshake or request arrived within {within} s"
            )))
        });
        met.map_err(|Refusal(why)| {
            if let Some(why) = why
                && let Some(left_out) = self.refused.pass()
            {
                tracing::warn!(from, ?port, why, left_out, "connection refused");
            }
            io::ErrorKind::ConnectionAborted.into()
        })
    }

    async fn meet(
        &self,
        mut connection: Connection,
        from: &str,
        port: Port,
        shown: &ShownCertificate,
    ) -> Result<Connection, Refusal> {
        let first = first_bytes(&mut connection).await?;
        let is_tls = first.first() == Some(&TLS_HANDSHAKE);
        let connection = Prefixed::new(first.clone(), connection);
        match (&self.keeper, is_tls) {
            (None, false) => Ok(Box::new(connection)),
            (None, true) => Err(goodbye(
                connection,
                NO_TLS,
                "it uses TLS, which is off on this node (tls_mode)",
            )
            .await),
            (Some(keeper), true) => shake_hands(keeper, connection, port, shown).await,
            (Some(_), false) if self.plain_too => {
                self.note_plain(from, port);
                Ok(Box::new(connection))
            }
            (Some(_), false) => {
                let words = tls_only(&first);
                Err(goodbye(connection, words, "it does not use TLS, and tls_mode is on").await)
            }
        }
    }

    fn note_plain(&self, from: &str, port: Port) {
        if let Some(left_out) = self.plain.pass() {
            tracing::info!(
                from,
                ?port,
                left_out,
                "plain connection accepted, because tls_mode is both"
            );
        }
    }
}

/// Reads the first bytes of a connection: enough to tell its protocol.
async fn first_bytes(connection: &mut Connection) -> Result<Bytes, Refusal> {
    let mut first = BytesMut::with_capacity(FIRST_BYTES);
    while first.len() < HTTP_2_BEGINS.len() && first.first() != Some(&TLS_HANDSHAKE) {
        match connection.read_buf(&mut first).await {
            // A client that only checks if the port is open ends like this.
            Ok(0) | Err(_) if first.is_empty() => return Err(Refusal(None)),
            Ok(0) | Err(_) => {
                return Err(Refusal::new(
                    "it closed the connection within its first bytes",
                ));
            }
            Ok(_) => {}
        }
    }
    Ok(first.freeze())
}

/// Performs the TLS handshake. Stores the certificate of the remote end in `shown`.
async fn shake_hands(
    keeper: &CertificateReloader,
    connection: Prefixed<Connection>,
    port: Port,
    shown: &ShownCertificate,
) -> Result<Connection, Refusal> {
    let certificates = keeper.current();
    let acceptors = certificates.acceptors.as_ref();
    let acceptors = acceptors.ok_or_else(|| Refusal::new("node has no certificate"))?;
    let acceptor = match port {
        Port::Grpc => &acceptors.grpc,
        Port::Http => &acceptors.http,
    };
    match acceptor.accept(connection).await {
        Ok(secured) => {
            if let Some(certificate) = PeerCertificate::of(&secured) {
                // A connection has one handshake, so no other code sets it.
                let _ = shown.set(certificate);
            }
            Ok(Box::new(secured))
        }
        Err(error) => Err(Refusal::new(TlsError::of_accepting(&error).to_string())),
    }
}

/// The answer to a client that began with these bytes and does not use TLS, in its protocol.
fn tls_only(first: &[u8]) -> &'static [u8] {
    let mut begin = first.iter().take(HTTP_2_BEGINS.len());
    if first.starts_with(HTTP_2_BEGINS) {
        HTTP_2_TLS_ONLY
    } else if begin.all(u8::is_ascii_uppercase) {
        HTTP_1_TLS_ONLY
    } else {
        b""
    }
}

/// The reason why a connection is not served; `None` for one that is not worth a log line.
struct Refusal(Option<String>);

impl Refusal {
    fn new(why: impl Into<String>) -> Refusal {
        Refusal(Some(why.into()))
    }
}

/// Sends this text, and waits until it has had time to arrive.
async fn goodbye(connection: Prefixed<Connection>, words: &'static [u8], why: &str) -> Refusal {
    let saying = async {
        let (mut reads, mut writes) = tokio::io::split(connection);
        writes.write_all_buf(&mut Bytes::from_static(words)).await?;
        writes.shutdown().await?;
        let mut rest = (&mut reads).take(GOODBYE_BYTES);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // A client that does not read gets no text.
    let _ = timeout(GOODBYE_WITHIN, saying).await;
    Refusal::new(why)
}
