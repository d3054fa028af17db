//! The decision at the first position that is not the next frame.
//!
//! | frame at the next position | hint: had been durable | later frame of this incarnation | decision |
//! |---|---|---|---|
//! | valid, chain ok | – | – | keep |
//! | none: sealed here, or the extent is full | – | – | end |
//! | zero, or older incarnation (recycled bytes) | no | none | end |
//! | zero, or older incarnation | no | some, none proves | truncate and seal |
//! | zero, or older incarnation | no | one proves | hole |
//! | a leftover: its epoch is below that of the frame before it | no | none, or none proves | truncate and seal |
//! | a leftover | no | one proves | hole |
//! | bad, or misdirected | no | none | truncate: torn, never acknowledged |
//! | bad, or misdirected | no | some, none proves | truncate and seal |
//! | bad, or misdirected | no | one proves | hole |
//! | zero, older incarnation, leftover, bad, misdirected | yes | – | rot |
//! | unreadable, or of a newer version | – | – | rot |
//!
//! A later frame *proves* if its `durable_index` is above the missing index: the missing frame had been durable, and perhaps
//! acknowledged, when the later one was made. Later frames that do not prove were in flight together with the missing one, and never acknowledged
//! any of them. They must never come back, so the extent is sealed: nothing is ever written before a stale tail.
//!
//! Along a log epochs never fall. A frame of a lower epoch than the one before it is a leftover of a suffix that was truncated: a later
//! leader's log did not have it. It ends the log, and the durable index in other leftovers is ignored: it is about the
//! log that was truncated.
//!
//! An unreadable frame may have been acknowledged, and may be readable later: it is never truncated.

/// The content of the next position.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FrameCondition {
    /// The next frame.
    Valid,
    /// Nothing can follow: the extent is sealed here or full.
    Sealed,
    /// Zero bytes.
    Zero,
    /// A frame of an earlier incarnation of the extent.
    Older,
    /// A valid frame of an epoch that ended before it.
    Leftover,
    /// Something that is no whole frame.
    Bad,
    /// A valid frame that belongs elsewhere: another partition, index or offset.
    Misdirected,
    /// The disk cannot read it.
    Unreadable,
    /// A valid frame header of a newer version.
    NewerVersion,
}

/// The frames found after that position, within the window of bytes that can have been unacknowledged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Later {
    /// No frame of this incarnation.
    None,
    /// Frames that prove nothing.
    Unproven,
    /// A frame that proves that the missing one had been durable.
    Proven,
}

/// The decision about the next position.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Decision {
    /// Take the frame and go on.
    Keep,
    /// The log ends here and goes on here.
    End,
    /// The bytes here were never acknowledged: the log ends here.
    Truncate {
        /// Whether appends have to go on in another extent.
        seal: bool,
    },
    /// A frame that had been durable is not there. Nothing is truncated; the partition stops.
    Hole,
    /// A frame that had been durable is damaged. Nothing is truncated; the partition stops.
    Rot,
}

/// The table in the module's doc.
pub const fn decide(found: FrameCondition, hint: bool, later: Later) -> Decision {
    match (found, hint, later) {
        (FrameCondition::Valid, _, _) => Decision::Keep,
        (FrameCondition::Sealed, _, _)
        | (FrameCondition::Zero | FrameCondition::Older, false, Later::None) => Decision::End,
        (FrameCondition::Unreadable | FrameCondition::NewerVersion, _, _)
        | (
            FrameCondition::Zero
            | FrameCondition::Older
            | FrameCondition::Leftover
            | FrameCondition::Bad
            | FrameCondition::Misdirected,
            true,
            _,
        ) => Decision::Rot,
        (FrameCondition::Bad | FrameCondition::Misdirected, false, Later::None) => {
            Decision::Truncate { seal: false }
        }
        (FrameCondition::Leftover, false, Later::None)
        | (
            FrameCondition::Zero
            | FrameCondition::Older
            | FrameCondition::Leftover
            | FrameCondition::Bad
            | FrameCondition::Misdirected,
            false,
            Later::Unproven,
        ) => Decision::Truncate { seal: true },
        (
            FrameCondition::Zero
            | FrameCondition::Older
            | FrameCondition::Leftover
            | FrameCondition::Bad
            | FrameCondition::Misdirected,
            false,
            Later::Proven,
        ) => Decision::Hole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(found: &[FrameCondition], hints: &[bool], later: &[Later], decision: Decision) {
        for found in found {
            for hint in hints {
                for later in later {
                    assert_eq!(
                        decide(*found, *hint, *later),
                        decision,
                        "{found:?}, hint {hint}, later {later:?}"
                    );
                }
            }
        }
    }

    const ANY_LATER: &[Later] = &[Later::None, Later::Unproven, Later::Proven];

    #[test]
    fn a_valid_next_frame_is_kept() {
        row(&[FrameCondition::Valid], &[false, true], ANY_LATER, Decision::Keep);
    }

    #[test]
    fn a_sealed_or_full_extent_ends_where_it_was_sealed() {
        row(&[FrameCondition::Sealed], &[false, true], ANY_LATER, Decision::End);
    }

    #[test]
    fn zero_bytes_or_recycled_bytes_with_nothing_behind_are_the_end() {
        row(&[FrameCondition::Zero, FrameCondition::Older], &[false], &[Later::None], Decision::End);
    }

    #[test]
    fn a_gap_before_frames_that_prove_nothing_is_truncated_and_the_extent_sealed() {
        row(
            &[FrameCondition::Zero, FrameCondition::Older],
            &[false],
            &[Later::Unproven],
            Decision::Truncate { seal: true },
        );
    }

    #[test]
    fn a_gap_before_a_frame_that_proves_is_a_hole() {
        row(&[FrameCondition::Zero, FrameCondition::Older], &[false], &[Later::Proven], Decision::Hole);
    }

    #[test]
    fn a_leftover_of_a_truncated_suffix_ends_the_log_and_nothing_is_written_in_front_of_it() {
        row(
            &[FrameCondition::Leftover],
            &[false],
            &[Later::None, Later::Unproven],
            Decision::Truncate { seal: true },
        );
    }

    #[test]
    fn a_leftover_before_a_frame_that_proves_is_a_hole() {
        row(&[FrameCondition::Leftover], &[false], &[Later::Proven], Decision::Hole);
    }

    #[test]
    fn a_torn_frame_with_nothing_behind_is_truncated() {
        row(
            &[FrameCondition::Bad, FrameCondition::Misdirected],
            &[false],
            &[Later::None],
            Decision::Truncate { seal: false },
        );
    }

    #[test]
    fn a_torn_frame_before_frames_that_prove_nothing_is_truncated_and_the_extent_sealed() {
        row(
            &[FrameCondition::Bad, FrameCondition::Misdirected],
            &[false],
            &[Later::Unproven],
            Decision::Truncate { seal: true },
        );
    }

    #[test]
    fn a_bad_frame_before_a_frame_that_proves_is_a_hole() {
        row(&[FrameCondition::Bad, FrameCondition::Misdirected], &[false], &[Later::Proven], Decision::Hole);
    }

    #[test]
    fn whatever_is_in_the_place_of_a_frame_that_had_been_durable_is_rot() {
        let found = [
            FrameCondition::Zero,
            FrameCondition::Older,
            FrameCondition::Leftover,
            FrameCondition::Bad,
            FrameCondition::Misdirected,
        ];
        row(&found, &[true], ANY_LATER, Decision::Rot);
    }

    #[test]
    fn what_cannot_be_read_or_understood_is_never_truncated() {
        row(
            &[FrameCondition::Unreadable, FrameCondition::NewerVersion],
            &[false, true],
            ANY_LATER,
            Decision::Rot,
        );
    }
}
