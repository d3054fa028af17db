//! Sizes in texts for users.

/// Formats a size in MiB, rounded down, or in bytes below that.
pub(crate) fn mib(bytes: u64) -> String {
    if bytes < 1 << 20 { format!("{bytes} bytes") } else { format!("{}MiB", bytes >> 20) }
}
