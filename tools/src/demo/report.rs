//! The table at the end of the demo.

use std::fmt::Write as _;
use std::time::Duration;

use highwater_protocol::text::grouped;

use super::check::Findings;
use super::records;

/// Number of records processed in a phase of the demo, and its duration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phase {
    pub(super) records: u64,
    pub(super) took: Duration,
}

/// Results of the demo.
pub(super) struct Results {
    pub(super) before: Phase,
    pub(super) after: Phase,
    pub(super) read: Phase,
    /// Number of records acknowledged when the broker was killed.
    pub(super) killed_at: u64,
    /// Time from each kill until the broker was ready again.
    pub(super) kills: [Duration; 2],
    pub(super) findings: Findings,
}

impl Results {
    pub(super) fn to_text(&self) -> String {
        let mut rows = vec![["", "records", "seconds", "records/s", "MB/s"].map(str::to_owned)];
        for (what, phase) in [
            ("sent and acknowledged before the kill", self.before),
            ("sent and acknowledged after the restart", self.after),
            ("read back and compared", self.read),
        ] {
            let seconds = phase.took.as_secs_f64().max(0.001);
            let bytes = records::bytes(phase.records) as f64;
            rows.push([
                what.to_owned(),
                grouped(phase.records),
                format!("{seconds:.2}"),
                grouped((phase.records as f64 / seconds).round() as u64),
                format!("{:.1}", bytes / 1e6 / seconds),
            ]);
        }
        let [first, second] = self.kills.map(|took| took.as_secs_f64());
        let found = self.findings;
        let verdict = if found.is_clean() {
            "Every acknowledged record was read exactly once, at its offset."
        } else {
            "Acknowledged records are lost, duplicated or changed. Please report this."
        };
        format!(
            "{}\nkilled with SIGKILL   twice: when {} records were acknowledged, and before reading\n\
             ready again after     {first:.2} s and {second:.2} s\n\
             acknowledged          {}\nlost                  {}\nduplicated            {}\nchanged or misplaced  {}\n\n{verdict}\n",
            number_table(&rows),
            grouped(self.killed_at),
            grouped(found.acknowledged),
            grouped(found.lost),
            grouped(found.duplicated),
            grouped(found.changed),
        )
    }
}

/// Formats a table: the first column is left-aligned, the numbers are right-aligned.
fn number_table(rows: &[[String; 5]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let mut text = String::new();
    for row in rows {
        let mut line = format!("{:<1$}", row[0], width(0));
        for (column, cell) in row.iter().enumerate().skip(1) {
            // Writing to a string cannot fail.
            let _ = write!(line, "   {cell:>0$}", width(column));
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_rates_restarts_and_the_verdict() {
        let phase = |records, ms| Phase { records, took: Duration::from_millis(ms) };
        let findings = Findings { acknowledged: 1_000_000, ..Findings::default() };
        let mut results = Results {
            before: phase(500_000, 1_000),
            after: phase(500_000, 2_000),
            read: phase(1_000_000, 500),
            killed_at: 500_000,
            kills: [Duration::from_millis(210), Duration::from_millis(190)],
            findings,
        };
        let text = results.to_text();
        let row = |start: &str| {
            let line = text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{text}"));
            line[start.len()..].split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(row("sent and acknowledged before the kill")[..3], ["500,000", "1.00", "500,000"]);
        assert_eq!(row("read back and compared")[..3], ["1,000,000", "0.50", "2,000,000"]);
        assert_eq!(row("lost"), ["0"]);
        assert_eq!(row("ready again after"), ["0.21", "s", "and", "0.19", "s"]);
        assert!(
            text.ends_with("Every acknowledged record was read exactly once, at its offset.\n"),
            "{text}"
        );
        results.findings.lost = 1;
        assert!(results.to_text().contains("lost, duplicated or changed"));
    }
}
