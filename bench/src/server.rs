//! Brokers started for a run: `highwater start` in separate processes with their own data directories.
//!
//! The first one founds a cluster, and the others join it before the run begins. A single one has no listener for others.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::BenchError;

/// How long the brokers may take to stop before they are killed.
const STOP: Duration = Duration::from_mins(1);

/// Protocol between client and broker.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Protocol {
    /// Highwater's native protocol.
    #[default]
    Native,
    /// Kafka's protocol.
    Kafka,
}

/// How to start the brokers.
#[derive(Clone, Debug)]
pub struct ServerPlan {
    /// The program; `None` for this program.
    pub program: Option<PathBuf>,
    /// Their number.
    pub nodes: u8,
    /// Folder of their data; `None` for a temporary one, removed at the end.
    pub data_dir: Option<PathBuf>,
    /// Number of cores of each; `None` for the broker's default.
    pub cores: Option<u16>,
    /// Bytes of memory of each; `None` for the broker's default.
    pub memory_bytes: Option<usize>,
    /// The listener to use.
    pub protocol: Protocol,
}

impl Default for ServerPlan {
    fn default() -> Self {
        Self {
            program: None,
            nodes: 1,
            data_dir: None,
            cores: None,
            memory_bytes: None,
            protocol: Protocol::default(),
        }
    }
}

/// Running brokers. Dropping them kills them and removes their directory; [`Server::stop`] shuts them down cleanly.
#[derive(Debug)]
pub struct Server {
    plan: ServerPlan,
    data: Data,
    /// The founder first.
    nodes: Vec<Node>,
}

/// A broker.
#[derive(Debug)]
struct Node {
    data: PathBuf,
    child: Child,
    ready: Ready,
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
    /// Starts the brokers. Returns when clients can connect to each of them.
    pub fn start(plan: ServerPlan) -> Result<Self, BenchError> {
        let data = if let Some(path) = &plan.data_dir {
            Data::Given(path.clone())
        } else {
            let directory = tempfile::Builder::new().prefix("highwater-bench-").tempdir();
            Data::Temporary(directory.map_err(|e| {
                BenchError::failed(format_args!(
                    "cannot create a directory for the broker in {}: {e}; choose another with TMPDIR or --data-dir",
                    std::env::temp_dir().display()
                ))
            })?)
        };
        reject_memory_fs(data.path())?;
        let mut server = Self { plan, data, nodes: Vec::new() };
        for number in 0..server.plan.nodes {
            server.start_node(number)?;
        }
        Ok(server)
    }

    /// Starts the next broker.
    fn start_node(&mut self, number: u8) -> Result<(), BenchError> {
        let name = if self.plan.nodes == 1 { "data".to_owned() } else { format!("data-{number}") };
        let data = self.data.path().join(name);
        let any = "127.0.0.1:0".to_owned();
        let places = Places {
            listen: any.clone(),
            peers: (self.plan.nodes > 1).then_some(any),
            seed: self.nodes.first().and_then(|founder| founder.ready.peers.clone()),
        };
        let (child, ready) = spawn(&self.plan, &data, &places)?;
        self.nodes.push(Node { data, child, ready });
        Ok(())
    }

    /// Returns the addresses for clients with the protocol of the plan.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.ready.address.clone()).collect()
    }

    /// Returns the meaning of its acknowledgements.
    pub fn acknowledgement(&self) -> String {
        let durability = &self.nodes[0].ready.durability;
        match self.nodes.len() {
            1 => format!("on stable storage ({durability}), 1 replica"),
            nodes => format!("on stable storage ({durability}) of a majority of {nodes} replicas"),
        }
    }

    /// Returns the process ids.
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().map(|node| node.child.id()).collect()
    }

    /// Returns the folder of their data.
    pub fn data_dir(&self) -> &Path {
        self.data.path()
    }

    /// Kills the founder with SIGKILL.
    pub fn kill(&mut self) -> Result<(), BenchError> {
        let gone = |e| BenchError::failed(format_args!("cannot kill the broker: {e}"));
        let child = &mut self.nodes[0].child;
        child.kill().map_err(gone)?;
        child.wait().map_err(gone)?;
        Ok(())
    }

    /// Starts the founder again on the same data and ports. Returns its process id.
    pub fn start_again(&mut self) -> Result<u32, BenchError> {
        let node = &mut self.nodes[0];
        let places =
            Places { listen: node.ready.address.clone(), peers: node.ready.peers.clone(), seed: None };
        let (child, _) = spawn(&self.plan, &node.data, &places)?;
        node.child = child;
        Ok(node.child.id())
    }

    /// Stops all of them with SIGTERM, and removes the temporary directory.
    pub fn stop(mut self) -> Result<(), BenchError> {
        for node in &self.nodes {
            let _ = kill_process(Pid::from_child(&node.child), Signal::TERM);
        }
        let until = Instant::now() + STOP;
        self.nodes.iter_mut().try_for_each(|node| node.wait(until))
    }
}

impl Node {
    /// Waits for the end of a broker that was told to stop.
    fn wait(&mut self, until: Instant) -> Result<(), BenchError> {
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
                Err(e) => return Err(BenchError::failed(format_args!("cannot wait for the broker: {e}"))),
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Fails if it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a broker has said about itself.
#[derive(Debug)]
struct Ready {
    address: String,
    peers: Option<String>,
    durability: String,
}

/// Where a broker listens, and whom it joins.
struct Places {
    listen: String,
    peers: Option<String>,
    seed: Option<String>,
}

fn spawn(plan: &ServerPlan, data: &Path, places: &Places) -> Result<(Child, Ready), BenchError> {
    let listen = places.listen.as_str();
    let program = match &plan.program {
        Some(program) => program.clone(),
        None => std::env::current_exe().map_err(|e| {
            BenchError::failed(format_args!("cannot determine the path of this program: {e}"))
        })?,
    };
    let mut command = Command::new(&program);
    let (native, kafka) = match plan.protocol {
        Protocol::Native => (listen, "none"),
        Protocol::Kafka => ("127.0.0.1:0", listen),
    };
    command.arg("start").arg("--data-dir").arg(data).args(["--listen", native, "--kafka-listen", kafka]);
    if let Some(peers) = &places.peers {
        command.args(["--peer-listen", peers]);
    }
    if let Some(seed) = &places.seed {
        command.args(["--seeds", seed]);
    }
    if let Some(cores) = plan.cores {
        command.args(["--cores", &cores.to_string()]);
    }
    if let Some(bytes) = plan.memory_bytes {
        command.args(["--memory", &bytes.to_string()]);
    }
    // Only the command line configures it, not the environment.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HIGHWATER_"))
    {
        command.env_remove(name);
    }
    // In its own process group, so that Ctrl-C does not stop it before the end of the run.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| BenchError::failed(format_args!("cannot start {}: {e}", program.display())))?;
    let stdout = child.stdout.take().expect("stdout is piped");
    let mut line = String::new();
    let read = BufReader::new(stdout).read_line(&mut line);
    if let Some(ready) = read.ok().and_then(|_| parse_ready(&line, plan.protocol)) {
        return Ok((child, ready));
    }
    let _ = child.kill();
    let status = child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
    Err(BenchError::failed(format_args!(
        "the broker started for this run did not become ready ({status}); see above"
    )))
}

/// Parses `ready native=ADDRESS kafka=ADDRESS node=N peers=ADDRESS ... durability="..." ...`.
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
    let peers = value(" peers=");
    Some(Ready { address, peers, durability: value("durability=").unwrap_or_default() })
}

/// Rejects a directory on a file system in memory, where a run would not measure a disk.
fn reject_memory_fs(path: &Path) -> Result<(), BenchError> {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    let parent = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("."));
    let kind = rustix::fs::statfs(parent).map_or(0, |fs| fs.f_type as u64);
    if kind == TMPFS || kind == RAMFS {
        return Err(BenchError::failed(format_args!(
            "{} is on a file system in memory; choose a directory on a disk with --data-dir or TMPDIR",
            path.display()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_of_a_broker_is_parsed() {
        let line = "ready native=127.0.0.1:4711,10.0.0.1:1 kafka=127.0.0.1:4712 data=/d cores=2 durability=\"RWF_DSYNC (measured)\" topics=0\n";
        for (protocol, address) in [(Protocol::Native, "127.0.0.1:4711"), (Protocol::Kafka, "127.0.0.1:4712")]
        {
            let ready = parse_ready(line, protocol).expect("a ready line");
            assert_eq!(
                (ready.address.as_str(), ready.durability.as_str()),
                (address, "RWF_DSYNC (measured)")
            );
            assert!(ready.peers.is_none() && parse_ready("highwater: no\n", protocol).is_none());
        }
    }

    #[test]
    fn the_address_for_other_nodes_is_in_the_ready_line() {
        let line = "ready native=a:1 kafka=none node=2 peers=10.0.0.1:9193 data=/d cores=2\n";
        let ready = parse_ready(line, Protocol::Native).expect("a ready line");
        assert_eq!(ready.peers.as_deref(), Some("10.0.0.1:9193"));
    }

    #[test]
    fn a_directory_in_memory_is_rejected() {
        let error = reject_memory_fs(Path::new("/dev/shm/highwater-bench")).expect_err("a tmpfs");
        assert!(error.to_string().contains("--data-dir"), "{error}");
        reject_memory_fs(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("a disk");
    }

    #[test]
    fn a_program_that_is_not_a_broker_is_an_error() {
        let plan = ServerPlan {
            program: Some("/bin/false".into()),
            data_dir: Some(env!("CARGO_MANIFEST_DIR").into()),
            ..ServerPlan::default()
        };
        assert!(Server::start(plan).expect_err("no broker").to_string().contains("did not become ready"));
    }
}
