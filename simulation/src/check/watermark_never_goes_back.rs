//! A replica's high watermark and log start never go back, until its disk loses unsynced data.

use std::collections::BTreeMap;

use ropewalk_proto::ids::ReplicaId;

use super::{Check, Now};
use crate::observe::Image;

/// The check.
#[derive(Debug, Default)]
pub struct WatermarkNeverGoesBack {
    /// High watermark, log start, applied index, and the number of the disk's setbacks at that time.
    last: BTreeMap<ReplicaId, ([u64; 3], u64)>,
}

impl Check for WatermarkNeverGoesBack {
    fn name(&self) -> &'static str {
        "watermark-never-goes-back"
    }

    fn look(&mut self, now: &Now<'_>) -> Result<(), String> {
        for replica in now.look.of(Image::Live) {
            let (Some(state), Some(applied)) = (&replica.state, replica.seen.applied) else {
                continue;
            };
            let marks = [state.next_offset, state.log_start, applied.index];
            let last = self
                .last
                .insert(replica.seen.replica, (marks, replica.setbacks));
            let Some((before, _)) = last.filter(|(_, setbacks)| *setbacks == replica.setbacks)
            else {
                continue;
            };
            if before.iter().zip(&marks).any(|(before, now)| before > now) {
                return Err(format!(
                    "{}: high watermark, log start and applied index were {before:?}, and are {marks:?}",
                    replica.name()
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::{Story, place, replica, state};

    fn judge(offsets: [u64; 2], setbacks: u64) -> Result<(), String> {
        let mut check = WatermarkNeverGoesBack::default();
        let mut story = Story::default();
        for (offset, setbacks) in offsets.into_iter().zip([0, setbacks]) {
            let mut one = replica(1, |seen| seen.applied = place(1, 9));
            one.state = Some(state(offset));
            one.setbacks = setbacks;
            story.look.replicas = vec![one];
            story.look(&mut check)?;
        }
        Ok(())
    }

    #[test]
    fn a_watermark_may_rise_stay_and_fall_with_the_power() {
        assert_eq!(judge([3, 4], 0), Ok(()));
        assert_eq!(judge([3, 3], 0), Ok(()));
        assert_eq!(judge([3, 2], 1), Ok(()));
    }

    #[test]
    fn a_watermark_that_goes_back_is_found() {
        assert!(judge([3, 2], 0).is_err());
    }
}
