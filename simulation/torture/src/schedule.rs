//! Schedule of faults, drawn from the seed alone. The same seed leads to the same faults on the same nodes in
//! the same order, though never to the same interleaving of real processes.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::fault_kind::Kind;

/// One fault.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Its kind.
    pub kind: Kind,
    /// Its nodes. If there are two, packets from the first are lost.
    pub nodes: Vec<usize>,
    /// Its duration.
    pub hold: Duration,
    /// Random bits for the fault's own choices.
    pub draw: u64,
}

/// Faults that happen together, and the time without faults that follows.
#[derive(Debug, Clone)]
pub struct Round {
    /// Faults at the same time, on different nodes.
    pub faults: Vec<Fault>,
    /// Time until the next round.
    pub calm: Duration,
}

/// An endless list of rounds. Kinds come from a shuffled deck, so that each comes up before any comes up
/// again.
#[derive(Debug)]
pub struct Schedule {
    random: StdRng,
    kinds: Vec<Kind>,
    deck: Vec<Kind>,
    nodes: usize,
    /// Node on which all bits are flipped: damage to the same records on two nodes is beyond repair.
    damaged: usize,
}

impl Schedule {
    /// Schedule of a seed for this many nodes.
    pub fn new(seed: u64, kinds: &[Kind], nodes: usize) -> Schedule {
        let mut random = StdRng::seed_from_u64(seed);
        let damaged = random.random_range(0..nodes);
        Schedule {
            random,
            kinds: kinds.to_vec(),
            deck: Vec::new(),
            nodes,
            damaged,
        }
    }

    /// The next round; none if there are no kinds to choose from.
    pub fn next_round(&mut self) -> Option<Round> {
        let first = self.next_kind()?;
        let mut faults = vec![self.fault(first)];
        if !first.is_alone() && self.random.random_bool(0.5) {
            let second = self.next_kind()?;
            let fault = self.fault(second);
            let apart = fault
                .nodes
                .iter()
                .all(|node| !faults[0].nodes.contains(node));
            if apart && !second.is_alone() {
                faults.push(fault);
            } else {
                self.deck.push(second);
            }
        }
        let calm = Duration::from_millis(self.random.random_range(500..4_000));
        Some(Round { faults, calm })
    }

    fn next_kind(&mut self) -> Option<Kind> {
        if self.deck.is_empty() {
            self.deck = self.kinds.clone();
            self.deck.shuffle(&mut self.random);
        }
        self.deck.pop()
    }

    fn fault(&mut self, kind: Kind) -> Fault {
        let mut nodes: Vec<usize> = (0..self.nodes).collect();
        nodes.shuffle(&mut self.random);
        let count = match kind {
            Kind::KillAll => self.nodes,
            Kind::KillMajority => self.nodes / 2 + 1,
            Kind::CutPair | Kind::CutOneWay => 2,
            _ => 1,
        };
        nodes.truncate(count);
        if kind == Kind::FlippedBit {
            nodes = vec![self.damaged];
        }
        Fault {
            kind,
            nodes,
            hold: Duration::from_millis(self.random.random_range(500..6_000)),
            draw: self.random.random(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn rounds(seed: u64, count: usize) -> Vec<Round> {
        let mut schedule = Schedule::new(seed, &Kind::ALL, 3);
        (0..count).map(|_| schedule.next_round().unwrap()).collect()
    }

    #[test]
    fn a_seed_gives_the_same_rounds_again_and_another_seed_others() {
        let text = |seed| format!("{:?}", rounds(seed, 20));
        assert_eq!(text(7), text(7));
        assert_ne!(text(7), text(8));
    }

    #[test]
    fn every_kind_comes_up_in_as_many_rounds_as_there_are_kinds() {
        for seed in 0..50 {
            let rounds = rounds(seed, Kind::ALL.len());
            let seen: BTreeSet<Kind> = rounds
                .iter()
                .flat_map(|round| round.faults.iter().map(|fault| fault.kind))
                .collect();
            assert_eq!(seen.len(), Kind::ALL.len(), "seed {seed}");
        }
    }

    #[test]
    fn faults_of_one_round_are_on_different_nodes_and_damage_is_alone() {
        for round in rounds(3, 500) {
            let nodes: Vec<usize> = round
                .faults
                .iter()
                .flat_map(|fault| fault.nodes.iter().copied())
                .collect();
            let apart: BTreeSet<usize> = nodes.iter().copied().collect();
            assert_eq!(apart.len(), nodes.len());
            let damages = round.faults.iter().any(|fault| fault.kind.is_alone());
            assert!(!damages || round.faults.len() == 1);
        }
    }
}
