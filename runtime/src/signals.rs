//! Signal dispositions inherited from the parent process.

use std::mem::MaybeUninit;

/// Returns whether a signal is ignored. Called at start-up, before any handler is installed, it returns the parent's intent:
/// `nohup` ignores SIGHUP, and a shell without job control ignores SIGINT for background processes. Signals that are ignored then
/// should stay ignored.
pub fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a null pointer changes nothing; the kernel fills in the action, or fails for an unknown signal.
    let known = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0 };
    // SAFETY: filled in by the call above.
    known && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_signal_is_distinguished_from_others() {
        // The standard library ignores SIGPIPE before `main`.
        assert!(is_ignored(libc::SIGPIPE));
        assert!(!is_ignored(libc::SIGUSR2));
        assert!(!is_ignored(-1));
    }
}
