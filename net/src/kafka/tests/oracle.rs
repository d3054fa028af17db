//! Compares the codec with the `kafka-protocol` crate, which is generated from Kafka's own descriptions: each decodes what the other encodes,
//! with the same fields.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::{Decodable, Encodable, Message};

use super::subjects::{SUBJECTS, Subject};
use super::tree::Tree;
use crate::kafka::samples::Shape;
use crate::kafka::samples::for_every_message;
use crate::kafka::wire::WireError;

/// Fields of versions that this crate does not have.
const NEWER: &[&str] =
    &["enable_2_pc", "keep_prepared_txn", "ongoing_txn_producer_id", "ongoing_txn_producer_epoch"];

/// Asserts that both decode `bytes` to the same fields.
fn check_reading<Theirs: Decodable + std::fmt::Debug>(
    subject: &Subject,
    bytes: &Bytes,
    version: i16,
) -> Theirs {
    let name = subject.name;
    let mut rest = bytes.clone();
    let theirs = Theirs::decode(&mut rest, version)
        .unwrap_or_else(|e| panic!("{name} {version}: they cannot read it: {e}\n{bytes:?}"));
    assert!(rest.is_empty(), "{name} {version}: they leave {} bytes", rest.len());
    let difference = (subject.tree)(bytes, version).difference(&Tree::of(&theirs).without(NEWER));
    assert_eq!(difference, None, "{name} {version}: ours and theirs");
    theirs
}

/// Compares all versions that both have. `vectors` has the bytes of newer versions.
fn check<Theirs: Decodable + Encodable + Message + std::fmt::Debug>(subject: &Subject) {
    let name = subject.name;
    assert!(Theirs::VERSIONS.min <= subject.min, "{name}: they know the oldest version");
    let versions = subject.min..=subject.max.min(Theirs::VERSIONS.max);
    for shape in Shape::ALL {
        for version in versions.clone() {
            let bytes = (subject.encode)(shape, version);
            let theirs: Theirs = check_reading(subject, &bytes, version);
            let mut again = BytesMut::new();
            theirs.encode(&mut again, version).expect("they write what they read");
            assert_eq!(again, bytes, "{name} {version} {shape:?}: written in the same way");
            // A field that the two have in different versions differs when the value is encoded in these versions.
            for other in versions.clone() {
                let mut bytes = BytesMut::new();
                if theirs.encode(&mut bytes, other).is_err() {
                    continue;
                }
                // The other crate also encodes null for fields that are not nullable.
                if !matches!((subject.decode)(&bytes, other), Err(WireError::Null { .. })) {
                    check_reading::<Theirs>(subject, &bytes.freeze(), other);
                }
            }
        }
    }
}

macro_rules! oracle {
    ($($name:ident)+) => {
        #[test]
        fn every_message_is_encoded_and_decoded_like_kafkas() {
            let mut subjects = SUBJECTS.iter();
            $({
                let subject = subjects.next().expect("as many subjects as names");
                assert_eq!(subject.name, stringify!($name));
                check::<theirs::$name>(subject);
            })+
        }
    };
}

for_every_message!(oracle);
