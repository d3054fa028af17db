//! The limit for large batches when client and broker share the cores. A sender copies records into a batch and computes its CRC. A
//! receiver receives it directly into aligned pages, checks the CRC, writes the batch durably and answers with eight bytes.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use io_uring::{opcode, types};

use super::disk::{Disk, Space};
use super::meter::{Meter, ThreadClock};
use super::pages::Pages;
use super::ring::{Done, Ring, all_of, outcome};
use super::scratch::Scratch;
use super::stream::pair;
use super::{BaselineError, Cpu, Measured, Unit};

/// Bytes of a record.
const RECORD_BYTES: usize = 1 << 10;

/// Number of distinct records that the sender copies from, so that they are read from memory like a client's.
const RECORDS: usize = 256;

/// Bytes of the checksum before the bytes that it covers.
const CHECKSUM_BYTES: usize = 4;

/// Bytes of the reply to a batch.
const REPLY_BYTES: usize = 8;

/// Buffers besides those being written: one being filled, and one to fill next.
const SPARE_BUFFERS: usize = 2;

/// Parameters of the pipeline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pipeline {
    /// Bytes of a batch, a multiple of the record size.
    pub batch_bytes: usize,
    /// Maximum number of batches being written.
    pub depth: usize,
    /// Maximum number of batches sent but not answered.
    pub window: usize,
    /// State of the blocks that they are written to.
    pub space: Space,
}

impl Pipeline {
    /// Returns the parameters for batches of 1 MiB with eight writes in flight.
    pub fn new(space: Space) -> Self {
        Self { batch_bytes: 1 << 20, depth: 8, window: 16, space }
    }

    /// Measures the bytes per second that are durable and answered.
    pub fn measure(self, disk: &mut Disk, duration: Duration) -> Result<Measured, BaselineError> {
        let scratch = disk.scratch(self.space)?;
        let failed = BaselineError::new("cannot measure the pipeline");
        let run = || -> io::Result<Measured> {
            let (client, server) = pair()?;
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let sender = scope.spawn(|| {
                    let result = self.send(&client, duration, &stop);
                    // The receiver ends at the end of the stream, so end it also after an error.
                    let _ = client.shutdown(std::net::Shutdown::Write);
                    result
                });
                let received = Receiver::new(self, &server, &scratch, &stop)
                    .and_then(|mut receiver| receiver.run(Meter::start(duration)));
                // After an error, the sender must not wait for answers forever.
                let _ = server.shutdown(std::net::Shutdown::Both);
                let sent = sender.join().expect("the sender does not panic");
                let (value, broker) = received?;
                Ok(Measured {
                    value,
                    unit: Unit::BytesPerSecond,
                    cpu: Some(Cpu { broker, client: Some(sent?) }),
                })
            })
        };
        run().map_err(failed)
    }

    /// Sends until the time is over. Returns processor seconds per GB.
    fn send(self, mut socket: &TcpStream, duration: Duration, stop: &AtomicBool) -> io::Result<f64> {
        let records = Pages::new(RECORD_BYTES * RECORDS);
        let mut batch = Pages::new(self.batch_bytes);
        let mut replies = vec![0; REPLY_BYTES * self.window];
        let mut reply_bytes = 0;
        let (clock, started) = (ThreadClock::start(), Instant::now());
        let (mut sent, mut record) = (0, 0);
        let batches_min = 4 * self.window;
        while (started.elapsed() < duration || sent < batches_min) && !stop.load(Ordering::Relaxed) {
            while sent - reply_bytes / REPLY_BYTES >= self.window {
                reply_bytes += read_some(&mut socket, &mut replies)?;
            }
            for slot in batch.chunks_exact_mut(RECORD_BYTES) {
                slot.copy_from_slice(&records[record * RECORD_BYTES..][..RECORD_BYTES]);
                record = (record + 1) % RECORDS;
            }
            let checksum = crc32c::crc32c(&batch[CHECKSUM_BYTES..]);
            batch[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
            socket.write_all(&batch)?;
            sent += 1;
        }
        while reply_bytes < sent * REPLY_BYTES {
            reply_bytes += read_some(&mut socket, &mut replies)?;
        }
        Ok(clock.seconds() / ((sent * self.batch_bytes).max(1) as f64 / 1e9))
    }
}

fn read_some(socket: &mut &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
    match socket.read(buf)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        n => Ok(n),
    }
}

const RECV: u64 = 1 << 32;
const SEND: u64 = 2 << 32;
const WRITE: u64 = 3 << 32;

struct Receiver<'a> {
    // Dropped first: it waits for the operations that use the other fields.
    ring: Ring,
    pipeline: Pipeline,
    socket: &'a TcpStream,
    file: &'a Scratch,
    stop: &'a AtomicBool,
    buffers: Vec<Pages>,
    free: Vec<usize>,
    /// The buffer that is being filled, and the bytes in it.
    filling: Option<(usize, usize)>,
    receiving: bool,
    /// File position of the next batch.
    at: u64,
    reply_data: Vec<u8>,
    /// Replies being sent, and replies to send next.
    replying: usize,
    replies_due: usize,
    ended: bool,
    /// The fresh space is used up: batches written from now on do not count.
    over: bool,
    durable: u64,
}

impl<'a> Receiver<'a> {
    fn new(
        pipeline: Pipeline,
        socket: &'a TcpStream,
        file: &'a Scratch,
        stop: &'a AtomicBool,
    ) -> io::Result<Self> {
        let buffers = pipeline.depth + SPARE_BUFFERS;
        Ok(Self {
            ring: Ring::new(64)?,
            pipeline,
            socket,
            file,
            stop,
            buffers: (0..buffers).map(|_| Pages::new(pipeline.batch_bytes)).collect(),
            free: (0..buffers).collect(),
            filling: None,
            receiving: false,
            at: 0,
            reply_data: vec![7; REPLY_BYTES * pipeline.window],
            replying: 0,
            replies_due: 0,
            ended: false,
            over: false,
            durable: 0,
        })
    }

    /// Runs to the end of the stream. Returns bytes per second, and processor seconds per GB.
    fn run(&mut self, mut meter: Meter) -> io::Result<(f64, f64)> {
        let clock = ThreadClock::start();
        let mut done: Vec<Done> = Vec::new();
        loop {
            self.queue()?;
            if self.ring.in_flight() == 0 {
                break;
            }
            self.ring.wait(&mut done)?;
            let before = self.durable;
            for (name, result) in done.drain(..) {
                self.complete(name, result)?;
            }
            if self.durable > before && !self.over {
                meter.sample(self.durable);
            }
        }
        let bytes = self.pipeline.batch_bytes as f64;
        Ok((meter.per_second()? * bytes, clock.seconds() / (self.durable as f64 * bytes / 1e9)))
    }

    /// Starts every operation that can start.
    fn queue(&mut self) -> io::Result<()> {
        let socket = types::Fd(self.socket.as_raw_fd());
        if !self.receiving && !self.ended {
            self.filling = self.filling.or_else(|| self.free.pop().map(|buffer| (buffer, 0)));
            if let Some((buffer, filled)) = self.filling {
                let memory = &mut self.buffers[buffer][filled..];
                let recv = opcode::Recv::new(socket, memory.as_mut_ptr(), memory.len() as u32);
                // SAFETY: the buffer is used by nothing else until the operation has completed, and is dropped after the ring.
                unsafe { self.ring.push(recv.build(), RECV)? };
                self.receiving = true;
            }
        }
        if self.replying == 0 && self.replies_due > 0 {
            self.replying = self.replies_due;
            self.replies_due = 0;
            let bytes = REPLY_BYTES * self.replying;
            let send =
                opcode::Send::new(socket, self.reply_data.as_ptr(), bytes as u32).flags(libc::MSG_WAITALL);
            // SAFETY: the reply data is never changed, and is dropped after the ring.
            unsafe { self.ring.push(send.build(), SEND)? };
        }
        Ok(())
    }

    fn complete(&mut self, name: u64, result: i32) -> io::Result<()> {
        match name & !u64::from(u32::MAX) {
            RECV => {
                self.receiving = false;
                let bytes = outcome(result)?;
                self.ended = bytes == 0;
                let (buffer, filled) = self.filling.expect("a receive fills a buffer");
                self.filling = Some((buffer, filled + bytes));
                if filled + bytes == self.pipeline.batch_bytes {
                    self.filling = None;
                    self.write(buffer)?;
                }
            }
            SEND => {
                all_of(result, REPLY_BYTES * self.replying)?;
                self.replying = 0;
            }
            _ => {
                all_of(result, self.pipeline.batch_bytes)?;
                self.free.push((name & u64::from(u32::MAX)) as usize);
                self.durable += 1;
                self.replies_due += 1;
            }
        }
        Ok(())
    }

    fn write(&mut self, buffer: usize) -> io::Result<()> {
        let batch = &self.buffers[buffer];
        let (checksum, covered) = batch.split_at(CHECKSUM_BYTES);
        if crc32c::crc32c(covered).to_le_bytes() != checksum {
            return Err(io::Error::other("a batch arrived damaged over the loopback interface"));
        }
        let bytes = self.pipeline.batch_bytes as u64;
        if self.at + bytes > self.file.bytes() {
            self.at = 0;
            if self.pipeline.space == Space::Fresh {
                self.over = true;
                self.stop.store(true, Ordering::Relaxed);
            }
        }
        let file = types::Fd(self.file.as_raw_fd());
        let write = opcode::Write::new(file, batch.as_ptr(), batch.len() as u32)
            .offset(self.at)
            .rw_flags(libc::RWF_DSYNC);
        // SAFETY: the buffer is not reused before the operation has completed, and is dropped after the ring.
        unsafe { self.ring.push(write.build(), WRITE | buffer as u64)? };
        self.at += bytes;
        Ok(())
    }
}
