//! Formatting of numbers with three digits and a unit.

const NS_PER_US: f64 = 1e3;
const NS_PER_MS: f64 = 1e6;
const NS_PER_S: f64 = 1e9;

/// Units of counts, largest first.
const COUNTS: [(f64, &str); 4] = [(1e9, " G"), (1e6, " M"), (1e3, " k"), (1.0, "")];

/// Formats a number below 1000 with three significant digits.
fn three_digits(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

/// Returns the unit for a value. The margin prevents 999.96 k from being shown as 1000 k.
fn unit_of(value: f64) -> (f64, &'static str) {
    *COUNTS.iter().find(|(unit, _)| value >= 0.9995 * unit).unwrap_or(&COUNTS[3])
}

/// Formats a count: `812 k`, `1.02 M`, `41.0`.
pub(crate) fn count(value: f64) -> String {
    let (unit, name) = unit_of(value);
    three_digits(value / unit) + name
}

/// Formats a range, in the unit of the upper end: `790–815 k`.
pub(crate) fn spread(values: impl Iterator<Item = f64> + Clone) -> String {
    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.fold(0.0, f64::max);
    let (unit, name) = unit_of(high);
    let (low, high) = (three_digits(low.min(high) / unit), three_digits(high / unit));
    if low == high { high + name } else { format!("{low}–{high}{name}") }
}

/// Formats a duration: `812 ns`, `1.20 ms`, `3.10 s`.
pub(crate) fn duration(ns: f64) -> String {
    let (unit, name) = match ns {
        v if v >= 0.9995 * NS_PER_S => (NS_PER_S, "s"),
        v if v >= 0.9995 * NS_PER_MS => (NS_PER_MS, "ms"),
        v if v >= 0.9995 * NS_PER_US => (NS_PER_US, "µs"),
        v => return format!("{v:.0} ns"),
    };
    format!("{} {name}", three_digits(ns / unit))
}

/// Formats a number of bytes with decimal units, as usual for disks and networks: `402 MB`.
pub(crate) fn bytes(bytes: f64) -> String {
    let text = count(bytes);
    match text.strip_suffix(" k") {
        Some(digits) => format!("{digits} kB"),
        None if text.contains(' ') => text + "B",
        None => text.trim_end_matches(".00").to_owned() + " B",
    }
}

/// Formats a configured size exactly: `1 MiB`, `100 B`.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 20 && b.is_multiple_of(1 << 20) => format!("{} MiB", b >> 20),
        b if b >= 1 << 10 && b.is_multiple_of(1 << 10) => format!("{} KiB", b >> 10),
        b => format!("{b} B"),
    }
}

/// Formats a configured time exactly: `5 ms`, `0`.
pub(crate) fn linger(us: u64) -> String {
    match us {
        0 => "0".to_owned(),
        us if us.is_multiple_of(1000) => format!("{} ms", us / 1000),
        us => format!("{us} µs"),
    }
}

/// Formats a number with a noun: `1 partition`, `3 partitions`.
pub(crate) fn plural(count: u64, name: &str) -> String {
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        let counts = [0.0, 0.5, 41.0, 999.4, 999.9, 1_000.0, 81_234.0, 1_020_000.0, 2.5e9].map(count);
        assert_eq!(counts, ["0.00", "0.50", "41.0", "999", "1.00 k", "1.00 k", "81.2 k", "1.02 M", "2.50 G"]);
        let times = [1.0, 999.0, 1_500.0, 999_990.0, 12_345_678.0, 3e9, 75e9].map(duration);
        assert_eq!(times, ["1 ns", "999 ns", "1.50 µs", "1.00 ms", "12.3 ms", "3.00 s", "75.0 s"]);
        assert_eq!([12.0, 1_500.0, 4.02e8].map(bytes), ["12.0 B", "1.50 kB", "402 MB"]);
    }

    #[test]
    fn a_range_has_one_unit_and_is_one_number_if_its_ends_format_alike() {
        assert_eq!(spread([790e3, 815e3, 801e3].into_iter()), "790–815 k");
        assert_eq!(spread([980e3, 1020e3].into_iter()), "0.98–1.02 M");
        assert_eq!(spread([5.0].into_iter()), "5.00");
        assert_eq!(spread([1000e3, 1000.1e3].into_iter()), "1.00 M");
    }

    #[test]
    fn configured_values_are_shown_exactly() {
        assert_eq!(
            [100, 1 << 10, 16_384, 1 << 20, 1_000_000].map(size),
            ["100 B", "1 KiB", "16 KiB", "1 MiB", "1000000 B"]
        );
        assert_eq!([0, 5_000, 250].map(linger), ["0", "5 ms", "250 µs"]);
        assert_eq!([plural(1, "run"), plural(2, "run")], ["1 run", "2 runs"]);
    }
}
