//! A stop leaves no threads and no open files. This test is alone in its process, because it counts the process's threads and
//! files.

mod uring_support;

use std::fs::read_dir;
use std::time::Instant;

use highwater_runtime::HostKind;
use uring_support::{HOSTS, TIMEOUT, connect, pattern, serve, stop, sum};

fn count(what: &str) -> usize {
    read_dir(format!("/proc/self/{what}")).expect("procfs").count()
}

/// Waits for what the kernel finishes after the threads were joined.
fn settles_at(what: &str, expected: usize) -> bool {
    let started = Instant::now();
    while count(what) != expected {
        if started.elapsed() > TIMEOUT {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

#[test]
fn a_stop_leaves_no_thread_and_no_open_file() {
    // The first run may set up things that stay for the life of the process.
    for host in HOSTS {
        let (runtime, address) = serve(host, 1, None);
        sum(&mut connect(address), b"warm");
        stop(runtime);
    }
    let (threads, mut files) = (count("task"), count("fd"));
    for host in HOSTS {
        for shards in [1, 3] {
            let (runtime, address) = serve(host, shards, None);
            let mut clients: Vec<_> = (0..20).map(|_| connect(address)).collect();
            for client in &mut clients {
                sum(client, &pattern(3, 100_000));
            }
            assert!(count("task") > threads);
            stop(runtime);
            drop(clients);
            assert!(settles_at("task", threads), "{} threads of {threads} after {host:?}", count("task"));
            if host == HostKind::Glommio {
                // An executor of glommio 0.9.0 never closes its own eventfd, even one that runs nothing.
                files += shards;
            }
            assert!(settles_at("fd", files), "{} files of {files} after {host:?}", count("fd"));
        }
    }
}
