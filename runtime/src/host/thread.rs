//! A pinned thread that sleeps in the ring: one system call a turn.

use crate::cpus::pin_thread;
use crate::plane::{Plane, ShardApp, ShardIndex};
use crate::start::{BoxError, Seat, StartError};
use crate::uring::Turn;

/// Runs a shard to its end on the calling thread.
pub(crate) fn run<A, F>(seat: Seat<A::Message>, make_app: &F)
where
    A: ShardApp + 'static,
    F: Fn(ShardIndex, &mut dyn Plane<A::Message>) -> Result<A, BoxError>,
{
    if let Err(e) = pin_thread(seat.cpu) {
        let what = format!("cannot bind shard {} to CPU {}", seat.shard, seat.cpu.0);
        return seat.leave(StartError::os(what)(e));
    }
    let Some(mut shard) = seat.take(make_app, None) else { return };
    while shard.driver.turn(&mut shard.app, None) != Turn::Exit && !shard.is_abandoned() {}
}
