//! A pinned glommio executor. The shard's loop is its root future; the shard's ring is beside glommio's own.
//!
//! There are two sleeps. The light one is in the shard's ring: one system call submits, waits and brings what has come, and while there is
//! traffic nothing else is needed. After [`LIGHT_SLEEP`] without any the executor sleeps in glommio's ring, where a read of an
//! eventfd that the shard's ring signals wakes it. (Going through glommio's reactor takes it three rings of its own, a memory barrier
//! on all cores and more than ten system calls: with a record every 200 µs that was most of what a record cost.)
//!
//! While the shard is awake or in its light sleep the executor would never look at its own events: every [`PASS_AFTER`] the loop awaits
//! a read that is always ready, which takes it through glommio's reactor once. (Yielding does not.)

use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use glommio::io::BufferedFile;
use glommio::timer::Timer;
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement};
use rustix::event::{EventfdFlags, eventfd};

use crate::plane::{Instant, Plane, ShardApp, ShardIndex};
use crate::start::{BoxError, Seat, Shard, StartError};
use crate::uring::Turn;

/// How long a busy shard keeps the executor from its own events. It has none that are in a hurry: the heartbeat, and the end.
const PASS_AFTER: Duration = Duration::from_millis(5);

/// Silence after which a shard goes from its light sleep to the deep one.
const LIGHT_SLEEP: Duration = Duration::from_millis(5);

/// Memory the executor registers three times for its own files. It has none that matter, and the default does not fit the common limit.
const IO_MEMORY_BYTES: usize = 64 << 10;

/// Entries of each of its three rings. The shard's loop waits for two files and a timer, and locked memory is scarce.
const RING_DEPTH: usize = 64;

/// Shorter ones make glommio park for ever with runnable tasks.
const PREEMPT_TIMER: Duration = Duration::from_millis(10);

/// Beats of the timer that wakes a shard that sleeps although it has something to do, because glommio 0.9.0 can park with runnable tasks
/// or because a signal was lost on its way: often while there is traffic, seldom enough to cost nothing when idle.
const HEARTBEAT_BUSY: Duration = Duration::from_millis(10);
const HEARTBEAT_IDLE: Duration = Duration::from_millis(250);

/// Runs a shard to its end on the calling thread.
pub(crate) fn run<A, F>(seat: Seat<A::Message>, make_app: &F)
where
    A: ShardApp + 'static,
    F: Fn(ShardIndex, &mut dyn Plane<A::Message>) -> Result<A, BoxError>,
{
    let executor = match executor(seat.cpu.0) {
        Ok(executor) => executor,
        Err(e) => {
            let what = format!("cannot start the executor of shard {} on CPU {}", seat.shard, seat.cpu.0);
            let shards = seat.shards();
            return seat.leave(StartError::ring(what, shards)(e));
        }
    };
    executor.run(async move {
        match Parking::new() {
            Err(e) => seat.leave(StartError::os("cannot make an eventfd")(e)),
            Ok(parking) => {
                let parking = Rc::new(parking);
                if let Some(shard) = seat.take(make_app, Some(parking.knock.as_raw_fd())) {
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

/// Wakes the executor now and then, and the shard if it sleeps.
async fn heartbeat(turns: Rc<Cell<u64>>, parking: Rc<Parking>) {
    let mut seen = 0;
    loop {
        let busy = turns.get() != seen;
        seen = turns.get();
        Timer::new(if busy { HEARTBEAT_BUSY } else { HEARTBEAT_IDLE }).await;
        parking.knock();
    }
}

/// The two files whose reads are the only things the loop ever awaits.
struct Parking {
    /// Signalled by the shard's ring.
    signal: BufferedFile,
    /// The same, to be signalled from here.
    knock: OwnedFd,
    parked: Cell<bool>,
    /// Always ready.
    always: BufferedFile,
}

impl Parking {
    fn new() -> io::Result<Self> {
        let signal = eventfd(0, EventfdFlags::CLOEXEC)?;
        let knock = signal.try_clone()?;
        let always = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::SEMAPHORE)?;
        // Each read takes one of it: enough for longer than the machine will last.
        rustix::io::write(&always, &(1_u64 << 62).to_ne_bytes())?;
        // SAFETY: descriptors that nobody else owns; the file closes them.
        let (signal, always) = unsafe {
            (BufferedFile::from_raw_fd(signal.into_raw_fd()), BufferedFile::from_raw_fd(always.into_raw_fd()))
        };
        Ok(Self { signal, knock, parked: Cell::new(false), always })
    }

    /// Sleeps until the shard's ring has something. The counter adds up, so a signal before the read is not lost.
    async fn park(&self) {
        self.parked.set(true);
        self.read(&self.signal).await;
        self.parked.set(false);
    }

    /// Ends a park that nothing has ended.
    fn knock(&self) {
        if self.parked.get() {
            // Fails only when the counter is full, and then the park is over anyway.
            let _ = rustix::io::write(&self.knock, &1_u64.to_ne_bytes());
        }
    }

    /// Lets the executor look at its own events.
    async fn pass(&self) {
        self.read(&self.always).await;
    }

    async fn read(&self, file: &BufferedFile) {
        if let Err(e) = file.read_at(0, 8).await {
            // Never seen; without the pause a shard would spin on it.
            tracing::error!(error = %e, "cannot read an eventfd");
            Timer::new(Duration::from_millis(1)).await;
        }
    }

    async fn close(self) {
        // Eventfds have nothing to flush, so nothing can be lost.
        let _ = self.signal.close().await;
        let _ = self.always.close().await;
    }
}
