//! Invariants, one per file. Some are judged at every look at the disks, some at the end of a run. Each check
//! keeps its own state from look to look.

mod acknowledged;
mod commits;
mod committed;
mod completeness;
mod delivered;
mod durable;
mod election;
mod epochs;
mod equal;
mod fences;
mod groups_get_all;
mod growth;
mod images;
mod judge;
mod kept;
mod last_value;
mod linear;
mod lives;
mod lookups;
#[cfg(test)]
pub(crate) mod made;
mod matching;
mod noticed;
mod offsets;
mod once;
mod order;
mod owners;
mod phantom;
mod processing;
mod quarantine;
mod reads;
mod replay;
mod sequences;
mod settings;
mod sifted;
mod spared;
mod starts;
mod topics;
mod trims;
mod votes;
mod watermark;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::history::{Event, Place};
pub use crate::load::{Found, Log};
use crate::look::Look;
use crate::look::truth::{Committed, Truth};
pub use judge::{Judge, Violation};
use starts::Starts;

/// Input of a check at a look.
#[derive(Debug, Clone, Copy)]
pub struct Now<'a> {
    /// State of the disks.
    pub look: &'a Look,
    /// Entries known to be committed.
    pub truth: &'a Truth,
    /// Entries first known to be committed at this look, each group's in order.
    pub fresh: &'a [Committed],
    /// Client events since the last look.
    pub news: &'a [(Duration, Event)],
    /// Start offsets of groups, as of this look.
    pub starts: &'a Starts,
}

/// Input of a check at the end.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// All client events.
    pub history: &'a [(Duration, Event)],
    /// Content of each partition of the first topic.
    pub logs: &'a BTreeMap<Place, Log>,
    /// Entries known to be committed.
    pub truth: &'a Truth,
    /// Whole state of the disks.
    pub look: &'a Look,
    /// Start offsets of groups.
    pub starts: &'a Starts,
}

/// One invariant.
pub trait Check {
    /// Name of the check in reports.
    fn name(&self) -> &'static str;

    /// Judges the present state.
    ///
    /// # Errors
    /// A description of the violation, with its place and time.
    fn look(&mut self, _now: &Now<'_>) -> Result<(), String> {
        Ok(())
    }

    /// Judges a whole run.
    ///
    /// # Errors
    /// A description of the violation, with its place and time.
    fn end(&mut self, _seen: &Seen<'_>) -> Result<(), String> {
        Ok(())
    }
}

/// All checks.
pub fn all() -> Vec<Box<dyn Check>> {
    vec![
        Box::new(election::ElectionSafety::default()),
        Box::new(votes::VotesAreKept::default()),
        Box::new(quarantine::QuarantineHolds::default()),
        Box::new(once::IdsAreUsedOnce::default()),
        Box::new(kept::VotersAreKept::default()),
        Box::new(noticed::DamageIsNoticed::default()),
        Box::new(spared::GoodDatabasesAreSpared),
        Box::new(matching::LogMatching::default()),
        Box::new(completeness::LeaderCompleteness::default()),
        Box::new(committed::CommittedNeverChanges),
        Box::new(images::ImagesAreWhole),
        Box::new(durable::AcknowledgedIsDurable::default()),
        Box::new(offsets::OffsetsAreDense::default()),
        Box::new(phantom::NoPhantoms::default()),
        Box::new(sequences::SequencesAreUnique::default()),
        Box::new(epochs::EpochsAreGivenOnce::default()),
        Box::new(watermark::WatermarkNeverGoesBack::default()),
        Box::new(trims::TrimsByPolicy::default()),
        Box::new(reads::ReadsAreCommitted::default()),
        Box::new(acknowledged::AcknowledgedIsThere),
        Box::new(order::OrderPerKey::default()),
        Box::new(linear::AppendsAreLinear),
        Box::new(delivered::AcknowledgedIsDelivered),
        Box::new(sifted::FiltersAreExact),
        Box::new(lookups::LookupsAreRight),
        Box::new(topics::TopicsAreKept),
        Box::new(lives::TopicsAreTheirIds::default()),
        Box::new(settings::SettingsAreKept),
        Box::new(fences::FencesHold::default()),
        Box::new(owners::OneOwnerAtATime::default()),
        Box::new(commits::CommitsNeverGoBack::default()),
        Box::new(processing::ProcessedInOrder::default()),
        Box::new(growth::OldBeforeNew),
        Box::new(groups_get_all::GroupsGetAll),
        Box::new(last_value::LastValuesAreKept::default()),
        Box::new(equal::ReplicasAreEqual),
    ]
}
