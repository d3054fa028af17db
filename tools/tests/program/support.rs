//! Starts, runs and stops the program.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Timeout after which a hanging process is killed. Test results do not depend on time otherwise.
const HANG_TIMEOUT: Duration = Duration::from_mins(3);

/// Temporary directory of a test.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::Builder::new().prefix("highwater-e2e-").tempdir().expect("a temporary directory"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Returns the path of the broker's data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Starts a broker on [`Self::data`] and a free port.
    pub(crate) fn start(&self) -> Broker {
        self.start_with(&[])
    }

    /// Like [`Self::start`], with more flags.
    pub(crate) fn start_with(&self, flags: &[&str]) -> Broker {
        Broker::start(start_command(&self.data(), flags)).unwrap_or_else(|ended| {
            panic!("the broker did not start: {}\n{}", ended.status, String::from_utf8_lossy(&ended.stderr))
        })
    }
}

/// Returns a command that runs the program without the `HIGHWATER_` variables of the environment.
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

/// Returns a command that starts a broker on this directory, and on free ports unless `flags` set them.
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
    /// Its ready line.
    pub(crate) ready: String,
    /// Kept open for the broker.
    _stdout: BufReader<ChildStdout>,
    stderr: File,
}

impl Broker {
    /// Runs `command` and waits for the ready line. Returns the output if the command ends before that.
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

    /// Returns a field of the ready line, without quotes.
    pub(crate) fn field(&self, name: &str) -> String {
        let start = format!(" {name}=");
        let (_, rest) =
            self.ready.split_once(&start).unwrap_or_else(|| panic!("no {name} in {}", self.ready));
        match rest.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next().unwrap_or_default().to_owned(),
            None => rest.split_whitespace().next().unwrap_or_default().to_owned(),
        }
    }

    /// Returns the address of the native listener.
    pub(crate) fn address(&self) -> String {
        self.field("native").split(',').next().unwrap_or_default().to_owned()
    }

    /// Returns the address of the listener for Kafka clients.
    pub(crate) fn kafka_address(&self) -> String {
        self.field("kafka").split(',').next().unwrap_or_default().to_owned()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns what the broker wrote to stderr so far.
    pub(crate) fn stderr(&self) -> String {
        text_of(&self.stderr)
    }

    /// Returns a command that runs the program as a client of this broker.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(arguments);
        command.env("HIGHWATER_SERVER", self.address());
        command
    }

    /// Runs the program as a client of this broker, asserts success, and returns its stdout.
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

    /// Kills the broker with SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("a child process can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// Sends a signal, and returns the exit status and stderr.
    pub(crate) fn end(mut self, signal: Signal) -> (ExitStatus, String) {
        let guard = Guard::new(&self.child);
        kill_process(Pid::from_child(&self.child), signal).expect("the broker runs");
        let status = self.child.wait().expect("a child can be waited for");
        guard.release();
        let stderr = self.stderr();
        (status, stderr)
    }

    /// Stops the broker with SIGTERM, and asserts that it exits with 0.
    pub(crate) fn stop(self) {
        let (status, stderr) = self.end(Signal::TERM);
        assert_eq!(status.code(), Some(0), "{stderr}");
    }

    /// Returns whether the broker is still running.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be polled").is_none()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Fails if the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text_of(file: &File) -> String {
    // The descriptor and its position are shared with the writer, so open the file again.
    use std::os::fd::AsRawFd as _;
    fs::read_to_string(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default()
}

/// Kills a process that hangs, so that the test fails.
pub(crate) struct Guard(mpsc::Sender<()>);

impl Guard {
    pub(crate) fn new(child: &Child) -> Self {
        let pid = Pid::from_child(child);
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            if receiver.recv_timeout(HANG_TIMEOUT) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("process {pid:?} hangs; killing it");
                let _ = kill_process(pid, Signal::KILL);
            }
        });
        Self(sender)
    }

    /// Ends the supervision, after the process has ended or done what the test waited for.
    pub(crate) fn release(self) {
        drop(self.0);
    }
}

/// Runs a command with `stdin` as its input, and returns its output.
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
            // Fails if the command ends early; its exit code shows that.
            let _ = pipe.write_all(stdin);
        });
        child.wait_with_output().expect("a child can be waited for")
    });
    guard.release();
    output
}

/// Runs a producer of more records than the disk of its broker holds until the broker rejects them, then interrupts it: it would send them
/// again and again. Returns its stderr.
pub(crate) fn produce_until_rejected(broker: &Broker, topic: &str, stdin: &[u8]) -> String {
    let mut child = broker
        .command(&["produce", topic, "--timeout", "1h"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let guard = Guard::new(&child);
    let mut pipe = child.stdin.take().expect("stdin is piped");
    let mut stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
    let said = thread::scope(|scope| {
        scope.spawn(move || {
            // Fails when the producer ends.
            let _ = pipe.write_all(stdin);
        });
        let mut said = String::new();
        while !said.contains("the broker rejects records") {
            let read = stderr.read_line(&mut said).expect("stderr can be read");
            if read == 0 {
                break;
            }
        }
        // Fails if it has ended, which is not what is expected of it.
        let _ = kill_process(Pid::from_child(&child), Signal::INT);
        stderr.read_to_string(&mut said).expect("stderr can be read");
        said
    });
    let status = child.wait().expect("a child can be waited for");
    guard.release();
    assert_eq!(status.signal(), Some(2), "{status}: {said}");
    said
}

/// Runs a command, asserts its exit code, and returns its stderr.
pub(crate) fn fails_with(code: i32, command: Command) -> String {
    let shown = format!("{command:?}");
    let output = output(command, b"");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{shown}\n{stderr}");
    stderr
}

/// Runs a broker, asserts that it fails with this code and one line on stderr before it is ready, and returns that line.
pub(crate) fn start_fails_with(code: i32, command: Command) -> String {
    match Broker::start(command) {
        Ok(broker) => panic!("started: {}", broker.ready),
        Err(ended) => {
            let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert_eq!(ended.status.code(), Some(code), "{stderr}");
            assert_eq!(stderr.trim_end().lines().count(), 1, "one line on stderr: {stderr}");
            stderr
        }
    }
}

/// Returns a number from an environment variable, which selects the long form of a test.
pub(crate) fn from_environment(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}
