//! What must hold, one file an invariant. Some is judged at every look at the disks, some when a
//! run is over; each check keeps what it must remember from look to look.

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

/// What a check can see at a look.
#[derive(Debug, Clone, Copy)]
pub struct Now<'a> {
    /// What is on the disks.
    pub look: &'a Look,
    /// What is known to be committed.
    pub truth: &'a Truth,
    /// What was not known before this look, each group's in order.
    pub fresh: &'a [Committed],
    /// What clients did and were told since the last look.
    pub news: &'a [(Duration, Event)],
    /// Start offsets of groups, as of this look.
    pub starts: &'a Starts,
}

/// What a check can see in the end.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// What clients did and were told.
    pub history: &'a [(Duration, Event)],
    /// What each partition of the first topic holds.
    pub logs: &'a BTreeMap<Place, Log>,
    /// What is known to be committed.
    pub truth: &'a Truth,
    /// What is on the disks, all of it.
    pub look: &'a Look,
    /// Start offsets of groups.
    pub starts: &'a Starts,
}

/// One invariant.
pub trait Check {
    /// What it is called in reports.
    fn name(&self) -> &'static str;

    /// Judges what is there now.
    ///
    /// # Errors
    /// What is wrong, where, and since when.
    fn look(&mut self, _now: &Now<'_>) -> Result<(), String> {
        Ok(())
    }

    /// Judges a whole run.
    ///
    /// # Errors
    /// What is wrong, where, and since when.
    fn end(&mut self, _seen: &Seen<'_>) -> Result<(), String> {
        Ok(())
    }
}

/// Every check there is.
pub fn all() -> Vec<Box<dyn Check>> {
    vec![
        Box::new(election::ElectionSafety::default()),
        Box::new(votes::VotesAreKept::default()),
        Box::new(quarantine::QuarantineHolds::default()),
        Box::new(once::IdsAreUsedOnce::default()),
        Box::new(kept::VotersAreKept::default()),
        Box::new(noticed::DamageIsNoticed::default()),
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
