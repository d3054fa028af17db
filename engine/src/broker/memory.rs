//! How much memory a broker uses.

use highwater_protocol::limits::BATCH_BYTES_MAX_DEFAULT;
use highwater_runtime::{AvailableMemory, available_cpus, available_memory};

use crate::broker::config::BrokerConfig;
use crate::limits::{BATCH_BYTES_MAX_RANGE, shard_memory_bytes_min};
use crate::start_error::StartError;
use crate::units::mib;

/// Bounds of the default.
const DEFAULT_BYTES_MIN: u64 = 256 << 20;
const DEFAULT_BYTES_MAX: u64 = 8 << 30;

/// The default is the available memory divided by this.
const DEFAULT_SHARE: u64 = 4;

/// The memory of a broker for requests and cache, of all cores together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemoryChoice {
    /// In bytes.
    pub bytes: u64,
    /// The reason for this amount, for the user.
    pub because: String,
}

/// Returns the memory of a broker with this configuration, or why it cannot start.
pub fn memory_in_force(config: &BrokerConfig) -> Result<MemoryChoice, StartError> {
    let cpus = available_cpus().map_or(1, |cpus| cpus.len() as u16);
    choose(config.memory_bytes, config.cores.unwrap_or(cpus), config.batch_bytes_max)
}

/// Chooses the memory of `shards` shards on this machine, for batches of up to `batch_bytes_max` bytes.
pub(crate) fn choose(
    requested: Option<u64>,
    shards: u16,
    batch_bytes_max: usize,
) -> Result<MemoryChoice, StartError> {
    choose_of(&available_memory(), requested, shards, batch_bytes_max)
}

fn choose_of(
    available: &AvailableMemory,
    requested: Option<u64>,
    shards: u16,
    batch_bytes_max: usize,
) -> Result<MemoryChoice, StartError> {
    let reject = |text: String| Err(StartError::Config(text));
    if !BATCH_BYTES_MAX_RANGE.contains(&batch_bytes_max) {
        return reject(format!(
            "invalid batch-bytes-max of {batch_bytes_max} bytes: the range is {} to {}",
            mib(*BATCH_BYTES_MAX_RANGE.start() as u64),
            mib(*BATCH_BYTES_MAX_RANGE.end() as u64)
        ));
    }
    let of_shard = shard_memory_bytes_min(batch_bytes_max);
    let min = of_shard * u64::from(shards.max(1));
    let is_raised = of_shard > shard_memory_bytes_min(BATCH_BYTES_MAX_DEFAULT);
    let (for_batches, or_smaller) = if is_raised {
        (format!(" for batches of {}", mib(batch_bytes_max as u64)), ", a smaller --batch-bytes-max")
    } else {
        (String::new(), "")
    };
    let AvailableMemory { bytes: most, limited_by } = available;
    if *most < min {
        return reject(format!(
            "{} needs at least {} of memory{for_batches}, and this process may use {} ({limited_by}): use fewer --cores{or_smaller}, or raise that limit",
            cores(shards),
            mib(min),
            mib(*most)
        ));
    }
    match requested {
        Some(requested) if requested < min => reject(format!(
            "memory of {} is too little for {}: each needs {}{for_batches}, so give at least {}, or use fewer --cores{or_smaller}",
            mib(requested),
            cores(shards),
            mib(of_shard),
            mib(min)
        )),
        Some(requested) if requested > *most => reject(format!(
            "memory of {} is more than this process may use, {} ({limited_by}): give less, or raise that limit",
            mib(requested),
            mib(*most)
        )),
        Some(requested) => Ok(MemoryChoice { bytes: requested, because: "as configured".into() }),
        None => {
            let share = most / DEFAULT_SHARE;
            // Other buffers, threads and the kernel need memory too.
            let bytes = share.clamp(DEFAULT_BYTES_MIN, DEFAULT_BYTES_MAX).min(most / 2).max(min);
            let because = format!("of {} that this process may use ({limited_by})", mib(*most));
            Ok(MemoryChoice { bytes: bytes >> 20 << 20, because })
        }
    }
}

fn cores(shards: u16) -> String {
    if shards == 1 { "a core".into() } else { format!("{shards} cores") }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use highwater_runtime::MemoryLimit;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn group(mib: u64) -> AvailableMemory {
        let file = PathBuf::from("/sys/fs/cgroup/system.slice/highwater.service/memory.max");
        AvailableMemory { bytes: mib * MIB, limited_by: MemoryLimit::ControlGroup(file) }
    }

    #[test]
    fn the_default_memory_is_a_quarter_within_bounds_and_never_more_than_half() {
        for (available, shards, taken) in [
            (512, 1, 256),
            (512, 2, 256),
            (300, 1, 150),
            (2048, 2, 512),
            (1 << 20, 64, 8192),
            (16384, 64, 6144),
        ] {
            let choice =
                choose_of(&group(available), None, shards, BATCH_BYTES_MAX_DEFAULT).expect("there is enough");
            assert_eq!(choice.bytes, taken * MIB, "of {available} MiB for {shards}");
            assert!(choice.because.contains("memory.max"), "{}", choice.because);
        }
    }

    #[test]
    fn too_little_and_too_much_memory_are_rejected_with_the_possible_range() {
        let rejection = |available: u64, requested: Option<u64>, shards| {
            rejection_with(available, requested, shards, BATCH_BYTES_MAX_DEFAULT)
        };
        let e = rejection(4096, Some(5), 2);
        assert!(e.contains("5 bytes") && e.contains("at least 192MiB"), "{e}");
        let e = rejection(512, Some(900 << 30), 2);
        assert!(e.contains("921600MiB") && e.contains("512MiB") && e.contains("memory.max"), "{e}");
        let e = rejection(128, None, 2);
        assert!(e.contains("fewer --cores") && e.contains("128MiB"), "{e}");
        let taken = |requested| {
            choose_of(&group(512), Some(requested), 2, BATCH_BYTES_MAX_DEFAULT).expect("enough").bytes
        };
        assert_eq!(
            (taken(192 * MIB), taken(512 * MIB)),
            (192 * MIB, 512 * MIB),
            "just enough, and all of it"
        );
    }

    fn rejection_with(available: u64, requested: Option<u64>, shards: u16, batch_bytes_max: usize) -> String {
        let error = choose_of(&group(available), requested, shards, batch_bytes_max).expect_err("refused");
        assert_eq!(error.exit_code(), 78);
        error.to_string()
    }

    #[test]
    fn a_larger_batch_limit_needs_more_memory_and_a_start_without_it_says_how_much() {
        let large = 100 << 20;
        let e = rejection_with(4096, Some(256 * MIB), 1, large);
        assert!(
            e.contains("at least 432MiB")
                && e.contains("batches of 100MiB")
                && e.contains("--batch-bytes-max"),
            "{e}"
        );
        let e = rejection_with(512, None, 2, large);
        assert!(e.contains("at least 864MiB") && e.contains("smaller --batch-bytes-max"), "{e}");
        let most = choose_of(&group(512), None, 1, large).expect("there is enough");
        assert_eq!(most.bytes, 432 * MIB);
        let small = choose_of(&group(512), Some(96 * MIB), 1, 1 << 20).expect("no more than by default");
        assert_eq!(small.bytes, 96 * MIB);
        for impossible in [0, (1 << 20) - 1, large + 1] {
            let e = rejection_with(4096, None, 1, impossible);
            assert!(e.contains("1MiB to 100MiB"), "{e}");
        }
    }
}
