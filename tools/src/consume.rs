//! `consume`: prints records on stdout.
//!
//! Output is buffered and written in large pieces. When no records are available, the buffer is flushed before waiting. A named consumer's
//! position is committed only after the records before it were written.

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

/// Buffered output, in bytes, from which it is written.
const OUTPUT_BYTES: usize = 128 << 10;

/// Interval between commits of a named consumer that never has to wait for records.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// Prints records.
pub(crate) fn run(args: &ConsumeArgs) -> Result<(), Failure> {
    with_client(&args.server, |client| consume(client, args))
}

async fn consume(client: Client, args: &ConsumeArgs) -> Result<(), Failure> {
    let mut sources = Sources::open(&client, args).await?;
    let mut printer = Printer::new(args)?;
    let mut positions = Positions::new(&client, args);
    let mut remaining = args.limit.unwrap_or(u64::MAX);
    // Partitions with an error that reading does not get past.
    let mut failed_partitions = 0;
    let mut is_complete = true;
    while remaining > 0 {
        sources.discover_topics().await?;
        let batch = match poll_fn(|cx| Poll::Ready(sources.poll_next_batch(cx))).await {
            Poll::Ready(batch) => batch,
            Poll::Pending => {
                printer.flush()?;
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
            Err(e) if affects_one_partition(&e) => {
                // Print all readable records, of this partition and the others; the exit code reports that some are missing.
                if let Some(damaged) = e.damaged() {
                    let (topic, partition) = (&damaged.topic, damaged.partition);
                    if sources.end_of(topic, partition).is_none_or(|end| damaged.from.get() >= end) {
                        continue;
                    }
                    positions.advance(topic, partition, damaged.to.get());
                    sources.advance(topic, partition, damaged.to.get());
                } else {
                    failed_partitions += 1;
                }
                printer.flush()?;
                output::print_stderr(&e);
                is_complete = false;
                continue;
            }
            Err(e) => return Err(Failure::general(e)),
        };
        // Records at or after the end given by --until are neither printed nor committed.
        let Some(end) = sources.end_of(batch.topic(), batch.partition()) else { continue };
        let printed = printer.print(&batch, remaining, end)?;
        remaining -= printed.records;
        positions.advance(batch.topic(), batch.partition(), printed.next_offset);
        sources.advance(batch.topic(), batch.partition(), printed.next_offset);
        if positions.commit_is_due() {
            printer.flush()?;
            positions.commit().await?;
        }
    }
    printer.flush()?;
    positions.commit().await?;
    printer.progress.clear();
    if is_complete { Ok(()) } else { Err(Failure::Quiet(failure::GENERAL)) }
}

/// Returns whether the error affects only one partition, so that reading the others can continue.
pub(crate) fn affects_one_partition(error: &FetchError) -> bool {
    matches!(error.kind(), FetchErrorKind::Faulty | FetchErrorKind::Corrupt | FetchErrorKind::OutOfRange)
}

/// Output format of records.
enum RecordFormat {
    Text(Format),
    Json,
}

/// Buffered printer of records to stdout.
pub(crate) struct Printer {
    format: RecordFormat,
    out: Vec<u8>,
    stdout: RawStdout,
    pub(crate) progress: Progress,
}

/// Part of a batch that was printed.
pub(crate) struct Printed {
    pub(crate) records: u64,
    /// Offset of the first record that was not printed.
    pub(crate) next_offset: i64,
}

impl Printer {
    pub(crate) fn new(args: &ConsumeArgs) -> Result<Self, Failure> {
        let format = match &args.format {
            _ if args.json => RecordFormat::Json,
            Some(format) => RecordFormat::Text(format.clone()),
            None => RecordFormat::Text(Format::lines()),
        };
        // If stdout is a terminal, the records themselves show the progress.
        let is_quiet = args.follow || std::io::stdout().is_terminal();
        let progress = if is_quiet { Progress::hidden() } else { Progress::of_records(args.limit) };
        Ok(Self { format, out: Vec::with_capacity(2 * OUTPUT_BYTES), stdout: RawStdout::new()?, progress })
    }

    /// Prints at most `limit` records of the batch, all before the offset `end`.
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
                self.flush()?;
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
        match &self.format {
            RecordFormat::Text(format) => format.write(&view, &mut self.out),
            RecordFormat::Json => write_json(&view, &mut self.out),
        }
    }

    /// Writes the buffer to stdout.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        if !self.out.is_empty() {
            self.stdout.write(&self.out)?;
            self.out.clear();
        }
        Ok(())
    }
}

/// Positions of a named consumer. Without a name, none are kept.
struct Positions<'a> {
    client: &'a Client,
    name: Option<&'a str>,
    /// Uncommitted positions, by topic and partition.
    uncommitted: BTreeMap<String, BTreeMap<u32, Offset>>,
    last_commit: Instant,
}

impl<'a> Positions<'a> {
    fn new(client: &'a Client, args: &'a ConsumeArgs) -> Self {
        let name = args.consumer.as_deref();
        Self { client, name, uncommitted: BTreeMap::new(), last_commit: Instant::now() }
    }

    /// Sets the position of a partition.
    fn advance(&mut self, topic: &str, partition: u32, next_offset: i64) {
        if self.name.is_some() {
            let partitions = self.uncommitted.entry(topic.to_owned()).or_default();
            partitions.insert(partition, Offset(next_offset));
        }
    }

    fn commit_is_due(&self) -> bool {
        !self.uncommitted.is_empty() && self.last_commit.elapsed() >= COMMIT_INTERVAL
    }

    /// Commits the positions. Flush the printer first, so that records before them are written.
    async fn commit(&mut self) -> Result<(), Failure> {
        if let Some(name) = self.name
            && !self.uncommitted.is_empty()
        {
            for (topic, positions) in std::mem::take(&mut self.uncommitted) {
                self.client.commit_offsets(name, &topic, positions).await.map_err(Failure::general)?;
            }
            self.last_commit = Instant::now();
        }
        Ok(())
    }
}
