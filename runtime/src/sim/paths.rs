//! Faults of the network between nodes.
//!
//! A *path* leads from one node to another; the way back is a path of its own. It can be slow, clogged or cut, in one direction or both.
//! A node that is isolated is cut off from everybody, clients included. TCP has no loss or duplication within a connection, so:
//!
//! - nothing arrives over a clogged or cut path. What was sent waits, and arrives in order when the path is open again;
//! - acknowledgements travel the other way. So if only the path from A to B is blocked, A still receives what B sends, but only until B's
//!   window is full;
//! - connection requests over a blocked path are repeated until the connect's deadline;
//! - while a path is cut in either direction, each side of a connection gives up after [`NetworkConfig::give_up`](super::NetworkConfig):
//!   the connection ends with an error there, and the other side is reset, when that can reach it. A clogged path ends no connection;
//! - a connection of a node with itself is not affected.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use rand::RngExt as _;

use super::network::{Link, LinkId, Network, NetworkEvent, Side, SideState, Socket, Step};
use super::node::SimNode;
use super::pipe::{Segment, StreamEnd};

/// Why nothing arrives over a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Block {
    /// For a while; connections survive it.
    Clogged,
    /// Connections end if it lasts.
    Cut,
}

#[derive(Default)]
struct Path {
    block: Option<Block>,
    /// Delay of a segment, if it differs from the network's.
    delay: Option<RangeInclusive<Duration>>,
}

/// The paths that are not as usual.
#[derive(Default)]
pub(super) struct Paths {
    paths: BTreeMap<(SimNode, SimNode), Path>,
    isolated: BTreeSet<SimNode>,
}

impl Paths {
    pub(super) fn set_block(&mut self, from: SimNode, to: SimNode, block: Option<Block>) {
        assert!(from != to, "the path from {from:?} to itself cannot be blocked");
        self.paths.entry((from, to)).or_default().block = block;
    }

    pub(super) fn set_isolated(&mut self, node: SimNode, isolated: bool) {
        if isolated {
            self.isolated.insert(node);
        } else {
            self.isolated.remove(&node);
        }
    }

    /// Unblocks everything.
    pub(super) fn heal(&mut self) {
        self.isolated.clear();
        for path in self.paths.values_mut() {
            path.block = None;
        }
    }

    fn ends(link: &Link, from: Side) -> (Option<SimNode>, Option<SimNode>) {
        (link.nodes[from as usize], link.nodes[from.other() as usize])
    }

    fn block(&self, link: &Link, from: Side) -> Option<Block> {
        let (from, to) = Self::ends(link, from);
        if from == to {
            return None;
        }
        if from.into_iter().chain(to).any(|node| self.isolated.contains(&node)) {
            return Some(Block::Cut);
        }
        self.paths.get(&(from?, to?))?.block
    }

    /// Returns whether nothing arrives that this side sends.
    pub(super) fn is_blocked(&self, link: &Link, from: Side) -> bool {
        link.cut || self.block(link, from).is_some()
    }

    /// Returns whether a connection between two nodes ends if this lasts.
    pub(super) fn is_link_cut(&self, link: &Link) -> bool {
        link.is_from_node() && Side::BOTH.iter().any(|from| self.block(link, *from) == Some(Block::Cut))
    }

    /// Returns the delays of segments that this side sends, if they differ from the network's.
    pub(super) fn delay(&self, link: &Link, from: Side) -> Option<RangeInclusive<Duration>> {
        let (from, to) = Self::ends(link, from);
        self.paths.get(&(from?, to?))?.delay.clone()
    }
}

impl Network {
    pub(super) fn set_path_delay(
        &mut self,
        from: SimNode,
        to: SimNode,
        delay: Option<RangeInclusive<Duration>>,
    ) {
        self.paths.paths.entry((from, to)).or_default().delay = delay;
    }

    /// Blocks or unblocks paths. What waited on those that are open again is delivered.
    pub(super) fn change_paths(&mut self, change: impl FnOnce(&mut Paths)) {
        let state = |paths: &Paths, link: &Link| {
            (Side::BOTH.map(|side| paths.is_blocked(link, side)), paths.is_link_cut(link))
        };
        let before: Vec<_> = self.links.iter().map(|(id, link)| (*id, state(&self.paths, link))).collect();
        change(&mut self.paths);
        for (id, (was_blocked, was_cut)) in before {
            let (is_blocked, is_cut) = state(&self.paths, &self.links[&id]);
            for side in Side::BOTH {
                if was_blocked[side as usize] && !is_blocked[side as usize] {
                    self.release(Socket { link: id, side });
                }
            }
            if is_cut && !was_cut {
                self.start_give_up(id);
            } else if was_cut && !is_cut {
                self.end_give_up(id);
            }
        }
    }

    /// Cuts or heals a client's link: while it is cut, nothing arrives.
    pub(super) fn set_cut(&mut self, link: LinkId, cut: bool) {
        let Some(entry) = self.links.get_mut(&link) else { return };
        let was_cut = std::mem::replace(&mut entry.cut, cut);
        for side in Side::BOTH {
            if was_cut && !self.paths.is_blocked(&self.links[&link], side) {
                self.release(Socket { link, side });
            }
        }
    }

    /// Delivers what has waited because nothing that this side sent could arrive.
    fn release(&mut self, from: Socket) {
        let link = &self.links[&from.link];
        let is_from_node = link.is_from_node();
        for _ in 0..link.pipes[from.side as usize].in_transit.len() {
            let due = self.after(&self.delay(from));
            self.steps.push(due, Step::Arrive(from));
        }
        if is_from_node && let Some(pipe) = self.pipe(from.other()) {
            pipe.unacknowledged_bytes = 0;
            self.plan_take(from.other());
        }
    }

    /// Makes both sides give up later, unless the path heals before.
    pub(super) fn start_give_up(&mut self, id: LinkId) {
        self.end_give_up(id);
        let cut_changes = self.links[&id].cut_changes;
        for side in Side::BOTH {
            let due = self.after(&self.config.give_up.clone());
            self.steps.push(due, Step::GiveUp(Socket { link: id, side }, cut_changes));
        }
    }

    fn end_give_up(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.cut_changes += 1;
        }
    }

    /// Ends the connection at this side, if its path has been cut all the time.
    pub(super) fn give_up(&mut self, socket: Socket, cut_changes: u64) -> Option<NetworkEvent> {
        if self.links.get(&socket.link)?.cut_changes != cut_changes {
            return None;
        }
        let event = self.break_side(socket, StreamEnd::TimedOut)?;
        self.transmit(socket, Segment::End(StreamEnd::Reset));
        Some(event)
    }

    /// Ends the connection at this side, without a word to the other.
    pub(super) fn break_side(&mut self, socket: Socket, end: StreamEnd) -> Option<NetworkEvent> {
        let discards = self.rng.random();
        let link = self.links.get_mut(&socket.link)?;
        if link.states[socket.side as usize] == SideState::Closed {
            return None;
        }
        link.states[socket.side as usize] = SideState::Closed;
        let incoming = &mut link.pipes[socket.side.other() as usize];
        if discards {
            incoming.drain();
        }
        incoming.end.get_or_insert(end);
        let outgoing = &mut link.pipes[socket.side as usize];
        outgoing.clear_queue();
        outgoing.in_transit.clear();
        outgoing.fin_sent = true;
        Some(NetworkEvent::Readable(socket))
    }

    /// Resets all connections between two nodes, as something in the network between them may do.
    pub(super) fn break_connections(&mut self, one: SimNode, other: SimNode) {
        let between = |link: &Link| {
            link.is_from_node()
                && [[one, other], [other, one]].iter().any(|nodes| link.nodes == nodes.map(Some))
        };
        let links: Vec<_> = self.links.iter().filter(|(_, link)| between(link)).map(|(id, _)| *id).collect();
        for link in links {
            for side in Side::BOTH {
                self.steps.push(self.clock.now(), Step::Break(Socket { link, side }));
            }
        }
    }
}
