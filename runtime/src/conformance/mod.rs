//! One suite for every plane: a test application, and scenarios that talk to it over its connections.
//!
//! A scenario is a function of a [`Machine`]: something that runs [`TestApp`]s on a plane and connects clients to them. The first
//! bytes that a client sends choose what the application does with the connection (see [`TestApp`]); everything that a scenario
//! checks comes back over connections, or fails an assertion of the application.

mod app;
mod bulk;
mod closing;
mod disk;
mod machine;
mod mesh;
mod scenarios;
mod sending;
mod simple;
mod timers;

pub use app::{TestApp, TestMessage};
pub use machine::{ClientId, Machine};
pub use scenarios::*;

/// Stands for some bytes.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(bytes.len() as u64, |sum, part| {
        let mut word = [0; 8];
        word[..part.len()].copy_from_slice(part);
        (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
    })
}

/// The byte at this place of the bytes that the application sends.
fn pattern(at: u64) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)) as u8
}
