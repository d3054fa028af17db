//! The maximum rate of the generator itself, with a backend that does nothing.

use std::sync::atomic::AtomicBool;

use super::run::{RunContext, Unwatched, run_once};
use crate::BenchError;
use crate::backend::Null;
use crate::scenario::{Consumers, Load, Scenario};

/// Measures the rate, in records per second, at which the generator creates, stamps, sends and accounts for records with the null backend.
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
    let mut context = RunContext {
        backend: &Null,
        server: None,
        broker_pids: &[],
        threads,
        interrupted,
        watch: &Unwatched,
    };
    let outcome = run_once(&mut context, &scenario, 1)?;
    Ok(outcome.records as f64 / outcome.measured.as_secs_f64())
}
