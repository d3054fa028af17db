//! Invalid input: always an error, never a panic or a wrong message.

use proptest::prelude::*;

use super::subjects::{SUBJECTS, Subject};
use crate::kafka::api::APIS;
use crate::kafka::samples::Shape;

fn every_version(mut check: impl FnMut(&Subject, i16)) {
    for subject in SUBJECTS {
        for version in subject.min..=subject.max {
            check(subject, version);
        }
    }
}

#[test]
fn a_truncated_message_is_an_error_wherever_it_ends() {
    every_version(|subject, version| {
        for shape in [Shape::Empty, Shape::One] {
            let bytes = (subject.encode)(shape, version);
            (subject.decode)(&bytes, version).expect("whole, it can be read");
            for end in 0..bytes.len() {
                let result = (subject.decode)(&bytes[..end], version);
                assert!(result.is_err(), "{} {version}: {end} of {} bytes", subject.name, bytes.len());
            }
        }
    });
}

#[test]
fn bytes_after_a_message_are_an_error() {
    every_version(|subject, version| {
        let bytes = [&(subject.encode)(Shape::One, version)[..], &[0]].concat();
        assert!((subject.decode)(&bytes, version).is_err(), "{} {version}", subject.name);
    });
}

#[test]
fn undeclared_versions_are_an_error() {
    for subject in SUBJECTS {
        for version in [subject.min - 1, subject.max + 1, i16::MIN, i16::MAX] {
            assert!((subject.decode)(&[0; 64], version).is_err(), "{} {version}", subject.name);
        }
    }
}

#[test]
fn unknown_tagged_fields_are_skipped() {
    every_version(|subject, version| {
        if version < subject.flexible_from {
            return;
        }
        let bytes = (subject.unset)(version);
        let (last, front) = bytes.split_last().expect("a flexible message has its tags");
        assert_eq!(*last, 0, "{} {version}: what is not set is not sent", subject.name);
        let tagged = [front, &[2, 99, 3, 7, 8, 9, 0x80, 0x7f, 0]].concat();
        assert_eq!((subject.tree)(&tagged, version), (subject.tree)(&bytes, version), "{}", subject.name);
    });
}

#[test]
fn the_table_and_the_messages_agree() {
    for (api, pair) in APIS.iter().zip(SUBJECTS.chunks(2)) {
        for (subject, kind) in pair.iter().zip(["Request", "Response"]) {
            assert_eq!(subject.name, format!("{}{kind}", api.name));
            assert!(subject.min <= api.accepted_min && api.max <= subject.max, "{}", subject.name);
            assert_eq!(subject.flexible_from, api.flexible_from, "{}", subject.name);
        }
    }
    assert_eq!(APIS.len() * 2, SUBJECTS.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_can_be_read_of_damaged_messages_is_written_and_read_again_the_same(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        shape in prop_oneof![Just(Shape::Empty), Just(Shape::One)],
    ) {
        every_version(|subject, version| {
            let mut bytes = (subject.encode)(shape, version).to_vec();
            if bytes.is_empty() {
                return;
            }
            for (at, byte) in &flips {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            if (subject.decode)(&bytes, version).is_ok() {
                let again = (subject.again)(&bytes, version);
                assert_eq!((subject.tree)(&again, version), (subject.tree)(&bytes, version), "{}", subject.name);
            }
        });
    }
}
