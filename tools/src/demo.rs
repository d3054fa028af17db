//! `demo`: what a broker does, seen in half a minute.
//!
//! A broker is started as a process of its own, on a free port and a temporary folder. A million records go in; when half of them are
//! acknowledged the broker is killed with SIGKILL and started again, while the producer goes on. Then it is killed once more, and everything
//! is read back and compared with what was acknowledged.

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
use report::{Leg, Results};

const TOPIC: &str = "orders";
const PARTITIONS: u32 = 8;

/// How long a batch waits for more records.
const LINGER: Duration = Duration::from_millis(5);

/// Deliveries that are looked after at a time.
const IN_FLIGHT_MAX: usize = 100_000;

/// Shows it; fails if anything that was acknowledged is not there.
pub(crate) fn run(args: &DemoArgs) -> Result<(), Failure> {
    if args.records == 0 {
        return Err(Failure::usage("a demo without records shows nothing: --records is at least 1"));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|e| Failure::general(format_args!("cannot start: {e}")))?;
    // Whichever ends first, the broker is killed and its folder removed when what shows it is dropped.
    runtime.block_on(async {
        let mut stop = Stop::listen()?;
        tokio::select! {
            shown = show(args) => shown,
            stopped = stop.asked() => Err(stopped),
        }
    })
}

/// What asks the demo to end.
struct Stop([(SignalKind, Signal); 3]);

impl Stop {
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

    /// Waits until it comes. The exit code is that of a shell for a command that the signal ends.
    async fn asked(&mut self) -> Failure {
        poll_fn(|cx| {
            let came =
                self.0.iter_mut().find_map(|(kind, signal)| signal.poll_recv(cx).is_ready().then_some(*kind));
            came.map_or(Poll::Pending, |kind| Poll::Ready(Failure::Quiet(128 + kind.as_raw_value() as u8)))
        })
        .await
    }
}

/// A broker and the folder of its data. Dropped, it is killed and the folder removed, in this order.
struct Stage {
    server: Server,
    folder: TempDir,
}

async fn show(args: &DemoArgs) -> Result<(), Failure> {
    let data_dir = args.data_dir.clone();
    let mut stage = join(spawn_blocking(move || Stage::start(data_dir.as_deref()))).await?;
    output::print(&format!(
        "A broker runs as process {} on {}.\nIts data is in {}, until the demo ends.\nAn acknowledgement of it means: {}.\n\n",
        stage.server.pid(),
        stage.server.address(),
        stage.folder.path().display(),
        stage.server.acknowledgement(),
    ))?;
    let client = Client::builder().bootstrap([stage.server.address()]).name("highwater-demo").connect();
    let client = client.await.map_err(Failure::general)?;
    client.create_topic(TOPIC).partitions(PARTITIONS).await.map_err(Failure::general)?;
    output::print(&format!("topic    {TOPIC} with {}\n", counted(PARTITIONS as usize, "partition")))?;

    let mut sending = Sending::new(&client, args.records).await?;
    let (before, after, first_kill);
    (before, after, first_kill, stage) = sending.run(stage).await?;
    let (killed_at, places) = (sending.killed_at, sending.places);

    let second_kill;
    (stage, second_kill) = join(stage.restart()).await?;
    output::print(&format!(
        "kill -9  again, before anything is read; ready after {:.2} s\n",
        second_kill.as_secs_f64()
    ))?;
    let (read, check) = read_back(&client, places).await?;
    drop(stage);
    let results = Results {
        before,
        after,
        read,
        killed_at,
        kills: [first_kill, second_kill],
        findings: check.findings(),
    };
    output::print(&results.to_text())?;
    if results.findings.is_good() {
        Ok(())
    } else {
        Err(Failure::general("the broker did not keep what it acknowledged"))
    }
}

async fn join<T>(task: impl Future<Output = Result<Result<T, Failure>, JoinError>>) -> Result<T, Failure> {
    task.await.map_err(|e| Failure::general(e.to_string()))?
}

impl Stage {
    /// Folders in memory are passed over: they would show nothing of a disk.
    fn start(given: Option<&Path>) -> Result<Self, Failure> {
        let candidates: Vec<PathBuf> = match given {
            Some(dir) => vec![dir.to_owned()],
            None => vec![std::env::temp_dir(), PathBuf::from("/var/tmp"), PathBuf::from(".")],
        };
        let mut why = Vec::new();
        for candidate in candidates {
            match Self::start_in(&candidate) {
                Ok(stage) => return Ok(stage),
                Err(e) => why.push(e),
            }
        }
        Err(Failure::general(why.join("; ")))
    }

    fn start_in(parent: &Path) -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("highwater-demo-").tempdir_in(parent);
        let folder = folder.map_err(|e| format!("no folder can be made in {}: {e}", parent.display()))?;
        let plan = ServerPlan { data_dir: Some(folder.path().to_owned()), ..ServerPlan::default() };
        let server = Server::start(plan).map_err(|e| e.to_string())?;
        Ok(Self { server, folder })
    }

    /// Kills the broker and starts it again, on a thread of its own: it waits for processes. Comes with how long it took.
    fn restart(mut self) -> JoinHandle<Result<(Self, Duration), Failure>> {
        spawn_blocking(move || {
            let began = Instant::now();
            self.server.kill_and_start().map_err(Failure::general)?;
            Ok((self, began.elapsed()))
        })
    }
}

/// Records on their way, and where those are that were acknowledged.
struct Sending {
    producer: Producer,
    records: u64,
    in_flight: VecDeque<Delivery>,
    /// By number of the record.
    places: Vec<(u32, i64)>,
    /// How many were acknowledged when the broker was killed.
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
            places: Vec::with_capacity(records as usize),
            killed_at: 0,
            progress,
        })
    }

    /// Sends all of them, and kills the broker when half of them are acknowledged. What was sent before that and after the restart, and how
    /// long it took until the broker was ready again.
    async fn run(&mut self, stage: Stage) -> Result<(Leg, Leg, Duration, Stage), Failure> {
        let began = Instant::now();
        let half = self.records / 2;
        let mut sent = 0;
        while sent < self.records && self.acknowledged() < half {
            self.send(sent).await?;
            sent += 1;
        }
        while self.acknowledged() < half {
            self.settle_first().await?;
        }
        self.killed_at = self.acknowledged();
        let before = Leg { records: self.killed_at, took: began.elapsed() };
        self.progress.suspend(|| {
            output::print(&format!(
                "kill -9  when {} of {} records are acknowledged and more are on their way\n",
                grouped(self.killed_at),
                grouped(self.records)
            ))
        })?;
        let began = Instant::now();
        let mut restarting = stage.restart();
        let mut restarted = None;
        // The producer is told nothing of it: it goes on, and sends again what was not acknowledged.
        while self.acknowledged() < self.records {
            let next = async {
                if sent < self.records {
                    self.send(sent).await.map(|()| 1)
                } else {
                    self.settle_first().await.map(|()| 0)
                }
            };
            tokio::select! {
                biased;
                done = join(&mut restarting), if restarted.is_none() => restarted = Some(done?),
                done = next => sent += done?,
            }
        }
        let (stage, took) = match restarted {
            Some(restarted) => restarted,
            None => join(restarting).await?,
        };
        let after =
            Leg { records: self.records - self.killed_at, took: began.elapsed().saturating_sub(took) };
        self.progress.clear();
        output::print(&format!(
            "ready    after {:.2} s; the producer went on by itself, and all {} records are acknowledged\n",
            took.as_secs_f64(),
            grouped(self.records)
        ))?;
        Ok((before, after, took, stage))
    }

    fn acknowledged(&self) -> u64 {
        self.places.len() as u64
    }

    async fn send(&mut self, n: u64) -> Result<(), Failure> {
        while self.in_flight.len() >= IN_FLIGHT_MAX {
            self.settle_first().await?;
        }
        let delivery = self.producer.send(records::record(n)).await.map_err(Failure::general)?;
        self.in_flight.push_back(delivery);
        while let Some(result) = self.in_flight.front().and_then(Delivery::result) {
            self.in_flight.pop_front();
            self.note(&result.map_err(Failure::general)?);
        }
        Ok(())
    }

    /// Waits for the first one in flight.
    async fn settle_first(&mut self) -> Result<(), Failure> {
        let Some(first) = self.in_flight.front_mut() else { return Ok(()) };
        let receipt = first.await.map_err(Failure::general)?;
        self.in_flight.pop_front();
        self.note(&receipt);
        Ok(())
    }

    fn note(&mut self, receipt: &Receipt) {
        let offset = receipt.offset().map_or(-1, Offset::get);
        self.places.push((receipt.partition(), offset));
        self.progress.advance(1);
    }
}

/// Reads everything there is and compares it with what was acknowledged.
async fn read_back(client: &Client, places: Vec<(u32, i64)>) -> Result<(Leg, Check), Failure> {
    let progress = Progress::of_records(Some(places.len() as u64));
    let began = Instant::now();
    let mut check = Check::new(places);
    let consumer = client.consumer(TOPIC).start(Start::Earliest).until_end();
    let mut consumer = consumer.await.map_err(Failure::general)?;
    while let Some(batch) = consumer.next_batch().await.map_err(Failure::general)? {
        for record in &batch {
            check.note(record.partition(), record.offset().get(), record.key(), record.value());
        }
        progress.advance(batch.len() as u64);
    }
    let read = Leg { records: check.read(), took: began.elapsed() };
    progress.clear();
    output::print(
        "read     everything, and compared each record with what was sent and where it was acknowledged\n\n",
    )?;
    Ok((read, check))
}
