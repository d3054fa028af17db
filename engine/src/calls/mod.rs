//! Requests to other shards and the gathering of their replies, for both protocols.
//!
//! ```text
//!   adapter -- Context::ask, ask_each ---> Calls -- ControllerRequest --> shard 0
//!              Context::ask_group                \-- GroupRequest -------> coordinators of groups
//!              Context::query                    \-- PartitionQuery -----> owners of partitions
//!   adapter <-- finish(context, replies) - Calls <-- replies ------------/
//! ```
//!
//! A call is one or more requests, and ends when all have been answered: [`Gather`] collects the replies, typed and in the order of the
//! requests, and `finish` gets them ([`crate::context`]).
//! If a call has many requests to shard 0 or to coordinators, a few are sent at once and the others one by one, so that no call can fill a queue. Some
//! replies arrive at once and some after minutes (a member of a group waits for the others); `finish` is called even if the client has
//! disconnected by then.
//!
//! [`Calls`] is a state machine: commands begin calls, [`Calls::handle_reply`] takes replies, [`Calls::poll_request`] returns requests to post.
//!
//! Invariant: `finish` is called once for every call, unless its client disconnects before all of its requests have been sent.

mod fan_out;
mod group_calls;
mod pending;

pub(crate) use fan_out::FanOut;
pub(crate) use group_calls::{
    DeleteGroups, DescribeConsumerGroups, DescribeGroups, DescribeOneGroup, DescribedOneGroup, FetchOffsets,
    GroupCall, GroupList, Measured, MeasuredCall, Part, PartReply,
};
pub(crate) use pending::{Calls, Gather, Reply, Request};
