//! Parcels: small ones arrive through `on_recv`, large ones through `recv_into`.
//!
//! ```text
//! parcel  = kind u8, len a u32, len b u32, payload
//! kind 0  : a bytes, received by on_recv
//! kind 1  : a bytes, received into a buffer starting at byte b
//! kind 2  : a bytes into one buffer, then b bytes into another, requested from on_bulk
//! reply   = kind u8, checksum u64     (kind 2: one for each part)
//! ```

use super::app::{Behaviour, Ctx};
use super::checksum;
use crate::buf::AlignedBuf;

/// Fill byte of a buffer outside the range that is received.
const UNTOUCHED: u8 = 0xEE;

const HEADER_BYTES: usize = 9;

#[derive(Default)]
pub(super) struct Parcels {
    header: Vec<u8>,
    payload: Vec<u8>,
    state: State,
}

#[derive(Default, Clone, Copy, Debug)]
enum State {
    #[default]
    Header,
    Small {
        bytes: usize,
    },
    Bulk(Part),
}

/// A bulk in progress.
#[derive(Clone, Copy, Debug)]
struct Part {
    kind: u8,
    bytes: usize,
    offset: usize,
    /// Length of the next part, if there is one.
    then: Option<usize>,
}

impl Parcels {
    fn reply(ctx: &mut Ctx<'_, '_>, kind: u8, payload: &[u8]) {
        let mut reply = vec![kind];
        reply.extend_from_slice(&checksum(payload).to_le_bytes());
        ctx.reply(reply);
    }

    fn begin(&mut self) {
        let number = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|n| self.header[at + n])) as usize;
        let (kind, a, b) = (self.header[0], number(1), number(5));
        self.header.clear();
        self.state = match kind {
            0 => State::Small { bytes: a },
            1 => State::Bulk(Part { kind, bytes: a, offset: b, then: None }),
            2 => State::Bulk(Part { kind, bytes: a, offset: 64, then: Some(b) }),
            _ => panic!("a parcel of kind {kind}"),
        };
    }

    /// Starts a bulk with the bytes that have arrived. A complete bulk is not requested, except that some are requested with no
    /// bytes missing.
    fn bulk_part(&mut self, ctx: &mut Ctx<'_, '_>, part: Part, data: &[u8]) -> usize {
        let mut buf = AlignedBuf::new(part.offset + part.bytes + 100);
        buf.fill(UNTOUCHED);
        let ours = data.len().min(part.bytes);
        let filled = part.offset + ours;
        buf[part.offset..filled].copy_from_slice(&data[..ours]);
        let all_used = ours == data.len();
        if ours < part.bytes || (all_used && part.bytes.is_multiple_of(2)) {
            ctx.plane.recv_into(ctx.conn, buf, filled, part.offset + part.bytes);
        } else {
            self.bulk_done(ctx, part, &buf);
        }
        ours
    }

    fn bulk_done(&mut self, ctx: &mut Ctx<'_, '_>, part: Part, buf: &AlignedBuf) {
        let (from, to) = (part.offset, part.offset + part.bytes);
        assert!(buf[..from].iter().all(|b| *b == UNTOUCHED), "bytes before a bulk were touched");
        assert!(buf[to..].iter().all(|b| *b == UNTOUCHED), "bytes after a bulk were touched");
        Self::reply(ctx, part.kind, &buf[from..to]);
        self.state = match part.then {
            Some(bytes) => State::Bulk(Part { bytes, offset: 0, then: None, ..part }),
            None => State::Header,
        };
    }
}

impl Behaviour for Parcels {
    fn recv(&mut self, ctx: &mut Ctx<'_, '_>, mut data: &[u8]) {
        loop {
            match self.state {
                State::Header => {
                    let missing = (HEADER_BYTES - self.header.len()).min(data.len());
                    self.header.extend_from_slice(&data[..missing]);
                    data = &data[missing..];
                    if self.header.len() < HEADER_BYTES {
                        return;
                    }
                    self.begin();
                }
                State::Small { bytes } => {
                    let missing = (bytes - self.payload.len()).min(data.len());
                    self.payload.extend_from_slice(&data[..missing]);
                    data = &data[missing..];
                    if self.payload.len() < bytes {
                        return;
                    }
                    Self::reply(ctx, 0, &std::mem::take(&mut self.payload));
                    self.state = State::Header;
                }
                State::Bulk(part) => {
                    let used = self.bulk_part(ctx, part, data);
                    data = &data[used..];
                    if data.is_empty() {
                        return;
                    }
                }
            }
        }
    }

    fn bulk(&mut self, ctx: &mut Ctx<'_, '_>, buf: AlignedBuf) {
        let State::Bulk(part) = self.state else { panic!("a bulk in {:?}", self.state) };
        self.bulk_done(ctx, part, &buf);
        if let State::Bulk(next) = self.state {
            self.bulk_part(ctx, next, &[]);
        }
    }
}
