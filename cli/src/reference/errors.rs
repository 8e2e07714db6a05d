//! The page of the errors.

use ropewalk_proto::error::{ErrorCode, Outcome, Retry};

use super::{check, code, table, text};

const HEADINGS: [&str; 8] = [
    "name",
    "number",
    "gRPC status",
    "Kafka code",
    "retry",
    "write",
    "meaning",
    "next step",
];

const INTRODUCTION: &str = "# Errors

Every answer of a node that is an error has one of these codes. The message beside it names the object and the next
step. `ropewalk_refusals_total{code=…}` counts the errors by name.

- *gRPC status*: the status of a failed call. The metadata key `ropewalk-error` has the number of the code. An error in
  a stream has the number in its field `code`.
- *Kafka code*: the nearest code of the Kafka protocol.
- *retry*: `no`, unless the caller changes something; `same node`, later; or `new metadata`, since another node or
  partition may be the right one now.
- *write*: the effect of the refused write. `not done`: it has none, and never will. `unknown`: it may be in the log,
  or get there yet, so only a retry of an idempotent producer is safe.

";

fn row(error: ErrorCode) -> Vec<String> {
    let retry = match error.retry() {
        Retry::Never => "no",
        Retry::Later => "same node",
        Retry::Reroute => "new metadata",
    };
    let write = match error.outcome() {
        Outcome::NotDone => "not done",
        Outcome::Unknown => "unknown",
    };
    vec![
        code(error.name()),
        (error as u32).to_string(),
        code(&format!("{:?}", error.grpc())),
        error.kafka().to_string(),
        retry.to_owned(),
        write.to_owned(),
        text(error.meaning()),
        text(error.remedy()),
    ]
}

#[test]
fn the_page_of_the_errors_is_as_the_code_says() {
    let rows = ErrorCode::ALL.iter().map(|error| row(*error));
    let page = INTRODUCTION.to_owned() + &table(&HEADINGS, rows);
    check("errors.md", &page);
}
