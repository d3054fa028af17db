//! `produce`: stdin to records.
//!
//! A thread reads stdin in blocks of whole lines; this one makes records of them, gives them to the producer and looks after the
//! deliveries in the order of the lines, so that what went wrong is said with its line.

use std::collections::VecDeque;
use std::fmt;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use highwater_client::{Client, Compression, Delivery, ProduceError, Producer, Record, Timestamp};
use memchr::memmem::Finder;
use tokio::sync::mpsc;

use crate::cli::{CompressionArg, ProduceArgs};
use crate::failure::Failure;
use crate::lines::{lines, read_blocks};
use crate::progress::{Progress, stdin_bytes};
use crate::record::{RecordInput, read_json};
use crate::session::with_client;
use crate::units::grouped;

/// Blocks read and not yet made into records.
const BLOCKS_AHEAD: usize = 8;

/// How long a batch waits for more lines: unnoticed by a person who types, and enough to fill batches from a pipe.
const LINGER: Duration = Duration::from_millis(5);

/// Sends the lines of stdin; returns when all are acknowledged.
pub(crate) fn run(args: &ProduceArgs) -> Result<(), Failure> {
    with_client(&args.server, |client| produce(client, args))
}

async fn produce(client: Client, args: &ProduceArgs) -> Result<(), Failure> {
    let builder = client.producer(&args.topic).linger(LINGER).compression(args.compression.into());
    let producer = builder.delivery_timeout(args.timeout).await.map_err(Failure::general)?;
    if let Some(partition) = args.partition
        && partition >= producer.partitions()
    {
        return Err(Failure::general(format_args!(
            "cannot produce to {}/{partition}: the topic has {} partitions, numbered from 0",
            args.topic,
            producer.partitions()
        )));
    }
    let mut sending = Sending {
        producer,
        in_flight: VecDeque::new(),
        taken: 0,
        acknowledged: 0,
        progress: Progress::of_bytes(stdin_bytes()),
    };
    let taken = sending.take_all(&Shape::new(args)).await;
    // What was taken before something went wrong is still on its way.
    let delivered = sending.wait_for_all().await;
    match delivered.and(taken) {
        Ok(()) => {
            let records = sending.acknowledged;
            sending.progress.finish(&format!("{} records acknowledged", grouped(records)));
            Ok(())
        }
        Err(e) => {
            sending.progress.clear();
            Err(e.into_failure(sending.acknowledged))
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
}

impl Trouble {
    fn into_failure(self, acknowledged: u64) -> Failure {
        let rest = format_args!("; {} lines before it are acknowledged", grouped(acknowledged)).to_string();
        let said = |what: &dyn fmt::Display| Failure::general(format_args!("{what}{rest}"));
        match self {
            Self::Input(e) => said(&format_args!("cannot read stdin: {e}")),
            Self::Line(line, e) => said(&format_args!("line {line}: {e}")),
            Self::Record(line, e) => said(&format_args!("line {line}: {e}")),
        }
    }
}

/// What is on its way.
struct Sending {
    producer: Producer,
    /// One for each line that is not known to be acknowledged, in order: the first is that of line `acknowledged + 1`.
    in_flight: VecDeque<Delivery>,
    taken: u64,
    acknowledged: u64,
    progress: Progress,
}

impl Sending {
    async fn take_all(&mut self, shape: &Shape<'_>) -> Result<(), Trouble> {
        let mut blocks = blocks_of_stdin();
        while let Some(block) = blocks.recv().await {
            let block = block.map_err(Trouble::Input)?;
            let bytes = block.len() as u64;
            for line in lines(block) {
                self.taken += 1;
                let record = shape.record(line).map_err(|e| Trouble::Line(self.taken, e))?;
                let delivery =
                    self.producer.send(record).await.map_err(|e| Trouble::Record(self.taken, e))?;
                self.in_flight.push_back(delivery);
            }
            self.note_acknowledged()?;
            self.progress.advance(bytes);
            self.progress.acknowledged(self.acknowledged);
        }
        Ok(())
    }

    /// Forgets the deliveries that are known to be good.
    fn note_acknowledged(&mut self) -> Result<(), Trouble> {
        while let Some(result) = self.in_flight.front().and_then(Delivery::result) {
            result.map_err(|e| Trouble::Record(self.acknowledged + 1, e))?;
            self.in_flight.pop_front();
            self.acknowledged += 1;
        }
        Ok(())
    }

    async fn wait_for_all(&mut self) -> Result<(), Trouble> {
        while let Some(delivery) = self.in_flight.pop_front() {
            delivery.await.map_err(|e| Trouble::Record(self.acknowledged + 1, e))?;
            self.acknowledged += 1;
        }
        Ok(())
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

/// How a line becomes a record.
struct Shape<'a> {
    separator: Option<Finder<'a>>,
    headers: Vec<(Bytes, Bytes)>,
    json: bool,
    partition: Option<u32>,
}

impl<'a> Shape<'a> {
    fn new(args: &'a ProduceArgs) -> Self {
        let bytes = |text: &String| Bytes::copy_from_slice(text.as_bytes());
        Self {
            separator: args.key_separator.as_ref().map(|separator| Finder::new(&separator.0)),
            headers: args.header.iter().map(|(name, value)| (bytes(name), bytes(value))).collect(),
            json: args.json,
            partition: args.partition,
        }
    }

    fn record(&self, line: Bytes) -> Result<Record, String> {
        let mut record = if self.json { from_json(read_json(&line)?) } else { self.split(line) };
        for (name, value) in &self.headers {
            record = record.header(name.clone(), value.clone());
        }
        match self.partition {
            Some(partition) => Ok(record.partition(partition)),
            None => Ok(record),
        }
    }

    fn split(&self, mut line: Bytes) -> Record {
        let Some(separator) = &self.separator else { return Record::new(line) };
        match separator.find(&line) {
            Some(at) => {
                let key = line.split_to(at);
                bytes::Buf::advance(&mut line, separator.needle().len());
                Record::new(line).key(key)
            }
            None => Record::new(line),
        }
    }
}

fn from_json(input: RecordInput) -> Record {
    let mut record = match input.value {
        Some(value) => Record::new(value),
        None => Record::tombstone(),
    };
    if let Some(key) = input.key {
        record = record.key(key);
    }
    if let Some(millis) = input.timestamp_ms {
        record = record.timestamp(Timestamp(millis));
    }
    for (name, value) in input.headers {
        record = match value {
            Some(value) => record.header(name, value),
            None => record.null_header(name),
        };
    }
    record
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
