//! Loopback TCP in one direction: the limit for producing and catching up when the disk is no bottleneck.

use std::io::{self, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use io_uring::{opcode, types};

use super::meter::{Meter, ThreadClock};
use super::pages::Pages;
use super::ring::{Ring, outcome};
use super::{BaselineError, Cpu, Measured, Unit};

/// Minimum size of a receive buffer, in bytes.
const RECV_BYTES_MIN: usize = 64 << 10;

/// Maximum size of a receive buffer, in bytes.
const RECV_BYTES_MAX: usize = 1 << 20;

/// Maximum size of all receive buffers together, in bytes.
const RECV_MEMORY_MAX: usize = 64 << 20;

/// A stream of frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stream {
    /// Connections, all between the same two threads.
    pub connections: usize,
    /// Bytes of one `send`.
    pub frame_bytes: usize,
}

/// Creates a connection. Returns the connecting end and the accepting end.
pub(super) fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let mut pairs = pairs(1)?;
    Ok(pairs.pop().expect("one pair was made"))
}

/// Creates connections over the loopback interface.
pub(super) fn pairs(count: usize) -> io::Result<Vec<(TcpStream, TcpStream)>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    (0..count)
        .map(|_| {
            let client = TcpStream::connect(address)?;
            let (server, _) = listener.accept()?;
            client.set_nodelay(true)?;
            server.set_nodelay(true)?;
            Ok((client, server))
        })
        .collect()
}

/// Measures bytes per second from one thread to another.
pub fn stream(stream: Stream, duration: Duration) -> Result<Measured, BaselineError> {
    let run = || -> io::Result<Measured> {
        let (clients, servers): (Vec<_>, Vec<_>) = pairs(stream.connections)?.into_iter().unzip();
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let result = send(stream, &clients, duration);
                for client in &clients {
                    // The receiver ends at the end of the streams, so end them also after an error.
                    let _ = client.shutdown(Shutdown::Write);
                }
                result
            });
            let received = receive(stream, &servers, duration);
            for server in &servers {
                // After an error, the sender must not wait forever.
                let _ = server.shutdown(Shutdown::Both);
            }
            let sent = sender.join().expect("the sender does not panic");
            let (value, broker) = received?;
            // The sender stands for the broker, which sends when consumers catch up.
            Ok(Measured {
                value,
                unit: Unit::BytesPerSecond,
                cpu: Some(Cpu { broker: sent?, client: Some(broker) }),
            })
        })
    };
    run().map_err(BaselineError::new("cannot measure streams over the loopback interface"))
}

fn send(stream: Stream, sockets: &[TcpStream], duration: Duration) -> io::Result<f64> {
    let frame = Pages::new(stream.frame_bytes);
    let (clock, started) = (ThreadClock::start(), Instant::now());
    let mut bytes = 0;
    while started.elapsed() < duration {
        for mut socket in sockets {
            socket.write_all(&frame)?;
        }
        bytes += frame.len() * sockets.len();
    }
    Ok(clock.seconds() / (bytes as f64 / 1e9))
}

fn receive(stream: Stream, sockets: &[TcpStream], duration: Duration) -> io::Result<(f64, f64)> {
    let bytes = stream.frame_bytes.clamp(RECV_BYTES_MIN, RECV_BYTES_MAX).min(RECV_MEMORY_MAX / sockets.len());
    let mut memory = Pages::new(bytes * sockets.len());
    let mut ring = Ring::new(sockets.len() as u32)?;
    let mut receive = |ring: &mut Ring, n: usize| {
        let buffer = memory[n * bytes..].as_mut_ptr();
        let entry = opcode::Recv::new(types::Fd(sockets[n].as_raw_fd()), buffer, bytes as u32).build();
        // SAFETY: this range belongs to this connection, which has one receive at a time; the memory outlives the ring.
        unsafe { ring.push(entry, n as u64) }
    };
    let (mut meter, clock) = (Meter::start(duration), ThreadClock::start());
    let mut received = 0;
    let mut done = Vec::new();
    for n in 0..sockets.len() {
        receive(&mut ring, n)?;
    }
    while ring.in_flight() > 0 {
        ring.wait(&mut done)?;
        for (n, result) in done.drain(..) {
            let bytes = outcome(result)?;
            received += bytes as u64;
            if bytes > 0 {
                receive(&mut ring, n as usize)?;
            }
        }
        meter.sample(received);
    }
    Ok((meter.per_second()?, clock.seconds() / (received as f64 / 1e9)))
}
