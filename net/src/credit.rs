//! How much a subscription may still be sent.

use highwater_protocol::limits::CREDIT_BYTES_MAX;

/// Bytes of frames that may be sent before the client releases some.
///
/// A frame larger than what is left is sent all the same, once: otherwise a client with little credit would wait for ever. The debt is
/// paid back first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CreditLine {
    left: i64,
}

impl CreditLine {
    /// A line of that many bytes; none if that is over the limit.
    pub fn new(bytes: u64) -> Option<Self> {
        (bytes <= CREDIT_BYTES_MAX).then_some(Self { left: bytes as i64 })
    }

    /// Whether anything may be sent.
    pub fn is_open(&self) -> bool {
        self.left > 0
    }

    /// Bytes that may be sent.
    pub fn left(&self) -> usize {
        usize::try_from(self.left).unwrap_or(0)
    }

    /// That many bytes of frames were sent.
    pub fn spend(&mut self, bytes: usize) {
        assert!(self.is_open(), "nothing is sent without credit");
        self.left -= bytes as i64;
    }

    /// The client released bytes. False if it thereby holds more than the limit: it counts wrongly.
    #[must_use]
    pub fn add(&mut self, bytes: u64) -> bool {
        // What is released at once may be more than the limit: a frame that is larger left a debt.
        let left = i64::try_from(bytes).ok().and_then(|bytes| self.left.checked_add(bytes));
        match left.filter(|left| *left <= CREDIT_BYTES_MAX as i64) {
            Some(left) => {
                self.left = left;
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
        assert_eq!(line.left(), 100);
    }

    #[test]
    fn one_frame_may_exceed_what_is_left_and_its_debt_is_paid_first() {
        let mut line = CreditLine::new(100).expect("under the limit");
        line.spend(40);
        assert_eq!(line.left(), 60);
        line.spend(500);
        assert!(!line.is_open());
        assert!(line.add(440));
        assert!(!line.is_open(), "440 bytes only pay the debt");
        assert!(line.add(1));
        assert_eq!(line.left(), 1);
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
