//! Latency between cores: the plane's own messages, and an eventfd between two threads.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use super::{BaselineError, Measured, Unit};
use crate::buf::AlignedBuf;
use crate::cpus::{Cpu, available_cpus, pin_thread};
use crate::errors::BoxError;
use crate::plane::{
    CloseReason, Completion, ConnId, ConnectError, ListenerId, Plane, ShardApp, ShardIndex, Token,
};
use crate::start::{RuntimeConfig, start};

/// Returns two CPUs, or the same one twice if there is only one.
fn two_cpus() -> io::Result<[Cpu; 2]> {
    let cpus = available_cpus()?;
    let first = *cpus.first().ok_or_else(|| io::Error::other("this process may use no CPU"))?;
    Ok([first, *cpus.last().unwrap_or(&first)])
}

/// Measures the round trip of a message to another shard and its reply, in nanoseconds. Both shards either sleep before each
/// message or, if `busy`, are kept awake.
pub fn mesh_round_trip(busy: bool, duration: Duration) -> Result<Measured, BaselineError> {
    const WHAT: &str = "cannot measure messages between shards";
    let cpus = two_cpus().map_err(BaselineError::new(WHAT))?;
    let (result, results) = channel();
    let config = RuntimeConfig::new(cpus.to_vec());
    let runtime = start(config, move |_, plane| {
        // Messages can be sent only after all shards have started.
        plane.set_timer(plane.now(), Token(0));
        Ok::<_, BoxError>(Ball { busy, duration, began: None, trips: 0, result: result.clone() })
    })
    .map_err(|e| BaselineError::failed(WHAT, e.to_string()))?;
    runtime.wait().map_err(|e| BaselineError::failed(WHAT, e.to_string()))?;
    let value =
        results.recv().map_err(|_| BaselineError::failed(WHAT, "the shards ended without a result"))?;
    Ok(Measured { value, unit: Unit::Nanoseconds, cpu: None })
}

#[derive(Clone, Copy)]
enum Message {
    Ball,
    Awake,
    End,
}

/// Sends a message back and forth between shard 0, which starts and counts, and shard 1.
struct Ball {
    busy: bool,
    duration: Duration,
    began: Option<Instant>,
    trips: u32,
    result: Sender<f64>,
}

impl ShardApp for Ball {
    type Message = Message;

    fn on_timer(&mut self, plane: &mut dyn Plane<Message>, _: Token) {
        if self.busy {
            plane.post(plane.shard(), Message::Awake);
        }
        if plane.shard() == 0 {
            self.began = Some(Instant::now());
            plane.post(1, Message::Ball);
        }
    }

    fn on_message(&mut self, plane: &mut dyn Plane<Message>, _: ShardIndex, message: Message) {
        match (message, self.began) {
            // A message to itself arrives in the next turn, so the shard never sleeps.
            (Message::Awake, _) => plane.post(plane.shard(), Message::Awake),
            (Message::Ball, None) => plane.post(0, Message::Ball),
            (Message::Ball, Some(began)) => {
                self.trips += 1;
                let took = began.elapsed();
                if took < self.duration {
                    return plane.post(1, Message::Ball);
                }
                // The receiver still exists: it waits for this shard.
                let _ = self.result.send(took.as_nanos() as f64 / f64::from(self.trips));
                plane.post(1, Message::End);
                plane.exit();
            }
            (Message::End, _) => plane.exit(),
        }
    }

    fn on_shutdown(&mut self, plane: &mut dyn Plane<Message>) {
        plane.exit();
    }

    fn on_accept(&mut self, _: &mut dyn Plane<Message>, _: ConnId, _: ListenerId, _: SocketAddr) {}
    fn on_connected(&mut self, _: &mut dyn Plane<Message>, _: ConnId, _: Token, _: Result<(), ConnectError>) {
    }
    fn on_recv(&mut self, _: &mut dyn Plane<Message>, _: ConnId, _: &[u8]) {}
    fn on_bulk(&mut self, _: &mut dyn Plane<Message>, _: ConnId, _: AlignedBuf) {}
    fn on_sent(&mut self, _: &mut dyn Plane<Message>, _: ConnId, _: usize) {}
    fn on_closed(&mut self, _: &mut dyn Plane<Message>, _: ConnId, _: CloseReason) {}
    fn on_disk(&mut self, _: &mut dyn Plane<Message>, _: Token, _: Completion) {}
    fn on_migrated(
        &mut self,
        _: &mut dyn Plane<Message>,
        _: ConnId,
        _: ListenerId,
        _: SocketAddr,
        _: Message,
    ) {
    }
    fn on_turn_end(&mut self, _: &mut dyn Plane<Message>) {}
}

/// Measures the time, in nanoseconds, until a thread that waits for an eventfd on another CPU runs: half of a round trip.
pub fn wake_up(duration: Duration) -> Result<Measured, BaselineError> {
    let run = || -> io::Result<f64> {
        let [here, there] = two_cpus()?;
        let (ping, pong) = (eventfd(0, EventfdFlags::CLOEXEC)?, eventfd(0, EventfdFlags::CLOEXEC)?);
        std::thread::scope(|scope| {
            let echo = scope.spawn(|| {
                pin_thread(there)?;
                while take(&ping)? != LAST {
                    give(&pong, 1)?;
                }
                give(&pong, 1)
            });
            let serve = scope.spawn(|| {
                pin_thread(here)?;
                let (mut trips, began) = (0_u32, Instant::now());
                while trips == 0 || began.elapsed() < duration {
                    give(&ping, 1)?;
                    take(&pong)?;
                    trips += 1;
                }
                let took = began.elapsed();
                give(&ping, LAST)?;
                io::Result::Ok(took.as_nanos() as f64 / f64::from(trips) / 2.0)
            });
            let value = serve.join().expect("eventfds do not panic");
            echo.join().expect("eventfds do not panic")?;
            value
        })
    };
    let value = run().map_err(BaselineError::new("cannot measure an eventfd"))?;
    Ok(Measured { value, unit: Unit::Nanoseconds, cpu: None })
}

/// Value added to an eventfd for the last message.
const LAST: u64 = 2;

fn give(eventfd: &OwnedFd, value: u64) -> io::Result<()> {
    rustix::io::write(eventfd, &value.to_ne_bytes())?;
    Ok(())
}

fn take(eventfd: &OwnedFd) -> io::Result<u64> {
    let mut value = [0; 8];
    rustix::io::read(eventfd, &mut value)?;
    Ok(u64::from_ne_bytes(value))
}
