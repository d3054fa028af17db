//! The simulated world: crashes, restarts, pauses, isolation, and reproducible runs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use highwater_runtime::BoxError;
use highwater_runtime::buf::{AlignedBuf, PAGE_BYTES};
use highwater_runtime::conformance::TestApp;
use highwater_runtime::fs::{FileId, OpenMode};
use highwater_runtime::plane::{
    CloseReason, Completion, ConnId, ConnectError, Durability, ListenerId, Plane, ShardApp, ShardIndex, Token,
};
use highwater_runtime::sim::{
    ClientEnd, CrashPolicy, NodeConfig, NodeEnd, SimClient, SimNode, SimWorld, WorldConfig,
};
use rand::RngExt as _;

const PAGES: u64 = 256;

const SECOND: Duration = Duration::from_secs(1);

/// Writes every received byte to a page of its own and sends it back once the page is durable. `!` ends the node. The reply to `?`
/// is the number of pages.
struct Log {
    file: FileId,
    pages: u64,
    /// Pages that were not acknowledged, and whether they are written.
    waiting: BTreeMap<u64, (ConnId, u8, bool)>,
    durability: Durability,
}

impl Log {
    fn open(plane: &mut dyn Plane<()>, durability: Durability) -> Result<Self, BoxError> {
        let path = Path::new("/log");
        let file = match plane.open(path, OpenMode::ReadWrite) {
            Ok(file) => file,
            Err(_) => plane.create_file(path, PAGES * PAGE_BYTES as u64)?,
        };
        // Pages that are read after a restart may not be durable yet.
        plane.sync_file(file)?;
        let mut page = vec![0; PAGE_BYTES];
        let mut pages = 0;
        while plane.read_at(file, pages * PAGE_BYTES as u64, &mut page)? == PAGE_BYTES && page[0] != 0 {
            pages += 1;
        }
        Ok(Self { file, pages, waiting: BTreeMap::new(), durability })
    }
}

impl ShardApp for Log {
    type Message = ();

    fn on_accept(&mut self, plane: &mut dyn Plane<()>, conn: ConnId, _: ListenerId, _: SocketAddr) {
        plane.stream(conn);
    }

    fn on_recv(&mut self, plane: &mut dyn Plane<()>, conn: ConnId, data: &[u8]) {
        for byte in data {
            match byte {
                b'!' => plane.fatal(74, "requested".into()),
                b'?' => plane.send(conn, vec![self.pages as u8].into()),
                byte => {
                    let mut page = AlignedBuf::zeroed(PAGE_BYTES);
                    page.fill(*byte);
                    let (at, token) = (self.pages * PAGE_BYTES as u64, Token(self.pages));
                    plane.write(self.file, at, page.freeze(), self.durability, token);
                    self.waiting.insert(self.pages, (conn, *byte, false));
                    self.pages += 1;
                }
            }
        }
    }

    fn on_disk(&mut self, plane: &mut dyn Plane<()>, token: Token, completion: Completion) {
        assert!(matches!(completion, Completion::Write(Ok(()))));
        self.waiting.get_mut(&token.0).expect("a write completes once").2 = true;
        // In order: a page after a missing one would not be found.
        while let Some(first) = self.waiting.first_entry().filter(|first| first.get().2) {
            let (conn, byte, _) = first.remove();
            plane.send(conn, Bytes::copy_from_slice(&[byte]));
        }
    }

    fn on_connected(&mut self, _: &mut dyn Plane<()>, _: ConnId, _: Token, _: Result<(), ConnectError>) {}
    fn on_bulk(&mut self, _: &mut dyn Plane<()>, _: ConnId, _: AlignedBuf) {}
    fn on_sent(&mut self, _: &mut dyn Plane<()>, _: ConnId, _: usize) {}
    fn on_closed(&mut self, _: &mut dyn Plane<()>, _: ConnId, _: CloseReason) {}
    fn on_message(&mut self, _: &mut dyn Plane<()>, _: ShardIndex, (): ()) {}
    fn on_migrated(&mut self, _: &mut dyn Plane<()>, _: ConnId, _: ListenerId, _: SocketAddr, (): ()) {}
    fn on_timer(&mut self, _: &mut dyn Plane<()>, _: Token) {}
    fn on_turn_end(&mut self, _: &mut dyn Plane<()>) {}

    fn on_shutdown(&mut self, plane: &mut dyn Plane<()>) {
        plane.exit();
    }
}

fn log_world(seed: u64, durability: Durability) -> (SimWorld<Log>, SimNode) {
    let mut world = SimWorld::new(WorldConfig::new(seed));
    let node = world.add_node(NodeConfig::new(1, 1), move |_, plane| Log::open(plane, durability));
    world.start(node).unwrap();
    (world, node)
}

fn connect(world: &mut SimWorld<Log>, node: SimNode) -> SimClient {
    let address = world.address(node, 0);
    world.connect(address)
}

fn receive(world: &mut SimWorld<Log>, client: &mut SimClient, limit: Duration) -> Vec<u8> {
    world.run_until(limit, |_| client.available_bytes() > 0 || client.end().is_some());
    client.receive()
}

#[test]
fn everything_acknowledged_as_durable_exists_after_every_crash() {
    let mut unacknowledged_survived = 0;
    for seed in 0..40 {
        let (mut world, node) = log_world(seed, Durability::Durable);
        let mut acknowledged = 0;
        for _ in 0..6 {
            let mut client = connect(&mut world, node);
            client.send(vec![7; 12]);
            let time = Duration::from_micros(world.workload().random_range(0..8000));
            world.run_for(time);
            acknowledged += client.receive().len() as u64;
            world.crash(node, CrashPolicy::MIXED);
            assert_eq!(world.end(node), Some(&NodeEnd::Crashed));
            world.start(node).unwrap();
            let pages = world.app(node, 0).unwrap().pages;
            assert!(
                pages >= acknowledged,
                "seed {seed}: {pages} pages, but {acknowledged} were acknowledged"
            );
            unacknowledged_survived += pages - acknowledged;
            acknowledged = pages;
        }
    }
    assert!(unacknowledged_survived > 0, "crashes lose more than they should");
}

#[test]
fn acknowledging_before_a_sync_is_detected() {
    let lost = (0..20).filter(|seed| {
        let (mut world, node) = log_world(*seed, Durability::Volatile);
        let mut client = connect(&mut world, node);
        client.send(vec![7; 30]);
        world.run_for(SECOND);
        let acknowledged = client.receive().len() as u64;
        world.crash(node, CrashPolicy::MIXED);
        world.start(node).unwrap();
        world.app(node, 0).unwrap().pages < acknowledged
    });
    assert!(lost.count() > 10);
}

#[test]
fn a_killed_process_leaves_its_writes_to_the_disk_and_a_power_cut_may_still_lose_them() {
    let (mut world, node) = log_world(3, Durability::Volatile);
    let mut client = connect(&mut world, node);
    client.send(vec![7; 9]);
    world.run_for(SECOND);
    world.kill(node);
    world.start(node).unwrap();
    assert_eq!(world.app(node, 0).unwrap().pages, 9, "the kernel still had them");
    world.crash(node, CrashPolicy::LOSE_ALL);
    world.start(node).unwrap();
    assert_eq!(world.app(node, 0).unwrap().pages, 9, "the start has synced them");

    let mut client = connect(&mut world, node);
    client.send(vec![7; 9]);
    world.run_for(SECOND);
    world.kill(node);
    world.crash(node, CrashPolicy::LOSE_ALL);
    world.start(node).unwrap();
    assert_eq!(world.app(node, 0).unwrap().pages, 9, "the later writes were not synced");
}

#[test]
fn a_fatal_error_ends_the_node_immediately_with_its_code() {
    let (mut world, node) = log_world(1, Durability::Durable);
    let mut client = connect(&mut world, node);
    client.send(&b"!abc"[..]);
    assert!(receive(&mut world, &mut client, SECOND).is_empty());
    assert_eq!(client.end(), Some(ClientEnd::Reset));
    assert_eq!(world.end(node), Some(&NodeEnd::Fatal(74, "requested".into())));
    world.start(node).unwrap();
    assert_eq!(world.app(node, 0).unwrap().pages, 0, "nothing happens after the end");
}

#[test]
fn a_node_that_cannot_start_returns_the_reason_and_can_be_started_later() {
    let mut world = SimWorld::new(WorldConfig::new(1));
    let mut broken = true;
    let node = world.add_node(NodeConfig::new(1, 1), move |_, plane| {
        if std::mem::take(&mut broken) {
            return Err("not today".into());
        }
        Log::open(plane, Durability::Durable)
    });
    assert_eq!(world.start(node).unwrap_err().to_string(), "not today");
    let mut rejected = connect(&mut world, node);
    world.run_for(SECOND);
    assert_eq!(rejected.end(), Some(ClientEnd::Reset));
    assert!(rejected.receive().is_empty());
    world.start(node).unwrap();
    let mut client = connect(&mut world, node);
    client.send(&b"a"[..]);
    assert_eq!(receive(&mut world, &mut client, SECOND), b"a");
}

#[test]
fn an_isolated_node_hangs_and_continues_when_it_rejoins() {
    let (mut world, node) = log_world(1, Durability::Durable);
    let mut before = connect(&mut world, node);
    before.send(&b"a"[..]);
    assert_eq!(receive(&mut world, &mut before, SECOND), b"a");
    world.isolate(node);
    before.send(&b"b"[..]);
    let mut during = connect(&mut world, node);
    during.send(&b"c"[..]);
    world.run_for(10 * SECOND);
    assert_eq!((before.receive(), during.receive()), (vec![], vec![]));
    assert_eq!((before.end(), during.end()), (None, None));
    world.rejoin(node);
    assert_eq!(receive(&mut world, &mut before, 5 * SECOND), b"b");
    assert_eq!(receive(&mut world, &mut during, 5 * SECOND), b"c");
}

#[test]
fn a_cut_connection_hangs_without_affecting_others() {
    let (mut world, node) = log_world(1, Durability::Durable);
    let (mut cut, mut other) = (connect(&mut world, node), connect(&mut world, node));
    world.run_for(SECOND);
    cut.cut();
    cut.send(&b"a"[..]);
    other.send(&b"b"[..]);
    assert_eq!(receive(&mut world, &mut other, SECOND), b"b");
    assert!(cut.receive().is_empty());
    cut.heal();
    assert_eq!(receive(&mut world, &mut cut, SECOND), b"a");
}

#[test]
fn a_paused_node_does_nothing_and_loses_nothing() {
    let (mut world, node) = log_world(1, Durability::Durable);
    let mut client = connect(&mut world, node);
    world.run_for(SECOND);
    world.pause(node);
    client.send(&b"abc"[..]);
    world.run_for(60 * SECOND);
    assert!(client.receive().is_empty());
    world.resume(node);
    world.run_for(SECOND);
    let mut got = client.receive();
    got.sort_unstable();
    assert_eq!(got, b"abc");
}

#[test]
fn a_shutdown_ends_the_node() {
    let (mut world, node) = log_world(1, Durability::Durable);
    let client = connect(&mut world, node);
    world.run_for(SECOND);
    world.shutdown(node);
    assert!(world.run_until(SECOND, |world| world.end(node).is_some()));
    assert_eq!(world.end(node), Some(&NodeEnd::Exited));
    world.run_for(SECOND);
    assert_eq!(client.end(), Some(ClientEnd::Finished));
}

/// Runs several nodes with traffic of all kinds and a crash. Returns the trace's hash and number of events.
fn eventful(seed: u64) -> (u64, u64) {
    let mut world = SimWorld::new(WorldConfig::new(seed));
    let nodes: Vec<_> = (0..3)
        .map(|_| world.add_node(NodeConfig::new(2, 1), |_, _| Ok(TestApp::new("/data".into()))))
        .collect();
    let mut clients = Vec::new();
    for node in &nodes {
        world.start(*node).unwrap();
        for hello in [&b"E"[..], b"M\x01E", b"P\x10\0\0\0", b"T", b"D\x01\0\0\0\0\0\0\0", b"X\x40\0\0\0"] {
            let address = world.address(*node, 0);
            let mut client = world.connect(address);
            client.send(hello.to_vec());
            clients.push(client);
        }
    }
    for _ in 0..20 {
        for client in &mut clients {
            let bytes = world.workload().random_range(0..3000);
            client.send(vec![5; bytes]);
            client.receive();
        }
        let time = Duration::from_micros(world.workload().random_range(0..3000));
        world.run_for(time);
    }
    world.kill(nodes[1]);
    world.run_for(SECOND);
    for client in &mut clients {
        client.receive();
    }
    world.run_for(SECOND);
    (world.trace_hash(), world.trace_events())
}

#[test]
fn the_same_seed_produces_the_same_run_and_another_seed_a_different_one() {
    let mut hashes = Vec::new();
    for seed in 0..10 {
        let (hash, events) = eventful(seed);
        assert_eq!((hash, events), eventful(seed), "seed {seed}");
        assert!(events > 1000, "{events}");
        assert!(!hashes.contains(&hash));
        hashes.push(hash);
    }
}

#[test]
fn a_client_that_never_reads_does_not_keep_a_closing_connection_open_forever() {
    let mut world = SimWorld::new(WorldConfig::new(1));
    let node = world.add_node(NodeConfig::new(1, 1), |_, _| Ok(TestApp::new("/data".into())));
    world.start(node).unwrap();
    let address = world.address(node, 0);
    let mut slow = world.connect(address);
    slow.send(&b"C\x01A\x00\x00\x00\x02"[..]);
    let mut observer = world.connect(address);
    observer.send(&b"O\x01"[..]);
    world.run_for(29 * SECOND);
    assert!(observer.receive().is_empty());
    world.run_for(2 * SECOND);
    assert_eq!(observer.receive(), b"local.");
}
