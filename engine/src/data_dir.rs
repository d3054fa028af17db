//! The data directory: whose it is, and what is in it.

use std::io;
use std::path::{Path, PathBuf};

use highwater_protocol::ids::{ClusterId, NodeId};
use highwater_runtime::fs::{Fs, OpenMode};

use crate::broker::StartError;

/// The identity file.
pub const IDENTITY: &str = "identity";
/// Held locked by the process that uses the directory.
pub const LOCK: &str = "LOCK";
/// Where files go that nothing knows.
pub const QUARANTINE: &str = "quarantine";
/// The controller's state log.
pub const META: &str = "meta";
/// The log of consumers' positions.
pub const OFFSETS: &str = "offsets";

/// What the measurement of the disk leaves behind if it is cut off. It is overwritten the next time.
const SCRATCH: &str = ".durability.tmp";

const IDENTITY_BYTES: usize = 4096;
const IDENTITY_MAGIC: [u8; 8] = *b"HWIDENTY";
/// Version of everything in the directory.
const FORMAT_VERSION: u32 = 1;

/// Whose data a directory holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node in it.
    pub node: NodeId,
}

/// A directory that may be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataDir {
    /// Where it is.
    pub path: PathBuf,
    /// Whose it is.
    pub identity: Identity,
    /// Stores that exist.
    pub stores: u16,
    /// Whether it was made just now.
    pub is_new: bool,
    /// What a person should read.
    pub warnings: Vec<String>,
}

/// The directory of a store.
pub fn store_dir(data_dir: &Path, store: u16) -> PathBuf {
    data_dir.join(format!("store-{store:03}"))
}

fn store_number(name: &str) -> Option<u16> {
    let digits = name.strip_prefix("store-")?;
    let number = digits.parse().ok()?;
    (format!("{number:03}") == digits).then_some(number)
}

fn is_known(name: &str) -> bool {
    let state = |stem: &str| name.strip_prefix(stem).is_some_and(|rest| matches!(rest, ".a" | ".b"));
    matches!(name, IDENTITY | LOCK | QUARANTINE | SCRATCH)
        || state(META)
        || state(OFFSETS)
        || store_number(name).is_some()
}

/// Opens the directory at `path`, making it if there is none; `new` is whose it will be then.
///
/// Files that nothing knows are moved to `quarantine/`, but only where an identity says that the directory is a broker's.
pub fn open(fs: &mut dyn Fs, path: &Path, new: Identity) -> Result<DataDir, StartError> {
    let failed = |what: &str, e: &io::Error| StartError::Disk(format!("{what} {}: {e}", path.display()));
    fs.create_dir_all(path).map_err(|e| failed("cannot make the data directory", &e))?;
    let entries = fs.list(path).map_err(|e| failed("cannot list the data directory", &e))?;
    let mut warnings = Vec::new();
    let has_identity = entries.iter().any(|e| e.name == IDENTITY && !e.is_dir);
    let identity = if has_identity {
        let identity = read_identity(fs, &path.join(IDENTITY))?;
        for entry in entries.iter().filter(|e| !is_known(&e.name)) {
            warnings.push(quarantine(fs, path, &entry.name).map_err(|e| failed("cannot tidy up", &e))?);
        }
        identity
    } else {
        check_fresh(path, entries.iter().map(|e| e.name.as_str()))?;
        fs.replace_file(&path.join(IDENTITY), &encode_identity(new), IDENTITY_BYTES as u64)
            .map(|file| fs.close_file(file))
            .map_err(|e| failed("cannot write the identity of", &e))?;
        new
    };
    let stores = entries.iter().filter_map(|e| store_number(&e.name)).map(|n| n + 1).max().unwrap_or(0);
    Ok(DataDir { path: path.to_owned(), identity, stores, is_new: !has_identity, warnings })
}

/// A directory without an identity may hold nothing but what is left of a first start that was cut off.
fn check_fresh<'a>(path: &Path, names: impl Iterator<Item = &'a str>) -> Result<(), StartError> {
    let temporary = format!("{IDENTITY}.tmp");
    let strangers: Vec<&str> = names.filter(|n| *n != LOCK && *n != temporary).collect();
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

fn quarantine(fs: &mut dyn Fs, path: &Path, name: &str) -> io::Result<String> {
    let dir = path.join(QUARANTINE);
    fs.create_dir_all(&dir)?;
    let taken: Vec<String> = fs.list(&dir)?.into_iter().map(|e| e.name).collect();
    let mut free = name.to_owned();
    let mut number = 1;
    while taken.contains(&free) {
        free = format!("{name}.{number}");
        number += 1;
    }
    fs.rename(&path.join(name), &dir.join(&free))?;
    Ok(format!(
        "{}: nothing knows this file; it was moved to {}",
        path.join(name).display(),
        dir.join(free).display()
    ))
}

fn encode_identity(identity: Identity) -> Vec<u8> {
    let mut block = vec![0; IDENTITY_BYTES];
    block[4..12].copy_from_slice(&IDENTITY_MAGIC);
    block[12..16].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    block[16..32].copy_from_slice(&identity.cluster.0);
    block[32..36].copy_from_slice(&identity.node.0.to_le_bytes());
    let crc = crc32c::crc32c(&block[4..]);
    block[..4].copy_from_slice(&crc.to_le_bytes());
    block
}

fn read_identity(fs: &mut dyn Fs, path: &Path) -> Result<Identity, StartError> {
    let failed = |e: io::Error| StartError::Disk(format!("cannot read {}: {e}", path.display()));
    let file = fs.open(path, OpenMode::Read).map_err(failed)?;
    let mut block = vec![0; IDENTITY_BYTES];
    let read = fs.read_at(file, 0, &mut block);
    fs.close_file(file);
    let read = read.map_err(failed)?;
    decode_identity(block.get(..read).unwrap_or_default())
        .map_err(|what| StartError::Storage(format!("{}: {what}", path.display())))
}

fn decode_identity(block: &[u8]) -> Result<Identity, String> {
    let block: &[u8; IDENTITY_BYTES] = block.try_into().map_err(|_| {
        format!(
            "{} bytes, where {IDENTITY_BYTES} belong; restore it from a backup of the directory",
            block.len()
        )
    })?;
    let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    if block[4..12] != IDENTITY_MAGIC {
        return Err("not an identity file; is this the data directory of something else?".into());
    }
    // The version first: what it means that a checksum differs is for the version to say.
    let version = word(12);
    if version > FORMAT_VERSION {
        return Err(format!(
            "the data has format version {version}, this build understands {FORMAT_VERSION}: start a newer build"
        ));
    }
    if word(0) != crc32c::crc32c(&block[4..]) {
        return Err("damaged (its checksum does not match); restore it from a backup of the directory".into());
    }
    let mut cluster = [0; 16];
    cluster.copy_from_slice(&block[16..32]);
    Ok(Identity { cluster: ClusterId(cluster), node: NodeId(word(32)) })
}

#[cfg(test)]
mod tests {
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
    fn newer_damaged_and_foreign_identities_are_told_apart() {
        let good = encode_identity(whose(1));
        assert_eq!(decode_identity(&good), Ok(whose(1)));
        let says = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut block = good.clone();
            change(&mut block);
            decode_identity(&block).expect_err("refused")
        };
        assert!(says(&|b| b[12] = 2).contains("newer build"));
        assert!(says(&|b| b[20] ^= 1).contains("checksum"));
        assert!(says(&|b| b[4] = 0).contains("not an identity"));
        assert!(says(&|b| b.truncate(100)).contains("100 bytes"));
    }

    #[test]
    fn strangers_in_a_brokers_directory_go_to_quarantine() {
        let mut disk = DiskHarness::new(1);
        open(&mut disk, &dir(), whose(1)).expect("new");
        for _ in 0..2 {
            put(&mut disk, "meta.a.tmp", b"left over");
            put(&mut disk, "store-1", b"not a store's name");
            let opened = open(&mut disk, &dir(), whose(1)).expect("there");
            assert_eq!(opened.warnings.len(), 2, "{:?}", opened.warnings);
            assert_eq!(opened.stores, 0);
        }
        let names: Vec<String> =
            disk.list(&dir().join(QUARANTINE)).expect("listed").into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["meta.a.tmp", "meta.a.tmp.1", "store-1", "store-1.1"]);
    }
}
