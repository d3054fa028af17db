//! `consume`: records to stdout.
//!
//! Records are gathered in one buffer and written in large pieces; whenever there is nothing more to read at the moment, what is
//! gathered is written at once. A named consumer's position is committed only after the records before it were written.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::IsTerminal as _;
use std::task::Poll;
use std::time::{Duration, Instant};

use highwater_client::{
    Batch, Client, Consumer, FetchError, FetchErrorKind, Offset, PartitionStatus, RecordRef, StartAt,
    Timestamp,
};

use crate::cli::ConsumeArgs;
use crate::failure::{self, Failure};
use crate::format::Format;
use crate::output::{self, RawStdout};
use crate::progress::Progress;
use crate::record::{RecordView, write_json};
use crate::session::with_client;
use crate::start_at::StartPosition;

/// Gathered output from which on it is written.
const OUTPUT_BYTES: usize = 128 << 10;

/// Between two commits of a named consumer that always has more to read.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// Prints records.
pub(crate) fn run(args: &ConsumeArgs) -> Result<(), Failure> {
    with_client(&args.server, |client| consume(client, args))
}

async fn consume(client: Client, args: &ConsumeArgs) -> Result<(), Failure> {
    let mut consumer = open(&client, args).await?;
    let mut printer = Printer::new(args)?;
    let mut positions = Positions::new(&client, args);
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut failed_partitions = 0;
    while left > 0 {
        let batch = match poll_fn(|cx| Poll::Ready(consumer.poll_next_batch(cx))).await {
            Poll::Ready(batch) => batch,
            Poll::Pending => {
                // A pause: everything out before waiting.
                printer.write()?;
                positions.commit().await?;
                if failed_partitions > 0 && unfinished(&consumer) <= failed_partitions {
                    break;
                }
                consumer.next_batch().await
            }
        };
        let batch = match batch {
            Ok(Some(batch)) => batch,
            Ok(None) => break,
            Err(e) if concerns_one_partition(&e) => {
                // The others are not to blame: what can be read is printed, and the exit code tells that something is missing.
                printer.write()?;
                output::complain(&e);
                failed_partitions += 1;
                continue;
            }
            Err(e) => return Err(Failure::general(e)),
        };
        let printed = printer.print(&batch, left)?;
        left -= printed.records;
        positions.note(&batch, printed.next_offset);
        if positions.are_due() {
            printer.write()?;
            positions.commit().await?;
        }
    }
    printer.write()?;
    positions.commit().await?;
    printer.progress.clear();
    if failed_partitions == 0 { Ok(()) } else { Err(Failure::Quiet(failure::GENERAL)) }
}

/// Whether the other partitions go on after this error.
pub(crate) fn concerns_one_partition(error: &FetchError) -> bool {
    matches!(error.kind(), FetchErrorKind::Faulty | FetchErrorKind::Corrupt | FetchErrorKind::OutOfRange)
}

/// Partitions that have not come to the end that was asked for, those that failed among them.
fn unfinished(consumer: &Consumer) -> usize {
    let is_finished = |status: &PartitionStatus| status.end.is_some() && status.position >= status.end;
    consumer.status().iter().filter(|status| !is_finished(status)).count()
}

async fn open(client: &Client, args: &ConsumeArgs) -> Result<Consumer, Failure> {
    let start = match args.from {
        StartPosition::Earliest => StartAt::Earliest,
        StartPosition::Latest | StartPosition::BeforeEnd(_) => StartAt::Latest,
        StartPosition::Offset(offset) => StartAt::Offset(Offset(offset)),
        StartPosition::Time(millis) => StartAt::Timestamp(Timestamp(millis)),
    };
    let mut builder = client.consumer(&args.topic).start(start);
    if !args.partition.is_empty() {
        builder = builder.partitions(args.partition.iter().copied());
    }
    if let Some(name) = &args.consumer {
        builder = builder.name(name);
    }
    if args.limit.is_none() && !args.follow {
        builder = builder.until_end();
    }
    let mut consumer = builder.await.map_err(Failure::general)?;
    if let StartPosition::BeforeEnd(records) = args.from {
        step_back(client, args, &mut consumer, records).await?;
    }
    Ok(consumer)
}

/// Moves every partition that has no committed position this many records before its end.
async fn step_back(
    client: &Client,
    args: &ConsumeArgs,
    consumer: &mut Consumer,
    records: i64,
) -> Result<(), Failure> {
    let committed = match &args.consumer {
        Some(name) => client.committed(name, &args.topic).await.map_err(Failure::general)?,
        None => Vec::new(),
    };
    let partitions: Vec<u32> = consumer
        .status()
        .iter()
        .map(|status| status.partition)
        .filter(|partition| committed.iter().all(|position| position.partition.get() != *partition))
        .collect();
    let ask = |at: StartAt| client.list_offsets(&args.topic, partitions.iter().map(move |p| (*p, at)));
    let starts = ask(StartAt::Earliest).await.map_err(Failure::general)?;
    let ends = ask(StartAt::Latest).await.map_err(Failure::general)?;
    for (start, end) in starts.iter().zip(&ends) {
        let partition = start.partition.get();
        let offset = |found: &highwater_client::ListedOffset| match found.found {
            Ok(Some((offset, _))) => Ok(offset.get()),
            Ok(None) => Ok(0),
            Err(code) => Err(Failure::general(format_args!("{}/{partition}: {code}", args.topic))),
        };
        let to = offset(end)?.saturating_sub(records).max(offset(start)?);
        consumer.seek(partition, StartAt::Offset(Offset(to))).map_err(Failure::general)?;
    }
    Ok(())
}

/// How records are printed.
enum Shape {
    Format(Format),
    Json,
}

/// Records on their way to stdout.
pub(crate) struct Printer<'a> {
    topic: &'a str,
    shape: Shape,
    out: Vec<u8>,
    stdout: RawStdout,
    pub(crate) progress: Progress,
}

/// What was printed of a batch.
pub(crate) struct Printed {
    pub(crate) records: u64,
    pub(crate) next_offset: i64,
}

impl<'a> Printer<'a> {
    pub(crate) fn new(args: &'a ConsumeArgs) -> Result<Self, Failure> {
        let shape = match &args.format {
            _ if args.json => Shape::Json,
            Some(format) => Shape::Format(format.clone()),
            None => Shape::Format(Format::lines()),
        };
        // Records on a terminal are their own progress.
        let quiet = args.follow || std::io::stdout().is_terminal();
        let progress = if quiet { Progress::hidden() } else { Progress::of_records(args.limit) };
        Ok(Self {
            topic: &args.topic,
            shape,
            out: Vec::with_capacity(2 * OUTPUT_BYTES),
            stdout: RawStdout::new()?,
            progress,
        })
    }

    /// Prints at most `limit` records.
    pub(crate) fn print(&mut self, batch: &Batch, limit: u64) -> Result<Printed, Failure> {
        let mut printed = Printed { records: 0, next_offset: batch.next_offset().get() };
        for record in batch {
            if printed.records == limit {
                printed.next_offset = record.offset().get();
                break;
            }
            self.print_record(&record);
            printed.records += 1;
            if self.out.len() >= OUTPUT_BYTES {
                self.write()?;
            }
        }
        self.progress.advance(printed.records);
        Ok(printed)
    }

    fn print_record(&mut self, record: &RecordRef<'_>) {
        let headers: Vec<_> = record.headers().map(|header| (header.key, header.value)).collect();
        let view = RecordView {
            topic: self.topic,
            partition: record.partition(),
            offset: record.offset().get(),
            timestamp_ms: record.timestamp().get(),
            key: record.key(),
            value: (!record.is_tombstone()).then(|| record.value()),
            headers: &headers,
        };
        match &self.shape {
            Shape::Format(format) => format.write(&view, &mut self.out),
            Shape::Json => write_json(&view, &mut self.out),
        }
    }

    /// Writes what was gathered.
    pub(crate) fn write(&mut self) -> Result<(), Failure> {
        if !self.out.is_empty() {
            self.stdout.write(&self.out)?;
            self.out.clear();
        }
        Ok(())
    }
}

/// How far a named consumer came. For one without a name nothing is kept.
struct Positions<'a> {
    client: &'a Client,
    topic: &'a str,
    name: Option<&'a str>,
    printed: BTreeMap<u32, Offset>,
    last_commit: Instant,
}

impl<'a> Positions<'a> {
    fn new(client: &'a Client, args: &'a ConsumeArgs) -> Self {
        Self {
            client,
            topic: &args.topic,
            name: args.consumer.as_deref(),
            printed: BTreeMap::new(),
            last_commit: Instant::now(),
        }
    }

    fn note(&mut self, batch: &Batch, next_offset: i64) {
        if self.name.is_some() {
            self.printed.insert(batch.partition(), Offset(next_offset));
        }
    }

    fn are_due(&self) -> bool {
        !self.printed.is_empty() && self.last_commit.elapsed() >= COMMIT_INTERVAL
    }

    /// To be called when everything noted has been written.
    async fn commit(&mut self) -> Result<(), Failure> {
        if let Some(name) = self.name
            && !self.printed.is_empty()
        {
            let positions = std::mem::take(&mut self.printed);
            self.client.commit_offsets(name, self.topic, positions).await.map_err(Failure::general)?;
            self.last_commit = Instant::now();
        }
        Ok(())
    }
}
