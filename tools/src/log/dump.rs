//! `log dump`: prints the frames of a partition.

use std::ops::ControlFlow;

use highwater_protocol::frame::{Frame, FrameKind};
use highwater_protocol::ids::{Offset, TopicPartition};
use highwater_runtime::OsFs;
use highwater_storage::inspect::{self, Dumped, InspectError};
use serde::Serialize;

use super::Data;
use crate::failure::Failure;
use crate::output::RawStdout;

/// Buffered output, in bytes, from which it is printed.
const OUTPUT_BYTES: usize = 64 << 10;

#[derive(Serialize)]
struct Line<'a> {
    kind: &'static str,
    file: &'a str,
    at: u64,
    index: u64,
    offset: i64,
    next_offset: i64,
    leader_epoch: i32,
    incarnation: u64,
    durable_index: u64,
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<Batch>,
}

#[derive(Serialize)]
struct Batch {
    records: u32,
    compression: String,
    max_timestamp: i64,
    producer: Option<i64>,
    producer_epoch: Option<i16>,
    sequence: Option<i32>,
}

/// Prints the frames of `tp`, starting with the one that contains offset `from`.
pub(super) fn run(
    data: &Data<'_>,
    tp: TopicPartition,
    from: i64,
    limit: u64,
    json: bool,
) -> Result<(), Failure> {
    let mut out = Vec::new();
    let mut stdout = RawStdout::new()?;
    let mut file = String::new();
    let mut remaining = limit;
    let mut result = Ok(());
    inspect::dump(&mut OsFs::new(), data.dir, tp, Offset(from), &mut |dumped| {
        if remaining == 0 {
            return ControlFlow::Break(());
        }
        match dumped {
            Dumped::Extent { path, .. } => file = data.relative_path(&path),
            Dumped::Frame { at, frame } => {
                remaining -= 1;
                write_line(&line(&file, at, frame), json, &mut out);
            }
            Dumped::Gap { at, gap } => write_gap(&file, at, &gap, json, &mut out),
        }
        if out.len() >= OUTPUT_BYTES {
            result = stdout.write(&out);
            out.clear();
        }
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
    .map_err(|e| match e {
        InspectError::NoPartition { dir, tp } => Failure::general(format_args!(
            "{}: {}/{} has no records; `highwater log ls` lists the partitions",
            dir.display(),
            data.name(tp.topic),
            tp.partition
        )),
        other => Failure::general(other),
    })?;
    result.and_then(|()| stdout.write(&out))
}

fn line<'a>(file: &'a str, at: u64, frame: &Frame<'_>) -> Line<'a> {
    let header = frame.header();
    let batch = frame.batch().map(|batch| {
        let batch = batch.header();
        let producer = batch.producer();
        Batch {
            records: batch.count(),
            compression: batch.compression().map_or_else(
                || format!("codec {}", batch.codec()),
                |codec| format!("{codec:?}").to_lowercase(),
            ),
            max_timestamp: batch.max_timestamp().get(),
            producer: producer.map(|p| p.id.get()),
            producer_epoch: producer.map(|p| p.epoch),
            sequence: producer.map(|p| p.sequence),
        }
    });
    Line {
        kind: match frame.kind() {
            FrameKind::Batch => "batch",
            FrameKind::Padding => "padding",
            FrameKind::EpochStart => "epoch-start",
            FrameKind::Configuration => "configuration",
        },
        file,
        at,
        index: header.index.get(),
        offset: header.base_offset.get(),
        next_offset: header.next_offset(),
        leader_epoch: header.leader_epoch.get(),
        incarnation: header.incarnation.get(),
        durable_index: header.durable_index(),
        bytes: header.frame_bytes(),
        batch,
    }
}

fn write_line(line: &Line<'_>, json: bool, out: &mut Vec<u8>) {
    if json {
        serde_json::to_writer(&mut *out, line).expect("numbers and strings serialize to JSON");
    } else {
        let text = format!(
            "{}:{} {} index {} offsets {}..{} epoch {} incarnation {} durable below {} {} bytes",
            line.file,
            line.at,
            line.kind,
            line.index,
            line.offset,
            line.next_offset,
            line.leader_epoch,
            line.incarnation,
            line.durable_index,
            line.bytes
        );
        out.extend_from_slice(text.as_bytes());
        if let Some(batch) = &line.batch {
            let text = format!(
                " {} records {} max timestamp {}",
                batch.records, batch.compression, batch.max_timestamp
            );
            out.extend_from_slice(text.as_bytes());
            if let (Some(id), Some(epoch), Some(sequence)) =
                (batch.producer, batch.producer_epoch, batch.sequence)
            {
                out.extend_from_slice(format!(" producer {id}/{epoch} sequence {sequence}").as_bytes());
            }
        }
    }
    out.push(b'\n');
}

#[derive(Serialize)]
struct GapLine<'a> {
    kind: &'static str,
    file: &'a str,
    at: u64,
    index: u64,
    offset: i64,
    next_index: Option<u64>,
    next_offset: Option<i64>,
    found: String,
    decision: String,
}

fn write_gap(file: &str, at: u64, gap: &highwater_storage::recovery::Gap, json: bool, out: &mut Vec<u8>) {
    let line = GapLine {
        kind: "gap",
        file,
        at,
        index: gap.from.index.get(),
        offset: gap.from.offset.get(),
        next_index: gap.to.map(|to| to.index.get()),
        next_offset: gap.to.map(|to| to.offset.get()),
        found: format!("{:?}", gap.found),
        decision: format!("{:?}", gap.decision),
    };
    if json {
        serde_json::to_writer(&mut *out, &line).expect("numbers and strings serialize to JSON");
    } else {
        let to = line
            .next_offset
            .map_or_else(|| "the end of the extent".into(), |offset| format!("offset {offset}"));
        let text = format!(
            "{file}:{at} GAP index {} offset {} to {to}: damaged or missing ({}, {})",
            line.index, line.offset, line.found, line.decision
        );
        out.extend_from_slice(text.as_bytes());
    }
    out.push(b'\n');
}
