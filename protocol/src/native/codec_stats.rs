//! Bodies of the messages about a broker itself: its statistics and its space.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use bytes::BufMut;

use super::codec::{Body, put_count, put_str};
use super::header::MessageKind;
use super::messages::{ReleaseSpaceRequest, ShardStats, StatsReply};
use super::reader::{DecodeError, Reader};
use crate::ids::ShardId;
use crate::limits::{COUNTER_NAME_BYTES_MAX, COUNTERS_MAX};

/// Minimum bytes of a shard without counters, and of a counter without a name.
const SHARD_BYTES_MIN: usize = 6;
const COUNTER_BYTES_MIN: usize = 12;

impl Body for ReleaseSpaceRequest {
    const KIND: MessageKind = MessageKind::ReleaseSpace;

    fn encode(&self, out: &mut impl BufMut) {
        out.put_u64_le(self.kept_bytes);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { kept_bytes: reader.u64("kept bytes")? })
    }
}

impl Body for StatsReply {
    const KIND: MessageKind = MessageKind::Stats;

    fn encode(&self, out: &mut impl BufMut) {
        put_count(out, self.shards.len());
        for ShardStats { shard, counters } in &self.shards {
            out.put_u16_le(shard.0);
            put_count(out, counters.len());
            for (name, value) in counters {
                put_str(out, name);
                out.put_u64_le(*value);
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let shards = reader.list("shards", SHARD_BYTES_MIN, usize::from(u16::MAX), |r| {
            Ok(ShardStats {
                shard: ShardId(r.u16("shard")?),
                counters: r.list("counters", COUNTER_BYTES_MIN, COUNTERS_MAX, |r| {
                    Ok((r.string("counter name", COUNTER_NAME_BYTES_MAX)?, r.u64("counter")?))
                })?,
            })
        })?;
        Ok(Self { shards })
    }
}
