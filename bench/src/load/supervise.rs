//! Supervision of a load on the caller's thread: samples resource usage, kills a broker if the scenario asks for it, and shows progress.

use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use super::control::Control;
use super::generator::Generated;
use super::run::{Run, RunContext, SUPERVISION_INTERVAL};
use crate::BenchError;
use crate::backend::Backend;
use crate::outcome::{Interval, Usage};
use crate::process::Sampler;

/// Interval between samples of the processes, in iterations.
const ITERATIONS_PER_SAMPLE: u32 = 4;

impl Run<'_> {
    /// Supervises the load until the generators are done. Returns the resource usage of this process and of the brokers.
    pub(super) fn supervise(
        &self,
        context: &mut RunContext<'_>,
        control: &Control,
        generators: &[ScopedJoinHandle<'_, Result<Generated, BenchError>>],
        intervals: &mpsc::Receiver<Interval>,
    ) -> Result<(Usage, Option<Usage>), BenchError> {
        let total = Duration::from_nanos(control.to);
        let disturbance = self.scenario.disturbance.filter(|disturbance| disturbance.kill);
        let mut kill = disturbance.map(|_| u64::midpoint(control.from, control.to));
        let mut start = None;
        if kill.is_some() && context.server.is_none() {
            return Err(BenchError::failed(
                "this scenario kills its broker, so the run must start its own: leave out --server",
            ));
        }
        let begin = |pids: &[u32]| Sampler::start(pids);
        let mut own = begin(&[std::process::id()]);
        let begin_brokers = |pids: &[u32]| (!pids.is_empty()).then(|| begin(pids));
        let mut broker = begin_brokers(&context.brokers());
        let mut measuring = false;
        let mut syncs = None;
        let mut used = None;
        let mut iterations = 0;
        while !generators.iter().all(ScopedJoinHandle::is_finished) {
            if context.interrupted.load(Ordering::Relaxed) {
                return Err(BenchError::Interrupted);
            }
            let now = control.now();
            if !measuring && now >= control.from {
                measuring = true;
                syncs = self.syncs(context.backend);
                own = begin(&[std::process::id()]);
                broker = begin_brokers(&context.brokers());
            }
            if kill.is_some_and(|at| now >= at) {
                kill = None;
                if let Some(broker) = &mut broker {
                    broker.sample();
                }
                context.server.as_mut().expect("checked above").kill()?;
                let down = disturbance.map_or(0.0, |disturbance| disturbance.down_s);
                start = Some(now + Duration::from_secs_f64(down).as_nanos() as u64);
            }
            if start.is_some_and(|at| now >= at) {
                start = None;
                let pid = context.server.as_mut().expect("checked above").start_again()?;
                if let Some(broker) = &mut broker {
                    broker.follow(pid);
                }
            }
            if used.is_none() && now >= control.to {
                let own = std::mem::replace(&mut own, begin(&[]));
                used = Some(self.used(context.backend, own, broker.take(), syncs));
            }
            iterations += 1;
            if iterations % ITERATIONS_PER_SAMPLE == 0 {
                own.sample();
                if let Some(broker) = &mut broker {
                    broker.sample();
                }
            }
            for interval in intervals.try_iter() {
                context.watch.interval(&interval);
            }
            context.watch.load(control.records(), Duration::from_nanos(now.min(control.to)), total);
            std::thread::sleep(SUPERVISION_INTERVAL);
        }
        if start.is_some() {
            // The run ended first; what was acknowledged is read back from all brokers.
            context.server.as_mut().expect("checked above").start_again()?;
        }
        Ok(used.unwrap_or_else(|| self.used(context.backend, own, broker, syncs)))
    }

    /// Returns the usage of the generator and the broker. `syncs` is the broker's counter at the start.
    fn used(
        &self,
        backend: &dyn Backend,
        own: Sampler,
        broker: Option<Sampler>,
        syncs: Option<u64>,
    ) -> (Usage, Option<Usage>) {
        let broker = broker.map(|broker| Usage {
            // A smaller count is that of a restarted broker.
            syncs: self.syncs(backend).zip(syncs).and_then(|(now, then)| now.checked_sub(then)),
            ..broker.finish()
        });
        (own.finish(), broker)
    }

    /// Returns the broker's count of syncs, or `None` if it has no such counter or cannot be reached.
    fn syncs(&self, backend: &dyn Backend) -> Option<u64> {
        self.runtime.block_on(backend.syncs()).ok().flatten()
    }
}
