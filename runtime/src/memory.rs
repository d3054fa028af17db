//! How much memory this process may use: that of the machine, limited by the control groups that the process is in.
//!
//! A process is in one control group of each hierarchy, and every limit from that group up to the root applies. `/proc/self/cgroup`
//! names the group, and `/proc/self/mountinfo` names the mount point of the hierarchy and the part of it that is mounted: a
//! container often sees only the part below its own group.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};

/// Memory that a process may use, and what limits it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AvailableMemory {
    /// Amount in bytes.
    pub bytes: u64,
    /// The lowest of the limits.
    pub limited_by: MemoryLimit,
}

/// What limits the memory of a process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MemoryLimit {
    /// The machine has no more memory.
    Machine,
    /// A control group, whose limit is in this file.
    ControlGroup(PathBuf),
    /// `ulimit -v`.
    AddressSpace,
    /// `ulimit -d`.
    Data,
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine => f.write_str("the memory of this machine"),
            Self::ControlGroup(file) => write!(f, "the control group's limit in {}", file.display()),
            Self::AddressSpace => f.write_str("the limit of address space (ulimit -v)"),
            Self::Data => f.write_str("the limit of data (ulimit -d)"),
        }
    }
}

/// Returns the memory that this process may use.
pub fn available_memory() -> AvailableMemory {
    let info = rustix::system::sysinfo();
    let machine = info.totalram as u64 * u64::from(info.mem_unit.max(1));
    let resource = |resource, limit| getrlimit(resource).current.map(|bytes| (bytes, limit));
    let limits = [
        Some((machine, MemoryLimit::Machine)),
        group_limit(Path::new("/")),
        resource(Resource::As, MemoryLimit::AddressSpace),
        resource(Resource::Data, MemoryLimit::Data),
    ];
    let (bytes, limited_by) =
        limits.into_iter().flatten().min_by_key(|(bytes, _)| *bytes).expect("a machine has memory");
    AvailableMemory { bytes, limited_by }
}

/// Returns the lowest limit of this process's control groups, if any is known.
fn group_limit(root: &Path) -> Option<(u64, MemoryLimit)> {
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    let groups = read("proc/self/cgroup")?;
    let mounts = read("proc/self/mountinfo")?;
    let limits = mounts.lines().filter_map(Mount::read).flat_map(|mount| limits_in(root, &mount, &groups));
    limits.min_by_key(|(bytes, _)| *bytes).map(|(bytes, file)| (bytes, MemoryLimit::ControlGroup(file)))
}

/// Returns every memory limit from this process's group up to the mount point of the hierarchy.
fn limits_in(root: &Path, mount: &Mount, groups: &str) -> Vec<(u64, PathBuf)> {
    let Some(group) = groups.lines().find_map(|line| mount.group_of(line)) else { return Vec::new() };
    // The group's path relative to the mount. A group outside the mounted part has no folder here, but the process is in or below
    // the group at the mount point itself.
    let below = Path::new(group).strip_prefix(&mount.root).unwrap_or(Path::new(""));
    let top = relative(&mount.point);
    let folders = below.ancestors().map(|folder| top.join(folder));
    let files = folders.flat_map(|folder| mount.version.files().iter().map(move |file| folder.join(file)));
    files.filter_map(|file| Some((limit_in(&root.join(&file))?, Path::new("/").join(file)))).collect()
}

/// Reads the limit in a file: a number, or `max` for none.
fn limit_in(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// The two versions of control groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    One,
    Two,
}

impl Version {
    /// Names of the files with memory limits. Above `memory.high`, a group is throttled until it is unusable.
    fn files(self) -> &'static [&'static str] {
        match self {
            Self::One => &["memory.limit_in_bytes"],
            Self::Two => &["memory.max", "memory.high"],
        }
    }
}

/// A mounted hierarchy of control groups that may limit memory.
struct Mount {
    version: Version,
    /// The group at the top of the mounted part.
    root: PathBuf,
    /// Mount point.
    point: PathBuf,
}

impl Mount {
    /// Parses a line of `mountinfo`. Returns `None` for other mounts.
    fn read(line: &str) -> Option<Self> {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut filesystem = filesystem.split(' ');
        let version = match filesystem.next()? {
            "cgroup2" => Version::Two,
            "cgroup" if filesystem.nth(1)?.split(',').any(|option| option == "memory") => Version::One,
            _ => return None,
        };
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (unescaped(mount.next()?), unescaped(mount.next()?));
        Some(Self { version, root, point })
    }

    /// Returns the group in a line of `/proc/self/cgroup`, if the line is for this hierarchy.
    fn group_of<'l>(&self, line: &'l str) -> Option<&'l str> {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, group) = (parts.next()?, parts.next()?, parts.next()?);
        let is_ours = match self.version {
            Version::Two => number == "0" && controllers.is_empty(),
            Version::One => controllers.split(',').any(|controller| controller == "memory"),
        };
        is_ours.then_some(group)
    }
}

/// Unescapes a path of `mountinfo`, in which spaces and backslashes are octal escapes.
fn unescaped(path: &str) -> PathBuf {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(code.map_or('\\', char::from));
        rest = &rest[at + if code.is_some() { 4 } else { 1 }..];
    }
    out.push_str(rest);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks which limit is found in these files of a machine, and in which file.
    fn check(cgroup: &str, mountinfo: &str, limits: &[(&str, &str)], expected: Option<(u64, &str)>) {
        let root = tempfile::tempdir().expect("a temporary directory");
        let put = |path: &str, text: &str| {
            let path = root.path().join(relative(Path::new(path)));
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, text).expect("written");
        };
        put("/proc/self/cgroup", cgroup);
        put("/proc/self/mountinfo", mountinfo);
        for (file, limit) in limits {
            put(file, &format!("{limit}\n"));
        }
        let found = group_limit(root.path());
        let expected = expected.map(|(bytes, file)| (bytes, MemoryLimit::ControlGroup(file.into())));
        assert_eq!(found, expected, "{cgroup}\n{mountinfo}");
    }

    const UNIFIED: &str = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn every_group_above_the_process_applies() {
        let groups = "0::/system.slice/highwater.service\n";
        let service = "/sys/fs/cgroup/system.slice/highwater.service/memory.max";
        let slice = "/sys/fs/cgroup/system.slice/memory.max";
        check(groups, UNIFIED, &[(service, "536870912"), (slice, "max")], Some((536_870_912, service)));
        check(groups, UNIFIED, &[(service, "max"), (slice, "1073741824")], Some((1 << 30, slice)));
        check(groups, UNIFIED, &[(service, "2147483648"), (slice, "1073741824")], Some((1 << 30, slice)));
        check(groups, UNIFIED, &[(service, "max"), (slice, "max")], None);
        let high = "/sys/fs/cgroup/system.slice/highwater.service/memory.high";
        check(groups, UNIFIED, &[(service, "max"), (high, "1048576")], Some((1 << 20, high)));
    }

    #[test]
    fn a_container_sees_its_own_group_at_the_top() {
        // With its own cgroup namespace.
        let file = "/sys/fs/cgroup/memory.max";
        check("0::/\n", UNIFIED, &[(file, "536870912")], Some((536_870_912, file)));
        // Without: the path is the host's, and the mount begins at the container's group.
        let mounted = "31 23 0:28 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        check("0::/docker/abc\n", mounted, &[(file, "4096")], Some((4096, file)));
        let inner = "/sys/fs/cgroup/inner/memory.max";
        check("0::/docker/abc/inner\n", mounted, &[(file, "max"), (inner, "8192")], Some((8192, inner)));
        // Moved out of the mounted part.
        check("0::/../other\n", UNIFIED, &[(file, "4096")], Some((4096, file)));
    }

    #[test]
    fn version_one_has_a_separate_hierarchy_for_memory() {
        let groups = "9:name=systemd:/x\n4:cpu,memory:/payments/broker\n1:cpu:/\n0::/\n";
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n\
                      35 31 0:32 / /mnt/control\\040groups/memory rw shared:10 master:1 - cgroup cgroup rw,cpu,memory\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let own = "/mnt/control groups/memory/payments/broker/memory.limit_in_bytes";
        let above = "/mnt/control groups/memory/payments/memory.limit_in_bytes";
        let none = "9223372036854771712";
        check(groups, mounts, &[(own, "536870912"), (above, none)], Some((536_870_912, own)));
        check(groups, mounts, &[(own, none), (above, "268435456")], Some((268_435_456, above)));
    }

    #[test]
    fn a_machine_without_control_groups_has_no_limit() {
        check("", "22 27 0:21 / /proc rw - proc proc rw\n", &[], None);
        assert_eq!(group_limit(Path::new("/nonexistent")), None);
        let available = available_memory();
        assert!(available.bytes > 0, "{available:?}");
    }
}
