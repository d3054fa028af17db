//! Progress on stderr, if a person is looking: done, rate, time left. Silent otherwise.

use std::fmt::Write;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::sync::{Mutex, PoisonError};

use highwater_protocol::text::{counted, grouped};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// The progress that is on the screen: a command has one.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Writes to stderr without running into the progress there.
pub(crate) fn beside(write: impl FnOnce()) {
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match shown {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Progress of a command.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Of so many bytes, if it is known how many.
    pub(crate) fn of_bytes(total: Option<u64>) -> Self {
        let template = match total {
            Some(_) => "{bytes} of {total_bytes}  {bytes_per_sec}  {msg}  {eta} left",
            None => "{bytes}  {bytes_per_sec}  {msg}",
        };
        Self::new(total, template)
    }

    /// Of so many records, if it is known how many.
    pub(crate) fn of_records(total: Option<u64>) -> Self {
        let template = match total {
            Some(_) => "{human_pos} of {human_len} records  {rate}  {eta} left",
            None => "{human_pos} records  {rate}",
        };
        Self::new(total, template)
    }

    /// None at all.
    pub(crate) fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    fn new(total: Option<u64>, template: &str) -> Self {
        // Hidden by itself when stderr is no terminal.
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(5));
        let style = ProgressStyle::with_template(template).expect("the templates above are templates");
        bar.set_style(style.with_key("rate", write_rate));
        *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
        Self(bar)
    }

    /// So much more is done.
    pub(crate) fn advance(&self, by: u64) {
        self.0.inc(by);
    }

    /// So many records are acknowledged.
    pub(crate) fn acknowledged(&self, records: u64) {
        if !self.0.is_hidden() {
            self.0.set_message(format!("{} acknowledged", counted(records as usize, "record")));
        }
    }

    /// Prints something else in the meantime.
    pub(crate) fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.0.suspend(print)
    }

    /// Everything is done.
    pub(crate) fn finish(&self, summary: &str) {
        if !self.0.is_hidden() {
            self.0.set_style(ProgressStyle::with_template("{msg} in {elapsed}").expect("a template"));
            self.0.finish_with_message(summary.to_owned());
        }
    }

    /// Leaves nothing behind.
    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

/// Records a second, without a fraction.
fn write_rate(state: &ProgressState, out: &mut dyn Write) {
    let _ = write!(out, "{}/s", grouped(state.per_sec().round() as u64));
}

/// How much there is on stdin, if it is a file.
pub(crate) fn stdin_bytes() -> Option<u64> {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().ok()?;
    let metadata = File::from(stdin).metadata().ok()?;
    metadata.is_file().then_some(metadata.len())
}
