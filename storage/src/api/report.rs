//! The findings of opening a store, for people and for the engine.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;

use highwater_protocol::ids::{Incarnation, Offset, TopicPartition};

/// A finding about a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PartitionFinding {
    /// Frames at the end that had never been acknowledged are gone.
    Truncated {
        /// Where the log ends now.
        end: Offset,
    },
    /// Part of the log is damaged: it serves the readable part and refuses appends.
    Faulty {
        /// Offset of the first record that is missing.
        at: Offset,
        /// The damage found there.
        why: String,
    },
}

/// The findings of opening a store.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RecoveryReport {
    /// Partitions found on disk.
    pub partitions: usize,
    /// Extents in use.
    pub extents: usize,
    /// Bytes of log read to find the ends.
    pub bytes_scanned: u64,
    /// Partitions that are not as they were left.
    pub findings: Vec<(TopicPartition, PartitionFinding)>,
    /// The lost records of faulty partitions, as far as their offsets are known: in order, without overlaps.
    pub lost: Vec<(TopicPartition, Vec<Range<Offset>>)>,
    /// The journal has records for which there is no space in the extents. It is kept for the next start.
    pub journal_without_space: bool,
    /// Partitions whose last frames had to be written again and had no space.
    pub without_space: BTreeSet<TopicPartition>,
    /// Extents that cannot be used: their slab is missing, was cut, or is another file.
    pub unusable: BTreeSet<Incarnation>,
    /// Pieces of the journal that were applied to extents.
    pub journal_pieces: u64,
    /// Damage of the state log that was survived, and other things worth a warning.
    pub warnings: Vec<String>,
    /// The map of the store was lost and rebuilt from the headers of its extents.
    pub map_rebuilt: bool,
    /// Files that nothing knows, with where they were moved.
    pub quarantined: Vec<(PathBuf, PathBuf)>,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A file or folder cannot be read or made.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The data belongs to another cluster or store.
    #[error("{path}: {what}")]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// What it says.
        what: String,
    },
    /// The store was in use before, and too few of its files are left to know its content.
    #[error(
        "{path}: {what}; restore it from a backup of the data directory, or move it away to go on without what it held"
    )]
    Lost {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The data was written by a newer version of Highwater.
    #[error("{path}: {what}; run the version of Highwater that wrote it, or a newer one")]
    Newer {
        /// Which file.
        path: PathBuf,
        /// What it says.
        what: String,
    },
}
