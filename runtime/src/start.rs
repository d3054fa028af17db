//! Starting and stopping the shards of a process.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crate::cpus::Cpu;
use crate::errors::{BoxError, RunError, StartError};
use crate::host::{self, HostKind, PanicWatch, ShardSetup};
use crate::plane::{Plane, ShardApp, ShardIndex};
use crate::preflight;
use crate::uring::{Doorbells, PlaneParts, doorbells, mailboxes, spawn_file_thread};

/// Maximum number of shards of a process.
pub const SHARDS_MAX: usize = 1024;

/// Configuration of the runtime.
#[derive(Debug)]
pub struct RuntimeConfig {
    /// One shard per entry; a CPU may appear more than once.
    pub cpus: Vec<Cpu>,
    /// What runs the shards.
    pub host: HostKind,
    /// Listening sockets, see [`bind`](crate::bind). Every shard accepts from all of them. Their indexes are the
    /// [`ListenerId`](crate::plane::ListenerId)s.
    pub listeners: Vec<TcpListener>,
    /// Entries of each shard's submission queue.
    pub ring_entries: u32,
    /// A file that stays open until the kernel has ended the last operation of every shard, even if the process is killed. A lock
    /// on this file therefore proves that no write is on its way to the disk: a killed process can be gone while its writes are
    /// still in progress.
    pub held: Option<Arc<File>>,
    /// Bytes of memory that free buffers of the process may keep. `None`: a fixed amount per thread.
    pub idle_buffer_bytes: Option<usize>,
}

impl RuntimeConfig {
    /// Creates a configuration with shards on these CPUs and a broker's defaults.
    pub fn new(cpus: Vec<Cpu>) -> Self {
        Self {
            cpus,
            host: HostKind::default(),
            listeners: Vec::new(),
            ring_entries: 1024,
            held: None,
            idle_buffer_bytes: None,
        }
    }
}

/// Asks every shard to stop. Cheap to clone, and usable from any thread.
#[derive(Clone)]
pub struct ShutdownHandle {
    doorbells: Doorbells,
}

impl ShutdownHandle {
    /// Causes an `on_shutdown` on every shard. Repeated calls have no effect.
    pub fn shutdown(&self) {
        for doorbell in self.doorbells.iter() {
            doorbell.request_shutdown();
        }
    }
}

/// The running shards. They continue if this is dropped.
pub struct Runtime {
    doorbells: Doorbells,
    shards: Vec<JoinHandle<()>>,
    file_thread: JoinHandle<()>,
}

impl Runtime {
    /// Returns a handle that stops the shards.
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        ShutdownHandle { doorbells: Arc::clone(&self.doorbells) }
    }

    /// Waits until every shard has ended.
    pub fn wait(self) -> Result<(), RunError> {
        let mut result = Ok(());
        for (shard, thread) in self.shards.into_iter().enumerate() {
            if let Err(panic) = thread.join() {
                let message = panic_message(panic.as_ref());
                result = result.and(Err(RunError::Panicked { shard: shard as ShardIndex, message }));
            }
        }
        // No shard is left that the file thread could serve, so its panic would not matter.
        let _ = self.file_thread.join();
        result
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

/// Starts one shard per CPU of the configuration, and returns when all of them are ready to serve.
///
/// `make_app` creates each shard's application on the shard's own thread, with the shard's plane. This is where data is recovered,
/// through [`Fs`](crate::fs::Fs). No connection is accepted and no message delivered before all of them have succeeded. If one
/// fails, all shards end and its error is returned.
pub fn start<A, F>(config: RuntimeConfig, make_app: F) -> Result<Runtime, StartError>
where
    A: ShardApp + 'static,
    F: Fn(ShardIndex, &mut dyn Plane<A::Message>) -> Result<A, BoxError> + Send + Sync + 'static,
{
    if config.cpus.is_empty() || config.cpus.len() > SHARDS_MAX {
        let shards = config.cpus.len();
        return Err(StartError::Config(format!("cannot run {shards} shards: choose 1 to {SHARDS_MAX}")));
    }
    preflight::check(config.host, config.cpus.len())?;
    if let Some(bytes) = config.idle_buffer_bytes {
        crate::buf::keep_idle(bytes, config.cpus.len());
    }
    let doorbells = doorbells(config.cpus.len() as u16).map_err(StartError::os("cannot create a pipe"))?;
    let (jobs, file_thread) =
        spawn_file_thread(Arc::clone(&doorbells)).map_err(StartError::os("cannot start a thread"))?;
    let make_app = Arc::new(make_app);
    let abandoned = Arc::new(AtomicBool::new(false));
    let epoch = Instant::now();
    let (ready, readiness) = mpsc::channel();
    let mut shards = Vec::new();
    let mut starters = Vec::new();
    for (mailbox, cpu) in mailboxes(&doorbells).into_iter().zip(&config.cpus) {
        let shard = shards.len() as ShardIndex;
        let (starter, start_signal) = mpsc::channel();
        starters.push(starter);
        let listeners: io::Result<Vec<_>> = config.listeners.iter().map(TcpListener::try_clone).collect();
        let parts = PlaneParts {
            mailbox,
            jobs: jobs.clone(),
            listeners: listeners.map_err(StartError::os("cannot share a listening socket"))?,
            ring_entries: config.ring_entries,
            held: config.held.clone(),
            epoch,
        };
        let setup = ShardSetup {
            shard,
            cpu: *cpu,
            parts,
            ready: ready.clone(),
            start_signal,
            panics: PanicWatch { doorbells: Arc::clone(&doorbells), abandoned: Arc::clone(&abandoned) },
        };
        let make_app = Arc::clone(&make_app);
        let host = config.host;
        let thread = thread::Builder::new().name(format!("hw-shard-{shard}")).spawn(move || match host {
            HostKind::Glommio => host::glommio::run(setup, &*make_app),
            HostKind::Thread => host::thread::run(setup, &*make_app),
        });
        shards.push(thread.map_err(StartError::os("cannot start a thread"))?);
    }
    drop((ready, jobs, config.listeners));
    let runtime = Runtime { doorbells, shards, file_thread };
    match await_readiness(&readiness, starters.len()) {
        Ok(()) => {
            for starter in starters {
                // This fails only if the shard has panicked since, which `wait` reports.
                let _ = starter.send(());
            }
            Ok(runtime)
        }
        Err(e) => {
            drop(starters);
            match (e, runtime.wait()) {
                (Some(e), _) => Err(e),
                (None, Err(panic)) => Err(StartError::Machine(panic.to_string())),
                (None, Ok(())) => Err(StartError::Machine("a shard ended before it was ready".into())),
            }
        }
    }
}

/// Waits until every shard is ready, or for the first error. The error is `None` if a shard's thread died without reporting one.
fn await_readiness(
    readiness: &Receiver<Result<(), StartError>>,
    shards: usize,
) -> Result<(), Option<StartError>> {
    for _ in 0..shards {
        readiness.recv().map_err(|_| None)?.map_err(Some)?;
    }
    Ok(())
}
