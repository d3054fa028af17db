//! Credit in bytes of frames: a receiver grants it, a sender spends it.
//!
//! It bounds the memory that a peer's frames take before they are in the logs. Everything else that peers send has limits of its own. A sender with any
//! credit may send one entry that is larger; the credit is negative then, and what is granted pays the debt first.

use super::limits::CREDIT_BYTES_MAX;
use crate::mutants::{Mutant, is_planted};

/// The credit that the peer has granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SendCredit {
    /// Bytes granted and not spent.
    remaining: i64,
    /// Bytes promised to partitions that read from disk.
    reserved: u64,
    /// The first grant: the peer's whole credit.
    whole: u64,
}

impl SendCredit {
    /// Returns the bytes that may be sent and are not promised to anybody.
    pub(crate) fn available(&self) -> usize {
        usize::try_from(self.remaining.saturating_sub_unsigned(self.reserved)).unwrap_or(0)
    }

    /// Returns the share of the credit that partitions at the end of their logs can always use.
    pub(crate) fn tail_share(&self) -> usize {
        (self.whole / 2) as usize
    }

    /// Returns whether an entry may be sent.
    pub(crate) fn is_open(&self) -> bool {
        self.remaining > 0
    }

    pub(crate) fn spend(&mut self, bytes: usize) {
        assert!(bytes == 0 || self.is_open(), "nothing is sent without credit");
        self.remaining -= bytes as i64;
    }

    pub(crate) fn reserve(&mut self, bytes: usize) {
        self.reserved += bytes as u64;
    }

    pub(crate) fn unreserve(&mut self, bytes: usize) {
        self.reserved = self.reserved.checked_sub(bytes as u64).expect("what is given back was reserved");
    }

    /// Adds what the peer grants. Returns false if it is more than any peer may grant.
    #[must_use]
    pub(crate) fn add(&mut self, bytes: u64) -> bool {
        let remaining = i64::try_from(bytes).ok().and_then(|bytes| self.remaining.checked_add(bytes));
        let Some(remaining) = remaining.filter(|remaining| *remaining <= CREDIT_BYTES_MAX as i64) else {
            return false;
        };
        self.remaining = remaining;
        if self.whole == 0 {
            self.whole = bytes;
        }
        true
    }
}

/// The credit that the peer has from this side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ReceiveCredit {
    whole: u64,
    /// What the peer may still send, as far as this side knows. Negative after a large entry.
    outstanding: i64,
    /// Bytes that were received and are not in a log yet.
    held: u64,
    /// Bytes that the peer may get back.
    released: u64,
}

impl ReceiveCredit {
    /// Creates a credit of this many bytes, all of which is still to be granted.
    pub(crate) fn new(whole: u64) -> Self {
        assert!((1..=CREDIT_BYTES_MAX).contains(&whole), "credit of {whole} bytes");
        Self { whole, outstanding: 0, held: 0, released: whole }
    }

    /// Notes an entry that begins to arrive. Returns false if the peer had no credit for it.
    #[must_use]
    pub(crate) fn receive(&mut self, bytes: usize) -> bool {
        if bytes > 0 && self.outstanding <= 0 {
            return false;
        }
        self.outstanding -= bytes as i64;
        self.held += bytes as u64;
        true
    }

    /// Notes that frames have left the memory that they were received into.
    pub(crate) fn release(&mut self, bytes: usize) {
        self.held = self.held.checked_sub(bytes as u64).expect("frames are released once");
        if is_planted(Mutant::CreditNotReturned) && self.released > 0 {
            return;
        }
        self.released += bytes as u64;
    }

    /// Takes what is to be granted now: a quarter of the whole, or anything if the peer has none left.
    pub(crate) fn take_grant(&mut self) -> Option<u64> {
        let due = self.released >= self.whole.div_ceil(4) || (self.outstanding <= 0 && self.released > 0);
        if !due {
            return None;
        }
        let bytes = std::mem::take(&mut self.released);
        self.outstanding += bytes as i64;
        Some(bytes)
    }

    /// Returns the bytes that were received and not released.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_entry_may_exceed_the_credit_and_its_debt_is_paid_first() {
        let (mut sender, mut receiver) = (SendCredit::default(), ReceiveCredit::new(100));
        assert!(!sender.is_open());
        assert!(sender.add(receiver.take_grant().expect("the whole credit")));
        for bytes in [60, 200] {
            sender.spend(bytes);
            assert!(receiver.receive(bytes));
        }
        assert!(!sender.is_open() && !receiver.receive(1));
        receiver.release(100);
        assert!(sender.add(receiver.take_grant().expect("the peer has none left")));
        assert!(!sender.is_open(), "it only pays the debt");
        receiver.release(160);
        assert!(sender.add(receiver.take_grant().expect("the rest")));
        assert_eq!((sender.available(), receiver.held()), (100, 0));
    }

    #[test]
    fn credit_is_granted_by_the_quarter_while_the_peer_has_some() {
        let mut receiver = ReceiveCredit::new(100);
        assert_eq!(receiver.take_grant(), Some(100));
        assert!(receiver.receive(50));
        receiver.release(24);
        assert_eq!(receiver.take_grant(), None);
        receiver.release(1);
        assert_eq!(receiver.take_grant(), Some(25));
        assert!(receiver.receive(75));
        receiver.release(1);
        assert_eq!(receiver.take_grant(), Some(1), "the peer has none left");
    }

    #[test]
    fn nobody_grants_more_than_the_limit() {
        let mut sender = SendCredit::default();
        assert!(!sender.add(u64::MAX) && !sender.add(CREDIT_BYTES_MAX + 1));
        assert!(sender.add(CREDIT_BYTES_MAX));
        assert!(!sender.add(1));
    }

    #[test]
    fn what_is_reserved_is_not_available() {
        let mut sender = SendCredit::default();
        assert!(sender.add(100));
        sender.reserve(70);
        assert_eq!((sender.available(), sender.tail_share()), (30, 50));
        sender.spend(50);
        assert_eq!(sender.available(), 0);
        sender.unreserve(70);
        assert_eq!(sender.available(), 50);
    }
}
