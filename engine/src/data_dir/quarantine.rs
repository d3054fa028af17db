//! `quarantine/`: unknown files of the data directory. The broker moves them there and never deletes them, since only the operator can know what
//! they are. So it may grow; every start reports its contents.

use std::io;
use std::path::Path;

use highwater_protocol::text::{counted, grouped};
use highwater_runtime::fs::Fs;

/// Name of the folder.
pub const QUARANTINE: &str = "quarantine";

/// Maximum number of entries that a start counts.
const COUNTED_MAX: usize = 10_000;

/// Moves an entry of the data directory to quarantine. Returns a warning.
pub(super) fn move_there(fs: &mut dyn Fs, data_dir: &Path, name: &str) -> io::Result<String> {
    let dir = data_dir.join(QUARANTINE);
    fs.create_dir_all(&dir)?;
    let taken: Vec<String> = fs.list(&dir)?.into_iter().map(|e| e.name).collect();
    let mut free = name.to_owned();
    let mut number = 1;
    while taken.contains(&free) {
        free = format!("{name}.{number}");
        number += 1;
    }
    fs.rename(&data_dir.join(name), &dir.join(&free))?;
    Ok(format!(
        "{}: unknown file, moved it to {}; delete it if it is not needed",
        data_dir.join(name).display(),
        dir.join(free).display()
    ))
}

/// Returns a warning with the number and size of files in quarantine, if there are any.
pub(super) fn warning(fs: &mut dyn Fs, data_dir: &Path) -> Option<String> {
    let dir = data_dir.join(QUARANTINE);
    let (mut files, mut bytes, mut seen) = (0, 0, 0);
    let mut dirs = vec![dir.clone()];
    while seen < COUNTED_MAX
        && let Some(at) = dirs.pop()
    {
        // The folder may not exist, and unreadable folders are skipped.
        for entry in fs.list(&at).unwrap_or_default() {
            seen += 1;
            if entry.is_dir {
                dirs.push(at.join(&entry.name));
            } else {
                files += 1;
                bytes += entry.bytes;
            }
        }
    }
    let at_least = if dirs.is_empty() { "" } else { "at least " };
    (files > 0).then(|| {
        format!(
            "{}: {at_least}{} with {} bytes in quarantine; delete those that are not needed",
            dir.display(),
            counted(files, "file"),
            grouped(bytes),
        )
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use highwater_protocol::ids::{ClusterId, NodeId};
    use highwater_replication::join::DiskId;
    use highwater_runtime::sim::DiskHarness;

    use super::super::{Identity, open};
    use super::*;

    fn dir() -> PathBuf {
        PathBuf::from("/data")
    }

    fn whose() -> Identity {
        Identity::founder(ClusterId([1; 16]), NodeId(0), DiskId([2; 16]))
    }

    fn put(disk: &mut DiskHarness, name: &str, content: &[u8]) {
        let file = disk.replace_file(&dir().join(name), content, 4096).expect("written");
        disk.close_file(file);
    }

    #[test]
    fn unknown_files_in_a_brokers_directory_are_moved_to_quarantine() {
        let mut disk = DiskHarness::new(1);
        open(&mut disk, &dir(), whose()).expect("new");
        for round in 1..3 {
            put(&mut disk, "notes.txt", b"somebody's");
            put(&mut disk, "store-1", b"not a store's name");
            let opened = open(&mut disk, &dir(), whose()).expect("there");
            let [notes, _, held] = &opened.warnings[..] else { panic!("{:?}", opened.warnings) };
            let to = if round == 1 { "notes.txt" } else { "notes.txt.1" };
            assert!(notes.starts_with("/data/notes.txt: "), "{notes}");
            assert!(notes.contains(&format!("moved it to /data/quarantine/{to};")), "{notes}");
            assert!(notes.contains("delete it if"), "{notes}");
            let what =
                format!("/data/quarantine: {} files with {} bytes", 2 * round, grouped(2 * round * 4096));
            assert!(held.starts_with(&what), "{held}");
            assert_eq!(opened.stores, 0);
        }
        let names: Vec<String> =
            disk.list(&dir().join(QUARANTINE)).expect("listed").into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["notes.txt", "notes.txt.1", "store-1", "store-1.1"]);
    }

    #[test]
    fn every_start_reports_the_contents_of_quarantine_until_they_are_deleted() {
        let mut disk = DiskHarness::new(1);
        open(&mut disk, &dir(), whose()).expect("new");
        disk.create_dir_all(&dir().join("quarantine/store-000")).expect("made");
        put(&mut disk, "quarantine/store-000/slab-000000", b"what is left of it");
        for _ in 0..2 {
            let opened = open(&mut disk, &dir(), whose()).expect("there");
            let [held] = &opened.warnings[..] else { panic!("{:?}", opened.warnings) };
            assert!(held.contains("1 file with 4,096 bytes"), "{held}");
        }
        disk.remove_file(&dir().join("quarantine/store-000/slab-000000")).expect("there");
        let opened = open(&mut disk, &dir(), whose()).expect("there");
        assert_eq!(opened.warnings, Vec::<String>::new());
    }

    #[test]
    fn temporary_files_of_interrupted_starts_do_not_pile_up_in_quarantine() {
        let mut disk = DiskHarness::new(1);
        open(&mut disk, &dir(), whose()).expect("new");
        for name in ["meta.a.tmp", "meta.mark.tmp", "offsets.b.tmp", "identity.tmp", "reserve.tmp"] {
            put(&mut disk, name, b"half");
        }
        let opened = open(&mut disk, &dir(), whose()).expect("there");
        assert_eq!(opened.warnings, Vec::<String>::new());
        let left = disk.list(&dir()).expect("listed");
        assert!(left.iter().all(|entry| !entry.name.contains(".tmp")), "{left:?}");
        assert!(disk.list(&dir().join(QUARANTINE)).is_err(), "nothing was moved there");
    }
}
