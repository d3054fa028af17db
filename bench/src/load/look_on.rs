//! What the caller's thread does while the load goes on: samples what processes use, disturbs the broker if that is asked for, shows
//! progress.

use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use super::control::Control;
use super::generator::Generated;
use super::run::{LOOK, Run, Stage};
use crate::BenchError;
use crate::backend::Backend;
use crate::outcome::{Interval, Usage};
use crate::process::Sampler;

/// How often processes are sampled, in looks.
const SAMPLE: u32 = 4;

impl Run<'_> {
    /// Until the generator is done: samples what processes use, disturbs the broker if that is asked for, shows progress.
    pub(super) fn look_on(
        &self,
        stage: &mut Stage<'_>,
        control: &Control,
        generators: &[ScopedJoinHandle<'_, Result<Generated, BenchError>>],
        pieces: &mpsc::Receiver<Interval>,
    ) -> Result<(Usage, Option<Usage>), BenchError> {
        let whole = Duration::from_nanos(control.to);
        let kill_at = u64::midpoint(control.from, control.to);
        let mut kills = self.scenario.disturbance.is_some_and(|disturbance| disturbance.kill);
        if kills && stage.server.is_none() {
            return Err(BenchError::failed(
                "this scenario kills its broker, so it needs one of its own: leave --server out",
            ));
        }
        let begin = |pids: &[u32]| Sampler::start(pids);
        let mut own = begin(&[std::process::id()]);
        let mut broker = stage.broker().map(|pid| begin(&[pid]));
        let mut measuring = false;
        let mut syncs = None;
        let mut used = None;
        let mut looks = 0;
        while !generators.iter().all(ScopedJoinHandle::is_finished) {
            if stage.interrupted.load(Ordering::Relaxed) {
                return Err(BenchError::Interrupted);
            }
            let now = control.now();
            if !measuring && now >= control.from {
                measuring = true;
                syncs = self.syncs(stage.backend);
                own = begin(&[std::process::id()]);
                broker = stage.broker().map(|pid| begin(&[pid]));
            }
            if kills && now >= kill_at {
                kills = false;
                let server = stage.server.as_mut().expect("checked above");
                if let Some(broker) = &mut broker {
                    broker.sample();
                }
                server.kill_and_start()?;
                if let Some(broker) = &mut broker {
                    broker.follow(server.pid());
                }
            }
            if used.is_none() && now >= control.to {
                let own = std::mem::replace(&mut own, begin(&[]));
                used = Some(self.used(stage.backend, own, broker.take(), syncs));
            }
            looks += 1;
            if looks % SAMPLE == 0 {
                own.sample();
                if let Some(broker) = &mut broker {
                    broker.sample();
                }
            }
            for piece in pieces.try_iter() {
                stage.watch.interval(&piece);
            }
            stage.watch.load(control.records(), Duration::from_nanos(now.min(control.to)), whole);
            std::thread::sleep(LOOK);
        }
        Ok(used.unwrap_or_else(|| self.used(stage.backend, own, broker, syncs)))
    }

    /// What the generator and the broker have used; `syncs` is what the broker had counted at the beginning.
    fn used(
        &self,
        backend: &dyn Backend,
        own: Sampler,
        broker: Option<Sampler>,
        syncs: Option<u64>,
    ) -> (Usage, Option<Usage>) {
        let broker = broker.map(|broker| Usage {
            // Less than before: another process counts.
            syncs: self.syncs(backend).zip(syncs).and_then(|(now, then)| now.checked_sub(then)),
            ..broker.finish()
        });
        (own.finish(), broker)
    }

    /// None where the broker does not tell or cannot be asked now.
    fn syncs(&self, backend: &dyn Backend) -> Option<u64> {
        self.runtime.block_on(backend.syncs()).ok().flatten()
    }
}
