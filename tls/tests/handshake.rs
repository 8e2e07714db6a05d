//! Two sides over a stream in memory: trust between them, and the errors without it.

use std::io;

use ropewalk_tls::{
    CertificateReloader, Certificates, ClientAuth, Fault, PeerCertificate, TlsError, TlsFiles, dial,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[allow(dead_code, reason = "each file of tests uses a part")]
mod certificates;
use certificates::{Authority, Folder, HOST};

const ADDRESS: &str = "127.0.0.1:7101";

async fn open(files: TlsFiles, auth: ClientAuth) -> std::sync::Arc<Certificates> {
    CertificateReloader::open(files, auth)
        .await
        .expect("good files")
        .current()
}

/// Outcome of a handshake for each side. The node greets a side that it accepts.
async fn meet(
    node: &Certificates,
    dialing: &Certificates,
) -> (Result<(), TlsError>, Result<(), TlsError>) {
    let (here, there) = tokio::io::duplex(64 << 10);
    let acceptor = node.acceptors.as_ref().expect("a certificate").grpc.clone();
    let serving = async move {
        let mut stream = acceptor.accept(there).await?;
        stream.write_all(b"welcome").await?;
        stream.shutdown().await
    };
    let (served, dialed) = tokio::join!(serving, async {
        let mut stream = dial(here, ADDRESS, dialing).await?;
        let mut words = String::new();
        stream.read_to_string(&mut words).await?;
        assert_eq!(words, "welcome");
        io::Result::Ok(())
    });
    let served = served.map_err(|error| TlsError::of_accepting(&error));
    let dialed = dialed.map_err(|error| TlsError::find(&error).expect("a reason").clone());
    (served, dialed)
}

fn fault(outcome: &Result<(), TlsError>) -> Option<Fault> {
    outcome.as_ref().err().map(TlsError::fault)
}

#[tokio::test]
async fn a_certificate_of_the_right_authority_for_the_right_host_is_trusted() {
    let ours = Authority::new("ours");
    let node = Folder::new(&[&ours], &ours.issue(HOST, 10));
    let client = Folder::new(&[&ours], &ours.issue("client.example", 10));
    let dialing = open(client.files(), ClientAuth::None).await;
    for auth in [ClientAuth::None, ClientAuth::Required] {
        let met = meet(&*open(node.files(), auth).await, &dialing).await;
        assert_eq!(met, (Ok(()), Ok(())));
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_nodes_certificate_is_said() {
    let (ours, foreign) = (Authority::new("ours"), Authority::new("foreign"));
    let folder = Folder::new(&[&ours], &ours.issue(HOST, 10));
    let dialing = open(TlsFiles::new(folder.path("ca.pem")), ClientAuth::None).await;
    let wrong = [
        (foreign.issue(HOST, 10), "signed by no CA"),
        (ours.issue(HOST, -1), "has expired"),
        (ours.issue("elsewhere.example", 10), "elsewhere.example"),
    ];
    for (issued, why) in wrong {
        let node = Folder::new(&[&ours], &issued);
        let (served, dialed) = meet(&*open(node.files(), ClientAuth::None).await, &dialing).await;
        assert_eq!(fault(&dialed), Some(Fault::Theirs), "{dialed:?}");
        let said = dialed.expect_err("refused").to_string();
        assert!(said.contains(why) && said.contains(ADDRESS), "{said}");
        assert_eq!(fault(&served), Some(Fault::Ours), "{served:?}");
    }
}

#[tokio::test]
async fn who_must_show_a_certificate_and_shows_none_or_a_bad_one_hears_of_it_while_connecting() {
    let (ours, foreign) = (Authority::new("ours"), Authority::new("foreign"));
    let node = Folder::new(&[&ours], &ours.issue(HOST, 10));
    let serving = open(node.files(), ClientAuth::Required).await;
    let nothing = open(TlsFiles::new(node.path("ca.pem")), ClientAuth::None).await;
    let (served, dialed) = meet(&serving, &nothing).await;
    assert_eq!(fault(&dialed), Some(Fault::Ours));
    assert!(
        dialed
            .expect_err("refused")
            .to_string()
            .contains("--tls-cert")
    );
    assert!(
        served
            .expect_err("refused")
            .to_string()
            .contains("no certificate")
    );
    for (issued, why) in [
        (foreign.issue("c", 10), "signed by no CA"),
        (ours.issue("c", -1), "has expired"),
    ] {
        let client = Folder::new(&[&ours], &issued);
        let dialing = open(client.files(), ClientAuth::None).await;
        let (served, dialed) = meet(&serving, &dialing).await;
        assert_eq!(fault(&dialed), Some(Fault::Ours), "{dialed:?}");
        assert!(served.expect_err("refused").to_string().contains(why));
    }
}

#[tokio::test]
async fn a_port_that_speaks_something_else_is_told_from_one_that_breaks_off() {
    let ours = Authority::new("ours");
    let folder = Folder::new(&[&ours], &ours.issue(HOST, 10));
    let dialing = open(folder.files(), ClientAuth::None).await;
    let answers: [(&[u8], Fault); 3] = [
        (b"\0\0\0\x04\0\0\0\0\0", Fault::NotTls),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Fault::NotTls),
        (b"", Fault::Broken),
    ];
    for (answer, expected) in answers {
        let (here, mut there) = tokio::io::duplex(64 << 10);
        there.write_all(answer).await.expect("room");
        let (dialed, ()) = tokio::join!(dial(here, ADDRESS, &dialing), async move {
            let _ = there.read_u8().await;
            drop(there);
        });
        let error = dialed.expect_err("no TLS");
        assert_eq!(
            TlsError::find(&error).map(TlsError::fault),
            Some(expected),
            "{error}"
        );
    }
}

/// Certificate that `node` finds in a connection from a side with these files.
async fn shown(node: &Certificates, dialing: &Certificates) -> Option<PeerCertificate> {
    let (here, there) = tokio::io::duplex(64 << 10);
    let acceptor = node.acceptors.as_ref().expect("a certificate").grpc.clone();
    let (accepted, _) = tokio::join!(acceptor.accept(there), dial(here, ADDRESS, dialing));
    PeerCertificate::of(&accepted.expect("trusted"))
}

#[tokio::test]
async fn only_a_nodes_certificate_could_serve_at_the_nodes_address() {
    let ours = Authority::new("ours");
    let node = Folder::new(&[&ours], &ours.issue(HOST, 10));
    let serving = open(node.files(), ClientAuth::Required).await;
    let addresses = ["node-2.example:7101", ADDRESS];
    for (issued, subject, could_serve) in [
        (ours.issue(HOST, 10), "CN=127.0.0.1", true),
        (ours.issue("a.example", 10), "CN=a.example", false),
        (ours.issue_to_client(HOST, 10), "CN=127.0.0.1", false),
    ] {
        let client = Folder::new(&[&ours], &issued);
        let dialing = open(client.files(), ClientAuth::None).await;
        let shown = shown(&serving, &dialing).await.expect("a certificate");
        assert_eq!(shown.subject().map(|name| &**name), Some(subject));
        assert_eq!(shown.could_serve_at(addresses), could_serve, "{shown:?}");
    }
    let dialing = open(node.files(), ClientAuth::None).await;
    let serving = open(node.files(), ClientAuth::None).await;
    assert!(
        shown(&serving, &dialing).await.is_none(),
        "none was asked for"
    );
}
