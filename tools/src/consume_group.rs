//! `consume --group`: prints the records of the partitions that the group assigns to this process.
//!
//! A batch is written to stdout before the next one is requested, because that request marks the batch as processed.

use std::future::pending;
use std::time::Duration;

use highwater_client::{Client, FetchError, GroupBuilder, GroupConsumer, Offset, Start};
use highwater_runtime::signals::is_ignored;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::ConsumeArgs;
use crate::consume::{Printer, affects_one_partition, topics};
use crate::failure::{self, Failure};
use crate::output;
use crate::session::with_client_on_own_thread;
use crate::start_position::StartPosition;

/// Interval between commits of records written to stdout.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// Signals that end this process. A signal that arrives while records are printed is not lost.
struct StopSignals {
    interrupts: Signal,
    terminations: Signal,
    /// SIGHUP; `None` if the parent process ignores it (`nohup`).
    hangups: Option<Signal>,
}

impl StopSignals {
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

    /// Waits for a signal. Returns the exit code that a shell reports for a command terminated by it.
    async fn received(&mut self) -> Failure {
        let kind = tokio::select! {
            _ = self.interrupts.recv() => SignalKind::interrupt(),
            _ = self.terminations.recv() => SignalKind::terminate(),
            () = hangup_received(&mut self.hangups) => SignalKind::hangup(),
        };
        Failure::Quiet(128 + kind.as_raw_value() as u8)
    }
}

async fn hangup_received(hangups: &mut Option<Signal>) {
    match hangups {
        Some(hangups) => drop(hangups.recv().await),
        None => pending().await,
    }
}

/// Prints records. The client runs on its own thread, so that it sends heartbeats even while writing to stdout blocks.
pub(crate) fn run(args: &ConsumeArgs, group: &str) -> Result<(), Failure> {
    with_client_on_own_thread(&args.server, |client| consume(client, args, group))
}

async fn consume(client: Client, args: &ConsumeArgs, group: &str) -> Result<(), Failure> {
    let mut stop = StopSignals::listen()?;
    let mut consumer = tokio::select! {
        joined = join(&client, args, group) => joined?,
        stopped = stop.received() => return Err(stopped),
    };
    let outcome = print_records(&mut consumer, args, &mut stop).await;
    // Leave the group even after an error, so that the other members need not wait for the session timeout. A second signal skips this.
    let closed = tokio::select! {
        closed = consumer.close() => closed.map_err(Failure::general),
        stopped = stop.received() => Err(stopped),
    };
    outcome.and(closed)
}

async fn join(client: &Client, args: &ConsumeArgs, group: &str) -> Result<GroupConsumer, Failure> {
    if let StartPosition::BeforeEnd(_) = args.from {
        let text = "--from -N cannot be used with --group; use earliest, latest, an offset or a time";
        return Err(Failure::usage(text));
    }
    let topics = topics(client, args).await?;
    let (first, others) = topics.split_first().expect("`topics` returns at least one topic for a group");
    let mut builder = client.consumer(first).start(args.from.or_latest()).on_out_of_range(Start::Earliest);
    if args.limit.is_none() && !args.follow {
        builder = builder.until_end();
    }
    let builder = others.iter().fold(builder.group(group), GroupBuilder::topic);
    let joined = builder.auto_commit_interval(COMMIT_INTERVAL).await;
    joined.map_err(|e| if others.is_empty() { Failure::topic(first, &e) } else { Failure::general(e) })
}

async fn print_records(
    consumer: &mut GroupConsumer,
    args: &ConsumeArgs,
    stop: &mut StopSignals,
) -> Result<(), Failure> {
    let mut printer = Printer::new(args)?;
    let mut remaining = args.limit.unwrap_or(u64::MAX);
    let mut has_failed = false;
    while remaining > 0 {
        let batch: Result<_, FetchError> = tokio::select! {
            batch = consumer.next_batch() => batch,
            stopped = stop.received() => return Err(stopped),
        };
        let batch = match batch {
            Ok(Some(batch)) => batch,
            Ok(None) => break,
            Err(e) if affects_one_partition(&e) => {
                output::print_stderr(&e);
                has_failed = true;
                continue;
            }
            Err(e) => return Err(Failure::general(e)),
        };
        let printed = printer.print(&batch, remaining, i64::MAX)?;
        printer.flush()?;
        remaining -= printed.records;
        if remaining == 0 {
            batch.commit_until(Offset(printed.next_offset)).await.map_err(Failure::general)?;
        }
    }
    printer.progress.clear();
    if has_failed { Err(Failure::Quiet(failure::GENERAL)) } else { Ok(()) }
}
