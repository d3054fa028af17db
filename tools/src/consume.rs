//! `consume`: records to stdout.
//!
//! Records are gathered in one buffer and written in large pieces; whenever there is nothing more to read at the moment, what is
//! gathered is written at once. A named consumer's position is committed only after the records before it were written.

mod sources;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::IsTerminal as _;
use std::task::Poll;
use std::time::{Duration, Instant};

use highwater_client::{Batch, Client, FetchError, FetchErrorKind, Offset, RecordRef};

pub(crate) use sources::topics;

use crate::cli::ConsumeArgs;
use crate::failure::{self, Failure};
use crate::format::Format;
use crate::output::{self, RawStdout};
use crate::progress::Progress;
use crate::record::{RecordView, write_json};
use crate::session::with_client;
use sources::Sources;

/// Gathered output from which on it is written.
const OUTPUT_BYTES: usize = 128 << 10;

/// Between two commits of a named consumer that always has more to read.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// Prints records.
pub(crate) fn run(args: &ConsumeArgs) -> Result<(), Failure> {
    with_client(&args.server, |client| consume(client, args))
}

async fn consume(client: Client, args: &ConsumeArgs) -> Result<(), Failure> {
    let mut sources = Sources::open(&client, args).await?;
    let mut printer = Printer::new(args)?;
    let mut positions = Positions::new(&client, args);
    let mut left = args.limit.unwrap_or(u64::MAX);
    // Partitions that get no further.
    let mut failed_partitions = 0;
    let mut is_whole = true;
    while left > 0 {
        sources.look().await?;
        let batch = match poll_fn(|cx| Poll::Ready(sources.poll_next_batch(cx))).await {
            Poll::Ready(batch) => batch,
            Poll::Pending => {
                // A pause: everything out before waiting.
                printer.write()?;
                positions.commit().await?;
                if failed_partitions > 0 && sources.unfinished() <= failed_partitions {
                    break;
                }
                sources.next_batch().await?
            }
        };
        let batch = match batch {
            Ok(Some(batch)) => batch,
            Ok(None) => break,
            Err(e) if concerns_one_partition(&e) => {
                // What can be read is printed, in this partition and in the others, and the exit code tells that something is missing.
                if let Some(damaged) = e.damaged() {
                    let (topic, partition) = (&damaged.topic, damaged.partition);
                    if sources.end_of(topic, partition).is_none_or(|end| damaged.from.get() >= end) {
                        continue;
                    }
                    positions.note(topic, partition, damaged.to.get());
                    sources.note(topic, partition, damaged.to.get());
                } else {
                    failed_partitions += 1;
                }
                printer.write()?;
                output::complain(&e);
                is_whole = false;
                continue;
            }
            Err(e) => return Err(Failure::general(e)),
        };
        // What comes after the end of its partition is neither printed nor counted as read.
        let Some(end) = sources.end_of(batch.topic(), batch.partition()) else { continue };
        let printed = printer.print(&batch, left, end)?;
        left -= printed.records;
        positions.note(batch.topic(), batch.partition(), printed.next_offset);
        sources.note(batch.topic(), batch.partition(), printed.next_offset);
        if positions.are_due() {
            printer.write()?;
            positions.commit().await?;
        }
    }
    printer.write()?;
    positions.commit().await?;
    printer.progress.clear();
    if is_whole { Ok(()) } else { Err(Failure::Quiet(failure::GENERAL)) }
}

/// Whether only one partition is concerned, and reading goes on after this error.
pub(crate) fn concerns_one_partition(error: &FetchError) -> bool {
    matches!(error.kind(), FetchErrorKind::Faulty | FetchErrorKind::Corrupt | FetchErrorKind::OutOfRange)
}

/// How records are printed.
enum Shape {
    Format(Format),
    Json,
}

/// Records on their way to stdout.
pub(crate) struct Printer {
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

impl Printer {
    pub(crate) fn new(args: &ConsumeArgs) -> Result<Self, Failure> {
        let shape = match &args.format {
            _ if args.json => Shape::Json,
            Some(format) => Shape::Format(format.clone()),
            None => Shape::Format(Format::lines()),
        };
        // Records on a terminal are their own progress.
        let quiet = args.follow || std::io::stdout().is_terminal();
        let progress = if quiet { Progress::hidden() } else { Progress::of_records(args.limit) };
        Ok(Self { shape, out: Vec::with_capacity(2 * OUTPUT_BYTES), stdout: RawStdout::new()?, progress })
    }

    /// Prints at most `limit` records, and none from the offset `end` on.
    pub(crate) fn print(&mut self, batch: &Batch, limit: u64, end: i64) -> Result<Printed, Failure> {
        let mut printed = Printed { records: 0, next_offset: batch.next_offset().get() };
        for record in batch {
            if printed.records == limit || record.offset().get() >= end {
                printed.next_offset = record.offset().get();
                break;
            }
            self.print_record(batch.topic(), &record);
            printed.records += 1;
            if self.out.len() >= OUTPUT_BYTES {
                self.write()?;
            }
        }
        self.progress.advance(printed.records);
        Ok(printed)
    }

    fn print_record(&mut self, topic: &str, record: &RecordRef<'_>) {
        let headers: Vec<_> = record.headers().map(|header| (header.key, header.value)).collect();
        let view = RecordView {
            topic,
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
    name: Option<&'a str>,
    /// By topic and partition.
    printed: BTreeMap<String, BTreeMap<u32, Offset>>,
    last_commit: Instant,
}

impl<'a> Positions<'a> {
    fn new(client: &'a Client, args: &'a ConsumeArgs) -> Self {
        Self { client, name: args.consumer.as_deref(), printed: BTreeMap::new(), last_commit: Instant::now() }
    }

    fn note(&mut self, topic: &str, partition: u32, next_offset: i64) {
        if self.name.is_some() {
            let of_topic = self.printed.entry(topic.to_owned()).or_default();
            of_topic.insert(partition, Offset(next_offset));
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
            for (topic, positions) in std::mem::take(&mut self.printed) {
                self.client.commit_offsets(name, &topic, positions).await.map_err(Failure::general)?;
            }
            self.last_commit = Instant::now();
        }
        Ok(())
    }
}
