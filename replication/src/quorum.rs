//! Which part of a partition's log is committed: durable on a majority of its voters.

use highwater_protocol::ids::{LeaderEpoch, LogIndex, NodeId};

/// A replica that counts towards the majority.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Voter {
    /// The node it lives on.
    pub node: NodeId,
    /// Every frame with an index below this is on this voter's stable storage.
    pub durable_end: LogIndex,
}

/// The commit rule of one partition, as its leader applies it.
///
/// Indexes are ends: `commit_end() == LogIndex(7)` says that the frames 0..=6 are committed.
///
/// Invariant: `commit_end` never goes back, and moves only to an end that a majority of the voters has reached and that lies
/// behind the first frame of the leader's own term. The second half is Raft's: a frame of an earlier term may be on a majority
/// and still be overwritten by a later leader; it is committed by the first own frame behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quorum {
    term: LeaderEpoch,
    term_start: LogIndex,
    voters: Vec<Voter>,
    commit_end: LogIndex,
}

impl Quorum {
    /// The rule for a leader of `term` whose first own frame has the index `term_start`.
    ///
    /// `commit_end` is what is already known to be committed. On a single node that is all that recovery found: what one voter
    /// of one has on stable storage cannot be overwritten by anybody else.
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
        assert!(!voters.is_empty(), "a partition without voters can commit nothing");
        Self { term, term_start, voters, commit_end }
    }

    /// The leader's term.
    pub fn term(&self) -> LeaderEpoch {
        self.term
    }

    /// Every frame with an index below this is committed.
    pub fn commit_end(&self) -> LogIndex {
        self.commit_end
    }

    /// The voters, by node.
    pub fn voters(&self) -> &[Voter] {
        &self.voters
    }

    /// How many voters make a majority.
    pub fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// A voter says how far its log is durable. Gives the new commit end if that moved it.
    ///
    /// What a node says that is no voter, and what lies behind something it said before (reports may overtake each other),
    /// changes nothing.
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

    /// A new term of this leader begins with the frame at `term_start`.
    pub fn handle_term(&mut self, term: LeaderEpoch, term_start: LogIndex) {
        assert!(term > self.term, "terms only grow");
        assert!(term_start >= self.commit_end, "a term cannot begin inside what is committed");
        self.term = term;
        self.term_start = term_start;
    }

    /// The largest end that a majority has reached.
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

    /// Plays a transcript, one event a line, and writes beside each what came of it.
    ///
    /// `leader T from I of N,N,.. committed C` · `N has E` · `term T from I`
    fn play(transcript: &str) -> String {
        let mut quorum: Option<Quorum> = None;
        let mut told = String::new();
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
                Some(end) => writeln!(told, "{event} => committed {end}"),
                None => writeln!(told, "{event}"),
            }
            .expect("a string takes all");
        }
        told
    }

    #[track_caller]
    fn check(transcript: &str) {
        let want: String =
            transcript.lines().map(str::trim).filter(|l| !l.is_empty()).fold(String::new(), |all, line| {
                let mut parts = line.split(" => ").map(str::trim);
                let event = parts.next().unwrap_or_default();
                all + &parts.next().map_or(format!("{event}\n"), |then| format!("{event} => {then}\n"))
            });
        assert_eq!(play(transcript), want);
    }

    #[test]
    fn one_voter_of_one_commits_what_it_has_made_durable() {
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
    fn the_leaders_own_disk_may_be_the_slow_one() {
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
    fn frames_of_an_earlier_term_are_committed_by_the_first_frame_of_this_one() {
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
    fn nodes_without_a_vote_and_reports_that_were_overtaken_change_nothing() {
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
    fn what_is_known_to_be_committed_stays_committed_when_voters_have_not_reported_yet() {
        check(
            "leader 1 from 0 of 1,2,3 committed 50
             1 has 10
             2 has 20
             3 has 60
             2 has 55  => committed 55",
        );
    }

    #[test]
    #[should_panic(expected = "terms only grow")]
    fn a_term_that_goes_back_is_our_bug() {
        check("leader 2 from 0 of 0 committed 0\n term 1 from 0");
    }
}
