//! Joining a cluster: how a node without one becomes a member, and how the first node founds one.
//!
//! Every cluster begins as a cluster of one. A node that starts with an empty data directory and a list of seeds has a [`Joiner`], which asks every seed
//! until one of two things happens:
//!
//! ```text
//!            every seed is without a cluster, and this node is the first of them
//!   Joiner -----------------------------------------------------------------------> Founded
//!     |
//!     |  a member of a cluster answers: ask the leader of the metadata instead
//!     +--- leader: admit(request) --> the registration is committed --> Welcome ---> Joined
//! ```
//!
//! # Why a cluster is founded once
//!
//! Only the first seed founds, so two nodes never do. It founds only after every seed has said that it has no cluster. A majority would not be enough: the
//! first seed founds a cluster, one node joins, and the first seed loses its disk while the other one is down. A third, which has not joined yet, would
//! be a majority together with the emptied one, and a second cluster would come into being beside the one that has acknowledged records. So all seeds
//! have to be up once, when the cluster is founded, and a node that is started with a list never founds one while a seed is silent.
//!
//! # Why a wiped node does not vote for what it has forgotten
//!
//! A node's [`DiskId`] is random and made with its data directory. The registration of a node holds the disk under which it joined. A node that asks
//! again with another disk is [admitted](admit) under the next incarnation: its replicas are new ones, learners until the cluster
//! gives them a vote. A request that is repeated has the same disk, and gets the same answer.
//!
//! # Afterwards
//!
//! A member whose addresses, rack or number of shards have changed sends the same request to the leader of the metadata, which registers it anew.
//!
//! The messages go over the listener for peers, one request and one reply for each connection, in place of the hello of a channel.

mod admission;
mod joiner;
mod messages;

pub use admission::{Admission, AdmissionError, MemberNode, admit};
pub use joiner::{Joined, Joiner, JoinerConfig, Outcome, SeedState};
pub use messages::{
    ADDRESS_BYTES_MAX, CLIENT_ADDRESSES_MAX, CONTACTS_MAX, ClientListener, Contact, DiskId, JoinReply,
    JoinRequest, Membership, NotNow, RACK_BYTES_MAX, REASON_BYTES_MAX, Registration, SeedList,
};
