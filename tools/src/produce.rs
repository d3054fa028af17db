//! `produce`: lines to records.
//!
//! A thread reads stdin in blocks of whole lines; this one makes records of them, gives them to the producer and looks after the
//! deliveries in the order of the lines, so that what went wrong is said with its line. It waits for input and for acknowledgements
//! at the same time: a line that a person types is reported as soon as it is acknowledged, and a failure as soon as it is known.

mod report;
mod shape;

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
use report::Report;
use shape::Shape;

/// Blocks read and not yet made into records.
const BLOCKS_AHEAD: usize = 8;

/// How long a batch waits for more lines: unnoticed by a person who types, and enough to fill batches from a pipe.
const LINGER: Duration = Duration::from_millis(5);

/// Sends records; returns when all are acknowledged.
pub(crate) fn run(args: &ProduceArgs) -> Result<(), Failure> {
    with_client(&args.server, |client| async {
        let refusals = report::tell_refusals(client.events());
        tokio::select! {
            done = produce(client, args) => done,
            never = refusals => match never {},
        }
    })
}

async fn produce(client: Client, args: &ProduceArgs) -> Result<(), Failure> {
    let shape = Shape::new(args).map_err(Failure::usage)?;
    let builder = client.producer(&args.topic).linger(LINGER).compression(args.compression.into());
    let producer = builder.delivery_timeout(args.timeout).await.map_err(Failure::general)?;
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
    let taken = match &args.records[..] {
        [] => sending.take_stdin(&shape).await,
        records => sending.take_records(records, &shape).await,
    };
    // What was taken before something went wrong is still on its way.
    let delivered = sending.wait_for_all().await;
    match delivered.and(taken) {
        Ok(()) => sending.report.finish(sending.acknowledged),
        Err(trouble) => {
            sending.report.abandon()?;
            let noun = if args.records.is_empty() { "line" } else { "record" };
            Err(trouble.into_failure(noun, sending.acknowledged))
        }
    }
}

/// What ends sending early.
enum Trouble {
    /// Stdin cannot be read.
    Input(std::io::Error),
    /// A line is no record. Lines count from 1.
    Line(u64, String),
    /// A record was not taken or not acknowledged.
    Record(u64, ProduceError),
    /// What was to be printed cannot be.
    Output(Failure),
}

impl Trouble {
    fn into_failure(self, noun: &str, acknowledged: u64) -> Failure {
        let rest = match acknowledged {
            0 => "none before it is acknowledged".to_owned(),
            1 => "1 record before it is acknowledged".to_owned(),
            n => format!("{} before it are acknowledged", counted(n as usize, "record")),
        };
        let said = |what: &dyn fmt::Display| Failure::general(format_args!("{what}; {rest}"));
        match self {
            Self::Input(e) => said(&format_args!("cannot read stdin: {e}")),
            Self::Line(line, e) => said(&format_args!("{noun} {line}: {e}")),
            Self::Record(line, e) => said(&format_args!("{noun} {line}: {e}")),
            Self::Output(failure) => failure,
        }
    }
}

/// What is on its way.
struct Sending {
    producer: Producer,
    /// The lines that are not known to be acknowledged, in their order.
    in_flight: VecDeque<(u64, Delivery)>,
    /// The last one taken.
    line: u64,
    acknowledged: u64,
    report: Report,
}

impl Sending {
    async fn take_stdin(&mut self, shape: &Shape<'_>) -> Result<(), Trouble> {
        let mut blocks = blocks_of_stdin();
        loop {
            tokio::select! {
                biased;
                block = blocks.recv() => match block {
                    Some(block) => self.take_lines(block.map_err(Trouble::Input)?, shape).await?,
                    None => return Ok(()),
                },
                (line, result) = first_fate(&mut self.in_flight) => self.note(line, result)?,
            }
            self.note_acknowledged()?;
        }
    }

    async fn take_lines(&mut self, block: Bytes, shape: &Shape<'_>) -> Result<(), Trouble> {
        let bytes = block.len() as u64;
        for line in lines(block) {
            self.take(line, shape).await?;
        }
        self.report.progress.advance(bytes);
        Ok(())
    }

    async fn take_records(&mut self, records: &[String], shape: &Shape<'_>) -> Result<(), Trouble> {
        for record in records {
            self.take(Bytes::copy_from_slice(record.as_bytes()), shape).await?;
        }
        Ok(())
    }

    async fn take(&mut self, line: Bytes, shape: &Shape<'_>) -> Result<(), Trouble> {
        self.line += 1;
        if let Some(record) = shape.record(line).map_err(|e| Trouble::Line(self.line, e))? {
            let delivery = self.producer.send(record).await.map_err(|e| Trouble::Record(self.line, e))?;
            self.in_flight.push_back((self.line, delivery));
        }
        Ok(())
    }

    /// Forgets the deliveries that are known to be good.
    fn note_acknowledged(&mut self) -> Result<(), Trouble> {
        while let Some((line, delivery)) = self.in_flight.front()
            && let Some(result) = delivery.result()
        {
            self.note(*line, result)?;
        }
        self.report.show(self.acknowledged).map_err(Trouble::Output)
    }

    /// What became of the first one in flight.
    fn note(&mut self, line: u64, result: Result<Receipt, ProduceError>) -> Result<(), Trouble> {
        self.in_flight.pop_front();
        let receipt = result.map_err(|e| Trouble::Record(line, e))?;
        self.acknowledged += 1;
        self.report.note(&receipt).map_err(Trouble::Output)
    }

    async fn wait_for_all(&mut self) -> Result<(), Trouble> {
        while !self.in_flight.is_empty() {
            let (line, result) = first_fate(&mut self.in_flight).await;
            self.note(line, result)?;
            self.note_acknowledged()?;
        }
        Ok(())
    }
}

/// Waits until it is known what became of the first one. For ever, if there is none.
async fn first_fate(in_flight: &mut VecDeque<(u64, Delivery)>) -> (u64, Result<Receipt, ProduceError>) {
    match in_flight.front_mut() {
        Some((line, delivery)) => (*line, delivery.await),
        None => std::future::pending().await,
    }
}

fn blocks_of_stdin() -> mpsc::Receiver<std::io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(BLOCKS_AHEAD);
    thread::spawn(move || {
        let result = read_blocks(std::io::stdin().lock(), |block| sender.blocking_send(Ok(block)).is_ok());
        if let Err(e) = result {
            // If nobody listens any more the command has ended, and said why.
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
