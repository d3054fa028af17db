//! Starting and stopping the shards of a process.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use crate::cpus::Cpu;
use crate::plane::{Plane, ShardApp, ShardIndex};

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
}

impl RuntimeConfig {
    /// Shards on these CPUs, the rest as a broker wants it.
    pub fn new(cpus: Vec<Cpu>) -> Self {
        Self { cpus, host: HostKind::default(), listeners: Vec::new(), ring_entries: 1024 }
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

/// Why the shards ended otherwise than by [`Plane::exit`].
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A shard's thread panicked: our bug.
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
    ask: Arc<dyn Fn() + Send + Sync>,
}

impl ShutdownHandle {
    /// Calls `on_shutdown` on every shard, once however often this is called.
    pub fn shutdown(&self) {
        (self.ask)();
    }
}

/// The running shards.
pub struct Runtime {
    shutdown: ShutdownHandle,
}

impl Runtime {
    /// A handle that stops the shards.
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        self.shutdown.clone()
    }

    /// Waits until every shard has ended.
    pub fn wait(self) -> Result<(), RunError> {
        Ok(())
    }
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
    let _ = (config, make_app);
    Err(StartError::Machine("the io_uring plane is not part of this build yet".into()))
}
