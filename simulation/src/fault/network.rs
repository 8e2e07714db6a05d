//! Faults between hosts.
//!
//! turmoil knows cut, held, lossy and late links. Whenever a fault starts or ends, every link is set again
//! from all the lasting faults, so that faults can overlap and none undoes another. Resets and slow links are
//! made at the hosts' gates.

use std::net::IpAddr;
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};
use turmoil::Sim;

use crate::cluster::{Cluster, MAX_LATENCY};

/// A fault of the network. Nodes are counted from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// These nodes and the other nodes do not receive each other's messages.
    Partition {
        /// One side.
        nodes: Vec<usize>,
    },
    /// Two sides do not receive each other's messages; one node receives from both.
    Bridge {
        /// The node that both sides can reach.
        bridge: usize,
        /// One side.
        nodes: Vec<usize>,
    },
    /// Messages from `from` to `to` are lost; those in the other direction arrive.
    OneWay {
        /// The sender.
        from: usize,
        /// The receiver.
        to: usize,
    },
    /// A node and the clients do not receive each other's messages.
    NoClients {
        /// The node.
        node: usize,
    },
    /// Now and then all messages under way on a link are lost, and its connections hang in silence.
    Loss {
        /// Messages in a million that cause this.
        ppm: u32,
    },
    /// Messages between two nodes take up to this long, and some much less, so that connections overtake each
    /// other.
    Delay {
        /// One node.
        a: usize,
        /// The other.
        b: usize,
        /// Maximum latency.
        max_ms: u64,
    },
    /// Messages between two nodes are held and then arrive all at once.
    Hold {
        /// One node.
        a: usize,
        /// The other.
        b: usize,
    },
    /// Every connection of a node is cut; the node keeps running.
    Reset {
        /// The node.
        node: usize,
    },
    /// The rate of each connection of a node is limited.
    Slow {
        /// The node.
        node: usize,
        /// Bytes per millisecond.
        bytes_per_ms: usize,
    },
}

impl Network {
    /// The name of each kind.
    pub const KINDS: [&str; 9] = [
        "partition",
        "bridging-partition",
        "one-way-partition",
        "no-clients",
        "message-loss",
        "delay",
        "held-messages",
        "connection-reset",
        "slow-link",
    ];

    /// Draws a fault of a kind; none if the kind is not of this family.
    pub fn draw(kind: &str, random: &mut SmallRng, nodes: usize) -> Option<Network> {
        let node = random.random_range(0..nodes);
        let other = (node + random.random_range(1..nodes.max(2))) % nodes;
        Some(match kind {
            "partition" => Network::Partition {
                nodes: side(random, nodes),
            },
            "bridging-partition" => Network::Bridge {
                bridge: node,
                nodes: side(random, nodes),
            },
            "one-way-partition" => Network::OneWay {
                from: node,
                to: other,
            },
            "no-clients" => Network::NoClients { node },
            "message-loss" => Network::Loss {
                ppm: random.random_range(500..20_000),
            },
            "delay" => Network::Delay {
                a: node,
                b: other,
                max_ms: random.random_range(100..5_000),
            },
            "held-messages" => Network::Hold { a: node, b: other },
            "connection-reset" => Network::Reset { node },
            "slow-link" => Network::Slow {
                node,
                bytes_per_ms: random.random_range(4..400),
            },
            _ => return None,
        })
    }

    /// The name of its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Network::Partition { .. } => "partition",
            Network::Bridge { .. } => "bridging-partition",
            Network::OneWay { .. } => "one-way-partition",
            Network::NoClients { .. } => "no-clients",
            Network::Loss { .. } => "message-loss",
            Network::Delay { .. } => "delay",
            Network::Hold { .. } => "held-messages",
            Network::Reset { .. } => "connection-reset",
            Network::Slow { .. } => "slow-link",
        }
    }

    /// True if messages from `from` to `to` are lost.
    fn cuts(&self, from: usize, to: usize) -> bool {
        match self {
            Network::Partition { nodes } => nodes.contains(&from) != nodes.contains(&to),
            Network::Bridge { bridge, nodes } => {
                let apart = nodes.contains(&from) != nodes.contains(&to);
                apart && *bridge != from && *bridge != to
            }
            Network::OneWay { from: f, to: t } => (*f, *t) == (from, to),
            _ => false,
        }
    }

    fn holds(&self, one: usize, other: usize) -> bool {
        matches!(self, Network::Hold { a, b } if (*a, *b) == (one, other) || (*b, *a) == (one, other))
    }
}

/// A random set of at least one node that is not all of them.
fn side(random: &mut SmallRng, nodes: usize) -> Vec<usize> {
    let count = random.random_range(1..nodes.max(2));
    rand::seq::index::sample(random, nodes, count).into_vec()
}

/// Sets every link to the state that results from the lasting faults.
pub(super) fn wire(sim: &mut Sim<'_>, cluster: &Cluster, lasting: &[&Network]) {
    for a in 0..cluster.len() {
        for b in a + 1..cluster.len() {
            wire_pair(sim, cluster, lasting, (a, b));
        }
    }
    let clients = clients(sim, cluster);
    for node in 0..cluster.len() {
        let cut = lasting
            .iter()
            .any(|one| matches!(one, Network::NoClients { node: n } if *n == node));
        for client in &clients {
            if cut {
                sim.partition(cluster.name(node), *client);
            } else {
                sim.release(cluster.name(node), *client);
            }
            let loss = if cut { 0.0 } else { loss(lasting) };
            sim.set_link_fail_rate(cluster.name(node), *client, loss);
        }
    }
}

fn wire_pair(sim: &mut Sim<'_>, cluster: &Cluster, lasting: &[&Network], (a, b): (usize, usize)) {
    let (one, other) = (cluster.name(a), cluster.name(b));
    let ways = [(a, b), (b, a)];
    let cut = ways.map(|(from, to)| lasting.iter().any(|fault| fault.cuts(from, to)));
    let is_cut = cut.contains(&true);
    let is_held = !is_cut && lasting.iter().any(|fault| fault.holds(a, b));
    if is_held {
        sim.hold(one, other);
    } else {
        sim.release(one, other);
    }
    for ((from, to), cut) in ways.into_iter().zip(cut) {
        if cut {
            sim.partition_oneway(cluster.name(from), cluster.name(to));
        }
    }
    // A link on which turmoil loses messages is repaired as a whole with the next message.
    let whole = !is_cut && !is_held;
    sim.set_link_fail_rate(one, other, if whole { loss(lasting) } else { 0.0 });
    let delays = lasting.iter().filter_map(|fault| match fault {
        Network::Delay { a: x, b: y, max_ms } if (*x, *y) == (a, b) || (*y, *x) == (a, b) => {
            Some(Duration::from_millis(*max_ms))
        }
        _ => None,
    });
    let latency = delays.max().unwrap_or(MAX_LATENCY);
    sim.set_link_max_message_latency(one, other, latency);
}

fn loss(lasting: &[&Network]) -> f64 {
    let rates = lasting.iter().map(|fault| match fault {
        Network::Loss { ppm } => *ppm,
        _ => 0,
    });
    f64::from(rates.max().unwrap_or(0)) / 1e6
}

/// Hosts that are not nodes.
fn clients(sim: &Sim<'_>, cluster: &Cluster) -> Vec<IpAddr> {
    let nodes: Vec<IpAddr> = (0..cluster.len())
        .map(|node| sim.lookup(cluster.name(node)))
        .collect();
    let mut hosts = Vec::new();
    sim.links(|links| {
        for link in links {
            let (a, b) = link.pair();
            hosts.extend([a, b]);
        }
    });
    hosts.sort_unstable();
    hosts.dedup();
    hosts.retain(|host| !nodes.contains(host));
    hosts
}

/// Messages under way between two nodes.
pub(super) fn under_way(sim: &Sim<'_>, cluster: &Cluster, a: usize, b: usize) -> usize {
    let pair = [sim.lookup(cluster.name(a)), sim.lookup(cluster.name(b))];
    let mut count = 0;
    sim.links(|links| {
        for link in links {
            let (one, other) = link.pair();
            if pair.contains(&one) && pair.contains(&other) {
                count += link.count();
            }
        }
    });
    count
}
