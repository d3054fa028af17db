//! Memory that the kernel locks for rings. `RLIMIT_MEMLOCK` limits it for all processes of a user together.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit, getuid};

/// Locked memory of one shard's rings: its own ring (entries, completions and the receive buffer ring), glommio's three rings, and
/// the memory that glommio registers with each of those. Kernels before 6.14 count only the latter.
const BYTES_PER_SHARD: u64 = 384 << 10;

/// Limit of other processes named in an error.
const HOLDERS_NAMED_MAX: usize = 8;

/// Capability that exempts a process from the limit of locked memory.
const CAP_IPC_LOCK: u32 = 14;

/// Returns the locked memory that `shards` shards need, in bytes.
pub(crate) fn needed_bytes(shards: usize) -> u64 {
    shards as u64 * BYTES_PER_SHARD
}

/// Explains why the kernel has no memory for a ring of one of these shards, and what to do.
pub(crate) fn explain_lack(shards: usize) -> String {
    let limit = getrlimit(Resource::Memlock).current;
    match limit.filter(|_| !may_lock_anything()) {
        None => "the kernel has no memory for it, and the limit of locked memory (`ulimit -l`) does not apply to this process: raise the memory limit \
                 of the control group, or free memory"
            .to_owned(),
        Some(limit) => explain(shards, limit, &holders(Path::new("/proc"))),
    }
}

fn explain(shards: usize, limit: u64, holders: &[String]) -> String {
    let need = needed_bytes(shards);
    let wanted = recommended_bytes(limit + need);
    let who = match holders {
        [] => String::new(),
        named if named.len() > HOLDERS_NAMED_MAX => {
            let more = named.len() - HOLDERS_NAMED_MAX;
            format!(", which share it with: {} and {more} more", named[..HOLDERS_NAMED_MAX].join(", "))
        }
        named => format!(", which share it with: {}", named.join(", ")),
    };
    format!(
        "the limit of locked memory is exhausted. It is {} for all processes of this user together{who}; {shards} cores need up to {}. \
         Raise the limit to {}, with {}; or start with fewer --cores",
        kib(limit),
        kib(need),
        kib(wanted),
        how_to_raise(wanted)
    )
}

/// Explains how to set the limit of locked memory in a shell, a systemd unit and a container.
pub(crate) fn how_to_raise(bytes: u64) -> String {
    format!(
        "`ulimit -l {}` in the shell, `LimitMEMLOCK={}M` in the systemd unit or `--ulimit memlock={bytes}` for a container",
        bytes >> 10,
        bytes >> 20
    )
}

/// Returns a recommended limit of at least `bytes`: a round number, and no less than the usual default.
pub(crate) fn recommended_bytes(bytes: u64) -> u64 {
    bytes.next_power_of_two().max(8 << 20)
}

pub(crate) fn kib(bytes: u64) -> String {
    format!("{} KiB", bytes >> 10)
}

/// Returns whether this process has the capability to lock any amount of memory.
fn may_lock_anything() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    effective.is_some_and(|capabilities| capabilities >> CAP_IPC_LOCK & 1 == 1)
}

/// Returns the visible other processes of this user that have rings: name and process id.
fn holders(proc: &Path) -> Vec<String> {
    let me = std::process::id();
    let Ok(entries) = fs::read_dir(proc) else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut holders: Vec<(u32, String)> = pids
        .filter(|pid| *pid != me)
        .filter_map(|pid| {
            let folder = proc.join(pid.to_string());
            let status = fs::read_to_string(folder.join("status")).ok()?;
            let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            let uid = field("Uid:")?.split_whitespace().next()?.parse::<u32>().ok()?;
            let has_rings = uid == getuid().as_raw() && has_rings(&folder);
            has_rings.then(|| (pid, format!("{} (process {pid})", field("Name:").unwrap_or("?"))))
        })
        .collect();
    holders.sort_unstable();
    holders.into_iter().map(|(_, text)| text).collect()
}

fn has_rings(process: &Path) -> bool {
    let Ok(files) = fs::read_dir(process.join("fd")) else { return false };
    let mut targets = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
    targets.any(|target| target.to_string_lossy().contains("[io_uring]"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uring::build_ring;

    #[test]
    fn a_lack_of_locked_memory_is_explained_with_limit_holders_and_remedy() {
        let e = explain(2, 8 << 20, &["highwater (process 7)".into(), "other (process 9)".into()]);
        for words in [
            "8192 KiB for all processes of this user",
            "highwater (process 7), other (process 9)",
            "2 cores need up to 768 KiB",
            "ulimit -l 16384",
            "LimitMEMLOCK=16M",
            "memlock=16777216",
        ] {
            assert!(e.contains(words), "{words} is not in: {e}");
        }
        let many: Vec<String> = (0..20).map(|n| format!("p{n}")).collect();
        assert!(explain(1, 8 << 20, &many).contains("p7 and 12 more"));
    }

    #[test]
    fn a_process_with_rings_is_detected() {
        let ring = build_ring(8).expect("tests need io_uring");
        assert!(has_rings(Path::new("/proc/self")));
        drop(ring);
        // Whatever other processes there are, this one is not listed.
        let me = format!("(process {})", std::process::id());
        assert!(holders(Path::new("/proc")).iter().all(|holder| !holder.contains(&me)));
        assert!(!explain_lack(1).is_empty());
    }
}
