//! `demo`: a half-minute demonstration that acknowledged records survive kills.
//!
//! Starts a broker as a separate process, on a free port and with a temporary data directory, and sends a million records. When half of them
//! are acknowledged, kills the broker with SIGKILL and restarts it while the producer keeps sending. Then kills it again, reads everything
//! back, and compares it with what was acknowledged.

mod check;
mod records;
mod report;

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::path::{Path, PathBuf};
use std::task::Poll;
use std::time::{Duration, Instant};

use highwater_bench::server::{Server, ServerPlan};
use highwater_client::{Client, Delivery, Offset, Producer, Receipt, Start};
use highwater_protocol::text::{counted, grouped};
use tempfile::TempDir;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use crate::cli::DemoArgs;
use crate::failure::Failure;
use crate::output;
use crate::progress::Progress;
use check::Check;
use report::{Phase, Results};

const TOPIC: &str = "orders";
const PARTITIONS: u32 = 8;

/// How long a batch waits for more records.
const LINGER: Duration = Duration::from_millis(5);

/// Maximum number of unacknowledged records.
const IN_FLIGHT_MAX: usize = 100_000;

/// Runs the demo. Fails if an acknowledged record is lost, duplicated or changed.
pub(crate) fn run(args: &DemoArgs) -> Result<(), Failure> {
    if args.records == 0 {
        return Err(Failure::usage("--records must be at least 1"));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime =
        runtime.map_err(|e| Failure::general(format_args!("cannot start the async runtime: {e}")))?;
    // After a signal, dropping the demo's future kills the broker and removes its directory.
    runtime.block_on(async {
        let mut stop = StopSignals::listen()?;
        tokio::select! {
            result = demonstrate(args) => result,
            stopped = stop.received() => Err(stopped),
        }
    })
}

/// Signals that end the demo.
struct StopSignals([(SignalKind, Signal); 3]);

impl StopSignals {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            let signal = signal(kind);
            let signal =
                signal.map_err(|e| Failure::general(format_args!("cannot listen for signals: {e}")))?;
            Ok::<_, Failure>((kind, signal))
        };
        Ok(Self([
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    /// Waits for a signal. Returns the exit code that a shell reports for a command terminated by it.
    async fn received(&mut self) -> Failure {
        poll_fn(|cx| {
            let received =
                self.0.iter_mut().find_map(|(kind, signal)| signal.poll_recv(cx).is_ready().then_some(*kind));
            received
                .map_or(Poll::Pending, |kind| Poll::Ready(Failure::Quiet(128 + kind.as_raw_value() as u8)))
        })
        .await
    }
}

/// A broker and its temporary data directory. Dropping it kills the broker, then removes the directory.
struct DemoBroker {
    server: Server,
    directory: TempDir,
}

async fn demonstrate(args: &DemoArgs) -> Result<(), Failure> {
    let data_dir = args.data_dir.clone();
    let mut broker = join(spawn_blocking(move || DemoBroker::start(data_dir.as_deref()))).await?;
    output::print(&format!(
        "A broker runs as process {} on {}.\nIts data is in {} until the demo ends.\nIt acknowledges a record when it is: {}.\n\n",
        broker.server.pids()[0],
        broker.server.addresses()[0],
        broker.directory.path().display(),
        broker.server.acknowledgement(),
    ))?;
    let client = Client::builder().bootstrap(broker.server.addresses()).name("highwater-demo").connect();
    let client = client.await.map_err(Failure::general)?;
    client.create_topic(TOPIC).partitions(PARTITIONS).await.map_err(Failure::general)?;
    output::print(&format!("topic    {TOPIC} with {}\n", counted(PARTITIONS as usize, "partition")))?;

    let mut sending = Sending::new(&client, args.records).await?;
    let (before, after, first_kill);
    (before, after, first_kill, broker) = sending.run(broker).await?;
    let (killed_at, acknowledged) = (sending.killed_at, sending.acknowledged);

    let second_kill;
    (broker, second_kill) = join(broker.restart()).await?;
    output::print(&format!(
        "kill -9  again, before anything is read; ready after {:.2} s\n",
        second_kill.as_secs_f64()
    ))?;
    let (read, check) = read_back(&client, acknowledged).await?;
    drop(broker);
    let results = Results {
        before,
        after,
        read,
        killed_at,
        kills: [first_kill, second_kill],
        findings: check.findings(),
    };
    output::print(&results.to_text())?;
    if results.findings.is_clean() {
        Ok(())
    } else {
        Err(Failure::general("acknowledged records are lost, duplicated or changed"))
    }
}

async fn join<T>(task: impl Future<Output = Result<Result<T, Failure>, JoinError>>) -> Result<T, Failure> {
    task.await.map_err(|e| Failure::general(e.to_string()))?
}

impl DemoBroker {
    /// Starts the broker in `parent`, or in the first suitable default directory. Directories in memory are not suitable.
    fn start(parent: Option<&Path>) -> Result<Self, Failure> {
        let candidates: Vec<PathBuf> = match parent {
            Some(dir) => vec![dir.to_owned()],
            None => vec![std::env::temp_dir(), PathBuf::from("/var/tmp"), PathBuf::from(".")],
        };
        let mut errors = Vec::new();
        for candidate in candidates {
            match Self::start_in(&candidate) {
                Ok(broker) => return Ok(broker),
                Err(e) => errors.push(e),
            }
        }
        Err(Failure::general(errors.join("; ")))
    }

    fn start_in(parent: &Path) -> Result<Self, String> {
        let directory = tempfile::Builder::new().prefix("highwater-demo-").tempdir_in(parent);
        let directory =
            directory.map_err(|e| format!("cannot create a directory in {}: {e}", parent.display()))?;
        let plan = ServerPlan { data_dir: Some(directory.path().to_owned()), ..ServerPlan::default() };
        let server = Server::start(plan).map_err(|e| e.to_string())?;
        Ok(Self { server, directory })
    }

    /// Kills and restarts the broker on a blocking thread. The task also returns how long that took.
    fn restart(mut self) -> JoinHandle<Result<(Self, Duration), Failure>> {
        spawn_blocking(move || {
            let began = Instant::now();
            self.server.kill().and_then(|()| self.server.start_again()).map_err(Failure::general)?;
            Ok((self, began.elapsed()))
        })
    }
}

/// Progress of sending: records in flight and acknowledged.
struct Sending {
    producer: Producer,
    /// Number of records to send.
    records: u64,
    in_flight: VecDeque<Delivery>,
    /// Partition and offset of each acknowledged record, by record number.
    acknowledged: Vec<(u32, i64)>,
    /// Number of records acknowledged when the broker was killed.
    killed_at: u64,
    progress: Progress,
}

impl Sending {
    async fn new(client: &Client, records: u64) -> Result<Self, Failure> {
        let producer = client.producer(TOPIC).linger(LINGER).await.map_err(Failure::general)?;
        let progress = Progress::of_records(Some(records));
        Ok(Self {
            producer,
            records,
            in_flight: VecDeque::new(),
            acknowledged: Vec::with_capacity(records as usize),
            killed_at: 0,
            progress,
        })
    }

    /// Sends all records, and kills and restarts the broker when half of them are acknowledged. Returns the phases before the kill and after
    /// the restart, the duration of the restart, and the broker.
    async fn run(&mut self, broker: DemoBroker) -> Result<(Phase, Phase, Duration, DemoBroker), Failure> {
        let began = Instant::now();
        let half = self.records / 2;
        let mut sent = 0;
        while sent < self.records && self.acknowledged_count() < half {
            self.send(sent).await?;
            sent += 1;
        }
        while self.acknowledged_count() < half {
            self.complete_first().await?;
        }
        self.killed_at = self.acknowledged_count();
        let before = Phase { records: self.killed_at, took: began.elapsed() };
        self.progress.suspend(|| {
            output::print(&format!(
                "kill -9  when {} of {} records are acknowledged and more are in flight\n",
                grouped(self.killed_at),
                grouped(self.records)
            ))
        })?;
        let began = Instant::now();
        let mut restarting = broker.restart();
        let mut restarted = None;
        // Keep sending. The producer reconnects by itself and resends unacknowledged records.
        while self.acknowledged_count() < self.records {
            let next = async {
                if sent < self.records {
                    self.send(sent).await.map(|()| 1)
                } else {
                    self.complete_first().await.map(|()| 0)
                }
            };
            tokio::select! {
                biased;
                done = join(&mut restarting), if restarted.is_none() => restarted = Some(done?),
                done = next => sent += done?,
            }
        }
        let (broker, took) = match restarted {
            Some(restarted) => restarted,
            None => join(restarting).await?,
        };
        let after =
            Phase { records: self.records - self.killed_at, took: began.elapsed().saturating_sub(took) };
        self.progress.clear();
        output::print(&format!(
            "ready    after {:.2} s; the producer reconnected by itself, and all {} records are acknowledged\n",
            took.as_secs_f64(),
            grouped(self.records)
        ))?;
        Ok((before, after, took, broker))
    }

    fn acknowledged_count(&self) -> u64 {
        self.acknowledged.len() as u64
    }

    /// Sends record `n`, and removes the leading deliveries that are acknowledged.
    async fn send(&mut self, n: u64) -> Result<(), Failure> {
        while self.in_flight.len() >= IN_FLIGHT_MAX {
            self.complete_first().await?;
        }
        let delivery = self.producer.send(records::record(n)).await.map_err(Failure::general)?;
        self.in_flight.push_back(delivery);
        while let Some(result) = self.in_flight.front().and_then(Delivery::result) {
            self.in_flight.pop_front();
            self.add_receipt(&result.map_err(Failure::general)?);
        }
        Ok(())
    }

    /// Waits for the first delivery in flight.
    async fn complete_first(&mut self) -> Result<(), Failure> {
        let Some(first) = self.in_flight.front_mut() else { return Ok(()) };
        let receipt = first.await.map_err(Failure::general)?;
        self.in_flight.pop_front();
        self.add_receipt(&receipt);
        Ok(())
    }

    fn add_receipt(&mut self, receipt: &Receipt) {
        let offset = receipt.offset().map_or(-1, Offset::get);
        self.acknowledged.push((receipt.partition(), offset));
        self.progress.advance(1);
    }
}

/// Reads all records and compares them with `acknowledged`.
async fn read_back(client: &Client, acknowledged: Vec<(u32, i64)>) -> Result<(Phase, Check), Failure> {
    let progress = Progress::of_records(Some(acknowledged.len() as u64));
    let began = Instant::now();
    let mut check = Check::new(acknowledged);
    let consumer = client.consumer(TOPIC).start(Start::Earliest).until_end();
    let mut consumer = consumer.await.map_err(Failure::general)?;
    while let Some(batch) = consumer.next_batch().await.map_err(Failure::general)? {
        for record in &batch {
            check.add(record.partition(), record.offset().get(), record.key(), record.value());
        }
        progress.advance(batch.len() as u64);
    }
    let read = Phase { records: check.records_read(), took: began.elapsed() };
    progress.clear();
    output::print(
        "read     all records, and compared each with what was sent and where it was acknowledged\n\n",
    )?;
    Ok((read, check))
}
