//! A connection whose handshake runs at its first use.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::env::Connection;

/// A connection whose reads and writes first complete the handshake. Its user must use it from one task.
pub(super) enum DeferredHandshake {
    Securing(BoxFuture<'static, io::Result<Connection>>),
    Open(Connection),
    Failed,
}

impl DeferredHandshake {
    pub fn new(securing: BoxFuture<'static, io::Result<Connection>>) -> DeferredHandshake {
        DeferredHandshake::Securing(securing)
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut Connection>>> {
        if let DeferredHandshake::Securing(securing) = self {
            match ready!(securing.as_mut().poll(cx)) {
                Ok(connection) => *self = DeferredHandshake::Open(connection),
                Err(error) => {
                    *self = DeferredHandshake::Failed;
                    return Poll::Ready(Err(error));
                }
            }
        }
        match self {
            DeferredHandshake::Open(connection) => Poll::Ready(Ok(Pin::new(connection))),
            _ => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncRead for DeferredHandshake {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?.poll_read(cx, buf)
    }
}

impl AsyncWrite for DeferredHandshake {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx))?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx))?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            DeferredHandshake::Open(connection) => connection.is_write_vectored(),
            // The caller asks once, at the beginning. A stream without vectored writes takes the first
            // buffer.
            _ => true,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?.poll_flush(cx)
    }

    /// Before the handshake is complete, there is no session to close.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            DeferredHandshake::Open(connection) => Pin::new(connection).poll_shutdown(cx),
            _ => {
                *self = DeferredHandshake::Failed;
                Poll::Ready(Ok(()))
            }
        }
    }
}
