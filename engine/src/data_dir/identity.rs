//! The identity file: the owner of a data directory, and the parts that it must have.

use std::io;
use std::path::Path;

use highwater_protocol::ids::{ClusterId, NodeId};
use highwater_replication::join::DiskId;
use highwater_runtime::fs::{DirEntry, Fs, OpenMode};
use highwater_storage::state_log::format::{BLOCK_BYTES, peek_owner};

use super::{IDENTITY, META, OFFSETS, store_number};
use crate::start_error::StartError;

pub(super) const IDENTITY_BYTES: usize = 4096;
const IDENTITY_MAGIC: [u8; 8] = *b"HWIDENTY";
/// Version of everything in the directory.
const FORMAT_VERSION: u32 = 1;

/// The owner of a data directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The cluster. Zeros: the node has not joined one yet, and only the id of its disk is known.
    pub cluster: ClusterId,
    /// The node in it.
    pub node: NodeId,
    /// Which disk of the node it is: 0 for the first, higher for one that has replaced another.
    pub incarnation: u32,
    /// The node that founded the cluster.
    pub founder: NodeId,
    /// The directory itself.
    pub disk: DiskId,
}

impl Identity {
    /// Returns the identity of the node that founds a cluster.
    pub const fn founder(cluster: ClusterId, node: NodeId, disk: DiskId) -> Self {
        Self { cluster, node, incarnation: 0, founder: node, disk }
    }

    /// Returns the identity of a node that has not joined a cluster yet.
    pub(super) const fn without_cluster(disk: DiskId) -> Self {
        Self::founder(NO_CLUSTER, NodeId(0), disk)
    }

    /// Returns whether the node is a member of a cluster.
    pub fn is_member(&self) -> bool {
        self.cluster != NO_CLUSTER
    }

    /// Returns whether the cluster was founded here: on this disk of this node.
    pub fn is_founder(&self) -> bool {
        self.founder == self.node && self.incarnation == 0
    }
}

/// Cluster of a node that has not joined one.
const NO_CLUSTER: ClusterId = ClusterId([0; 16]);

/// The parts of the directory after the last complete start. A part that is missing since then was lost, and is not treated as new.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Inventory {
    /// Number of stores.
    pub stores: u16,
    /// Whether a start was ever complete. If so, the log of the metadata exists, and one of the groups unless a topic keeps them.
    pub complete: bool,
    /// Whether a topic keeps the groups. Earlier builds had a log for them.
    pub groups_in_topic: bool,
}

/// Why an identity cannot be read from its file.
pub(super) enum ReadError {
    /// The file is damaged; the identity may be found elsewhere.
    Damaged(String),
    /// The directory cannot be used.
    Unusable(StartError),
}

pub(super) fn encode(identity: Identity, inventory: Inventory) -> Vec<u8> {
    let mut block = vec![0; IDENTITY_BYTES];
    block[4..12].copy_from_slice(&IDENTITY_MAGIC);
    block[12..16].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    block[16..32].copy_from_slice(&identity.cluster.0);
    block[32..36].copy_from_slice(&identity.node.0.to_le_bytes());
    block[36..38].copy_from_slice(&inventory.stores.to_le_bytes());
    block[38] = u8::from(inventory.complete);
    block[39] = u8::from(inventory.groups_in_topic);
    block[40..56].copy_from_slice(&identity.disk.0);
    block[56..60].copy_from_slice(&identity.incarnation.to_le_bytes());
    block[60..64].copy_from_slice(&identity.founder.0.to_le_bytes());
    let crc = crc32c::crc32c(&block[4..]);
    block[..4].copy_from_slice(&crc.to_le_bytes());
    block
}

pub(super) fn read(fs: &mut dyn Fs, path: &Path) -> Result<(Identity, Inventory), ReadError> {
    let failed = |e: io::Error| ReadError::Unusable(super::failed("cannot read", path, &e));
    let file = fs.open(path, OpenMode::Read).map_err(failed)?;
    let mut block = vec![0; IDENTITY_BYTES];
    let read = fs.read_at(file, 0, &mut block);
    fs.close_file(file);
    match read {
        Ok(read) => decode(block.get(..read).unwrap_or_default()).map_err(|error| match error {
            ReadError::Unusable(StartError::Storage(what)) => {
                ReadError::Unusable(StartError::Storage(format!("{}: {what}", path.display())))
            }
            other => other,
        }),
        Err(e) => Err(ReadError::Damaged(format!("it cannot be read: {e}"))),
    }
}

fn decode(block: &[u8]) -> Result<(Identity, Inventory), ReadError> {
    let block: &[u8; IDENTITY_BYTES] = block.try_into().map_err(|_| {
        ReadError::Damaged(format!("it has {} bytes instead of {IDENTITY_BYTES}", block.len()))
    })?;
    let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    if block[4..12] != IDENTITY_MAGIC {
        return Err(ReadError::Damaged("it is not an identity file".into()));
    }
    // The version comes first: another version may compute the checksum differently.
    let version = word(12);
    if version > FORMAT_VERSION {
        return Err(ReadError::Unusable(StartError::Storage(format!(
            "the data has format version {version}, and this build supports {FORMAT_VERSION}: use a newer build"
        ))));
    }
    if word(0) != crc32c::crc32c(&block[4..]) {
        return Err(ReadError::Damaged("its checksum does not match".into()));
    }
    let id = |at: usize| {
        let mut id = [0; 16];
        id.copy_from_slice(&block[at..at + 16]);
        id
    };
    let inventory = Inventory {
        stores: u16::from_le_bytes([block[36], block[37]]),
        complete: block[38] != 0,
        groups_in_topic: block[39] != 0,
    };
    // Earlier builds left the disk, the incarnation and the founder 0.
    let identity = Identity {
        cluster: ClusterId(id(16)),
        node: NodeId(word(32)),
        incarnation: word(56),
        founder: NodeId(word(60)),
        disk: DiskId(id(40)),
    };
    Ok((identity, inventory))
}

/// Returns the cluster from the headers of the state logs in a directory, if there are any, for a directory that has lost its identity.
pub(super) fn cluster_of_logs(
    fs: &mut dyn Fs,
    path: &Path,
    entries: &[DirEntry],
) -> Result<Option<ClusterId>, StartError> {
    let stores = entries.iter().filter(|e| e.is_dir && store_number(&e.name).is_some());
    let stems = stores.map(|e| format!("{}/state", e.name)).chain([META.to_owned(), OFFSETS.to_owned()]);
    let mut found: Option<(ClusterId, String)> = None;
    for name in stems.flat_map(|stem| [format!("{stem}.a"), format!("{stem}.b")]) {
        let Some(cluster) = cluster_of(fs, &path.join(&name)) else { continue };
        match &found {
            Some((other, named)) if *other != cluster => {
                return Err(StartError::Storage(format!(
                    "{}: no readable file `{IDENTITY}`, and the owner of the directory is ambiguous: {named} belongs to \
                     cluster {other} and {name} to cluster {cluster}; move the files back to their own directories",
                    path.display()
                )));
            }
            Some(_) => {}
            None => found = Some((cluster, name)),
        }
    }
    Ok(found.map(|(cluster, _)| cluster))
}

fn cluster_of(fs: &mut dyn Fs, path: &Path) -> Option<ClusterId> {
    let file = fs.open(path, OpenMode::Read).ok()?;
    let mut block = vec![0; BLOCK_BYTES];
    let read = fs.read_at(file, 0, &mut block);
    fs.close_file(file);
    read.ok().filter(|read| *read == BLOCK_BYTES)?;
    Some(peek_owner(&block)?.cluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_damaged_and_foreign_identities_are_distinguished() {
        let identity = Identity {
            cluster: ClusterId([1; 16]),
            node: NodeId(3),
            incarnation: 2,
            founder: NodeId(5),
            disk: DiskId([9; 16]),
        };
        let inventory = Inventory { stores: 300, complete: true, groups_in_topic: true };
        let good = encode(identity, inventory);
        assert!(decode(&good).is_ok_and(|read| read == (identity, inventory)));
        let says = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut block = good.clone();
            change(&mut block);
            match decode(&block) {
                Ok(_) => panic!("refused"),
                Err(ReadError::Unusable(error)) => error.to_string(),
                Err(ReadError::Damaged(what)) => format!("damaged: {what}"),
            }
        };
        assert!(says(&|b| b[12] = 2).contains("newer build"));
        assert!(says(&|b| b[20] ^= 1).contains("damaged: its checksum"));
        assert!(says(&|b| b[4] = 0).contains("damaged: it is not an identity"));
        assert!(says(&|b| b.truncate(100)).contains("damaged: it has 100 bytes"));
    }
}
