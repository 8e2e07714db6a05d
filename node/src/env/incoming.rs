//! Connections for a server: limited in number. They end with their server, even if the remote end does
//! nothing, or once the remote end is silent for too long.
//!
//! Only code that every listener shares may be here; nothing about the protocol on a connection may.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use super::connections::{ConnectionBounds, Connections, Remote};
use super::{Arrival, Connection, Listener};

/// Pause after an error such as "too many open files". Without it the error would return at once, forever.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time without input after which a connection ends. HTTP/2 clients answer the server's pings, which come far
/// more often. The limit is for clients that never begin to speak it, or that do not read their answers: they
/// would hold their connection forever.
const SILENT_AFTER: Duration = Duration::from_secs(60);

/// The connections of one listener.
#[derive(Debug)]
pub struct Incoming {
    listener: Box<dyn Listener>,
    seen: Arc<Connections>,
    cut: CancellationToken,
}

impl Incoming {
    /// The connections of `listener`, within these limits. They break once `cut` is cancelled: a client that
    /// holds a stream open must not keep its server's resources alive.
    pub fn new(
        listener: Box<dyn Listener>,
        bounds: ConnectionBounds,
        cut: CancellationToken,
    ) -> Incoming {
        Incoming {
            listener,
            seen: Arc::new(Connections::new(bounds)),
            cut,
        }
    }

    /// The counters of its connections.
    pub fn seen(&self) -> Arc<Connections> {
        self.seen.clone()
    }

    /// The address bound, `host:port`.
    pub fn local_address(&self) -> String {
        self.listener.local_address()
    }

    /// Waits for the next connection. Returns it with the address it comes from. A connection above the limit
    /// is closed at once, so that its client notices instead of waiting.
    pub async fn next(&mut self) -> (Accepted, String) {
        loop {
            let arrival = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    if let Some(left_out) = self.seen.failures.pass() {
                        let at = self.local_address();
                        tracing::warn!(
                            %error,
                            at,
                            left_out,
                            "accepting a connection failed; retrying"
                        );
                    }
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Arrival {
                connection,
                from,
                certificate,
            } = arrival;
            let Some(remote) = self.seen.admit(&from, &self.cut) else {
                if let Some(left_out) = self.seen.refusals.pass() {
                    tracing::warn!(
                        from,
                        at = self.local_address(),
                        bound = self.seen.open().1,
                        left_out,
                        "connection closed at once: the node's limit, or this address's half of \
                         it, is in use; raise limits.connections, or limits.probe_connections for \
                         the port of --probes"
                    );
                }
                continue;
            };
            let accepted = Accepted {
                connection,
                cut: Box::pin(remote.ended()),
                heard: Instant::now(),
                silence: Box::pin(sleep(SILENT_AFTER)),
                remote: remote.showing(certificate),
            };
            return (accepted, from);
        }
    }

    /// All connections in the form that tonic's `serve_with_incoming_shutdown` expects; it never ends.
    pub fn into_stream(self) -> impl futures_util::Stream<Item = io::Result<Accepted>> + Send {
        futures_util::stream::unfold(self, async |mut incoming| {
            let (accepted, _) = incoming.next().await;
            Some((Ok(accepted), incoming))
        })
    }
}

/// A connection that counts towards its listener's limit until it is dropped. Its server always reads or
/// waits to write, so the connection ends once both fail.
pub struct Accepted {
    connection: Connection,
    cut: BoxFuture<'static, ()>,
    /// Time of the last input.
    heard: Instant,
    silence: Pin<Box<Sleep>>,
    remote: Remote,
}

impl Accepted {
    /// The remote end of the connection.
    pub fn remote(&self) -> Remote {
        self.remote.clone()
    }

    fn is_cut(&mut self, cx: &mut Context<'_>) -> bool {
        self.remote.is_cut() || self.cut.poll_unpin(cx).is_ready()
    }

    /// True if nothing has arrived for too long. The timer is reset only when it fires, since reads are far
    /// more frequent.
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

    /// Fails a pending write if the connection is over or its remote end is silent for too long: HTTP/1 does
    /// not read meanwhile.
    fn unless_over<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            return written;
        }
        if self.is_cut(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        match self.is_silent(cx) {
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

impl Drop for Accepted {
    fn drop(&mut self) {
        self.remote.leaves();
    }
}

impl Connected for Accepted {
    type ConnectInfo = Remote;

    fn connect_info(&self) -> Remote {
        self.remote()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_cut(cx) {
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
        self.unless_over(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.connection).poll_write_vectored(cx, bufs);
        self.unless_over(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.connection).poll_flush(cx);
        self.unless_over(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{Net, TcpNet};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    #[tokio::test]
    async fn a_connection_over_the_bound_is_closed_and_room_is_made_by_the_next_close() {
        let listener = TcpNet.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address();
        let mut connections =
            Incoming::new(listener, ConnectionBounds::of(1), CancellationToken::new());

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
    async fn a_connection_that_makes_room_is_closed_while_nothing_is_said_on_it() {
        let listener = TcpNet.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address();
        let bounds = ConnectionBounds::of(1);
        let mut connections = Incoming::new(listener, bounds, CancellationToken::new());
        let _idle = TcpNet.connect(&address).await.unwrap();
        let (mut served, _) = connections.next().await;
        let reading = tokio::spawn(async move { served.read_u8().await });
        // Longer than the time for which a new connection is kept.
        sleep(Duration::from_millis(1_100)).await;
        let _second = TcpNet.connect(&address).await.unwrap();
        connections.next().await;
        let error = reading.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn a_connection_that_nobody_closes_ends_with_its_server() {
        let listener = TcpNet.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address();
        let cut = CancellationToken::new();
        let mut connections = Incoming::new(listener, ConnectionBounds::of(1), cut.clone());
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

    /// A listener that returns one connection and then none.
    #[derive(Debug)]
    struct Once(Option<DuplexStream>);

    impl Listener for Once {
        fn accept(&mut self) -> BoxFuture<'_, io::Result<Arrival>> {
            match self.0.take() {
                Some(stream) => {
                    let connection: Connection = Box::new(stream);
                    let arrival = Arrival::plain(connection, "somewhere:1".into());
                    futures_util::future::ok(arrival).boxed()
                }
                None => futures_util::future::pending().boxed(),
            }
        }

        fn local_address(&self) -> String {
            "here:1".into()
        }
    }

    /// The remote end of a connection that buffers 64 bytes, and its served end.
    async fn connected() -> (DuplexStream, Accepted) {
        let (client, server) = tokio::io::duplex(64);
        let listener = Box::new(Once(Some(server)));
        let mut connections =
            Incoming::new(listener, ConnectionBounds::of(1), CancellationToken::new());
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
