//! A generator thread: runs its producers as tasks on one runtime.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, mpsc};

use tokio::task::LocalSet;

use super::check::Sent;
use super::control::Control;
use super::payload::{Filling, Values};
use super::recorder::{Measured, Recorder};
use super::routes::{Routes, keys};
use super::schedule::Schedule;
use super::sender::{Sender, SenderPlan};
use crate::backend::{Backend, BackendError};
use crate::outcome::Interval;
use crate::scenario::Scenario;

/// Plan of a load, common to all generator threads.
pub(crate) struct Plan {
    pub(crate) scenario: Scenario,
    pub(crate) topic: String,
    pub(crate) filling: Filling,
    /// Number of the first producer. It distinguishes the loads on a topic.
    pub(crate) first_producer: u32,
    pub(crate) threads: u32,
    /// Number of records to send per producer. `None` ends the load by the clock.
    pub(crate) limit: Option<u64>,
}

/// Result of a thread: the records sent by each producer, by its number, and the measurements.
pub(crate) type Generated = (Vec<(u32, Sent)>, Measured);

/// Connects the producers of a thread, notifies `connected`, waits for `begin`, and sends until the end.
pub(crate) async fn generate(
    backend: &dyn Backend,
    plan: &Plan,
    thread: u32,
    connected: tokio::sync::oneshot::Sender<()>,
    begin: tokio::sync::oneshot::Receiver<Arc<Control>>,
    watch: mpsc::Sender<Interval>,
) -> Result<Generated, BackendError> {
    let scenario = &plan.scenario;
    let count = scenario.producers.count;
    let mine: Vec<u32> = (0..count).filter(|which| which % plan.threads == thread).collect();
    let mut producers = Vec::with_capacity(mine.len());
    for which in mine {
        producers.push((which, backend.producer(&plan.topic, scenario).await?));
    }
    let _ = connected.send(());
    // The sender is dropped if another thread has failed.
    let Ok(control) = begin.await else { return Err(BackendError("the run did not start".into())) };

    let open = scenario.load.rate > 0;
    let recorder = Rc::new(RefCell::new(Recorder::new(control.clone(), open, watch)));
    let keys = keys(scenario);
    let partitions = scenario.topic.partitions;
    let tasks = LocalSet::new();
    let mut running = Vec::with_capacity(producers.len());
    for (which, producer) in producers {
        let plan = SenderPlan {
            which: plan.first_producer + which,
            schedule: Schedule::new(&scenario.load, which, count),
            outstanding: scenario.load.outstanding as usize,
            limit: plan.limit,
            record_bytes: scenario.record.bytes,
            chunk: plan.filling.records(),
            routes: Routes::new(keys.clone(), scenario, which),
            values: Values::new(plan.filling.clone()),
            partitions,
        };
        let sender = Sender::new(plan, producer, control.clone(), recorder.clone())?;
        running.push((which, tasks.spawn_local(sender.run())));
    }
    let sent = tasks
        .run_until(async {
            let mut sent = Vec::with_capacity(running.len());
            for (which, task) in running {
                sent.push((which, task.await.expect("a sender does not panic and is not aborted")));
            }
            sent
        })
        .await;
    drop(tasks);
    let recorder = Rc::into_inner(recorder).expect("the senders are dropped").into_inner();
    Ok((sent, recorder.finish()))
}
