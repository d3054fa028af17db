//! Opens a store: reads its folder and its map, and finds the end of every log.
//!
//! Nothing is deleted here, and nothing that may have been acknowledged is truncated. Frames that were never acknowledged stay on disk; logs continue
//! after them.

mod commit;
mod journal;
mod read_ahead;
mod rebuild;
mod recover;
mod slabs;
mod unproven;
mod upgrade;
mod walk;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::Path;

use bytes::Bytes;
use highwater_protocol::ids::{Incarnation, LogIndex, Offset, TopicPartition};
use highwater_runtime::fs::{FileId, OpenMode, RESERVE_NAME, is_out_of_space};
use highwater_runtime::plane::Disk;
use highwater_runtime::slab::Slab;

use super::alloc::{Allocator, Backing};
use super::journal::Journal;
use super::known_producers::KnownProducers;
use super::read_queue::Reads;
use super::record::SealScan;
use super::round::Rounds;
use super::slabs::slab_bytes;
use super::space::{SlabFile, Space};
use super::{Phase, Store};
use crate::api::{OpenError, PartitionFinding, PartitionSlot, RecoveryReport, StoreStats};
use crate::config::StoreConfig;
use crate::journal::JOURNAL_NAME;
use crate::layout::{Place, STATE_PURPOSE, STATE_STEM, SlabId, parse_slab_name, slab_name};
use crate::mac::StoreMacs;
use crate::map::{ExtentEntry, MapError, MapRecord, PartitionKey, StoreMap};
use crate::partition::{CacheBudget, TailState};
use crate::position::LogPoint;
use crate::state_log::{Owner, Recovered, StateLog, StateLogError};

use commit::CommitTracker;
use read_ahead::ReadAheads;
use recover::Recovery;
use slabs::SlabFaults;
use unproven::{Rewrites, UnwrittenFrames};

pub(super) use rebuild::Orphans;
pub(super) use recover::orphan_fault;

/// Folder for unknown files, beside the stores.
const QUARANTINE_DIR: &str = "quarantine";

/// The slabs of a store.
type Slabs = BTreeMap<SlabId, SlabFile>;

impl Store {
    /// Opens the store in its folder, creating it if there is none, and recovers every partition found. Blocks.
    pub fn open(config: StoreConfig, disk: &mut dyn Disk) -> Result<(Self, RecoveryReport), OpenError> {
        config.limits.assert_consistent();
        let mut report = RecoveryReport::default();
        let slabs = open_slabs(&config, disk, &mut report)?;
        let (state, known) = open_map(&config, disk, &slabs, &mut report)?;
        let journal = journal::open(&config, disk, &slabs, known.as_ref(), &mut report)?;
        let OpenedMap { map, faults, mut space } = open_space(&config, disk, &slabs, known, &mut report)?;
        space.begin_after(journal.era);
        let orphans = Orphans::new(map.orphans, &mut space.alloc);
        let since = Incarnation(space.next_incarnation);
        let macs = map.macs.unwrap_or(StoreMacs { key: config.new_mac_key, since });
        let (mut partitions, mut by_tp) = (Slab::new(u32::MAX), BTreeMap::new());
        let (mut discarded, mut rewrites) = (Vec::<(PartitionKey, ExtentEntry)>::new(), Rewrites::default());
        let mut entries = ReadAheads::new(map.partitions);
        while let Some((key, entry)) = entries.next(disk, &slabs, &map.write_bounds) {
            let tp = TopicPartition::from(key);
            let slot = PartitionSlot(partitions.next_key());
            let recovery = Recovery {
                config: &config,
                disk: &mut *disk,
                slabs: &slabs,
                faults: &faults,
                report: &mut report,
                tp,
                orphans: &orphans,
                macs: &macs,
                without_epochs: map.without_epochs.contains(&key),
                replica: map.replicas.get(&key).copied(),
                configurations: map.configurations.get(&key),
                is_configured: map.configured.contains(&key),
                commit: CommitTracker::new(LogPoint { index: LogIndex(0), offset: Offset(0) }),
                untimed: &map.untimed,
                write_bounds: &map.write_bounds,
                horizons: &map.horizons,
                journal: &journal.faults,
                read_ahead: &mut entries,
                rewrites: &mut rewrites,
                lost: Vec::new(),
            };
            let found = recovery.run(slot, entry)?;
            discarded.extend(found.discarded.into_iter().map(|extent| (key, extent)));
            partitions.insert(Box::new(found.partition));
            by_tp.insert(tp, slot);
        }
        let unwritten = rewrites.finish(&config, disk)?;
        let mut store = Self {
            config,
            partitions,
            by_tp,
            events: VecDeque::new(),
            stats: StoreStats::default(),
            space,
            rounds: Rounds::default(),
            journal: Journal::new(journal.file),
            reads: Reads::default(),
            budget: CacheBudget::default(),
            known_producers: KnownProducers::default(),
            dirty: VecDeque::new(),
            waiting_for_map: Vec::new(),
            stalled: BTreeSet::new(),
            cuts: VecDeque::new(),
            map_stalled: false,
            touched: VecDeque::new(),
            checkpoints_left: 0,
            bounds_due: VecDeque::new(),
            snapshot: None,
            rewrite: None,
            orphans,
            macs,
            macs_recorded: map.macs.is_some(),
            retention_at: 0,
            unacked_bytes: 0,
            appended_since_checkpoint: 0,
            promises: VecDeque::new(),
            untouched: map.clean.then(|| state.appended()).filter(|_| !report.map_rebuilt),
            state,
            phase: Phase::Open,
        };
        store.begin(disk, unwritten, (journal.held, map.journal.is_some()), &discarded, &mut report);
        Ok((store, report))
    }

    /// Records what recovery found, and prepares for records. `journal`: the era whose entries the next start needs, and whether the map has an era.
    fn begin(
        &mut self,
        disk: &mut dyn Disk,
        unwritten: UnwrittenFrames,
        journal: (Option<Incarnation>, bool),
        discarded: &[(PartitionKey, ExtentEntry)],
        report: &mut RecoveryReport,
    ) {
        self.state.set_file_bytes_min(self.config.limits.state_log_bytes_used);
        report.partitions = self.partitions.len();
        self.hold_back(unwritten, report);
        self.wait_for_recovered_map();
        self.settle_journal(journal.0, journal.1);
        self.record_recovery(disk, discarded, report);
        self.prepare_space(disk, report);
    }

    /// Keeps the contents of the journal for the next start if it may need them; otherwise records that none are needed.
    fn settle_journal(&mut self, held: Option<Incarnation>, is_known: bool) {
        if let Some(era) = held {
            self.journal.hold(era);
        } else if is_known {
            let seq = self.record(&MapRecord::Journal { era: 0 });
            self.journal.set_cleared(seq);
        }
    }

    /// If the disk had no space to make the last record of the map certain, nothing in any extent becomes durable before a new map does.
    fn wait_for_recovered_map(&mut self) {
        let last = self.state.appended();
        if self.state.certain() == last {
            return;
        }
        let slots: Vec<PartitionSlot> = self.by_tp.values().copied().collect();
        for slot in slots {
            let partition = self.partitions.get_mut(slot.0).expect("it was just made");
            for extent in &mut partition.extents {
                extent.map_seq = Some(last);
                extent.write_bound.doubt_until(last);
            }
        }
    }

    /// Reserves space for the state log, and warns if records will find none.
    fn prepare_space(&mut self, disk: &mut dyn Disk, report: &mut RecoveryReport) {
        let path = self.config.dir.join(RESERVE_NAME);
        let made = disk.create_file(&path, self.config.limits.state_log_bytes_used);
        self.on_reserve_created(disk, made);
        let limits = &self.config.limits;
        let free = disk.free_bytes(&self.config.dir).unwrap_or(u64::MAX);
        let newest = self.space.alloc.newest_slab_bytes();
        let next = slab_bytes(&self.config, newest, free, None, Some(limits.extent_bytes_min));
        if next.is_none() && !self.space.alloc.has(limits.extent_bytes_min.ilog2() as u8) {
            report.warnings.push(format!(
                "{}: {} MiB are free on the disk, and no slab fits: records are refused until space is freed",
                self.config.dir.display(),
                free >> 20
            ));
        }
    }

    /// Records the findings of recovery in the map.
    fn record_recovery(
        &mut self,
        disk: &mut dyn Disk,
        discarded: &[(PartitionKey, ExtentEntry)],
        report: &RecoveryReport,
    ) {
        tracing::debug!(store = self.config.store.0, scanned = report.bytes_scanned, "logs recovered");
        self.count_all_producers();
        if report.map_rebuilt {
            // Nothing is recorded before this is durable: a map with only later records would hand out the space of everything else.
            self.state.hold_records();
            self.snapshot_at_once(disk);
        }
        for (tp, finding) in &report.findings {
            if let PartitionFinding::Truncated { .. } = finding {
                // The new epoch comes first: once the map has the truncation, the next start will not notice again that an epoch has to begin.
                self.record_seals_before_checkpoint(self.by_tp[tp], SealScan::All);
                let taken = self.take_checkpoint(self.by_tp[tp], false);
                debug_assert!(taken || report.without_space.contains(tp), "everything found is durable");
            }
        }
        for (key, extent) in discarded {
            let log_start = self.by_tp.get(&(*key).into()).map_or(0, |slot| self.bounds(*slot).log_start.0);
            let record = MapRecord::Freed { key: *key, incarnations: vec![extent.incarnation], log_start };
            let seq = self.record(&record);
            self.free_when_durable(
                seq,
                Place { slab: SlabId(extent.slab), at: extent.at },
                extent.log2_bytes,
            );
        }
        for at in 0..self.partitions.entry_count() {
            let slot = PartitionSlot(self.partitions.key_at(at).expect("none was deleted yet"));
            self.record_all_seals(slot);
            // A log that had to be searched gets a checkpoint, in the next round or when the store is idle, so that the next start need not search
            // it.
            let partition = self.partitions.get_mut(slot.0).expect("it was just made");
            partition.flags.touched = !partition.faulty && partition.tail_state == TailState::Active;
            if partition.flags.touched {
                self.touched.push_back(slot);
            }
        }
    }
}

/// Opens every slab and quarantines unknown files. Creates the folder of the store if there is none.
fn open_slabs(
    config: &StoreConfig,
    disk: &mut dyn Disk,
    report: &mut RecoveryReport,
) -> Result<Slabs, OpenError> {
    disk.create_dir_all(&config.dir).map_err(io_error(&config.dir))?;
    let mut opened = Vec::new();
    for entry in disk.list(&config.dir).map_err(io_error(&config.dir))? {
        let path = config.dir.join(&entry.name);
        let Some(id) = parse_slab_name(&entry.name).filter(|_| !entry.is_dir) else {
            if is_unfinished(&entry.name) {
                // It would use its space for nothing, and this may be a start on a full disk.
                disk.remove_file(&path).map_err(io_error(&path))?;
            } else if !is_of_state_log(&entry.name) && ![RESERVE_NAME, JOURNAL_NAME].contains(&&*entry.name) {
                quarantine(config, disk, &entry.name, report)?;
            }
            continue;
        };
        let file = disk.open(&path, OpenMode::ReadWrite).map_err(io_error(&path))?;
        opened.push((id, path, file));
    }
    // Bytes that are only in the page cache since a crash of the process must not count as durable. Without space for that, frames that nothing else
    // proves to be durable are written again.
    let files: Vec<FileId> = opened.iter().map(|(_, _, file)| *file).collect();
    match disk.sync_many(&files) {
        Err((n, e)) if !is_out_of_space(&e) => return Err(io_error(&opened[n].1)(e)),
        Err(_) | Ok(()) => {}
    }
    let mut slabs = Slabs::new();
    for (id, path, file) in opened {
        let bytes = disk.file_bytes(file).map_err(io_error(&path))?;
        let is_whole = disk.allocated_bytes(file).map_err(io_error(&path))? >= bytes;
        let backing = if is_whole { Backing::Whole } else { Backing::Partial };
        slabs.insert(id, SlabFile { file, bytes, backing });
    }
    tracing::debug!(store = config.store.0, slabs = slabs.len(), "slabs opened");
    Ok(slabs)
}

/// Returns whether this is an unfinished file of a store that was being created when the process ended.
fn is_unfinished(name: &str) -> bool {
    name.strip_suffix(".tmp").is_some_and(|name| {
        parse_slab_name(name).is_some()
            || is_of_state_log(name)
            || [RESERVE_NAME, JOURNAL_NAME].contains(&name)
    })
}

fn is_of_state_log(name: &str) -> bool {
    let Some(copy) = name.strip_prefix(STATE_STEM) else { return false };
    copy == ".mark"
        || ["a", "b"].iter().any(|c| {
            copy.strip_prefix('.')
                .and_then(|copy| copy.strip_prefix(c))
                .is_some_and(|rest| rest.is_empty() || rest == ".damaged")
        })
}

fn quarantine(
    config: &StoreConfig,
    disk: &mut dyn Disk,
    name: &str,
    report: &mut RecoveryReport,
) -> Result<(), OpenError> {
    let from = config.dir.join(name);
    let dir = config.dir.parent().unwrap_or(&config.dir).join(QUARANTINE_DIR);
    disk.create_dir_all(&dir).map_err(io_error(&dir))?;
    let taken = disk.list(&dir).map_err(io_error(&dir))?;
    let stem = format!("{}.{name}", crate::layout::store_dir_name(config.store));
    let free = (0..).map(|n| if n == 0 { stem.clone() } else { format!("{stem}.{n}") });
    let name = free.into_iter().find(|name| taken.iter().all(|entry| entry.name != *name));
    let to = dir.join(name.expect("there are more numbers than files"));
    disk.rename(&from, &to).map_err(io_error(&from))?;
    tracing::warn!(from = %from.display(), to = %to.display(), "a file that nothing knows was moved out of the store");
    report.quarantined.push((from, to));
    Ok(())
}

/// Returns the map in the state log; `None` if it has to be rebuilt.
fn open_map(
    config: &StoreConfig,
    disk: &mut dyn Disk,
    slabs: &Slabs,
    report: &mut RecoveryReport,
) -> Result<(StateLog, Option<StoreMap>), OpenError> {
    let stem = config.dir.join(STATE_STEM);
    let owner = Owner { purpose: STATE_PURPOSE, cluster: config.cluster, number: config.store.0 };
    let opened = StateLog::open_sized(disk, &stem, owner, config.token_space, config.limits.state_log_bytes);
    match opened {
        Ok((state, recovered)) => {
            let Recovered { snapshot, records, damage, notes } = recovered;
            report.warnings.extend(damage.into_iter().chain(notes));
            if snapshot.is_empty() && records.is_empty() && !slabs.is_empty() {
                report
                    .warnings
                    .push(format!("{}: no map of the store; rebuilding it from its extents", stem.display()));
                report.map_rebuilt = true;
                return Ok((state, None));
            }
            let (pieces, payloads) = (snapshot.iter().map(Bytes::as_ref), records.iter().map(Bytes::as_ref));
            match StoreMap::from_recovered(pieces, payloads) {
                Ok(map) => return Ok((state, Some(map))),
                Err(e @ MapError::Newer(_)) => {
                    return Err(OpenError::Newer { path: stem, what: e.to_string() });
                }
                Err(e) => {
                    report.warnings.push(format!("{}: {e}; rebuilding it from its extents", stem.display()));
                }
            }
            state.close(disk);
        }
        Err(e @ (StateLogError::Damaged { .. } | StateLogError::Older { .. })) if slabs.is_empty() => {
            // If it were taken for a new store, its partitions' offsets would be given to other records.
            let what = format!("{e}, and there are no slabs to rebuild it from");
            return Err(OpenError::Lost { path: config.dir.clone(), what });
        }
        Err(e @ (StateLogError::Damaged { .. } | StateLogError::Older { .. })) => {
            report.warnings.push(format!("{e}; rebuilding the map of the store from its extents"));
        }
        Err(StateLogError::Io { path, error }) => return Err(OpenError::Io { path, source: error }),
        Err(e @ StateLogError::Newer { .. }) => {
            return Err(OpenError::Newer { path: stem, what: e.to_string() });
        }
        Err(e) => return Err(OpenError::Foreign { path: stem, what: e.to_string() }),
    }
    let state = StateLog::recreate(disk, &stem, owner, config.token_space)
        .map_err(|e| OpenError::Io { path: stem, source: io::Error::other(e.to_string()) })?;
    report.map_rebuilt = true;
    Ok((state, None))
}

/// The map, with the resulting state of the slabs.
struct OpenedMap {
    map: StoreMap,
    faults: SlabFaults,
    space: Space,
}

/// Checks the slabs against the map, and rebuilds a map that is missing or old.
fn open_space(
    config: &StoreConfig,
    disk: &mut dyn Disk,
    slabs: &Slabs,
    known: Option<StoreMap>,
    report: &mut RecoveryReport,
) -> Result<OpenedMap, OpenError> {
    tracing::debug!(store = config.store.0, pieces = report.journal_pieces, "journal applied");
    if let Some(map) = known {
        let faults = slabs::examine(config, disk, slabs, &map, report);
        let space = space_of(config, slabs, &map, &faults, report);
        if !map.clean || !slabs::holds_later_life(config, disk, &space, map.next_incarnation) {
            return Ok(OpenedMap { map, faults, space });
        }
        let what = "is older than what rests in the slabs; rebuilding it from their extents";
        report.warnings.push(format!("{}: the map of the store {what}", config.dir.display()));
        report.map_rebuilt = true;
    }
    let map = rebuild::rebuild(config, disk, slabs, report)?;
    let faults = slabs::examine(config, disk, slabs, &map, report);
    let space = space_of(config, slabs, &map, &faults, report);
    Ok(OpenedMap { map, faults, space })
}

/// Returns the space of the store without everything that the map knows.
fn space_of(
    config: &StoreConfig,
    slabs: &Slabs,
    map: &StoreMap,
    faults: &SlabFaults,
    report: &mut RecoveryReport,
) -> Space {
    let log2_min = config.limits.extent_bytes_min.ilog2() as u8;
    let mut space = Space::new(Allocator::new(log2_min), map.next_incarnation);
    let extents = || map.partitions.values().flat_map(|p| &p.extents);
    let named = extents().map(|extent| SlabId(extent.slab));
    let last = slabs.keys().copied().chain(named).max();
    space.next_slab = last.map_or(SlabId(0), |last| SlabId(last.0.saturating_add(1)));
    for (id, slab) in slabs.iter().filter(|(id, _)| faults.is_sound(**id)) {
        space.alloc.add_slab(*id, slab.bytes, slab.backing);
    }
    space.slabs.clone_from(slabs);
    for extent in extents() {
        let place = Place { slab: SlabId(extent.slab), at: extent.at };
        if faults.is_sound(place.slab) && space.alloc.take(place, extent.log2_bytes).is_err() {
            // The map was checked for this.
            report.warnings.push(format!("{} at {} is in use twice", slab_name(place.slab), place.at));
        }
    }
    space
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> OpenError + use<'_> {
    move |source| OpenError::Io { path: path.to_path_buf(), source }
}
