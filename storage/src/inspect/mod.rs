//! Inspection of the data of a stopped broker: files, content, checksums. Never writes.
//!
//! [`list`] says which extent holds what, [`dump`] gives the frames of a partition, [`verify`] checks every checksum and names each
//! damaged block with its content. Results are data; the command line shows them.

mod dump;
mod files;
mod headers;
mod journal;
mod state;
mod verify;
mod view;

use std::io;
use std::path::PathBuf;

use highwater_protocol::ids::{ClusterId, Incarnation, LogIndex, Offset, StoreId, TopicPartition};
use highwater_runtime::fs::{Fs, RESERVE_NAME};

use crate::layout::{Place, SlabId, parse_store_dir_name};

pub use dump::{Dumped, dump};
pub use state::{Content as StateLogContent, StateLogListing, state_log, state_log_content};
pub use verify::{Finding, FindingKind, Holds, Note, PageHolds, Verification, verify};

use files::Files;
use view::StoreView;

/// Why a data directory cannot be looked into.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// A file or folder cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing in this folder says that it is a broker's.
    #[error("{0} is no broker's data directory: it holds neither an `identity` nor a store")]
    NoStore(PathBuf),
    /// No store holds this partition.
    #[error("no store in {dir} holds partition {tp}")]
    NoPartition {
        /// The data directory.
        dir: PathBuf,
        /// Which.
        tp: TopicPartition,
    },
}

/// Everything in a data directory.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The stores, by number.
    pub stores: Vec<StoreListing>,
    /// State logs beside the stores: metadata, offsets of consumers.
    pub state_logs: Vec<StateLogListing>,
    /// Files that nothing knows.
    pub strangers: Vec<PathBuf>,
}

/// One store.
#[derive(Clone, Debug)]
pub struct StoreListing {
    /// Its number.
    pub store: StoreId,
    /// Its folder.
    pub dir: PathBuf,
    /// The cluster that its files name; `None` if none could be read.
    pub cluster: Option<ClusterId>,
    /// Where this listing comes from.
    pub map: MapSource,
    /// The store was stopped in order.
    pub clean: bool,
    /// Its slabs.
    pub slabs: Vec<SlabListing>,
    /// Its partitions.
    pub partitions: Vec<PartitionListing>,
    /// Its state log, which holds the map.
    pub state: StateLogListing,
    /// Files that nothing knows.
    pub strangers: Vec<PathBuf>,
}

/// How it is known which extent holds what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MapSource {
    /// From the store's map.
    StateLog,
    /// From the headers of the extents, because the map cannot be read: this is why. Space that had been freed may be listed
    /// as in use.
    Headers(String),
}

/// One slab, from its start to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlabListing {
    /// Its number.
    pub slab: SlabId,
    /// Its file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// What it takes on the disk. Less than its size: the file system has got free space back.
    pub allocated_bytes: u64,
    /// Its space, in order, without gaps.
    pub extents: Vec<ExtentListing>,
}

/// A piece of a slab.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExtentListing {
    /// Where it is.
    pub place: Place,
    /// Its size.
    pub bytes: u64,
    /// Its use.
    pub state: ExtentState,
    /// Its content, if it is in use.
    pub holds: Option<ExtentHolds>,
}

/// The use of a piece of a slab.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExtentState {
    /// Complete: no more is appended to it.
    Sealed,
    /// The last one of its partition.
    Active,
    /// Free. It may still hold frames of an earlier incarnation.
    Free,
    /// Known to the map, but outside of the slab's file or overlapping another.
    Unknown,
}

/// The content of an extent in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExtentHolds {
    /// Whose log.
    pub tp: TopicPartition,
    /// This use of the space: its incarnation.
    pub incarnation: Incarnation,
    /// Index of its first frame.
    pub base_index: LogIndex,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Index after its last frame.
    pub end_index: LogIndex,
    /// Offset after its last record.
    pub end_offset: Offset,
    /// Bytes in use, the header block included.
    pub used_bytes: u64,
}

/// One partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionListing {
    /// Which.
    pub tp: TopicPartition,
    /// Its first offset.
    pub log_start: Offset,
    /// The offset after its last record.
    pub end: Offset,
    /// Bytes of its extents in use.
    pub bytes: u64,
    /// Where its extents are, oldest first.
    pub extents: Vec<Place>,
}

/// Which extent holds what. Reads headers, the map, and the ends of the logs.
pub fn list(fs: &mut dyn Fs, data_dir: &std::path::Path) -> Result<Listing, InspectError> {
    let mut files = Files::new(fs);
    let (stores, rest) = store_dirs(&mut files, data_dir)?;
    let mut listing = Listing { stores: Vec::new(), state_logs: Vec::new(), strangers: Vec::new() };
    for (store, dir) in stores {
        let view = StoreView::open(&mut files, store, dir)?;
        listing.stores.push(view.listing(&mut files));
    }
    let (logs, strangers) = state::find(&mut files, rest);
    listing.state_logs = logs;
    listing.strangers = strangers;
    Ok(listing)
}

/// Whether a folder is a broker's data directory: an error if it is not.
pub fn check_is_data_dir(fs: &mut dyn Fs, data_dir: &std::path::Path) -> Result<(), InspectError> {
    store_dirs(&mut Files::new(fs), data_dir).map(|_| ())
}

/// Stores and their folders.
type StoreDirs = Vec<(StoreId, PathBuf)>;

/// The stores' folders, and the names of the other files.
fn store_dirs(
    files: &mut Files<'_>,
    data_dir: &std::path::Path,
) -> Result<(StoreDirs, Vec<PathBuf>), InspectError> {
    let mut stores = Vec::new();
    let mut rest = Vec::new();
    let mut has_identity = false;
    for entry in files.list(data_dir)? {
        let path = data_dir.join(&entry.name);
        match parse_store_dir_name(&entry.name) {
            Some(store) if entry.is_dir => stores.push((store, path)),
            _ if entry.is_dir || matches!(entry.name.as_str(), "LOCK" | RESERVE_NAME) => {}
            _ if entry.name == "identity" => has_identity = true,
            _ => rest.push(path),
        }
    }
    if stores.is_empty() && !has_identity {
        return Err(InspectError::NoStore(data_dir.to_path_buf()));
    }
    Ok((stores, rest))
}
