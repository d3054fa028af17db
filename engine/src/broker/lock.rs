//! The lock of a data directory, which one process at a time may use.

use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use highwater_runtime::OsFs;
use highwater_runtime::fs::{Fs as _, is_out_of_space};

use crate::data_dir::{self, LOCK};
use crate::start_error::StartError;

/// How long to wait for the lock. The kernel finishes the operations of a killed broker shortly after its process has ended, and holds its lock
/// until then: a write that landed later would overwrite data of this broker.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(2);
const LOCK_WAIT_STEP: Duration = Duration::from_millis(2);

/// Locks a lock file. Waits for operations of the previous process that the kernel has not finished.
pub(super) fn lock_patiently(file: &File) -> Result<(), TryLockError> {
    let began = std::time::Instant::now();
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if began.elapsed() < LOCK_WAIT_MAX => {
                std::thread::sleep(LOCK_WAIT_STEP);
            }
            outcome => return outcome,
        }
    }
}

/// Locks the data directory against other brokers, for as long as the file is open.
pub(super) fn take(dir: &Path) -> Result<File, StartError> {
    let path = dir.join(LOCK);
    let failed = |e: &io::Error| data_dir::failed("cannot lock", &path, e);
    // This also makes the directory's name in its parent durable.
    OsFs::new().create_dir_all(dir).map_err(|e| {
        if data_dir::is_forbidden(&e) {
            return data_dir::failed("cannot create the data directory", dir, &e);
        }
        let dir = dir.display();
        StartError::Config(format!("cannot create the data directory {dir}: {e}; choose another --data-dir"))
    })?;
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|e| failed(&e))?;
    match lock_patiently(&file) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = std::fs::read_to_string(&path).unwrap_or_default();
            let holder = holder.trim();
            let who = if holder.is_empty() { String::new() } else { format!(" (process {holder})") };
            return Err(StartError::Locked(format!(
                "another broker{who} uses {}; stop it, or choose another --data-dir",
                dir.display()
            )));
        }
        Err(TryLockError::Error(e)) => return Err(failed(&e)),
    }
    // The process id, for error messages.
    match file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())) {
        Err(e) if !is_out_of_space(&e) => Err(failed(&e)),
        _ => Ok(file),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_locked_by_one_process_at_a_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let held = take(dir.path()).expect("free");
        let error = take(dir.path()).expect_err("taken");
        assert_eq!(error.exit_code(), 73);
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        drop(held);
        take(dir.path()).expect("free again");
    }
}
