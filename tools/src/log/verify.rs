//! `log verify`: checks every checksum.

use std::fmt::Write as _;

use highwater_protocol::text::{counted, grouped};
use highwater_runtime::OsFs;
use highwater_storage::inspect::{self, Finding, Verification};
use serde::Serialize;

use super::Data;
use crate::failure::{self, Failure};
use crate::output;
use crate::progress::Progress;

#[derive(Serialize)]
struct FindingLine {
    file: String,
    at: u64,
    bytes: u64,
    topic: Option<String>,
    partition: Option<u32>,
    what: String,
    blocks: Vec<Block>,
}

#[derive(Serialize)]
struct Block {
    at: u64,
    holds: String,
}

/// Reads and checks all data. Fails with exit code 1 if damage is found.
pub(super) fn run(data: &Data<'_>, json: bool) -> Result<(), Failure> {
    let progress = Progress::of_bytes(None);
    let mut reported = 0;
    let verification = inspect::verify(&mut OsFs::new(), data.dir, &mut |bytes| {
        progress.advance(bytes - reported);
        reported = bytes;
    })
    .map_err(Failure::general)?;
    progress.clear();
    for finding in &verification.findings {
        let line = finding_line(data, finding);
        if json { output::print_json(&line)? } else { output::print(&text(&line))? }
    }
    if !json {
        output::print(&summary(data, &verification))?;
    }
    if verification.findings.is_empty() { Ok(()) } else { Err(Failure::Quiet(failure::GENERAL)) }
}

fn summary(data: &Data<'_>, verification: &Verification) -> String {
    let mut out = String::new();
    for note in &verification.notes {
        if let Some(tp) = note.tp {
            // Writing to a string cannot fail.
            let _ = write!(out, "{}/{}: ", data.name(tp.topic), tp.partition);
        }
        out += &data.with_names(&note.text);
        out += " (expected after a crash; the next start repairs it)\n";
    }
    let found = match verification.findings.len() {
        0 => "no damage".to_owned(),
        n => format!("damage in {}", counted(n, "place")),
    };
    out + &format!(
        "{}, {}, {} bytes read: {found}\n",
        counted(verification.partitions, "partition"),
        counted(verification.frames as usize, "frame"),
        grouped(verification.bytes)
    )
}

fn finding_line(data: &Data<'_>, finding: &Finding) -> FindingLine {
    FindingLine {
        file: data.relative_path(&finding.path),
        at: finding.at,
        bytes: finding.bytes,
        topic: finding.tp.map(|tp| data.name(tp.topic)),
        partition: finding.tp.map(|tp| tp.partition.get()),
        what: data.with_names(&finding.kind.to_string()),
        blocks: finding
            .pages
            .iter()
            .map(|page| Block { at: page.at, holds: format!("{:?}", page.holds) })
            .collect(),
    }
}

fn text(line: &FindingLine) -> String {
    let owner = match (&line.topic, line.partition) {
        (Some(topic), Some(partition)) => format!(" {topic}/{partition}"),
        _ => String::new(),
    };
    let mut out = format!("{}:{} ({} bytes){owner}: {}\n", line.file, line.at, line.bytes, line.what);
    for block in &line.blocks {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "  block at {}: {}", block.at, block.holds);
    }
    out
}
