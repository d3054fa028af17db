//! What a test can do to the network of a world. [`super::paths`] says how TCP reacts.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::network::NetworkConfig;
use super::node::SimNode;
use super::paths::{Block, Paths};
use super::world::SimWorld;
use crate::plane::ShardApp;

impl<A: ShardApp> SimWorld<A> {
    /// Changes the parameters of the network.
    pub fn set_network(&mut self, config: NetworkConfig) {
        self.core.network.borrow_mut().set_config(config);
    }

    /// Sets the delay of segments that one node sends to another; `None` for that of the network.
    pub fn set_path_delay(&mut self, from: SimNode, to: SimNode, delay: Option<RangeInclusive<Duration>>) {
        self.core.network.borrow_mut().set_path_delay(from, to, delay);
    }

    /// Clogs the path from one node to another: nothing that is sent arrives until [`unblock`](SimWorld::unblock). Connections hang but
    /// do not end.
    pub fn clog(&mut self, from: SimNode, to: SimNode) {
        self.change_paths(|paths| paths.set_block(from, to, Some(Block::Clogged)));
    }

    /// Cuts the path from one node to another, and not the way back. What is sent waits, and the connections end with an error if the
    /// cut lasts longer than [`NetworkConfig::give_up`].
    pub fn cut_path(&mut self, from: SimNode, to: SimNode) {
        self.change_paths(|paths| paths.set_block(from, to, Some(Block::Cut)));
    }

    /// Cuts the paths between two nodes in both directions.
    pub fn cut(&mut self, one: SimNode, other: SimNode) {
        self.cut_path(one, other);
        self.cut_path(other, one);
    }

    /// Ends a [`clog`](SimWorld::clog) or [`cut_path`](SimWorld::cut_path).
    pub fn unblock(&mut self, from: SimNode, to: SimNode) {
        self.change_paths(|paths| paths.set_block(from, to, None));
    }

    /// Blocks all traffic to and from a node, clients included, until [`rejoin`](SimWorld::rejoin). Connections of clients hang but do not
    /// end; those with other nodes end as after a [`cut`](SimWorld::cut).
    pub fn isolate(&mut self, node: SimNode) {
        self.change_paths(|paths| paths.set_isolated(node, true));
    }

    /// Ends an [`isolate`](SimWorld::isolate).
    pub fn rejoin(&mut self, node: SimNode) {
        self.change_paths(|paths| paths.set_isolated(node, false));
    }

    /// Unblocks all paths and ends every isolation. Delays stay.
    pub fn heal_network(&mut self) {
        self.change_paths(Paths::heal);
    }

    /// Resets all connections between two nodes, on both sides.
    pub fn reset_connections(&mut self, one: SimNode, other: SimNode) {
        self.core.network.borrow_mut().break_connections(one, other);
    }

    fn change_paths(&mut self, change: impl FnOnce(&mut Paths)) {
        self.core.network.borrow_mut().change_paths(change);
    }
}
