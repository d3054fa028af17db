//! An extent in memory, and frames to put into it.

use std::collections::BTreeSet;
use std::io;

use highwater_protocol::frame::{FRAME_MAGIC, FRAME_VERSION, FrameHeader, FrameKind, frame_bytes};
use highwater_protocol::ids::{ExtentSequence, Incarnation, LogIndex, Offset};
use zerocopy::IntoBytes;
use zerocopy::byteorder::little_endian::{I32, I64, U16, U32, U64};

use super::super::{Expectation, ExtentBytes, Scanned, scan};
use crate::mac::{ExtentMacs, MacKey, StoreMacs};
use crate::position::Mark;

pub(super) const START: u32 = 4096;
pub(super) const TAG: u32 = 0x1234_5678;
pub(super) const INCARNATION: u64 = 40;

pub(super) struct Extent {
    pub(super) bytes: Vec<u8>,
    /// Where the next frame goes.
    pub(super) at: usize,
    pub(super) index: u64,
    pub(super) offset: i64,
    pub(super) epoch: i32,
    pub(super) incarnation: u64,
    pub(super) tag: u32,
    pub(super) unreadable: BTreeSet<u32>,
    pub(super) macs: Option<ExtentMacs>,
    /// Where each frame begins.
    pub(super) starts: Vec<usize>,
}

impl Extent {
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            bytes: vec![0; bytes],
            at: START as usize,
            index: 100,
            offset: 1000,
            epoch: 1,
            incarnation: INCARNATION,
            tag: TAG,
            unreadable: BTreeSet::new(),
            macs: StoreMacs { key: MacKey([3; 16]), since: Incarnation(1) }.of(Incarnation(INCARNATION)),
            starts: Vec::new(),
        }
    }

    /// Appends a batch of `records` records in `payload_bytes` bytes, made when every index below `durable_index` was durable.
    pub(super) fn batch(&mut self, payload_bytes: usize, records: u32, durable_index: u64) {
        let mut batch: Vec<u8> =
            (0..payload_bytes).map(|i| (i * 13 + self.index as usize) as u8 | 1).collect();
        batch[..8].copy_from_slice(&self.offset.to_be_bytes());
        batch[8..12].copy_from_slice(&(payload_bytes as u32 - 12).to_be_bytes());
        batch[12..16].copy_from_slice(&self.epoch.to_be_bytes());
        batch[16] = 2;
        batch[23..27].copy_from_slice(&(records - 1).to_be_bytes());
        let crc = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        self.frame(FrameKind::Batch, &batch, crc, records - 1, durable_index);
        self.index += 1;
        self.offset += i64::from(records);
    }

    pub(super) fn epoch_start(&mut self, durable_index: u64) {
        self.epoch += 1;
        self.frame(FrameKind::EpochStart, b"epoch", crc32c::crc32c(b"epoch"), 0, durable_index);
        self.index += 1;
    }

    /// Padding up to the next page that leaves room for its header.
    pub(super) fn padding(&mut self, durable_index: u64) {
        let behind = (self.at + 64).next_multiple_of(4096);
        let zeros = vec![0; behind - self.at - 64];
        self.frame(FrameKind::Padding, &zeros, crc32c::crc32c(&zeros), 0, durable_index);
    }

    fn frame(&mut self, kind: FrameKind, payload: &[u8], payload_crc: u32, delta: u32, durable_index: u64) {
        let header = FrameHeader {
            header_crc: U32::ZERO,
            magic: U16::new(FRAME_MAGIC),
            version: FRAME_VERSION,
            kind: kind as u8,
            payload_bytes: U32::new(payload.len() as u32),
            payload_crc: U32::new(payload_crc),
            incarnation: U64::new(self.incarnation),
            index: U64::new(self.index),
            mac: U64::new(self.macs.map_or(0, |macs| macs.at(self.at as u32))),
            base_offset: I64::new(self.offset),
            last_offset_delta: U32::new(delta),
            leader_epoch: I32::new(self.epoch),
            partition_tag: U32::new(self.tag),
            undurable: U16::new(u16::try_from(self.index - durable_index).expect("a test's log is short")),
            uncommitted: U16::new(u16::try_from(self.index - durable_index).expect("a test's log is short")),
        }
        .sealed();
        let whole = frame_bytes(payload.len());
        self.bytes[self.at..self.at + whole].fill(0);
        self.bytes[self.at..self.at + 64].copy_from_slice(header.as_bytes());
        self.bytes[self.at + 64..self.at + 64 + payload.len()].copy_from_slice(payload);
        self.starts.push(self.at);
        self.at += whole;
    }

    pub(super) fn mark(position: usize, index: u64, offset: i64) -> Mark {
        Mark {
            sequence: ExtentSequence(7),
            incarnation: Incarnation(INCARNATION),
            position: position as u32,
            index: LogIndex(index),
            offset: Offset(offset),
        }
    }

    pub(super) fn end(&self) -> Mark {
        Self::mark(self.at, self.index, self.offset)
    }

    pub(super) fn expect(&self) -> Expectation {
        Expectation {
            start: Self::mark(START as usize, 100, 1000),
            epoch: None,
            has_gaps: false,
            tag: TAG,
            macs: self.macs,
            extent_bytes: self.bytes.len() as u32,
            sealed_at: None,
            durable_hint: LogIndex(0),
            unacked_bytes_max: 64 << 10,
            write_bound: u32::MAX,
        }
    }

    pub(super) fn scan(&mut self) -> Scanned {
        let expect = self.expect();
        self.scan_with(&expect)
    }

    pub(super) fn scan_with(&mut self, expect: &Expectation) -> Scanned {
        let mut visited = 0;
        let mut last = 0;
        let scanned = scan(expect, self, &mut |position, _frame| {
            assert!(position > last);
            last = position;
            visited += 1;
        });
        assert_eq!(visited, scanned.frames);
        scanned
    }
}

impl ExtentBytes for Extent {
    fn read_at(&mut self, at: u32, buf: &mut [u8]) -> io::Result<usize> {
        assert!(at.is_multiple_of(4096) && buf.len().is_multiple_of(4096));
        if self.unreadable.iter().any(|page| (at..at + buf.len() as u32).contains(page)) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let rest = self.bytes.get(at as usize..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }
}
