//! Determines which part of a partition's log is committed: durable on a majority of its voters.

use highwater_protocol::ids::{LeaderEpoch, LogIndex, NodeId};

/// A replica that counts towards the majority.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Voter {
    /// Node of the replica.
    pub node: NodeId,
    /// Every frame with a lower index is on this voter's stable storage.
    pub durable_end: LogIndex,
}

/// The commit rule of one partition, as applied by its leader.
///
/// Indexes are exclusive ends: `commit_end() == LogIndex(7)` means that frames 0..=6 are committed.
///
/// Invariant: `commit_end` never decreases. It moves only to an end that a majority of the voters has reached and that is after the
/// first frame of the leader's own term. The second condition is Raft's: a frame of an earlier term may be on a majority and still
/// be overwritten by a later leader; the first later frame of the leader's own term commits it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quorum {
    term: LeaderEpoch,
    term_start: LogIndex,
    voters: Vec<Voter>,
    commit_end: LogIndex,
}

impl Quorum {
    /// Creates the rule for a leader of `term` whose first own frame has the index `term_start`.
    ///
    /// `commit_end` is the end that is already known to be committed. On a single node that is everything that recovery found: no
    /// other node can overwrite what the only voter has on stable storage.
    pub fn new(
        voters: impl IntoIterator<Item = NodeId>,
        term: LeaderEpoch,
        term_start: LogIndex,
        commit_end: LogIndex,
    ) -> Self {
        let mut voters: Vec<Voter> =
            voters.into_iter().map(|node| Voter { node, durable_end: LogIndex(0) }).collect();
        voters.sort_by_key(|v| v.node);
        voters.dedup_by_key(|v| v.node);
        assert!(!voters.is_empty(), "a partition needs at least one voter");
        Self { term, term_start, voters, commit_end }
    }

    /// Returns the leader's term.
    pub fn term(&self) -> LeaderEpoch {
        self.term
    }

    /// Returns the commit end: every frame with a lower index is committed.
    pub fn commit_end(&self) -> LogIndex {
        self.commit_end
    }

    /// Returns the voters, ordered by node.
    pub fn voters(&self) -> &[Voter] {
        &self.voters
    }

    /// Returns the number of voters that make a majority.
    pub fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// Handles a voter's report of how far its log is durable. Returns the new commit end if it moved.
    ///
    /// Ignores reports from nodes that are not voters, and reports that are not newer than an earlier one (reports may overtake
    /// each other).
    pub fn handle_durable(&mut self, node: NodeId, durable_end: LogIndex) -> Option<LogIndex> {
        let voter = self.voters.iter_mut().find(|v| v.node == node)?;
        if durable_end <= voter.durable_end {
            return None;
        }
        voter.durable_end = durable_end;
        let reached = self.majority_end();
        if reached <= self.commit_end || reached <= self.term_start {
            return None;
        }
        self.commit_end = reached;
        Some(reached)
    }

    /// Starts a new term of this leader, whose first frame has the index `term_start`.
    pub fn handle_term(&mut self, term: LeaderEpoch, term_start: LogIndex) {
        assert!(term > self.term, "terms only increase");
        assert!(term_start >= self.commit_end, "a term starts at or after the commit end");
        self.term = term;
        self.term_start = term_start;
    }

    /// Returns the largest end that a majority has reached.
    fn majority_end(&self) -> LogIndex {
        if let [only] = self.voters[..] {
            return only.durable_end;
        }
        let mut ends: Vec<LogIndex> = self.voters.iter().map(|v| v.durable_end).collect();
        ends.sort_unstable_by(|a, b| b.cmp(a));
        ends[self.majority() - 1]
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// Runs a transcript, one event per line, and appends the outcome of each event.
    ///
    /// `leader T from I of N,N,.. committed C` · `N has E` · `term T from I`
    fn run(transcript: &str) -> String {
        let mut quorum: Option<Quorum> = None;
        let mut output = String::new();
        for line in transcript.lines().map(str::trim).filter(|l| !l.is_empty()) {
            let event = line.split(" => ").next().expect("a line has a first part").trim();
            let words: Vec<&str> = event.split_whitespace().collect();
            let number = |word: &str| word.parse::<u64>().expect("a number");
            let outcome = match words[..] {
                ["leader", term, "from", start, "of", nodes, "committed", end] => {
                    quorum = Some(Quorum::new(
                        nodes.split(',').map(|n| NodeId(number(n) as u32)),
                        LeaderEpoch(number(term) as i32),
                        LogIndex(number(start)),
                        LogIndex(number(end)),
                    ));
                    None
                }
                [node, "has", end] => quorum
                    .as_mut()
                    .expect("a leader")
                    .handle_durable(NodeId(number(node) as u32), LogIndex(number(end))),
                ["term", term, "from", start] => {
                    quorum
                        .as_mut()
                        .expect("a leader")
                        .handle_term(LeaderEpoch(number(term) as i32), LogIndex(number(start)));
                    None
                }
                _ => panic!("not an event: {line}"),
            };
            match outcome {
                Some(end) => writeln!(output, "{event} => committed {end}"),
                None => writeln!(output, "{event}"),
            }
            .expect("writing to a string cannot fail");
        }
        output
    }

    #[track_caller]
    fn check(transcript: &str) {
        let want: String =
            transcript.lines().map(str::trim).filter(|l| !l.is_empty()).fold(String::new(), |all, line| {
                let mut parts = line.split(" => ").map(str::trim);
                let event = parts.next().unwrap_or_default();
                all + &parts.next().map_or(format!("{event}\n"), |then| format!("{event} => {then}\n"))
            });
        assert_eq!(run(transcript), want);
    }

    #[test]
    fn a_single_voter_commits_what_it_has_made_durable() {
        check(
            "leader 1 from 0 of 0 committed 0
             0 has 1   => committed 1
             0 has 5   => committed 5
             0 has 4
             0 has 5",
        );
    }

    #[test]
    fn three_voters_commit_what_two_of_them_have() {
        check(
            "leader 1 from 0 of 1,2,3 committed 0
             1 has 10
             2 has 4   => committed 4
             3 has 7   => committed 7
             2 has 12  => committed 10
             1 has 20  => committed 12",
        );
    }

    #[test]
    fn the_leaders_own_disk_may_be_the_slowest() {
        check(
            "leader 1 from 0 of 1,2,3 committed 0
             2 has 9
             3 has 8   => committed 8",
        );
    }

    #[test]
    fn four_voters_need_three() {
        check(
            "leader 1 from 0 of 1,2,3,4 committed 0
             1 has 9
             2 has 9
             3 has 5   => committed 5",
        );
    }

    #[test]
    fn frames_of_an_earlier_term_are_committed_by_the_first_frame_of_the_current_term() {
        check(
            "leader 3 from 7 of 1,2,3 committed 2
             1 has 7
             2 has 7
             1 has 8
             3 has 8   => committed 8",
        );
    }

    #[test]
    fn a_new_term_commits_nothing_before_its_first_frame() {
        check(
            "leader 1 from 0 of 0 committed 0
             0 has 3   => committed 3
             term 2 from 5
             0 has 5
             0 has 6   => committed 6",
        );
    }

    #[test]
    fn reports_from_non_voters_and_outdated_reports_are_ignored() {
        check(
            "leader 1 from 0 of 1,2,3 committed 0
             9 has 100
             1 has 10
             2 has 10  => committed 10
             2 has 3
             8 has 11",
        );
    }

    #[test]
    fn committed_frames_stay_committed_before_all_voters_have_reported() {
        check(
            "leader 1 from 0 of 1,2,3 committed 50
             1 has 10
             2 has 20
             3 has 60
             2 has 55  => committed 55",
        );
    }

    #[test]
    #[should_panic(expected = "terms only increase")]
    fn a_term_that_decreases_is_a_bug() {
        check("leader 2 from 0 of 0 committed 0\n term 1 from 0");
    }
}
