//! The connections a server is given: bounded in number, each with the address it came from.
//!
//! Only what every listener shares may stand here; what is said on a connection may not.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::Connected;

use super::{Connection, Listener};

/// How long accepting rests after an error such as "too many open files", which would otherwise
/// come back at once, for ever.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection that counts towards its listener's bound until it is dropped.
pub struct Accepted {
    connection: Connection,
    remote: Remote,
    _place: OwnedSemaphorePermit,
}

/// Where a connection came from; tonic puts it into every request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// host:port of the other end.
    pub address: Arc<str>,
}

/// The connections of `listener`, at most `bound` open at any time: one too many is closed at
/// once, so that its owner hears of it instead of waiting. Never yields an error and never ends.
/// For tonic's `serve_with_incoming_shutdown`.
pub fn incoming(
    listener: Box<dyn Listener>,
    bound: usize,
) -> impl Stream<Item = io::Result<Accepted>> + Send {
    let places = Arc::new(Semaphore::new(bound.min(Semaphore::MAX_PERMITS)));
    futures_util::stream::unfold(
        (listener, places),
        move |(mut listener, places)| async move {
            loop {
                let (connection, address) = match listener.accept().await {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        let at = listener.local_address();
                        tracing::warn!(%error, at, "accepting a connection failed; going on");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                let Ok(place) = places.clone().try_acquire_owned() else {
                    tracing::warn!(
                        from = address,
                        bound,
                        "a connection was closed at once: the most connections this node allows are open"
                    );
                    continue;
                };
                let accepted = Accepted {
                    connection,
                    remote: Remote {
                        address: address.into(),
                    },
                    _place: place,
                };
                return Some((Ok(accepted), (listener, places)));
            }
        },
    )
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection from {}", self.remote.address)
    }
}

impl Connected for Accepted {
    type ConnectInfo = Remote;

    fn connect_info(&self) -> Remote {
        self.remote.clone()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{Net, TcpNet};
    use futures_util::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_connection_over_the_bound_is_closed_and_room_is_made_by_the_next_close() {
        let listener = TcpNet.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address();
        let mut connections = Box::pin(incoming(listener, 1));

        let mut first = TcpNet.connect(&address).await.unwrap();
        let mut served = connections.next().await.unwrap().unwrap();
        first.write_all(b"a").await.unwrap();
        assert_eq!(served.read_u8().await.unwrap(), b'a');

        let mut second = TcpNet.connect(&address).await.unwrap();
        let mut byte = [0; 1];
        tokio::select! {
            _ = connections.next() => panic!("the second connection was let in"),
            read = second.read(&mut byte) => assert_eq!(read.unwrap_or(0), 0),
        }

        drop(served);
        let _third = TcpNet.connect(&address).await.unwrap();
        connections.next().await.unwrap().unwrap();
    }
}
