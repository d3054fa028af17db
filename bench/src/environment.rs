//! Describes the machine, its disk and the program, as far as the kernel exposes it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::report::Environment;

/// Value of properties that cannot be determined.
const UNKNOWN: &str = "unknown";

/// The commit that this program was built from, with `-dirty` if the tree had changes. `None` if git was not available.
pub const COMMIT: Option<&str> = option_env!("HIGHWATER_COMMIT");

/// Describes the machine and the file system of `data` (the broker's data directory, or where it will be created).
/// `commit` and `version` are the program's.
pub fn environment(data: &Path, commit: Option<&str>, version: &str) -> Environment {
    let mut notes = BTreeMap::new();
    let mut note = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            notes.insert(name.to_owned(), value);
        }
    };
    let load = line("/proc/loadavg").map(|text| text.split(' ').take(3).collect::<Vec<_>>().join(" "));
    note("load average at the start", load);
    let governor = line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    note("frequency governor", Some(governor.unwrap_or_else(|| "not exposed by the kernel".to_owned())));
    note("transparent huge pages", line("/sys/kernel/mm/transparent_hugepage/enabled"));
    let mount = existing(data).and_then(|path| mount_of(&path));
    note("mount options", mount.as_ref().map(|mount| mount.options.clone()));
    let unknown = |value: Option<String>| value.unwrap_or_else(|| UNKNOWN.to_owned());
    Environment {
        cpu: unknown(field("/proc/cpuinfo", "model name")),
        cores: cores(),
        memory_bytes: memory_bytes().unwrap_or(0),
        kernel: unknown(line("/proc/sys/kernel/osrelease")),
        disk: unknown(existing(data).and_then(|path| disk(&path))),
        filesystem: unknown(mount.map(|mount| mount.kind)),
        commit: commit.unwrap_or(UNKNOWN).to_owned(),
        version: version.to_owned(),
        started: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        notes,
    }
}

/// Returns the number of cores that this process may use.
fn cores() -> u32 {
    rustix::thread::sched_getaffinity(None).map_or(0, |set| set.count())
}

fn memory_bytes() -> Option<u64> {
    let text = field("/proc/meminfo", "MemTotal")?;
    Some(text.split(' ').next()?.parse::<u64>().ok()? * 1024)
}

/// Returns the first line of a file.
fn line(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().next()?.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

/// Returns the value of a line `name : value` in a file.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim().to_owned())
    })
}

/// Returns the path, or its nearest existing ancestor.
fn existing(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    path.ancestors().find_map(|path| path.canonicalize().ok())
}

/// Describes the block device of a path: name, model, kind, scheduler and write cache.
fn disk(path: &Path) -> Option<String> {
    let device = fs::metadata(path).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let Ok(mut folder) = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")) else {
        return Some("none: not on a block device".to_owned());
    };
    // The directory of a partition is in that of its disk.
    if folder.join("partition").exists() {
        folder.pop();
    }
    let mut parts = vec![folder.file_name()?.to_string_lossy().into_owned()];
    parts.extend(line(folder.join("device/model")));
    if let Some(rotational) = line(folder.join("queue/rotational")) {
        let kind = if rotational == "0" { "not rotational" } else { "rotational, according to the kernel" };
        parts.push(kind.to_owned());
    }
    if let Some(scheduler) = line(folder.join("queue/scheduler")) {
        parts.push(format!("scheduler {}", chosen(&scheduler)));
    }
    parts.extend(line(folder.join("queue/write_cache")).map(|mode| format!("write cache {mode}")));
    Some(parts.join(", "))
}

/// Returns the choice in brackets from a list.
fn chosen(list: &str) -> &str {
    list.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or(list, |(name, _)| name)
}

#[derive(PartialEq, Debug)]
struct Mount {
    kind: String,
    options: String,
}

fn mount_of(path: &Path) -> Option<Mount> {
    find_mount(&fs::read_to_string("/proc/self/mountinfo").ok()?, path)
}

/// Finds the mount of a path: the longest mount point that is its prefix, and among equal ones the last, which hides the others.
fn find_mount(mountinfo: &str, path: &Path) -> Option<Mount> {
    let mut found: Option<(usize, Mount)> = None;
    for line in mountinfo.lines() {
        // id, parent, device, root, mount point, options, optional fields up to a dash, type, source, super block options
        let Some((front, back)) = line.split_once(" - ") else { continue };
        let front: Vec<&str> = front.split(' ').collect();
        let back: Vec<&str> = back.split(' ').collect();
        let (Some(point), Some(options), Some(kind)) = (front.get(4), front.get(5), back.first()) else {
            continue;
        };
        let point = unescaped(point);
        if path.starts_with(&point) && found.as_ref().is_none_or(|(length, _)| point.len() >= *length) {
            let super_options = back.get(2).copied().unwrap_or_default();
            let mut all: Vec<&str> = options.split(',').collect();
            all.extend(super_options.split(',').filter(|option| !option.is_empty()));
            let mut seen = Vec::new();
            all.retain(|option| {
                !seen.contains(option) && {
                    seen.push(*option);
                    true
                }
            });
            found = Some((point.len(), Mount { kind: (*kind).to_owned(), options: all.join(",") }));
        }
    }
    found.map(|(_, mount)| mount)
}

/// Decodes the octal escapes of white space and backslashes in mount points.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, character)| text.replace(code, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_of_this_machine_is_described() {
        let folder = tempfile::tempdir().expect("a folder");
        let environment = environment(&folder.path().join("not/there/yet"), Some("abc-dirty"), "0.1.0");
        assert!(environment.cores >= 1);
        assert!(environment.memory_bytes > 1 << 20);
        for text in [&environment.kernel, &environment.filesystem, &environment.disk] {
            assert!(!text.is_empty() && text != UNKNOWN, "{environment:?}");
        }
        assert_eq!(environment.commit, "abc-dirty");
        assert!(environment.started.ends_with('Z'), "{}", environment.started);
        assert!(environment.notes.contains_key("load average at the start"));
        assert!(environment.notes.contains_key("mount options"));
    }

    #[test]
    fn the_mount_of_a_path_is_the_innermost_one_mounted_last() {
        let mountinfo = "\
            1 0 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n\
            2 1 0:22 / /data\\040here rw - tmpfs tmpfs rw,size=1k\n\
            3 1 254:1 / /data\\040here rw,noatime - xfs /dev/vdb rw,logbufs=8\n";
        let mount = |path| find_mount(mountinfo, Path::new(path)).expect("a mount");
        assert_eq!(mount("/data"), Mount { kind: "ext4".into(), options: "rw,relatime,discard".into() });
        assert_eq!(
            mount("/data here/x"),
            Mount { kind: "xfs".into(), options: "rw,noatime,logbufs=8".into() }
        );
    }

    #[test]
    fn the_scheduler_is_the_one_in_brackets() {
        assert_eq!(chosen("none [mq-deadline] bfq"), "mq-deadline");
        assert_eq!(chosen("none"), "none");
    }
}
