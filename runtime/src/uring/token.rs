//! What a completion is about, packed into the 64 bits that io_uring carries.

use crate::slab::Key;

const INDEX_BITS: u32 = 28;
const KIND_SHIFT: u32 = 60;

/// An operation in the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Op {
    /// Accepting from the listener of this index.
    Accept(u16),
    /// The one receive of a connection.
    Recv(Key),
    /// The one send of a connection.
    Send(Key),
    /// A disk operation.
    Disk(Key),
    /// Reading the bell that other threads ring.
    Doorbell,
    /// The timeout that ends a park.
    Deadline,
    /// Another shard's ring has woken this one.
    Woken,
    /// An operation whose result tells nothing: a cancellation, a wake-up sent.
    Quiet,
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
            Self::Quiet => (8, Key { index: 0, generation: 0 }),
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
            8 => Self::Quiet,
            kind => unreachable!("completion of an operation of kind {kind} that was never started"),
        }
    }

    /// Whether its memory and file are in use until its last completion, which is awaited before a ring ends.
    pub(super) fn is_awaited(self) -> bool {
        !matches!(self, Self::Woken | Self::Quiet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_survives_packing() {
        let key = Key { index: (1 << INDEX_BITS) - 1, generation: u32::MAX };
        for op in [
            Op::Accept(u16::MAX),
            Op::Recv(key),
            Op::Send(key),
            Op::Disk(Key { index: 0, generation: 7 }),
            Op::Doorbell,
            Op::Deadline,
            Op::Woken,
            Op::Quiet,
        ] {
            assert_eq!(Op::unpack(op.pack()), op);
        }
    }
}
