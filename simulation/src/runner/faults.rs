//! Selection of the kinds of faults.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::fault::What;
use crate::plan::Plan;

/// All kinds, or some of them, by name or by family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Faults {
    /// All drawn faults.
    #[default]
    All,
    /// Only these of the drawn faults, as given by the user.
    Some(Vec<String>),
}

impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Faults, String> {
        if text == "all" {
            return Ok(Faults::All);
        }
        let names: Vec<String> = text.split(',').map(str::to_owned).collect();
        let known = |name: &String| What::kinds().any(|kind| is_of(kind, name));
        match names.iter().find(|name| !known(name)) {
            None => Ok(Faults::Some(names)),
            Some(name) => {
                let kinds: Vec<_> = What::kinds().collect();
                let families: Vec<_> = What::families().collect();
                Err(format!(
                    "{name}: there is no such fault; there are the families all, {}, and in them {}",
                    families.join(", "),
                    kinds.join(", ")
                ))
            }
        }
    }
}

fn is_of(kind: &str, name: &str) -> bool {
    kind == name || What::family(kind) == Some(name)
}

impl Faults {
    /// The same plan without the other faults.
    #[must_use]
    pub fn of(&self, mut plan: Plan) -> Plan {
        if let Faults::Some(names) = self {
            plan.faults.retain(|fault| {
                let kind = fault.what.kind();
                names.iter().any(|name| is_of(kind, name))
            });
        }
        plan
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Faults::All => f.write_str("all"),
            Faults::Some(names) => f.write_str(&names.join(",")),
        }
    }
}

impl Serialize for Faults {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;

    #[test]
    fn faults_are_chosen_by_kind_and_by_family() {
        let storm = Duration::from_secs(600);
        let of_many_kinds = |plan: &Plan| {
            let kinds = plan.faults.iter().map(|fault| fault.what.kind());
            kinds.collect::<BTreeSet<_>>().len() > 12
        };
        let drawn = (1..).map(|seed| Plan::draw(seed, storm));
        let drawn = { drawn }.find(of_many_kinds).expect("a plan");
        let left = |text: &str| {
            let faults: Faults = text.parse().expect("faults");
            assert_eq!(faults.to_string(), text);
            let left = faults.of(drawn.clone()).faults.into_iter();
            let kinds = left.map(|fault| fault.what.kind());
            kinds.collect::<BTreeSet<_>>()
        };
        let all = left("all");
        let network: Vec<_> = all.iter().filter(|kind| is_of(kind, "network")).collect();
        assert!(!network.is_empty() && network.len() < all.len(), "{all:?}");
        assert_eq!(left("network").iter().collect::<Vec<_>>(), network);
        let one = network[0];
        assert_eq!(left(one).into_iter().collect::<Vec<_>>(), [*one]);
        let error = "network,earthquake".parse::<Faults>().expect_err("refused");
        assert!(
            error.starts_with("earthquake: there is no such fault"),
            "{error}"
        );
    }
}
