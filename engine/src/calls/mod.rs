//! Requests to other shards and the gathering of their replies, for both protocols.
//!
//! ```text
//!   adapter -- Context::ask, ask_each, query --> Calls -- ControllerRequest --> shard 0
//!                                                     \-- PartitionQuery -----> owners of partitions
//!   adapter <-- finish(context, replies) ------- Calls <-- replies ------------/
//! ```
//!
//! A call is one or more requests, and ends when all have been answered: `finish` gets the replies, typed and in the order of the requests.
//! Of many requests to shard 0 a few are sent at once and the others one by one, so that a call does not fill the queue to shard 0
//! whatever its client named. Some replies come at once and some after minutes (a member of a group waits for the others); the client may
//! be gone by then, and `finish` is called nevertheless.
//!
//! [`Calls`] is a state machine: commands begin calls, [`Calls::handle_reply`] takes replies, [`Calls::poll_request`] gives out what is to be
//! posted.
//!
//! Invariant: `finish` is called once for every call, unless its client is gone while requests of it are still unsent.

mod fan_out;
mod fill;
mod pending;

pub(crate) use fan_out::FanOut;
pub(crate) use pending::{Calls, Reply};
