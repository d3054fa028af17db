//! File content as shared 4 KiB blocks: a copy costs a few pointers, and thousands of disk images fit in memory at once.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use crate::buf::PAGE_BYTES;

/// Unit in which a write can be torn.
pub(super) const SECTOR_BYTES: usize = 512;

/// A block. Blocks are never changed, only replaced.
pub(super) type Block = Arc<[u8; PAGE_BYTES]>;

/// The content of a block without space on the disk. It reads as zero bytes.
static HOLE: LazyLock<Block> = LazyLock::new(|| Arc::new([0; PAGE_BYTES]));

/// Returns the content of a hole.
pub(super) fn hole() -> Block {
    HOLE.clone()
}

/// Returns whether a block has no space on the disk.
pub(super) fn is_hole(block: Option<&Block>) -> bool {
    block.is_some_and(|block| Arc::ptr_eq(block, &HOLE))
}

/// Blocks that are shared or copied together.
const CHUNK_BLOCKS: usize = 64;

/// The content of a file. Blocks that were never written are absent and read as zero bytes.
#[derive(Clone, Default)]
pub(super) struct Blocks {
    bytes: u64,
    /// Blocks without space on the disk.
    holes: usize,
    chunks: Vec<Option<Arc<Chunk>>>,
}

#[derive(Clone)]
struct Chunk([Option<Block>; CHUNK_BLOCKS]);

impl Blocks {
    pub(super) fn zeroed(bytes: u64) -> Self {
        let chunks = bytes.div_ceil((PAGE_BYTES * CHUNK_BLOCKS) as u64);
        Self { bytes, holes: 0, chunks: vec![None; chunks as usize] }
    }

    pub(super) fn with_content(content: &[u8], bytes: u64) -> Self {
        let mut blocks = Self::zeroed(bytes.max(content.len() as u64));
        for (at, block) in split(content).into_iter().enumerate() {
            blocks.set(at, Some(block));
        }
        blocks
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn allocated_bytes(&self) -> u64 {
        self.bytes - (self.holes * PAGE_BYTES) as u64
    }

    pub(super) fn is_hole(&self, block: usize) -> bool {
        is_hole(self.get(block))
    }

    /// Gives the holes among these blocks space.
    pub(super) fn allocate(&mut self, blocks: Range<usize>) {
        for block in blocks {
            if self.is_hole(block) {
                self.set(block, None);
            }
        }
    }

    pub(super) fn get(&self, block: usize) -> Option<&Block> {
        self.chunks.get(block / CHUNK_BLOCKS)?.as_ref()?.0[block % CHUNK_BLOCKS].as_ref()
    }

    pub(super) fn set(&mut self, block: usize, content: Option<Block>) {
        assert!(
            block < self.bytes.div_ceil(PAGE_BYTES as u64) as usize,
            "block {block} is after the end of the file"
        );
        let (before, after) = (self.is_hole(block), is_hole(content.as_ref()));
        self.holes = self.holes + usize::from(after) - usize::from(before);
        let slot = &mut self.chunks[block / CHUNK_BLOCKS];
        if content.is_none() && slot.is_none() {
            return;
        }
        let chunk = slot.get_or_insert_with(|| Arc::new(Chunk([const { None }; CHUNK_BLOCKS])));
        Arc::make_mut(chunk).0[block % CHUNK_BLOCKS] = content;
    }

    /// Replaces the 512-byte sectors of a block that are set in `mask`, one bit per sector.
    pub(super) fn set_sectors(&mut self, block: usize, content: &Block, mask: u8) {
        match mask {
            0 => {}
            0xFF => self.set(block, Some(content.clone())),
            _ => {
                let mut mixed = self.get(block).map_or([0; PAGE_BYTES], |old| **old);
                copy_sectors(&mut mixed, &content[..], mask);
                self.set(block, Some(Arc::new(mixed)));
            }
        }
    }

    /// Fills `buf` from position `at`, a multiple of the block size, up to the end of the file. Returns the bytes read.
    pub(super) fn read(&self, at: u64, buf: &mut [u8]) -> usize {
        let len = self.bytes.saturating_sub(at).min(buf.len() as u64) as usize;
        let first = at as usize / PAGE_BYTES;
        for (n, part) in buf[..len].chunks_mut(PAGE_BYTES).enumerate() {
            match self.get(first + n) {
                Some(block) => part.copy_from_slice(&block[..part.len()]),
                None => part.fill(0),
            }
        }
        len
    }
}

/// Splits content into blocks, the last one padded with zero bytes.
pub(super) fn split(content: &[u8]) -> Vec<Block> {
    content
        .chunks(PAGE_BYTES)
        .map(|part| {
            let mut block = [0; PAGE_BYTES];
            block[..part.len()].copy_from_slice(part);
            Arc::new(block)
        })
        .collect()
}

/// Copies the sectors that are set in `mask`.
pub(super) fn copy_sectors(to: &mut [u8], from: &[u8], mask: u8) {
    for (n, (to, from)) in to.chunks_mut(SECTOR_BYTES).zip(from.chunks(SECTOR_BYTES)).enumerate() {
        if mask & (1 << n) != 0 {
            to.copy_from_slice(from);
        }
    }
}

/// The complete content of a disk. Cheap to copy.
#[derive(Clone, Default)]
pub struct DiskImage {
    pub(super) dirs: BTreeSet<PathBuf>,
    pub(super) files: BTreeMap<PathBuf, Blocks>,
}

impl DiskImage {
    /// Returns the files and their sizes, sorted by path.
    pub fn files(&self) -> impl Iterator<Item = (&Path, u64)> {
        self.files.iter().map(|(path, content)| (path.as_path(), content.bytes()))
    }

    /// Returns the content of a file.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let content = self.files.get(path)?;
        let mut bytes = vec![0; content.bytes() as usize];
        content.read(0, &mut bytes);
        Some(bytes)
    }

    /// Adds or replaces a file. Its directory must exist.
    pub fn put(&mut self, path: &Path, content: &[u8]) {
        self.files.insert(path.to_path_buf(), Blocks::with_content(content, content.len() as u64));
    }

    /// Removes a file.
    pub fn remove(&mut self, path: &Path) {
        self.files.remove(path);
    }
}

impl std::fmt::Debug for DiskImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.files()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_does_not_see_writes_to_the_original() {
        let mut original = Blocks::with_content(&[1; 10_000], 300 * 4096);
        let copy = original.clone();
        original.set(1, Some(Arc::new([9; PAGE_BYTES])));
        let mut buf = vec![7; 3 * PAGE_BYTES];
        assert_eq!(copy.read(0, &mut buf), buf.len());
        assert!(buf[..10_000].iter().all(|b| *b == 1) && buf[10_000..].iter().all(|b| *b == 0));
        original.read(4096, &mut buf);
        assert_eq!((buf[0], buf[4095], buf[4096]), (9, 9, 1));
        assert_eq!(original.read(299 * 4096, &mut buf), 4096, "a read at the end is short");
    }

    #[test]
    fn a_hole_reads_as_zero_bytes_and_has_no_space_until_it_is_allocated() {
        let mut content = Blocks::with_content(&[1; 4 * PAGE_BYTES], 4 * PAGE_BYTES as u64);
        content.set(1, Some(hole()));
        content.set_sectors(2, &hole(), 0xFF);
        content.set_sectors(3, &hole(), 0x0F);
        assert_eq!(content.allocated_bytes(), 2 * PAGE_BYTES as u64);
        let mut buf = vec![7; 4 * PAGE_BYTES];
        content.read(0, &mut buf);
        let found: Vec<u8> = buf.chunks(PAGE_BYTES / 2).map(|half| half[0]).collect();
        assert_eq!(found, [1, 1, 0, 0, 0, 0, 0, 1]);
        content.allocate(0..2);
        assert!(!content.is_hole(1) && content.is_hole(2));
        content.set(2, Some(Arc::new([5; PAGE_BYTES])));
        assert_eq!(content.allocated_bytes(), 4 * PAGE_BYTES as u64);
    }

    #[test]
    fn a_mask_replaces_single_sectors() {
        let mut content = Blocks::with_content(&[1; PAGE_BYTES], 4096);
        content.set_sectors(0, &Arc::new([2; PAGE_BYTES]), 0b1000_0001);
        let mut buf = [0; PAGE_BYTES];
        content.read(0, &mut buf);
        let sectors: Vec<u8> = buf.chunks(SECTOR_BYTES).map(|s| s[0]).collect();
        assert_eq!(sectors, [2, 1, 1, 1, 1, 1, 1, 2]);
    }
}
