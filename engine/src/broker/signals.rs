//! Graceful shutdown on signals.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use highwater_runtime::ShutdownHandle;
use highwater_runtime::signals::is_ignored;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle as SignalHandle, Signals};

use crate::start_error::StartError;

/// The signals that stop a broker. SIGHUP is sent when its terminal is closed; it stays ignored if the parent process ignores it (`nohup`).
const STOPPING: [i32; 3] = [SIGTERM, SIGINT, SIGHUP];

/// What a signal stops: the shards that run at the moment. A node that joins a cluster runs others before those of its broker.
#[derive(Clone, Default)]
pub(super) struct Stopper(Arc<Mutex<Running>>);

#[derive(Default)]
struct Running {
    shards: Option<ShutdownHandle>,
    /// Whether a signal has come.
    is_stopping: bool,
}

impl Stopper {
    /// Stops these shards from now on; at once if a signal has come.
    pub(super) fn set(&self, shards: ShutdownHandle) {
        let mut running = self.lock();
        if running.is_stopping {
            shards.shutdown();
        }
        running.shards = Some(shards);
    }

    /// Returns whether a signal has come.
    pub(super) fn is_stopping(&self) -> bool {
        self.lock().is_stopping
    }

    fn stop(&self) {
        let mut running = self.lock();
        running.is_stopping = true;
        if let Some(shards) = &running.shards {
            shards.shutdown();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that waits for signals. It ends when this is dropped.
pub(super) struct SignalThread {
    handle: SignalHandle,
    thread: Option<JoinHandle<()>>,
}

impl Drop for SignalThread {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // The thread's result does not matter.
            let _ = thread.join();
        }
    }
}

/// Stops the broker gracefully on the first signal. A second SIGTERM or SIGINT exits at once. A second SIGHUP does not, because a closing terminal
/// may send several.
pub(super) fn handle_signals(stopper: Stopper) -> Result<SignalThread, StartError> {
    let failed = |e: io::Error| StartError::Environment(format!("cannot wait for signals: {e}"));
    let handled = STOPPING.into_iter().filter(|signal| *signal != SIGHUP || !is_ignored(SIGHUP));
    let mut signals = Signals::new(handled).map_err(failed)?;
    let handle = signals.handle();
    let thread = std::thread::Builder::new()
        .name("hw-signals".into())
        .spawn(move || {
            let mut is_stopping = false;
            for signal in signals.forever() {
                tracing::info!(signal = name_of(signal), "stopping on a signal");
                if signal != SIGHUP && std::mem::replace(&mut is_stopping, true) {
                    tracing::warn!(signal = name_of(signal), "second signal: exiting at once");
                    std::process::exit(128 + signal);
                }
                stopper.stop();
            }
        })
        .map_err(failed)?;
    Ok(SignalThread { handle, thread: Some(thread) })
}

fn name_of(signal: i32) -> &'static str {
    signal_hook::low_level::signal_name(signal).unwrap_or("unknown")
}
