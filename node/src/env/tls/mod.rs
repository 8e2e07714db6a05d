//! TLS around any [`Net`]. Every port accepts TLS, plaintext, or both while a cluster migrates; peers are
//! dialed the same way. The port for probes stays in plaintext.
//!
//! Only this room decides how a connection is secured; nothing above the seam knows it. The content of
//! connections does not belong here, except for the error to a client that speaks the wrong protocol.

mod accept;
mod deferred_handshake;
mod dial;
mod watch;

use std::fmt;
use std::io;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ropewalk_tls::CertificateReloader;
pub use ropewalk_tls::{ClientAuth, TlsError, TlsFiles};
use tokio_util::task::AbortOnDropHandle;

use self::accept::{Acceptor, Port};
use self::dial::Dialer;
use super::{Arrival, Clock, Connection, Listener, Net};

/// Security of incoming and outgoing connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsSettings {
    /// Plaintext only.
    Off,
    /// TLS with peers and clients that speak it, plaintext with the others: for the time of a migration.
    Both(TlsFiles, ClientAuth),
    /// TLS only.
    On(TlsFiles, ClientAuth),
}

/// A [`Net`] with secured connections.
pub struct TlsNet {
    inner: Arc<dyn Net>,
    keeper: Option<Arc<CertificateReloader>>,
    acceptor: Arc<Acceptor>,
    dialer: Dialer,
    _watching: Option<AbortOnDropHandle<()>>,
}

impl TlsNet {
    /// Secures the connections of `inner`, and follows changes of the files for as long as this value lives.
    ///
    /// # Errors
    /// The files cannot be used, or contain no certificate for this node.
    pub async fn new(
        inner: Arc<dyn Net>,
        settings: TlsSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<TlsNet, TlsError> {
        let (keeper, plain_too) = match settings {
            TlsSettings::Off => (None, true),
            TlsSettings::Both(files, auth) => (
                Some(Arc::new(CertificateReloader::open(files, auth).await?)),
                true,
            ),
            TlsSettings::On(files, auth) => (
                Some(Arc::new(CertificateReloader::open(files, auth).await?)),
                false,
            ),
        };
        let watching = keeper
            .clone()
            .map(|keeper| tokio::spawn(watch::run(keeper, clock)));
        Ok(TlsNet {
            acceptor: Arc::new(Acceptor::new(keeper.clone(), plain_too)),
            dialer: Dialer::new(keeper.clone(), plain_too),
            inner,
            keeper,
            _watching: watching.map(AbortOnDropHandle::new),
        })
    }

    async fn listen_as(&self, address: &str, port: Port) -> io::Result<Box<dyn Listener>> {
        let inner = self.inner.listen(address).await?;
        Ok(Box::new(TlsListener {
            inner,
            port,
            acceptor: self.acceptor.clone(),
        }))
    }
}

impl Net for TlsNet {
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        self.listen_as(address, Port::Grpc).boxed()
    }

    fn listen_for_operators<'a>(
        &'a self,
        address: &'a str,
    ) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        self.listen_as(address, Port::Http).boxed()
    }

    fn listen_for_probes<'a>(
        &'a self,
        address: &'a str,
    ) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        self.inner.listen(address)
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Connection>> {
        self.dialer.connect(&*self.inner, address).boxed()
    }

    fn certificate_not_after_ms(&self) -> Option<i64> {
        self.keeper.as_ref()?.current().not_after_ms
    }

    fn log_lines_left_out(&self) -> u64 {
        self.acceptor.lines_left_out() + self.dialer.lines_left_out()
    }
}

#[derive(Debug)]
struct TlsListener {
    inner: Box<dyn Listener>,
    port: Port,
    acceptor: Arc<Acceptor>,
}

impl Listener for TlsListener {
    /// Returns before the handshake. The connection's server drives the handshake, so it delays no other
    /// connection. It is bounded, counted and cut off like the connection.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Arrival>> {
        async move {
            let arrival = self.inner.accept().await?;
            let secured = self.acceptor.clone().secure(
                arrival.connection,
                arrival.from.clone(),
                self.port,
                arrival.certificate.clone(),
            );
            Ok(Arrival {
                connection: Box::new(deferred_handshake::DeferredHandshake::new(secured.boxed())),
                ..arrival
            })
        }
        .boxed()
    }

    fn local_address(&self) -> String {
        self.inner.local_address()
    }
}

impl fmt::Debug for TlsNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsNet")
            .field("inner", &self.inner)
            .field("keeper", &self.keeper)
            .finish_non_exhaustive()
    }
}
