//! Signals stop a broker in order.

use std::io;
use std::thread::JoinHandle;

use highwater_runtime::ShutdownHandle;
use highwater_runtime::signals::is_ignored;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle as SignalHandle, Signals};

use crate::broker::error::StartError;

/// What stops a broker. SIGHUP comes when its terminal is closed; where the parent process ignores it (`nohup`) it stays ignored.
const STOPPING: [i32; 3] = [SIGTERM, SIGINT, SIGHUP];

/// Asked to stop once, it stops in order; a second SIGTERM or SIGINT ends it at once. SIGHUP never does: a terminal that closes sends it more
/// than once.
pub(super) fn handle_signals(shutdown: ShutdownHandle) -> Result<(SignalHandle, JoinHandle<()>), StartError> {
    let failed = |e: io::Error| StartError::Environment(format!("cannot wait for signals: {e}"));
    let wanted = STOPPING.into_iter().filter(|signal| *signal != SIGHUP || !is_ignored(SIGHUP));
    let mut signals = Signals::new(wanted).map_err(failed)?;
    let handle = signals.handle();
    let thread = std::thread::Builder::new()
        .name("hw-signals".into())
        .spawn(move || {
            let mut asked = false;
            for signal in signals.forever() {
                tracing::info!(signal = name_of(signal), "asked to stop");
                if signal != SIGHUP && std::mem::replace(&mut asked, true) {
                    tracing::warn!(signal = name_of(signal), "asked a second time: ending at once");
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
