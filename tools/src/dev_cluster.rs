//! `dev-cluster`: several nodes of a cluster on this machine, for development.
//!
//! Each node is a process of its own. They are in process groups of their own, so that Ctrl-C reaches this process alone, which stops them.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use highwater_protocol::text::counted;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cli::DevClusterArgs;
use crate::failure::Failure;
use crate::output;

/// First port of a cluster whose data is kept: its nodes have to find each other again.
const PORT_DEFAULT: u16 = 19190;
/// Distance of the ports of two nodes.
const PORTS_PER_NODE: u16 = 10;

/// What happens while the cluster runs.
enum Event {
    /// A node has printed its `ready` line.
    Ready(usize, String),
    /// A node has closed its stdout.
    Ended(usize),
    /// This process was asked to stop.
    Signal,
}

/// The ports of a node.
#[derive(Clone, Copy)]
struct Ports {
    native: u16,
    kafka: u16,
    peers: u16,
}

/// The processes. Dropping it kills those that still run.
struct Nodes(Vec<Child>);

/// Runs a cluster until a signal.
pub(crate) fn run(args: &DevClusterArgs) -> Result<(), Failure> {
    let temporary = match &args.data_dir {
        Some(_) => None,
        None => Some(temporary_dir()?),
    };
    let dir = args.data_dir.as_deref().or(temporary.as_ref().map(tempfile::TempDir::path));
    let dir = dir.expect("one of the two is there");
    let ports = choose_ports(args)?;
    let (sender, events) = channel();
    forward_signals(sender.clone())?;
    let mut nodes = Nodes::start(args, dir, &ports, &sender)?;
    let outcome = watch(&events, ports.len());
    let ended = nodes.stop();
    outcome?;
    match ended.iter().position(|status| !status.success()) {
        Some(node) => Err(Failure::general(format_args!("node {node} ended with {}", ended[node]))),
        None => Ok(()),
    }
}

/// Prints who is ready, until a signal or until a node ends.
fn watch(events: &Receiver<Event>, nodes: usize) -> Result<(), Failure> {
    let mut ready = 0;
    while let Ok(event) = events.recv() {
        match event {
            Event::Signal => break,
            Event::Ended(node) => {
                return Err(Failure::general(format_args!("node {node} has ended; the others are stopped")));
            }
            Event::Ready(node, line) => {
                output::print(&format!("node {node}: {}\n", line.trim_start_matches("ready ").trim_end()))?;
                ready += 1;
                if ready == nodes {
                    let nodes = counted(nodes, "node");
                    output::print(&format!("ready: a cluster of {nodes}; Ctrl-C stops all of them\n"))?;
                }
            }
        }
    }
    Ok(())
}

fn temporary_dir() -> Result<tempfile::TempDir, Failure> {
    tempfile::Builder::new()
        .prefix("highwater-dev-cluster-")
        .tempdir()
        .map_err(|e| Failure::general(format_args!("cannot create a temporary directory: {e}")))
}

fn choose_ports(args: &DevClusterArgs) -> Result<Vec<Ports>, Failure> {
    let first = args.port.or(args.data_dir.as_ref().map(|_| PORT_DEFAULT));
    let Some(first) = first else { return free_ports(args.nodes) };
    let last = u32::from(first) + u32::from(PORTS_PER_NODE) * u32::from(args.nodes);
    if last > u32::from(u16::MAX) {
        return Err(Failure::usage(format_args!("--port {first}: the nodes need ports up to {last}")));
    }
    let of = |node| {
        let native = first + PORTS_PER_NODE * node;
        Ports { native, kafka: native + 1, peers: native + 2 }
    };
    Ok((0..args.nodes).map(of).collect())
}

/// Returns ports that were free a moment ago. All are held until all are chosen.
fn free_ports(nodes: u16) -> Result<Vec<Ports>, Failure> {
    let mut held = Vec::new();
    let mut free = || {
        let socket = TcpListener::bind("127.0.0.1:0")?;
        let port = socket.local_addr()?.port();
        held.push(socket);
        std::io::Result::Ok(port)
    };
    let mut of = || Ok(Ports { native: free()?, kafka: free()?, peers: free()? });
    let ports: std::io::Result<Vec<Ports>> = (0..nodes).map(|_| of()).collect();
    ports.map_err(|e| Failure::general(format_args!("cannot find free ports: {e}")))
}

fn forward_signals(events: Sender<Event>) -> Result<(), Failure> {
    let signals = Signals::new([SIGINT, SIGTERM, SIGHUP]);
    let mut signals = signals.map_err(|e| Failure::general(format_args!("cannot wait for signals: {e}")))?;
    thread::spawn(move || {
        for _ in signals.forever() {
            // Nobody listens while the nodes stop.
            let _ = events.send(Event::Signal);
        }
    });
    Ok(())
}

impl Nodes {
    fn start(
        args: &DevClusterArgs,
        dir: &Path,
        ports: &[Ports],
        events: &Sender<Event>,
    ) -> Result<Self, Failure> {
        let program = std::env::current_exe()
            .map_err(|e| Failure::general(format_args!("cannot find this program: {e}")))?;
        let seeds: Vec<String> = ports.iter().map(|ports| format!("127.0.0.1:{}", ports.peers)).collect();
        let mut nodes = Self(Vec::new());
        for (node, ports) in ports.iter().enumerate() {
            let mut command = Command::new(&program);
            command.arg("start").arg("--data-dir").arg(dir.join(format!("node-{node}")));
            command.args(["--cores", &args.cores.to_string()]);
            command.args(["--listen", &format!("127.0.0.1:{}", ports.native)]);
            command.args(["--kafka-listen", &format!("127.0.0.1:{}", ports.kafka)]);
            command.args(["--peer-listen", &seeds[node], "--seeds", &seeds.join(",")]);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
            let mut child = command
                .spawn()
                .map_err(|e| Failure::general(format_args!("cannot start node {node}: {e}")))?;
            let stdout = child.stdout.take().expect("stdout is piped");
            nodes.0.push(child);
            let events = events.clone();
            thread::spawn(move || report(node, stdout, &events));
        }
        Ok(nodes)
    }

    /// Stops all nodes, and returns how each has ended.
    fn stop(&mut self) -> Vec<ExitStatus> {
        for child in &self.0 {
            // Fails if it has ended.
            let _ = kill_process(Pid::from_child(child), Signal::TERM);
        }
        self.0.iter_mut().filter_map(|child| child.wait().ok()).collect()
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Fails if it has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Reports what a node prints: its `ready` line, and the end.
fn report(node: usize, stdout: ChildStdout, events: &Sender<Event>) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        // Nobody listens while the nodes stop.
        let _ = events.send(Event::Ready(node, line));
    }
    let _ = events.send(Event::Ended(node));
}
