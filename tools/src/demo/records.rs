//! The records of the demo: what is in each follows from its number.

use highwater_client::Record;

/// Customers, whose names are the keys.
const CUSTOMERS: u64 = 5_000;

/// What records are about.
const GOODS: [&str; 8] = ["tea", "coffee", "sugar", "flour", "rice", "salt", "pepper", "oil"];

/// The n-th record.
pub(super) fn record(n: u64) -> Record {
    Record::new(value(n)).key(key(n))
}

/// Its key.
pub(super) fn key(n: u64) -> String {
    format!("customer-{}", n % CUSTOMERS)
}

/// Its value, of about 100 bytes.
pub(super) fn value(n: u64) -> String {
    let goods = GOODS[(n % GOODS.len() as u64) as usize];
    // An arbitrary mixture, so that no two neighbours look the same.
    let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!(
        "{n:010} {goods}, {} kg at {}.{:02} each, to be delivered to house {} in street {:016x}",
        mixed % 90 + 10,
        mixed % 40,
        mixed % 100,
        mixed % 300,
        mixed
    )
}

/// The number of a record, which its value begins with.
pub(super) fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value.get(..10)?).ok()?.parse().ok()
}

/// Bytes of keys and values of the records from the first on.
pub(super) fn bytes(records: u64) -> u64 {
    // All are of about the same length; a sample will do.
    let sample = records.clamp(1, 1_000);
    let of_sample: usize = (0..sample).map(|n| key(n).len() + value(n).len()).sum();
    (of_sample as u64).saturating_mul(records) / sample
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_tells_the_number_of_its_record() {
        for n in [0, 1, 999_999, 9_999_999_999] {
            assert_eq!(number(value(n).as_bytes()), Some(n));
            assert!((75..=115).contains(&value(n).len()), "{}", value(n));
        }
        assert_eq!(number(b"short"), None);
        assert_eq!(number(b"not a number at all"), None);
    }
}
