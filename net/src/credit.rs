//! Flow control of subscriptions: credit in bytes.

use highwater_protocol::limits::CREDIT_BYTES_MAX;

/// Bytes of frames that may be sent before the client returns credit.
///
/// A frame larger than the remaining credit is sent once, otherwise a client with little credit would wait forever. The credit is then
/// negative, and returned credit pays the debt first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CreditLine {
    remaining: i64,
}

impl CreditLine {
    /// Creates a credit line of `bytes`. Returns `None` if that is over the limit.
    pub fn new(bytes: u64) -> Option<Self> {
        (bytes <= CREDIT_BYTES_MAX).then_some(Self { remaining: bytes as i64 })
    }

    /// Returns whether anything may be sent.
    pub fn is_open(&self) -> bool {
        self.remaining > 0
    }

    /// Returns the number of bytes that may be sent.
    pub fn remaining(&self) -> usize {
        usize::try_from(self.remaining).unwrap_or(0)
    }

    /// Subtracts `bytes` of sent frames.
    pub fn spend(&mut self, bytes: usize) {
        assert!(self.is_open(), "nothing is sent without credit");
        self.remaining -= bytes as i64;
    }

    /// Adds credit returned by the client. Returns false if the client would hold more than the limit, which is a protocol violation.
    #[must_use]
    pub fn add(&mut self, bytes: u64) -> bool {
        // `bytes` alone may be over the limit, because a large frame leaves a large debt.
        let remaining = i64::try_from(bytes).ok().and_then(|bytes| self.remaining.checked_add(bytes));
        match remaining.filter(|remaining| *remaining <= CREDIT_BYTES_MAX as i64) {
            Some(remaining) => {
                self.remaining = remaining;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_debt_of_a_frame_that_is_larger_than_the_limit_can_be_paid_at_once() {
        let mut line = CreditLine::new(100).expect("under the limit");
        line.spend(2 * CREDIT_BYTES_MAX as usize);
        assert!(!line.add(u64::MAX) && !line.add(3 * CREDIT_BYTES_MAX), "more than was sent");
        assert!(line.add(2 * CREDIT_BYTES_MAX));
        assert_eq!(line.remaining(), 100);
    }

    #[test]
    fn one_frame_may_exceed_what_is_left_and_its_debt_is_paid_first() {
        let mut line = CreditLine::new(100).expect("under the limit");
        line.spend(40);
        assert_eq!(line.remaining(), 60);
        line.spend(500);
        assert!(!line.is_open());
        assert!(line.add(440));
        assert!(!line.is_open(), "440 bytes only pay the debt");
        assert!(line.add(1));
        assert_eq!(line.remaining(), 1);
    }

    #[test]
    fn nobody_holds_more_credit_than_the_limit() {
        assert_eq!(CreditLine::new(CREDIT_BYTES_MAX + 1), None);
        let mut line = CreditLine::new(CREDIT_BYTES_MAX).expect("the limit itself");
        assert!(!line.add(1));
        assert!(!line.add(u64::MAX));
        line.spend(10);
        assert!(line.add(10));
        assert!(!line.add(1));
    }
}
