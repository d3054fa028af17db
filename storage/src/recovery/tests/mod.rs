//! Scans of extents built by hand.

mod extent;
mod scans;
