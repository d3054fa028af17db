//! A shard's plane of the simulated machine.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::core::Core;
use super::disk::SimDisk;
use super::network::draw;
use super::node::{
    Bulk, Conn, Event, Life, MeshItem, Migrant, Node, NodeEnd, Receiving, Shard, SimNode, Source,
};
use crate::buf::AlignedBuf;
use crate::fs::{DirEntry, FileId, Fs, OpenMode};
use crate::plane::{
    Close, CloseReason, ConnId, ConnectFailure, Disk, Durability, FileJob, Instant, Net, Plane, ShardIndex,
    Token,
};

/// The plane of a shard for the duration of one call.
pub(super) struct SimPlane<'a, M> {
    pub(super) core: &'a mut Core<M>,
    pub(super) node: SimNode,
    pub(super) shard: ShardIndex,
}

impl<M> SimPlane<'_, M> {
    fn node(&mut self) -> &mut Node<M> {
        self.core.node(self.node)
    }

    fn me(&mut self) -> &mut Shard<M> {
        let shard = self.shard;
        self.node().shard(shard)
    }

    /// Returns whether the node has ended. A real process does not return from [`Plane::fatal`]; here it does, but later calls have
    /// no effect.
    fn is_dead(&self) -> bool {
        self.core.nodes[self.node.0].end.is_some()
    }

    fn count_disk(&mut self, bytes: usize) {
        let work = &mut self.me().work;
        work.disk_operations += 1;
        work.disk_bytes += bytes;
    }

    fn disk(&mut self) -> SimDisk {
        self.node().disk.clone()
    }

    /// Returns a connection that is open and not being closed.
    fn open_conn(&mut self, conn: ConnId) -> Option<&mut Conn> {
        if self.is_dead() {
            return None;
        }
        let open = self.me().conns.get_mut(&conn)?;
        assert!(open.connecting.is_none(), "{conn:?} is not connected yet");
        Some(open).filter(|conn| conn.closing.is_none())
    }
}

impl<M> Net for SimPlane<'_, M> {
    fn connect(&mut self, to: SocketAddr, within: Duration, token: Token) -> ConnId {
        self.core.start_connect((self.node, self.shard), to, within, token)
    }

    fn send(&mut self, conn: ConnId, data: Bytes) {
        if let Some(socket) = self.open_conn(conn).map(|conn| conn.socket) {
            self.me().work.bytes_sent += data.len();
            self.core.trace.add_bytes("send", conn.0, &data);
            self.core.network.borrow_mut().send(socket, data);
        }
    }

    fn local_addr(&self, conn: ConnId) -> Option<SocketAddr> {
        let shard = &self.core.nodes[self.node.0].shards[usize::from(self.shard)];
        let open = |conn: &&Conn| conn.closing.is_none() && conn.connecting.is_none();
        shard.conns.get(&conn).filter(open).map(|conn| conn.endpoints.local)
    }

    fn send_queue_bytes(&self, conn: ConnId) -> usize {
        let shard = &self.core.nodes[self.node.0].shards[usize::from(self.shard)];
        shard.conns.get(&conn).map_or(0, |conn| self.core.network.borrow().queued_bytes(conn.socket))
    }

    fn stream(&mut self, conn: ConnId) {
        if let Some(conn) = self.open_conn(conn) {
            conn.hello = false;
        }
    }

    fn recv_into(&mut self, conn: ConnId, buf: AlignedBuf, filled: usize, end: usize) {
        assert!(
            filled <= end && end <= buf.len(),
            "a bulk receive of {filled}..{end} into {} bytes",
            buf.len()
        );
        let receiving = self.me().receiving;
        if let Some(open) = self.open_conn(conn) {
            assert!(receiving == Some(conn), "recv_into outside of on_recv and on_bulk of {conn:?}");
            assert!(open.bulk.is_none(), "a second recv_into before the first completed");
            open.bulk = Some(Bulk { buf, filled, end });
        }
    }

    fn pause(&mut self, conn: ConnId) {
        let ahead = self.core.flip();
        let receiving = self.me().receiving == Some(conn);
        if let Some(conn) = self.open_conn(conn) {
            conn.receiving =
                if ahead && !(conn.hello && receiving) { Receiving::Ahead } else { Receiving::Off };
        }
    }

    fn resume(&mut self, conn: ConnId) {
        if let Some(open) = self.open_conn(conn) {
            open.receiving = Receiving::On;
            self.me().readable(conn);
            self.core.wake(self.node, self.shard);
        }
    }

    fn close(&mut self, conn: ConnId, how: Close) {
        if self.is_dead() {
            return;
        }
        let Some(open) = self.me().conns.get_mut(&conn) else { return };
        if open.connecting.is_some() {
            return self.core.fail_connect(self.node, self.shard, conn, ConnectFailure::Closed);
        }
        let socket = open.socket;
        match (open.closing, how) {
            (None, Close::AfterSends) => {
                open.closing = Some(how);
                open.bulk = None;
                self.core.network.borrow_mut().finish(socket);
                self.core.start_flush_timeout(self.node, self.shard, conn);
                if self.core.network.borrow().queued_bytes(socket) > 0 {
                    return;
                }
            }
            // A close after sends that takes too long can still be ended.
            (None | Some(Close::AfterSends), Close::Now) => {
                open.closing = Some(how);
                open.bulk = None;
                self.core.network.borrow_mut().abandon(socket, false);
            }
            (Some(_), _) => return,
        }
        self.me().inbox.push(Source::Conn(conn), Event::Closed(conn, CloseReason::Local));
        self.core.wake(self.node, self.shard);
    }

    fn stop_accepting(&mut self) {
        self.me().accepting = false;
    }
}

impl<M> Disk for SimPlane<'_, M> {
    fn write(&mut self, file: FileId, at: u64, data: Bytes, durability: Durability, token: Token) {
        if !self.is_dead() {
            self.count_disk(data.len());
            self.core.trace.add_bytes("write", at, &data);
            self.disk().submit_write(self.shard, file, at, &data, durability, token);
        }
    }

    fn read(&mut self, file: FileId, at: u64, buf: AlignedBuf, token: Token) {
        if !self.is_dead() {
            self.count_disk(buf.len());
            let me = self.me();
            me.reads_inflight.insert(token, buf.len());
            let bytes = me.reads_inflight.values().sum();
            me.work.disk_read_bytes_inflight = me.work.disk_read_bytes_inflight.max(bytes);
            self.disk().submit_read(self.shard, file, at, buf, token);
        }
    }

    fn sync(&mut self, file: FileId, token: Token) {
        if !self.is_dead() {
            self.count_disk(0);
            self.disk().submit_sync(self.shard, file, token);
        }
    }

    fn file_job(&mut self, job: FileJob, token: Token) {
        if !self.is_dead() {
            self.disk().submit_job(self.shard, job, token);
        }
    }
}

impl<M> Plane<M> for SimPlane<'_, M> {
    fn shard(&self) -> ShardIndex {
        self.shard
    }

    fn shards(&self) -> u16 {
        self.core.nodes[self.node.0].shards.len() as u16
    }

    fn now(&self) -> Instant {
        let node = &self.core.nodes[self.node.0];
        Instant(node.shards[usize::from(self.shard)].now.0 - node.started.0)
    }

    fn longest_turn(&self) -> Duration {
        Duration::ZERO
    }

    fn wall_clock_ms(&self) -> i64 {
        let now = self.core.clock.now().since(Instant(0));
        self.core.nodes[self.node.0].wall_clock_ms + now.as_millis() as i64
    }

    fn random_u64(&mut self) -> u64 {
        rand::Rng::next_u64(&mut self.me().rng)
    }

    fn post(&mut self, to: ShardIndex, message: M) {
        self.me().work.messages += 1;
        self.core.post(self.node, self.shard, to, MeshItem::Message(message));
    }

    fn backlog(&self) -> usize {
        self.core.backlog(self.node, self.shard)
    }

    fn set_timer(&mut self, at: Instant, token: Token) {
        let late = draw(&self.core.schedule.timer_late.clone(), &mut self.core.schedule_rng);
        let started = self.node().started;
        let shard = self.me();
        let at = Instant(at.0.saturating_add(started.0));
        let number = shard.next_timer;
        shard.next_timer += 1;
        shard.timers.insert((at, number), (token, at.max(shard.now).after(late)));
    }

    fn migrate(&mut self, conn: ConnId, to: ShardIndex, payload: M, unread: Bytes) {
        let receiving = self.me().receiving;
        let Some(open) = self.open_conn(conn) else { return };
        assert!(open.hello, "{conn:?} migrates after hello mode");
        assert!(receiving == Some(conn), "{conn:?} migrates outside of its on_recv");
        let conn = self.me().remove_conn(conn).expect("it is open");
        self.node().sockets.remove(&conn.socket);
        let Conn { socket, listener, endpoints, .. } = conn;
        let (link, listener) = (socket.link, listener.expect("an outgoing connection has no hello mode"));
        let migrant = Box::new(Migrant { link, listener, endpoints, payload, unread });
        let shard = self.shard;
        self.node().moving.insert(link, (shard, to, migrant));
        self.core.move_if_sent(self.node, link);
    }

    fn exit(&mut self) {
        self.me().life = Life::Exiting;
    }

    fn fatal(&mut self, exit_code: u8, why: String) {
        let node = self.node();
        if node.end.is_none() {
            node.end = Some(NodeEnd::Fatal(exit_code, why));
        }
    }
}

impl<M> Fs for SimPlane<'_, M> {
    fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        self.disk().create_dir_all(path)
    }

    fn list(&mut self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk().list(dir)
    }

    fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<FileId> {
        self.disk().open(path, mode)
    }

    fn file_bytes(&mut self, file: FileId) -> io::Result<u64> {
        self.disk().file_bytes(file)
    }

    fn allocated_bytes(&mut self, file: FileId) -> io::Result<u64> {
        self.disk().allocated_bytes(file)
    }

    fn read_at(&mut self, file: FileId, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.disk().read_at(file, at, buf)
    }

    fn write_at(&mut self, file: FileId, at: u64, data: &[u8]) -> io::Result<()> {
        self.disk().write_at(file, at, data)
    }

    fn sync_file(&mut self, file: FileId) -> io::Result<()> {
        self.disk().sync_file(file)
    }

    fn close_file(&mut self, file: FileId) {
        self.disk().close_file(file);
    }

    fn create_file(&mut self, path: &Path, bytes: u64) -> io::Result<FileId> {
        self.disk().create_file(path, bytes)
    }

    fn replace_file(&mut self, path: &Path, content: &[u8], bytes: u64) -> io::Result<FileId> {
        self.disk().replace_file(path, content, bytes)
    }

    fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.disk().remove_file(path)
    }

    fn free_bytes(&mut self, dir: &Path) -> io::Result<u64> {
        self.disk().free_bytes(dir)
    }

    fn total_bytes(&mut self, dir: &Path) -> io::Result<u64> {
        self.disk().total_bytes(dir)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk().rename(from, to)
    }
}
