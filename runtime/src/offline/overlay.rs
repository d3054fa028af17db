//! A file system whose changes are only in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::buf::PAGE_BYTES;
use crate::fs::{DirEntry, FileId, Fs, OpenMode};

/// Bytes of changes that an [`Overlay`] keeps. Writes beyond it fail.
pub const OVERLAY_BYTES_MAX: usize = 1 << 30;

/// Shows another file system with changes that are never written to it: a tool can find out what an operation would do.
pub struct Overlay<'a> {
    base: &'a mut dyn Fs,
    /// By [`FileId`].
    files: Vec<OverlayFile>,
    /// Files that were opened or changed; `None`: there is no file with this name any more.
    names: BTreeMap<PathBuf, Option<FileId>>,
    /// Directories that were created.
    dirs: BTreeSet<PathBuf>,
    /// Directories that were renamed. What was in them cannot be reached under the new name.
    dirs_gone: BTreeSet<PathBuf>,
    bytes: usize,
}

/// A file: what it is in the base, and the pages that were written since.
struct OverlayFile {
    base: Option<FileId>,
    bytes: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE_BYTES]>>,
}

impl<'a> Overlay<'a> {
    /// Creates an overlay without changes.
    pub fn new(base: &'a mut dyn Fs) -> Self {
        Self {
            base,
            files: Vec::new(),
            names: BTreeMap::new(),
            dirs: BTreeSet::new(),
            dirs_gone: BTreeSet::new(),
            bytes: 0,
        }
    }

    fn add(&mut self, path: &Path, base: Option<FileId>, bytes: u64) -> FileId {
        let id = FileId(u32::try_from(self.files.len()).expect("a tool opens few files"));
        self.files.push(OverlayFile { base, bytes, pages: BTreeMap::new() });
        self.names.insert(path.to_path_buf(), Some(id));
        id
    }

    fn file(&self, id: FileId) -> io::Result<&OverlayFile> {
        self.files.get(id.0 as usize).ok_or_else(|| io::Error::other("a file that is not open"))
    }

    /// Returns the file with this name; opens it in the base if it was not needed so far.
    fn find(&mut self, path: &Path) -> io::Result<FileId> {
        if let Some(known) = self.names.get(path) {
            return known.ok_or_else(|| io::ErrorKind::NotFound.into());
        }
        let base = self.base.open(path, OpenMode::Read)?;
        let bytes = self.base.file_bytes(base)?;
        Ok(self.add(path, Some(base), bytes))
    }

    fn exists(&mut self, path: &Path) -> bool {
        self.find(path).is_ok()
    }

    fn is_dir(&mut self, path: &Path) -> bool {
        self.dirs.contains(path) || (!self.dirs_gone.contains(path) && self.base.list(path).is_ok())
    }

    /// Fills a page with what is in the file, zero bytes after its end.
    fn read_page(&mut self, id: FileId, at: u64, page: &mut [u8]) -> io::Result<()> {
        let file = self.file(id)?;
        if let Some(changed) = file.pages.get(&at) {
            page.copy_from_slice(&changed[..page.len()]);
            return Ok(());
        }
        let read = match file.base {
            Some(base) => self.base.read_at(base, at, page)?,
            None => 0,
        };
        page[read..].fill(0);
        Ok(())
    }

    fn put(&mut self, id: FileId, at: u64, data: &[u8]) -> io::Result<()> {
        let mut rest = data;
        while !rest.is_empty() {
            let position = at + (data.len() - rest.len()) as u64;
            let within = (position % PAGE_BYTES as u64) as usize;
            let (now, later) = rest.split_at(rest.len().min(PAGE_BYTES - within));
            let place = position - within as u64;
            let mut page = Box::new([0; PAGE_BYTES]);
            if now.len() < PAGE_BYTES {
                self.read_page(id, place, &mut page[..])?;
            }
            page[within..within + now.len()].copy_from_slice(now);
            if self.bytes >= OVERLAY_BYTES_MAX {
                return Err(io::Error::other(format!(
                    "more than {OVERLAY_BYTES_MAX} bytes would be changed"
                )));
            }
            let file = self.files.get_mut(id.0 as usize).expect("its page was read");
            self.bytes += usize::from(file.pages.insert(place, page).is_none()) * PAGE_BYTES;
            file.bytes = file.bytes.max(position + now.len() as u64);
            rest = later;
        }
        Ok(())
    }
}

impl Fs for Overlay<'_> {
    fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        if !self.is_dir(path) {
            self.dirs.extend(path.ancestors().map(Path::to_path_buf));
        }
        Ok(())
    }

    fn list(&mut self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        if !self.is_dir(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut entries =
            if self.dirs_gone.contains(dir) { Vec::new() } else { self.base.list(dir).unwrap_or_default() };
        entries.retain(|entry| {
            let path = dir.join(&entry.name);
            !self.names.contains_key(&path) && !self.dirs.contains(&path) && !self.dirs_gone.contains(&path)
        });
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for (path, file) in self.names.iter().filter(|(path, _)| path.parent() == Some(dir)) {
            let Some(file) = file else { continue };
            let bytes = self.file(*file)?.bytes;
            entries.push(DirEntry { name: name(path), is_dir: false, bytes });
        }
        for path in self.dirs.iter().filter(|path| path.parent() == Some(dir)) {
            entries.push(DirEntry { name: name(path), is_dir: true, bytes: 0 });
        }
        entries.sort();
        Ok(entries)
    }

    fn open(&mut self, path: &Path, _: OpenMode) -> io::Result<FileId> {
        self.find(path)
    }

    fn file_bytes(&mut self, file: FileId) -> io::Result<u64> {
        Ok(self.file(file)?.bytes)
    }

    fn allocated_bytes(&mut self, file: FileId) -> io::Result<u64> {
        let OverlayFile { base, bytes, .. } = *self.file(file)?;
        match base {
            Some(base) => self.base.allocated_bytes(base),
            None => Ok(bytes),
        }
    }

    fn read_at(&mut self, file: FileId, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        let OverlayFile { base, bytes, ref pages } = *self.file(file)?;
        let len = usize::try_from(bytes.saturating_sub(at)).unwrap_or(usize::MAX).min(buf.len());
        let buf = &mut buf[..len];
        let end = at + len as u64;
        let first = at - at % PAGE_BYTES as u64;
        let is_aligned = first == at && len.is_multiple_of(PAGE_BYTES);
        if let (Some(base), true, None) = (base, is_aligned, pages.range(first..end).next()) {
            // Nothing of it was changed.
            let read = self.base.read_at(base, at, buf)?;
            buf[read..].fill(0);
            return Ok(len);
        }
        let mut page = [0; PAGE_BYTES];
        for place in (first..end).step_by(PAGE_BYTES) {
            self.read_page(file, place, &mut page)?;
            let from = place.max(at);
            let to = (place + PAGE_BYTES as u64).min(end);
            let within = (from - place) as usize..(to - place) as usize;
            buf[(from - at) as usize..(to - at) as usize].copy_from_slice(&page[within]);
        }
        Ok(len)
    }

    fn write_at(&mut self, file: FileId, at: u64, data: &[u8]) -> io::Result<()> {
        self.file(file)?;
        self.put(file, at, data)
    }

    fn sync_file(&mut self, file: FileId) -> io::Result<()> {
        self.file(file).map(|_| ())
    }

    fn close_file(&mut self, _: FileId) {
        // Others may have the same file open. Everything is closed with the overlay.
    }

    fn create_file(&mut self, path: &Path, bytes: u64) -> io::Result<FileId> {
        if self.exists(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(self.add(path, None, bytes))
    }

    fn replace_file(&mut self, path: &Path, content: &[u8], bytes: u64) -> io::Result<FileId> {
        let file = self.add(path, None, bytes.max(content.len() as u64));
        self.put(file, 0, content)?;
        Ok(file)
    }

    fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.names.insert(path.to_path_buf(), None);
        Ok(())
    }

    fn free_bytes(&mut self, dir: &Path) -> io::Result<u64> {
        self.base.free_bytes(dir)
    }

    fn total_bytes(&mut self, dir: &Path) -> io::Result<u64> {
        self.base.total_bytes(dir)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if self.is_dir(from) {
            self.dirs.retain(|dir| !dir.starts_with(from));
            self.dirs_gone.insert(from.to_path_buf());
            self.dirs.insert(to.to_path_buf());
            return Ok(());
        }
        let file = self.find(from)?;
        self.names.insert(from.to_path_buf(), None);
        self.names.insert(to.to_path_buf(), Some(file));
        Ok(())
    }
}

impl Drop for Overlay<'_> {
    fn drop(&mut self) {
        for base in self.files.iter().filter_map(|file| file.base) {
            self.base.close_file(base);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::osfs::OsFs;

    /// A directory with a file `f` of two pages of ones.
    fn base() -> (tempfile::TempDir, OsFs) {
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::write(dir.path().join("f"), [1; 2 * PAGE_BYTES]).expect("a temporary file");
        (dir, OsFs::new())
    }

    fn read(fs: &mut dyn Fs, path: &Path) -> Vec<u8> {
        let file = fs.open(path, OpenMode::Read).expect("it is there");
        let mut bytes = vec![0; usize::try_from(fs.file_bytes(file).expect("a size")).expect("small")];
        assert_eq!(fs.read_at(file, 0, &mut bytes).expect("read"), bytes.len());
        bytes
    }

    fn names(fs: &mut dyn Fs, dir: &Path) -> Vec<String> {
        fs.list(dir).expect("listed").into_iter().map(|entry| entry.name).collect()
    }

    #[test]
    fn writes_are_seen_by_readers_of_the_overlay_and_not_in_the_base() {
        let (dir, mut os) = base();
        let path = dir.path().join("f");
        let mut fs = Overlay::new(&mut os);
        let file = fs.open(&path, OpenMode::ReadWrite).expect("opened");
        fs.write_at(file, 4096, &[2; PAGE_BYTES]).expect("written");
        fs.write_at(file, 10, &[3; 4]).expect("written");
        fs.write_at(file, 8192, &[4; PAGE_BYTES]).expect("written after the end");
        let bytes = read(&mut fs, &path);
        assert_eq!(bytes.len(), 3 * PAGE_BYTES);
        assert_eq!((&bytes[..10], &bytes[10..14], bytes[14]), (&[1; 10][..], &[3; 4][..], 1));
        assert!(bytes[4096..8192].iter().all(|b| *b == 2) && bytes[8192..].iter().all(|b| *b == 4));
        drop(fs);
        assert_eq!(std::fs::read(&path).expect("the file"), [1; 2 * PAGE_BYTES]);
    }

    #[test]
    fn names_change_in_the_overlay_only() {
        let (dir, mut os) = base();
        let path = |name: &str| dir.path().join(name);
        let mut fs = Overlay::new(&mut os);
        fs.rename(&path("f"), &path("g")).expect("renamed");
        fs.replace_file(&path("h"), b"content", 4096).expect("made");
        fs.create_dir_all(&path("d/e")).expect("made");
        assert_eq!(names(&mut fs, dir.path()), ["d", "g", "h"]);
        assert_eq!(names(&mut fs, &path("d")), ["e"]);
        assert_eq!(read(&mut fs, &path("g")), [1; 2 * PAGE_BYTES]);
        assert!(read(&mut fs, &path("h")).starts_with(b"content\0"));
        assert_eq!(fs.open(&path("f"), OpenMode::Read).map_err(|e| e.kind()), Err(io::ErrorKind::NotFound));
        let again = fs.create_file(&path("h"), 4096).map_err(|e| e.kind());
        assert_eq!(again, Err(io::ErrorKind::AlreadyExists));
        fs.remove_file(&path("g")).expect("removed");
        fs.rename(&path("d"), &path("e")).expect("renamed");
        assert_eq!(names(&mut fs, dir.path()), ["e", "h"]);
        drop(fs);
        assert_eq!(names(&mut os, dir.path()), ["f"]);
    }
}
