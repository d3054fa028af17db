//! Partitions, messages and frames, made up.

use bytes::Bytes;
use highwater_protocol::frame::{
    FRAME_HEADER_BYTES, FRAME_MAGIC, FRAME_VERSION, FrameHeader, FrameKind, frame_bytes,
};
use highwater_protocol::ids::{
    ClusterId, LeaderEpoch, LogIndex, NodeId, Offset, PartitionIndex, ShardId, TopicId, TopicPartition,
};
use highwater_replication::peer::{Channel, LeaderNews, LeaderStatement, Local, PeerShard};
use highwater_replication::raft::{
    Append, Config, ConfigEntry, Envelope, LogEnd, Member, Message, Part, ReplicaId, Run,
};
use highwater_runtime::sim::SimRng;
use rand::RngExt as _;
use zerocopy::FromZeros as _;
use zerocopy::IntoBytes as _;
use zerocopy::byteorder::little_endian::{I32, U16, U32, U64};

pub(crate) const CLUSTER: ClusterId = ClusterId([7; 16]);

pub(crate) fn shard(node: u32, shard: u16) -> PeerShard {
    PeerShard { node: NodeId(node), shard: ShardId(shard) }
}

pub(crate) fn local(node: u32, process: u64) -> Local {
    Local { cluster: CLUSTER, me: shard(node, 0), incarnation: node + 100, shards: 2, process }
}

pub(crate) fn partition(number: u32) -> TopicPartition {
    TopicPartition { topic: TopicId([3; 16]), partition: PartitionIndex(number) }
}

pub(crate) fn replica(node: u32, incarnation: u32) -> ReplicaId {
    ReplicaId { node: NodeId(node), incarnation }
}

/// A frame with this payload. Channels look at its header only.
pub(crate) fn frame(index: u64, epoch: i32, payload: &[u8]) -> Bytes {
    let mut header = FrameHeader::new_zeroed();
    header.magic = U16::new(FRAME_MAGIC);
    header.version = FRAME_VERSION;
    header.kind = if payload.is_empty() { FrameKind::EpochStart } else { FrameKind::Batch } as u8;
    header.payload_bytes = U32::new(payload.len() as u32);
    header.index = U64::new(index);
    header.leader_epoch = I32::new(epoch);
    let mut bytes = vec![0; frame_bytes(payload.len())];
    bytes[..FRAME_HEADER_BYTES].copy_from_slice(header.sealed().as_bytes());
    bytes[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + payload.len()].copy_from_slice(payload);
    bytes.into()
}

pub(crate) fn append(term: i32, from: u64, end: u64) -> Message {
    let (term, from, end) = (LeaderEpoch(term), LogIndex(from), LogIndex(end));
    let runs = vec![Run { start: from, epoch: term }];
    Message::Append(Append { term, from, prev_epoch: Some(term), end, runs, commit_end: from })
}

pub(crate) fn appended(term: i32, end: u64) -> Message {
    Message::Appended { term: LeaderEpoch(term), durable_end: LogIndex(end) }
}

fn epoch(rng: &mut SimRng) -> LeaderEpoch {
    LeaderEpoch(if rng.random_bool(0.95) { rng.random_range(1..5) } else { rng.random() })
}

fn index(rng: &mut SimRng) -> LogIndex {
    LogIndex(if rng.random_bool(0.95) { rng.random_range(0..1000) } else { rng.random::<u64>() >> 2 })
}

fn log_end(rng: &mut SimRng) -> LogEnd {
    LogEnd { end: index(rng), epoch: epoch(rng) }
}

fn config(rng: &mut SimRng) -> Config {
    let others = [Part::Learner, Part::Voter, Part::Incoming, Part::Outgoing, Part::Demoted];
    let part = |rng: &mut SimRng| others[rng.random_range(0..others.len())];
    let mut members = vec![Member { id: replica(0, rng.random()), part: Part::Voter }];
    for node in 1..rng.random_range(1..6) {
        members.push(Member { id: replica(node, rng.random()), part: part(rng) });
    }
    Config::from_members(members).expect("it has a voter")
}

/// The offset that goes with a message: that of a log that starts anew, at the start's index.
pub(crate) fn start_offset(message: &Message) -> Option<Offset> {
    if let Message::StartAt { start, .. } = message { Some(Offset(start.end.0 as i64)) } else { None }
}

/// Sends a message with what goes with it.
pub(crate) fn send(channel: &mut Channel, number: u32, envelope: Envelope, frames: Vec<Bytes>) -> bool {
    match start_offset(&envelope.message) {
        Some(offset) => channel.send_start(partition(number), &envelope, offset),
        None => channel.send(partition(number), envelope, frames),
    }
}

/// Any message but an append.
pub(crate) fn message(rng: &mut SimRng) -> Message {
    let term = epoch(rng);
    match rng.random_range(0..16) {
        0 => Message::PreVote { term, last: log_end(rng) },
        1 => Message::PreVoted { term, asked: epoch(rng), granted: rng.random() },
        2 => Message::Vote { term, last: log_end(rng), transfer: rng.random() },
        3 => Message::Voted { term, granted: rng.random() },
        4 => Message::Rejected { term, hint: log_end(rng) },
        5 => {
            let config = ConfigEntry { index: index(rng), config: config(rng) };
            Message::StartAt { term, start: log_end(rng), config }
        }
        6 => Message::TimeoutNow { term },
        7 => Message::SteppedDown { term },
        8 => Message::LostEnd { term },
        9 => Message::Fetch { term, from: index(rng), until: index(rng) },
        _ => Message::Appended { term, durable_end: index(rng) },
    }
}

/// What a node says about a few partitions.
pub(crate) fn leader_news(rng: &mut SimRng) -> LeaderNews {
    let statements = (0..rng.random_range(0..4)).map(|number| LeaderStatement {
        partition: partition(number),
        epoch: LeaderEpoch(rng.random_range(0..9)),
        leads: rng.random(),
        shard: ShardId(rng.random_range(0..4)),
        in_sync: (0..rng.random_range(0..4)).map(NodeId).collect(),
    });
    let statements = statements.collect();
    LeaderNews { is_complete: rng.random(), statements }
}

/// An append with its frames, small ones and sometimes a large one.
pub(crate) fn append_with_frames(rng: &mut SimRng) -> (Message, Vec<Bytes>) {
    let from = index(rng);
    let mut frames = Vec::new();
    for n in 0..rng.random_range(0..4) {
        let bytes = match rng.random_range(0..60) {
            0 => rng.random_range(60_000..200_000),
            1..10 => 0,
            _ => rng.random_range(1..2000),
        };
        let fill: u8 = rng.random();
        frames.push(frame(from.0 + n, 1, &vec![fill; bytes]));
    }
    let runs = 0..rng.random_range(0..3);
    let runs = runs.map(|n| Run { start: LogIndex(from.0 + n), epoch: epoch(rng) }).collect();
    let append = Append {
        term: epoch(rng),
        from,
        runs,
        prev_epoch: rng.random_bool(0.8).then(|| epoch(rng)),
        end: LogIndex(from.0 + frames.len() as u64),
        commit_end: index(rng),
    };
    (Message::Append(append), frames)
}
