//! Every message, as the tests see it.

use bytes::Bytes;

use super::tree::Tree;
use crate::kafka::messages as ours;
use crate::kafka::samples::{Sample, Samples, Shape, for_every_message, write};
use crate::kafka::schema::Message;
use crate::kafka::wire::{Reader, WireError};

/// A kind of message.
#[derive(Clone, Copy)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) min: i16,
    pub(crate) max: i16,
    pub(crate) flexible_from: i16,
    /// A sample, written.
    pub(crate) encode: fn(Shape, i16) -> Bytes,
    /// A message of which nothing was set, written.
    pub(crate) unset: fn(i16) -> Bytes,
    /// Reads all of the bytes.
    pub(crate) decode: fn(&[u8], i16) -> Result<(), WireError>,
    /// Reads all of the bytes and shows what it found.
    pub(crate) tree: fn(&[u8], i16) -> Tree,
    /// Reads all of the bytes and writes what it found.
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
        /// Requests and responses in turn, in the order of the table of what is served.
        pub(crate) const SUBJECTS: &[Subject] = &[$(subject!($name),)+];
    };
}

for_every_message!(subjects);
