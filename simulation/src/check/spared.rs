//! A good database is spared: a node sets a database aside only if a fault had damaged its disk. A disk that
//! failed, was full, lost power or did not open for a while holds a replica of everything the node
//! acknowledged. A node that gave it up would come back without that, and three such nodes would lose records.

use super::{Check, Now};

/// The check.
#[derive(Debug)]
pub struct GoodDatabasesAreSpared;

impl Check for GoodDatabasesAreSpared {
    fn name(&self) -> &'static str {
        "good-databases-are-spared"
    }

    fn look(&mut self, now: &Now<'_>) -> Result<(), String> {
        let mut set_aside = now.look.set_aside.iter();
        match set_aside.find(|one| !one.was_damaged) {
            Some(one) => Err(format!(
                "the database of {} was set aside by {:?}, on a disk that nothing had damaged: {}",
                one.host, now.look.at, one.why
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::Story;
    use crate::directory::SetAside;

    fn story(was_damaged: &[bool]) -> Result<(), String> {
        let mut story = Story::default();
        let set_aside = was_damaged.iter().map(|was_damaged| SetAside {
            host: "node-1".to_owned(),
            why: "block 7 rots".to_owned(),
            was_damaged: *was_damaged,
        });
        story.look.set_aside = set_aside.collect();
        story.look(&mut GoodDatabasesAreSpared)
    }

    #[test]
    fn a_damaged_database_may_be_set_aside() {
        assert_eq!(story(&[]), Ok(()));
        assert_eq!(story(&[true, true]), Ok(()));
    }

    #[test]
    fn a_good_database_that_is_set_aside_is_found() {
        let found = story(&[true, false]).expect_err("the second was good");
        assert!(found.contains("node-1") && found.contains("block 7 rots"));
    }
}
