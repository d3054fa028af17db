//! Starts the program, talks to it, and ends it, gently or not.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take before a test gives up on it. No test passes or fails by time below this.
const PATIENCE: Duration = Duration::from_mins(3);

/// A temporary directory of a test.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::Builder::new().prefix("highwater-e2e-").tempdir().expect("a temporary directory"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The broker's data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Starts a broker on [`Self::data`] and a free port.
    pub(crate) fn start(&self) -> Broker {
        self.start_with(&[])
    }

    /// The same, with more flags.
    pub(crate) fn start_with(&self, flags: &[&str]) -> Broker {
        Broker::start(start_command(&self.data(), flags)).unwrap_or_else(|ended| {
            panic!("the broker did not start: {}\n{}", ended.status, String::from_utf8_lossy(&ended.stderr))
        })
    }
}

/// The program with these arguments, free of what the surroundings set.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command.args(arguments);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HIGHWATER_") {
            command.env_remove(name);
        }
    }
    command
}

/// `start` on this directory; on a free port and at most two cores unless `flags` say otherwise.
pub(crate) fn start_command(data: &Path, flags: &[&str]) -> Command {
    let mut command = program(&["start", "--data-dir"]);
    command.arg(data);
    if !flags.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    if !flags.contains(&"--kafka-listen") {
        command.args(["--kafka-listen", "127.0.0.1:0"]);
    }
    command.args(flags);
    command
}

/// A running broker. Killed when dropped.
pub(crate) struct Broker {
    child: Child,
    /// The line it printed.
    pub(crate) ready: String,
    /// Held open, so that the broker can go on printing.
    _stdout: BufReader<ChildStdout>,
    stderr: File,
}

impl Broker {
    /// Runs `command` until it says ready; if it ends before that, how it ended.
    pub(crate) fn start(mut command: Command) -> Result<Self, Output> {
        let stderr = tempfile::tempfile().expect("a temporary file");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr.try_clone().expect("one more descriptor"))
            .spawn()
            .unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut ready = String::new();
        let guard = Guard::new(&child);
        let read = stdout.read_line(&mut ready);
        if read.is_ok_and(|n| n > 0) {
            guard.release();
            assert!(ready.starts_with("ready ") && ready.ends_with('\n'), "not a ready line: {ready:?}");
            return Ok(Self { child, ready, _stdout: stdout, stderr });
        }
        let status = child.wait().expect("a child can be waited for");
        guard.release();
        Err(Output { status, stdout: ready.into_bytes(), stderr: text_of(&stderr).into_bytes() })
    }

    /// A field of the ready line, quotes taken off.
    pub(crate) fn field(&self, name: &str) -> String {
        let start = format!(" {name}=");
        let (_, rest) =
            self.ready.split_once(&start).unwrap_or_else(|| panic!("no {name} in {}", self.ready));
        match rest.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next().unwrap_or_default().to_owned(),
            None => rest.split_whitespace().next().unwrap_or_default().to_owned(),
        }
    }

    /// Where clients connect to.
    pub(crate) fn address(&self) -> String {
        self.field("native").split(',').next().unwrap_or_default().to_owned()
    }

    /// Where Kafka clients connect to.
    pub(crate) fn kafka_address(&self) -> String {
        self.field("kafka").split(',').next().unwrap_or_default().to_owned()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to stderr so far.
    pub(crate) fn stderr(&self) -> String {
        text_of(&self.stderr)
    }

    /// The program with these arguments, pointed at this broker.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(arguments);
        command.env("HIGHWATER_SERVER", self.address());
        command
    }

    /// Runs the program against this broker; it has to succeed. Gives its stdout.
    pub(crate) fn run(&self, arguments: &[&str], stdin: &[u8]) -> Vec<u8> {
        let output = output(self.command(arguments), stdin);
        assert!(
            output.status.success(),
            "{arguments:?}: {}\n{}\nbroker: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            self.stderr()
        );
        output.stdout
    }

    /// SIGKILL: no last words.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the broker is ours to kill");
        self.child.wait().expect("a child can be waited for");
    }

    /// A signal, and how it ended.
    pub(crate) fn end(mut self, signal: Signal) -> (ExitStatus, String) {
        let guard = Guard::new(&self.child);
        kill_process(Pid::from_child(&self.child), signal).expect("the broker runs");
        let status = self.child.wait().expect("a child can be waited for");
        guard.release();
        let stderr = self.stderr();
        (status, stderr)
    }

    /// SIGTERM, after which it has to exit with 0.
    pub(crate) fn stop(self) {
        let (status, stderr) = self.end(Signal::TERM);
        assert_eq!(status.code(), Some(0), "{stderr}");
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_none()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Already ended is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text_of(file: &File) -> String {
    // The descriptor is shared with the writer, so it is read through a path of its own.
    use std::os::fd::AsRawFd as _;
    fs::read_to_string(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default()
}

/// Kills a process that outlasts all patience, so that a hang becomes a failure.
pub(crate) struct Guard(mpsc::Sender<()>);

impl Guard {
    pub(crate) fn new(child: &Child) -> Self {
        let pid = Pid::from_child(child);
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            if receiver.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("process {pid:?} hangs; killing it");
                let _ = kill_process(pid, Signal::KILL);
            }
        });
        Self(sender)
    }

    /// To be called once the process has ended or done what it was watched for.
    pub(crate) fn release(self) {
        drop(self.0);
    }
}

/// Runs a command to its end with these bytes on its stdin.
pub(crate) fn output(mut command: Command, stdin: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    let guard = Guard::new(&child);
    let mut pipe = child.stdin.take().expect("stdin is piped");
    let output = thread::scope(|scope| {
        scope.spawn(move || {
            // A command that ends early closes its stdin; that is for its exit code to tell.
            let _ = pipe.write_all(stdin);
        });
        child.wait_with_output().expect("a child can be waited for")
    });
    guard.release();
    output
}

/// Asserts on the exit code and gives what was said on stderr.
pub(crate) fn fails_with(code: i32, command: Command) -> String {
    let shown = format!("{command:?}");
    let output = output(command, b"");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{shown}\n{stderr}");
    stderr
}

/// The same for a broker, which must not say ready either.
pub(crate) fn start_fails_with(code: i32, command: Command) -> String {
    match Broker::start(command) {
        Ok(broker) => panic!("started: {}", broker.ready),
        Err(ended) => {
            let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert_eq!(ended.status.code(), Some(code), "{stderr}");
            assert_eq!(stderr.trim_end().lines().count(), 1, "one line says it: {stderr}");
            stderr
        }
    }
}

/// A number from the environment, for the long form of a test.
pub(crate) fn from_environment(name: &str, otherwise: usize) -> usize {
    std::env::var(name)
        .map_or(otherwise, |text| text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}
