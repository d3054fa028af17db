//! Runs the README's quick start exactly as written, and compares the demo's output with the README.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Broker, Guard, Place, output, program};

/// Markers in the README before the blocks used here.
const BROKER: &str = "<!-- quick start 1:";
const COMMANDS: &str = "<!-- quick start 2:";
const FOLLOW: &str = "<!-- quick start 3:";
const ONE_MORE: &str = "<!-- quick start 4:";
const DEMO: &str = "<!-- demo:";

/// Returns the lines of the first code block after `marker` in the README.
fn block_after(marker: &str) -> Vec<String> {
    let readme =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tools/ is in the workspace").join("README.md");
    let text = std::fs::read_to_string(readme).expect("there is a README");
    let (_, after) = text.split_once(marker).unwrap_or_else(|| panic!("{marker} is not in the README"));
    let lines = after.lines().skip_while(|line| !line.starts_with("```")).skip(1);
    lines.take_while(|line| !line.starts_with("```")).map(str::to_owned).collect()
}

/// Returns a command that runs a line in a shell with the program on its `PATH`.
fn shell(line: &str, place: &Path) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_highwater"));
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(place);
    command.env("PATH", format!("{}:{path}", program.parent().expect("a directory").display()));
    command
}

#[test]
fn the_quick_start_of_the_readme_works_as_it_stands() {
    let place = Place::new();
    let here = place.path("");
    let [start] = &block_after(BROKER)[..] else { panic!("one line starts the broker") };
    let mut start = shell(&format!("exec {start}"), &here);
    start.env("HIGHWATER_LISTEN", "127.0.0.1:0").env("HIGHWATER_KAFKA_LISTEN", "127.0.0.1:0");
    let broker = Broker::start(start).unwrap_or_else(|ended| {
        panic!("{}", String::from_utf8_lossy(&ended.stderr));
    });
    assert_eq!(broker.field("data"), place.path("highwater-data").display().to_string());
    let run = |line: &str| {
        let mut command = shell(line, &here);
        command.env("HIGHWATER_SERVER", broker.address());
        command
    };
    let commands = block_after(COMMANDS);
    let mut printed = String::new();
    for line in &commands {
        let done = output(run(line), b"");
        assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
        printed += &String::from_utf8(done.stdout).expect("text");
    }
    let values = printed.lines().filter(|line| line.starts_with("order number "));
    assert_eq!(values.count(), 3, "{printed}");
    assert!(printed.starts_with("created orders with 8 partitions\n"), "{printed}");
    assert!(printed.contains("  8 partitions  1,000,000 records  "), "{printed}");
    let read = |name: &str| std::fs::read(place.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(in_order_of_keys(&read("copy.txt")), in_order_of_keys(&read("orders.txt")));

    let [follow] = &block_after(FOLLOW)[..] else { panic!("one line follows") };
    let [one_more] = &block_after(ONE_MORE)[..] else { panic!("one line sends one more") };
    let mut follow = run(&format!("exec {follow}")).stdout(Stdio::piped()).spawn().expect("a shell");
    let guard = Guard::new(&follow);
    let follower = BufReader::new(follow.stdout.take().expect("stdout is piped"));
    let first = std::thread::scope(|scope| {
        let first = scope.spawn(|| follower.lines().next());
        // The follower starts at `latest`, at an unknown moment; send records until it prints one.
        while !first.is_finished() {
            let sent = output(run(one_more), b"");
            assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
        }
        first.join().expect("reading a pipe does not panic")
    });
    follow.kill().expect("the follower is running");
    let _ = follow.wait();
    guard.release();
    let line = first.expect("a line").expect("text");
    assert!(line.contains(r#""key":"customer-1","value":"one more""#), "{line}");
    broker.stop();
}

#[test]
fn the_demo_prints_what_the_readme_shows_except_for_the_numbers() {
    let place = Place::new();
    let mut command = program(&["demo", "--records", "20000", "--data-dir"]);
    command.arg(place.path(""));
    let done = output(command, b"");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let printed = String::from_utf8(done.stdout).expect("text");
    let printed: Vec<String> = printed.lines().map(without_numbers).collect();
    let shown: Vec<String> = block_after(DEMO).iter().map(|line| without_numbers(line)).collect();
    assert_eq!(printed, shown);
    let left = std::fs::read_dir(place.path("")).expect("a directory").count();
    assert_eq!(left, 0, "the demo removes its files");
}

/// Replaces numbers and other words that vary between runs, and collapses spaces.
fn without_numbers(line: &str) -> String {
    let word = |word: &str| match word {
        word if word.starts_with('/') || word.contains("(sync-per-round)") || word.contains("(dsync)") => {
            "…".to_owned()
        }
        "0" => "0".to_owned(),
        word if word.starts_with(|c: char| c.is_ascii_digit()) => "N".to_owned(),
        word => word.to_owned(),
    };
    line.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

/// Returns the lines sorted by key, in their original order within each key.
fn in_order_of_keys(text: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = text.split_inclusive(|b| *b == b'\n').collect();
    lines.sort_by_key(|line| line.split(|b| *b == b':').next().unwrap_or_default());
    lines
}
