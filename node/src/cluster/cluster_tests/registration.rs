//! Registrations that do not come from the nodes that they name.

use ropewalk_proto::command::UNDERSTOOD_VERSION;
use ropewalk_proto::error::WireError;
use ropewalk_proto::v1::cluster_client::ClusterClient;
use ropewalk_proto::v1::{HelloCall, JoinCall};

use super::*;

async fn peer(node: &TestNode) -> ClusterClient<tonic::transport::Channel> {
    let address = format!("http://{}", node.address());
    ClusterClient::connect(address).await.unwrap()
}

/// The registration that any process can build from a node's public answer.
async fn overheard(of: &TestNode) -> JoinCall {
    let hello = peer(of).await.hello(HelloCall::default()).await.unwrap();
    let own = hello.into_inner().registration.unwrap();
    JoinCall {
        incarnation: own.incarnation,
        address: own.address,
        http: own.http,
        rack: own.rack,
        version: own.version,
        command_version: own.command_version,
        cluster_id: of.cluster_id(),
        external: None,
        start: own.start,
    }
}

async fn join(at: &TestNode, call: JoinCall) -> Result<u64, ErrorCode> {
    let answer = peer(at).await.join(call).await;
    let answer = answer.map(|answer| answer.into_inner().node_id);
    answer.map_err(|status| WireError::from(&status).code)
}

#[tokio::test]
async fn nobody_registers_for_a_node_what_it_does_not_say_itself() {
    let nodes = start_cluster(3).await;
    let all_know =
        |view: &Arc<ropewalk_machines::meta::MetadataImage>| view.understood == UNDERSTOOD_VERSION;
    nodes[0].sees("all registered", all_know).await;
    let known = || format!("{:?}", nodes[0].cluster.view().borrow().nodes);
    let before = known();
    let nowhere = listen("127.0.0.1:0").await.local_address();
    for of in &nodes {
        let own = overheard(of).await;
        assert_eq!(join(&nodes[0], own.clone()).await, Ok(of.id().0));
        let moved = JoinCall {
            address: nowhere.clone(),
            ..own.clone()
        };
        assert_eq!(join(&nodes[0], moved).await, Err(ErrorCode::AddressInUse));
        let elsewhere = JoinCall {
            external: Some("outside:1".to_owned()),
            ..own.clone()
        };
        let in_a_rack = JoinCall {
            rack: "elsewhere".to_owned(),
            ..own.clone()
        };
        for forged in [elsewhere, in_a_rack] {
            let refused = join(&nodes[0], forged).await;
            assert_eq!(refused, Err(ErrorCode::InvalidRequest));
        }
        let older = JoinCall {
            command_version: UNDERSTOOD_VERSION - 1,
            ..own
        };
        let refused = join(&nodes[0], older).await;
        assert_eq!(refused, Err(ErrorCode::UnsupportedVersion));
    }
    assert_eq!(known(), before);
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_new_node_that_understands_less_than_all_others_does_not_hold_them_back() {
    let node = start_cluster(1).await.remove(0);
    let all_know =
        |view: &Arc<ropewalk_machines::meta::MetadataImage>| view.understood == UNDERSTOOD_VERSION;
    node.sees("its registration", all_know).await;
    let old = JoinCall {
        incarnation: vec![9; 16].into(),
        address: listen("127.0.0.1:0").await.local_address(),
        version: "0.0.1".to_owned(),
        cluster_id: String::new(),
        ..JoinCall::default()
    };
    for command_version in [0, 1, UNDERSTOOD_VERSION - 1] {
        let call = JoinCall {
            command_version,
            ..old.clone()
        };
        assert_eq!(join(&node, call).await, Err(ErrorCode::UnsupportedVersion));
    }
    assert_eq!(node.cluster.view().borrow().nodes.len(), 1);
    node.stop().await;
}
