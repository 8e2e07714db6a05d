//! The seam's sockets over turmoil's network.

use std::fmt;
use std::io;

use futures_util::future::BoxFuture;
use ropewalk_node::env::{Connection, Listener, Net};

/// turmoil's network. Addresses are `host:port`, with the simulation's host names.
#[derive(Debug)]
pub struct SimNet;

struct SimListener {
    listener: turmoil::net::TcpListener,
    address: String,
}

impl fmt::Debug for SimListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimListener({})", self.address)
    }
}

impl Net for SimNet {
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            // A simulated host has one address; it listens on all of them, under its own name.
            let port = address
                .rsplit_once(':')
                .and_then(|(_, port)| port.parse::<u16>().ok());
            let port = port.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
            let listener = turmoil::net::TcpListener::bind(("0.0.0.0", port)).await?;
            let listener = SimListener {
                listener,
                address: address.to_string(),
            };
            Ok(Box::new(listener) as Box<dyn Listener>)
        })
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Connection>> {
        Box::pin(async move {
            let stream = turmoil::net::TcpStream::connect(address).await?;
            Ok(Box::new(stream) as Connection)
        })
    }
}

impl Listener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Connection, String)>> {
        Box::pin(async move {
            let (stream, from) = self.listener.accept().await?;
            Ok((Box::new(stream) as Connection, from.to_string()))
        })
    }

    fn local_address(&self) -> String {
        self.address.clone()
    }
}
