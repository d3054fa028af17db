//! A broker of the run's own: this program's `start`, in a process and a directory of its own.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::BenchError;

/// How long a broker may take to end when it is told to, before it is killed.
const STOP: Duration = Duration::from_mins(1);

/// What clients speak with a broker.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Protocol {
    /// This project's own.
    #[default]
    Native,
    /// Kafka's.
    Kafka,
}

/// How a broker is started.
#[derive(Clone, Default, Debug)]
pub struct ServerPlan {
    /// The program; none: this one.
    pub program: Option<PathBuf>,
    /// Where its data goes; none: a new directory in the one for temporary files, removed at the end.
    pub data_dir: Option<PathBuf>,
    /// Cores it uses; none: what it takes by itself.
    pub cores: Option<u16>,
    /// The listener that is used.
    pub protocol: Protocol,
}

/// A broker that runs. Killed, and its directory removed, when dropped; [`Server::stop`] is the orderly way.
#[derive(Debug)]
pub struct Server {
    plan: ServerPlan,
    data: Data,
    child: Child,
    address: String,
    durability: String,
}

#[derive(Debug)]
enum Data {
    Given(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Data {
    fn path(&self) -> &Path {
        match self {
            Self::Given(path) => path,
            Self::Temporary(directory) => directory.path(),
        }
    }
}

impl Server {
    /// Starts one; returns when clients can connect.
    pub fn start(plan: ServerPlan) -> Result<Self, BenchError> {
        let data = if let Some(path) = &plan.data_dir {
            Data::Given(path.clone())
        } else {
            let directory = tempfile::Builder::new().prefix("highwater-bench-").tempdir();
            Data::Temporary(directory.map_err(|e| {
                BenchError::failed(format_args!(
                    "no directory for the broker in {}: {e}; TMPDIR or --data-dir names another",
                    std::env::temp_dir().display()
                ))
            })?)
        };
        refuse_memory(data.path())?;
        let (child, ready) = spawn(&plan, &data.path().join("data"), "127.0.0.1:0")?;
        Ok(Self { plan, data, child, address: ready.address, durability: ready.durability })
    }

    /// What a client connects to, with the protocol of its plan.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What its acknowledgements mean.
    pub fn acknowledgement(&self) -> String {
        format!("on stable storage ({}), 1 replica", self.durability)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its data is.
    pub fn data_dir(&self) -> &Path {
        self.data.path()
    }

    /// Kills it as a crash would, and starts it again on the same data and the same port.
    pub fn kill_and_start(&mut self) -> Result<(), BenchError> {
        let gone = |e| BenchError::failed(format_args!("the broker cannot be killed: {e}"));
        self.child.kill().map_err(gone)?;
        self.child.wait().map_err(gone)?;
        let (child, _) = spawn(&self.plan, &self.data.path().join("data"), &self.address)?;
        self.child = child;
        Ok(())
    }

    /// Stops it with SIGTERM and removes its temporary directory.
    pub fn stop(mut self) -> Result<(), BenchError> {
        let pid = Pid::from_child(&self.child);
        let _ = kill_process(pid, Signal::TERM);
        let until = Instant::now() + STOP;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => {
                    return Err(BenchError::failed(format_args!("the broker ended with {status}")));
                }
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(10)),
                Ok(None) => {
                    return Err(BenchError::failed(format_args!(
                        "the broker did not stop within {} s and was killed",
                        STOP.as_secs()
                    )));
                }
                Err(e) => return Err(BenchError::failed(format_args!("the broker is out of reach: {e}"))),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ended already after a stop; then this does nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Ready {
    address: String,
    durability: String,
}

fn spawn(plan: &ServerPlan, data: &Path, listen: &str) -> Result<(Child, Ready), BenchError> {
    let program = match &plan.program {
        Some(program) => program.clone(),
        None => std::env::current_exe()
            .map_err(|e| BenchError::failed(format_args!("this program cannot find itself: {e}")))?,
    };
    let mut command = Command::new(&program);
    let (native, kafka) = match plan.protocol {
        Protocol::Native => (listen, "none"),
        Protocol::Kafka => ("127.0.0.1:0", listen),
    };
    command.arg("start").arg("--data-dir").arg(data).args(["--listen", native, "--kafka-listen", kafka]);
    if let Some(cores) = plan.cores {
        command.args(["--cores", &cores.to_string()]);
    }
    // Only what the command line says holds for it.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HIGHWATER_"))
    {
        command.env_remove(name);
    }
    // Not among those that Ctrl-C at the terminal reaches: it is stopped when the run has ended.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| BenchError::failed(format_args!("{} does not start: {e}", program.display())))?;
    let stdout = child.stdout.take().expect("it is a pipe");
    let mut line = String::new();
    let read = BufReader::new(stdout).read_line(&mut line);
    if let Some(ready) = read.ok().and_then(|_| parse_ready(&line, plan.protocol)) {
        return Ok((child, ready));
    }
    let _ = child.kill();
    let status = child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
    Err(BenchError::failed(format_args!("the broker of this run did not become ready ({status}); see above")))
}

/// `ready native=ADDRESS kafka=ADDRESS ... durability="..." ...`
fn parse_ready(line: &str, protocol: Protocol) -> Option<Ready> {
    let rest = line.strip_prefix("ready ")?;
    let value = |name: &str| {
        let at = rest.find(name)? + name.len();
        let value = &rest[at..];
        let quoted = value.strip_prefix('"').and_then(|value| value.split_once('"')).map(|(value, _)| value);
        quoted.or_else(|| value.split_ascii_whitespace().next()).map(str::to_owned)
    };
    let listener = match protocol {
        Protocol::Native => "native=",
        Protocol::Kafka => "kafka=",
    };
    let address = value(listener)?.split(',').next()?.to_owned();
    Some(Ready { address, durability: value("durability=").unwrap_or_default() })
}

/// Nothing written there rests on a disk, and a run would measure memory.
fn refuse_memory(path: &Path) -> Result<(), BenchError> {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    let parent = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("."));
    let kind = rustix::fs::statfs(parent).map_or(0, |fs| fs.f_type as u64);
    if kind == TMPFS || kind == RAMFS {
        return Err(BenchError::failed(format_args!(
            "{} is in memory: nothing would be measured of a disk; name a directory on one with --data-dir or TMPDIR",
            path.display()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_broker_that_is_ready_is_understood() {
        let line = "ready native=127.0.0.1:4711,10.0.0.1:1 kafka=127.0.0.1:4712 data=/d cores=2 durability=\"RWF_DSYNC (measured)\" topics=0\n";
        for (protocol, address) in [(Protocol::Native, "127.0.0.1:4711"), (Protocol::Kafka, "127.0.0.1:4712")]
        {
            let ready = parse_ready(line, protocol).expect("a ready line");
            assert_eq!(
                (ready.address.as_str(), ready.durability.as_str()),
                (address, "RWF_DSYNC (measured)")
            );
            assert!(parse_ready("highwater: no\n", protocol).is_none());
        }
    }

    #[test]
    fn a_directory_in_memory_is_refused() {
        let error = refuse_memory(Path::new("/dev/shm/highwater-bench")).expect_err("a tmpfs");
        assert!(error.to_string().contains("--data-dir"), "{error}");
        refuse_memory(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("a disk");
    }

    #[test]
    fn a_program_that_is_no_broker_is_told() {
        let plan = ServerPlan {
            program: Some("/bin/false".into()),
            data_dir: Some(env!("CARGO_MANIFEST_DIR").into()),
            ..ServerPlan::default()
        };
        assert!(Server::start(plan).expect_err("no broker").to_string().contains("did not become ready"));
    }
}
