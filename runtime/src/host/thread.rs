//! A pinned thread that sleeps in the shard's ring: one system call per turn.

use super::setup::ShardSetup;
use crate::cpus::pin_thread;
use crate::errors::{BoxError, StartError};
use crate::plane::{Plane, ShardApp, ShardIndex};
use crate::uring::Turn;

/// Runs a shard to its end on the calling thread.
pub(crate) fn run<A, F>(setup: ShardSetup<A::Message>, make_app: &F)
where
    A: ShardApp + 'static,
    F: Fn(ShardIndex, &mut dyn Plane<A::Message>) -> Result<A, BoxError>,
{
    if let Err(e) = pin_thread(setup.cpu) {
        let what = format!("cannot bind shard {} to CPU {}", setup.shard, setup.cpu.0);
        return setup.fail(StartError::os(what)(e));
    }
    let Some(mut shard) = setup.build(make_app, None) else { return };
    while shard.driver.turn(&mut shard.app, None) != Turn::Exit && !shard.is_abandoned() {}
}
