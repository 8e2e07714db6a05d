//! TLS, switched on while everybody is at work, and certificates that are replaced, with their CA.

use std::time::Duration;

use tokio::time::sleep;

use super::certificates::{Authority, Folder, TRUSTED};
use super::ground::{Ground, MOST_NODES, PATIENCE};
use super::steps::rolling_restart;

/// Who the clients are.
const CLIENT: &str = "client";
/// Nodes look at their files every two seconds.
const READ_AGAIN: Duration = Duration::from_secs(5);

/// Nodes take TLS beside plain bytes, and then the clients use it.
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

/// Nodes take nothing but TLS, from those who show a certificate.
pub(super) async fn on(ground: &mut Ground) -> anyhow::Result<String> {
    ground.fleet.set_flag("--tls-mode", "on");
    ground.fleet.set_flag("--tls-client-auth", "required");
    rolling_restart(ground).await?;
    Ok("tls_mode on, client certificates required, one by one".to_owned())
}

/// Another CA: first everybody trusts both, then all show what the new one signed, then the old one
/// is trusted no more. No node is started again for it; in the end all are, to have new connections.
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
