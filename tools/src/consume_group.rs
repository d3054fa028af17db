//! `consume --group`: records of the partitions that the group assigns to this process, to stdout.
//!
//! A batch is on stdout before the next one is asked for, which is what the group takes for processed.

use std::future::pending;
use std::time::Duration;

use highwater_client::{Client, FetchError, GroupBuilder, GroupConsumer, Offset, StartAt};
use highwater_runtime::signals::is_ignored;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::ConsumeArgs;
use crate::consume::{Printer, concerns_one_partition, topics};
use crate::failure::{self, Failure};
use crate::output;
use crate::session::with_client_beside;
use crate::start_at::StartPosition;

/// Between two commits of what is on stdout.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// What asks this process to end. Listened for all the time: what comes while records are printed is not lost.
struct Stop {
    interrupts: Signal,
    terminations: Signal,
    /// Of a terminal that is closed; none where the parent process ignores it (`nohup`).
    hangups: Option<Signal>,
}

impl Stop {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind, name| {
            signal(kind).map_err(|e| Failure::general(format_args!("cannot listen for {name}: {e}")))
        };
        Ok(Self {
            interrupts: listen(SignalKind::interrupt(), "Ctrl-C")?,
            terminations: listen(SignalKind::terminate(), "SIGTERM")?,
            hangups: (!is_ignored(SignalKind::hangup().as_raw_value()))
                .then(|| listen(SignalKind::hangup(), "SIGHUP"))
                .transpose()?,
        })
    }

    /// Waits until it comes. The exit code is that of a shell for a command that the signal ends.
    async fn asked(&mut self) -> Failure {
        let kind = tokio::select! {
            _ = self.interrupts.recv() => SignalKind::interrupt(),
            _ = self.terminations.recv() => SignalKind::terminate(),
            () = hang_up(&mut self.hangups) => SignalKind::hangup(),
        };
        Failure::Quiet(128 + kind.as_raw_value() as u8)
    }
}

async fn hang_up(hangups: &mut Option<Signal>) {
    match hangups {
        Some(hangups) => drop(hangups.recv().await),
        None => pending().await,
    }
}

/// Prints records. Heartbeats go on while a slow reader holds up stdout, so they have a thread of their own.
pub(crate) fn run(args: &ConsumeArgs, group: &str) -> Result<(), Failure> {
    with_client_beside(&args.server, |client| consume(client, args, group))
}

async fn consume(client: Client, args: &ConsumeArgs, group: &str) -> Result<(), Failure> {
    let mut stop = Stop::listen()?;
    let mut consumer = tokio::select! {
        joined = join(&client, args, group) => joined?,
        stopped = stop.asked() => return Err(stopped),
    };
    let outcome = print_records(&mut consumer, args, &mut stop).await;
    // Whatever happened: the others need not wait for the session to end. Who has no patience for that says so once more.
    let closed = tokio::select! {
        closed = consumer.close() => closed.map_err(Failure::general),
        stopped = stop.asked() => Err(stopped),
    };
    outcome.and(closed)
}

async fn join(client: &Client, args: &ConsumeArgs, group: &str) -> Result<GroupConsumer, Failure> {
    if let StartPosition::BeforeEnd(_) = args.from {
        let text = "a group begins at earliest, latest, an offset or a time, not at a number of records before the end";
        return Err(Failure::usage(text));
    }
    let topics = topics(client, args).await?;
    let (first, others) = topics.split_first().expect("no topic is an error");
    let mut builder = client.consumer(first).start(args.from.or_latest()).on_out_of_range(StartAt::Earliest);
    if args.limit.is_none() && !args.follow {
        builder = builder.until_end();
    }
    let builder = others.iter().fold(builder.group(group), GroupBuilder::topic);
    builder.commit_every(COMMIT_INTERVAL).await.map_err(Failure::general)
}

async fn print_records(
    consumer: &mut GroupConsumer,
    args: &ConsumeArgs,
    stop: &mut Stop,
) -> Result<(), Failure> {
    let mut printer = Printer::new(args)?;
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut has_failed = false;
    while left > 0 {
        let batch: Result<_, FetchError> = tokio::select! {
            batch = consumer.next_batch() => batch,
            stopped = stop.asked() => return Err(stopped),
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
        let printed = printer.print(&batch, left, i64::MAX)?;
        printer.write()?;
        left -= printed.records;
        if left == 0 {
            batch.commit_until(Offset(printed.next_offset)).await.map_err(Failure::general)?;
        }
    }
    printer.progress.clear();
    if has_failed { Err(Failure::Quiet(failure::GENERAL)) } else { Ok(()) }
}
