//! Checks of the machine before start-up, with error texts that say what to do.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::errors::StartError;
use crate::host::HostKind;
use crate::locked_memory::{explain_lack, how_to_raise, kib, needed_bytes, recommended_bytes};
use crate::uring::build_ring;

/// Locked memory that glommio requires.
const MEMLOCK_BYTES_MIN: u64 = 512 << 10;

/// File descriptors without which a broker cannot do anything useful.
const NOFILE_MIN: u64 = 256;

/// With fewer file descriptors than this, a broker works but runs out of them under load.
const NOFILE_ADVISED: u64 = 16 << 10;

/// Oldest kernel with everything that the plane uses (completions deferred to the thread that requests them).
const KERNEL_MIN: &str = "6.1";

/// Checks whether `shards` shards can run here. Raises soft limits as far as allowed.
pub fn check(host: HostKind, shards: usize) -> Result<(), StartError> {
    let memlock = raise(Resource::Memlock, u64::MAX);
    build_ring(8).map_err(|e| StartError::Machine(explain_ring(&e, &kernel_release(), shards)))?;
    let nofile = raise(Resource::Nofile, u64::MAX);
    check_nofile(nofile)?;
    if host == HostKind::Glommio {
        check_memlock(memlock, shards)?;
    }
    Ok(())
}

fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Raises a soft limit to `wanted`, but not above the hard limit. Returns the resulting limit.
fn raise(resource: Resource, wanted: u64) -> u64 {
    let limit = getrlimit(resource);
    let (current, maximum) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    let target = wanted.min(maximum);
    if current >= target {
        return current;
    }
    let raised = Rlimit { current: (target != u64::MAX).then_some(target), maximum: limit.maximum };
    if setrlimit(resource, raised).is_ok() { target } else { current }
}

fn check_nofile(limit: u64) -> Result<(), StartError> {
    if limit < NOFILE_MIN {
        return Err(StartError::Machine(format!(
            "this process may open only {limit} files and connections, fewer than {NOFILE_MIN}: raise the limit, with `ulimit -n 65536` \
             in the shell or `LimitNOFILE=65536` in the systemd unit"
        )));
    }
    if limit < NOFILE_ADVISED {
        tracing::warn!(
            limit,
            "the limit of open files and connections is low; set `ulimit -n 65536` or `LimitNOFILE=65536`"
        );
    }
    Ok(())
}

fn check_memlock(limit: u64, shards: usize) -> Result<(), StartError> {
    if limit >= MEMLOCK_BYTES_MIN {
        return Ok(());
    }
    Err(StartError::Machine(format!(
        "this process may lock only {} of memory, less than the {} that io_uring rings need: raise the limit, with {}",
        kib(limit),
        kib(MEMLOCK_BYTES_MIN),
        how_to_raise(recommended_bytes(needed_bytes(shards)))
    )))
}

/// Explains why a ring could not be created, and what to do.
fn explain_ring(e: &io::Error, kernel: &str, shards: usize) -> String {
    let why = match e.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "io_uring is not permitted here: check `sysctl kernel.io_uring_disabled` (it must be 0, or 1 with this user in \
             `kernel.io_uring_group`), and in a container allow it in the seccomp profile (for a test: `--security-opt seccomp=unconfined`)"
                .to_string()
        }
        Some(libc::ENOSYS) => format!(
            "this system has no io_uring: either a kernel older than {KERNEL_MIN}, or a seccomp profile that hides it (containers: \
             `--security-opt seccomp=unconfined` for a test)"
        ),
        Some(libc::EINVAL) => {
            format!("the io_uring of this kernel is too old: Linux {KERNEL_MIN} or newer is needed")
        }
        Some(libc::ENOMEM) => format!("io_uring cannot get the memory for a ring: {}", explain_lack(shards)),
        Some(libc::EMFILE | libc::ENFILE) => {
            "io_uring cannot open a ring: out of file descriptors; raise `ulimit -n` (LimitNOFILE=)".to_string()
        }
        _ => "io_uring cannot be set up".to_string(),
    };
    format!("{why} (kernel {kernel}: {e})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_explained(errno: i32, expect: &str) {
        let text = explain_ring(&io::Error::from_raw_os_error(errno), "5.4.0", 1);
        assert!(text.contains(expect), "{text}");
        assert!(text.contains("5.4.0"), "the text names the kernel: {text}");
    }

    #[test]
    fn a_forbidden_missing_or_old_io_uring_is_explained_with_what_to_do() {
        check_explained(libc::EPERM, "kernel.io_uring_disabled");
        check_explained(libc::ENOSYS, "seccomp");
        check_explained(libc::EINVAL, "Linux 6.1 or newer");
        check_explained(libc::ENOMEM, "ulimit -l");
        check_explained(libc::EMFILE, "ulimit -n");
        check_explained(libc::EIO, "cannot be set up");
    }

    #[test]
    fn too_little_lockable_memory_is_an_error_that_says_what_to_do() {
        let e = check_memlock(64 << 10, 2).expect_err("too low").to_string();
        assert!(e.contains("only 64 KiB") && e.contains("512 KiB") && e.contains("LimitMEMLOCK"), "{e}");
        check_memlock(8 << 20, 2).expect("the common limit is enough");
    }

    #[test]
    fn too_few_file_descriptors_are_an_error_that_says_what_to_do() {
        let e = check_nofile(64).expect_err("too low").to_string();
        assert!(e.contains("only 64") && e.contains("LimitNOFILE"), "{e}");
        check_nofile(1024).expect("works, with a warning");
    }

    #[test]
    fn this_machine_passes() {
        check(HostKind::Glommio, 1).expect("tests need io_uring");
    }
}
