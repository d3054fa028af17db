//! What was decided about signals before the process began.

use std::mem::MaybeUninit;

/// Whether a signal is ignored now. Asked at start, before any handler is installed, it says what the parent process wants: `nohup` ignores
/// SIGHUP, and a shell without job control ignores SIGINT of what it runs in the background. What is ignored then should stay so.
pub fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a null pointer changes nothing; the kernel fills in the action, unless it knows no such signal and says so.
    let known = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0 };
    // SAFETY: filled in by the call above.
    known && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_signal_is_told_from_others() {
        // The standard library ignores SIGPIPE before `main`.
        assert!(is_ignored(libc::SIGPIPE));
        assert!(!is_ignored(libc::SIGUSR2));
        assert!(!is_ignored(-1));
    }
}
