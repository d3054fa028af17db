//! Graceful shutdown on signals.

use std::io;
use std::thread::JoinHandle;

use highwater_runtime::ShutdownHandle;
use highwater_runtime::signals::is_ignored;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle as SignalHandle, Signals};

use crate::start_error::StartError;

/// The signals that stop a broker. SIGHUP is sent when its terminal is closed; it stays ignored if the parent process ignores it (`nohup`).
const STOPPING: [i32; 3] = [SIGTERM, SIGINT, SIGHUP];

/// Stops the broker gracefully on the first signal. A second SIGTERM or SIGINT exits at once. A second SIGHUP does not, because a closing terminal
/// may send several.
pub(super) fn handle_signals(shutdown: ShutdownHandle) -> Result<(SignalHandle, JoinHandle<()>), StartError> {
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
                shutdown.shutdown();
            }
        })
        .map_err(failed)?;
    Ok((handle, thread))
}

fn name_of(signal: i32) -> &'static str {
    signal_hook::low_level::signal_name(signal).unwrap_or("unknown")
}
