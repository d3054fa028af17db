//! Measures the machine's limit for a scenario between the scenario's runs, so that both are measured under the same conditions.

use std::path::Path;
use std::time::Duration;

use crate::BenchError;
use crate::limits::{Limit, Machine, for_scenario};
use crate::report::{self, Report};
use crate::scenario::Scenario;

/// Duration of each measurement.
const DURATION: Duration = Duration::from_secs(1);

/// The limit that applies to a scenario.
pub(crate) struct ScenarioLimit {
    limit: Limit,
    machine: Machine,
    best: Option<report::Limit>,
}

impl ScenarioLimit {
    /// Creates the limit of a scenario, measured on the disk of `dir`.
    pub(crate) fn new(scenario: &Scenario, dir: &Path) -> Self {
        Self { limit: for_scenario(scenario), machine: Machine::new(dir), best: None }
    }

    /// Measures again. The limit is the best measurement.
    pub(crate) fn measure(&mut self) -> Result<(), BenchError> {
        let measured = self.machine.measure(&self.limit, DURATION)?;
        let now = self.limit.reported(&measured);
        if self.best.as_ref().is_none_or(|best| best.value < now.value) {
            self.best = Some(now);
        }
        Ok(())
    }

    /// Adds the limit to the report and to each run.
    pub(crate) fn add_to(self, report: &mut Report) {
        let Some(best) = self.best else { return };
        report.runs.iter_mut().for_each(|run| run.set_limit(&best));
        report.limits.push(best);
    }
}
