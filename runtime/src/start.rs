//! Starting and stopping the shards of a process.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crate::cpus::Cpu;
use crate::host;
use crate::locked_memory::explain_lack;
use crate::plane::{Plane, ShardApp, ShardIndex};
use crate::preflight;
use crate::uring::{Bells, Driver, PlaneParts, bells, mailboxes, spawn_file_thread};

/// Shards of one process at most.
pub const SHARDS_MAX: usize = 1024;

/// An error of the application, handed through.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What runs a shard's loop.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum HostKind {
    /// A pinned glommio executor.
    #[default]
    Glommio,
    /// A pinned thread and nothing else.
    Thread,
}

/// How to start.
#[derive(Debug)]
pub struct RuntimeConfig {
    /// One shard for each; a CPU may be named more than once.
    pub cpus: Vec<Cpu>,
    /// What runs the shards.
    pub host: HostKind,
    /// Listening sockets, see [`bind`](crate::bind). Every shard accepts from all of them; their places are the
    /// [`ListenerId`](crate::plane::ListenerId)s.
    pub listeners: Vec<TcpListener>,
    /// Entries of each shard's submission queue.
    pub ring_entries: u32,
    /// A file that stays open, whatever becomes of the process, until the kernel has ended the last operation of every shard. A
    /// lock held by it says truthfully that nothing is on its way to the disk any more: a killed process can be gone while
    /// its writes are not.
    pub held: Option<Arc<File>>,
    /// Bytes of memory that free buffers of the process may keep. None: a fixed number of each thread.
    pub idle_buffer_bytes: Option<usize>,
}

impl RuntimeConfig {
    /// Shards on these CPUs, the rest as a broker wants it.
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

/// Why the shards did not start. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration makes no sense.
    #[error("{0}")]
    Config(String),
    /// The machine does not let this process run shards.
    #[error("{0}")]
    Machine(String),
    /// A shard's application could not be made.
    #[error("shard {shard}: {source}")]
    App {
        /// Which shard.
        shard: ShardIndex,
        /// What the application said.
        source: BoxError,
    },
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Os {
        /// What was tried.
        what: String,
        /// What it said.
        source: io::Error,
    },
}

impl StartError {
    /// Why a ring of one of these shards could not be made.
    pub(crate) fn ring(what: impl Into<String>, shards: usize) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| match source.raw_os_error() {
            Some(libc::ENOMEM) => Self::Machine(format!("{what}: {} ({source})", explain_lack(shards))),
            _ => Self::Os { what, source },
        }
    }

    pub(crate) fn os(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Os { what, source }
    }
}

/// Why the shards ended otherwise than by [`Plane::exit`].
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A shard's thread panicked: our bug. The other shards were stopped without `on_shutdown`.
    #[error("shard {shard} panicked: {message}")]
    Panicked {
        /// Which shard.
        shard: ShardIndex,
        /// What it said.
        message: String,
    },
}

/// Asks every shard to stop. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct ShutdownHandle {
    bells: Bells,
}

impl ShutdownHandle {
    /// Calls `on_shutdown` on every shard, once however often this is called.
    pub fn shutdown(&self) {
        for bell in self.bells.iter() {
            bell.ask_for_shutdown();
        }
    }
}

/// The running shards. They go on if this is dropped.
pub struct Runtime {
    bells: Bells,
    shards: Vec<JoinHandle<()>>,
    file_thread: JoinHandle<()>,
}

impl Runtime {
    /// A handle that stops the shards.
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        ShutdownHandle { bells: Arc::clone(&self.bells) }
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
        // It has nobody left to work for; a panic of it was a panic of nothing that still runs.
        let _ = self.file_thread.join();
        result
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

/// Starts one shard per CPU of the configuration and returns when all are ready to serve.
///
/// `make_app` makes each shard's application, on the shard's own thread, with the shard's plane: this is where data is recovered,
/// through [`Fs`](crate::fs::Fs). No connection is accepted and no message delivered before all of them have succeeded; if one
/// fails, all end and its error is returned.
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
    let bells = bells(config.cpus.len() as u16).map_err(StartError::os("cannot make an eventfd"))?;
    let (jobs, file_thread) =
        spawn_file_thread(Arc::clone(&bells)).map_err(StartError::os("cannot start a thread"))?;
    let make_app = Arc::new(make_app);
    let abandoned = Arc::new(AtomicBool::new(false));
    let epoch = Instant::now();
    let (ready, readiness) = mpsc::channel();
    let mut shards = Vec::new();
    let mut goes = Vec::new();
    for (mailbox, cpu) in mailboxes(&bells).into_iter().zip(&config.cpus) {
        let shard = shards.len() as ShardIndex;
        let (go, may_go) = mpsc::channel();
        goes.push(go);
        let listeners: io::Result<Vec<_>> = config.listeners.iter().map(TcpListener::try_clone).collect();
        let parts = PlaneParts {
            mailbox,
            jobs: jobs.clone(),
            listeners: listeners.map_err(StartError::os("cannot share a listening socket"))?,
            ring_entries: config.ring_entries,
            held: config.held.clone(),
            epoch,
        };
        let seat = Seat {
            shard,
            cpu: *cpu,
            parts,
            ready: ready.clone(),
            may_go,
            panics: PanicWatch { bells: Arc::clone(&bells), abandoned: Arc::clone(&abandoned) },
        };
        let make_app = Arc::clone(&make_app);
        let host = config.host;
        let thread = thread::Builder::new().name(format!("hw-shard-{shard}")).spawn(move || match host {
            HostKind::Glommio => host::glommio::run(seat, &*make_app),
            HostKind::Thread => host::thread::run(seat, &*make_app),
        });
        shards.push(thread.map_err(StartError::os("cannot start a thread"))?);
    }
    drop((ready, jobs, config.listeners));
    let runtime = Runtime { bells, shards, file_thread };
    match await_readiness(&readiness, goes.len()) {
        Ok(()) => {
            for go in goes {
                // Fails only if the shard has panicked since, which `wait` tells.
                let _ = go.send(());
            }
            Ok(runtime)
        }
        Err(e) => {
            drop(goes);
            match (e, runtime.wait()) {
                (Some(e), _) => Err(e),
                (None, Err(panic)) => Err(StartError::Machine(panic.to_string())),
                (None, Ok(())) => Err(StartError::Machine("a shard ended before it was ready".into())),
            }
        }
    }
}

/// Waits for every shard to be ready, or for the first error; none if a shard died without a word.
fn await_readiness(
    readiness: &Receiver<Result<(), StartError>>,
    shards: usize,
) -> Result<(), Option<StartError>> {
    for _ in 0..shards {
        readiness.recv().map_err(|_| None)?.map_err(Some)?;
    }
    Ok(())
}

/// What a shard's thread starts with.
pub(crate) struct Seat<M> {
    pub(crate) shard: ShardIndex,
    pub(crate) cpu: Cpu,
    parts: PlaneParts<M>,
    ready: Sender<Result<(), StartError>>,
    may_go: Receiver<()>,
    panics: PanicWatch,
}

impl<M: Send + 'static> Seat<M> {
    /// How many shards there are.
    pub(crate) fn shards(&self) -> usize {
        usize::from(self.parts.mailbox.shards())
    }

    /// Makes the shard's plane and application and waits for the other shards; none if one of them has failed.
    pub(crate) fn take<A, F>(self, make_app: &F, eventfd: Option<i32>) -> Option<Shard<A>>
    where
        A: ShardApp<Message = M>,
        F: Fn(ShardIndex, &mut dyn Plane<M>) -> Result<A, BoxError>,
    {
        let shards = self.shards();
        let Self { shard, parts, ready, may_go, panics, .. } = self;
        let made = Driver::new(parts)
            .and_then(|mut driver| {
                eventfd.map_or(Ok(()), |fd| driver.register_eventfd(fd))?;
                Ok(driver)
            })
            .map_err(StartError::ring(format!("shard {shard} cannot set up its ring"), shards))
            .and_then(|mut driver| match make_app(shard, &mut driver.plane) {
                Ok(app) => Ok((driver, app)),
                Err(source) => Err(StartError::App { shard, source }),
            });
        let (made, told) = match made {
            Ok(made) => (Some(made), Ok(())),
            Err(e) => (None, Err(e)),
        };
        // Nobody listens any more if another shard has failed first.
        let _ = ready.send(told);
        drop(ready);
        let (mut driver, app) = made?;
        may_go.recv().ok()?;
        driver.open();
        Some(Shard { app, driver, panics })
    }

    /// Gives up before a plane was made.
    pub(crate) fn leave(self, why: StartError) {
        let _ = self.ready.send(Err(why));
    }
}

/// A shard, ready to run.
pub(crate) struct Shard<A: ShardApp + 'static> {
    // Dropped in this order: the application may own buffers, but no operation, when the plane ends.
    pub(crate) app: A,
    pub(crate) driver: Driver<A::Message>,
    panics: PanicWatch,
}

impl<A: ShardApp + 'static> Shard<A> {
    /// Whether another shard has panicked, so that this one has to end.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.panics.abandoned.load(Ordering::Relaxed)
    }
}

/// Ends all shards when one of them panics: the others would wait for it for ever. (Release builds abort the process instead.)
struct PanicWatch {
    bells: Bells,
    abandoned: Arc<AtomicBool>,
}

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if thread::panicking() {
            self.abandoned.store(true, Ordering::Relaxed);
            for bell in self.bells.iter() {
                bell.ask_for_shutdown();
            }
        }
    }
}
