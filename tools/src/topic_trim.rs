//! `topic trim`: deletes the oldest records of a topic.

use highwater_client::Offset;
use highwater_protocol::text::{counted, grouped};
use serde::Serialize;

use crate::cli::TrimArgs;
use crate::failure::Failure;
use crate::output;
use crate::positions::{ResolvedPosition, partitions, resolve};
use crate::session::with_client;

#[derive(Serialize)]
struct Trimmed<'a> {
    topic: &'a str,
    partition: u32,
    from: i64,
    to: i64,
    end: i64,
}

/// Deletes the records before `--before`, unless `--dry-run`, and prints the old and new start of each partition.
pub(crate) fn run(args: &TrimArgs) -> Result<(), Failure> {
    with_client(&args.server, |client| async move {
        let partitions = partitions(&client, &args.topic, &args.partition).await?;
        let starts = resolve(&client, &args.topic, &partitions, args.before).await?;
        if !args.dry_run {
            let advancing = starts.iter().filter(|new| new.offset > new.start);
            let before: Vec<_> = advancing.map(|new| (new.partition, Offset(new.offset))).collect();
            if !before.is_empty() {
                client
                    .delete_records(&args.topic, before)
                    .await
                    .map_err(|e| Failure::topic(&args.topic, &e))?;
            }
        }
        print_starts(args, &starts)
    })
}

fn print_starts(args: &TrimArgs, starts: &[ResolvedPosition]) -> Result<(), Failure> {
    if args.json {
        let lines = starts.iter().map(|new| Trimmed {
            topic: &args.topic,
            partition: new.partition,
            from: new.start,
            to: new.offset,
            end: new.end,
        });
        return lines.into_iter().try_for_each(|line| output::print_json(&line));
    }
    let mut rows = vec![["PARTITION", "START", "NEW START", "END"].map(str::to_owned).to_vec()];
    rows.extend(starts.iter().map(|new| {
        [i64::from(new.partition), new.start, new.offset, new.end].map(|n| n.to_string()).to_vec()
    }));
    let offsets: i64 = starts.iter().map(|new| new.offset - new.start).sum();
    let records = counted(usize::try_from(offsets).unwrap_or(0), "record");
    let summary = if args.dry_run {
        format!("dry run: {records} would be deleted")
    } else {
        format!("{records} deleted")
    };
    let remaining: i64 = starts.iter().map(|new| new.end - new.offset).sum();
    let text =
        format!("{}\n{summary}, {} remaining\n", output::table(&rows), grouped(remaining.unsigned_abs()));
    output::print(&text)
}
