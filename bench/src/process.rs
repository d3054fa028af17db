//! Samples the resource usage of processes from `/proc`: of the broker, and of the load generator itself.
//!
//! | value | source | accuracy |
//! |---|---|---|
//! | processor time | `stat`, including ended threads | a tick of 10 ms |
//! | memory | `status`: `VmRSS` at each sample, and `VmHWM` if it grew since the last one | a new overall peak is never missed |
//! | context switches | `task/*/status` | those between the last sample of a thread and its end are missed |
//! | bytes written | `io`: `write_bytes`, written to the disk or dirtied in the page cache | zero if the kernel does not expose it |
//!
//! For a process that ends, the last sample counts.

use std::collections::BTreeMap;
use std::fs;

use crate::outcome::Usage;

/// Adds up the usage of processes from [`Sampler::start`] to [`Sampler::finish`].
#[derive(Debug)]
pub struct Sampler {
    processes: Vec<Process>,
    rss_bytes_max: u64,
}

#[derive(Debug)]
struct Process {
    pid: u32,
    /// Start time in ticks since boot. Distinguishes it from a later process with the same id.
    began: u64,
    base: Counters,
    last: Counters,
    hwm_bytes: u64,
}

#[derive(Clone, Default, Debug)]
struct Counters {
    cpu_ticks: u64,
    bytes_written: u64,
    /// Context switches by thread id.
    switches: BTreeMap<u32, u64>,
}

impl Sampler {
    /// Starts sampling running processes. A process that cannot be read counts as zero.
    pub fn start(pids: &[u32]) -> Self {
        let mut sampler = Self { processes: Vec::new(), rss_bytes_max: 0 };
        for pid in pids {
            sampler.add(*pid, true);
        }
        sampler.sample();
        sampler
    }

    /// Adds a process that was started since, such as a restarted broker, and counts it from its start.
    pub fn follow(&mut self, pid: u32) {
        self.add(pid, false);
        self.sample();
    }

    fn add(&mut self, pid: u32, runs_already: bool) {
        let Some(stat) = Stat::of(pid) else { return };
        let counters = Counters::of(pid, &stat);
        let base = if runs_already { counters.clone() } else { Counters::default() };
        let hwm_bytes = if runs_already { status_bytes(pid, "VmHWM:").unwrap_or(0) } else { 0 };
        self.processes.push(Process { pid, began: stat.began, base, last: counters, hwm_bytes });
    }

    /// Samples the processes. Call it every 0.1 to 1 s.
    pub fn sample(&mut self) {
        let rss = self.processes.iter_mut().map(Process::sample).sum();
        self.rss_bytes_max = self.rss_bytes_max.max(rss);
    }

    /// Ends sampling and returns the usage.
    pub fn finish(mut self) -> Usage {
        self.sample();
        let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
        let mut usage = Usage { rss_bytes_max: self.rss_bytes_max, ..Usage::default() };
        for Process { base, last, .. } in &self.processes {
            usage.cpu_seconds += last.cpu_ticks.saturating_sub(base.cpu_ticks) as f64 / ticks_per_second;
            usage.bytes_written += last.bytes_written.saturating_sub(base.bytes_written);
            for (thread, count) in &last.switches {
                let before = base.switches.get(thread).copied().unwrap_or(0);
                usage.context_switches += count.saturating_sub(before);
            }
        }
        usage
    }
}

impl Process {
    /// Reads the counters if the process still exists. Returns its peak memory since the last sample.
    fn sample(&mut self) -> u64 {
        let Some(stat) = Stat::of(self.pid).filter(|stat| stat.began == self.began) else { return 0 };
        let now = Counters::of(self.pid, &stat);
        self.last.cpu_ticks = self.last.cpu_ticks.max(now.cpu_ticks);
        self.last.bytes_written = self.last.bytes_written.max(now.bytes_written);
        // Keep the counts of ended threads.
        self.last.switches.extend(now.switches);
        let rss = status_bytes(self.pid, "VmRSS:").unwrap_or(0);
        let hwm = status_bytes(self.pid, "VmHWM:").unwrap_or(0);
        let grew = hwm > self.hwm_bytes;
        self.hwm_bytes = self.hwm_bytes.max(hwm);
        if grew { rss.max(hwm) } else { rss }
    }
}

impl Counters {
    fn of(pid: u32, stat: &Stat) -> Self {
        let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        Self {
            cpu_ticks: stat.cpu_ticks,
            bytes_written: field(&io, "write_bytes:").unwrap_or(0),
            switches: switches(pid),
        }
    }
}

/// Fields of `/proc/PID/stat`.
struct Stat {
    cpu_ticks: u64,
    began: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The second field is a name in parentheses that may contain anything, so fields are counted from the last parenthesis. The state
    /// is the third field.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |nth: usize| fields.get(nth - 3)?.parse::<u64>().ok();
        // A zombie has ended: its counters are final, and it has no memory.
        Some(Self { cpu_ticks: number(14)? + number(15)?, began: number(22)? })
    }
}

fn switches(pid: u32) -> BTreeMap<u32, u64> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return BTreeMap::new() };
    tasks
        .filter_map(|task| {
            let task = task.ok()?;
            let status = fs::read_to_string(task.path().join("status")).ok()?;
            let count = field(&status, "voluntary_ctxt_switches:").unwrap_or(0)
                + field(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
            Some((task.file_name().to_str()?.parse().ok()?, count))
        })
        .collect()
}

/// Returns the number after a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

fn status_bytes(pid: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    field(&status, name).map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::io::{Read as _, Write as _};
    use std::process::{Command, Stdio};

    use super::*;

    /// Busy-loops until this process has used `ticks` more ticks.
    fn burn(ticks: u64) {
        let now = || Stat::of(std::process::id()).expect("this process").cpu_ticks;
        let until = now() + ticks;
        while now() < until {
            black_box((0..100_000u64).fold(0, |sum, i| black_box(sum ^ i)));
        }
    }

    #[test]
    fn processor_time_writes_and_memory_growth_are_sampled() {
        let mut sampler = Sampler::start(&[std::process::id()]);
        burn(5);
        let mut file = tempfile::NamedTempFile::new_in(".").expect("a file on a disk");
        file.write_all(&vec![7; 1 << 20]).expect("written");
        file.as_file().sync_all().expect("synced");
        let memory = black_box(vec![1u8; 64 << 20]);
        sampler.sample();
        drop(memory);
        let usage = sampler.finish();
        assert!(usage.cpu_seconds >= 0.05, "{usage:?}");
        assert!(usage.bytes_written >= 1 << 20, "{usage:?}");
        assert!(usage.rss_bytes_max >= 64 << 20, "{usage:?}");
        assert_eq!(usage.syncs, None);
    }

    #[test]
    fn a_restarted_process_is_counted_from_its_start_and_an_ended_one_keeps_its_counts() {
        let begin = || {
            let mut child = Command::new("sh")
                .args(["-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo done; read line"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("a shell");
            let mut said = [0; 4];
            child.stdout.as_mut().expect("its output").read_exact(&mut said).expect("it has worked");
            child
        };
        let mut first = begin();
        let mut sampler = Sampler::start(&[first.id()]);
        first.kill().expect("killed");
        first.wait().expect("ended");
        let mut second = begin();
        sampler.follow(second.id());
        second.kill().expect("killed");
        second.wait().expect("ended");
        let usage = sampler.finish();
        assert!(usage.cpu_seconds > 0.0, "{usage:?}");
        assert!(usage.context_switches > 0, "{usage:?}");
        assert!(usage.rss_bytes_max > 0, "{usage:?}");
    }

    #[test]
    fn a_missing_process_counts_as_zero() {
        let usage = Sampler::start(&[u32::MAX]).finish();
        assert_eq!((usage.rss_bytes_max, usage.context_switches, usage.bytes_written), (0, 0, 0));
    }

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 64 1 0 0 0 30 12 0 0 20 0 1 0 4711 0 0";
        let stat = Stat::parse(text).expect("readable");
        assert_eq!((stat.cpu_ticks, stat.began), (42, 4711));
    }

    #[test]
    fn a_field_name_does_not_match_within_another() {
        let text = "nonvoluntary_ctxt_switches:\t5\nvoluntary_ctxt_switches:\t7\n";
        assert_eq!(field(text, "voluntary_ctxt_switches:"), Some(7));
        assert_eq!(field(text, "VmRSS:"), None);
    }
}
