//! `produce`: sends lines as records.
//!
//! A separate thread reads stdin in blocks of whole lines. The main thread parses the lines into records, sends them, and checks the
//! deliveries in line order, so that an error is reported with its line number. It waits for input and for acknowledgements at the same time:
//! a typed line is reported as soon as it is acknowledged, and an error as soon as it is known.

mod parser;
mod report;

use std::collections::VecDeque;
use std::fmt;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use highwater_client::{Client, Compression, Delivery, ProduceError, Producer, Receipt};
use highwater_protocol::text::counted;
use tokio::sync::mpsc;

use crate::cli::{CompressionArg, PartitionArg, ProduceArgs};
use crate::failure::Failure;
use crate::lines::{lines, read_blocks};
use crate::session::with_client;
use parser::RecordParser;
use report::Report;

/// Maximum number of blocks read ahead of parsing.
const BLOCKS_AHEAD_MAX: usize = 8;

/// How long a batch waits for more lines: imperceptible when typing, and long enough to fill batches from a pipe.
const LINGER: Duration = Duration::from_millis(5);

/// Sends records. Returns when all are acknowledged.
pub(crate) fn run(args: &ProduceArgs) -> Result<(), Failure> {
    with_client(&args.server, |client| async {
        let rejections = report::report_rejections(client.events());
        tokio::select! {
            done = produce(client, args) => done,
            never = rejections => match never {},
        }
    })
}

async fn produce(client: Client, args: &ProduceArgs) -> Result<(), Failure> {
    let parser = RecordParser::new(args).map_err(Failure::usage)?;
    let builder = client.producer(&args.topic).linger(LINGER).compression(args.compression.into());
    let producer =
        builder.delivery_timeout(args.timeout).await.map_err(|e| Failure::topic(&args.topic, &e))?;
    if let Some(PartitionArg::Number(partition)) = args.partition
        && partition >= producer.partitions()
    {
        return Err(Failure::general(format_args!(
            "cannot produce to {}/{partition}: the topic has {}, numbered from 0",
            args.topic,
            counted(producer.partitions() as usize, "partition")
        )));
    }
    let report = Report::new(args);
    let mut sending = Sending { producer, in_flight: VecDeque::new(), line: 0, acknowledged: 0, report };
    let sent = match &args.records[..] {
        [] => sending.send_stdin(&parser).await,
        records => sending.send_records(records, &parser).await,
    };
    // Records sent before an error are still in flight.
    let delivered = sending.wait_for_all().await;
    match delivered.and(sent) {
        Ok(()) => sending.report.finish(sending.acknowledged),
        Err(error) => {
            sending.report.abort()?;
            let noun = if args.records.is_empty() { "line" } else { "record" };
            Err(error.into_failure(noun, sending.acknowledged))
        }
    }
}

/// Error that ends sending early. Lines are numbered from 1.
enum SendingError {
    /// Reading stdin failed.
    Input(std::io::Error),
    /// A line is not a valid record.
    Line(u64, String),
    /// A record was rejected or not acknowledged.
    Record(u64, ProduceError),
    /// Printing failed.
    Output(Failure),
}

impl SendingError {
    fn into_failure(self, noun: &str, acknowledged: u64) -> Failure {
        let before = match acknowledged {
            0 => format!("no {noun} before it was acknowledged"),
            1 => "1 record before it was acknowledged".to_owned(),
            n => format!("{} before it were acknowledged", counted(n as usize, "record")),
        };
        let failure = |what: &dyn fmt::Display| Failure::general(format_args!("{what}; {before}"));
        match self {
            Self::Input(e) => failure(&format_args!("cannot read stdin: {e}")),
            Self::Line(line, e) => failure(&format_args!("{noun} {line}: {e}")),
            Self::Record(line, e) => failure(&format_args!("{noun} {line}: {e}")),
            Self::Output(failure) => failure,
        }
    }
}

/// Progress of sending: records in flight and acknowledged.
struct Sending {
    producer: Producer,
    /// Unacknowledged lines, in order.
    in_flight: VecDeque<(u64, Delivery)>,
    /// Number of the last line read.
    line: u64,
    acknowledged: u64,
    report: Report,
}

impl Sending {
    async fn send_stdin(&mut self, parser: &RecordParser<'_>) -> Result<(), SendingError> {
        let mut blocks = blocks_of_stdin();
        loop {
            tokio::select! {
                biased;
                block = blocks.recv() => match block {
                    Some(block) => self.send_lines(block.map_err(SendingError::Input)?, parser).await?,
                    None => return Ok(()),
                },
                (line, result) = first_outcome(&mut self.in_flight) => self.complete_first(line, result)?,
            }
            self.complete_acknowledged()?;
        }
    }

    async fn send_lines(&mut self, block: Bytes, parser: &RecordParser<'_>) -> Result<(), SendingError> {
        let bytes = block.len() as u64;
        for line in lines(block) {
            self.send(line, parser).await?;
        }
        self.report.progress.advance(bytes);
        Ok(())
    }

    async fn send_records(
        &mut self,
        records: &[String],
        parser: &RecordParser<'_>,
    ) -> Result<(), SendingError> {
        for record in records {
            self.send(Bytes::copy_from_slice(record.as_bytes()), parser).await?;
        }
        Ok(())
    }

    async fn send(&mut self, line: Bytes, parser: &RecordParser<'_>) -> Result<(), SendingError> {
        self.line += 1;
        if let Some(record) = parser.parse(line).map_err(|e| SendingError::Line(self.line, e))? {
            let sent = self.producer.send(record).await;
            let delivery = sent.map_err(|e| SendingError::Record(self.line, e))?;
            self.in_flight.push_back((self.line, delivery));
        }
        Ok(())
    }

    /// Removes the leading deliveries that are acknowledged, and reports progress.
    fn complete_acknowledged(&mut self) -> Result<(), SendingError> {
        while let Some((line, delivery)) = self.in_flight.front()
            && let Some(result) = delivery.result()
        {
            self.complete_first(*line, result)?;
        }
        self.report.show(self.acknowledged).map_err(SendingError::Output)
    }

    /// Removes the first delivery in flight, whose outcome is `result`.
    fn complete_first(
        &mut self,
        line: u64,
        result: Result<Receipt, ProduceError>,
    ) -> Result<(), SendingError> {
        self.in_flight.pop_front();
        let receipt = result.map_err(|e| SendingError::Record(line, e))?;
        self.acknowledged += 1;
        self.report.add(&receipt).map_err(SendingError::Output)
    }

    async fn wait_for_all(&mut self) -> Result<(), SendingError> {
        while !self.in_flight.is_empty() {
            let (line, result) = first_outcome(&mut self.in_flight).await;
            self.complete_first(line, result)?;
            self.complete_acknowledged()?;
        }
        Ok(())
    }
}

/// Waits for the outcome of the first delivery. Never returns if there is none.
async fn first_outcome(in_flight: &mut VecDeque<(u64, Delivery)>) -> (u64, Result<Receipt, ProduceError>) {
    match in_flight.front_mut() {
        Some((line, delivery)) => (*line, delivery.await),
        None => std::future::pending().await,
    }
}

fn blocks_of_stdin() -> mpsc::Receiver<std::io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(BLOCKS_AHEAD_MAX);
    thread::spawn(move || {
        let result = read_blocks(std::io::stdin().lock(), |block| sender.blocking_send(Ok(block)).is_ok());
        if let Err(e) = result {
            // If the receiver is dropped, the command has already ended with an error.
            let _ = sender.blocking_send(Err(e));
        }
    });
    receiver
}

impl From<CompressionArg> for Compression {
    fn from(argument: CompressionArg) -> Self {
        match argument {
            CompressionArg::None => Self::None,
            CompressionArg::Gzip => Self::Gzip,
            CompressionArg::Snappy => Self::Snappy,
            CompressionArg::Lz4 => Self::Lz4,
            CompressionArg::Zstd => Self::Zstd,
        }
    }
}
