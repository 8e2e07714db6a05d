//! A listener whose connections end when their server does, whatever the other end makes of it: a
//! client that holds a stream open must not keep alive what the stream was served from.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{Connection, Listener};

/// `listener`, with connections that break once `cut` is cancelled.
pub fn until(listener: Box<dyn Listener>, cut: CancellationToken) -> Box<dyn Listener> {
    Box::new(Until { listener, cut })
}

#[derive(Debug)]
struct Until {
    listener: Box<dyn Listener>,
    cut: CancellationToken,
}

impl Listener for Until {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Connection, String)>> {
        async {
            let (connection, from) = self.listener.accept().await?;
            let connection: Connection = Box::new(Cuttable {
                connection,
                cut: Box::pin(self.cut.clone().cancelled_owned()),
            });
            Ok((connection, from))
        }
        .boxed()
    }

    fn local_address(&self) -> String {
        self.listener.local_address()
    }
}

/// Whoever serves a connection always reads from it, so it is enough that reading fails.
struct Cuttable {
    connection: Connection,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl fmt::Debug for Cuttable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cuttable")
    }
}

impl AsyncRead for Cuttable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.poll_unpin(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.connection).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cuttable {
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_connection_that_nobody_closes_ends_with_its_server() {
        let listener = TcpNet.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address();
        let cut = CancellationToken::new();
        let mut listener = until(listener, cut.clone());
        let mut client = TcpNet.connect(&address).await.unwrap();
        let (mut served, _) = listener.accept().await.unwrap();
        client.write_all(b"a").await.unwrap();
        assert_eq!(served.read_u8().await.unwrap(), b'a');

        let reading = tokio::spawn(async move { served.read_u8().await });
        cut.cancel();
        let error = reading.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        assert!(client.read_u8().await.is_err());
    }
}
