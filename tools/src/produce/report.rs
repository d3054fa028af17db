//! What a person sees while records are sent.
//!
//! For input that comes from a file or a pipe, a line of progress; for lines that are typed, each acknowledgement in a line of its own, since a
//! line that is redrawn would be where the next one is typed. With `--verbose` the acknowledgements go to stdout.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};

use highwater_client::{Event, Events, Receipt};
use highwater_protocol::text::counted;

use crate::cli::ProduceArgs;
use crate::failure::Failure;
use crate::output;
use crate::progress::{Progress, stdin_bytes};

/// Acknowledgements that are printed together when there are many.
const OUTPUT_BYTES: usize = 64 << 10;

/// Where acknowledgements are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    Stdout,
    Stderr,
    Nowhere,
}

/// What a person sees while records are sent.
pub(super) struct Report {
    topic: String,
    told: Told,
    /// Acknowledgements not yet printed.
    lines: String,
    pub(super) progress: Progress,
}

impl Report {
    pub(super) fn new(args: &ProduceArgs) -> Self {
        let is_typed = args.records.is_empty() && std::io::stdin().is_terminal();
        let is_watched = is_typed && std::io::stderr().is_terminal();
        if is_watched {
            say("each line is a record; Ctrl-D ends");
        }
        let told = match () {
            () if args.verbose => Told::Stdout,
            () if is_watched => Told::Stderr,
            () => Told::Nowhere,
        };
        let is_quiet = is_typed || !args.records.is_empty() || args.verbose;
        let progress = if is_quiet { Progress::hidden() } else { Progress::of_bytes(stdin_bytes()) };
        Self { topic: args.topic.clone(), told, lines: String::new(), progress }
    }

    /// A record was acknowledged.
    pub(super) fn note(&mut self, receipt: &Receipt) -> Result<(), Failure> {
        if self.told == Told::Nowhere {
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

    /// So many are acknowledged, and for the moment nothing more is known.
    pub(super) fn show(&mut self, acknowledged: u64) -> Result<(), Failure> {
        self.progress.acknowledged(acknowledged);
        self.print()
    }

    fn print(&mut self) -> Result<(), Failure> {
        let lines = std::mem::take(&mut self.lines);
        match self.told {
            _ if lines.is_empty() => Ok(()),
            Told::Stdout => output::print(&lines),
            Told::Stderr => {
                // A terminal that is gone says so by other means.
                let _ = std::io::stderr().write_all(lines.as_bytes());
                Ok(())
            }
            Told::Nowhere => Ok(()),
        }
    }

    /// All are acknowledged.
    pub(super) fn finish(&mut self, acknowledged: u64) -> Result<(), Failure> {
        self.print()?;
        let summary = format!("{} acknowledged", counted(acknowledged as usize, "record"));
        if self.told == Told::Stderr {
            say(&summary);
        }
        self.progress.finish(&summary);
        Ok(())
    }

    /// Something went wrong, which is said next.
    pub(super) fn abandon(&mut self) -> Result<(), Failure> {
        self.progress.clear();
        self.print()
    }
}

/// Says at once why the broker does not take records, each reason once; the producer keeps trying.
pub(super) async fn tell_refusals(mut events: Events) -> Infallible {
    let mut told = String::new();
    loop {
        match events.next().await {
            Some(Event::ProduceRefused { reason, .. }) if reason != told => {
                say(&format!(
                    "records are not taken at the moment: {reason}; trying again until --timeout is over"
                ));
                told = reason;
            }
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
