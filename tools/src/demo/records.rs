//! The records of the demo, each generated from its number.

use highwater_client::Record;

/// Number of distinct keys, each the name of a customer.
const CUSTOMERS: u64 = 5_000;

/// Products ordered in the values.
const PRODUCTS: [&str; 8] = ["tea", "coffee", "sugar", "flour", "rice", "salt", "pepper", "oil"];

/// Returns record `n`.
pub(super) fn record(n: u64) -> Record {
    Record::new(value(n)).key(key(n))
}

/// Returns the key of record `n`.
pub(super) fn key(n: u64) -> String {
    format!("customer-{}", n % CUSTOMERS)
}

/// Returns the value of record `n`, about 100 bytes.
pub(super) fn value(n: u64) -> String {
    let product = PRODUCTS[(n % PRODUCTS.len() as u64) as usize];
    // A hash, so that consecutive records differ.
    let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!(
        "{n:010} {product}, {} kg at {}.{:02} each, to be delivered to house {} in street {:016x}",
        mixed % 90 + 10,
        mixed % 40,
        mixed % 100,
        mixed % 300,
        mixed
    )
}

/// Parses the number of a record from the start of its value.
pub(super) fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value.get(..10)?).ok()?.parse().ok()
}

/// Estimates the size of the keys and values of the first `records` records, in bytes.
pub(super) fn bytes(records: u64) -> u64 {
    // Records have about the same size, so extrapolate from a sample.
    let sample = records.clamp(1, 1_000);
    let of_sample: usize = (0..sample).map(|n| key(n).len() + value(n).len()).sum();
    (of_sample as u64).saturating_mul(records) / sample
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_record_is_parsed_from_its_value() {
        for n in [0, 1, 999_999, 9_999_999_999] {
            assert_eq!(number(value(n).as_bytes()), Some(n));
            assert!((75..=115).contains(&value(n).len()), "{}", value(n));
        }
        assert_eq!(number(b"short"), None);
        assert_eq!(number(b"not a number at all"), None);
    }
}
