//! Answers by RPC and by error: a table with one counter for each pair.

use ropewalk_proto::error::ErrorCode;

use super::Count;

macro_rules! rpcs {
    ($($name:ident = $text:literal,)*) => {
        /// An RPC of the client service.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Rpc { $($name),* }

        impl Rpc {
            /// Every RPC, in order.
            pub const ALL: &[Rpc] = &[$(Rpc::$name),*];

            /// Its name in the service.
            pub fn name(self) -> &'static str {
                match self { $(Rpc::$name => $text),* }
            }
        }
    };
}

rpcs! {
    Metadata = "Metadata",
    Publish = "Publish",
    InitProducer = "InitProducer",
    Produce = "Produce",
    Fetch = "Fetch",
    ListOffsets = "ListOffsets",
    CheckFilter = "CheckFilter",
    Backlog = "Backlog",
    JoinGroup = "JoinGroup",
    ListGroups = "ListGroups",
    DescribeGroup = "DescribeGroup",
    GroupLag = "GroupLag",
    SeekGroup = "SeekGroup",
    DeleteGroup = "DeleteGroup",
    CreateTopic = "CreateTopic",
    AlterTopic = "AlterTopic",
    GrowTopic = "GrowTopic",
    DeleteTopic = "DeleteTopic",
    ClusterStatus = "ClusterStatus",
    ListPartitions = "ListPartitions",
    TransferLeader = "TransferLeader",
    MovePartition = "MovePartition",
    SetNodeState = "SetNodeState",
}

impl Rpc {
    /// The RPC that a path names, if it exists.
    pub fn of_path(path: &str) -> Option<Rpc> {
        let name = path.rsplit('/').next()?;
        Rpc::ALL.iter().copied().find(|rpc| rpc.name() == name)
    }

    /// True if one call has many answers.
    pub fn is_stream(self) -> bool {
        matches!(self, Rpc::Produce | Rpc::Fetch | Rpc::JoinGroup)
    }
}

/// The label for an answer without an error.
pub const OK: &str = "Ok";

/// Number of codes: those of the table, and the absence of an error.
const CODES: usize = ErrorCode::ALL.len() + 1;

/// Number of answers of each RPC, by error. For a stream, each answer in it counts.
#[derive(Debug)]
pub struct Requests(Vec<Count>);

impl Default for Requests {
    fn default() -> Requests {
        let all = Rpc::ALL.len() * CODES;
        Requests((0..all).map(|_| Count::default()).collect())
    }
}

impl Requests {
    /// Counts one answer.
    pub fn answered(&self, rpc: Rpc, error: Option<ErrorCode>) {
        // The numbers of codes begin with 1 and have no gap.
        let code = error.map_or(0, |code| code as usize);
        if let Some(count) = self.0.get(rpc as usize * CODES + code) {
            count.one();
        }
    }

    /// Number of answers with each error, of all RPCs. Includes every error.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        ErrorCode::ALL.iter().map(|code| {
            let of_rpc = |at: usize| {
                self.0
                    .get(at * CODES + *code as usize)
                    .map_or(0, Count::get)
            };
            (code.name(), (0..Rpc::ALL.len()).map(of_rpc).sum())
        })
    }

    /// The counts above zero, and every success count: the RPC, the error's name or [`OK`], and the count.
    pub fn seen(&self) -> impl Iterator<Item = (Rpc, &'static str, u64)> {
        let names = [OK]
            .into_iter()
            .chain(ErrorCode::ALL.iter().map(|code| code.name()));
        let names: Vec<&'static str> = names.collect();
        let pairs = Rpc::ALL
            .iter()
            .flat_map(move |rpc| names.clone().into_iter().map(move |name| (*rpc, name)));
        let counts = self.0.iter().map(Count::get);
        pairs
            .zip(counts)
            .map(|((rpc, name), count)| (rpc, name, count))
            .filter(|(_, name, count)| *count > 0 || *name == OK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_of_the_service_have_a_name() {
        let path = Rpc::of_path;
        assert_eq!(path("/ropewalk.v1.Ropewalk/Produce"), Some(Rpc::Produce));
        assert_eq!(path("/ropewalk.v1.Ropewalk/Reboot"), None);
        assert_eq!(path(""), None);
    }

    #[test]
    fn every_code_has_a_place_of_its_own() {
        let numbers: Vec<usize> = ErrorCode::ALL.iter().map(|code| *code as usize).collect();
        assert_eq!(numbers, (1..CODES).collect::<Vec<_>>());
    }

    #[test]
    fn an_answer_is_counted_under_its_call_and_error() {
        let requests = Requests::default();
        requests.answered(Rpc::Produce, None);
        requests.answered(Rpc::SetNodeState, Some(ErrorCode::FilterTooCostly));
        requests.answered(Rpc::Publish, Some(ErrorCode::DiskFull));
        let seen: Vec<_> = requests.seen().filter(|(_, _, count)| *count > 0).collect();
        assert_eq!(
            seen,
            [
                (Rpc::Publish, "DiskFull", 1),
                (Rpc::Produce, "Ok", 1),
                (Rpc::SetNodeState, "FilterTooCostly", 1),
            ]
        );
    }
}
