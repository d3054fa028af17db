//! Runs a scenario once, from creating its topic to comparing the records read with those sent.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch as signal};

use super::bottleneck::bottleneck;
use super::check::{Checker, Sent, Verdict};
use super::control::Control;
use super::generator::{Generated, Plan, generate};
use super::payload::Filling;
use super::prefill::prefill;
use super::reader::{Ending, Tail, at_tail, cold, read_back, tail};
use super::recorder::{histogram, merge_intervals};
use crate::BenchError;
use crate::backend::{Backend, BackendError, From};
use crate::outcome::{Drain, Interval, Outcome, Usage};
use crate::scenario::Scenario;
use crate::server::Server;

/// Interval between iterations of the supervising thread.
pub(super) const SUPERVISION_INTERVAL: Duration = Duration::from_millis(50);

/// Time limit for reading everything back, as a multiple of the run's duration.
const READ_BACK_FACTOR: u32 = 10;

/// Lower bound of the time limit for reading everything back.
const READ_BACK_MIN: Duration = Duration::from_mins(2);

/// Environment of a run.
pub struct RunContext<'a> {
    /// The client.
    pub backend: &'a dyn Backend,
    /// The brokers, if they were started for the run.
    pub server: Option<&'a mut Server>,
    /// Process ids of other brokers, if they are on this machine.
    pub broker_pids: &'a [u32],
    /// Number of generator threads.
    pub threads: u32,
    /// Set when the user interrupts the run.
    pub interrupted: &'a AtomicBool,
    /// Observer of the progress.
    pub watch: &'a dyn Watch,
}

impl RunContext<'_> {
    /// Returns the process ids of the brokers, as far as known.
    pub(super) fn brokers(&self) -> Vec<u32> {
        self.server.as_ref().map_or_else(|| self.broker_pids.to_vec(), |server| server.pids())
    }
}

/// Observer of a run's progress.
pub trait Watch: Sync {
    /// A phase other than the load has started.
    fn phase(&self, what: &str);
    /// The load is running: records acknowledged so far, and elapsed and total time.
    fn load(&self, records: u64, elapsed: Duration, total: Duration);
    /// A thread has completed an interval of the measured time.
    fn interval(&self, interval: &Interval);
    /// The run has ended.
    fn done(&self);
}

/// Observer that does nothing.
#[derive(Debug)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn phase(&self, _: &str) {}
    fn load(&self, _: u64, _: Duration, _: Duration) {}
    fn interval(&self, _: &Interval) {}
    fn done(&self) {}
}

/// Runs a scenario once. Runs are numbered from 1.
pub fn run_once(context: &mut RunContext<'_>, scenario: &Scenario, run: u32) -> Result<Outcome, BenchError> {
    let runtime = runtime()?;
    let topic = topic_name(scenario, run);
    context.watch.phase("creating topics");
    let idle = format!("{topic}-idle");
    let has_idle = scenario.topic.idle_partitions > 0;
    runtime.block_on(async {
        context.backend.create_topic(&topic, scenario).await?;
        if has_idle {
            context.backend.create_idle_topic(&idle, scenario.topic.idle_partitions).await?;
        }
        Ok::<_, BackendError>(())
    })?;
    let result = Run { runtime: &runtime, scenario, topic: &topic, number: run }.execute(context);
    context.watch.done();
    if result.is_ok() {
        runtime.block_on(async {
            context.backend.delete_topic(&topic).await?;
            if has_idle {
                context.backend.delete_topic(&idle).await?;
            }
            Ok::<_, BackendError>(())
        })?;
    }
    result
}

fn runtime() -> Result<Runtime, BenchError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| BenchError::failed(format_args!("cannot start an async runtime: {e}")))
}

/// Returns a topic name that was not used before, so that runs can share a broker with others.
fn topic_name(scenario: &Scenario, run: u32) -> String {
    format!("bench-{}-{}-{run}", scenario.name, now_ms())
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}

/// A run in progress.
pub(super) struct Run<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) scenario: &'a Scenario,
    topic: &'a str,
    /// Number of the run, from 1.
    number: u32,
}

/// Results of the consumers.
#[derive(Default)]
struct Consumed {
    tails: Vec<Tail>,
    cold: Vec<Drain>,
}

impl Run<'_> {
    fn execute(&self, context: &mut RunContext<'_>) -> Result<Outcome, BenchError> {
        let scenario = self.scenario;
        let filling = Filling::new(scenario.record.bytes);
        let count = scenario.producers.count;
        let partitions = scenario.topic.partitions;
        let reads = context.backend.keeps_records();
        // The backlog is written by an additional producer.
        let mut backlog = None;
        let mut begin_at = vec![0; partitions as usize];
        if scenario.consumers.cold > 0 && reads {
            context.watch.phase("writing the backlog");
            let sent =
                self.interruptible(context, prefill(context.backend, scenario, self.topic, &filling, count))?;
            let ends = self.interruptible(context, context.backend.ends(self.topic, partitions))?;
            begin_at = ends.ok_or_else(|| {
                BenchError::failed("this backend does not know end offsets, so it cannot read a backlog")
            })?;
            backlog = Some(sent);
        }
        let producers = count + u32::from(backlog.is_some());
        let checker = Checker::new(producers, partitions, filling.clone(), scenario.removes_records());
        let plan = Plan {
            scenario: scenario.clone(),
            topic: self.topic.to_owned(),
            filling,
            first_producer: 0,
            threads: context.threads.clamp(1, count),
            limit: None,
        };
        let (generated, consumed, usage, started_ms) =
            self.load(context, &plan, &checker.clone().from(&begin_at), &begin_at)?;
        let mut outcome = self.outcome(context.backend, started_ms, &generated, &consumed);
        (outcome.generator, outcome.broker) = usage;

        if reads {
            context.watch.phase("reading everything back");
            let mut sent: Vec<(u32, Sent)> = generated.into_iter().flat_map(|(sent, _)| sent).collect();
            sent.sort_by_key(|(which, _)| *which);
            let live: Vec<Sent> = sent.into_iter().map(|(_, sent)| sent).collect();
            let mut all = live.clone();
            all.extend(backlog);
            let mut checker = checker;
            let at_most = (scenario.load.duration() * READ_BACK_FACTOR).max(READ_BACK_MIN);
            let back = read_back(context.backend, self.topic, scenario, &all, &mut checker, at_most);
            let complete = self.interruptible(context, back)?;
            let mut verdict = checker.verdict(&all);
            if !complete {
                outcome.unchecked = Some(format!(
                    "reading back timed out after {} s and {} records",
                    at_most.as_secs(),
                    checker.records()
                ));
                verdict.lost = 0;
            }
            let tails = consumed.tails.iter().map(|tail| tail.checker.verdict(&live));
            set_verdict(&mut outcome, tails.fold(verdict, Verdict::max));
        }
        Ok(outcome)
    }

    /// Runs `future` on this thread until it completes or the user interrupts the run.
    fn interruptible<T>(
        &self,
        context: &RunContext<'_>,
        future: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BenchError> {
        self.runtime.block_on(async {
            let interrupted = async {
                while !context.interrupted.load(Ordering::Relaxed) {
                    tokio::time::sleep(SUPERVISION_INTERVAL).await;
                }
            };
            tokio::select! {
                result = future => Ok(result?),
                () = interrupted => Err(BenchError::Interrupted),
            }
        })
    }

    /// Runs the load: on generator threads and a consumer thread, supervised by this thread.
    #[allow(clippy::type_complexity, reason = "parts of an outcome, destructured by the only caller")]
    fn load(
        &self,
        context: &mut RunContext<'_>,
        plan: &Plan,
        checker: &Checker,
        backlog_ends: &[i64],
    ) -> Result<(Vec<Generated>, Consumed, (Usage, Option<Usage>), i64), BenchError> {
        let backend = context.backend;
        let on = context.watch;
        let (watch, intervals) = mpsc::channel();
        let (abort, aborted) = signal::channel(false);
        let (ending, ends) = signal::channel(Ending::NotYet);
        std::thread::scope(|scope| {
            let mut ready = Vec::new();
            let mut begins = Vec::new();
            let mut generators = Vec::new();
            context.watch.phase("connecting");
            for thread in 0..plan.threads {
                let (connected, is_connected) = oneshot::channel();
                let (begin, begun) = oneshot::channel();
                ready.push(is_connected);
                begins.push(begin);
                let watch = watch.clone();
                generators.push(spawn(scope, aborted.clone(), move || {
                    generate(backend, plan, thread, connected, begun, watch)
                })?);
            }
            let (connected, is_connected) = oneshot::channel();
            let (begin, begun) = oneshot::channel();
            ready.push(is_connected);
            begins.push(begin);
            let consumers = spawn(scope, aborted, move || {
                self.consume(backend, checker, backlog_ends, connected, begun, ends)
            })?;

            let all_ready = async {
                for ready in ready {
                    // The error of a failed thread is returned when it is joined.
                    let _ = ready.await;
                }
                Ok(())
            };
            let waited = self.interruptible(context, all_ready);
            if waited.is_err() {
                let _ = abort.send(true);
            }
            let control = Arc::new(Control::new(&self.scenario.load));
            let started_ms = now_ms() + self.scenario.load.warmup().as_millis() as i64;
            for begin in begins {
                let _ = begin.send(control.clone());
            }
            let supervised = waited.and_then(|()| self.supervise(context, &control, &generators, &intervals));
            if supervised.is_err() {
                let _ = abort.send(true);
            }
            let (generated, mut failed) = join_all(generators);
            if failed.is_some() {
                let _ = abort.send(true);
            } else if supervised.is_ok() {
                on.phase("waiting for consumers");
                let ends = backend.ends(self.topic, self.scenario.topic.partitions);
                match self.interruptible(context, ends) {
                    Ok(Some(ends)) => _ = ending.send(Ending::At(ends)),
                    Ok(None) => _ = ending.send(Ending::WhenIdle),
                    Err(error) => {
                        let _ = abort.send(true);
                        failed = Some(error);
                    }
                }
            }
            while !consumers.is_finished() {
                if context.interrupted.load(Ordering::Relaxed) {
                    let _ = abort.send(true);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            let consumed = join(consumers);
            let usage = supervised?;
            if let Some(failed) = failed {
                return Err(failed);
            }
            Ok((generated, consumed?, usage, started_ms))
        })
    }

    async fn consume(
        &self,
        backend: &dyn Backend,
        checker: &Checker,
        backlog_ends: &[i64],
        connected: oneshot::Sender<()>,
        begun: oneshot::Receiver<Arc<Control>>,
        ends: signal::Receiver<Ending>,
    ) -> Result<Consumed, BackendError> {
        let consumers = self.scenario.consumers;
        let mut consumed = Consumed::default();
        if !backend.keeps_records() {
            return Ok(consumed);
        }
        let mut at_the_tail = Vec::new();
        for _ in 0..consumers.tail {
            at_the_tail.push(backend.consumer(self.topic, From::Latest, self.scenario).await?);
        }
        let _ = connected.send(());
        let Ok(control) = begun.await else { return Ok(consumed) };
        let tasks = async {
            let tails = at_the_tail
                .into_iter()
                .map(|consumer| tail(consumer, at_tail(checker.clone()), control.clone(), ends.clone()));
            let tails = all(tails);
            let cold = async {
                tokio::time::sleep_until(control.instant(control.from).into()).await;
                all((0..consumers.cold).map(|_| cold(backend, self.topic, self.scenario, backlog_ends))).await
            };
            tokio::try_join!(tails, cold)
        };
        (consumed.tails, consumed.cold) = tasks.await?;
        Ok(consumed)
    }

    fn outcome(
        &self,
        backend: &dyn Backend,
        started_ms: i64,
        generated: &[Generated],
        consumed: &Consumed,
    ) -> Outcome {
        let measured: Vec<_> = generated.iter().map(|(_, measured)| measured).collect();
        let mut intervals = Vec::new();
        let mut errors = BTreeMap::new();
        let (mut service, mut send_delay, mut produce) = (histogram(), histogram(), histogram());
        for part in &measured {
            merge_intervals(&mut intervals, part.intervals.clone());
            service += &part.service;
            send_delay += &part.send_delay;
            for (kind, count) in &part.errors {
                *errors.entry(kind.clone()).or_insert(0) += count;
            }
        }
        for interval in &intervals {
            produce += &interval.produce;
        }
        if self.scenario.load.rate == 0 {
            service = produce.clone();
        }
        let mut end_to_end = histogram();
        for tail in &consumed.tails {
            end_to_end += &tail.end_to_end;
        }
        let bottleneck = bottleneck(&measured);
        Outcome {
            scenario: self.scenario.clone(),
            backend: backend.name().into(),
            acknowledgement: backend.acknowledgement(),
            run: self.number,
            started_ms,
            measured: self.scenario.load.duration(),
            records: intervals.iter().map(|interval| interval.records).sum(),
            bytes: intervals.iter().map(|interval| interval.bytes).sum(),
            tail_records: consumed.tails.iter().map(|tail| tail.records).sum(),
            cold: drained(&consumed.cold),
            produce,
            service,
            send_delay,
            end_to_end,
            errors,
            lost: 0,
            duplicated: 0,
            reordered: 0,
            saturated: bottleneck.saturated,
            overloaded: bottleneck.overloaded,
            unchecked: (!backend.keeps_records()).then(|| "this backend keeps no records".into()),
            longest_gap: Duration::from_nanos(
                measured.iter().map(|part| part.longest_gap).max().unwrap_or(0),
            ),
            intervals,
            generator: Usage::default(),
            broker: None,
        }
    }
}

fn set_verdict(outcome: &mut Outcome, verdict: Verdict) {
    (outcome.lost, outcome.duplicated, outcome.reordered) =
        (verdict.lost, verdict.duplicated, verdict.reordered);
    if verdict.altered > 0 {
        outcome.errors.insert("read with different bytes than sent".into(), verdict.altered);
    }
}

/// Returns the sum of all readers of the backlog, with the time of the slowest.
fn drained(cold: &[Drain]) -> Option<Drain> {
    let took = cold.iter().map(|drain| drain.took).max()?;
    let records = cold.iter().map(|drain| drain.records).sum();
    Some(Drain { records, bytes: cold.iter().map(|drain| drain.bytes).sum(), took })
}

/// Runs the futures concurrently on this task. Returns the first error.
async fn all<T>(
    futures: impl Iterator<Item = impl Future<Output = Result<T, BackendError>>>,
) -> Result<Vec<T>, BackendError> {
    let mut running: Vec<_> = futures.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = running.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, done) in running.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(result) = future.as_mut().poll(cx)
            {
                match result {
                    Ok(value) => *done = Some(value),
                    Err(error) => return std::task::Poll::Ready(Err(error)),
                }
            }
        }
        if done.iter().all(Option::is_some) {
            std::task::Poll::Ready(Ok(()))
        } else {
            std::task::Poll::Pending
        }
    })
    .await?;
    Ok(done.into_iter().flatten().collect())
}

/// Spawns a thread with its own runtime that runs `job` until it completes or is aborted.
fn spawn<'scope, T: Send + 'scope, F>(
    scope: &'scope Scope<'scope, '_>,
    mut aborted: signal::Receiver<bool>,
    job: impl FnOnce() -> F + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, Result<T, BenchError>>, BenchError>
where
    F: Future<Output = Result<T, BackendError>>,
{
    let runtime = runtime()?;
    let thread = move || {
        runtime.block_on(async {
            tokio::select! {
                result = job() => Ok(result?),
                _ = aborted.wait_for(|aborted| *aborted) => Err(BenchError::Interrupted),
            }
        })
    };
    std::thread::Builder::new()
        .name("bench".into())
        .spawn_scoped(scope, thread)
        .map_err(|e| BenchError::failed(format_args!("cannot start a thread: {e}")))
}

fn join<T>(thread: ScopedJoinHandle<'_, Result<T, BenchError>>) -> Result<T, BenchError> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Joins all of them. Returns the outcomes of those that succeeded, and the last error.
fn join_all<T>(threads: Vec<ScopedJoinHandle<'_, Result<T, BenchError>>>) -> (Vec<T>, Option<BenchError>) {
    let (mut outcomes, mut failed) = (Vec::new(), None);
    for thread in threads {
        match join(thread) {
            Ok(outcome) => outcomes.push(outcome),
            Err(error) => failed = Some(error),
        }
    }
    (outcomes, failed)
}
