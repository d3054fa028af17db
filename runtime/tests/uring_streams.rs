//! Bytes in and out: small frames, bulk frames, slow readers, ends of connections.

mod uring_support;

use std::io::{Read, Write};

use uring_support::{HOSTS, connect, pattern, serve, stop, sum};

#[test]
fn frames_of_every_size_are_answered() {
    for host in HOSTS {
        let (runtime, address) = serve(host, 1, None);
        let mut client = connect(address);
        for bytes in [0, 1, 100, 4095, 16 << 10, 65_535, 65_536, 100_001, 1 << 20, 5 << 20, 7] {
            sum(&mut client, &pattern(bytes as u64, bytes));
        }
        stop(runtime);
    }
}
