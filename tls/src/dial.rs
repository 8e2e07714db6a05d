//! Handshake of the dialing side.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::error::TlsError;
use crate::material::Certificates;
use crate::prefixed::Prefixed;

/// Maximum time to wait for the node's first bytes.
const FIRST_WORD_WITHIN: Duration = Duration::from_millis(500);
/// Room for the node's first bytes.
const FIRST_WORD_BYTES: usize = 256;

/// A connection that TLS protects.
pub type Dialed<S> = Prefixed<TlsStream<S>>;

/// Starts TLS on `stream`, which leads to `address`, `host:port`. The node's certificate must be for that
/// host.
///
/// In TLS 1.3 a node checks the dialing side's certificate after that side has finished the handshake. So
/// only the node's next bytes show that it accepts the certificate. In HTTP/2 a node sends first. This
/// waits for those bytes, so that a refusal is a connection error with its reason.
///
/// # Errors
/// An [`io::Error`] with a [`TlsError`] inside.
pub async fn dial<S>(stream: S, address: &str, certificates: &Certificates) -> io::Result<Dialed<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let because = |error: io::Error| io::Error::from(TlsError::of_dialing(address, &error));
    let name = server_name(address)?;
    let mut stream = certificates
        .connector
        .connect(name, stream)
        .await
        .map_err(because)?;
    let mut first = BytesMut::with_capacity(FIRST_WORD_BYTES);
    match timeout(FIRST_WORD_WITHIN, stream.read_buf(&mut first)).await {
        Ok(Ok(0)) => Err(because(io::ErrorKind::UnexpectedEof.into())),
        Ok(Err(error)) => Err(because(error)),
        // Some proxies wait for the client to send first.
        Ok(Ok(_)) | Err(_) => Ok(Prefixed::new(first.freeze(), stream)),
    }
}

/// The host of `host:port`, as a certificate names it.
pub(crate) fn server_name(address: &str) -> io::Result<ServerName<'static>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    ServerName::try_from(host.to_owned()).map_err(|_| {
        let why = format!("address {address} has a host that no certificate can name: {host:?}");
        io::Error::new(io::ErrorKind::InvalidInput, why)
    })
}
