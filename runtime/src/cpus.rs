//! The CPUs this process may use.

use std::io;

use rustix::thread::CpuSet;

/// A CPU, identified by the kernel's number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cpu(pub usize);

/// Returns the CPUs that this process may run on, as restricted by affinity, cpusets and containers.
pub fn available_cpus() -> io::Result<Vec<Cpu>> {
    let set = rustix::thread::sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).map(Cpu).collect())
}

/// Binds the calling thread to one CPU.
pub(crate) fn pin_thread(cpu: Cpu) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu.0);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_may_use_only_its_cpu() {
        let all = available_cpus().expect("affinity can be read");
        let last = *all.last().expect("at least one CPU");
        let seen = std::thread::spawn(move || {
            pin_thread(last)?;
            available_cpus()
        });
        let seen = seen.join().expect("no panic").expect("pinning to an available CPU works");
        assert_eq!(seen, [last]);
    }
}
