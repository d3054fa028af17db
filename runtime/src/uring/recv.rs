//! Receiving: which operation is in flight, and what its completions deliver.
//!
//! Small messages arrive through a multishot receive into provided buffers, many per completion. A bulk arrives through single
//! receives directly into its own pages. What the multishot receive still delivers before its cancellation takes effect belongs to
//! the bulk and is copied there first, so bytes stay in order.

use std::os::fd::AsRawFd;

use io_uring::squeue::Flags;
use io_uring::{opcode, types};

use super::UringPlane;
use super::conn::{Receiving, Step, Wanted};
use super::net::{conn_id, is_transient};
use super::recv_buffers::{RECV_GROUP, RecvBuffers};
use super::ring::Cqe;
use super::token::Op;
use crate::plane::ShardApp;
use crate::slab::Key;

impl<M: Send + 'static> UringPlane<M> {
    /// Updates the connection's receive at the end of the turn, when the application has made all its calls.
    pub(super) fn queue_receive(&mut self, key: Key) {
        self.to_receive.push(key);
    }

    pub(super) fn start_receives(&mut self) {
        let mut listed = std::mem::take(&mut self.to_receive);
        for key in listed.drain(..) {
            match self.conns.get(key).map_or(Step::Wait, super::conn::Conn::step) {
                Step::Wait => {}
                Step::Cancel => self.cancel_receive(key),
                Step::Start(wanted) => self.start_receive(key, wanted),
            }
        }
        self.to_receive = listed;
    }

    fn start_receive(&mut self, key: Key, wanted: Wanted) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let fd = types::Fd(conn.socket.as_raw_fd());
        let (entry, receiving) = match wanted {
            Wanted::Nothing => return,
            Wanted::Once { bytes_max } => {
                let once = opcode::Recv::new(fd, std::ptr::null_mut(), bytes_max).buf_group(RECV_GROUP);
                (once.build().flags(Flags::BUFFER_SELECT), Receiving::Once)
            }
            Wanted::Ahead => (opcode::RecvMulti::new(fd, RECV_GROUP).build(), Receiving::Ahead),
            Wanted::Bulk => {
                let Some(bulk) = &mut conn.bulk else { return };
                let into = &mut bulk.buf[bulk.filled..bulk.end];
                let bytes = u32::try_from(into.len()).unwrap_or(u32::MAX);
                // Waiting for all bytes saves a completion per segment.
                let recv = opcode::Recv::new(fd, into.as_mut_ptr(), bytes).flags(libc::MSG_WAITALL);
                (recv.build(), Receiving::Bulk)
            }
        };
        conn.receiving = receiving;
        conn.receive_cancelled = false;
        // SAFETY: provided buffers outlive the ring. A bulk's pages and the socket stay in the connection until the receive has
        // completed: `receiving` keeps the connection in the slab, and nothing takes or accesses the bulk before that.
        unsafe { self.ring.push(entry, Op::Recv(key)) };
    }

    /// Handles a completion of a receive.
    pub(super) fn on_received<A>(&mut self, app: &mut A, buffers: &mut RecvBuffers, key: Key, cqe: Cqe)
    where
        A: ShardApp<Message = M>,
    {
        let mut once = false;
        let mut finished = None;
        if let Some(conn) = self.conns.get_mut(key) {
            once = conn.receiving == Receiving::Once;
            if !cqe.more() {
                conn.receiving = Receiving::Nothing;
            }
        }
        match cqe.outcome() {
            Ok(0) => finished = Some(Ok(())),
            Ok(bytes) => match cqe.buffer() {
                Some(id) => {
                    let data = buffers.take(id, bytes);
                    self.deliver(app, key, data);
                    if once && let Some(conn) = self.conns.get_mut(key) {
                        conn.count_probe(bytes);
                    }
                }
                None => self.on_bulk_received(app, key, bytes),
            },
            // Out of buffers for a moment, cancelled, or interrupted: the next receive continues where this one stopped.
            Err(e) if is_transient(&e) => {}
            Err(e) => finished = Some(Err(e)),
        }
        if let Some(id) = cqe.buffer() {
            if cqe.result <= 0 {
                buffers.take(id, 0);
            }
            buffers.give_back(id);
        }
        match finished {
            None => {}
            Some(Ok(())) => self.on_finished(key),
            Some(Err(e)) => self.on_receive_failed(key, &e),
        }
        self.queue_receive(key);
        self.remove_if_ended(key);
    }

    fn on_bulk_received<A>(&mut self, app: &mut A, key: Key, bytes: usize)
    where
        A: ShardApp<Message = M>,
    {
        if let Some(conn) = self.conns.get_mut(key)
            && let Some(bulk) = &mut conn.bulk
        {
            assert!(
                bytes <= bulk.missing(),
                "the kernel received {bytes} bytes into space for {}",
                bulk.missing()
            );
            bulk.filled += bytes;
            self.deliver_full_bulks(app, key);
        }
    }

    /// Delivers bytes of a connection, first to its bulk if it has one.
    pub(super) fn deliver<A>(&mut self, app: &mut A, key: Key, data: &[u8])
    where
        A: ShardApp<Message = M>,
    {
        let mut rest = data;
        loop {
            self.deliver_full_bulks(app, key);
            let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.is_live()) else { return };
            if rest.is_empty() {
                return;
            }
            if let Some(bulk) = &mut conn.bulk {
                rest = bulk.copy_from(rest);
            } else {
                app.on_recv(self, conn_id(key), rest);
                rest = &[];
            }
        }
    }

    fn deliver_full_bulks<A>(&mut self, app: &mut A, key: Key)
    where
        A: ShardApp<Message = M>,
    {
        while let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.is_live())
            && let Some(buf) = conn.take_full_bulk()
        {
            app.on_bulk(self, conn_id(key), buf);
        }
    }
}
