//! The quick start of the README, as it stands there.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Broker, Guard, Place, output};

/// The five lines that the README shows, without their comments.
const LINES: [&str; 5] = [
    "highwater start",
    "highwater topic create orders --partitions 8",
    "highwater produce orders --key-separator : < orders.txt",
    "highwater consume orders --from earliest --limit 1000000 --format '%k:%v\\n'",
    "highwater consume orders --from latest --follow --json",
];

/// The lines of the first code block behind `marker` in the README.
fn block_behind(marker: &str) -> Vec<String> {
    let readme =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tools/ is in the workspace").join("README.md");
    let text = std::fs::read_to_string(readme).expect("there is a README");
    let (_, behind) = text.split_once(marker).unwrap_or_else(|| panic!("{marker} is not in the README"));
    let lines = behind.lines().skip_while(|line| !line.starts_with("```")).skip(1);
    lines.take_while(|line| !line.starts_with("```")).map(str::to_owned).collect()
}

/// A line in a shell that finds the program by its name.
fn shell(line: &str, place: &Path) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_highwater"));
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(place);
    command.env("PATH", format!("{}:{path}", program.parent().expect("a folder").display()));
    command
}

#[test]
fn the_quick_start_of_the_readme_works_as_it_stands() {
    let lines = block_behind("<!-- quick start");
    let shown: Vec<&str> =
        lines.iter().map(|line| line.split(" #").next().unwrap_or_default().trim_end()).collect();
    assert_eq!(shown, LINES);

    let place = Place::new();
    let here = place.path("");
    // A million lines, made as the README says.
    let input = block_behind("this makes one of a million lines").join("\n");
    assert!(shell(&input, &here).status().expect("a shell").success());

    // The only things the test adds: ports of its own, and `exec`, so that the shell's process is the broker.
    let mut start = shell(&format!("exec {}", lines[0]), &here);
    start.env("HIGHWATER_LISTEN", "127.0.0.1:0").env("HIGHWATER_KAFKA_LISTEN", "127.0.0.1:0");
    let broker = Broker::start(start).unwrap_or_else(|ended| {
        panic!("{}: {}", lines[0], String::from_utf8_lossy(&ended.stderr));
    });
    assert_eq!(broker.field("data"), place.path("highwater-data").display().to_string());
    let run = |line: &str| {
        let mut command = shell(line, &here);
        command.env("HIGHWATER_SERVER", broker.address());
        command
    };
    for line in &lines[1..3] {
        let done = output(run(line), b"");
        assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
    }
    let consumed = output(run(&lines[3]), b"");
    assert!(consumed.status.success(), "{}: {}", lines[3], String::from_utf8_lossy(&consumed.stderr));
    let expect = std::fs::read(place.path("orders.txt")).expect("it was made");
    assert_eq!(in_order_of_keys(&consumed.stdout), in_order_of_keys(&expect));

    let mut follow = run(&format!("exec {}", lines[4])).stdout(Stdio::piped()).spawn().expect("a shell");
    let guard = Guard::new(&follow);
    let follower = BufReader::new(follow.stdout.take().expect("stdout is piped"));
    let first = std::thread::scope(|scope| {
        let first = scope.spawn(|| follower.lines().next());
        // From `latest` on it sees what comes after it has begun, and only it knows when that is.
        while !first.is_finished() {
            let sent = output(run("highwater produce orders --key-separator :"), b"customer-1:one more\n");
            assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
        }
        first.join().expect("reading a pipe does not panic")
    });
    follow.kill().expect("it follows until it is stopped");
    let _ = follow.wait();
    guard.release();
    let line = first.expect("a line came").expect("it is text");
    assert!(line.contains(r#""key":"customer-1","value":"one more""#), "{line}");
    broker.stop();
}

/// Lines sorted by key, in each key as they came.
fn in_order_of_keys(text: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = text.split_inclusive(|b| *b == b'\n').collect();
    lines.sort_by_key(|line| line.split(|b| *b == b':').next().unwrap_or_default());
    lines
}
