//! Progress on stderr, if it is a terminal or `--progress` is given.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::load::run::Watch;
use crate::outcome::Interval;

/// Minimum interval between updates of the line on a terminal.
const REDRAW: Duration = Duration::from_millis(200);
/// Interval between lines if stderr is not a terminal.
const LINES: Duration = Duration::from_secs(1);

/// Printer of progress.
pub(crate) struct Progress {
    shown: bool,
    terminal: bool,
    name: String,
    state: Mutex<State>,
}

struct State {
    run: String,
    drawn: Instant,
    /// Number of records and time of the last line, for the rate.
    last: (u64, Duration),
    p99: Option<Duration>,
}

impl Progress {
    pub(crate) fn new(name: &str, asked: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let state = State { run: String::new(), drawn: Instant::now(), last: (0, Duration::ZERO), p99: None };
        Self { shown: terminal || asked, terminal, name: name.to_owned(), state: Mutex::new(state) }
    }

    pub(crate) fn begin(&self, run: u32, of: Option<u32>) {
        let mut state = self.state();
        state.run = of.map_or(format!("{run}"), |of| format!("{run}/{of}"));
        state.last = (0, Duration::ZERO);
        state.p99 = None;
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self, line: &str) {
        let mut err = std::io::stderr().lock();
        // Errors are ignored: a closed stderr does not end the run.
        let _ = if self.terminal { write!(err, "\r\x1b[K{line}") } else { writeln!(err, "{line}") };
        let _ = err.flush();
    }
}

impl Watch for Progress {
    fn phase(&self, what: &str) {
        if self.shown {
            let line = format!("{} {}: {what}", self.name, self.state().run);
            self.draw(&line);
        }
    }

    fn load(&self, records: u64, elapsed: Duration, total: Duration) {
        let mut state = self.state();
        if !self.shown || state.drawn.elapsed() < if self.terminal { REDRAW } else { LINES } {
            return;
        }
        state.drawn = Instant::now();
        let (before, then) = std::mem::replace(&mut state.last, (records, elapsed));
        let rate =
            records.saturating_sub(before) as f64 / elapsed.saturating_sub(then).as_secs_f64().max(0.001);
        let p99 = state.p99.map_or(String::new(), |p99| format!("  p99 {:.2} ms", p99.as_secs_f64() * 1e3));
        let left = total.saturating_sub(elapsed).as_secs_f64();
        let line = format!("{} {}: {rate:.0} records/s{p99}  {left:.0} s left", self.name, state.run);
        drop(state);
        self.draw(&line);
    }

    fn interval(&self, interval: &Interval) {
        if !interval.produce.is_empty() {
            self.state().p99 = Some(Duration::from_nanos(interval.produce.value_at_quantile(0.99)));
        }
    }

    fn done(&self) {
        if self.terminal {
            self.draw("");
        }
    }
}
