//! The mark of a state log, `X.mark`: which generation its files have reached.
//!
//! It tells a log that was lost, or put back from an old copy, from one that never was or never got further. It is written
//! after the files, in place, once both have a generation: so the files are never older than it unless somebody has changed them. Without a
//! mark, or with one that is damaged, nothing is known and the files are believed.

use std::path::{Path, PathBuf};

use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::fs::{FileId, OpenMode, is_out_of_space};
use highwater_runtime::plane::Disk;

use super::format::{BLOCK_BYTES, Owner};

/// How a mark begins, after its checksum: "HWSM".
const MARK_MAGIC: u32 = u32::from_le_bytes(*b"HWSM");

/// Bytes of its fields; the rest of its block is zero.
const FIELD_BYTES: usize = 40;

/// Where the mark of a log is.
pub(crate) fn mark_path(stem: &Path) -> PathBuf {
    let mut path = stem.as_os_str().to_os_string();
    path.push(".mark");
    path.into()
}

/// The block that says this.
pub(super) fn encode(owner: Owner, generation: u64) -> AlignedBuf {
    let mut block = AlignedBuf::zeroed(BLOCK_BYTES);
    block[4..8].copy_from_slice(&MARK_MAGIC.to_le_bytes());
    block[8..12].copy_from_slice(&owner.purpose);
    block[12..16].copy_from_slice(&u32::from(owner.number).to_le_bytes());
    block[16..32].copy_from_slice(&owner.cluster.0);
    block[32..FIELD_BYTES].copy_from_slice(&generation.to_le_bytes());
    let crc = crc32c::crc32c(&block[4..]);
    block[..4].copy_from_slice(&crc.to_le_bytes());
    block
}

/// The generation that a block names, if it is a mark of this owner's.
fn decode(owner: Owner, block: &[u8]) -> Option<u64> {
    let (fields, _) = block.split_first_chunk::<FIELD_BYTES>()?;
    let generation = u64::from_le_bytes(*fields.last_chunk::<8>()?);
    (block == &encode(owner, generation)[..]).then_some(generation)
}

/// The generation in the mark of a log. `None`: there is no valid mark.
pub(super) fn read(disk: &mut dyn Disk, path: &Path, owner: Owner) -> Option<u64> {
    let file = disk.open(path, OpenMode::Read).ok()?;
    let mut block = vec![0; BLOCK_BYTES];
    let read = disk.read_at(file, 0, &mut block);
    disk.close_file(file);
    read.ok().filter(|read| *read == BLOCK_BYTES).and_then(|_| decode(owner, &block))
}

/// Opens the mark of a log, making or mending it so that it names this generation. `None`: there is no space for it.
pub(super) fn open(
    disk: &mut dyn Disk,
    path: &Path,
    owner: Owner,
    generation: u64,
) -> std::io::Result<Option<FileId>> {
    if read(disk, path, owner) == Some(generation)
        && let Ok(file) = disk.open(path, OpenMode::ReadWrite)
    {
        return Ok(Some(file));
    }
    match disk.replace_file(path, &encode(owner, generation), BLOCK_BYTES as u64) {
        Ok(file) => Ok(Some(file)),
        Err(e) if is_out_of_space(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use highwater_protocol::ids::ClusterId;

    use super::*;

    #[test]
    fn a_mark_is_believed_by_its_owner_and_when_every_bit_of_it_is_right() {
        let owner = Owner { purpose: *b"STOR", cluster: ClusterId([3; 16]), number: 7 };
        let block = encode(owner, 99);
        assert_eq!(decode(owner, &block), Some(99));
        assert_eq!(decode(Owner { number: 8, ..owner }, &block), None);
        assert_eq!(decode(Owner { cluster: ClusterId([4; 16]), ..owner }, &block), None);
        for bit in 0..BLOCK_BYTES * 8 {
            let mut bad = block.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(owner, &bad), None, "bit {bit}");
        }
        assert_eq!(decode(owner, &block[..100]), None);
    }
}
