//! TLS, switched on under load, and certificates that are replaced together with their CA.

use std::time::Duration;

use tokio::time::sleep;

use super::certificates::{Authority, Folder, TRUSTED};
use super::environment::{Ground, MOST_NODES, PATIENCE};
use super::steps::rolling_restart;

/// Name of the clients' certificate.
const CLIENT: &str = "client";
/// Wait for nodes to reload their files, which they check every two seconds.
const READ_AGAIN: Duration = Duration::from_secs(5);

/// Lets nodes accept TLS beside plaintext, and then switches the clients to TLS.
pub(super) async fn both(ground: &mut Ground) -> anyhow::Result<String> {
    let folder = Folder::new(&ground.fleet.dir)?;
    let authority = Authority::new("the first")?;
    folder.trust(&authority, "")?;
    issue(ground, &folder, &authority)?;
    for (flag, value) in [
        ("--tls-mode", "both".to_owned()),
        ("--tls-ca", folder.path(TRUSTED)),
        ("--tls-cert", folder.path("node-{node}.pem")),
        ("--tls-key", folder.path("node-{node}.key")),
    ] {
        ground.fleet.set_flag(flag, &value);
    }
    rolling_restart(ground).await?;
    ground.fleet.tls = Some(folder.client(CLIENT));
    ground.client = ground.fleet.client().await?;
    ground.change_clients(PATIENCE).await?;
    Ok("certificates, tls_mode both, one by one; then the clients use TLS".to_owned())
}

/// Makes nodes refuse everything but TLS with a client certificate.
pub(super) async fn on(ground: &mut Ground) -> anyhow::Result<String> {
    ground.fleet.set_flag("--tls-mode", "on");
    ground.fleet.set_flag("--tls-client-auth", "required");
    rolling_restart(ground).await?;
    Ok("tls_mode on, client certificates required, one by one".to_owned())
}

/// Replaces the CA. First all trust both CAs, then all present certificates of the new one, then trust in the
/// old one ends. No node restarts for that. At the end every node restarts, so that all connections are new.
pub(super) async fn rotate(ground: &mut Ground) -> anyhow::Result<String> {
    let folder = Folder::new(&ground.fleet.dir)?;
    let new = Authority::new("the second")?;
    folder.trust(&new, &folder.trusted()?)?;
    sleep(READ_AGAIN).await;
    issue(ground, &folder, &new)?;
    sleep(READ_AGAIN).await;
    folder.trust(&new, "")?;
    sleep(READ_AGAIN).await;
    rolling_restart(ground).await?;
    Ok(
        "a new CA and new certificates from files, and then new connections to each node"
            .to_owned(),
    )
}

fn issue(ground: &Ground, folder: &Folder, by: &Authority) -> anyhow::Result<()> {
    for node in 0..MOST_NODES {
        let address = ground.fleet.address(node);
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        folder.issue(by, &format!("node-{}", node + 1), host)?;
    }
    folder.issue(by, CLIENT, "client")
}
