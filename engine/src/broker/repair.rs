//! Repairs the data of a stopped broker.
//!
//! A start repairs by itself what it can without losing a record: a copy of a state log, the map of a store, headers of extents, torn ends of logs. A
//! repair opens the stores as a start does, so it does the same. Beyond that it accepts what is lost: partitions that a start takes out of service
//! are put back into service without the lost records ([`Store::accept_loss`]).
//!
//! A plan does everything that a repair does, on an [`Overlay`]: so it says what the repair will do, and changes nothing.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use highwater_protocol::ids::{ClusterId, NodeId, Offset, StoreId, TopicPartition};
use highwater_protocol::limits::BATCH_BYTES_MAX;
use highwater_replication::join::DiskId;
use highwater_runtime::buf::{AlignedBuf, PAGE_BYTES};
use highwater_runtime::fs::{Fs, OpenMode};
use highwater_runtime::offline::{OfflineDisk, Overlay};
use highwater_runtime::plane::WRITE_BYTES_MAX;
use highwater_storage::inspect::{self, InspectError};
use highwater_storage::state_log::StateLog;
use highwater_storage::{
    AppendError, DurableForm, GivenUp, MacKey, OpenError, PartitionConfig, PartitionFinding, PartitionSlot,
    RecoveryReport, Store, StoreConfig, StoreEvent,
};

use crate::data_dir::{self, Identity, META, OFFSETS, OFFSETS_FILES, QUARANTINE, store_dir};
use crate::limits::ShardLimits;
use crate::meta::Metadata;
use crate::setup::lost_log;
use crate::start_error::StartError;

/// The memory whose limits the stores are opened with. Nothing is appended to them.
const MEMORY_BYTES: u64 = 256 << 20;
/// Marks the disk operations of the store that is open.
const TOKEN_SPACE: u8 = 1;

/// What is wrong with a data directory, and what a repair does about it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Repair {
    /// Partitions that a start takes out of service.
    pub partitions: Vec<PartitionRepair>,
    /// Why the broker cannot start, and what to do. A repair does not change it.
    pub refused: Vec<String>,
    /// What a start repairs by itself, or only reports.
    pub notes: Vec<String>,
    /// The folder with the files as they were before the repair.
    pub kept: Option<PathBuf>,
}

/// A partition that a start takes out of service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionRepair {
    /// The partition.
    pub tp: TopicPartition,
    /// Its store.
    pub store: StoreId,
    /// The first offset at which something is missing.
    pub at: Offset,
    /// The damage.
    pub why: String,
    /// The offsets of the records that are lost, as far as they are known.
    pub lost: Vec<Range<Offset>>,
    /// The first offset after the repair.
    pub log_start: Offset,
    /// The offset of the first new record after the repair.
    pub end: Offset,
    /// What becomes of it.
    pub outcome: Outcome,
}

/// What a repair does with a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is in service again, without the lost records.
    InService,
    /// It stays out of service, because it is not among those to repair.
    NotSelected,
    /// It stays out of service for this reason.
    Impossible(String),
}

/// Why a repair failed. Data is as it was before, or as after a start that was interrupted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// The directory cannot be read.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// A file cannot be written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The disk reported an error.
    #[error("{0}")]
    Disk(String),
}

/// Finds out what [`apply`] would do with the partitions for which `selected` returns `true`. Changes nothing.
pub fn plan(
    fs: &mut dyn Fs,
    data_dir: &Path,
    selected: &dyn Fn(TopicPartition) -> bool,
) -> Result<Repair, RepairError> {
    run_planned(fs, data_dir, selected).map(|ran| ran.repair)
}

/// Repairs the partitions for which `selected` returns `true`. The caller holds the directory's lock.
pub fn apply(
    fs: &mut dyn Fs,
    data_dir: &Path,
    selected: &dyn Fn(TopicPartition) -> bool,
) -> Result<Repair, RepairError> {
    let planned = run_planned(fs, data_dir, selected)?;
    let kept = keep_files(fs, data_dir, &planned)?;
    let mut ran = run(fs, data_dir, selected)?;
    ran.repair.kept = kept;
    // The next start has to find it so.
    let next = run_planned(fs, data_dir, &|_| false)?;
    for partition in ran.repair.partitions.iter_mut().filter(|p| p.outcome == Outcome::InService) {
        if let Some(found) = next.repair.partitions.iter().find(|next| next.tp == partition.tp) {
            partition.outcome = Outcome::Impossible(found.why.clone());
        }
    }
    Ok(ran.repair)
}

fn run_planned(
    fs: &mut dyn Fs,
    data_dir: &Path,
    selected: &dyn Fn(TopicPartition) -> bool,
) -> Result<Run, RepairError> {
    run(&mut Overlay::new(fs), data_dir, selected)
}

/// A repair that was carried out, maybe on an overlay.
#[derive(Default)]
struct Run {
    repair: Repair,
    /// The space that it gives up, by store.
    given_up: Vec<(StoreId, Vec<GivenUp>)>,
}

fn run(
    fs: &mut dyn Fs,
    data_dir: &Path,
    selected: &dyn Fn(TopicPartition) -> bool,
) -> Result<Run, RepairError> {
    inspect::check_is_data_dir(fs, data_dir)?;
    let mut run = Run::default();
    // Never used: the directory has an owner, or is refused.
    let new = Identity::founder(ClusterId([0; 16]), NodeId(0), DiskId::default());
    let data = match data_dir::open(fs, data_dir, new) {
        Ok(data) => data,
        Err(StartError::Disk(why)) => return Err(RepairError::Disk(why)),
        Err(refused) => {
            run.repair.refused.push(refused.to_string());
            return Ok(run);
        }
    };
    run.repair.notes.extend(data.warnings);
    run.state_log(fs, data_dir, META, *b"META", data.identity);
    // The groups of an earlier build that no start has carried over yet.
    let entries = fs.list(data_dir).unwrap_or_default();
    if entries.iter().any(|entry| OFFSETS_FILES.contains(&entry.name.as_str())) {
        run.state_log(fs, data_dir, OFFSETS, *b"OFFS", data.identity);
    }
    for store in 0..data.stores {
        run.store(fs, data_dir, data.identity.cluster, StoreId(store), selected)?;
    }
    Ok(run)
}

impl Run {
    /// Opens a state log as a start does, which makes both copies equal.
    fn state_log(
        &mut self,
        fs: &mut dyn Fs,
        data_dir: &Path,
        name: &str,
        purpose: [u8; 4],
        Identity { cluster, node, .. }: Identity,
    ) {
        let mut disk = OfflineDisk::new(fs);
        let recovered = match StateLog::open(&mut disk, &data_dir.join(name), purpose, cluster, TOKEN_SPACE) {
            Ok((_, recovered)) => recovered,
            Err(e) => return self.repair.refused.push(lost_log(name, e).to_string()),
        };
        self.repair.notes.extend(recovered.damage);
        if name == META {
            let snapshot = recovered.snapshot.iter().map(|piece| &piece[..]);
            let metadata =
                Metadata::recover(node, snapshot, recovered.records.iter().map(|record| &record[..]));
            self.repair.refused.extend(metadata.err().map(|e| format!("{META}: {e}")));
        }
    }

    fn store(
        &mut self,
        fs: &mut dyn Fs,
        data_dir: &Path,
        cluster: ClusterId,
        id: StoreId,
        selected: &dyn Fn(TopicPartition) -> bool,
    ) -> Result<(), RepairError> {
        let mut disk = OfflineDisk::new(fs);
        let config = StoreConfig {
            dir: store_dir(data_dir, id.get()),
            cluster,
            store: id,
            token_space: TOKEN_SPACE,
            new_mac_key: MacKey(*uuid::Uuid::new_v4().as_bytes()),
            limits: ShardLimits::production(MEMORY_BYTES, 1, 1, BATCH_BYTES_MAX).store,
            durable_form: DurableForm::Dsync,
        };
        let (mut store, report) = match Store::open(config, &mut disk) {
            Ok(opened) => opened,
            Err(OpenError::Io { path, source }) => return Err(RepairError::Io { path, source }),
            Err(refused) => {
                self.repair.refused.push(refused.to_string());
                return Ok(());
            }
        };
        let name = format!("store-{:03}", id.get());
        self.repair.notes.extend(report.warnings.iter().map(|what| format!("{name}: {what}")));
        if report.map_rebuilt {
            self.repair.notes.push(format!("{name}: its map was lost and rebuilt from the extents"));
        }
        let mut given_up = Vec::new();
        for (tp, finding) in &report.findings {
            if let PartitionFinding::Faulty { at, why } = finding {
                let damage = (*at, why.clone());
                let mut open = (&mut store, &mut disk);
                let partition =
                    repair_partition(&mut open, &report, *tp, damage, selected(*tp), &mut given_up)?;
                self.repair.partitions.push(partition);
            }
        }
        if self.repair.partitions.iter().any(|p| p.store == id && p.outcome == Outcome::InService) {
            self.given_up.push((id, given_up));
        }
        close(&mut store, &mut disk)
    }
}

fn repair_partition(
    (store, disk): &mut (&mut Store, &mut OfflineDisk<'_>),
    report: &RecoveryReport,
    tp: TopicPartition,
    (at, why): (Offset, String),
    is_selected: bool,
    given_up: &mut Vec<GivenUp>,
) -> Result<PartitionRepair, RepairError> {
    let slot = store.ensure_partition(tp, PartitionConfig::KEEP_ALL);
    let outcome = if is_selected {
        match store.accept_loss(slot, report) {
            Ok(space) => {
                given_up.extend(space);
                begin_epoch(store, disk, slot)?;
                Outcome::InService
            }
            Err(e) => Outcome::Impossible(e.to_string()),
        }
    } else {
        Outcome::NotSelected
    };
    let bounds = store.bounds(slot);
    Ok(PartitionRepair {
        tp,
        store: store.config().store,
        at,
        why,
        lost: report.lost.iter().find(|(of, _)| *of == tp).map_or(Vec::new(), |(_, lost)| lost.clone()),
        log_start: bounds.log_start,
        end: bounds.durable_end,
        outcome,
    })
}

/// Begins the epoch after a loss in the log of a partition. Without space for that, only the map has it.
fn begin_epoch(
    store: &mut Store,
    disk: &mut OfflineDisk<'_>,
    slot: PartitionSlot,
) -> Result<(), RepairError> {
    while store.begin_epoch_after_loss(disk, slot) == Err(AppendError::Busy) {
        if take_step(store, disk)? == Step::Idle {
            break;
        }
    }
    Ok(())
}

/// Closes a store in order: the map has everything.
fn close(store: &mut Store, disk: &mut OfflineDisk<'_>) -> Result<(), RepairError> {
    store.shutdown(disk);
    loop {
        match take_step(store, disk)? {
            Step::Taken => {}
            Step::Closed => return Ok(()),
            Step::Idle => {
                let dir = store.config().dir.display();
                return Err(RepairError::Disk(format!("{dir}: no space for a new map of the store")));
            }
        }
    }
}

/// The outcome of a step of a store.
#[derive(PartialEq, Eq)]
enum Step {
    Taken,
    /// There is nothing to do.
    Idle,
    Closed,
}

fn take_step(store: &mut Store, disk: &mut OfflineDisk<'_>) -> Result<Step, RepairError> {
    let more = store.flush(disk);
    while let Some(event) = store.poll_event() {
        match event {
            StoreEvent::Closed => return Ok(Step::Closed),
            StoreEvent::Fatal(why) => return Err(RepairError::Disk(why)),
            _ => {}
        }
    }
    match disk.poll() {
        Some((token, completion)) => store.on_disk(disk, token, completion),
        None if more => {}
        None => return Ok(Step::Idle),
    }
    Ok(Step::Taken)
}

/// Copies what a repair changes or gives up. Returns the folder; `None` if it changes nothing.
fn keep_files(fs: &mut dyn Fs, data_dir: &Path, planned: &Run) -> Result<Option<PathBuf>, RepairError> {
    if planned.given_up.is_empty() {
        return Ok(None);
    }
    let quarantine = data_dir.join(QUARANTINE);
    let io = |path: &Path, source| RepairError::Io { path: path.to_path_buf(), source };
    fs.create_dir_all(&quarantine).map_err(|e| io(&quarantine, e))?;
    let taken = fs.list(&quarantine).map_err(|e| io(&quarantine, e))?;
    let names = (1..).map(|n| format!("repair-{n}"));
    let free = names.into_iter().find(|name| taken.iter().all(|entry| entry.name != *name));
    let kept = quarantine.join(free.expect("there are more numbers than files"));
    for (store, given_up) in &planned.given_up {
        let from = store_dir(data_dir, store.get());
        let to = store_dir(&kept, store.get());
        fs.create_dir_all(&to).map_err(|e| io(&to, e))?;
        for name in ["state.a", "state.b", "state.mark", "journal"] {
            let path = from.join(name);
            match copy(fs, &path, 0..u64::MAX, &to.join(name)) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(|e| io(&path, e))?,
            }
        }
        for space in given_up {
            let slab = space.path.file_name().unwrap_or_default().to_string_lossy();
            let name = format!("{slab}-at-{}", space.at);
            match copy(fs, &space.path, space.at..space.at + space.bytes, &to.join(name)) {
                // The slab is missing.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(|e| io(&space.path, e))?,
            }
        }
    }
    Ok(Some(kept))
}

/// Copies a part of a file, as far as the file goes. Pages that cannot be read are zero in the copy.
fn copy(fs: &mut dyn Fs, from: &Path, part: Range<u64>, to: &Path) -> io::Result<()> {
    let source = fs.open(from, OpenMode::Read)?;
    let end = fs.file_bytes(source)?.min(part.end);
    let bytes = end.saturating_sub(part.start).next_multiple_of(PAGE_BYTES as u64);
    let target = fs.create_file(to, bytes)?;
    let mut outcome = Ok(());
    for at in (0..bytes).step_by(WRITE_BYTES_MAX) {
        let mut buf = AlignedBuf::new((bytes - at).min(WRITE_BYTES_MAX as u64) as usize);
        if fs.read_at(source, part.start + at, &mut buf).is_err() {
            for (n, page) in buf.chunks_mut(PAGE_BYTES).enumerate() {
                if fs.read_at(source, part.start + at + (n * PAGE_BYTES) as u64, page).is_err() {
                    page.fill(0);
                }
            }
        }
        outcome = outcome.and_then(|()| fs.write_at(target, at, &buf));
    }
    let outcome = outcome.and_then(|()| fs.sync_file(target));
    fs.close_file(source);
    fs.close_file(target);
    outcome
}
