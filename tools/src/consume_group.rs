//! `consume --group`: records of the partitions that the group assigns to this process, to stdout.
//!
//! A batch is on stdout before the next one is asked for, which is what the group takes for processed.

use std::time::Duration;

use highwater_client::{Client, FetchError, GroupConsumer, Offset, StartAt, Timestamp};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::ConsumeArgs;
use crate::consume::{Printer, concerns_one_partition};
use crate::failure::{self, Failure};
use crate::output;
use crate::session::with_client_beside;
use crate::start_at::StartPosition;

/// Between two commits of what is on stdout.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// Exit code of a command that Ctrl-C ends.
const INTERRUPTED: u8 = 130;

/// Prints records. Heartbeats go on while a slow reader holds up stdout, so they have a thread of their own.
pub(crate) fn run(args: &ConsumeArgs, group: &str) -> Result<(), Failure> {
    with_client_beside(&args.server, |client| consume(client, args, group))
}

async fn consume(client: Client, args: &ConsumeArgs, group: &str) -> Result<(), Failure> {
    // One for all the time: a Ctrl-C that comes while records are printed is not lost.
    let mut interrupts = signal(SignalKind::interrupt())
        .map_err(|e| Failure::general(format_args!("cannot listen for Ctrl-C: {e}")))?;
    let mut consumer = tokio::select! {
        joined = join(&client, args, group) => joined?,
        _ = interrupts.recv() => return Err(Failure::Quiet(INTERRUPTED)),
    };
    let outcome = print_records(&mut consumer, args, &mut interrupts).await;
    // Whatever happened: the others need not wait for the session to end. Who has no patience for that says so once more.
    let closed = tokio::select! {
        closed = consumer.close() => closed.map_err(Failure::general),
        _ = interrupts.recv() => Err(Failure::Quiet(INTERRUPTED)),
    };
    outcome.and(closed)
}

async fn join(client: &Client, args: &ConsumeArgs, group: &str) -> Result<GroupConsumer, Failure> {
    let start = match args.from {
        StartPosition::Earliest => StartAt::Earliest,
        StartPosition::Latest => StartAt::Latest,
        StartPosition::Offset(offset) => StartAt::Offset(Offset(offset)),
        StartPosition::Time(millis) => StartAt::Timestamp(Timestamp(millis)),
        StartPosition::BeforeEnd(_) => {
            let text = "a group begins at earliest, latest, an offset or a time, not at a number of records \
                        before the end";
            return Err(Failure::usage(text));
        }
    };
    let mut builder = client.consumer(&args.topic).start(start);
    if args.limit.is_none() && !args.follow {
        builder = builder.until_end();
    }
    builder.group(group).commit_every(COMMIT_INTERVAL).await.map_err(Failure::general)
}

async fn print_records(
    consumer: &mut GroupConsumer,
    args: &ConsumeArgs,
    interrupts: &mut Signal,
) -> Result<(), Failure> {
    let mut printer = Printer::new(args)?;
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut has_failed = false;
    while left > 0 {
        let batch: Result<_, FetchError> = tokio::select! {
            batch = consumer.next_batch() => batch,
            _ = interrupts.recv() => return Err(Failure::Quiet(INTERRUPTED)),
        };
        let batch = match batch {
            Ok(Some(batch)) => batch,
            Ok(None) => break,
            Err(e) if concerns_one_partition(&e) => {
                output::complain(&e);
                has_failed = true;
                continue;
            }
            Err(e) => return Err(Failure::general(e)),
        };
        let printed = printer.print(&batch, left)?;
        printer.write()?;
        left -= printed.records;
        if left == 0 {
            batch.commit_until(Offset(printed.next_offset)).await.map_err(Failure::general)?;
        }
    }
    printer.progress.clear();
    if has_failed { Err(Failure::Quiet(failure::GENERAL)) } else { Ok(()) }
}
