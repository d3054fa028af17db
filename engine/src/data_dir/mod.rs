//! The data directory: its owner and its contents.
//!
//! A missing part is never treated as new: the start fails with an error that says how to continue. An operator without a backup of the missing part
//! creates an empty file `<name>.forget`; the next start continues without it.

mod identity;
mod membership;
mod quarantine;

use std::io;
use std::path::{Path, PathBuf};

use highwater_protocol::ids::NodeId;
use highwater_replication::join::DiskId;
use highwater_runtime::fs::{DirEntry, Fs, RESERVE_NAME, is_out_of_space};

pub use identity::{Identity, Inventory};
pub use membership::{Membership, keep_welcome, membership};

pub use quarantine::QUARANTINE;

use identity::{IDENTITY_BYTES, ReadError, cluster_of_logs, encode};

use crate::start_error::StartError;

/// The identity file.
pub const IDENTITY: &str = "identity";
/// The lock file, locked by the process that uses the directory.
pub const LOCK: &str = "LOCK";
/// The controller's state log.
pub const META: &str = "meta";
/// The log of groups and offsets that earlier builds kept.
pub const OFFSETS: &str = "offsets";
/// Its files, in the order in which they are removed: what is left after a crash can be read.
pub const OFFSETS_FILES: [&str; 3] = ["offsets.mark", "offsets.a", "offsets.b"];
/// Suffix of a file that declares a part lost: the next start continues without it.
const FORGET: &str = ".forget";

/// The message that has welcomed the node in its cluster, until its first start is complete.
const WELCOME: &str = "welcome";

/// The file of an interrupted disk measurement. The next one overwrites it.
const SCRATCH: &str = ".durability.tmp";

/// An opened data directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataDir {
    /// The path.
    pub path: PathBuf,
    /// The owner.
    pub identity: Identity,
    /// The number of stores.
    pub stores: u16,
    /// The parts that have to exist, from the identity file.
    pub inventory: Inventory,
    /// Whether it was created by this start.
    pub is_new: bool,
    /// Warnings for the operator.
    pub warnings: Vec<String>,
}

/// Returns the directory of a store.
pub fn store_dir(data_dir: &Path, store: u16) -> PathBuf {
    data_dir.join(store_name(store))
}

fn store_name(store: u16) -> String {
    format!("store-{store:03}")
}

fn store_number(name: &str) -> Option<u16> {
    let digits = name.strip_prefix("store-")?;
    let number = digits.parse().ok()?;
    (format!("{number:03}") == digits).then_some(number)
}

/// The directory that `mkfs` creates in the root of a file system.
const LOST_AND_FOUND: &str = "lost+found";

/// Returns whether the operation is not permitted: by the file's mode, or because the file system is read-only.
pub(crate) fn is_forbidden(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// Returns the start error for a failed operation on the data directory.
pub(crate) fn failed(what: &str, path: &Path, e: &io::Error) -> StartError {
    let path = path.display();
    match e.kind() {
        io::ErrorKind::PermissionDenied => StartError::Permission(format!(
            "{what} {path}: {e}; this process runs as user {}: give the directory to that user (chown), or choose another --data-dir",
            rustix::process::geteuid().as_raw()
        )),
        io::ErrorKind::ReadOnlyFilesystem => StartError::Permission(format!(
            "{what} {path}: its file system is mounted read-only; mount it for writing, or choose another --data-dir"
        )),
        _ => StartError::Disk(format!("{what} {path}: {e}")),
    }
}

fn is_known(name: &str) -> bool {
    let state =
        |stem: &str| name.strip_prefix(stem).is_some_and(|rest| matches!(rest, ".a" | ".b" | ".mark"));
    matches!(name, IDENTITY | WELCOME | LOCK | QUARANTINE | SCRATCH | RESERVE_NAME | LOST_AND_FOUND)
        || state(META)
        || state(OFFSETS)
        || store_number(name).is_some()
}

/// Reserved space for the log of the metadata, so that it can be rewritten on a full disk.
pub const RESERVE_BYTES: u64 = 1 << 20;

/// Opens the directory at `path`. Creates it for the owner `new` if it does not exist.
///
/// Unknown files are moved to `quarantine/`, but only if the directory has an identity.
pub fn open(fs: &mut dyn Fs, path: &Path, new: Identity) -> Result<DataDir, StartError> {
    let failed = |what: &str, e: &io::Error| failed(what, path, e);
    fs.create_dir_all(path).map_err(|e| failed("cannot create the data directory", &e))?;
    let list = |fs: &mut dyn Fs| fs.list(path).map_err(|e| failed("cannot list the data directory", &e));
    let mut entries = list(fs)?;
    let mut warnings = Vec::new();
    let found = find_identity(fs, path, &entries, new, &mut warnings)?;
    let (found, disk) = match found {
        // A node that has not joined a cluster has nothing but the id of its disk, and keeps that.
        Some((identity, _)) if !identity.is_member() => (None, Some(identity.disk)),
        found => (found, None),
    };
    let is_new = found.is_none();
    let new = Identity { disk: disk.unwrap_or(new.disk), ..new };
    let (mut identity, inventory) = found.unwrap_or((new, Inventory::default()));
    if is_new {
        if !new.is_member() {
            return Err(StartError::Storage(format!(
                "{}: its node has not joined a cluster yet, and has no data",
                path.display()
            )));
        }
        let names = entries.iter().map(|e| e.name.as_str());
        check_fresh(path, names.filter(|name| disk.is_none() || !matches!(*name, IDENTITY | WELCOME)))?;
        write(fs, path, identity, inventory).map_err(|e| failed("cannot write the identity of", &e))?;
    } else if identity.disk == DiskId::default() && new.disk != identity.disk {
        // Of an earlier build, in which every node was a cluster of its own. On a full disk the file stays as it is until a later start.
        identity.founder = identity.node;
        let named = Identity { disk: new.disk, ..identity };
        match write(fs, path, named, inventory) {
            Ok(()) => identity = named,
            Err(e) if is_out_of_space(&e) => {}
            Err(e) => return Err(failed("cannot write the identity of", &e)),
        }
    }
    if !is_new {
        let forgotten = forget(fs, path, &entries, &mut warnings)
            .map_err(|e| failed("cannot continue without the lost parts of", &e))?;
        entries = list(fs)?;
        for entry in entries.iter().filter(|e| !is_known(&e.name)) {
            if entry.name.strip_suffix(".tmp").is_some_and(|name| is_known(name) && !entry.is_dir) {
                // A temporary file of an interrupted start.
                fs.remove_file(&path.join(&entry.name)).map_err(|e| failed("cannot clean up", &e))?;
                continue;
            }
            match quarantine::move_there(fs, path, &entry.name) {
                Ok(warning) => warnings.push(warning),
                Err(e) if is_out_of_space(&e) => {
                    let file = path.join(&entry.name);
                    warnings.push(format!(
                        "{}: unknown file, left in place because the disk is too full to move it to {}; \
                         delete it if it is not needed",
                        file.display(),
                        path.join(quarantine::QUARANTINE).display()
                    ));
                }
                Err(e) => return Err(failed("cannot clean up", &e)),
            }
        }
        check_complete(fs, path, &entries, inventory, &forgotten)?;
        warnings.extend(quarantine::warning(fs, path));
    }
    let stores = entries.iter().filter_map(|e| store_number(&e.name)).map(|n| n + 1).max().unwrap_or(0);
    let stores = stores.max(inventory.stores);
    match fs.create_file(&path.join(RESERVE_NAME), RESERVE_BYTES) {
        Ok(file) => fs.close_file(file),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists || is_out_of_space(&e) => {}
        Err(e) => return Err(failed("cannot reserve space in", &e)),
    }
    Ok(DataDir { path: path.to_owned(), identity, stores, inventory, is_new, warnings })
}

/// Returns the node that owns a directory; the only one of a cluster of one if its identity cannot be read.
pub(crate) fn node_of(fs: &mut dyn Fs, path: &Path) -> NodeId {
    identity::read(fs, &path.join(IDENTITY)).map_or(NodeId(0), |(identity, _)| identity.node)
}

/// Records the parts that exist after a complete start. From now on they have to exist.
pub fn note_complete(fs: &mut dyn Fs, data: &DataDir, stores: u16) -> io::Result<()> {
    let inventory = Inventory { stores, complete: true, groups_in_topic: true };
    if inventory == data.inventory {
        return Ok(());
    }
    write(fs, &data.path, data.identity, inventory)
}

fn write(fs: &mut dyn Fs, path: &Path, identity: Identity, inventory: Inventory) -> io::Result<()> {
    let file = fs.replace_file(&path.join(IDENTITY), &encode(identity, inventory), IDENTITY_BYTES as u64)?;
    fs.close_file(file);
    Ok(())
}

/// Returns the identity from its file or, if that is lost, from the files that name their cluster; `None` if there are no files of a broker.
fn find_identity(
    fs: &mut dyn Fs,
    path: &Path,
    entries: &[DirEntry],
    new: Identity,
    warnings: &mut Vec<String>,
) -> Result<Option<(Identity, Inventory)>, StartError> {
    let file = path.join(IDENTITY);
    let why = if entries.iter().any(|e| e.name == IDENTITY && !e.is_dir) {
        match identity::read(fs, &file) {
            Ok(known) => return Ok(Some(known)),
            Err(ReadError::Unusable(error)) => return Err(error),
            Err(ReadError::Damaged(why)) => why,
        }
    } else {
        "it is missing".to_owned()
    };
    let Some(cluster) = cluster_of_logs(fs, path, entries)? else {
        let is_there = entries.iter().any(|e| e.name == IDENTITY);
        return if is_there {
            let what = "and no other file identifies the owner of the directory; is it the data directory of another program?";
            Err(StartError::Storage(format!(
                "{}: {why}, {what} Restore it from a backup of the directory",
                file.display()
            )))
        } else {
            Ok(None)
        };
    };
    // A cluster has one node so far.
    let identity = Identity::founder(cluster, new.node, new.disk);
    write(fs, path, identity, Inventory::default()).map_err(|e| failed("cannot write", &file, &e))?;
    warnings.push(format!(
        "{}: {why}; it was recreated from the other files, which name their cluster",
        file.display()
    ));
    Ok(Some((identity, Inventory::default())))
}

/// Drops the parts that the operator has declared lost: moves their remains to quarantine, with the files that declared it.
fn forget(
    fs: &mut dyn Fs,
    path: &Path,
    entries: &[DirEntry],
    warnings: &mut Vec<String>,
) -> io::Result<Vec<String>> {
    let mut forgotten = Vec::new();
    for name in entries.iter().filter_map(|e| e.name.strip_suffix(FORGET)) {
        if !matches!(name, META | OFFSETS) && store_number(name).is_none() {
            continue;
        }
        let left = |e: &&DirEntry| {
            e.name == name || [".a", ".b", ".mark"].iter().any(|suffix| e.name == format!("{name}{suffix}"))
        };
        for entry in entries.iter().filter(left) {
            quarantine::move_there(fs, path, &entry.name)?;
        }
        quarantine::move_there(fs, path, &format!("{name}{FORGET}"))?;
        warnings
            .push(format!("{}: continuing without it, because of {name}{FORGET}", path.join(name).display()));
        forgotten.push(name.to_owned());
    }
    Ok(forgotten)
}

/// Rejects a directory with a missing part.
fn check_complete(
    fs: &mut dyn Fs,
    path: &Path,
    entries: &[DirEntry],
    inventory: Inventory,
    forgotten: &[String],
) -> Result<(), StartError> {
    let has = |name: &str| entries.iter().any(|e| e.name == name);
    let refuse = |name: &str, what: &str| {
        Err(StartError::Storage(format!(
            "{} is missing from {}, with {what}; restore it from a backup of the directory, or create an empty file \
             {name}{FORGET} there to continue without it",
            if store_number(name).is_some() { name.to_owned() } else { format!("{name}.a and {name}.b") },
            path.display(),
        )))
    };
    for store in (0..inventory.stores).map(store_name) {
        if !has(&store) && !forgotten.contains(&store) {
            return refuse(&store, "the records of its partitions");
        }
    }
    // A directory of a version without an inventory has slabs only if its logs were created.
    let complete = inventory.complete || holds_slabs(fs, path, entries);
    // A topic keeps the groups since, and what was carried over into it is gone.
    let had_groups = inventory.complete && !inventory.groups_in_topic;
    for (name, what, is_due) in
        [(META, "the topics", complete), (OFFSETS, "the groups and their offsets", had_groups)]
    {
        let copies = [".a", ".b"].iter().any(|copy| has(&format!("{name}{copy}")));
        if is_due && !copies && !forgotten.iter().any(|f| f == name) {
            return refuse(name, what);
        }
    }
    Ok(())
}

fn holds_slabs(fs: &mut dyn Fs, path: &Path, entries: &[DirEntry]) -> bool {
    entries.iter().filter(|e| e.is_dir && store_number(&e.name).is_some()).any(|store| {
        fs.list(&path.join(&store.name)).is_ok_and(|files| files.iter().any(|f| f.name.starts_with("slab-")))
    })
}

/// Checks that a directory without an identity has only the remains of an interrupted first start.
fn check_fresh<'a>(path: &Path, names: impl Iterator<Item = &'a str>) -> Result<(), StartError> {
    let temporary = format!("{IDENTITY}.tmp");
    let unknown: Vec<&str> = names.filter(|n| ![LOCK, LOST_AND_FOUND, &temporary].contains(n)).collect();
    let Some(first) = unknown.first() else { return Ok(()) };
    Err(StartError::Storage(if unknown.iter().any(|n| is_known(n)) {
        format!(
            "{} has a broker's data ({first}) but no file `{IDENTITY}`, so its owner is unknown; restore that file from a backup of the directory",
            path.display()
        )
    } else {
        format!(
            "{} is not empty ({first}) and is not a Highwater data directory; choose an empty or a new directory",
            path.display()
        )
    }))
}

#[cfg(test)]
mod tests {
    use highwater_protocol::ids::ClusterId;
    use highwater_runtime::sim::DiskHarness;

    use super::*;

    fn whose(cluster: u8) -> Identity {
        Identity::founder(ClusterId([cluster; 16]), NodeId(0), DiskId([cluster; 16]))
    }

    fn dir() -> PathBuf {
        PathBuf::from("/data")
    }

    fn put(disk: &mut DiskHarness, name: &str, content: &[u8]) {
        let file = disk.replace_file(&dir().join(name), content, 4096).expect("written");
        disk.close_file(file);
    }

    #[test]
    fn a_directory_keeps_its_identity() {
        let mut disk = DiskHarness::new(1);
        let made = open(&mut disk, &dir(), whose(1)).expect("new");
        assert!(made.is_new && made.identity == whose(1) && made.stores == 0);
        disk.create_dir_all(&store_dir(&dir(), 2)).expect("made");
        let again = open(&mut disk, &dir(), whose(2)).expect("there");
        assert!(!again.is_new && again.identity == whose(1) && again.stores == 3);
        assert_eq!(again.warnings, Vec::<String>::new());
    }

    #[test]
    fn a_directory_of_an_earlier_build_gets_an_id_and_keeps_it() {
        let mut disk = DiskHarness::new(1);
        disk.create_dir_all(&dir()).expect("made");
        let earlier = Identity { disk: DiskId::default(), ..whose(1) };
        write(&mut disk, &dir(), earlier, Inventory::default()).expect("written");
        for _ in 0..2 {
            let opened = open(&mut disk, &dir(), whose(2)).expect("there");
            assert_eq!(opened.identity, Identity { disk: whose(2).disk, ..whose(1) });
        }
        assert_eq!(open(&mut disk, &dir(), whose(3)).expect("there").identity.disk, whose(2).disk);
    }

    #[test]
    fn a_directory_that_is_not_a_brokers_is_rejected_and_not_changed() {
        let mut disk = DiskHarness::new(1);
        disk.create_dir_all(&dir()).expect("made");
        put(&mut disk, "thesis.tex", b"chapter one");
        let error = open(&mut disk, &dir(), whose(1)).expect_err("refused");
        assert_eq!(error.exit_code(), 75);
        assert!(error.to_string().contains("thesis.tex"), "{error}");
        assert_eq!(disk.list(&dir()).expect("listed").len(), 1);
    }

    #[test]
    fn data_without_an_identity_is_rejected() {
        let mut disk = DiskHarness::new(1);
        disk.create_dir_all(&store_dir(&dir(), 0)).expect("made");
        let error = open(&mut disk, &dir(), whose(1)).expect_err("refused").to_string();
        assert!(error.contains("store-000") && error.contains("backup"), "{error}");
    }

    #[test]
    fn an_interrupted_first_start_can_be_repeated() {
        let mut disk = DiskHarness::new(1);
        disk.create_dir_all(&dir()).expect("made");
        put(&mut disk, LOCK, b"1");
        put(&mut disk, "identity.tmp", b"half");
        assert!(open(&mut disk, &dir(), whose(1)).expect("fresh").is_new);
    }

    #[test]
    fn a_new_file_system_is_an_empty_directory() {
        let mut disk = DiskHarness::new(1);
        disk.create_dir_all(&dir().join(LOST_AND_FOUND)).expect("made");
        assert!(open(&mut disk, &dir(), whose(1)).expect("fresh").is_new);
        let again = open(&mut disk, &dir(), whose(2)).expect("there");
        assert_eq!((again.is_new, again.warnings), (false, Vec::new()));
    }

    #[test]
    fn a_directory_without_write_permission_is_not_reported_as_a_disk_error() {
        let failed = |kind| failed("cannot lock", &dir(), &io::Error::from(kind));
        let error = failed(io::ErrorKind::PermissionDenied);
        assert_eq!(error.exit_code(), 77);
        assert!(error.to_string().contains("/data") && error.to_string().contains("chown"), "{error}");
        let error = failed(io::ErrorKind::ReadOnlyFilesystem);
        assert_eq!(error.exit_code(), 77);
        assert!(error.to_string().contains("read-only"), "{error}");
        assert_eq!(failed(io::ErrorKind::Other).exit_code(), 74);
    }
}
