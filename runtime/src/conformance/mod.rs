//! One conformance suite for every plane: a test application, and scenarios that talk to it over connections.
//!
//! A scenario is a function of a [`Machine`], which runs [`TestApp`]s on a plane and connects clients to them. The first bytes that
//! a client sends choose what the application does with the connection (see [`TestApp`]). Everything that a scenario checks is
//! either received over a connection or asserted by the application.

mod app;
mod bulk;
mod closing;
mod connecting;
mod disk;
mod machine;
mod mesh;
mod outgoing;
mod scenarios;
mod sending;
mod simple;
mod timers;

pub use app::{TestApp, TestMessage};
pub use machine::{ClientId, Machine};
pub use outgoing::*;
pub use scenarios::*;

/// Returns a checksum of `bytes`.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(bytes.len() as u64, |sum, part| {
        let mut word = [0; 8];
        word[..part.len()].copy_from_slice(part);
        (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
    })
}

/// Returns the byte at position `at` of the pattern that the application sends.
fn pattern(at: u64) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)) as u8
}
