//! The generator's own floor: what it does when nothing holds it back.

use std::sync::atomic::AtomicBool;

use super::run::{Stage, Unwatched, run_once};
use crate::BenchError;
use crate::backend::Null;
use crate::scenario::{Consumers, Load, Scenario};

/// Records a second that the generator makes, stamps, hands over and accounts for with a back end that does nothing.
pub fn floor(scenario: &Scenario, threads: u32, interrupted: &AtomicBool) -> Result<f64, BenchError> {
    let scenario = Scenario {
        load: Load {
            rate: 0,
            arrival: crate::scenario::Arrival::Constant,
            warmup_s: 0.2,
            duration_s: 0.8,
            ..scenario.load
        },
        consumers: Consumers::default(),
        disturbance: None,
        ..scenario.clone()
    };
    let mut stage =
        Stage { backend: &Null, server: None, broker_pid: None, threads, interrupted, watch: &Unwatched };
    let outcome = run_once(&mut stage, &scenario, 1)?;
    Ok(outcome.records as f64 / outcome.measured.as_secs_f64())
}
