//! Connections of clients: how many there may be, how much memory their requests may use, and when the next request is handled.
//!
//! ```text
//!   a new connection --> ConnectionLimits::check --> accepted
//!   its input ---------> Admission::may_admit -----> one request is decoded --> Admission::admit (charged) --> adapter
//! ```
//!
//! The connections themselves are in `shard/`.

mod admission;
mod budget;
mod connection_limits;
mod held;
mod large_requests;
mod send_queue;

pub(crate) use admission::{Admission, Load};
pub(crate) use budget::RequestBytes;
pub(crate) use connection_limits::{ClientProtocol, ConnectionLimits};
pub(crate) use held::{Retained, held_bytes};
pub(crate) use send_queue::{Charged, SendQueue};
