//! Clients that speak the wrong protocol, have the wrong certificate, or send nothing at all.

use std::sync::Arc;
use std::time::Duration;

use ropewalk_client::{Client, Error, ErrorKind, Tls};
use ropewalk_node::env::tls::{ClientAuth, TlsSettings};
use ropewalk_node::env::{Connection, Net, TcpNet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::certificates::{Authority, Folder, HOST};
use crate::support::{AT_ONCE, Node, builder, identity, on, one, own_files};

/// Connections to each port. Fewer than the node's limit, so it accepts all of them.
const CROWD: usize = 100;

async fn refused(nodes: &[Node], tls: Option<Tls>) -> Error {
    let mut builder = builder(nodes);
    if let Some(tls) = tls {
        builder = builder.tls(tls);
    }
    let refused = timeout(AT_ONCE, builder.connect()).await;
    let error = refused.expect("told at once").expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    assert!(
        error.to_string().contains(&nodes[0].config.listen),
        "{error}"
    );
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_learns_at_once_why_it_and_the_node_do_not_come_together() {
    let (ours, folder) = own_files();
    let foreign = Authority::new("foreign");
    let trusts = || Some(Tls::new(folder.path("ca.pem")));

    let plain = one(TlsSettings::Off).await;
    let error = refused(&plain, trusts()).await;
    assert!(error.to_string().contains("does not use TLS"), "{error}");

    let secured = one(on(&folder, ClientAuth::Required)).await;
    for _ in 0..5 {
        let error = refused(&secured, None).await;
        assert!(error.to_string().contains("accepts TLS only"), "{error}");
    }
    let error = refused(&secured, trusts()).await;
    assert!(error.to_string().contains("--tls-cert"), "{error}");
    for issued in [foreign.issue("c", 10), ours.issue("c", -1)] {
        let client = Folder::new(&[&ours], &issued);
        let error = refused(&secured, Some(identity(&client.files()))).await;
        assert!(
            error
                .to_string()
                .contains("refused this side's certificate"),
            "{error}"
        );
    }

    let wrong = [
        (foreign.issue(HOST, 10), "signed by no CA"),
        (ours.issue(HOST, -1), "has expired"),
        (ours.issue("elsewhere.example", 10), "elsewhere.example"),
    ];
    for (issued, why) in wrong {
        let node = Folder::new(&[&ours], &issued);
        let nodes = one(on(&node, ClientAuth::None)).await;
        let error = refused(&nodes, trusts()).await;
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_is_named_before_anybody_is_asked() {
    let (_ours, folder) = own_files();
    let files = [
        Tls::new(folder.path("nowhere.pem")),
        Tls::new(folder.path("key.pem")),
    ];
    for tls in files {
        let error = Client::builder(["127.0.0.1:1"]).tls(tls).connect().await;
        let error = error.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.to_string().contains(".pem"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_says_nothing_or_nonsense_holds_nobody_up() {
    let (_ours, folder) = own_files();
    let nodes = one(on(&folder, ClientAuth::None)).await;
    let said: [&[u8]; 6] = [
        b"",
        b"\x16",
        b"\x16\x03\x01\xff\xff\x01\xff\xff\xff nonsense",
        b"P",
        b"\xff\xfe\xfd\xfc",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    let mut open: Vec<Connection> = Vec::new();
    for address in [Some(&nodes[0].config.listen), nodes[0].config.http.as_ref()] {
        let address = address.expect("a port");
        for number in 0..CROWD {
            let mut connection = TcpNet.connect(address).await.expect("a connection");
            let words = said[number % said.len()];
            connection.write_all(words).await.expect("taken");
            open.push(connection);
        }
    }
    let client = builder(&nodes)
        .tls(Tls::new(folder.path("ca.pem")))
        .connect();
    let client = timeout(AT_ONCE, client).await.expect("served at once");
    client
        .expect("trusted")
        .admin()
        .topics()
        .await
        .expect("served");
    drop(open);
}

/// The HTTP port's answer to a client without a certificate.
async fn ask(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) -> String {
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.expect("taken");
    let mut answer = Vec::new();
    // Some servers end the connection without a close notification.
    let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_show_no_certificate_and_speak_tls_where_it_is_on() {
    let (ours, folder) = own_files();
    let nodes = one(on(&folder, ClientAuth::Required)).await;
    let http = nodes[0].config.http.clone().expect("a port");
    let plain = ask(TcpNet.connect(&http).await.expect("a connection")).await;
    assert!(plain.starts_with("HTTP/1.1 400"), "{plain}");
    assert!(plain.contains("https"), "{plain}");

    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(ours.pem().as_bytes()).expect("PEM");
    roots.add(root).expect("an authority");
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connection = TcpNet.connect(&http).await.expect("a connection");
    let name = ServerName::try_from(HOST).expect("a host");
    let secured = TlsConnector::from(Arc::new(config))
        .connect(name, connection)
        .await;
    let secured = ask(secured.expect("no certificate is asked for")).await;
    assert!(secured.starts_with("HTTP/1.1 200"), "{secured}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_for_probes_is_plain_where_tls_is_on() {
    let (_ours, folder) = own_files();
    let nodes = one(on(&folder, ClientAuth::Required)).await;
    let probes = nodes[0].config.probes.clone().expect("a port");
    let answer = ask(TcpNet.connect(&probes).await.expect("a connection")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
