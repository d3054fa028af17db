//! `log repair`: puts damaged partitions back into service.

use std::fmt::Write as _;
use std::ops::Range;

use highwater_engine::repair::{self, Outcome, PartitionRepair, Repair};
use highwater_protocol::ids::{Offset, PartitionIndex, TopicPartition};
use highwater_protocol::text::counted;
use highwater_runtime::OsFs;
use serde::Serialize;

use super::Data;
use crate::cli::RepairArgs;
use crate::failure::{self, Failure};
use crate::output;

#[derive(Serialize)]
struct PartitionLine {
    topic: String,
    partition: u32,
    store: u16,
    why: String,
    damaged_at: i64,
    /// First and last offset of each range.
    lost: Vec<(i64, i64)>,
    log_start: i64,
    end: i64,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Serialize)]
struct RefusedLine<'a> {
    refused: &'a str,
}

/// Prints what is damaged beyond what a start repairs, and repairs it if `--apply` is given.
pub(super) fn run(args: &RepairArgs) -> Result<(), Failure> {
    let data = Data::open(&args.data)?;
    let topic = args.topic.as_deref().map(|topic| data.topic(topic)).transpose()?;
    let selected = |tp: TopicPartition| {
        topic.is_none_or(|topic| topic == tp.topic)
            && args.partition.is_none_or(|partition| PartitionIndex(partition) == tp.partition)
    };
    let mut fs = OsFs::new();
    let repair = if args.apply {
        repair::apply(&mut fs, data.dir, &selected)
    } else {
        repair::plan(&mut fs, data.dir, &selected)
    }
    .map_err(Failure::general)?;
    if args.json {
        repair.partitions.iter().try_for_each(|partition| output::print_json(&line(&data, partition)))?;
        repair.refused.iter().try_for_each(|refused| output::print_json(&RefusedLine { refused }))?;
    } else {
        output::print(&text(&data, &repair, args.apply))?;
    }
    let is_left = |partition: &PartitionRepair| !args.apply || partition.outcome != Outcome::InService;
    if repair.refused.is_empty() && !repair.partitions.iter().any(is_left) {
        Ok(())
    } else {
        Err(Failure::Quiet(failure::GENERAL))
    }
}

fn line(data: &Data<'_>, partition: &PartitionRepair) -> PartitionLine {
    let (outcome, reason) = match &partition.outcome {
        Outcome::InService => ("in-service", None),
        Outcome::NotSelected => ("not-selected", None),
        Outcome::Impossible(reason) => ("impossible", Some(reason.clone())),
    };
    PartitionLine {
        topic: data.name(partition.tp.topic),
        partition: partition.tp.partition.get(),
        store: partition.store.get(),
        why: data.with_names(&partition.why),
        damaged_at: partition.at.get(),
        lost: partition.lost.iter().map(|range| (range.start.get(), range.end.get() - 1)).collect(),
        log_start: partition.log_start.get(),
        end: partition.end.get(),
        outcome,
        reason,
    }
}

fn text(data: &Data<'_>, repair: &Repair, apply: bool) -> String {
    let mut out = String::new();
    for note in &repair.notes {
        let who = if apply { "repaired as by a start, or reported" } else { "a start repairs or reports it" };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{} ({who})", data.with_names(note));
    }
    for refused in &repair.refused {
        let _ = writeln!(out, "a start is refused: {refused}");
    }
    for partition in &repair.partitions {
        describe(data, partition, apply, &mut out);
    }
    let count = |is: fn(&Outcome) -> bool| repair.partitions.iter().filter(|p| is(&p.outcome)).count();
    let repaired = count(|outcome| *outcome == Outcome::InService);
    if repair.partitions.is_empty() {
        out += "no partition is out of service\n";
    } else if apply {
        let _ = writeln!(out, "{} put back into service", counted(repaired, "partition"));
    } else if repaired > 0 {
        let _ = writeln!(
            out,
            "{} would be put back into service; nothing was changed: run `highwater log repair --apply` to do it, or restore the damaged files \
             from a backup",
            counted(repaired, "partition")
        );
    }
    if let Some(kept) = &repair.kept {
        let _ = writeln!(out, "the files from before are in {}", data.relative_path(kept));
    }
    out
}

fn describe(data: &Data<'_>, partition: &PartitionRepair, apply: bool, out: &mut String) {
    let name = format!("{}/{}", data.name(partition.tp.topic), partition.tp.partition);
    // Writing to a string cannot fail.
    let why = data.with_names(&partition.why);
    let _ = writeln!(out, "{name} is out of service at offset {}: {why}", partition.at);
    if partition.lost.is_empty() {
        let _ = writeln!(out, "  lost: the records from offset {} on, if there were any", partition.at);
    } else {
        let ranges: Vec<String> = partition.lost.iter().map(range_text).collect();
        let _ = writeln!(out, "  lost: {}", ranges.join(", "));
    }
    let _ = match &partition.outcome {
        Outcome::InService => {
            let would = if apply { "in service again" } else { "after a repair" };
            writeln!(
                out,
                "  {would}: the log starts at offset {}, and new records follow from offset {}",
                partition.log_start, partition.end
            )
        }
        Outcome::NotSelected => writeln!(out, "  not selected: it stays out of service"),
        Outcome::Impossible(why) => writeln!(out, "  cannot be repaired: {why}"),
    };
}

fn range_text(range: &Range<Offset>) -> String {
    let (first, last) = (range.start.get(), range.end.get() - 1);
    if first == last { format!("offset {first}") } else { format!("offsets {first} to {last}") }
}
