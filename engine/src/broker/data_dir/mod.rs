//! The data directory: whose it is, and what is in it.
//!
//! What was there and is missing is never taken for new: the start is refused, and says how to go on. Who has no copy of what
//! is missing makes an empty file `<name>.forget`; the next start goes on without it.

mod identity;
mod quarantine;

use std::io;
use std::path::{Path, PathBuf};

use highwater_runtime::fs::{DirEntry, Fs, RESERVE_NAME, is_out_of_space};

pub use identity::{Identity, Inventory};

pub use quarantine::QUARANTINE;

use identity::{IDENTITY_BYTES, Unreadable, cluster_of_logs, encode};

use crate::broker::error::StartError;

/// The identity file.
pub const IDENTITY: &str = "identity";
/// Held locked by the process that uses the directory.
pub const LOCK: &str = "LOCK";
/// The controller's state log.
pub const META: &str = "meta";
/// The log of consumers' positions.
pub const OFFSETS: &str = "offsets";
/// Behind the name of something that was lost: the next start goes on without it.
const FORGET: &str = ".forget";

/// What the measurement of the disk leaves behind if it is cut off. It is overwritten the next time.
const SCRATCH: &str = ".durability.tmp";

/// A directory that may be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataDir {
    /// Where it is.
    pub path: PathBuf,
    /// Whose it is.
    pub identity: Identity,
    /// Stores that exist.
    pub stores: u16,
    /// What its identity file says that there has to be.
    pub inventory: Inventory,
    /// Whether it was made just now.
    pub is_new: bool,
    /// What a person should read.
    pub warnings: Vec<String>,
}

/// The directory of a store.
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

/// What `mkfs` leaves in the topmost directory of a file system.
const LOST_AND_FOUND: &str = "lost+found";

/// Whether somebody forbids it: this user may not, or the file system is read-only.
pub(crate) fn is_forbidden(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// Why the start ends when an operation on the data directory fails.
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
    matches!(name, IDENTITY | LOCK | QUARANTINE | SCRATCH | RESERVE_NAME | LOST_AND_FOUND)
        || state(META)
        || state(OFFSETS)
        || store_number(name).is_some()
}

/// Space kept for the logs of the metadata and of the groups, so that they can be rewritten on a full disk.
pub const RESERVE_BYTES: u64 = 1 << 20;

/// Opens the directory at `path`, making it if there is none; `new` is whose it will be then.
///
/// Files that the broker does not know are moved to `quarantine/`, but only where an identity says that the directory is a broker's.
pub fn open(fs: &mut dyn Fs, path: &Path, new: Identity) -> Result<DataDir, StartError> {
    let failed = |what: &str, e: &io::Error| failed(what, path, e);
    fs.create_dir_all(path).map_err(|e| failed("cannot make the data directory", &e))?;
    let list = |fs: &mut dyn Fs| fs.list(path).map_err(|e| failed("cannot list the data directory", &e));
    let mut entries = list(fs)?;
    let mut warnings = Vec::new();
    let found = find_identity(fs, path, &entries, &mut warnings)?;
    let is_new = found.is_none();
    let (identity, inventory) = found.unwrap_or((new, Inventory::default()));
    if is_new {
        check_fresh(path, entries.iter().map(|e| e.name.as_str()))?;
        write(fs, path, identity, inventory).map_err(|e| failed("cannot write the identity of", &e))?;
    }
    if !is_new {
        let forgotten = forget(fs, path, &entries, &mut warnings)
            .map_err(|e| failed("cannot go on without what was lost from", &e))?;
        entries = list(fs)?;
        for entry in entries.iter().filter(|e| !is_known(&e.name)) {
            if entry.name.strip_suffix(".tmp").is_some_and(|name| is_known(name) && !entry.is_dir) {
                // Was being made when a process ended. It would keep its space for nothing.
                fs.remove_file(&path.join(&entry.name)).map_err(|e| failed("cannot tidy up", &e))?;
                continue;
            }
            match quarantine::move_there(fs, path, &entry.name) {
                Ok(warning) => warnings.push(warning),
                Err(e) if is_out_of_space(&e) => {
                    let stranger = path.join(&entry.name);
                    warnings.push(format!(
                        "{}: the broker does not know this file and has left it there, because the disk is too full to move it to {}; \
                         look at it, and delete it if nobody needs it",
                        stranger.display(),
                        path.join(quarantine::QUARANTINE).display()
                    ));
                }
                Err(e) => return Err(failed("cannot tidy up", &e)),
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
        Err(e) => return Err(failed("cannot keep space in", &e)),
    }
    Ok(DataDir { path: path.to_owned(), identity, stores, inventory, is_new, warnings })
}

/// Notes what a complete start has found or made: from now on that has to be there.
pub fn note_complete(fs: &mut dyn Fs, data: &DataDir, stores: u16) -> io::Result<()> {
    let inventory = Inventory { stores, complete: true };
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

/// The identity from its file or, if that is lost, from the files that name their cluster. `None`: nothing here is a broker's.
fn find_identity(
    fs: &mut dyn Fs,
    path: &Path,
    entries: &[DirEntry],
    warnings: &mut Vec<String>,
) -> Result<Option<(Identity, Inventory)>, StartError> {
    let file = path.join(IDENTITY);
    let why = if entries.iter().any(|e| e.name == IDENTITY && !e.is_dir) {
        match identity::read(fs, &file) {
            Ok(known) => return Ok(Some(known)),
            Err(Unreadable::Refused(error)) => return Err(error),
            Err(Unreadable::Damaged(why)) => why,
        }
    } else {
        "it is missing".to_owned()
    };
    let Some(cluster) = cluster_of_logs(fs, path, entries)? else {
        let is_there = entries.iter().any(|e| e.name == IDENTITY);
        return if is_there {
            let what =
                "and no other file tells whose the directory is; is it the data directory of something else?";
            Err(StartError::Storage(format!(
                "{}: {why}, {what} Restore it from a backup of the directory",
                file.display()
            )))
        } else {
            Ok(None)
        };
    };
    // A cluster has one node so far.
    let identity = Identity { cluster, node: highwater_protocol::ids::NodeId(0) };
    write(fs, path, identity, Inventory::default()).map_err(|e| failed("cannot write", &file, &e))?;
    warnings
        .push(format!("{}: {why}; made anew from the other files, which name their cluster", file.display()));
    Ok(Some((identity, Inventory::default())))
}

/// Goes on without what somebody says is lost: what is left of it goes to quarantine, like the files that said so.
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
        warnings.push(format!("{}: going on without it, as {name}{FORGET} said", path.join(name).display()));
        forgotten.push(name.to_owned());
    }
    Ok(forgotten)
}

/// Refuses a directory of which a part is missing.
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
            "{} is missing from {}, and held {what}; restore it from a backup of the directory, or make an empty file \
             {name}{FORGET} there to go on without it",
            if store_number(name).is_some() { name.to_owned() } else { format!("{name}.a and {name}.b") },
            path.display(),
        )))
    };
    for store in (0..inventory.stores).map(store_name) {
        if !has(&store) && !forgotten.contains(&store) {
            return refuse(&store, "the records of the partitions that live in it");
        }
    }
    // A directory of a version that kept no inventory: records are written long after the logs were made.
    let complete = inventory.complete || holds_slabs(fs, path, entries);
    for (name, what) in [(META, "the topics"), (OFFSETS, "the groups and their offsets")] {
        let copies = [".a", ".b"].iter().any(|copy| has(&format!("{name}{copy}")));
        if complete && !copies && !forgotten.iter().any(|f| f == name) {
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

/// A directory without an identity may hold nothing but what is left of a first start that was cut off.
fn check_fresh<'a>(path: &Path, names: impl Iterator<Item = &'a str>) -> Result<(), StartError> {
    let temporary = format!("{IDENTITY}.tmp");
    let strangers: Vec<&str> = names.filter(|n| ![LOCK, LOST_AND_FOUND, &temporary].contains(n)).collect();
    let Some(first) = strangers.first() else { return Ok(()) };
    Err(StartError::Storage(if strangers.iter().any(|n| is_known(n)) {
        format!(
            "{} holds a broker's data ({first}) but no file `{IDENTITY}`, so it cannot be told whose it is; restore that file from a backup of the directory",
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
    use highwater_protocol::ids::{ClusterId, NodeId};
    use highwater_runtime::sim::DiskHarness;

    use super::*;

    fn whose(cluster: u8) -> Identity {
        Identity { cluster: ClusterId([cluster; 16]), node: NodeId(0) }
    }

    fn dir() -> PathBuf {
        PathBuf::from("/data")
    }

    fn put(disk: &mut DiskHarness, name: &str, content: &[u8]) {
        let file = disk.replace_file(&dir().join(name), content, 4096).expect("written");
        disk.close_file(file);
    }

    #[test]
    fn a_directory_keeps_the_identity_it_was_made_with() {
        let mut disk = DiskHarness::new(1);
        let made = open(&mut disk, &dir(), whose(1)).expect("new");
        assert!(made.is_new && made.identity == whose(1) && made.stores == 0);
        disk.create_dir_all(&store_dir(&dir(), 2)).expect("made");
        let again = open(&mut disk, &dir(), whose(2)).expect("there");
        assert!(!again.is_new && again.identity == whose(1) && again.stores == 3);
        assert_eq!(again.warnings, Vec::<String>::new());
    }

    #[test]
    fn a_directory_of_something_else_is_refused_and_left_alone() {
        let mut disk = DiskHarness::new(1);
        disk.create_dir_all(&dir()).expect("made");
        put(&mut disk, "thesis.tex", b"chapter one");
        let error = open(&mut disk, &dir(), whose(1)).expect_err("refused");
        assert_eq!(error.exit_code(), 75);
        assert!(error.to_string().contains("thesis.tex"), "{error}");
        assert_eq!(disk.list(&dir()).expect("listed").len(), 1);
    }

    #[test]
    fn data_without_an_identity_is_refused() {
        let mut disk = DiskHarness::new(1);
        disk.create_dir_all(&store_dir(&dir(), 0)).expect("made");
        let error = open(&mut disk, &dir(), whose(1)).expect_err("refused").to_string();
        assert!(error.contains("store-000") && error.contains("backup"), "{error}");
    }

    #[test]
    fn a_first_start_that_was_cut_off_can_be_made_again() {
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
    fn a_directory_that_may_not_be_written_to_is_no_error_of_the_disk() {
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
