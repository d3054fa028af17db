//! The operation of a completion, packed into io_uring's 64 bits of user data.

use crate::slab::Key;

const INDEX_BITS: u32 = 28;
const KIND_SHIFT: u32 = 60;

/// An operation in the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Op {
    /// Accepts from the listener with this index.
    Accept(u16),
    /// Connects a connection.
    Connect(Key),
    /// The receive of a connection.
    Recv(Key),
    /// The send of a connection.
    Send(Key),
    /// A write to the disk, or a sync.
    Disk(Key),
    /// Part of a read from the disk.
    ReadPiece(Key),
    /// Reads the doorbell, which other threads write to.
    Doorbell,
    /// The timeout that ends a park.
    Deadline,
    /// A wake-up from another shard's ring.
    Woken,
    /// An operation whose result is ignored: a cancellation, or a wake-up of another shard.
    Ignored,
}

impl Op {
    pub(super) fn pack(self) -> u64 {
        let (kind, key) = match self {
            Self::Accept(listener) => (1, Key { index: u32::from(listener), generation: 0 }),
            Self::Recv(key) => (2, key),
            Self::Send(key) => (3, key),
            Self::Disk(key) => (4, key),
            Self::Doorbell => (5, Key { index: 0, generation: 0 }),
            Self::Deadline => (6, Key { index: 0, generation: 0 }),
            Self::Woken => (7, Key { index: 0, generation: 0 }),
            Self::Ignored => (8, Key { index: 0, generation: 0 }),
            Self::Connect(key) => (9, key),
            Self::ReadPiece(key) => (10, key),
        };
        debug_assert!(key.index < 1 << INDEX_BITS);
        kind << KIND_SHIFT | u64::from(key.generation) << INDEX_BITS | u64::from(key.index)
    }

    pub(super) fn unpack(user_data: u64) -> Self {
        let index = (user_data & ((1 << INDEX_BITS) - 1)) as u32;
        let key = Key { index, generation: (user_data >> INDEX_BITS) as u32 };
        match user_data >> KIND_SHIFT {
            1 => Self::Accept(index as u16),
            2 => Self::Recv(key),
            3 => Self::Send(key),
            4 => Self::Disk(key),
            5 => Self::Doorbell,
            6 => Self::Deadline,
            7 => Self::Woken,
            8 => Self::Ignored,
            9 => Self::Connect(key),
            10 => Self::ReadPiece(key),
            kind => unreachable!("completion of an operation of kind {kind} that was never started"),
        }
    }

    /// Returns whether the operation uses memory or a file until its last completion, which must be awaited before the ring ends.
    pub(super) fn is_awaited(self) -> bool {
        !matches!(self, Self::Woken | Self::Ignored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_round_trips_through_packing() {
        let key = Key { index: (1 << INDEX_BITS) - 1, generation: u32::MAX };
        for op in [
            Op::Accept(u16::MAX),
            Op::Connect(key),
            Op::Recv(key),
            Op::Send(key),
            Op::Disk(Key { index: 0, generation: 7 }),
            Op::ReadPiece(key),
            Op::Doorbell,
            Op::Deadline,
            Op::Woken,
            Op::Ignored,
        ] {
            assert_eq!(Op::unpack(op.pack()), op);
        }
    }
}
