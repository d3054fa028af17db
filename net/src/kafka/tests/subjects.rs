//! Test interface of all messages.

use bytes::Bytes;

use super::tree::Tree;
use crate::kafka::messages as ours;
use crate::kafka::samples::{Sample, Samples, Shape, for_every_message, write};
use crate::kafka::schema::Message;
use crate::kafka::wire::{Reader, WireError};

/// A message type.
#[derive(Clone, Copy)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) min: i16,
    pub(crate) max: i16,
    pub(crate) flexible_from: i16,
    /// Encodes a sample.
    pub(crate) encode: fn(Shape, i16) -> Bytes,
    /// Encodes a message with defaults.
    pub(crate) unset: fn(i16) -> Bytes,
    /// Decodes all bytes.
    pub(crate) decode: fn(&[u8], i16) -> Result<(), WireError>,
    /// Decodes all bytes and formats the message.
    pub(crate) tree: fn(&[u8], i16) -> Tree,
    /// Decodes all bytes and encodes the message again.
    pub(crate) again: fn(&[u8], i16) -> Bytes,
}

fn all<T>(bytes: &[u8], read: impl FnOnce(&mut Reader<'_>) -> Result<T, WireError>) -> Result<T, WireError> {
    let mut r = Reader::new(bytes);
    let value = read(&mut r)?;
    r.finish().map(|()| value)
}

macro_rules! subject {
    ($name:ident) => {
        Subject {
            name: stringify!($name),
            min: ours::$name::VERSION_MIN,
            max: ours::$name::VERSION_MAX,
            flexible_from: ours::$name::FLEXIBLE_FROM,
            encode: |shape, version| write(&ours::$name::sample(&mut Samples::new(shape)), version),
            unset: |version| write(&ours::$name::default(), version),
            decode: |bytes, version| all(bytes, |r| ours::$name::decode(version, r).map(drop)),
            tree: |bytes, version| {
                let mut r = Reader::new(bytes);
                let value = ours::$name::decode(version, &mut r).expect("it can be read");
                r.finish().expect("all of it");
                Tree::of(&value)
            },
            again: |bytes, version| {
                write(
                    &ours::$name::decode(version, &mut Reader::new(bytes)).expect("it can be read"),
                    version,
                )
            },
        }
    };
}

macro_rules! subjects {
    ($($name:ident)+) => {
        /// Requests and responses alternately, in the order of the table of APIs.
        pub(crate) const SUBJECTS: &[Subject] = &[$(subject!($name),)+];
    };
}

for_every_message!(subjects);
