//! Interrupting the demo. The tests of the quick start compare its output with the README.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::support::{Guard, Place, program};

#[test]
fn an_interrupted_demo_kills_its_broker_and_removes_its_directory() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let place = Place::new();
        // More records than it can send before the signal.
        let mut command = program(&["demo", "--records", "50000000", "--data-dir"]);
        command.arg(place.path("")).stdout(Stdio::piped());
        let mut demo = command.spawn().expect("the program runs");
        let guard = Guard::new(&demo);
        let mut lines = BufReader::new(demo.stdout.take().expect("stdout is piped")).lines();
        let first = lines.next().expect("a line").expect("text");
        let broker: i32 =
            first.split(' ').find_map(|word| word.parse().ok()).unwrap_or_else(|| panic!("{first}"));
        let broker = Pid::from_raw(broker).expect("a process");
        assert!(test_kill_process(broker).is_ok(), "the broker runs");
        lines
            .find(|line| line.as_ref().is_ok_and(|line| line.starts_with("topic")))
            .expect("the demo continues")
            .expect("text");
        kill_process(Pid::from_child(&demo), signal).expect("it runs");
        assert_eq!(demo.wait().expect("a child can be waited for").code(), Some(code));
        guard.release();
        assert!(test_kill_process(broker).is_err(), "the broker is gone");
        assert_eq!(
            std::fs::read_dir(place.path("")).expect("a directory").count(),
            0,
            "the data directory is gone"
        );
    }
}
