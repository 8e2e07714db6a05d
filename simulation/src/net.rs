//! The seam's sockets over turmoil's network.

use std::fmt;
use std::io;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use ropewalk_node::env::{Arrival, Connection, Listener, Net};

use crate::gate::Gate;

/// turmoil's network. Addresses are `host:port`, with the simulation's host names.
#[derive(Debug, Default)]
pub struct SimNet {
    /// Gate that every connection of the host passes.
    pub gate: Arc<Gate>,
}

struct SimListener {
    listener: turmoil::net::TcpListener,
    address: String,
    gate: Arc<Gate>,
}

impl fmt::Debug for SimListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimListener({})", self.address)
    }
}

impl Net for SimNet {
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            // A simulated host has one address. It listens on all of them, under its own name.
            let port = address
                .rsplit_once(':')
                .and_then(|(_, port)| port.parse::<u16>().ok());
            let port = port.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
            let listener = turmoil::net::TcpListener::bind(("0.0.0.0", port)).await?;
            let listener = SimListener {
                listener,
                address: address.to_string(),
                gate: self.gate.clone(),
            };
            Ok(Box::new(listener) as Box<dyn Listener>)
        })
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Connection>> {
        Box::pin(async move {
            self.gate.pass().await;
            let stream = turmoil::net::TcpStream::connect(address).await?;
            Ok(self.gate.connection(stream))
        })
    }
}

impl Listener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Arrival>> {
        Box::pin(async move {
            self.gate.pass().await;
            let (stream, from) = self.listener.accept().await?;
            Ok(Arrival::plain(
                self.gate.connection(stream),
                from.to_string(),
            ))
        })
    }

    fn local_address(&self) -> String {
        self.address.clone()
    }
}
