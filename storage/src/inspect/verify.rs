//! Checks every checksum of a data directory, and describes the bytes where one is wrong.

use std::path::{Path, PathBuf};

use highwater_protocol::frame::{FRAME_ALIGN, FrameHeader};
use highwater_protocol::ids::{Incarnation, LogIndex, Offset, StoreId, TopicPartition};
use highwater_runtime::fs::Fs;

use super::files::Files;
use super::headers::header_at;
use super::state::{self, StateLogListing};
use super::view::{StoreView, expectation, known_end};
use super::{InspectError, MapSource, store_dirs};
use crate::journal::JOURNAL_NAME;
use crate::layout::{EXTENT_HEADER_BYTES, ExtentEnd, ExtentId, PAGE_BYTES, Place, SlabId};
use crate::map::{ExtentEntry, PartitionEntry, SealEntry};
use crate::recovery::{Decision, Expectation, FrameCondition, Scanned, has_frames_from};

/// The result of a verification.
#[derive(Clone, Default, Debug)]
pub struct Verification {
    /// Bytes of logs read.
    pub bytes: u64,
    /// Whole valid frames.
    pub frames: u64,
    /// Partitions.
    pub partitions: usize,
    /// The faults. Empty: there are none.
    pub findings: Vec<Finding>,
    /// Findings that a crash explains and the next start repairs.
    pub notes: Vec<Note>,
}

/// Something that a crash explains.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// Whose log, if it is one.
    pub tp: Option<TopicPartition>,
    /// What was found.
    pub text: String,
}

/// Something that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// First byte concerned.
    pub at: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Whose log, if it is one.
    pub tp: Option<TopicPartition>,
    /// The fault.
    pub kind: FindingKind,
    /// The 4 KiB blocks concerned with their content (the first few, if there are many).
    pub pages: Vec<PageHolds>,
}

/// The fault.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FindingKind {
    /// A state log has damage that its other copy makes up for; or is lost.
    #[error("{0}")]
    StateLog(String),
    /// The journal has lost records that had been durable.
    #[error("{0}; records that were acknowledged last may be lost")]
    Journal(String),
    /// The map of the store cannot be read: extents were found by their headers.
    #[error("the map of the store cannot be read: {0}")]
    Map(String),
    /// An extent of the map lies outside of its slab's file, or the file is missing.
    #[error("extent {incarnation} lies outside of its slab")]
    Outside {
        /// Its incarnation.
        incarnation: Incarnation,
    },
    /// The header block of an extent contradicts the map.
    #[error("header of extent {incarnation}: {why}")]
    ExtentHeader {
        /// Its incarnation.
        incarnation: Incarnation,
        /// The fault.
        why: String,
    },
    /// Frames that had been durable are damaged or missing.
    #[error(
        "indices {from_index}..{to_index}, offsets {from_offset}..{to_offset} are damaged or missing ({found:?}, {decision:?})"
    )]
    Frames {
        /// First index.
        from_index: LogIndex,
        /// The next index that is there.
        to_index: LogIndex,
        /// First offset.
        from_offset: Offset,
        /// The next offset that is there.
        to_offset: Offset,
        /// The bytes found there.
        found: FrameCondition,
        /// The decision of recovery.
        decision: Decision,
    },
    /// Frames lie where none was written, according to the map: recovery would not search for them.
    #[error("frames of extent {incarnation} at or after its write bound: the map is older than they are")]
    WriteBound {
        /// Its incarnation.
        incarnation: Incarnation,
    },
    /// Bytes between two frames are damaged: padding, or a block written astray. No record is concerned.
    #[error("bytes between two frames are damaged; no record is concerned")]
    Padding,
    /// The extents of a partition do not follow one another.
    #[error(
        "the extent ends at index {found}, offset {found_offset}; index {expected}, offset {expected_offset} was expected"
    )]
    End {
        /// Where it ends.
        found: LogIndex,
        /// Where it ends.
        found_offset: Offset,
        /// Where it should.
        expected: LogIndex,
        /// Where it should.
        expected_offset: Offset,
    },
}

/// A block and its content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageHolds {
    /// Where in the file.
    pub at: u64,
    /// What.
    pub holds: Holds,
}

/// The content of a block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Holds {
    /// It cannot be read.
    Unreadable,
    /// Zero bytes.
    Zero,
    /// The header of an extent.
    ExtentHeader(ExtentId),
    /// The first frame header in it is of this incarnation, partition tag and index.
    Frame {
        /// The incarnation of the extent it was written for.
        incarnation: Incarnation,
        /// The partition's tag.
        tag: u32,
        /// Its index.
        index: LogIndex,
    },
    /// Bytes without a valid header.
    Data,
}

/// Blocks of a finding that are looked into.
const PAGES_TOLD_MAX: usize = 64;

/// Checks everything in a data directory. `progress` is called with the bytes read so far.
pub fn verify(
    fs: &mut dyn Fs,
    data_dir: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<Verification, InspectError> {
    let mut files = Files::new(fs);
    let mut verification = Verification::default();
    let (stores, rest) = store_dirs(&mut files, data_dir)?;
    let (logs, _) = state::find(&mut files, rest);
    for log in &logs {
        verification.state_log(log);
    }
    for (store, dir) in stores {
        let view = StoreView::open(&mut files, store, dir)?;
        verification.state_log(&view.state);
        if let MapSource::Headers(why) = &view.source {
            let path = view.state.stem.clone();
            verification.add(path, 0, 0, None, FindingKind::Map(why.clone()), Vec::new());
        }
        if let Some(what) = &view.journal_lost {
            let path = view.dir.join(JOURNAL_NAME);
            verification.add(path, 0, 0, None, FindingKind::Journal(what.clone()), Vec::new());
        }
        verification.partitions += view.map.partitions.len();
        for partition in view.map.partitions.values() {
            for n in 0..partition.extents.len() {
                verification.extent(&mut files, &view, partition, n);
                progress(verification.bytes);
            }
        }
    }
    Ok(verification)
}

impl Verification {
    fn add(
        &mut self,
        path: PathBuf,
        at: u64,
        bytes: u64,
        tp: Option<TopicPartition>,
        kind: FindingKind,
        pages: Vec<PageHolds>,
    ) {
        self.findings.push(Finding { path, at, bytes, tp, kind, pages });
    }

    fn state_log(&mut self, log: &StateLogListing) {
        for what in log.damage.iter().chain(&log.lost) {
            self.add(log.stem.clone(), 0, 0, None, FindingKind::StateLog(what.clone()), Vec::new());
        }
        self.notes.extend(log.notes.iter().map(|text| Note { tp: None, text: text.clone() }));
    }

    fn extent(&mut self, files: &mut Files<'_>, view: &StoreView, partition: &PartitionEntry, n: usize) {
        let extent = &partition.extents[n];
        let tp = TopicPartition::from(partition.key);
        let path = view.slab_path(extent.slab);
        let incarnation = Incarnation(extent.incarnation);
        let bytes = 1 << extent.log2_bytes;
        let Some(file) = view.file_of(extent) else {
            self.add(path, extent.at, bytes, Some(tp), FindingKind::Outside { incarnation }, Vec::new());
            return;
        };
        let context = Context { path, file, tp, extent };
        // An extent without frames may not have got its header yet.
        let scanned = view.scan(files, partition, n, &mut |_, _| {}).expect("its file is there");
        self.bytes += scanned.bytes_read + EXTENT_HEADER_BYTES as u64;
        self.frames += scanned.frames;
        if scanned.frames > 0 || !scanned.gaps.is_empty() || extent.sealed.is_some() {
            self.header(files, &context, view.store);
        }
        for skipped in &scanned.skipped {
            self.region(files, &context, skipped.from, skipped.to, FindingKind::Padding);
        }
        for gap in &scanned.gaps {
            let to = gap.to.or_else(|| known_end(partition, n)).unwrap_or(scanned.end);
            let kind = FindingKind::Frames {
                from_index: gap.from.index,
                to_index: to.index,
                from_offset: gap.from.offset,
                to_offset: to.offset,
                found: gap.found,
                decision: gap.decision,
            };
            let until = gap
                .to
                .map_or(extent.sealed.map_or(1 << extent.log2_bytes, |seal| seal.position), |to| to.position);
            self.region(files, &context, gap.from.position, until, kind);
        }
        self.end(&context, partition, n, &scanned);
        self.write_bound(files, &context, &expectation(&view.map, partition, n), scanned.end.position);
    }

    fn header(&mut self, files: &mut Files<'_>, context: &Context<'_>, store: StoreId) {
        let extent = context.extent;
        let place = Place { slab: SlabId(extent.slab), at: extent.at };
        let incarnation = Incarnation(extent.incarnation);
        let why = match header_at(files, context.file, store, place) {
            None => "not a valid header of this place".to_owned(),
            Some(id) if id.tp != context.tp => format!("it names partition {}", id.tp),
            Some(id) if id.incarnation != incarnation => format!("it names extent {}", id.incarnation),
            Some(id)
                if id.base_index.0 != extent.base_index
                    || id.base_offset.0 != extent.base_offset
                    || id.log2_bytes != extent.log2_bytes =>
            {
                "its size or its beginning differ from the map".to_owned()
            }
            Some(id)
                if id.generation != extent.generation
                    || id.has_gaps != extent.has_gaps
                    || id.generation > 0 && id.end != extent.sealed.map(|seal| end_of(&seal)) =>
            {
                "its generation or its end differ from the map".to_owned()
            }
            Some(_) => return,
        };
        self.region(
            files,
            context,
            0,
            EXTENT_HEADER_BYTES as u32,
            FindingKind::ExtentHeader { incarnation, why },
        );
    }

    /// No frame lies at or after the write bound of an extent whose end is open.
    fn write_bound(
        &mut self,
        files: &mut Files<'_>,
        context: &Context<'_>,
        expect: &Expectation,
        log_end: u32,
    ) {
        let extent = context.extent;
        let bound = expect.write_bound;
        if extent.sealed.is_some() || bound >= expect.extent_bytes {
            return;
        }
        let passes =
            log_end > bound || has_frames_from(expect, &mut files.extent(context.file, extent.at), bound);
        if passes {
            let kind = FindingKind::WriteBound { incarnation: Incarnation(extent.incarnation) };
            self.region(files, context, bound, log_end.max(bound + 1), kind);
        }
    }

    /// A finding about these positions of an extent, with the content of its blocks.
    fn region(
        &mut self,
        files: &mut Files<'_>,
        context: &Context<'_>,
        from: u32,
        to: u32,
        kind: FindingKind,
    ) {
        let extent = context.extent;
        let first = extent.at + u64::from(from) / PAGE_BYTES as u64 * PAGE_BYTES as u64;
        let end = extent.at + u64::from(to);
        let pages = (first..end)
            .step_by(PAGE_BYTES)
            .take(PAGES_TOLD_MAX)
            .map(|at| PageHolds { at, holds: page_holds(files, context.file, at) })
            .collect();
        let bytes = u64::from(to.saturating_sub(from));
        self.add(context.path.clone(), extent.at + u64::from(from), bytes, Some(context.tp), kind, pages);
    }

    /// An extent ends where the map says, or where the next one begins. After the end of the last one, frames that were never acknowledged are
    /// worth a note.
    fn end(&mut self, context: &Context<'_>, partition: &PartitionEntry, n: usize, scanned: &Scanned) {
        let next = partition.extents.get(n + 1).map(|next| (next.base_index, next.base_offset));
        let sealed = context.extent.sealed.as_ref().map(|seal| (seal.index, seal.offset));
        let told = scanned.gaps.iter().any(|gap| gap.to.is_none());
        if let Some((index, offset)) = sealed.or(next).filter(|_| !told) {
            let end = (scanned.end.index.0, scanned.end.offset.0);
            // The last frames of a compacted extent may be missing too.
            let ends_in_gap = context.extent.has_gaps && end.0 <= index && end.1 <= offset;
            if end != (index, offset) && !ends_in_gap {
                let kind = FindingKind::End {
                    found: scanned.end.index,
                    found_offset: scanned.end.offset,
                    expected: LogIndex(index),
                    expected_offset: Offset(offset),
                };
                let at = context.extent.at + u64::from(scanned.end.position);
                self.add(context.path.clone(), at, 0, Some(context.tp), kind, Vec::new());
            }
        } else if matches!(scanned.decision, Decision::Truncate { .. })
            && scanned.found != FrameCondition::Zero
        {
            let text = format!(
                "the bytes after offset {} (index {}) were never acknowledged ({:?})",
                scanned.end.offset, scanned.end.index, scanned.found
            );
            self.notes.push(Note { tp: Some(context.tp), text });
        }
    }
}

fn end_of(seal: &SealEntry) -> ExtentEnd {
    ExtentEnd { position: seal.position, index: LogIndex(seal.index), offset: Offset(seal.offset) }
}

struct Context<'a> {
    path: PathBuf,
    file: highwater_runtime::fs::FileId,
    tp: TopicPartition,
    extent: &'a ExtentEntry,
}

/// The content of a block.
fn page_holds(files: &mut Files<'_>, file: highwater_runtime::fs::FileId, at: u64) -> Holds {
    let mut page = [0; PAGE_BYTES];
    if !matches!(files.read_at(file, at, &mut page), Ok(PAGE_BYTES)) {
        return Holds::Unreadable;
    }
    if page.iter().all(|b| *b == 0) {
        return Holds::Zero;
    }
    if let Ok(id) = ExtentId::from_block(&page) {
        return Holds::ExtentHeader(id);
    }
    let header =
        (0..PAGE_BYTES).step_by(FRAME_ALIGN).find_map(|from| FrameHeader::parse(page.get(from..)?).ok());
    header.map_or(Holds::Data, |(header, _)| Holds::Frame {
        incarnation: Incarnation(header.incarnation.get()),
        tag: header.partition_tag.get(),
        index: LogIndex(header.index.get()),
    })
}
