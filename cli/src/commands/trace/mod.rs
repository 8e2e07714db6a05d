//! `ropewalk trace`: the path of an event across topics. There is no index of correlation ids. Instead, the
//! command reads the topics, all partitions in parallel, and orders the related events.

mod path;
mod row;
mod scan;

use anyhow::bail;

use super::Context;
use super::interrupt::Interrupts;
use crate::args::TraceArgs;
use crate::exit::usage;
use crate::parse::StartAt;

pub async fn run(
    context: Context,
    args: TraceArgs,
    mut interrupts: Interrupts,
) -> anyhow::Result<()> {
    if matches!(args.from, StartAt::Offset(_) | StartAt::End) {
        return Err(usage(
            "--from must be a time for trace; pass beginning, a timestamp such as 2026-01-31T00:00:00Z, or a relative time such as -1h",
        ));
    }
    let found = tokio::select! {
        found = look(&context, &args) => found?,
        () = interrupts.next() => bail!("interrupted before all records were read; pass --topic, or a later --from, to read less"),
    };
    Ok(context.output.rows(&path::in_order(found))?)
}

async fn look(context: &Context, args: &TraceArgs) -> anyhow::Result<Vec<row::Event>> {
    let client = context.client().await?;
    let looked = scan::scan(&client, args).await?;
    if looked.found.is_empty() {
        bail!(
            "no event of {:?} found in {} records of {} topics; search other topics, or pass an earlier --from",
            args.id,
            looked.records,
            looked.topics
        );
    }
    Ok(looked.found)
}
