//! Files opened for reading, once each.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use highwater_runtime::fs::{DirEntry, FileId, Fs, OpenMode};

use super::InspectError;
use crate::journal::replay::Pages;
use crate::layout::{PAGE_BYTES, SlabId};
use crate::recovery::ExtentBytes;

/// Read-only access; closes what it opened.
pub(super) struct Files<'a> {
    fs: &'a mut dyn Fs,
    open: BTreeMap<PathBuf, FileId>,
    /// What the journals have for slabs, by file: a start would write it there.
    journaled: BTreeMap<FileId, (SlabId, Rc<Pages>)>,
}

impl<'a> Files<'a> {
    pub(super) fn new(fs: &'a mut dyn Fs) -> Self {
        Self { fs, open: BTreeMap::new(), journaled: BTreeMap::new() }
    }

    pub(super) fn list(&mut self, dir: &Path) -> Result<Vec<DirEntry>, InspectError> {
        self.fs.list(dir).map_err(|source| InspectError::Io { path: dir.to_path_buf(), source })
    }

    pub(super) fn open(&mut self, path: &Path) -> io::Result<FileId> {
        if let Some(file) = self.open.get(path) {
            return Ok(*file);
        }
        let file = self.fs.open(path, OpenMode::Read)?;
        self.open.insert(path.to_path_buf(), file);
        Ok(file)
    }

    pub(super) fn file_bytes(&mut self, file: FileId) -> io::Result<u64> {
        self.fs.file_bytes(file)
    }

    pub(super) fn allocated_bytes(&mut self, file: FileId) -> io::Result<u64> {
        self.fs.allocated_bytes(file)
    }

    /// Reads from a file; from a slab, with what the journal has for it.
    pub(super) fn read_at(&mut self, file: FileId, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.fs.read_at(file, at, buf)?;
        if let Some((slab, pages)) = self.journaled.get(&file) {
            for (n, page) in buf[..read].chunks_mut(PAGE_BYTES).enumerate() {
                if let Some(changed) = pages.changed(*slab, at + (n * PAGE_BYTES) as u64) {
                    page.copy_from_slice(&changed[..page.len()]);
                }
            }
        }
        Ok(read)
    }

    /// From here on reads of these slabs see what the journal has for them.
    pub(super) fn overlay(&mut self, slabs: &BTreeMap<SlabId, (FileId, u64)>, pages: Pages) {
        let pages = Rc::new(pages);
        self.journaled.extend(slabs.iter().map(|(slab, (file, _))| (*file, (*slab, Rc::clone(&pages)))));
    }

    /// An extent's bytes.
    pub(super) fn extent(&mut self, file: FileId, at: u64) -> ExtentOf<'_, 'a> {
        ExtentOf { files: self, file, at }
    }

    pub(super) fn fs(&mut self) -> &mut dyn Fs {
        self.fs
    }
}

impl Drop for Files<'_> {
    fn drop(&mut self) {
        for file in std::mem::take(&mut self.open).into_values() {
            self.fs.close_file(file);
        }
    }
}

/// One extent within a slab's file.
pub(super) struct ExtentOf<'f, 'a> {
    files: &'f mut Files<'a>,
    file: FileId,
    at: u64,
}

impl ExtentBytes for ExtentOf<'_, '_> {
    fn read_at(&mut self, at: u32, buf: &mut [u8]) -> io::Result<usize> {
        self.files.read_at(self.file, self.at + u64::from(at), buf)
    }
}
