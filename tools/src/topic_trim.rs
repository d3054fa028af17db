//! `topic trim`: deletes the oldest records of a topic.

use highwater_client::Offset;
use highwater_protocol::text::{counted, grouped};
use serde::Serialize;

use crate::cli::TrimArgs;
use crate::failure::Failure;
use crate::output;
use crate::positions::{Located, locate, partitions};
use crate::session::with_client;

#[derive(Serialize)]
struct Trimmed<'a> {
    topic: &'a str,
    partition: u32,
    from: i64,
    to: i64,
    end: i64,
}

/// Shows where each partition begins and will begin, and moves it there unless that was only to be shown.
pub(crate) fn run(args: &TrimArgs) -> Result<(), Failure> {
    with_client(&args.server, |client| async move {
        let partitions = partitions(&client, &args.topic, &args.partition).await?;
        let located = locate(&client, &args.topic, &partitions, args.before).await?;
        if !args.dry_run {
            let before = located.iter().filter(|at| at.at > at.start).map(|at| (at.partition, Offset(at.at)));
            let before: Vec<_> = before.collect();
            if !before.is_empty() {
                client.delete_records(&args.topic, before).await.map_err(Failure::general)?;
            }
        }
        show(args, &located)
    })
}

fn show(args: &TrimArgs, located: &[Located]) -> Result<(), Failure> {
    if args.json {
        let lines = located.iter().map(|at| Trimmed {
            topic: &args.topic,
            partition: at.partition,
            from: at.start,
            to: at.at,
            end: at.end,
        });
        return lines.into_iter().try_for_each(|line| output::print_json(&line));
    }
    let mut rows = vec![["PARTITION", "START", "NEW START", "END"].map(str::to_owned).to_vec()];
    rows.extend(
        located
            .iter()
            .map(|at| [i64::from(at.partition), at.start, at.at, at.end].map(|n| n.to_string()).to_vec()),
    );
    let offsets: i64 = located.iter().map(|at| at.at - at.start).sum();
    let records = counted(usize::try_from(offsets).unwrap_or(0), "record");
    let summary = if args.dry_run {
        format!("dry run: {records} would be deleted")
    } else {
        format!("{records} deleted")
    };
    let left: i64 = located.iter().map(|at| at.end - at.at).sum();
    let text = format!("{}\n{summary}, {} left\n", output::table(&rows), grouped(left.unsigned_abs()));
    output::print(&text)
}
