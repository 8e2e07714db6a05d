//! The error that a loop of retries ends with. The last one is often only a timeout, and hides the reason.

use ropewalk_proto::error::ErrorCode;

use crate::error::{Error, ErrorKind};

/// The most telling error of a loop of retries so far.
#[derive(Debug, Default)]
pub(crate) struct Telling(Option<Error>);

impl Telling {
    /// Adds the error of another try, and returns the most telling one.
    pub fn add(&mut self, error: Error) -> Error {
        let error = more_telling(self.0.take(), error);
        self.0 = Some(error.clone());
        error
    }

    /// The most telling error, if there is one.
    pub fn get(&self) -> Option<&Error> {
        self.0.as_ref()
    }
}

/// Picks the more telling of two errors, and of two equal ones the later. A node's refusal outranks a node
/// that names another or ran out of time. That outranks a TLS failure, and a TLS failure any other one.
pub(crate) fn more_telling(before: Option<Error>, now: Error) -> Error {
    match before {
        Some(before) if rank(&before) > rank(&now) => {
            let unknown = before.outcome_unknown() || now.outcome_unknown();
            before.with_outcome_unknown(unknown)
        }
        _ => now,
    }
}

fn rank(error: &Error) -> u8 {
    match error.kind() {
        ErrorKind::Cluster(ErrorCode::NotLeader | ErrorCode::Timeout) => 2,
        ErrorKind::Cluster(_) => 3,
        ErrorKind::Tls => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_rather_than_a_later_timeout_and_the_latest_of_all_refusals() {
        let refused = |code| Error::new(ErrorKind::Cluster(code), "refused");
        let full = refused(ErrorCode::Overloaded);
        let silent = Error::new(ErrorKind::Timeout, "no answer").with_outcome_unknown(true);
        let mut telling = Telling::default();
        assert_eq!(telling.add(silent.clone()), silent);
        assert_eq!(telling.add(full.clone()), full);
        let kept = telling.add(silent);
        assert_eq!(kept.code(), Some(ErrorCode::Overloaded));
        assert!(kept.outcome_unknown(), "of the later try");
        let kept = telling.add(refused(ErrorCode::NotLeader));
        assert_eq!(kept.code(), Some(ErrorCode::Overloaded));
        let kept = telling.add(refused(ErrorCode::NoLeader));
        assert_eq!(kept.code(), Some(ErrorCode::NoLeader));
    }
}
