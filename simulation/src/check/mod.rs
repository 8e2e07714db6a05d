//! Invariants, one per file. Some are judged at every look at the disks, some at the end of a run. Each check
//! keeps its own state from look to look.

mod a_topic_is_its_id;
mod acknowledged_is_delivered;
mod acknowledged_is_durable;
mod acknowledged_is_there;
mod appends_are_linear;
mod commits_never_go_back;
mod committed_never_changes;
mod damage_is_noticed;
mod election_safety;
mod epochs_are_given_once;
mod fences_hold;
mod filters_are_exact;
#[cfg(test)]
pub(crate) mod fixtures;
mod groups_get_all;
mod ids_are_used_once;
mod images_are_whole;
mod judge;
mod last_values_are_kept;
mod leader_completeness;
mod log_matching;
mod lookups_are_right;
mod no_phantoms;
mod offsets_are_dense;
mod old_before_new;
mod one_owner_at_a_time;
mod order_per_key;
mod processed_in_order;
mod quarantine_holds;
mod reads_are_committed;
mod replay;
mod replicas_are_equal;
mod sequences_are_unique;
mod settings_are_kept;
mod spared;
mod starts;
mod topics_are_kept;
mod trims_by_policy;
mod voters_are_kept;
mod votes_are_kept;
mod watermark_never_goes_back;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::history::{Event, Place};
pub use crate::load::{Found, Log};
use crate::observe::Look;
use crate::observe::committed_model::{Committed, CommittedModel};
pub use judge::{Judge, Violation};
use starts::Starts;

/// Input of a check at a look.
#[derive(Debug, Clone, Copy)]
pub struct Now<'a> {
    /// State of the disks.
    pub look: &'a Look,
    /// Entries known to be committed.
    pub truth: &'a CommittedModel,
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
    pub truth: &'a CommittedModel,
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
        Box::new(election_safety::ElectionSafety::default()),
        Box::new(votes_are_kept::VotesAreKept::default()),
        Box::new(quarantine_holds::QuarantineHolds::default()),
        Box::new(ids_are_used_once::IdsAreUsedOnce::default()),
        Box::new(voters_are_kept::VotersAreKept::default()),
        Box::new(damage_is_noticed::DamageIsNoticed::default()),
        Box::new(spared::GoodDatabasesAreSpared),
        Box::new(log_matching::LogMatching::default()),
        Box::new(leader_completeness::LeaderCompleteness::default()),
        Box::new(committed_never_changes::CommittedNeverChanges),
        Box::new(images_are_whole::ImagesAreWhole),
        Box::new(acknowledged_is_durable::AcknowledgedIsDurable::default()),
        Box::new(offsets_are_dense::OffsetsAreDense::default()),
        Box::new(no_phantoms::NoPhantoms::default()),
        Box::new(sequences_are_unique::SequencesAreUnique::default()),
        Box::new(epochs_are_given_once::EpochsAreGivenOnce::default()),
        Box::new(watermark_never_goes_back::WatermarkNeverGoesBack::default()),
        Box::new(trims_by_policy::TrimsByPolicy::default()),
        Box::new(reads_are_committed::ReadsAreCommitted::default()),
        Box::new(acknowledged_is_there::AcknowledgedIsThere),
        Box::new(order_per_key::OrderPerKey::default()),
        Box::new(appends_are_linear::AppendsAreLinear),
        Box::new(acknowledged_is_delivered::AcknowledgedIsDelivered),
        Box::new(filters_are_exact::FiltersAreExact),
        Box::new(lookups_are_right::LookupsAreRight),
        Box::new(topics_are_kept::TopicsAreKept),
        Box::new(a_topic_is_its_id::TopicsAreTheirIds::default()),
        Box::new(settings_are_kept::SettingsAreKept),
        Box::new(fences_hold::FencesHold::default()),
        Box::new(one_owner_at_a_time::OneOwnerAtATime::default()),
        Box::new(commits_never_go_back::CommitsNeverGoBack::default()),
        Box::new(processed_in_order::ProcessedInOrder::default()),
        Box::new(old_before_new::OldBeforeNew),
        Box::new(groups_get_all::GroupsGetAll),
        Box::new(last_values_are_kept::LastValuesAreKept::default()),
        Box::new(replicas_are_equal::ReplicasAreEqual),
    ]
}
