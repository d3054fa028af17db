//! Connections: sending, closing, and moving to another shard. [`super::connect`] opens them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use bytes::Bytes;
use io_uring::{opcode, types};
use rustix::net::Shutdown;

use super::UringPlane;
use super::conn::{Bulk, Conn, FlushFor, Move, Receiving, Scatter, State};
use super::limits::{FLUSH_TIME_MAX, LINGER_TIME_MAX};
use super::mesh::{Envelope, Moved};
use super::ring::Cqe;
use super::token::Op;
use super::turn::Due;
use crate::buf::AlignedBuf;
use crate::plane::{Close, CloseReason, ConnId, ConnectFailure, Net, ShardIndex, Token};
use crate::slab::Key;

pub(super) fn conn_id(key: Key) -> ConnId {
    ConnId(u64::from(key.generation) << 32 | u64::from(key.index))
}

pub(super) fn conn_key(conn: ConnId) -> Key {
    Key { index: conn.0 as u32, generation: (conn.0 >> 32) as u32 }
}

impl<M: Send + 'static> UringPlane<M> {
    pub(super) fn queue_send(&mut self, key: Key) {
        if let Some(conn) = self.conns.get_mut(key)
            && !conn.listed
            && !conn.sending
        {
            conn.listed = true;
            self.to_send.push(key);
        }
    }

    /// Returns the bytes that the next sends have.
    pub(super) fn bytes_to_send(&self) -> usize {
        let idle = self.to_send.iter().filter_map(|key| self.conns.get(*key)).filter(|conn| !conn.sending);
        idle.map(|conn| conn.out.bytes()).sum()
    }

    /// Starts a send for every connection with queued data, so that everything queued during a turn is sent together.
    pub(super) fn start_sends(&mut self) {
        let mut listed = std::mem::take(&mut self.to_send);
        for key in listed.drain(..) {
            let Some(conn) = self.conns.get_mut(key) else { continue };
            conn.listed = false;
            if !conn.sending && !conn.out.is_empty() {
                self.start_send(key);
            }
        }
        self.to_send = listed;
    }

    fn start_send(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let fd = types::Fd(conn.socket.as_raw_fd());
        conn.sending = true;
        let scatter = conn.scatter.get_or_insert_with(|| {
            // SAFETY: an all-zero msghdr is valid: null pointers and zero lengths.
            Box::new(Scatter { chunks: Vec::new(), header: unsafe { std::mem::zeroed() } })
        });
        scatter.chunks.clear();
        conn.out.start_send(|chunk| {
            scatter
                .chunks
                .push(libc::iovec { iov_base: chunk.as_ptr().cast_mut().cast(), iov_len: chunk.len() });
        });
        let entry = if let [chunk] = scatter.chunks[..] {
            let bytes = u32::try_from(chunk.iov_len).unwrap_or(u32::MAX);
            opcode::Send::new(fd, chunk.iov_base.cast(), bytes).flags(libc::MSG_NOSIGNAL).build()
        } else {
            scatter.header.msg_iov = scatter.chunks.as_mut_ptr();
            scatter.header.msg_iovlen = scatter.chunks.len();
            opcode::SendMsg::new(fd, &raw const scatter.header).flags(libc::MSG_NOSIGNAL as u32).build()
        };
        // SAFETY: the chunks stay in place in `out`, and the scatter list and the socket in the connection, until this send has
        // completed: `sending` keeps the connection in the slab, and `out` does not change chunks in flight.
        unsafe { self.ring.push(entry, Op::Send(key)) };
    }

    /// Handles the completion of a send. Returns the bytes to report to the application.
    pub(super) fn on_sent(&mut self, key: Key, cqe: Cqe) -> Option<usize> {
        let conn = self.conns.get_mut(key)?;
        conn.sending = false;
        let reported = match cqe.outcome() {
            Ok(sent) => {
                conn.out.advance(sent);
                (conn.is_live() && sent > 0).then_some(sent)
            }
            Err(e) => {
                conn.out.advance(0);
                if !is_transient(&e) {
                    self.on_send_failed(key, &e);
                }
                None
            }
        };
        self.after_send(key);
        reported
    }

    fn after_send(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if !conn.out.is_empty() {
            if !matches!(conn.state, State::Dead) {
                self.queue_send(key);
            }
        } else if !conn.sending {
            match conn.state {
                State::Flushing(FlushFor::Peer) => self.end_conn(key, CloseReason::Peer),
                State::Flushing(FlushFor::Local) => self.linger(key),
                State::Moving(_) => self.move_if_quiet(key),
                State::Connecting | State::Open | State::Lingering | State::Dead => {}
            }
        }
        self.remove_if_ended(key);
    }

    /// Handles a failed send. Data received before it is still delivered if a receive is in flight.
    fn on_send_failed(&mut self, key: Key, e: &io::Error) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.out.clear();
        match conn.state {
            State::Open if conn.receiving != Receiving::Nothing => conn.broken = Some(e.to_string()),
            State::Open => self.end_conn(key, CloseReason::Error(e.to_string())),
            State::Flushing(FlushFor::Peer) => self.end_conn(key, CloseReason::Peer),
            State::Flushing(FlushFor::Local) => self.end_conn(key, CloseReason::Local),
            State::Connecting | State::Lingering | State::Dead | State::Moving(_) => {}
        }
    }

    /// Handles the peer's last byte. The peer may still read.
    pub(super) fn on_finished(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.finished = true;
        conn.bulk = None;
        match conn.state {
            State::Open => match conn.broken.take() {
                Some(why) => self.end_conn(key, CloseReason::Error(why)),
                None if conn.out.is_empty() && !conn.sending => self.end_conn(key, CloseReason::Peer),
                None => {
                    conn.state = State::Flushing(FlushFor::Peer);
                    self.timers.set(self.now.after(FLUSH_TIME_MAX), Due::CloseTimeout(key));
                }
            },
            State::Lingering => self.end_conn_silently(key),
            State::Connecting | State::Flushing(_) | State::Dead | State::Moving(_) => {}
        }
    }

    /// Handles a failed receive.
    pub(super) fn on_receive_failed(&mut self, key: Key, e: &io::Error) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.bulk = None;
        match conn.state {
            State::Open => {
                let why = conn.broken.take().unwrap_or_else(|| e.to_string());
                self.end_conn(key, CloseReason::Error(why));
            }
            State::Flushing(FlushFor::Peer) => self.end_conn(key, CloseReason::Peer),
            State::Flushing(FlushFor::Local) => self.end_conn(key, CloseReason::Local),
            State::Lingering => self.end_conn_silently(key),
            State::Connecting | State::Dead | State::Moving(_) => conn.finished = true,
        }
    }

    /// Handles the timeout of a connection that is flushing or lingering.
    pub(super) fn on_close_timeout(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        match conn.state {
            State::Flushing(FlushFor::Peer) => self.end_conn(key, CloseReason::Peer),
            State::Flushing(FlushFor::Local) => self.end_conn(key, CloseReason::Local),
            State::Lingering => self.end_conn_silently(key),
            State::Connecting | State::Open | State::Dead | State::Moving(_) => {}
        }
    }

    fn linger(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        // This fails if the connection broke in the meantime, which its receive will report.
        let _ = rustix::net::shutdown(&conn.socket, Shutdown::Write);
        self.closed.push_back((conn_id(key), CloseReason::Local));
        if conn.finished {
            self.end_conn_silently(key);
        } else {
            conn.state = State::Lingering;
            self.timers.set(self.now.after(LINGER_TIME_MAX), Due::CloseTimeout(key));
            self.queue_receive(key);
        }
    }

    fn end_conn(&mut self, key: Key, reason: CloseReason) {
        self.closed.push_back((conn_id(key), reason));
        self.end_conn_silently(key);
    }

    fn end_conn_silently(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.state = State::Dead;
        conn.bulk = conn.bulk.take().filter(|_| conn.receiving == Receiving::Bulk);
        conn.out.clear();
        if !conn.is_quiet() {
            // This ends waiting receives and sends. If it fails, they have already ended, and the cancellations take care of the
            // rest.
            let _ = rustix::net::shutdown(&conn.socket, Shutdown::Both);
        }
        if conn.sending {
            self.cancel(Op::Send(key));
        }
        self.cancel_receive(key);
        self.remove_if_ended(key);
    }

    pub(super) fn cancel_receive(&mut self, key: Key) {
        if let Some(conn) = self.conns.get_mut(key)
            && conn.receiving != Receiving::Nothing
            && !conn.receive_cancelled
        {
            conn.receive_cancelled = true;
            self.cancel(Op::Recv(key));
        }
    }

    pub(super) fn cancel(&mut self, op: Op) {
        let entry = opcode::AsyncCancel::new(op.pack()).build();
        // SAFETY: the entry refers to no memory.
        unsafe { self.ring.push(entry, Op::Ignored) };
    }

    pub(super) fn remove_if_ended(&mut self, key: Key) {
        if let Some(conn) = self.conns.get(key)
            && matches!(conn.state, State::Dead)
            && conn.is_quiet()
        {
            let is_outgoing = conn.listener.is_none();
            self.outgoing -= usize::from(is_outgoing);
            self.conns.remove(key);
        }
    }

    /// Moves a connection to its new shard if no operation is in flight.
    fn move_if_quiet(&mut self, key: Key) {
        if !self.conns.get(key).is_some_and(Conn::is_quiet) {
            return;
        }
        let Some(conn) = self.conns.remove(key) else { return };
        let State::Moving(moving) = conn.state else { return };
        let Move { to, payload, unread } = *moving;
        let Conn { socket, listener, endpoints, .. } = conn;
        let listener = listener.expect("an outgoing connection has no hello mode");
        self.post_envelope(
            to,
            Envelope::Connection(Box::new(Moved { socket, listener, endpoints, payload, unread })),
        );
    }

    /// Adds a connection that arrived from another shard.
    pub(super) fn adopt_moved(&mut self, moved: Moved<M>) -> (Key, M, Bytes) {
        let key = self.conns.insert(Conn::accepted(moved.socket, moved.listener, moved.endpoints));
        (key, moved.payload, moved.unread)
    }

    fn live(&mut self, id: ConnId) -> Option<&mut Conn<M>> {
        let conn = self.conns.get_mut(conn_key(id))?;
        assert!(!matches!(conn.state, State::Connecting), "{id:?} is not connected yet");
        Some(conn).filter(|conn| conn.is_live())
    }

    pub(super) fn migrate_conn(&mut self, id: ConnId, to: ShardIndex, payload: M, unread: Bytes) {
        let key = conn_key(id);
        let Some(conn) = self.live(id) else { return };
        assert!(
            conn.hello && conn.receiving == Receiving::Nothing,
            "only a connection in hello mode can move"
        );
        conn.state = State::Moving(Box::new(Move { to, payload, unread }));
        if conn.out.is_empty() {
            self.move_if_quiet(key);
        }
    }
}

impl<M: Send + 'static> Net for UringPlane<M> {
    fn connect(&mut self, to: SocketAddr, within: Duration, token: Token) -> ConnId {
        self.start_connect(to, within, token)
    }

    fn send(&mut self, conn: ConnId, data: Bytes) {
        let Some(c) = self.live(conn) else { return };
        if c.broken.is_none() {
            c.out.push(data);
            self.queue_send(conn_key(conn));
        }
    }

    fn local_addr(&self, conn: ConnId) -> Option<SocketAddr> {
        self.conns.get(conn_key(conn)).filter(|c| c.is_live()).map(|c| c.endpoints.local)
    }

    fn send_queue_bytes(&self, conn: ConnId) -> usize {
        self.conns.get(conn_key(conn)).map_or(0, |c| c.out.bytes())
    }

    fn stream(&mut self, conn: ConnId) {
        if let Some(c) = self.live(conn) {
            c.hello = false;
            self.queue_receive(conn_key(conn));
        }
    }

    fn recv_into(&mut self, conn: ConnId, buf: AlignedBuf, filled: usize, end: usize) {
        assert!(
            filled <= end && end <= buf.len(),
            "a bulk receive of {filled}..{end} into {} bytes",
            buf.len()
        );
        if let Some(c) = self.live(conn) {
            assert!(c.bulk.is_none(), "a second recv_into before the first completed");
            c.bulk = Some(Bulk { buf, filled, end });
            self.queue_receive(conn_key(conn));
        }
    }

    fn pause(&mut self, conn: ConnId) {
        if let Some(c) = self.live(conn) {
            c.paused = true;
            self.queue_receive(conn_key(conn));
        }
    }

    fn resume(&mut self, conn: ConnId) {
        if let Some(c) = self.live(conn) {
            c.paused = false;
            self.queue_receive(conn_key(conn));
        }
    }

    fn close(&mut self, conn: ConnId, how: Close) {
        let key = conn_key(conn);
        if self.conns.get(key).is_some_and(|c| matches!(c.state, State::Connecting)) {
            return self.fail_connect(key, ConnectFailure::Closed);
        }
        if how == Close::Now
            && let Some(c) = self.conns.get(key)
            && matches!(c.state, State::Flushing(FlushFor::Local))
        {
            // A close after sends that takes too long.
            return self.end_conn(key, CloseReason::Local);
        }
        let Some(c) = self.live(conn) else { return };
        if how == Close::Now || c.broken.is_some() {
            self.end_conn(key, CloseReason::Local);
            return;
        }
        c.state = State::Flushing(FlushFor::Local);
        c.paused = false;
        if c.out.is_empty() && !c.sending {
            self.linger(key);
        } else {
            self.timers.set(self.now.after(FLUSH_TIME_MAX), Due::CloseTimeout(key));
            self.queue_receive(key);
        }
    }

    fn stop_accepting(&mut self) {
        self.close_listeners();
    }
}

/// Returns whether an operation can simply be retried after this error.
pub(super) fn is_transient(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(libc::EINTR | libc::EAGAIN | libc::ENOBUFS | libc::ECANCELED | libc::ENOMEM)
    )
}
