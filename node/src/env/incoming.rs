//! The connections a server is given: bounded in number, and ended with their server, whatever the
//! other end makes of it, or once the other end has fallen silent.
//!
//! Only what every listener shares may stand here; what is said on a connection may not.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::{Connection, Listener};
use crate::valve::Valve;

/// How long accepting rests after an error such as "too many open files", which would otherwise
/// come back at once, for ever.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A connection on which nothing has come for this long is over. Whoever speaks HTTP/2 answers the
/// server's pings, which come far more often; this is for those who never began to, or take nothing of
/// what they asked for, and would keep their place for ever.
const SILENT_AFTER: Duration = Duration::from_secs(60);

/// The connections of one listener.
#[derive(Debug)]
pub struct Incoming {
    listener: Box<dyn Listener>,
    seen: Arc<Connections>,
    cut: CancellationToken,
}

/// What a listener's connections are counted by.
#[derive(Debug)]
pub struct Connections {
    bound: usize,
    places: Arc<Semaphore>,
    opened: AtomicU64,
    refused: AtomicU64,
    refusals: Valve,
    failures: Valve,
}

impl Connections {
    /// How many are open, and how many may be.
    pub fn open(&self) -> (usize, usize) {
        let free = self.places.available_permits();
        (self.bound.saturating_sub(free), self.bound)
    }

    /// How many were taken, and how many were closed at once.
    pub fn taken(&self) -> (u64, u64) {
        let taken = self.opened.load(Ordering::Relaxed);
        (taken, self.refused.load(Ordering::Relaxed))
    }

    /// Lines of the log left out.
    pub fn lines_left_out(&self) -> u64 {
        self.refusals.left_out() + self.failures.left_out()
    }
}

impl Incoming {
    /// The connections of `listener`, at most `bound` open at any time. They break once `cut` is
    /// cancelled: a client that holds a stream open must not keep alive what it was served from.
    pub fn new(listener: Box<dyn Listener>, bound: usize, cut: CancellationToken) -> Incoming {
        let bound = bound.min(Semaphore::MAX_PERMITS);
        let seen = Connections {
            bound,
            places: Arc::new(Semaphore::new(bound)),
            opened: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            refusals: Valve::default(),
            failures: Valve::default(),
        };
        Incoming {
            listener,
            seen: Arc::new(seen),
            cut,
        }
    }

    /// What its connections are counted by.
    pub fn seen(&self) -> Arc<Connections> {
        self.seen.clone()
    }

    /// The address bound, `host:port`.
    pub fn local_address(&self) -> String {
        self.listener.local_address()
    }

    /// The next connection, and the address it comes from. One too many is closed at once, so that
    /// its owner hears of it instead of waiting.
    pub async fn next(&mut self) -> (Accepted, String) {
        loop {
            let (connection, from) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    if let Some(left_out) = self.seen.failures.pass() {
                        let at = self.local_address();
                        tracing::warn!(%error, at, left_out, "accepting a connection failed; going on");
                    }
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = self.seen.places.clone().try_acquire_owned() else {
                self.seen.refused.fetch_add(1, Ordering::Relaxed);
                if let Some(left_out) = self.seen.refusals.pass() {
                    tracing::warn!(
                        from,
                        at = self.local_address(),
                        bound = self.seen.bound,
                        left_out,
                        "a connection was closed at once: the most connections this node allows are open"
                    );
                }
                continue;
            };
            self.seen.opened.fetch_add(1, Ordering::Relaxed);
            let accepted = Accepted {
                connection,
                cut: Box::pin(self.cut.clone().cancelled_owned()),
                heard: Instant::now(),
                silence: Box::pin(sleep(SILENT_AFTER)),
                _place: place,
            };
            return (accepted, from);
        }
    }

    /// All connections, as tonic's `serve_with_incoming_shutdown` takes them; it never ends.
    pub fn into_stream(self) -> impl futures_util::Stream<Item = io::Result<Accepted>> + Send {
        futures_util::stream::unfold(self, async |mut incoming| {
            let (accepted, _) = incoming.next().await;
            Some((Ok(accepted), incoming))
        })
    }
}

/// A connection that counts towards its listener's bound until it is dropped. Whoever serves it reads
/// from it or waits to write, so it is enough that those fail when it is over.
pub struct Accepted {
    connection: Connection,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// When something last came.
    heard: Instant,
    silence: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Accepted {
    /// Whether nothing has come for too long. Set anew only when it seems so, since connections are
    /// read far more often than that.
    fn is_silent(&mut self, cx: &mut Context<'_>) -> bool {
        while self.silence.poll_unpin(cx).is_ready() {
            let until = self.heard + SILENT_AFTER;
            if until <= Instant::now() {
                return true;
            }
            self.silence.as_mut().reset(until);
        }
        false
    }

    /// Gives up a write that waits for somebody who is silent: HTTP/1 does not read meanwhile.
    fn unless_silent<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match written.is_pending() && self.is_silent(cx) {
            true => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            false => written,
        }
    }
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Accepted")
    }
}

impl Connected for Accepted {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.poll_unpin(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let read = Pin::new(&mut self.connection).poll_read(cx, buf);
        if read.is_ready() {
            self.heard = Instant::now();
        } else if self.is_silent(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.connection).poll_write(cx, buf);
        self.unless_silent(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.connection).poll_write_vectored(cx, bufs);
        self.unless_silent(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.connection).poll_flush(cx);
        self.unless_silent(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{Net, TcpNet};
    use futures_util::future::BoxFuture;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    #[tokio::test]
    async fn a_connection_over_the_bound_is_closed_and_room_is_made_by_the_next_close() {
        let listener = TcpNet.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address();
        let mut connections = Incoming::new(listener, 1, CancellationToken::new());

        let mut first = TcpNet.connect(&address).await.unwrap();
        let (mut served, _) = connections.next().await;
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
        connections.next().await;
    }

    #[tokio::test]
    async fn a_connection_that_nobody_closes_ends_with_its_server() {
        let listener = TcpNet.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address();
        let cut = CancellationToken::new();
        let mut connections = Incoming::new(listener, 1, cut.clone());
        let mut client = TcpNet.connect(&address).await.unwrap();
        let (mut served, _) = connections.next().await;
        client.write_all(b"a").await.unwrap();
        assert_eq!(served.read_u8().await.unwrap(), b'a');

        let reading = tokio::spawn(async move { served.read_u8().await });
        cut.cancel();
        let error = reading.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        assert!(client.read_u8().await.is_err());
    }

    /// Hands out one connection, and then waits.
    #[derive(Debug)]
    struct Once(Option<DuplexStream>);

    impl Listener for Once {
        fn accept(&mut self) -> BoxFuture<'_, io::Result<(Connection, String)>> {
            match self.0.take() {
                Some(stream) => {
                    let connection: Connection = Box::new(stream);
                    futures_util::future::ok((connection, "somewhere:1".into())).boxed()
                }
                None => futures_util::future::pending().boxed(),
            }
        }

        fn local_address(&self) -> String {
            "here:1".into()
        }
    }

    /// The other end of a connection over which 64 bytes go at a time, and what is served.
    async fn connected() -> (DuplexStream, Accepted) {
        let (client, server) = tokio::io::duplex(64);
        let listener = Box::new(Once(Some(server)));
        let mut connections = Incoming::new(listener, 1, CancellationToken::new());
        (client, connections.next().await.0)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_over_once_nothing_of_what_was_asked_for_is_taken_for_too_long() {
        let (_client, mut served) = connected().await;
        let begun = Instant::now();
        let error = served.write_all(&[0; 65]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= SILENT_AFTER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_over_once_nothing_has_come_for_too_long() {
        let (mut client, mut served) = connected().await;
        let begun = Instant::now();
        let wait = SILENT_AFTER * 2 / 3;
        let talking = tokio::spawn(async move {
            for _ in 0..3 {
                sleep(wait).await;
                client.write_all(b"a").await.unwrap();
            }
            // Stays open.
            client
        });
        for _ in 0..3 {
            assert_eq!(served.read_u8().await.unwrap(), b'a');
        }
        let error = served.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let silent = begun.elapsed() - wait * 3;
        assert!(
            silent >= SILENT_AFTER && silent < SILENT_AFTER + wait,
            "{silent:?}"
        );
        drop(talking);
    }
}
