//! Feedback while records are sent.
//!
//! For input from a file or a pipe, it is a progress line. For typed input, it is one line per acknowledgement, because a redrawn progress
//! line would overwrite what is being typed. With `--verbose`, acknowledgements go to stdout.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};

use highwater_client::{Event, Events, Receipt};
use highwater_protocol::text::counted;

use crate::cli::ProduceArgs;
use crate::failure::Failure;
use crate::output;
use crate::progress::{Progress, stdin_bytes};

/// Buffered output, in bytes, from which it is printed at once.
const OUTPUT_BYTES: usize = 64 << 10;

/// Where acknowledgements are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Destination {
    Stdout,
    Stderr,
    Discard,
}

/// Printer of acknowledgements and progress.
pub(super) struct Report {
    topic: String,
    destination: Destination,
    /// Buffered acknowledgements.
    lines: String,
    pub(super) progress: Progress,
}

impl Report {
    pub(super) fn new(args: &ProduceArgs) -> Self {
        let is_typed = args.records.is_empty() && std::io::stdin().is_terminal();
        let is_watched = is_typed && std::io::stderr().is_terminal();
        if is_watched {
            print_line("type one record per line; Ctrl-D ends the input");
        }
        let destination = match () {
            () if args.verbose => Destination::Stdout,
            () if is_watched => Destination::Stderr,
            () => Destination::Discard,
        };
        let is_quiet = is_typed || !args.records.is_empty() || args.verbose;
        let progress = if is_quiet { Progress::hidden() } else { Progress::of_bytes(stdin_bytes()) };
        Self { topic: args.topic.clone(), destination, lines: String::new(), progress }
    }

    /// Adds the acknowledgement of a record.
    pub(super) fn add(&mut self, receipt: &Receipt) -> Result<(), Failure> {
        if self.destination == Destination::Discard {
            return Ok(());
        }
        // Writing to a string cannot fail.
        let _ = write!(self.lines, "{}/{}", self.topic, receipt.partition());
        let _ = match receipt.offset() {
            Some(offset) => writeln!(self.lines, " offset {offset}"),
            None => writeln!(self.lines),
        };
        if self.lines.len() >= OUTPUT_BYTES { self.print() } else { Ok(()) }
    }

    /// Prints what is buffered, and updates the number of acknowledged records.
    pub(super) fn show(&mut self, acknowledged: u64) -> Result<(), Failure> {
        self.progress.acknowledged(acknowledged);
        self.print()
    }

    fn print(&mut self) -> Result<(), Failure> {
        let lines = std::mem::take(&mut self.lines);
        match self.destination {
            _ if lines.is_empty() => Ok(()),
            Destination::Stdout => output::print(&lines),
            Destination::Stderr => {
                // Ignored: a closed terminal also ends stdin or sends SIGHUP.
                let _ = std::io::stderr().write_all(lines.as_bytes());
                Ok(())
            }
            Destination::Discard => Ok(()),
        }
    }

    /// Prints the summary after the last acknowledgement.
    pub(super) fn finish(&mut self, acknowledged: u64) -> Result<(), Failure> {
        self.print()?;
        let summary = format!("{} acknowledged", counted(acknowledged as usize, "record"));
        if self.destination == Destination::Stderr {
            print_line(&summary);
        }
        self.progress.finish(&summary);
        Ok(())
    }

    /// Prints what is buffered and clears the progress, before an error is printed.
    pub(super) fn abort(&mut self) -> Result<(), Failure> {
        self.progress.clear();
        self.print()
    }
}

/// Prints why the broker rejects records, each reason once, while the producer keeps retrying.
pub(super) async fn report_rejections(mut events: Events) -> Infallible {
    let mut reported = String::new();
    loop {
        match events.next().await {
            Some(Event::ProduceRejected { reason, .. }) if reason != reported => {
                print_line(&format!("the broker rejects records: {reason}; retrying until --timeout"));
                reported = reason;
            }
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

fn print_line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
