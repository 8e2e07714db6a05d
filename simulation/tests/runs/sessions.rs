//! Sessions of members while their group's coordinator moves: a silent member is removed soon, and a live
//! member stays.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ropewalk_client::{Client, Rebalance};
use ropewalk_node::config::Limits;
use ropewalk_proto::ids::GROUPS_TOPIC;
use ropewalk_proto::v1;
use ropewalk_simulation::ask::Ask;
use ropewalk_simulation::cluster::{self, Cluster};
use ropewalk_simulation::disk::DiskKind;
use tokio::time::{Instant, sleep};
use turmoil::Sim;

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
const MEMBERS: [&str; 3] = ["member-a", "member-b", "member-c"];
const TOPIC: &str = "flights";
const GROUP: &str = "billing";
const PAUSE: Duration = Duration::from_millis(50);
/// Default session timeout of the nodes, which applies to members that request no other.
const SESSION: Duration = Duration::from_secs(10);
/// Maximum delay after the end of its session before a member is removed, if its coordinator moved meanwhile.
const LATE: Duration = Duration::from_secs(5);

/// Time after which a group without members is forgotten.
const RETENTION: Duration = Duration::from_secs(20);
/// Interval of the search for unused groups.
const IDLE_LOOK: Duration = Duration::from_secs(30);

/// Rebalances that each member received, with their times.
type Told = Arc<Mutex<Vec<(&'static str, Duration, Rebalance)>>>;

fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

fn client(seed: u64) -> ropewalk_client::ClientBuilder {
    Client::builder(NODES.map(cluster::address))
        .connector(|address| async move { turmoil::net::TcpStream::connect(address).await })
        .clock(|| turmoil::since_epoch().map_or(0, |time| time.as_millis() as i64))
        .seed(seed)
}

/// Three nodes, and members that only keep their sessions, until the operator's part is done.
fn with_members<'a, F>(seed: u64, operator: impl FnOnce(Ask) -> F) -> (Sim<'a>, Told)
where
    F: Future<Output = ()> + 'static,
{
    let mut sim = cluster::simulation(seed, Duration::from_secs(120), Duration::from_millis(1));
    let nodes = Cluster::start(&mut sim, seed, NODES.len(), DiskKind::Memory);
    for name in NODES {
        nodes.machine(name).process().set_limits(Some(Limits {
            group_partitions: 1,
            group_retention_ms: RETENTION.as_millis() as i64,
            ..Limits::default()
        }));
    }
    let told = Told::default();
    for (number, name) in (0..).zip(MEMBERS) {
        let told = told.clone();
        sim.host(name, move || {
            let told = told.clone();
            async move {
                let client = loop {
                    match client(seed ^ number).connect().await {
                        Ok(client) => break client,
                        Err(_) => sleep(PAUSE).await,
                    }
                };
                let hears = move |what: &Rebalance| told.lock().push((name, now(), what.clone()));
                let builder = client.subscribe(GROUP).topics([TOPIC]).client_name(name);
                let builder = builder.on_rebalance(hears);
                let _subscription = loop {
                    match builder.clone().build().await {
                        Ok(subscription) => break subscription,
                        Err(_) => sleep(PAUSE).await,
                    }
                };
                std::future::pending().await
            }
        });
    }
    let operator = operator(Ask::new(&NODES, GROUPS_TOPIC));
    sim.client("operator", async move {
        let topic = Ask::new(&NODES, TOPIC);
        topic.create_topic(None).await;
        operator.await;
        Ok(())
    });
    (sim, told)
}

async fn look(ask: &Ask) -> v1::GroupInfo {
    ask.until_answered(|mut node| async move {
        let request = v1::DescribeGroupRequest {
            group: GROUP.to_owned(),
        };
        Ok(node.describe_group(request).await?.into_inner())
    })
    .await
}

async fn until_members(ask: &Ask, count: usize) -> v1::GroupInfo {
    loop {
        let group = look(ask).await;
        if group.members.len() == count {
            return group;
        }
        sleep(PAUSE).await;
    }
}

/// Name and id of the node that coordinates the group.
async fn coordinator(ask: &Ask) -> (&'static str, u64) {
    let id = look(ask).await.coordinator_node_id;
    let status = ask.until_answered(|mut node| async move {
        node.cluster_status(v1::ClusterStatusRequest::default())
            .await
    });
    let nodes = status.await.into_inner().nodes;
    let mut infos = nodes.iter().filter_map(|node| node.info.as_ref());
    let info = infos.find(|info| info.node_id == id);
    let address = &info.expect("a node of the cluster").address;
    let mut names = NODES.into_iter();
    let name = names.find(|name| cluster::address(name) == *address);
    (name.expect("one of the three"), id)
}

/// Asks to have the groups led by a node that leads nothing else. The balancing of leaders then leaves it in
/// place.
async fn wish_for_another_leader(ask: &Ask) -> Option<u64> {
    let held = ask.partition().await;
    let taken = Ask::new(&NODES, TOPIC).partition().await.leader_node_id;
    let mut order = held.replica_node_ids;
    order.sort_by_key(|node| (*node == held.leader_node_id, *node == taken));
    let heir = order.first().copied();
    ask.until_answered(|mut node| {
        let request = v1::MovePartitionRequest {
            topic: GROUPS_TOPIC.to_owned(),
            partition: 0,
            replica_node_ids: order.clone(),
        };
        async move { node.move_partition(request).await }
    })
    .await;
    heir
}

#[test]
fn a_silent_member_is_given_up_soon_though_its_coordinator_moves_meanwhile() {
    let (mut sim, told) = with_members(3, |ask| async move {
        until_members(&ask, 3).await;
        sleep(SESSION).await;
        let (_, leads) = coordinator(&ask).await;
        // The transfer takes place ten seconds later.
        let heir = wish_for_another_leader(&ask).await;
        sleep(SESSION * 2 / 5).await;
        // Holds all messages from and to the member.
        for node in NODES {
            turmoil::hold("member-c", node);
        }
        let silent = Instant::now();
        ask.until_partition(|now| Some(now.leader_node_id) == heir)
            .await;
        let moved = silent.elapsed();
        let group = until_members(&ask, 2).await;
        let (over, late) = (silent.elapsed(), silent.elapsed().saturating_sub(SESSION));
        println!("moved {moved:?} after its last word, out after {over:?}, {late:?} late");
        assert!(moved > SESSION / 2 && moved < SESSION);
        assert_ne!(group.coordinator_node_id, leads);
        assert!(over > SESSION * 2 / 3 && late < LATE);
    });
    sim.run().expect("the group gives it up");
    let lost = |(who, _, what): &(&str, Duration, Rebalance)| {
        *who != "member-c" && matches!(what, Rebalance::Lost(_))
    };
    assert!(!told.lock().iter().any(lost), "{:?}", told.lock());
}

/// Time that each member took to reach the next coordinator. It is measured from the silence of the first
/// coordinator's node and from the next coordinator's start.
fn coordinator_falls_silent(seed: u64) -> Vec<(Duration, Duration)> {
    let times = Arc::new(Mutex::new((Duration::ZERO, Duration::ZERO)));
    let told_times = times.clone();
    let (mut sim, told) = with_members(seed, |ask| async move {
        until_members(&ask, 3).await;
        sleep(SESSION + Duration::from_millis(seed * 700)).await;
        let (name, id) = coordinator(&ask).await;
        let others = NODES.into_iter().chain(MEMBERS).chain(["operator"]);
        for other in others.filter(|other| *other != name) {
            turmoil::hold(name, other);
        }
        told_times.lock().0 = now();
        while look(&ask).await.coordinator_node_id == id {
            sleep(PAUSE).await;
        }
        told_times.lock().1 = now();
        sleep(SESSION * 2).await;
        assert_eq!(look(&ask).await.members.len(), 3);
    });
    sim.run().expect("the members stay");
    let (silent, moved) = *times.lock();
    let told = told.lock();
    let lost = |what: &Rebalance| matches!(what, Rebalance::Lost(_));
    assert!(!told.iter().any(|(_, _, what)| lost(what)), "{told:?}");
    let back = told.iter().filter_map(|(_, at, what)| match what {
        Rebalance::Reconnected if *at > silent => Some((*at - silent, at.saturating_sub(moved))),
        _ => None,
    });
    back.collect()
}

#[test]
fn members_that_live_find_the_next_coordinator_before_it_gives_them_up() {
    for seed in [1, 3] {
        let times = coordinator_falls_silent(seed);
        println!(
            "seed {seed}: with the next coordinator, from silence and from its beginning: {times:?}"
        );
        assert_eq!(times.len(), MEMBERS.len());
    }
}

#[test]
fn a_group_that_nobody_uses_is_forgotten_and_one_with_members_stays() {
    let (mut sim, _) = with_members(5, |ask| async move {
        until_members(&ask, 3).await;
        // Committed offsets of a group that never had a member.
        let request = v1::SeekGroupRequest {
            group: "left".to_owned(),
            topic: TOPIC.to_owned(),
            position: Some(v1::seek_group_request::Position::Beginning(true)),
            create: true,
            ..v1::SeekGroupRequest::default()
        };
        ask.until_answered(|mut node| {
            let request = request.clone();
            async move { node.seek_group(request).await }
        })
        .await;
        let used = Instant::now();
        loop {
            let list = v1::ListGroupsRequest::default();
            let groups = ask.until_answered(|mut node| async move { node.list_groups(list).await });
            let groups = groups.await.into_inner().groups;
            if groups.len() == 1 {
                assert_eq!(groups[0].group, GROUP);
                break;
            }
            sleep(PAUSE).await;
        }
        let forgotten = used.elapsed();
        println!("forgotten after {forgotten:?}");
        assert!(forgotten >= RETENTION && forgotten < RETENTION + IDLE_LOOK + LATE);
        assert_eq!(look(&ask).await.members.len(), 3);
    });
    sim.run().expect("the group is forgotten");
}
