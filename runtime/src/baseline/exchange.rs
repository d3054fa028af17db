//! Requests and replies over many connections, answered immediately or when a group of them is durable: the limit for small
//! batches.
//!
//! A request is a batch of one record after its CRC-32C. The server checks the checksums of all requests that have arrived, writes
//! them together in whole pages with one durable write, and then answers all of them.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::{opcode, types};

use super::disk::{Disk, Space};
use super::meter::{Meter, ThreadClock};
use super::pages::Pages;
use super::ring::{Done, Ring, all_of, outcome};
use super::scratch::Scratch;
use super::stream::pairs;
use super::{BaselineError, Cpu, Measured, Unit};
use crate::buf::PAGE_BYTES;

/// Bytes of the checksum before the bytes that it covers.
const CHECKSUM_BYTES: usize = 4;

/// Writes in flight: one in progress on the disk and one queued.
const ROUNDS: usize = 2;

/// Limit of one receive, in bytes, if the content is not used.
const RECV_BYTES_MAX: usize = 256 << 10;

/// Linux's `IORING_RECVSEND_POLL_FIRST`: wait for data before trying to receive.
const POLL_FIRST: u16 = 1;

/// Parameters of an exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exchange {
    /// Connections, all between the same two threads.
    pub connections: usize,
    /// Unanswered requests per connection.
    pub in_flight: usize,
    /// Bytes of a request.
    pub request_bytes: usize,
    /// Bytes of a reply.
    pub reply_bytes: usize,
}

impl Exchange {
    /// Returns the parameters for batches of one record of 100 bytes, with replies of the native protocol's size.
    pub fn small(in_flight: usize) -> Self {
        Self { connections: 256, in_flight, request_bytes: 164, reply_bytes: 64 }
    }
}

/// Measures requests per second. With a disk, they are answered when they are durable.
pub fn exchange(
    exchange: Exchange,
    disk: Option<&mut Disk>,
    duration: Duration,
) -> Result<Measured, BaselineError> {
    let scratch = disk.map(|disk| disk.scratch(Space::Written)).transpose()?;
    let run = || -> io::Result<Measured> {
        let (clients, servers): (Vec<_>, Vec<_>) = pairs(exchange.connections)?.into_iter().unzip();
        std::thread::scope(|scope| {
            let client = scope.spawn(|| {
                let result = Client::new(exchange, &clients).and_then(|mut client| client.run(duration));
                for client in &clients {
                    // The server ends when its connections end, so end them also after an error.
                    let _ = client.shutdown(Shutdown::Both);
                }
                result
            });
            let served =
                Server::new(exchange, &servers, scratch.as_deref()).and_then(|mut server| server.run());
            for server in &servers {
                // After an error, the client must not wait for answers forever.
                let _ = server.shutdown(Shutdown::Both);
            }
            let (value, client) = client.join().expect("the client does not panic")?;
            Ok(Measured {
                value,
                unit: Unit::PerSecond,
                cpu: Some(Cpu { broker: served?, client: Some(client) }),
            })
        })
    };
    run().map_err(BaselineError::new("cannot measure requests and replies"))
}

const RECV: u64 = 1 << 32;
const SEND: u64 = 2 << 32;
const WRITE: u64 = 3 << 32;

/// One side's connections. Each receives into its own memory and sends the same message repeatedly.
struct Ends<'a> {
    // Dropped first: it waits for the operations that use the other fields.
    ring: Ring,
    sockets: &'a [TcpStream],
    memory: Pages,
    /// Bytes of memory per connection.
    recv_bytes: usize,
    /// Whether the received bytes are used, so that the next receive must go after them.
    keep: bool,
    /// Bytes received of an incomplete message, per connection.
    filled: Vec<usize>,
    /// The message, repeated as often as it may be sent at once.
    message: Vec<u8>,
    message_bytes: usize,
    /// Messages per connection that are being sent, and that are queued.
    sending: Vec<usize>,
    waiting: Vec<usize>,
}

impl<'a> Ends<'a> {
    fn new(
        sockets: &'a [TcpStream],
        (recv_bytes, keep): (usize, bool),
        message: &[u8],
        in_flight: usize,
    ) -> io::Result<Self> {
        let recv_bytes =
            if keep { recv_bytes * in_flight } else { (recv_bytes * in_flight).min(RECV_BYTES_MAX) };
        Ok(Self {
            ring: Ring::new((sockets.len() * 2) as u32)?,
            sockets,
            memory: Pages::new(recv_bytes * sockets.len()),
            recv_bytes,
            keep,
            filled: vec![0; sockets.len()],
            message: message.repeat(in_flight),
            message_bytes: message.len(),
            sending: vec![0; sockets.len()],
            waiting: vec![0; sockets.len()],
        })
    }

    fn receive(&mut self, n: usize) -> io::Result<()> {
        let filled = if self.keep { self.filled[n] } else { 0 };
        let (from, to) = (n * self.recv_bytes + filled, (n + 1) * self.recv_bytes);
        let memory = &mut self.memory[from..to];
        let socket = types::Fd(self.sockets[n].as_raw_fd());
        let entry = opcode::Recv::new(socket, memory.as_mut_ptr(), memory.len() as u32).ioprio(POLL_FIRST);
        // SAFETY: this range belongs to this connection, which has one receive at a time; the memory is dropped after the ring.
        unsafe { self.ring.push(entry.build(), RECV | n as u64) }
    }

    /// Sends `count` messages on connection `n`, after those in flight.
    fn send(&mut self, n: usize, count: usize) -> io::Result<()> {
        self.waiting[n] += count;
        if self.sending[n] > 0 || self.waiting[n] == 0 {
            return Ok(());
        }
        self.sending[n] = std::mem::take(&mut self.waiting[n]);
        let bytes = &self.message[..self.sending[n] * self.message_bytes];
        let socket = types::Fd(self.sockets[n].as_raw_fd());
        let entry = opcode::Send::new(socket, bytes.as_ptr(), bytes.len() as u32).flags(libc::MSG_WAITALL);
        // SAFETY: the messages are never changed, and dropped after the ring.
        unsafe { self.ring.push(entry.build(), SEND | n as u64) }
    }

    fn on_sent(&mut self, n: usize, result: i32) -> io::Result<()> {
        all_of(result, self.sending[n] * self.message_bytes)?;
        self.sending[n] = 0;
        self.send(n, 0)
    }
}

fn split(name: u64) -> (u64, usize) {
    (name & !u64::from(u32::MAX), (name & u64::from(u32::MAX)) as usize)
}

struct Client<'a> {
    ends: Ends<'a>,
    exchange: Exchange,
}

impl<'a> Client<'a> {
    fn new(exchange: Exchange, sockets: &'a [TcpStream]) -> io::Result<Self> {
        let mut request: Vec<u8> = (0..exchange.request_bytes).map(|n| n as u8).collect();
        let checksum = crc32c::crc32c(&request[CHECKSUM_BYTES..]);
        request[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
        Ok(Self {
            ends: Ends::new(sockets, (exchange.reply_bytes, false), &request, exchange.in_flight)?,
            exchange,
        })
    }

    /// Returns replies per second, and processor seconds per million replies.
    fn run(&mut self, duration: Duration) -> io::Result<(f64, f64)> {
        let (mut meter, clock) = (Meter::start(duration), ThreadClock::start());
        let ends = &mut self.ends;
        for n in 0..ends.sockets.len() {
            ends.receive(n)?;
            ends.send(n, self.exchange.in_flight)?;
        }
        let mut unanswered = ends.sockets.len() * self.exchange.in_flight;
        let mut replies = 0;
        let mut done: Vec<Done> = Vec::new();
        while unanswered > 0 {
            ends.ring.wait(&mut done)?;
            for (name, result) in done.drain(..) {
                let (what, n) = split(name);
                if what == SEND {
                    ends.on_sent(n, result)?;
                    continue;
                }
                let bytes = outcome(result)?;
                if bytes == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                // Only the number of replies matters, not their content.
                let have = ends.filled[n] + bytes;
                let count = have / self.exchange.reply_bytes;
                ends.filled[n] = have % self.exchange.reply_bytes;
                replies += count as u64;
                if meter.is_over() {
                    unanswered -= count;
                } else {
                    ends.send(n, count)?;
                }
                ends.receive(n)?;
            }
            meter.sample(replies);
        }
        Ok((meter.per_second()?, clock.seconds() / (replies as f64 / 1e6)))
    }
}

struct Server<'a> {
    ends: Ends<'a>,
    exchange: Exchange,
    file: Option<&'a Scratch>,
    rounds: Vec<Round>,
    /// Index of the round that collects arriving requests.
    gathering: usize,
    at: u64,
    requests: u64,
}

/// Requests that are written together.
struct Round {
    pages: Pages,
    bytes: usize,
    /// Connections to answer, with the number of replies.
    replies: Vec<(usize, usize)>,
    writing: bool,
}

impl<'a> Server<'a> {
    fn new(exchange: Exchange, sockets: &'a [TcpStream], file: Option<&'a Scratch>) -> io::Result<Self> {
        let reply = vec![5; exchange.reply_bytes];
        let round = || Round {
            pages: Pages::new(if file.is_some() { exchange.round_bytes_max() } else { 0 }),
            bytes: 0,
            replies: Vec::with_capacity(exchange.connections),
            writing: false,
        };
        Ok(Self {
            ends: Ends::new(sockets, (exchange.request_bytes, file.is_some()), &reply, exchange.in_flight)?,
            exchange,
            file,
            // One collects requests while the others are written.
            rounds: (0..=ROUNDS).map(|_| round()).collect(),
            gathering: 0,
            at: 0,
            requests: 0,
        })
    }

    /// Serves until all connections have ended. Returns processor seconds per million requests.
    fn run(&mut self) -> io::Result<f64> {
        let clock = ThreadClock::start();
        for n in 0..self.ends.sockets.len() {
            self.ends.receive(n)?;
        }
        let mut open = self.ends.sockets.len();
        let mut done: Vec<Done> = Vec::new();
        while open > 0 {
            self.ends.ring.wait(&mut done)?;
            for (name, result) in done.drain(..) {
                match split(name) {
                    (RECV, n) => match outcome(result) {
                        Ok(0) | Err(_) => open -= 1,
                        Ok(bytes) => self.on_received(n, bytes)?,
                    },
                    (SEND, n) => self.ends.on_sent(n, result)?,
                    (_, round) => {
                        all_of(result, self.rounds[round].bytes.next_multiple_of(PAGE_BYTES))?;
                        self.rounds[round].writing = false;
                        self.answer(round)?;
                    }
                }
            }
            self.commit()?;
        }
        Ok(clock.seconds() / (self.requests as f64 / 1e6))
    }

    fn on_received(&mut self, n: usize, bytes: usize) -> io::Result<()> {
        let size = self.exchange.request_bytes;
        let have = self.ends.filled[n] + bytes;
        let from = n * self.ends.recv_bytes;
        let (whole, rest) = (have / size, have % size);
        self.requests += whole as u64;
        let round = &mut self.rounds[self.gathering];
        if whole > 0 {
            round.replies.push((n, whole));
        }
        if self.file.is_some() {
            let received = &self.ends.memory[from..from + whole * size];
            for request in received.chunks_exact(size) {
                let (checksum, covered) = request.split_at(CHECKSUM_BYTES);
                if crc32c::crc32c(covered).to_le_bytes() != checksum {
                    return Err(io::Error::other("a request arrived damaged over the loopback interface"));
                }
            }
            round.pages[round.bytes..round.bytes + received.len()].copy_from_slice(received);
            round.bytes += received.len();
            self.ends.memory.copy_within(from + whole * size..from + have, from);
        }
        self.ends.filled[n] = rest;
        self.ends.receive(n)
    }

    /// Writes the current round if it has requests and a write may start.
    fn commit(&mut self) -> io::Result<()> {
        let gathering = self.gathering;
        let Some(file) = self.file else { return self.answer(gathering) };
        let writing = self.rounds.iter().filter(|round| round.writing).count();
        let round = &mut self.rounds[gathering];
        if round.bytes == 0 || writing == ROUNDS {
            return Ok(());
        }
        let bytes = round.bytes.next_multiple_of(PAGE_BYTES);
        if self.at + bytes as u64 > file.bytes() {
            self.at = 0;
        }
        let write = opcode::Write::new(types::Fd(file.as_raw_fd()), round.pages.as_ptr(), bytes as u32)
            .offset(self.at)
            .rw_flags(libc::RWF_DSYNC);
        // SAFETY: the pages are not changed while the round is being written, and are dropped after the ring.
        unsafe { self.ends.ring.push(write.build(), WRITE | gathering as u64)? };
        self.at += bytes as u64;
        round.writing = true;
        let free = self.rounds.iter().position(|round| !round.writing);
        self.gathering = free.expect("there is one more round than may be written at once");
        Ok(())
    }

    /// Answers all requests of a round.
    fn answer(&mut self, round: usize) -> io::Result<()> {
        let round = &mut self.rounds[round];
        round.bytes = 0;
        for (n, count) in round.replies.drain(..) {
            self.ends.send(n, count)?;
        }
        Ok(())
    }
}

impl Exchange {
    /// Returns the bytes of all requests that can be unanswered at once.
    fn round_bytes_max(self) -> usize {
        (self.connections * self.in_flight * self.request_bytes).next_multiple_of(PAGE_BYTES)
    }
}
