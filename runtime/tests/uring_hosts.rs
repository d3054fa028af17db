//! What every host guarantees: messages in order, timers, progress while busy, and a clean start and stop.

mod uring_support;

#[macro_use]
mod ignore;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant as Clock};

use bytes::Bytes;
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::plane::{
    CloseReason, Completion, ConnId, ConnectError, Instant, ListenerId, Plane, ShardApp, ShardIndex, Token,
};
use highwater_runtime::{HostKind, RunError, RuntimeConfig, StartError, available_cpus, bind, start};
use uring_support::{Event, FrameApp, HOSTS, SUM, TIMEOUT, connect, frame, hash, pattern, serve, stop, sum};

fn config(host: HostKind, shards: usize) -> RuntimeConfig {
    let cpus = available_cpus().expect("affinity").into_iter().cycle().take(shards).collect();
    let mut config = RuntimeConfig::new(cpus);
    config.host = host;
    config
}

/// Posts numbered messages to every shard, itself included, in bursts larger than the queues. Exits when it has received all
/// messages of all shards.
struct Poster {
    bursts_left: u64,
    posted: u64,
    got: Vec<u64>,
}

const BURST: u64 = 3000;
const BURSTS: u64 = 8;

impl ShardApp for Poster {
    type Message = u64;

    ignore! {
        on_accept(ConnId, ListenerId, SocketAddr);
        on_connected(ConnId, Token, Result<(), ConnectError>);
        on_recv(ConnId, &[u8]);
        on_bulk(ConnId, AlignedBuf);
        on_sent(ConnId, usize);
        on_closed(ConnId, CloseReason);
        on_disk(Token, Completion);
        on_migrated(ConnId, ListenerId, SocketAddr, u64);
        on_timer(Token);
        on_shutdown();
    }

    fn on_message(&mut self, plane: &mut dyn Plane<u64>, from: ShardIndex, message: u64) {
        let got = &mut self.got[usize::from(from)];
        assert_eq!(message, *got, "the next message from shard {from}");
        *got += 1;
        if self.got.iter().all(|got| *got == BURST * BURSTS) {
            plane.exit();
        }
    }

    fn on_turn_end(&mut self, plane: &mut dyn Plane<u64>) {
        if self.bursts_left == 0 {
            return;
        }
        self.bursts_left -= 1;
        for _ in 0..BURST {
            for to in 0..plane.shards() {
                plane.post(to, self.posted);
            }
            self.posted += 1;
        }
    }
}

#[test]
fn messages_between_shards_arrive_in_order_and_none_is_lost() {
    for host in HOSTS {
        let runtime = start(config(host, 3), |_, plane| {
            Ok(Poster { bursts_left: BURSTS, posted: 0, got: vec![0; usize::from(plane.shards())] })
        });
        runtime.expect("shards start").wait().expect("every message arrives in order");
    }
}

/// Sets timers out of order, and keeps itself busy with messages to itself so that it never sleeps.
struct Busy {
    fired: Vec<Token>,
}

impl ShardApp for Busy {
    type Message = u64;

    ignore! {
        on_accept(ConnId, ListenerId, SocketAddr);
        on_connected(ConnId, Token, Result<(), ConnectError>);
        on_recv(ConnId, &[u8]);
        on_bulk(ConnId, AlignedBuf);
        on_sent(ConnId, usize);
        on_closed(ConnId, CloseReason);
        on_disk(Token, Completion);
        on_migrated(ConnId, ListenerId, SocketAddr, u64);
        on_turn_end();
    }

    fn on_message(&mut self, plane: &mut dyn Plane<u64>, _: ShardIndex, message: u64) {
        plane.post(plane.shard(), message);
    }

    fn on_timer(&mut self, plane: &mut dyn Plane<u64>, token: Token) {
        assert!(plane.now() >= Instant(0).after(Duration::from_millis(token.0)), "never early");
        self.fired.push(token);
        if self.fired.len() == 4 {
            assert_eq!(self.fired, [10, 20, 30, 40].map(Token));
            plane.exit();
        }
    }

    fn on_shutdown(&mut self, _: &mut dyn Plane<u64>) {}
}

#[test]
fn timers_fire_in_order_whether_the_shard_sleeps_or_not() {
    for host in HOSTS {
        for asleep in [true, false] {
            let runtime = start(config(host, 1), move |shard, plane| {
                for ms in [30, 10, 40, 20] {
                    plane.set_timer(Instant(0).after(Duration::from_millis(ms)), Token(ms));
                }
                if !asleep {
                    plane.post(shard, 1);
                }
                Ok(Busy { fired: Vec::new() })
            });
            runtime.expect("starts").wait().expect("timers fire in order");
        }
    }
}

/// Answers frames, and keeps itself busy all the time.
struct BusyServer(FrameApp);

impl ShardApp for BusyServer {
    type Message = u64;

    ignore! {
        on_connected(ConnId, Token, Result<(), ConnectError>);
        on_disk(Token, Completion);
        on_migrated(ConnId, ListenerId, SocketAddr, u64);
        on_turn_end();
        on_timer(Token);
    }

    fn on_accept(
        &mut self,
        plane: &mut dyn Plane<u64>,
        conn: ConnId,
        listener: ListenerId,
        peer: SocketAddr,
    ) {
        self.0.on_accept(plane, conn, listener, peer);
    }

    fn on_recv(&mut self, plane: &mut dyn Plane<u64>, conn: ConnId, data: &[u8]) {
        self.0.on_recv(plane, conn, data);
    }

    fn on_bulk(&mut self, plane: &mut dyn Plane<u64>, conn: ConnId, buf: AlignedBuf) {
        self.0.on_bulk(plane, conn, buf);
    }

    fn on_sent(&mut self, plane: &mut dyn Plane<u64>, conn: ConnId, bytes: usize) {
        self.0.on_sent(plane, conn, bytes);
    }

    fn on_closed(&mut self, plane: &mut dyn Plane<u64>, conn: ConnId, reason: CloseReason) {
        self.0.on_closed(plane, conn, reason);
    }

    fn on_message(&mut self, plane: &mut dyn Plane<u64>, from: ShardIndex, message: u64) {
        plane.post(if message.is_multiple_of(3) { 1 - from } else { plane.shard() }, message + 1);
    }

    fn on_shutdown(&mut self, plane: &mut dyn Plane<u64>) {
        self.0.on_shutdown(plane);
    }
}

#[test]
fn shards_that_are_never_idle_still_serve_and_stop() {
    for host in HOSTS {
        let listener = bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let mut config = config(host, 2);
        config.listeners = vec![listener];
        let runtime = start(config, |shard, plane| {
            plane.post(shard, 1);
            Ok(BusyServer(FrameApp::new(None)))
        })
        .expect("starts");
        for n in 0..50 {
            sum(&mut connect(address), &[n; 1000]);
        }
        stop(runtime);
    }
}

/// Tests for glommio's park hang, where an executor parks forever although its ring has a completion. Traffic that lets the shards
/// fall asleep and wakes them in every possible way (socket, timer, other shard), many thousand times, must never wait for long.
#[test]
fn shards_that_fall_asleep_all_the_time_always_wake_up() {
    let (runtime, address) = serve(HostKind::Glommio, 2, None);
    let threads: Vec<_> = (0..2_u64)
        .map(|seed| {
            std::thread::spawn(move || {
                let mut client = connect(address);
                let started = Clock::now();
                let mut slowest = Duration::ZERO;
                let mut random = seed + 1;
                let mut count = 0_u32;
                while started.elapsed() < Duration::from_secs(2) {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let sent = Clock::now();
                    sum(&mut client, &[1; 100]);
                    slowest = slowest.max(sent.elapsed());
                    count += 1;
                    // Gaps from zero to the length of a park, so that every moment of falling asleep is hit.
                    let gap = Clock::now();
                    while gap.elapsed() < Duration::from_nanos(random >> 48) {
                        std::hint::spin_loop();
                    }
                }
                (count, slowest)
            })
        })
        .collect();
    for thread in threads {
        let (count, slowest) = thread.join().expect("every request is answered");
        println!("{count} requests, the slowest took {slowest:?}");
        assert!(slowest < TIMEOUT);
    }
    stop(runtime);
}

/// Moves a connection to the other shard, with its unread bytes.
struct Mover(FrameApp);

impl ShardApp for Mover {
    type Message = u64;

    ignore! {
        on_connected(ConnId, Token, Result<(), ConnectError>);
        on_disk(Token, Completion);
        on_turn_end();
        on_timer(Token);
        on_message(ShardIndex, u64);
    }

    fn on_accept(&mut self, _: &mut dyn Plane<u64>, _: ConnId, _: ListenerId, _: SocketAddr) {}

    fn on_recv(&mut self, plane: &mut dyn Plane<u64>, conn: ConnId, data: &[u8]) {
        if let Some(target) = data.strip_prefix(b"to:") {
            let to = ShardIndex::from(target[0] - b'0');
            plane.send(conn, Bytes::from_static(b"moving"));
            plane.migrate(conn, to, 77, Bytes::copy_from_slice(&target[1..]));
            plane.send(conn, Bytes::from_static(b"ignored: the connection has moved"));
        } else {
            self.0.on_recv(plane, conn, data);
        }
    }

    fn on_bulk(&mut self, plane: &mut dyn Plane<u64>, conn: ConnId, buf: AlignedBuf) {
        self.0.on_bulk(plane, conn, buf);
    }

    fn on_sent(&mut self, _: &mut dyn Plane<u64>, _: ConnId, _: usize) {}

    fn on_closed(&mut self, plane: &mut dyn Plane<u64>, conn: ConnId, reason: CloseReason) {
        self.0.on_closed(plane, conn, reason);
    }

    fn on_migrated(
        &mut self,
        plane: &mut dyn Plane<u64>,
        conn: ConnId,
        listener: ListenerId,
        peer: SocketAddr,
        payload: u64,
    ) {
        self.0.on_migrated(plane, conn, listener, peer, payload);
    }

    fn on_shutdown(&mut self, plane: &mut dyn Plane<u64>) {
        self.0.on_shutdown(plane);
    }
}

#[test]
fn a_connection_moves_with_its_unread_and_later_bytes() {
    for host in HOSTS {
        let listener = bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let mut config = config(host, 2);
        config.listeners = vec![listener];
        let (events, seen) = channel();
        let runtime =
            start(config, move |_, _| Ok(Mover(FrameApp::new(Some(events.clone()))))).expect("starts");
        for to in [0, 1] {
            let mut client = connect(address);
            let payload = pattern(5, 300_000);
            let whole = frame(SUM, &payload);
            let mut first = format!("to:{to}").into_bytes();
            first.extend_from_slice(&whole[..1000]);
            client.write_all(&first).expect("the shard reads");
            let mut moving = [0; 6];
            client.read_exact(&mut moving).expect("bytes sent before the move arrive");
            assert_eq!(&moving, b"moving");
            client.write_all(&whole[1000..]).expect("the shard reads");
            let mut answer = [0; 8];
            client.read_exact(&mut answer).expect("the new shard answers");
            assert_eq!(u64::from_le_bytes(answer), hash(&payload));
            let moved = seen.iter().find(|event| matches!(event, Event::Message(..)));
            assert_eq!(moved, Some(Event::Message(to, 77)));
            sum(&mut client, &[6; 10]);
        }
        stop(runtime);
    }
}

#[test]
fn an_application_that_fails_to_start_ends_the_start_with_its_error() {
    for host in HOSTS {
        let result = start(config(host, 3), |shard, _| {
            if shard == 1 {
                return Err("the data directory is on fire".into());
            }
            Ok(FrameApp::new(None))
        });
        let Err(StartError::App { shard: 1, source }) = result else { panic!("the error of shard 1") };
        assert!(source.to_string().contains("on fire"));
    }
}

#[test]
fn a_configuration_without_cpus_or_with_a_missing_one_is_rejected() {
    for host in HOSTS {
        let none = start(config(host, 0), |_, _| Ok(FrameApp::new(None)));
        assert!(matches!(none, Err(StartError::Config(_))));
        let mut config = config(host, 1);
        config.cpus = vec![highwater_runtime::Cpu(1000)];
        let Err(e) = start(config, |_, _| Ok(FrameApp::new(None))) else { panic!("no such CPU") };
        assert!(e.to_string().contains("1000"), "{e}");
    }
}

/// Reports when it is dropped.
struct Fragile(Sender<()>);

impl ShardApp for Fragile {
    type Message = u64;

    ignore! {
        on_accept(ConnId, ListenerId, SocketAddr);
        on_connected(ConnId, Token, Result<(), ConnectError>);
        on_recv(ConnId, &[u8]);
        on_bulk(ConnId, AlignedBuf);
        on_sent(ConnId, usize);
        on_closed(ConnId, CloseReason);
        on_disk(Token, Completion);
        on_migrated(ConnId, ListenerId, SocketAddr, u64);
        on_timer(Token);
        on_turn_end();
    }

    fn on_message(&mut self, plane: &mut dyn Plane<u64>, _: ShardIndex, _: u64) {
        plane.fatal(74, "the disk is gone".into());
    }

    fn on_shutdown(&mut self, _: &mut dyn Plane<u64>) {
        panic!("a bug in shard 1");
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[test]
fn a_panic_of_one_shard_ends_the_others_and_is_reported() {
    for host in HOSTS {
        let (dropped, drops) = channel();
        let runtime = start(config(host, 2), move |shard, plane| {
            // Shard 0 would wait forever.
            if shard == 0 {
                plane.set_timer(Instant(u64::MAX), Token(0));
            }
            Ok(Fragile(dropped.clone()))
        })
        .expect("starts");
        runtime.shutdown_handle().shutdown();
        let RunError::Panicked { message, .. } = runtime.wait().expect_err("a panic");
        assert!(message.contains("a bug in shard 1"), "{message}");
        assert_eq!(drops.iter().count(), 2, "both applications were dropped");
    }
}

#[test]
fn a_fatal_error_ends_the_process_with_its_code_and_reason() {
    const HOST_VARIABLE: &str = "HIGHWATER_TEST_FATAL";
    let this = "a_fatal_error_ends_the_process_with_its_code_and_reason";
    if let Ok(host) = std::env::var(HOST_VARIABLE) {
        let host = if host == "glommio" { HostKind::Glommio } else { HostKind::Thread };
        let runtime = start(config(host, 1), |shard, plane| {
            plane.post(shard, 1);
            Ok(Fragile(channel().0))
        });
        runtime.expect("starts").wait().expect("the process ends before this");
        return;
    }
    for host in ["glommio", "thread"] {
        let me = std::env::current_exe().expect("this test");
        let run = Command::new(me).args([this, "--exact", "--nocapture"]).env(HOST_VARIABLE, host).output();
        let output = run.expect("this test can run itself");
        assert_eq!(output.status.code(), Some(74));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("the disk is gone"), "{stderr}");
    }
}
