//! The machine's limit that a scenario runs into, measured between its runs, so that both have the same neighbours.

use std::path::Path;
use std::time::Duration;

use crate::BenchError;
use crate::limits::{Limit, Machine, for_scenario};
use crate::report::{self, Report};
use crate::scenario::Scenario;

/// Time for each measurement.
const DURATION: Duration = Duration::from_secs(1);

pub(crate) struct Beside {
    limit: Limit,
    machine: Machine,
    best: Option<report::Limit>,
}

impl Beside {
    /// Of this scenario, on the disk of this directory.
    pub(crate) fn new(scenario: &Scenario, dir: &Path) -> Self {
        Self { limit: for_scenario(scenario), machine: Machine::new(dir), best: None }
    }

    /// Measures once more. A limit is the best that was seen.
    pub(crate) fn measure(&mut self) -> Result<(), BenchError> {
        let measured = self.machine.measure(&self.limit, DURATION)?;
        let now = self.limit.reported(&measured);
        if self.best.as_ref().is_none_or(|best| best.value < now.value) {
            self.best = Some(now);
        }
        Ok(())
    }

    /// Says of all runs how near they came.
    pub(crate) fn note(self, report: &mut Report) {
        let Some(best) = self.best else { return };
        report.runs.iter_mut().for_each(|run| run.set_limit(&best));
        report.limits.push(best);
    }
}
