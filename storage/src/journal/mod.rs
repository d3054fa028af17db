//! The journal of a store: where small appends of many partitions become durable in one write.
//!
//! A partition that gets one small record a round would cost a durable write of a page in each round, a thousand of them a thousand writes.
//! Instead the new bytes of all small tails of a round go into one *entry* of the journal, which is one durable write. The extents get
//! the same bytes later, in large writes without a sync of their own ([`crate::store`], `write_back`).
//!
//! ```text
//!  journal:  |entry|entry|entry ............. entry|  free  |      a ring in one file, written in full when it is made
//!             ^ first needed                  ^ last
//!  entry:    |header|piece|piece|piece| bytes | bytes | bytes |0|   whole pages, never across the end of the ring
//! ```
//!
//! A *piece* is a run of bytes with the place in an extent where it belongs: the new frames of one partition. It also names the incarnation of
//! the extent, so that it is never applied to another use of the same space.
//!
//! - Entries are numbered. An entry counts as durable when it and all entries before it have been written. Up to two are in flight.
//! - An entry is *needed* until everything in its pieces is durable in the extents. Each entry says which is the first one needed when it is
//!   written. Space is used again only after a durable entry has said that its old content is not needed.
//! - Each run of the broker that uses the journal begins an *era*, numbered like an incarnation of an extent. Entries of earlier eras count for
//!   nothing: a start applies what is needed and makes it durable before the next era begins.
//! - The map of the store names the era before the first piece is written. So a journal that is lost is noticed.
//!
//! At a start after a crash ([`replay`]) the pieces of the needed entries are written to the extents, before anything else looks at these:
//!
//! | entry with the next number | a later entry says that it was durable | decision |
//! |---|---|---|
//! | valid | – | apply it |
//! | not there, or damaged | no | it was never acknowledged: the end |
//! | valid but for the bytes of a piece | yes | apply the others; recovery finds the gap in that partition's log |
//! | not there, or its header damaged | yes | acknowledged records may be lost: partitions with an open end go out of service |
//!
//! Invariant: the bytes at a position of an incarnation never change, so applying a piece twice, or after the extent has got its bytes in
//! another way, does no harm.

pub(crate) mod entry;
pub mod format;
pub(crate) mod replay;
pub(crate) mod ring;
#[cfg(test)]
mod tests;

/// Name of the journal's file in the folder of its store.
pub(crate) const JOURNAL_NAME: &str = "journal";
