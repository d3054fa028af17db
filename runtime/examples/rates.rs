//! Measures what the plane moves on this machine under either host: small frames over many connections, and bulk frames.
//!
//! `cargo run --release -p highwater-runtime --example rates`

#[path = "../tests/uring_support/mod.rs"]
mod uring_support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use highwater_runtime::HostKind;
use uring_support::{ECHO, HEADER, HOSTS, SUM, connect, frame, pattern, serve, stop, sum};

fn main() {
    let seconds: f64 = std::env::args().nth(1).map_or(2.0, |s| s.parse().expect("seconds"));
    let time = Duration::from_secs_f64(seconds);
    println!("two shards: time to start, then CPU of a core while idle, resident memory");
    for host in HOSTS {
        let started = Instant::now();
        let (runtime, address) = serve(host, 2, None);
        let start_ms = started.elapsed().as_secs_f64() * 1e3;
        let mut clients: Vec<TcpStream> = (0..100).map(|_| connect(address)).collect();
        for client in &mut clients {
            sum(client, &pattern(1, 100_000));
        }
        let before = shard_cpu();
        std::thread::sleep(time);
        let idle = (shard_cpu() - before) / seconds * 100.0;
        println!("  {host:?}: {start_ms:.1} ms, {idle:.3} %, {}", resident());
        stop(runtime);
    }
    println!("echo of 64-byte frames, one shard: frames/s, CPU µs per frame of the shard");
    for (connections, depth) in [(1, 1), (32, 1), (256, 1), (256, 16)] {
        for host in HOSTS {
            let (count, cpu) = measured(host, |address| small(address, connections, depth, time));
            println!(
                "  {connections:4} connections, depth {depth:2}, {host:?}: {:10.0}  {:6.2}",
                count / seconds,
                cpu * 1e6 / count
            );
        }
    }
    println!("bulk frames, one shard, hash of each: MB/s, CPU s per GB of the shard");
    for bytes in [64 << 10, 256 << 10, 1 << 20] {
        for connections in [1, 4] {
            for host in HOSTS {
                let (count, cpu) = measured(host, |address| bulk(address, connections, bytes, time));
                let gb = count * bytes as f64 / 1e9;
                println!(
                    "  {connections} connections, {:4} KiB, {host:?}: {:8.0}  {:6.3}",
                    bytes >> 10,
                    gb * 1e3 / seconds,
                    cpu / gb
                );
            }
        }
    }
}

/// Runs a load against a fresh shard. Returns the load's count and the shard's CPU seconds.
fn measured(host: HostKind, load: impl FnOnce(SocketAddr) -> f64) -> (f64, f64) {
    let (runtime, address) = serve(host, 1, None);
    let before = shard_cpu();
    let count = load(address);
    let cpu = shard_cpu() - before;
    stop(runtime);
    (count, cpu)
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default().to_string()
}

/// Returns the CPU seconds of the threads that run shards.
fn shard_cpu() -> f64 {
    let mut nanoseconds = 0.0;
    for task in std::fs::read_dir("/proc/self/task").expect("procfs").flatten() {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if name.starts_with("hw-shard") {
            let stat = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            nanoseconds += stat.split(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
        }
    }
    nanoseconds / 1e9
}

fn small(address: SocketAddr, connections: usize, depth: usize, time: Duration) -> f64 {
    let mut clients: Vec<TcpStream> = (0..connections).map(|_| connect(address)).collect();
    let request = frame(ECHO, &[7; 64 - HEADER]).repeat(depth);
    let mut reply = vec![0; request.len()];
    let started = Instant::now();
    let mut count = 0;
    while started.elapsed() < time {
        for client in &mut clients {
            client.write_all(&request).expect("the shard reads");
        }
        for client in &mut clients {
            client.read_exact(&mut reply).expect("the shard answers");
        }
        count += connections * depth;
    }
    count as f64
}

fn bulk(address: SocketAddr, connections: usize, bytes: usize, time: Duration) -> f64 {
    let depth = 8;
    let request = frame(SUM, &pattern(1, bytes));
    let threads: Vec<_> = (0..connections)
        .map(|_| {
            let mut writer = connect(address);
            let mut reader = writer.try_clone().expect("a descriptor");
            let request = request.clone();
            std::thread::spawn(move || {
                let (permits, permit) = std::sync::mpsc::sync_channel(depth);
                let reading = std::thread::spawn(move || {
                    let mut reply = [0; 8];
                    let mut count = 0;
                    while permit.recv().is_ok() {
                        reader.read_exact(&mut reply).expect("the shard answers");
                        count += 1;
                    }
                    count
                });
                let started = Instant::now();
                while started.elapsed() < time {
                    permits.send(()).expect("the reader reads");
                    writer.write_all(&request).expect("the shard reads");
                }
                drop(permits);
                reading.join().expect("no panic")
            })
        })
        .collect();
    threads.into_iter().map(|thread| f64::from(thread.join().expect("no panic"))).sum()
}
