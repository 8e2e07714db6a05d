//! Kinds of faults, and the requirements of each.

use std::collections::BTreeMap;

use crate::machine::Machine;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL of one node.
    KillOne,
    /// SIGKILL of a majority at the same time.
    KillMajority,
    /// SIGKILL of all nodes at the same time.
    KillAll,
    /// SIGSTOP, and SIGCONT a while later: a leader that resumes as a zombie.
    Pause,
    /// Every sync of one node is slow.
    SlowSync,
    /// The next sync of one node fails with EIO.
    FailedSync,
    /// Two nodes cannot reach each other; both reach the rest.
    CutPair,
    /// Packets from one node to another are lost; those in the other direction arrive.
    CutOneWay,
    /// One node reaches no other node and no client.
    Isolate,
    /// One node's disk falls below its free-space floor.
    BelowFloor,
    /// One node's disk is filled to its last byte.
    DiskFull,
    /// One node's wall clock jumps, and jumps back later.
    ClockStep,
    /// One node is killed, and a bit of its files is flipped before its restart.
    FlippedBit,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 13] = [
        Kind::KillOne,
        Kind::KillMajority,
        Kind::KillAll,
        Kind::Pause,
        Kind::SlowSync,
        Kind::FailedSync,
        Kind::CutPair,
        Kind::CutOneWay,
        Kind::Isolate,
        Kind::BelowFloor,
        Kind::DiskFull,
        Kind::ClockStep,
        Kind::FlippedBit,
    ];

    /// Its name in counts and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Kind::KillOne => "kill-one",
            Kind::KillMajority => "kill-majority",
            Kind::KillAll => "kill-all",
            Kind::Pause => "pause",
            Kind::SlowSync => "slow-sync",
            Kind::FailedSync => "failed-sync",
            Kind::CutPair => "cut-pair",
            Kind::CutOneWay => "cut-one-way",
            Kind::Isolate => "isolate",
            Kind::BelowFloor => "below-floor",
            Kind::DiskFull => "disk-full",
            Kind::ClockStep => "clock-step",
            Kind::FlippedBit => "flipped-bit",
        }
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Result<Kind, String> {
        let found = Kind::ALL.into_iter().find(|kind| kind.name() == name);
        let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        found.ok_or_else(|| format!("there is no fault {name:?}; there are {}", names.join(", ")))
    }

    /// Reason why this machine cannot cause the fault, if it cannot.
    pub fn missing(self, machine: &Machine) -> Option<&str> {
        let why = match self {
            Kind::KillOne | Kind::KillMajority | Kind::KillAll | Kind::Pause | Kind::FlippedBit => {
                return None;
            }
            Kind::SlowSync | Kind::FailedSync => machine.strace.as_ref().err(),
            Kind::CutPair | Kind::CutOneWay | Kind::Isolate => machine.networks.as_ref().err(),
            Kind::BelowFloor | Kind::DiskFull => machine.mounts.as_ref().err(),
            Kind::ClockStep => machine.clocks.as_ref().err(),
        };
        why.map(String::as_str)
    }

    /// True if no other fault may be active: the copies that it leaves are the last.
    pub fn is_alone(self) -> bool {
        matches!(self, Kind::FlippedBit)
    }
}

/// Number of faults of each kind that took effect.
pub type Counts = BTreeMap<&'static str, u64>;
