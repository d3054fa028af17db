//! Whether the owner of a data directory is a member of a cluster, for a start that may have to join one first.

use std::io;
use std::path::Path;

use highwater_replication::join::{Contact, DiskId, JoinReply, Membership as Admitted};
use highwater_runtime::buf::PAGE_BYTES;
use highwater_runtime::fs::{Fs, OpenMode};

use super::identity::{self, ReadError};
use super::{IDENTITY, Identity, Inventory, WELCOME, check_fresh, failed, write};
use crate::start_error::StartError;

/// Bytes of the file with the welcome: its limit as a message, in whole pages.
const WELCOME_BYTES_MAX: usize = 64 << 10;

/// The owner of a data directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Membership {
    /// A node that has not joined a cluster. The id of its disk stays the same until it has, so that a repeated request has the same answer.
    None(DiskId),
    /// A member, and other members that it can connect to if it does not have the cluster's metadata yet.
    Member(Identity, Vec<Contact>),
}

/// Returns the owner of the directory at `path`. Creates the directory with this disk id if it does not exist.
///
/// Unlike [`open`](super::open) it recreates no identity that is lost: which node of a cluster of several it was is not known then.
pub fn membership(fs: &mut dyn Fs, path: &Path, new: DiskId) -> Result<Membership, StartError> {
    fs.create_dir_all(path).map_err(|e| failed("cannot create the data directory", path, &e))?;
    let entries = fs.list(path).map_err(|e| failed("cannot list the data directory", path, &e))?;
    let file = path.join(IDENTITY);
    if !entries.iter().any(|entry| entry.name == IDENTITY) {
        check_fresh(path, entries.iter().map(|entry| entry.name.as_str()))?;
        write(fs, path, Identity::without_cluster(new), Inventory::default())
            .map_err(|e| failed("cannot write the identity of", path, &e))?;
        return Ok(Membership::None(new));
    }
    match identity::read(fs, &file) {
        Ok((identity, _)) if !identity.is_member() => Ok(Membership::None(identity.disk)),
        Ok((identity, inventory)) if inventory.complete || identity.is_founder() => {
            // The directory of an earlier build has no id. `open` writes this one.
            let disk = if identity.disk == DiskId::default() { new } else { identity.disk };
            Ok(Membership::Member(Identity { disk, ..identity }, Vec::new()))
        }
        Ok((identity, _)) => Ok(Membership::Member(identity, contacts(fs, path)?)),
        Err(ReadError::Unusable(error)) => Err(error),
        Err(ReadError::Damaged(why)) => Err(StartError::Storage(format!(
            "{}: {why}, so it is not known which node of the cluster this is; restore it from a backup of the directory, or start \
             with an empty directory: the node then joins the cluster anew, and gets its data from the other nodes",
            file.display()
        ))),
    }
}

/// Keeps the message that has welcomed the node, durably. The identity is written after it.
pub fn keep_welcome(
    fs: &mut dyn Fs,
    path: &Path,
    membership: Admitted,
    contacts: Vec<Contact>,
) -> Result<(), StartError> {
    let message = JoinReply::Welcome(membership, contacts).encode();
    let bytes = message.len().next_multiple_of(PAGE_BYTES) as u64;
    let file = path.join(WELCOME);
    let written = fs.replace_file(&file, &message, bytes);
    fs.close_file(written.map_err(|e| failed("cannot write", &file, &e))?);
    Ok(())
}

/// Returns the members that the welcome has named.
fn contacts(fs: &mut dyn Fs, path: &Path) -> Result<Vec<Contact>, StartError> {
    let path = path.join(WELCOME);
    let failed = |e: &io::Error| failed("cannot read", &path, e);
    let file = fs.open(&path, OpenMode::Read).map_err(|e| failed(&e))?;
    let mut content = vec![0; WELCOME_BYTES_MAX];
    let read = fs.read_at(file, 0, &mut content);
    fs.close_file(file);
    let read = read.map_err(|e| failed(&e))?;
    match JoinReply::take(content.get(..read).unwrap_or_default()) {
        Ok(Some(JoinReply::Welcome(_, contacts))) => Ok(contacts),
        _ => Err(StartError::Storage(format!(
            "{} is damaged, and without it the node does not find the others of its cluster; it has no data yet, so start with an empty directory",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use highwater_protocol::ids::{ClusterId, NodeId};
    use highwater_runtime::sim::DiskHarness;

    use super::super::{note_complete, open, store_dir};
    use super::*;

    fn dir() -> PathBuf {
        PathBuf::from("/data")
    }

    #[test]
    fn a_directory_keeps_its_disk_id_until_its_owner_has_joined_and_afterwards() {
        let mut disk = DiskHarness::new(1);
        for _ in 0..2 {
            let found = membership(&mut disk, &dir(), DiskId([1; 16])).expect("new");
            assert_eq!(found, Membership::None(DiskId([1; 16])));
        }
        assert_eq!(
            membership(&mut disk, &dir(), DiskId([2; 16])).expect("there"),
            Membership::None(DiskId([1; 16]))
        );
        let identity = Identity {
            cluster: ClusterId([3; 16]),
            node: NodeId(4),
            incarnation: 5,
            founder: NodeId(6),
            disk: DiskId([1; 16]),
        };
        let contact = Contact { node: NodeId(6), incarnation: 0, shards: 2, address: "a:9193".into() };
        let Identity { cluster, node, incarnation, founder, .. } = identity;
        let admitted = Admitted { cluster, node, incarnation, founder };
        keep_welcome(&mut disk, &dir(), admitted, vec![contact.clone()]).expect("written");
        assert_eq!(
            membership(&mut disk, &dir(), DiskId([2; 16])).expect("there"),
            Membership::None(DiskId([1; 16])),
            "a crash before the identity is written changes nothing"
        );
        let data = open(&mut disk, &dir(), identity).expect("it has joined");
        assert!(data.is_new && data.identity == identity && data.warnings.is_empty(), "{data:?}");
        let member = |contacts| Membership::Member(identity, contacts);
        assert_eq!(membership(&mut disk, &dir(), DiskId([9; 16])).expect("a member"), member(vec![contact]));
        let again = open(&mut disk, &dir(), identity).expect("a member");
        assert_eq!(again.warnings, Vec::<String>::new(), "the welcome is a known file");
        note_complete(&mut disk, &data, 0).expect("written");
        assert_eq!(membership(&mut disk, &dir(), DiskId([9; 16])).expect("a member"), member(Vec::new()));
    }

    #[test]
    fn a_directory_of_an_earlier_build_gets_an_id() {
        let mut disk = DiskHarness::new(1);
        disk.create_dir_all(&dir()).expect("made");
        let earlier = Identity::founder(ClusterId([3; 16]), NodeId(0), DiskId::default());
        write(&mut disk, &dir(), earlier, Inventory::default()).expect("written");
        let named = Identity { disk: DiskId([1; 16]), ..earlier };
        let found = membership(&mut disk, &dir(), named.disk).expect("there");
        assert_eq!(found, Membership::Member(named, Vec::new()));
        assert_eq!(open(&mut disk, &dir(), named).expect("there").identity, named);
    }

    #[test]
    fn a_damaged_welcome_is_an_error_that_says_what_to_do() {
        let mut disk = DiskHarness::new(1);
        let disk_id = DiskId([1; 16]);
        membership(&mut disk, &dir(), disk_id).expect("new");
        let identity =
            Identity { node: NodeId(4), ..Identity::founder(ClusterId([3; 16]), NodeId(6), disk_id) };
        open(&mut disk, &dir(), identity).expect("it has joined");
        assert_eq!(membership(&mut disk, &dir(), disk_id).expect_err("it is missing").exit_code(), 74);
        let file = disk.replace_file(&dir().join(WELCOME), b"damaged", 4096).expect("written");
        disk.close_file(file);
        let error = membership(&mut disk, &dir(), disk_id).expect_err("refused").to_string();
        assert!(error.contains("/data/welcome") && error.contains("empty directory"), "{error}");
    }

    #[test]
    fn the_identity_of_a_member_is_not_guessed() {
        let mut disk = DiskHarness::new(1);
        disk.create_dir_all(&store_dir(&dir(), 0)).expect("made");
        let error = membership(&mut disk, &dir(), DiskId([1; 16])).expect_err("refused");
        assert!(error.to_string().contains("store-000"), "{error}");
        let file = disk.replace_file(&dir().join(IDENTITY), b"damaged", 4096).expect("written");
        disk.close_file(file);
        let error = membership(&mut disk, &dir(), DiskId([1; 16])).expect_err("refused").to_string();
        assert!(error.contains("which node of the cluster") && error.contains("empty directory"), "{error}");
    }

    #[test]
    fn a_directory_that_is_not_a_brokers_gets_no_disk_id() {
        let mut disk = DiskHarness::new(1);
        disk.create_dir_all(&dir()).expect("made");
        let file = disk.replace_file(&dir().join("thesis.tex"), b"chapter one", 4096).expect("written");
        disk.close_file(file);
        assert_eq!(membership(&mut disk, &dir(), DiskId([1; 16])).expect_err("refused").exit_code(), 75);
        assert_eq!(disk.list(&dir()).expect("listed").len(), 1);
    }
}
