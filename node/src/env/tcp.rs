//! Real sockets.

#![allow(clippy::disallowed_types)] // this is the seam

use std::io;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::net::{TcpListener, TcpStream};

use super::{Arrival, Connection, Listener, Net};

/// TCP with Nagle's algorithm off: data is sent at once, since higher layers batch it.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpNet;

#[derive(Debug)]
struct TcpSocket {
    listener: TcpListener,
    local_address: String,
}

impl Net for TcpNet {
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        async move {
            let listener = TcpListener::bind(address).await?;
            let local_address = listener.local_addr()?.to_string();
            let socket: Box<dyn Listener> = Box::new(TcpSocket {
                listener,
                local_address,
            });
            Ok(socket)
        }
        .boxed()
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Connection>> {
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Connection)
        }
        .boxed()
    }
}

impl Listener for TcpSocket {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Arrival>> {
        async move {
            let (stream, remote) = self.listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok(Arrival::plain(Box::new(stream), remote.to_string()))
        }
        .boxed()
    }

    fn local_address(&self) -> String {
        self.local_address.clone()
    }
}
