//! A pinned glommio executor. The shard's loop is its root future; the shard has its own ring, separate from glommio's.
//!
//! A shard sleeps in two ways. The light sleep is in the shard's ring: one system call submits, waits and returns completions, and
//! under load nothing else is needed. After [`LIGHT_SLEEP`] without completions, the shard sleeps in glommio's ring, where a read
//! of an eventfd that the shard's ring signals wakes it. (Each pass through glommio's reactor enters its three rings, with a memory
//! barrier on all cores and more than ten system calls. At one record every 200 µs that was most of a record's cost.)
//!
//! While the shard is awake or in its light sleep, the executor does not process its own events. Every [`PASS_AFTER`] the loop
//! therefore awaits a read that is always ready, which takes it through glommio's reactor once. (Yielding does not.)

use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use glommio::io::BufferedFile;
use glommio::timer::Timer;
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement};
use rustix::event::{EventfdFlags, eventfd};

use super::setup::{Shard, ShardSetup};
use crate::errors::{BoxError, StartError};
use crate::plane::{Instant, Plane, ShardApp, ShardIndex};
use crate::uring::Turn;

/// How long a busy shard may keep the executor from its own events. None of them is urgent: they are the heartbeat and the end of
/// the shard.
const PASS_AFTER: Duration = Duration::from_millis(5);

/// Idle time after which a shard switches from its light sleep to glommio's.
const LIGHT_SLEEP: Duration = Duration::from_millis(5);

/// Memory that the executor registers three times for file I/O. It does no file I/O that matters, and the default exceeds the usual
/// limit.
const IO_MEMORY_BYTES: usize = 64 << 10;

/// Entries of each of the executor's three rings. The loop waits for two files and a timer only, and locked memory is scarce.
const RING_DEPTH: usize = 64;

/// The executor arms this timer, then runs tasks. If the kernel takes the thread off its core between the two for as long, glommio 0.9.0 takes
/// the expired timer for a reason to run no task, and parks with runnable ones. Later the heartbeat ends that, but the first task, which
/// starts the heartbeat, has none: with 10 ms a start on busy cores hung now and then. The loop needs no preemption.
const PREEMPT_TIMER: Duration = Duration::from_secs(10);

/// Intervals of a heartbeat that wakes a shard that sleeps although it has work, because glommio 0.9.0 can park with runnable
/// tasks, or because a signal was lost. It is frequent under load, and rare enough to cost nothing when idle.
const HEARTBEAT_BUSY: Duration = Duration::from_millis(10);
const HEARTBEAT_IDLE: Duration = Duration::from_millis(250);

/// Runs a shard to its end on the calling thread.
pub(crate) fn run<A, F>(setup: ShardSetup<A::Message>, make_app: &F)
where
    A: ShardApp + 'static,
    F: Fn(ShardIndex, &mut dyn Plane<A::Message>) -> Result<A, BoxError>,
{
    let executor = match executor(setup.cpu.0) {
        Ok(executor) => executor,
        Err(e) => {
            let what = format!("cannot start the executor of shard {} on CPU {}", setup.shard, setup.cpu.0);
            let shards = setup.shards();
            return setup.fail(StartError::ring(what, shards)(e));
        }
    };
    executor.run(async move {
        match Parking::new() {
            Err(e) => setup.fail(StartError::os("cannot create an eventfd")(e)),
            Ok(parking) => {
                let parking = Rc::new(parking);
                if let Some(shard) = setup.build(make_app, Some(parking.waker.as_raw_fd())) {
                    run_shard(shard, &parking).await;
                }
                if let Some(parking) = Rc::into_inner(parking) {
                    parking.close().await;
                }
            }
        }
    });
}

fn executor(cpu: usize) -> io::Result<LocalExecutor> {
    LocalExecutorBuilder::new(Placement::Fixed(cpu))
        .name("hw-shard")
        .io_memory(IO_MEMORY_BYTES)
        .ring_depth(RING_DEPTH)
        .preempt_timer(PREEMPT_TIMER)
        .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
        .make()
        .map_err(io::Error::from)
}

async fn run_shard<A: ShardApp + 'static>(mut shard: Shard<A>, parking: &Rc<Parking>) {
    let turns = Rc::new(Cell::new(0));
    let heartbeat = glommio::spawn_local(heartbeat(Rc::clone(&turns), Rc::clone(parking)));
    let mut passed_at = Instant(0);
    loop {
        match shard.driver.turn(&mut shard.app, Some(LIGHT_SLEEP)) {
            Turn::Exit => break,
            Turn::Busy => {
                turns.set(turns.get() + 1_u64);
                if shard.driver.plane.now().since(passed_at) > PASS_AFTER {
                    parking.pass().await;
                    passed_at = shard.driver.plane.now();
                }
            }
            Turn::Idle => {
                if shard.driver.park() {
                    parking.park().await;
                    shard.driver.unpark();
                    passed_at = shard.driver.plane.now();
                }
            }
        }
        if shard.is_abandoned() {
            break;
        }
    }
    heartbeat.cancel().await;
}

/// Wakes the executor at intervals, and the shard if it sleeps.
async fn heartbeat(turns: Rc<Cell<u64>>, parking: Rc<Parking>) {
    let mut seen = 0;
    loop {
        let busy = turns.get() != seen;
        seen = turns.get();
        Timer::new(if busy { HEARTBEAT_BUSY } else { HEARTBEAT_IDLE }).await;
        parking.wake();
    }
}

/// The two files that the loop awaits reads of.
struct Parking {
    /// Signalled by the shard's ring.
    signal: BufferedFile,
    /// Duplicate of `signal`, for signalling from this thread.
    waker: OwnedFd,
    parked: Cell<bool>,
    /// Always ready.
    always: BufferedFile,
}

impl Parking {
    fn new() -> io::Result<Self> {
        let signal = eventfd(0, EventfdFlags::CLOEXEC)?;
        let waker = signal.try_clone()?;
        let always = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::SEMAPHORE)?;
        // Each read takes one off the counter, which is large enough to last.
        rustix::io::write(&always, &(1_u64 << 62).to_ne_bytes())?;
        // SAFETY: nothing else owns these descriptors; the files close them.
        let (signal, always) = unsafe {
            (BufferedFile::from_raw_fd(signal.into_raw_fd()), BufferedFile::from_raw_fd(always.into_raw_fd()))
        };
        Ok(Self { signal, waker, parked: Cell::new(false), always })
    }

    /// Sleeps until the shard's ring has a completion. Signals add up in the counter, so one before the read is not lost.
    async fn park(&self) {
        self.parked.set(true);
        self.read(&self.signal).await;
        self.parked.set(false);
    }

    /// Ends the current park, if any.
    fn wake(&self) {
        if self.parked.get() {
            // This fails only if the counter is full, in which case the park ends anyway.
            let _ = rustix::io::write(&self.waker, &1_u64.to_ne_bytes());
        }
    }

    /// Lets the executor process its own events.
    async fn pass(&self) {
        self.read(&self.always).await;
    }

    async fn read(&self, file: &BufferedFile) {
        if let Err(e) = file.read_at(0, 8).await {
            // This has never been seen; without the pause, a shard would spin on it.
            tracing::error!(error = %e, "cannot read an eventfd");
            Timer::new(Duration::from_millis(1)).await;
        }
    }

    async fn close(self) {
        // Eventfds have no data to flush, so nothing can be lost.
        let _ = self.signal.close().await;
        let _ = self.always.close().await;
    }
}
