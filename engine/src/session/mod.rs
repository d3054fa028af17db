//! Connections of clients: how many there may be, what memory their requests may take, and when the next request is taken up.
//!
//! ```text
//!   a connection comes --> Places::check ---> it is let in
//!   its input ----------> Admission::may_take --> one request is decoded --> Admission::take (counted) --> adapter
//! ```
//!
//! The connections themselves are in `shard/`.

mod admission;
mod budget;
mod held;
mod large_requests;
mod places;
mod send_queue;

pub(crate) use admission::{Admission, Load};
pub(crate) use budget::RequestBytes;
pub(crate) use held::{Keeps, held_bytes};
pub(crate) use places::{Places, Speaks};
pub(crate) use send_queue::{Charged, SendQueue};
