//! The starts of a node's process: two processes of one node are told apart by them.

use ropewalk_proto::v1::NodeStart;

/// True if a process with this start may act for its node: its start is the newest that the metadata has, or
/// a newer one. A start that either side does not know passes.
pub fn check(known: Option<NodeStart>, told: Option<NodeStart>) -> bool {
    let (Some(known), Some(told)) = (known, told) else {
        return true;
    };
    told.count > known.count || told == known
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(count: u64, nonce: u64) -> Option<NodeStart> {
        Some(NodeStart { count, nonce })
    }

    #[test]
    fn an_older_start_is_refused_and_so_is_another_of_the_same_count() {
        assert!(check(start(5, 1), start(5, 1)));
        assert!(check(start(5, 1), start(6, 2)));
        assert!(!check(start(5, 1), start(4, 3)));
        assert!(!check(start(5, 1), start(5, 2)));
        // A node of an older version, on either side, sends no start.
        assert!(check(None, start(1, 1)) && check(start(5, 1), None));
    }
}
