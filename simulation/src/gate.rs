//! The gate between a process and its machine. All network and disk traffic of a simulated process passes its
//! host's gate, which can hold it up, slow it down or cut it off.
//!
//! A closed gate pauses a process, since turmoil runs every host at every tick. Nothing from the process
//! reaches a socket or the disk, and nothing comes in. Connections stay open, calls pile up, and all of them
//! come through at once when the gate opens.
//!
//! The gate does not cover timers: the process's timers keep firing. It may therefore give up a leadership or
//! begin an election before the gate opens, while a stopped process would find out only then.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use parking_lot::Mutex;
use ropewalk_node::env::Connection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// The gate of one host.
#[derive(Debug, Default)]
pub struct Gate(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    closed: bool,
    /// Bytes that one connection may send in a millisecond, if that is bounded.
    bytes_per_ms: Option<usize>,
    /// Counts of calls that were held up or slowed down.
    held: u64,
    slowed: u64,
    /// Disk calls that wait for the gate to open.
    waiting: Vec<Waker>,
    /// The open connections: each with its cut mark and the tasks that wait for it.
    connections: BTreeMap<u64, Ends>,
    next: u64,
}

#[derive(Debug, Default)]
struct Ends {
    cut: bool,
    reading: Option<Waker>,
    writing: Option<Waker>,
}

impl Gate {
    /// Holds up everything from now on.
    pub fn close(&self) {
        self.0.lock().closed = true;
    }

    /// Lets through everything that was held up. Returns the number of calls held up since the last time.
    pub fn open(&self) -> u64 {
        let (waiting, held) = {
            let mut state = self.0.lock();
            state.closed = false;
            (state.waiting(), std::mem::take(&mut state.held))
        };
        waiting.into_iter().for_each(Waker::wake);
        held
    }

    /// True if the gate lets nothing through.
    pub fn is_closed(&self) -> bool {
        self.0.lock().closed
    }

    /// Cuts every open connection; new ones can be made at once. Returns the number of connections cut.
    pub fn cut_connections(&self) -> usize {
        let (waiting, cut) = {
            let mut state = self.0.lock();
            let whole = state.connections.values_mut().filter(|ends| !ends.cut);
            let cut = whole.map(|ends| ends.cut = true).count();
            (state.waiting(), cut)
        };
        waiting.into_iter().for_each(Waker::wake);
        cut
    }

    /// Bounds the bytes that one connection sends in a millisecond; `None` removes the bound. Returns the
    /// number of calls slowed down since the last time.
    pub fn set_bytes_per_ms(&self, bytes_per_ms: Option<usize>) -> u64 {
        let mut state = self.0.lock();
        state.bytes_per_ms = bytes_per_ms;
        std::mem::take(&mut state.slowed)
    }

    /// Waits until the gate is open.
    pub async fn pass(&self) {
        std::future::poll_fn(|context| {
            let mut state = self.0.lock();
            if !state.closed {
                return Poll::Ready(());
            }
            state.held += 1;
            state.waiting.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// A connection behind the gate.
    pub fn connection(self: &Arc<Gate>, stream: turmoil::net::TcpStream) -> Connection {
        let mut state = self.0.lock();
        let number = state.next;
        state.next += 1;
        state.connections.insert(number, Ends::default());
        Box::new(Gated {
            gate: self.clone(),
            number,
            stream,
            rest: None,
        })
    }
}

impl State {
    /// All waiting tasks. The caller wakes them after it has released the lock.
    fn waiting(&mut self) -> Vec<Waker> {
        let mut waiting = std::mem::take(&mut self.waiting);
        for ends in self.connections.values_mut() {
            waiting.extend(
                [ends.reading.take(), ends.writing.take()]
                    .into_iter()
                    .flatten(),
            );
        }
        waiting
    }
}

#[derive(Clone, Copy)]
enum Way {
    In,
    Out,
}

/// One connection behind a gate.
struct Gated {
    gate: Arc<Gate>,
    number: u64,
    stream: turmoil::net::TcpStream,
    /// End of the pause after enough was sent on a slow link.
    rest: Option<Pin<Box<Sleep>>>,
}

impl Gated {
    /// Ready with the number of bytes that may be sent now, if the gate lets this connection through.
    fn pass(&self, context: &mut Context<'_>, way: Way) -> Poll<io::Result<Option<usize>>> {
        let mut state = self.gate.0.lock();
        let (closed, bytes_per_ms) = (state.closed, state.bytes_per_ms);
        state.held += u64::from(closed);
        let Some(ends) = state.connections.get_mut(&self.number) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        // A task that waits inside must learn of a cut, too.
        let waiting = match way {
            Way::In => &mut ends.reading,
            Way::Out => &mut ends.writing,
        };
        *waiting = Some(context.waker().clone());
        match (ends.cut, closed) {
            (_, true) => Poll::Pending,
            (true, false) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            (false, false) => Poll::Ready(Ok(bytes_per_ms)),
        }
    }

    fn send(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
        bound: Option<usize>,
    ) -> Poll<io::Result<usize>> {
        let Some(bound) = bound else {
            self.rest = None;
            return Pin::new(&mut self.stream).poll_write(context, bytes);
        };
        if let Some(rest) = &mut self.rest {
            ready!(rest.as_mut().poll(context));
        }
        let now = &bytes[..bytes.len().min(bound)];
        let sent = ready!(Pin::new(&mut self.stream).poll_write(context, now))?;
        if sent < bytes.len() {
            self.gate.0.lock().slowed += 1;
        }
        let until = Instant::now() + Duration::from_millis(1);
        self.rest = Some(Box::pin(sleep_until(until)));
        Poll::Ready(Ok(sent))
    }
}

impl Drop for Gated {
    fn drop(&mut self) {
        self.gate.0.lock().connections.remove(&self.number);
    }
}

impl AsyncRead for Gated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.pass(context, Way::In))?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Gated {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let bound = ready!(self.pass(context, Way::Out))?;
        self.send(context, bytes, bound)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.pass(context, Way::Out))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.pass(context, Way::Out))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
