//! A fresh node's decision from its seeds' answers. Pure, so that tests can cover every case.

use std::collections::BTreeSet;

use ropewalk_proto::v1::{FoundingNode, HelloAnswer};

/// A fresh node's knowledge of itself.
#[derive(Debug, Clone)]
pub(super) struct LocalNode {
    pub address: String,
    pub incarnation: Vec<u8>,
    /// In the form that [`normalized`] returns.
    pub seeds: Vec<String>,
    /// The cluster this node belongs to, if it has lost its data.
    pub member_of: Option<String>,
}

/// One seed's address with its answer, or the reason why there is none.
pub(super) type SeedReply = (String, Result<HelloAnswer, String>);

/// The node's next step.
#[derive(Debug, PartialEq)]
pub(super) enum Discovered {
    /// Ask one of these nodes, which are in a cluster, for a place.
    Join(Vec<String>),
    /// Found a cluster of these nodes.
    Found(Vec<FoundingNode>),
    /// Ask again later, for this reason.
    Wait(String),
    /// Ask again later, but only an operator can fix the cause.
    Misconfigured(String),
}

/// A seed list in its normal form for comparison: sorted, each seed once.
pub(super) fn normalized(seeds: &[String]) -> Vec<String> {
    let seeds: BTreeSet<&str> = seeds.iter().map(|seed| seed.trim()).collect();
    let seeds = seeds.into_iter().filter(|seed| !seed.is_empty());
    seeds.map(str::to_owned).collect()
}

/// Decides from the answers of all seeds other than this node's own address.
///
/// A node founds a cluster only if every seed has answered, none is in a cluster, and all have the same list.
/// Of these nodes only the one with the smallest address founds. So one seed list gives one cluster, in any
/// order of starts and crashes.
pub(super) fn decide(own: &LocalNode, heard: &[SeedReply]) -> Discovered {
    let answers: Vec<(&String, &HelloAnswer)> = heard
        .iter()
        .filter_map(|(seed, said)| Some((seed, said.as_ref().ok()?)))
        .collect();
    if let Some(cluster) = &own.member_of {
        return come_back(cluster, &answers);
    }
    let in_cluster = answers
        .iter()
        .filter(|(_, said)| !said.cluster_id.is_empty());
    let in_cluster: Vec<String> = in_cluster.map(|(seed, _)| (*seed).clone()).collect();
    if !in_cluster.is_empty() {
        return Discovered::Join(in_cluster);
    }
    // That cluster's records exist somewhere. Clients would take a new cluster for the old one.
    let waiting = answers.iter().find(|(_, said)| !said.member_of.is_empty());
    if let Some((seed, said)) = waiting {
        return Discovered::Misconfigured(format!(
            "seed {seed} can only rejoin its cluster {}, and no new cluster is founded beside it; \
             start that cluster's nodes, or give this node other seeds",
            said.member_of
        ));
    }
    let silent: Vec<&str> = heard
        .iter()
        .filter(|(_, said)| said.is_err())
        .map(|(seed, _)| seed.as_str())
        .collect();
    if !silent.is_empty() {
        return Discovered::Wait(format!("waiting for {} to answer", silent.join(", ")));
    }
    if let Some((seed, said)) = answers
        .iter()
        .find(|(_, said)| normalized(&said.seeds) != own.seeds)
    {
        return Discovered::Misconfigured(format!(
            "seed lists differ: this node has [{}], {seed} has [{}]; give every first node the \
             same list",
            own.seeds.join(", "),
            said.seeds.join(", ")
        ));
    }
    let (same, others): (Vec<_>, Vec<_>) = answers
        .into_iter()
        .partition(|(_, said)| said.incarnation == own.incarnation);
    let own_is_seed = own.seeds.is_empty() || own.seeds.contains(&own.address) || !same.is_empty();
    if !own_is_seed {
        return Discovered::Misconfigured(format!(
            "no seed is in a cluster, and this node's own address, {}, is not among its seeds \
             [{}]; start the seeds first, or add this node's address to every node's seeds",
            own.address,
            own.seeds.join(", ")
        ));
    }
    plan(
        own,
        &others.iter().map(|(_, said)| *said).collect::<Vec<_>>(),
    )
}

/// The decision of a node that lost the data of its cluster: it rejoins that one and founds none.
fn come_back(cluster: &str, answers: &[(&String, &HelloAnswer)]) -> Discovered {
    let in_it = answers
        .iter()
        .filter(|(_, said)| said.cluster_id == cluster);
    let in_it: Vec<String> = in_it.map(|(seed, _)| (*seed).clone()).collect();
    if !in_it.is_empty() {
        return Discovered::Join(in_it);
    }
    let other = answers.iter().find(|(_, said)| !said.cluster_id.is_empty());
    if let Some((seed, said)) = other {
        return Discovered::Misconfigured(format!(
            "seed {seed} is in another cluster, {}; give this node the seeds of its own cluster",
            said.cluster_id
        ));
    }
    Discovered::Wait("waiting for a seed that is in this cluster and has its data".to_owned())
}

fn plan(own: &LocalNode, others: &[&HelloAnswer]) -> Discovered {
    let mut nodes: Vec<(&str, &[u8])> = others
        .iter()
        .map(|said| (said.address.as_str(), &said.incarnation[..]))
        .chain([(own.address.as_str(), &own.incarnation[..])])
        .collect();
    nodes.sort_unstable();
    let addresses: BTreeSet<_> = nodes.iter().map(|(address, _)| address).collect();
    let incarnations: BTreeSet<_> = nodes.iter().map(|(_, incarnation)| incarnation).collect();
    if addresses.len() != nodes.len() || incarnations.len() != nodes.len() {
        return Discovered::Misconfigured(format!(
            "two of the seeds [{}] lead to the same node, or advertise the same address; give \
             each node an address of its own",
            own.seeds.join(", ")
        ));
    }
    match nodes.first() {
        Some((first, _)) if *first != own.address => {
            Discovered::Wait(format!("waiting for {first} to found the cluster"))
        }
        _ => Discovered::Found(
            (1..)
                .zip(nodes)
                .map(|(node_id, (address, incarnation))| FoundingNode {
                    node_id,
                    address: address.to_owned(),
                    incarnation: incarnation.to_vec().into(),
                })
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(address: &str, seeds: &[&str]) -> LocalNode {
        LocalNode {
            address: address.into(),
            incarnation: address.into(),
            seeds: normalized(&strings(seeds)),
            member_of: None,
        }
    }

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|&item| item.to_owned()).collect()
    }

    fn says(address: &str, cluster: &str, seeds: &[&str]) -> SeedReply {
        let answer = HelloAnswer {
            incarnation: address.to_owned().into_bytes().into(),
            cluster_id: cluster.into(),
            seeds: strings(seeds),
            address: address.into(),
            ..HelloAnswer::default()
        };
        (address.into(), Ok(answer))
    }

    fn silent(address: &str) -> SeedReply {
        (address.into(), Err("refused".into()))
    }

    const ALL: [&str; 3] = ["a", "b", "c"];

    fn waits_for(cluster: &str, address: &str) -> SeedReply {
        let (seed, said) = says(address, "", &ALL);
        let said = said.map(|said| HelloAnswer {
            member_of: cluster.into(),
            ..said
        });
        (seed, said)
    }

    #[test]
    fn a_node_that_lost_the_data_of_its_cluster_joins_that_one_and_founds_none() {
        let lost = LocalNode {
            member_of: Some("c1".into()),
            ..own("a", &ALL)
        };
        let verdict = decide(&lost, &[silent("b"), says("c", "c1", &ALL)]);
        assert_eq!(verdict, Discovered::Join(strings(&["c"])));
        let verdict = decide(&lost, &[says("b", "c2", &ALL), silent("c")]);
        assert!(
            matches!(verdict, Discovered::Misconfigured(_)),
            "{verdict:?}"
        );
        // Two of three lost their data, and the third is down or was emptied by hand.
        for third in [silent("c"), says("c", "", &ALL)] {
            let verdict = decide(&lost, &[waits_for("c1", "b"), third]);
            assert!(matches!(verdict, Discovered::Wait(_)), "{verdict:?}");
        }
        let alone = LocalNode {
            seeds: Vec::new(),
            ..lost
        };
        assert!(matches!(decide(&alone, &[]), Discovered::Wait(_)));
    }

    #[test]
    fn no_cluster_is_founded_beside_a_node_that_waits_for_its_own() {
        let heard = [waits_for("c1", "b"), says("c", "", &ALL)];
        let verdict = decide(&own("a", &ALL), &heard);
        assert!(
            matches!(verdict, Discovered::Misconfigured(_)),
            "{verdict:?}"
        );
        let heard = [waits_for("c1", "b"), says("c", "c1", &ALL)];
        let verdict = decide(&own("a", &ALL), &heard);
        assert_eq!(verdict, Discovered::Join(strings(&["c"])));
    }

    #[test]
    fn the_smallest_address_founds_with_ids_in_order_of_address() {
        let verdict = decide(
            &own("a", &ALL),
            &[says("c", "", &["c", "b", "a"]), says("b", "", &ALL)],
        );
        let Discovered::Found(plan) = verdict else {
            panic!("{verdict:?}");
        };
        let nodes: Vec<_> = plan
            .iter()
            .map(|n| (n.node_id, n.address.as_str()))
            .collect();
        assert_eq!(nodes, [(1, "a"), (2, "b"), (3, "c")]);
        assert_eq!(plan[1].incarnation, "b".as_bytes());
    }

    #[test]
    fn the_others_wait_for_the_founder() {
        let verdict = decide(&own("b", &ALL), &[says("a", "", &ALL), says("c", "", &ALL)]);
        assert!(matches!(verdict, Discovered::Wait(why) if why.contains("a to found")));
    }

    #[test]
    fn nobody_founds_while_a_seed_is_silent() {
        let verdict = decide(&own("a", &ALL), &[says("b", "", &ALL), silent("c")]);
        assert!(matches!(verdict, Discovered::Wait(why) if why.contains('c')));
    }

    #[test]
    fn any_living_cluster_is_joined_though_other_seeds_are_silent() {
        let verdict = decide(&own("a", &ALL), &[says("b", "X", &ALL), silent("c")]);
        assert_eq!(verdict, Discovered::Join(vec!["b".into()]));
        let joiner = decide(&own("d", &["a"]), &[says("a", "X", &ALL)]);
        assert_eq!(joiner, Discovered::Join(vec!["a".into()]));
    }

    #[test]
    fn a_node_without_other_seeds_founds_a_cluster_of_one() {
        for seeds in [&[][..], &["a"][..]] {
            let verdict = decide(&own("a", seeds), &[]);
            assert!(matches!(verdict, Discovered::Found(plan) if plan.len() == 1));
        }
    }

    #[test]
    fn different_seed_lists_found_nothing_and_are_named() {
        let verdict = decide(
            &own("a", &ALL),
            &[says("b", "", &["a", "b"]), says("c", "", &ALL)],
        );
        assert!(matches!(verdict, Discovered::Misconfigured(why) if why.contains("[a, b]")));
    }

    #[test]
    fn a_node_outside_its_own_seed_list_founds_nothing() {
        let seeds = ["a", "b"];
        let verdict = decide(
            &own("d", &seeds),
            &[says("a", "", &seeds), says("b", "", &seeds)],
        );
        assert!(matches!(verdict, Discovered::Misconfigured(why) if why.contains("not among")));
    }

    #[test]
    fn a_seed_that_is_this_node_under_another_name_counts_as_itself() {
        let seeds = ["alias", "b"];
        let mut alias = says("a", "", &seeds);
        alias.0 = "alias".into();
        let verdict = decide(&own("a", &seeds), &[alias, says("b", "", &seeds)]);
        assert!(matches!(verdict, Discovered::Found(plan) if plan.len() == 2));
    }

    #[test]
    fn two_seeds_that_are_one_node_found_nothing() {
        let mut twice = says("b", "", &ALL);
        twice.0 = "c".into();
        let verdict = decide(&own("a", &ALL), &[says("b", "", &ALL), twice]);
        assert!(matches!(verdict, Discovered::Misconfigured(why) if why.contains("same node")));
    }
}
