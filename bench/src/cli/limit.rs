//! Measures the machine's limits for a scenario between the scenario's runs, so that all are measured under the same conditions.

use std::path::Path;
use std::time::Duration;

use crate::BenchError;
use crate::limits::{Limit, Machine, for_backlog, for_scenario};
use crate::report::{self, Report};
use crate::scenario::Scenario;

/// Duration of each measurement.
const DURATION: Duration = Duration::from_secs(1);

/// A limit, and its best measurement so far.
struct Best {
    limit: Limit,
    measured: Option<report::Limit>,
}

impl Best {
    fn new(limit: Limit) -> Self {
        Self { limit, measured: None }
    }

    fn measure(&mut self, machine: &mut Machine) -> Result<(), BenchError> {
        let measured = machine.measure(&self.limit, DURATION)?;
        let now = self.limit.reported(&measured);
        if self.measured.as_ref().is_none_or(|best| best.value < now.value) {
            self.measured = Some(now);
        }
        Ok(())
    }
}

/// The limits that apply to a scenario.
pub(crate) struct ScenarioLimit {
    machine: Machine,
    records: Best,
    /// The limit of consumers of a backlog, if there are any.
    backlog: Option<Best>,
}

impl ScenarioLimit {
    /// Creates the limits of a scenario, measured on the disk of `dir`.
    pub(crate) fn new(scenario: &Scenario, dir: &Path) -> Self {
        let backlog = (scenario.consumers.cold > 0).then(|| Best::new(for_backlog()));
        Self { machine: Machine::new(dir), records: Best::new(for_scenario(scenario)), backlog }
    }

    /// Measures again. The limit is the best measurement.
    pub(crate) fn measure(&mut self) -> Result<(), BenchError> {
        self.records.measure(&mut self.machine)?;
        self.backlog.as_mut().map_or(Ok(()), |backlog| backlog.measure(&mut self.machine))
    }

    /// Adds the limits to the report and to each run.
    pub(crate) fn add_to(self, report: &mut Report) {
        if let Some(best) = self.records.measured {
            report.runs.iter_mut().for_each(|run| run.set_limit(&best));
            report.limits.push(best);
        }
        if let Some(best) = self.backlog.and_then(|backlog| backlog.measured) {
            report.runs.iter_mut().for_each(|run| run.set_backlog_limit(&best));
            report.limits.push(best);
        }
    }
}
