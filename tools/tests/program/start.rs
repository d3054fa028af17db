//! Starting and stopping a broker: settings, permissions, signals and errors.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Broker, Guard, Place, fails_with, output, program, start_command, start_fails_with};

#[test]
fn a_broker_prints_a_ready_line_with_its_settings_and_stops_on_sigterm_sigint_and_sighup() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let place = Place::new();
        let broker = place.start_with(&["--cores", "1", "--memory", "128MiB"]);
        assert_eq!(broker.field("data"), place.data().display().to_string());
        assert_eq!(broker.field("cores"), "1");
        assert_eq!(broker.field("memory"), "128MiB");
        assert!(broker.address().starts_with("127.0.0.1:") && !broker.address().ends_with(":0"));
        let durability = broker.field("durability");
        let (status, stderr) = broker.end(signal);
        assert_eq!(status.code(), Some(0), "{stderr}");
        if durability.starts_with("none") {
            assert!(stderr.contains("in memory"), "a warning about a directory in memory: {stderr}");
        } else {
            assert!(!durability.is_empty());
            assert_eq!(stderr, "", "a normal start and stop prints nothing on stderr");
        }
    }
}

#[test]
fn a_second_broker_on_the_same_directory_fails_and_the_first_keeps_running() {
    let place = Place::new();
    let mut first = place.start();
    let said = start_fails_with(73, start_command(&place.data(), &[]));
    assert!(said.contains(&place.data().display().to_string()), "names the directory: {said}");
    assert!(said.contains(&first.pid().to_string()), "names the process: {said}");
    assert!(first.is_running());
    first.stop();
}

#[test]
fn a_data_directory_can_be_used_again_after_a_kill() {
    let place = Place::new();
    place.start().kill();
    place.start().stop();
}

#[test]
fn the_error_for_a_port_in_use_names_the_address() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let said = start_fails_with(1, start_command(&place.data(), &["--listen", &address]));
    assert!(said.contains(&address), "names the address: {said}");

    let first = place.start();
    let other = Place::new();
    let said = start_fails_with(1, start_command(&other.data(), &["--listen", &first.address()]));
    assert!(said.contains(&first.address()), "also if another broker uses the port: {said}");
}

#[test]
fn listening_on_an_external_address_requires_insecure() {
    let place = Place::new();
    let said = start_fails_with(78, start_command(&place.data(), &["--listen", "0.0.0.0:0"]));
    assert!(said.contains("insecure"), "says what to do: {said}");
    let broker = place.start_with(&["--listen", "0.0.0.0:0", "--insecure"]);
    assert!(broker.address().starts_with("0.0.0.0:"));
}

#[test]
fn an_advertised_address_that_clients_cannot_connect_to_is_rejected() {
    let place = Place::new();
    for flag in ["--advertise", "--kafka-advertise"] {
        for (address, code) in [
            ("0.0.0.0:1", 78),
            ("[::]:9092", 78),
            ("localhost:0", 78),
            ("a:1,b:1", 78),
            ("a b:1", 2),
            ("a", 2),
        ] {
            let said = fails_with(code, start_command(&place.data(), &[flag, address]));
            assert!(code == 2 || said.contains("advertise"), "{said}");
            assert!(said.contains(address) || said.contains("2 addresses"), "it names {address}: {said}");
        }
    }
    assert!(!place.data().exists());
}

#[test]
fn a_broker_listens_on_every_address_of_a_host_name() {
    let place = Place::new();
    let broker = place.start_with(&["--listen", "localhost:0", "--kafka-listen", "localhost:0"]);
    for field in ["native", "kafka"] {
        for address in broker.field(field).split(',') {
            TcpStream::connect(address).unwrap_or_else(|e| panic!("{address}: {e}"));
        }
    }
    broker.stop();
}

#[test]
fn invalid_settings_are_rejected_with_their_name() {
    let place = Place::new();
    for (flags, word) in [
        (&["--cores", "0"][..], "cores"),
        (&["--cores", "9999"], "cores"),
        (&["--memory", "5", "--cores", "1"], "at least 96MiB"),
        (&["--memory", "900TiB"], "more than this process may use"),
        (&["--config", "/nonexistent.toml"], "/nonexistent.toml"),
        (&["--log-level", "loud=quiet=x"], "log level"),
    ] {
        let said = start_fails_with(78, start_command(&place.data(), flags));
        assert!(said.contains(word), "{flags:?}: {said}");
    }
    let said = start_fails_with(77, start_command(Path::new("/sys/highwater-data"), &[]));
    assert!(said.contains("/sys/highwater-data"), "permission denied: {said}");
    let file = place.path("not-a-directory");
    fs::write(&file, "x").expect("a writable temporary directory");
    let said = fails_with(78, start_command(&file, &[]));
    assert!(said.contains("not-a-directory"), "{said}");
}

#[test]
fn an_invalid_command_line_exits_with_two_and_an_error() {
    for arguments in [
        &["start", "--listen", "no where"][..],
        &["consume"],
        &["frobnicate"],
        &["consume", "t", "--format", "%q"],
        &["consume", "t", "--from", "tomorrow"],
        &["consume", "t", "--json", "--format", "%v"],
        &["produce", "t", "--key-separator", ""],
        &["topic", "create", "t", "--config", "novalue"],
        &["topic", "list", "--server", ""],
        &["topic", "list", "--server", "localhost,,127.0.0.1"],
        &["topic", "list", "--server", ":9191"],
        &["topic", "list", "--server", "localhost:port"],
        &["bench", "run", "few-big", "--server", ""],
        &["start", "--listen", ""],
        &["log", "dump", ""],
    ] {
        let said = fails_with(2, program(arguments));
        assert!(said.starts_with("error:"), "{arguments:?}: {said}");
    }
}

#[test]
fn print_config_shows_the_source_of_each_setting_and_does_not_start_a_broker() {
    let place = Place::new();
    let file = place.path("highwater.toml");
    fs::write(&file, "cores = 1\nmemory = \"300MiB\"\n").expect("a writable temporary directory");
    let mut command = start_command(
        &place.data(),
        &["--print-config", "--batch-bytes-max", "64MiB", "--journal-tail-bytes-max", "0"],
    );
    command.env("HIGHWATER_CONFIG", &file).env("HIGHWATER_MEMORY", "400MiB");
    let printed = output(command, b"");
    assert!(printed.status.success());
    let text = String::from_utf8(printed.stdout).expect("text");
    for line in [
        "listen = [\"127.0.0.1:0\"]  # flag",
        "memory = \"400MiB\"  # environment",
        "cores = 1  # file",
        "log_level = \"warn\"  # default",
        "batch_bytes_max = \"64MiB\"  # flag",
        "journal_tail_bytes_max = \"0\"  # flag",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    assert!(!place.data().exists());
}

#[test]
fn a_batch_limit_out_of_range_or_too_large_for_the_memory_is_rejected_with_the_valid_range() {
    let place = Place::new();
    let rejected = |flags: &[&str]| start_fails_with(78, start_command(&place.data(), flags));
    let said = rejected(&["--batch-bytes-max", "101MiB"]);
    assert!(said.contains("1MiB to 100MiB"), "{said}");
    let said = rejected(&["--batch-bytes-max", "100MiB", "--cores", "1", "--memory", "256MiB"]);
    assert!(said.contains("batches of 100MiB") && said.contains("at least 432MiB"), "{said}");
    assert!(!place.data().exists());
}

#[test]
fn a_limit_of_the_journal_out_of_range_is_rejected_before_anything_is_written() {
    let place = Place::new();
    let said = start_fails_with(78, start_command(&place.data(), &["--journal-tail-bytes-max", "1025KiB"]));
    assert!(said.contains("journal-tail-bytes-max of 1049600 bytes is not possible"), "{said}");
    assert!(!place.data().exists());
}

#[test]
fn a_broker_with_closed_stdout_and_stderr_keeps_serving() {
    let place = Place::new();
    let first = place.start();
    let address = first.address();
    first.stop();
    let mut child = start_command(&place.data(), &["--listen", &address, "--log-level", "info"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let guard = Guard::new(&child);
    drop(child.stdout.take());
    let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
    let logged = stderr.lines().map_while(Result::ok).find(|line| line.contains("ready native="));
    assert!(logged.is_some_and(|line| line.contains(&address)));
    // The reader of stderr is dropped by now, too.
    assert!(TcpStream::connect(&address).is_ok());
    kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
    let status = child.wait().expect("a child can be waited for");
    guard.release();
    assert!(status.success(), "{status}");
}

#[test]
fn errors_about_io_uring_distinguish_forbidden_missing_and_out_of_memory() {
    for (errno, words) in [
        (libc_errno::EPERM, &["io_uring", "seccomp"][..]),
        (libc_errno::ENOSYS, &["io_uring", "kernel"]),
        (libc_errno::ENOMEM, &["locked memory", "ulimit -l"]),
    ] {
        let place = Place::new();
        let started = start_with_refused_io_uring(start_command(&place.data(), &["--cores", "1"]), errno);
        let Err(ended) = started else { panic!("started although io_uring_setup fails with {errno}") };
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "errno {errno}: {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "one line: {said}");
    }
}

mod libc_errno {
    pub(super) const EPERM: u32 = 1;
    pub(super) const ENOMEM: u32 = 12;
    pub(super) const ENOSYS: u32 = 38;
}

/// Starts a broker in which `io_uring_setup` fails with `errno`. A seccomp filter is applied to a thread, which then starts the process:
/// child processes inherit the filter, other threads do not.
fn start_with_refused_io_uring(command: Command, errno: u32) -> Result<Broker, std::process::Output> {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    const IO_URING_SETUP: i64 = 425;
    let filter = SeccompFilter::new(
        [(IO_URING_SETUP, vec![])].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno),
        std::env::consts::ARCH.try_into().expect("an architecture that seccomp supports"),
    )
    .expect("a filter");
    let filter: BpfProgram = filter.try_into().expect("a small filter");
    std::thread::spawn(move || {
        seccompiler::apply_filter(&filter).expect("a process may restrict itself");
        Broker::start(command)
    })
    .join()
    .expect("the starting thread does not panic")
}
