//! A private network: every node is in a namespace with an address, all on one bridge, which this program is
//! on too. Cuts are blackhole routes and links that are down, so that packets are lost in silence and not
//! refused.

use crate::shell;

const PORT: u16 = 7_101;

/// Network of the nodes.
#[derive(Debug, Clone)]
pub enum Network {
    /// On loopback, at these ports: nothing can be cut.
    Loopback(Vec<u16>),
    /// Each node in its own namespace.
    Namespaces,
}

impl Network {
    /// Creates the bridge and a namespace for each node.
    pub async fn namespaces(nodes: usize) -> anyhow::Result<Network> {
        tokio::fs::create_dir_all("/run/netns").await?;
        for command in [
            "mount -t tmpfs ropewalk /run/netns",
            "ip link set lo up",
            "ip link add rope0 type bridge",
            "ip addr add 10.77.0.254/24 dev rope0",
            "ip link set rope0 up",
        ] {
            shell::line(command).await?;
        }
        for node in 0..nodes {
            let (name, link) = (namespace(node), link(node));
            for command in [
                format!("ip netns add {name}"),
                format!("ip link add {link} type veth peer name eth0 netns {name}"),
                format!("ip link set {link} master rope0"),
                format!("ip link set {link} up"),
                format!("ip -n {name} addr add {}/24 dev eth0", host(node)),
                format!("ip -n {name} link set eth0 up"),
                format!("ip -n {name} link set lo up"),
            ] {
                shell::line(&command).await?;
            }
        }
        Ok(Network::Namespaces)
    }

    /// A node's address, host:port.
    pub fn address(&self, node: usize) -> String {
        match self {
            Network::Loopback(ports) => format!("127.0.0.1:{}", ports[node]),
            Network::Namespaces => format!("{}:{PORT}", host(node)),
        }
    }

    /// Words before a command that runs it in a node's namespace.
    pub fn enter(&self, node: usize) -> Vec<String> {
        match self {
            Network::Loopback(_) => Vec::new(),
            Network::Namespaces => ["ip", "netns", "exec", &namespace(node)]
                .map(String::from)
                .to_vec(),
        }
    }

    /// Drops packets from `from` to `to`, until [`Network::mend`].
    pub async fn cut(&self, from: usize, to: usize) -> anyhow::Result<()> {
        let (name, to) = (namespace(from), host(to));
        let added = format!("ip -n {name} route add blackhole {to}/32");
        shell::line(&added).await.map(drop)
    }

    /// Ends a cut.
    pub async fn mend(&self, from: usize, to: usize) -> anyhow::Result<()> {
        let (name, to) = (namespace(from), host(to));
        let removed = format!("ip -n {name} route del blackhole {to}/32");
        shell::line(&removed).await.map(drop)
    }

    /// Takes a node off the network, or puts it back.
    pub async fn plug(&self, node: usize, in_place: bool) -> anyhow::Result<()> {
        let state = if in_place { "up" } else { "down" };
        let told = format!("ip link set {} {state}", link(node));
        shell::line(&told).await.map(drop)
    }
}

fn host(node: usize) -> String {
    format!("10.77.0.{}", node + 1)
}

fn namespace(node: usize) -> String {
    format!("rope-{}", node + 1)
}

fn link(node: usize) -> String {
    format!("strand{}", node + 1)
}
