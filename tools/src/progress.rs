//! Progress line on stderr with amount, rate and remaining time. Hidden if stderr is not a terminal.

use std::fmt::Write;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::sync::{Mutex, PoisonError};

use highwater_protocol::text::{counted, grouped};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// The progress on the screen. A command has at most one.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Calls `write` while the progress line is hidden, so that writing to the terminal does not garble it.
pub(crate) fn with_progress_hidden(write: impl FnOnce()) {
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match shown {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Progress line of a command.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Shows progress in bytes, with the total if it is known.
    pub(crate) fn of_bytes(total: Option<u64>) -> Self {
        let template = match total {
            Some(_) => "{bytes} of {total_bytes}  {bytes_per_sec}  {msg}  {eta} left",
            None => "{bytes}  {bytes_per_sec}  {msg}",
        };
        Self::new(total, template)
    }

    /// Shows progress in records, with the total if it is known.
    pub(crate) fn of_records(total: Option<u64>) -> Self {
        let template = match total {
            Some(_) => "{human_pos} of {human_len} records  {rate}  {eta} left",
            None => "{human_pos} records  {rate}",
        };
        Self::new(total, template)
    }

    /// Shows nothing.
    pub(crate) fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    fn new(total: Option<u64>, template: &str) -> Self {
        // The bar hides itself if stderr is not a terminal.
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(5));
        let style = ProgressStyle::with_template(template).expect("the templates above are valid");
        bar.set_style(style.with_key("rate", write_rate));
        *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
        Self(bar)
    }

    /// Adds `by` to the amount done.
    pub(crate) fn advance(&self, by: u64) {
        self.0.inc(by);
    }

    /// Shows the number of acknowledged records.
    pub(crate) fn acknowledged(&self, records: u64) {
        if !self.0.is_hidden() {
            self.0.set_message(format!("{} acknowledged", counted(records as usize, "record")));
        }
    }

    /// Calls `print` while the progress line is hidden.
    pub(crate) fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.0.suspend(print)
    }

    /// Replaces the progress line by a summary.
    pub(crate) fn finish(&self, summary: &str) {
        if !self.0.is_hidden() {
            self.0.set_style(ProgressStyle::with_template("{msg} in {elapsed}").expect("a valid template"));
            self.0.finish_with_message(summary.to_owned());
        }
    }

    /// Removes the progress line.
    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

/// Writes the rate in records per second, rounded.
fn write_rate(state: &ProgressState, out: &mut dyn Write) {
    let _ = write!(out, "{}/s", grouped(state.per_sec().round() as u64));
}

/// Returns the size of stdin in bytes, if it is a file.
pub(crate) fn stdin_bytes() -> Option<u64> {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().ok()?;
    let metadata = File::from(stdin).metadata().ok()?;
    metadata.is_file().then_some(metadata.len())
}
