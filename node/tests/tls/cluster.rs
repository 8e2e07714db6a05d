//! Three nodes that use TLS between them, and that change to it while they serve.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ropewalk_client::{Client, ErrorKind, Record, Tls, TopicSettings};
use ropewalk_node::env::tls::{ClientAuth, TlsSettings};
use tokio::task::JoinHandle;

use crate::support::{AT_ONCE, Node, builder, healthy, identity, nodes, on, own_files, start_all};

const TOPIC: &str = "flights";
const REPLICAS: usize = 3;
/// Interval between two records of the steady producer.
const PACE: Duration = Duration::from_millis(5);

async fn create_topic(client: &Client) {
    let settings = TopicSettings::default().replicas(REPLICAS as u32);
    let created = client.admin().create_topic(TOPIC, 3, settings).await;
    created.expect("a topic");
    healthy(client, TOPIC, REPLICAS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_with_tls_on_serve_those_who_show_a_certificate_and_nobody_else() {
    let (ours, folder) = own_files();
    let mut cluster = nodes(3);
    start_all(&mut cluster, &on(&folder, ClientAuth::Required)).await;
    let client = builder(&cluster).tls(identity(&folder.files())).connect();
    let client = client.await.expect("who shows a certificate gets in");
    create_topic(&client).await;
    let producer = client.producer(TOPIC).build().await.expect("a producer");
    for number in 0..20 {
        let record = Record::new().key(number.to_string()).value("on time");
        let ticket = producer.send(record).await.expect("room");
        ticket.await.expect("acknowledged by a majority");
    }

    let anonymous = builder(&cluster).tls(Tls::new(folder.path("ca.pem")));
    let error = tokio::time::timeout(AT_ONCE, anonymous.connect());
    let error = error.await.expect("told at once").expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    assert!(error.to_string().contains("--tls-cert"), "{error}");
    assert!(!error.outcome_unknown());
    drop(ours);
}

/// Publishes continuously and counts; ends with the first record that fails.
struct Steady {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    task: JoinHandle<Result<(), ropewalk_client::Error>>,
}

impl Steady {
    async fn start(client: &Client) -> Steady {
        let producer = client.producer(TOPIC).build().await.expect("a producer");
        let (stop, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let task = tokio::spawn({
            let (stop, sent) = (stop.clone(), sent.clone());
            async move {
                let mut tickets = tokio::task::JoinSet::new();
                while !stop.load(Ordering::Relaxed) {
                    let number = sent.fetch_add(1, Ordering::Relaxed);
                    let record = Record::new().key((number % 97).to_string()).value("v");
                    let ticket = producer.send(record).await?;
                    tickets.spawn(async move { ticket.await.map(|_| ()) });
                    while let Some(done) = tickets.try_join_next() {
                        done.expect("no panic")?;
                    }
                    tokio::time::sleep(PACE).await;
                }
                while let Some(done) = tickets.join_next().await {
                    done.expect("no panic")?;
                }
                Ok(())
            }
        });
        Steady { stop, sent, task }
    }

    async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.task.await.expect("no panic");
        ended.expect("every record is acknowledged");
        self.sent.load(Ordering::Relaxed)
    }
}

async fn roll(cluster: &mut [Node], tls: &TlsSettings, client: &Client) {
    for node in cluster {
        node.restart(tls).await;
        healthy(client, TOPIC, REPLICAS).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_goes_from_plain_to_tls_in_two_rolls_without_a_failed_publish() {
    let (_ours, folder) = own_files();
    let mut cluster = nodes(3);
    start_all(&mut cluster, &TlsSettings::Off).await;
    let plain = builder(&cluster).connect().await.expect("all is plain");
    create_topic(&plain).await;

    let steady = Steady::start(&plain).await;
    let both = TlsSettings::Both(folder.files(), ClientAuth::Required);
    roll(&mut cluster, &both, &plain).await;
    assert!(steady.end().await > 0);
    drop(plain);

    let secured = builder(&cluster).tls(identity(&folder.files())).connect();
    let secured = secured.await.expect("all speak TLS as well");
    let steady = Steady::start(&secured).await;
    roll(&mut cluster, &on(&folder, ClientAuth::Required), &secured).await;
    // The first node returns to the previous mode.
    cluster[0].restart(&both).await;
    healthy(&secured, TOPIC, REPLICAS).await;
    assert!(steady.end().await > 0);
    let error = builder(&cluster[1..]).connect().await;
    assert_eq!(error.expect_err("nothing is plain").kind(), ErrorKind::Tls);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_goes_from_tls_to_plain_in_two_rolls_without_a_failed_publish() {
    let (_ours, folder) = own_files();
    let mut cluster = nodes(3);
    start_all(&mut cluster, &on(&folder, ClientAuth::Required)).await;
    let secured = builder(&cluster).tls(identity(&folder.files())).connect();
    let secured = secured.await.expect("all speak TLS");
    create_topic(&secured).await;

    let steady = Steady::start(&secured).await;
    let both = TlsSettings::Both(folder.files(), ClientAuth::Required);
    roll(&mut cluster, &both, &secured).await;
    assert!(steady.end().await > 0);
    drop(secured);

    let plain = builder(&cluster).connect().await;
    let plain = plain.expect("all speak plainly as well");
    let steady = Steady::start(&plain).await;
    roll(&mut cluster, &TlsSettings::Off, &plain).await;
    assert!(steady.end().await > 0);
    let secured = builder(&cluster).tls(identity(&folder.files())).connect();
    let error = secured.await.expect_err("nothing is TLS");
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
}
