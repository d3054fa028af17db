//! The start of a shard on its own thread: its plane, its application, and the wait for the other shards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::thread;

use crate::cpus::Cpu;
use crate::errors::{BoxError, StartError};
use crate::plane::{Plane, ShardApp, ShardIndex};
use crate::uring::{Doorbells, Driver, PlaneParts};

/// Everything that a shard's thread needs to start.
pub(crate) struct ShardSetup<M> {
    pub(crate) shard: ShardIndex,
    pub(crate) cpu: Cpu,
    pub(crate) parts: PlaneParts<M>,
    pub(crate) ready: Sender<Result<(), StartError>>,
    pub(crate) start_signal: Receiver<()>,
    pub(crate) panics: PanicWatch,
}

impl<M: Send + 'static> ShardSetup<M> {
    /// Returns the number of shards.
    pub(crate) fn shards(&self) -> usize {
        usize::from(self.parts.mailbox.shards())
    }

    /// Creates the shard's plane and application, and waits for the other shards. Returns `None` if any of them failed.
    pub(crate) fn build<A, F>(self, make_app: &F, eventfd: Option<i32>) -> Option<Shard<A>>
    where
        A: ShardApp<Message = M>,
        F: Fn(ShardIndex, &mut dyn Plane<M>) -> Result<A, BoxError>,
    {
        let shards = self.shards();
        let Self { shard, parts, ready, start_signal, panics, .. } = self;
        let made = Driver::new(parts)
            .and_then(|mut driver| {
                eventfd.map_or(Ok(()), |fd| driver.register_eventfd(fd))?;
                Ok(driver)
            })
            .map_err(StartError::ring(format!("shard {shard} cannot set up its ring"), shards))
            .and_then(|mut driver| match make_app(shard, &mut driver.plane) {
                Ok(app) => Ok((driver, app)),
                Err(source) => Err(StartError::App { shard, source }),
            });
        let (made, outcome) = match made {
            Ok(made) => (Some(made), Ok(())),
            Err(e) => (None, Err(e)),
        };
        // The receiver is gone if another shard has failed first.
        let _ = ready.send(outcome);
        drop(ready);
        let (mut driver, app) = made?;
        start_signal.recv().ok()?;
        driver.open();
        Some(Shard { app, driver, panics })
    }

    /// Reports an error from before the plane was created.
    pub(crate) fn fail(self, why: StartError) {
        let _ = self.ready.send(Err(why));
    }
}

/// A shard, ready to run.
pub(crate) struct Shard<A: ShardApp + 'static> {
    // Fields are dropped in this order: when the plane ends, the application may own buffers but no operations.
    pub(crate) app: A,
    pub(crate) driver: Driver<A::Message>,
    panics: PanicWatch,
}

impl<A: ShardApp + 'static> Shard<A> {
    /// Returns whether another shard has panicked, so that this one must end.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.panics.abandoned.load(Ordering::Relaxed)
    }
}

/// Ends all shards when one of them panics, because the others would wait for it forever. (Release builds abort the process
/// instead.)
pub(crate) struct PanicWatch {
    pub(crate) doorbells: Doorbells,
    pub(crate) abandoned: Arc<AtomicBool>,
}

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if thread::panicking() {
            self.abandoned.store(true, Ordering::Relaxed);
            for doorbell in self.doorbells.iter() {
                doorbell.request_shutdown();
            }
        }
    }
}
