//! Blocking calls of the simulated disk, which take no time.

use std::io;
use std::path::Path;

use bytes::Bytes;

use super::disk::{SimDisk, check_aligned, errno};
use super::ledger::Event;
use crate::fs::{DirEntry, FileId, Fs, OpenMode};
use crate::plane::{Completion, FileJob};

impl Fs for SimDisk {
    fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if path.ancestors().any(|part| state.ledger.names().contains_key(part)) {
            return Err(errno(libc::EEXIST));
        }
        state.log(Event::DirCreated(path.to_path_buf()));
        Ok(())
    }

    fn list(&mut self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.state();
        if !state.is_dir(dir) {
            return Err(errno(libc::ENOENT));
        }
        let name = |path: &Path| {
            let name = path.file_name().filter(|_| path.parent() == Some(dir))?;
            Some(name.to_string_lossy().into_owned())
        };
        let dirs = state
            .ledger
            .dirs()
            .iter()
            .filter_map(|path| Some(DirEntry { name: name(path)?, is_dir: true, bytes: 0 }));
        let files = state.ledger.names().iter().filter_map(|(path, inode)| {
            Some(DirEntry { name: name(path)?, is_dir: false, bytes: state.file(*inode).content.bytes() })
        });
        let mut all: Vec<DirEntry> = dirs.chain(files).collect();
        all.sort();
        Ok(all)
    }

    fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<FileId> {
        let mut state = self.state();
        let inode = *state.ledger.names().get(path).ok_or_else(|| errno(libc::ENOENT))?;
        Ok(state.open_inode(inode, mode))
    }

    fn file_bytes(&mut self, file: FileId) -> io::Result<u64> {
        let state = self.state();
        Ok(state.file(state.inode(file)).content.bytes())
    }

    fn allocated_bytes(&mut self, file: FileId) -> io::Result<u64> {
        let state = self.state();
        Ok(state.file(state.inode(file)).content.allocated_bytes())
    }

    fn read_at(&mut self, file: FileId, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        check_aligned(at, buf.len());
        let mut state = self.state();
        let inode = state.inode(file);
        state.read(inode, at, buf)
    }

    fn write_at(&mut self, file: FileId, at: u64, data: &[u8]) -> io::Result<()> {
        self.state().write_now(file, at, data)
    }

    fn sync_file(&mut self, file: FileId) -> io::Result<()> {
        self.state().sync_now(file)
    }

    fn close_file(&mut self, file: FileId) {
        let mut state = self.state();
        assert!(state.open.remove(&file).is_some(), "{file:?} is not open");
        state.forget_unused();
    }

    fn create_file(&mut self, path: &Path, bytes: u64) -> io::Result<FileId> {
        self.state().create_now(FileJob::Create { path: path.to_path_buf(), bytes })
    }

    fn replace_file(&mut self, path: &Path, content: &[u8], bytes: u64) -> io::Result<FileId> {
        let content = vec![Bytes::copy_from_slice(content)];
        self.state().create_now(FileJob::Replace { path: path.to_path_buf(), content, bytes })
    }

    fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        match self.state().job_now(FileJob::Remove { path: path.to_path_buf() }) {
            Completion::Removed(result) => result,
            other => unreachable!("a removal completed as {other:?}"),
        }
    }

    fn free_bytes(&mut self, _dir: &Path) -> io::Result<u64> {
        let state = self.state();
        Ok(state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used_bytes())))
    }

    fn total_bytes(&mut self, _dir: &Path) -> io::Result<u64> {
        Ok(self.state().capacity.unwrap_or(u64::MAX))
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.ledger.names().contains_key(from) || !state.is_dir(to.parent().unwrap_or(Path::new(""))) {
            return Err(errno(libc::ENOENT));
        }
        if from != to {
            state.renamed(from, to);
        }
        Ok(())
    }
}
