//! Disks for tools that work on the data of a stopped broker.

mod disk;
mod overlay;

pub use disk::OfflineDisk;
pub use overlay::{OVERLAY_BYTES_MAX, Overlay};
