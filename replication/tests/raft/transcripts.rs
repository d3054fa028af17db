//! Transcripts of one replica: a line that begins with `>` is an event, the lines after it are what the replica does.
//!
//! | event | |
//! |---|---|
//! | `start 1 of 1,2,3 [learners 4] [config-at 3] [term 2] [vote 1] [runs 0:1,4:2] [end 6] [durable 5] [commit 4] [min 2] [lost]` | replica 1 starts with a log |
//! | `resume` | it leads again without an election |
//! | `2: append 2 4..6 after 1 runs 4:2 commit 4` | replica 2 sends entries 4 and 5, in term 2, after an entry of epoch 1 |
//! | `2: vote 3 last 6@2 [transfer]`, `pre-vote 3 last 6@2`, `voted 3 yes`, `pre-voted 2 asked 3 no` | messages of elections |
//! | `2: appended 2 6`, `rejected 2 4@1`, `start 2 9@1`, `timeout-now 2`, `stepped-down 2`, `lost-end 3`, `fetch 2 4..6` | other messages |
//! | `persisted`, `durable 6`, `truncated`, `started`, `refused 6`, `space` | what the disk has done |
//! | `timeout`, `alive 2`, `lost 2` | what the channels say |
//! | `propose 2`, `insync`, `config 1,2,4 [learners 3]`, `transfer 2`, `hole 2..3`, `repaired 2..3`, `log-start 4` | commands |
//!
//! `HIGHWATER_TRANSCRIPTS=write` writes what happens into the files, to be reviewed.

use std::fmt::Write as _;
use std::path::PathBuf;

use highwater_protocol::ids::{LeaderEpoch, LogIndex};
use highwater_replication::raft::{
    Action, Append, AppendOutcome, Config, ConfigEntry, Envelope, HardState, LogEnd, Member, Message, Part,
    Replica, ReplicaId, Restored, Run,
};

use crate::disk::replica;

/// Runs the transcript of a rule and compares.
#[track_caller]
pub(crate) fn check(rule: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/raft/rules").join(format!("{rule}.txt"));
    let want = std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    let got = run(&want);
    if std::env::var("HIGHWATER_TRANSCRIPTS").is_ok_and(|value| value == "write") {
        std::fs::write(&path, &got).expect("the transcript can be written");
    } else {
        assert_eq!(got, want, "{rule}");
    }
}

/// Returns the transcript with what the replica really does.
fn run(transcript: &str) -> String {
    let mut output = String::new();
    let mut subject: Option<Replica> = None;
    for line in transcript.lines().filter(|line| line.starts_with(['>', '#']) || line.is_empty()) {
        writeln!(output, "{line}").expect("writing to a string cannot fail");
        let Some(event) = line.strip_prefix("> ") else { continue };
        let before = subject.as_ref().map(state);
        let said = apply(&mut subject, event);
        let subject = subject.as_mut().expect("a transcript begins with a start");
        let mut lines: Vec<String> = said.into_iter().collect();
        while let Some(action) = subject.poll_action() {
            lines.extend(show_action(&action));
        }
        while let Some((to, _)) = subject.poll_due() {
            let end = subject.log_end().end;
            let sent = subject.take_append(to, end).expect("it was due");
            lines.push(format!("to {to}: {}", show_message(&sent.message)));
        }
        let after = state(subject);
        if before.is_none_or(|before| before != after) {
            lines.push(format!("= {after}"));
        }
        for line in lines {
            writeln!(output, "  {line}").expect("writing to a string cannot fail");
        }
    }
    output
}

fn state(r: &Replica) -> String {
    let mut state = format!("{:?} in term {}, commit {}", r.role(), r.term(), r.commit_end());
    if r.is_serving() {
        write!(state, ", serving, acknowledged {}", r.acknowledged_end()).expect("a string");
    }
    state
}

fn apply(subject: &mut Option<Replica>, event: &str) -> Option<String> {
    let words: Vec<&str> = event.split_whitespace().collect();
    if let ["start", id, "of", voters, ref rest @ ..] = words[..] {
        *subject = Some(start(id, voters, rest));
        return None;
    }
    let r = subject.as_mut().expect("a transcript begins with a start");
    if let Some(from) = words[0].strip_suffix(':') {
        let message = parse_message(&words[1..]);
        let envelope = Envelope { from: parse_id(from), to: r.id(), message };
        return match r.handle_message(&envelope, &[]) {
            AppendOutcome::Accepted { from } => Some(format!("append {from}..")),
            AppendOutcome::Dropped => None,
            AppendOutcome::Violation(why) => Some(format!("violation: {why}")),
        };
    }
    match words[..] {
        ["persisted"] => r.handle_persisted(r.hard_state()),
        ["durable", end] => r.handle_durable(index(end)),
        ["truncated"] => r.handle_truncated(),
        ["started"] => r.handle_started(),
        ["resume"] => return (!r.resume()).then(|| "refused".to_owned()),
        ["refused", end] => r.handle_refused(index(end)),
        ["space"] => r.handle_space(),
        ["timeout"] => r.handle_election_timeout(),
        ["alive", peer] => r.handle_peer_alive(parse_id(peer)),
        ["moved", peer] => r.handle_peer_moved(parse_id(peer)),
        ["lost", peer] => r.handle_peer_lost(parse_id(peer)),
        ["hole", range] => r.handle_hole(span(range).0, span(range).1),
        ["repaired", range] => r.handle_repaired(span(range).0, span(range).1),
        ["log-start", start] => r.handle_log_start(index(start)),
        ["propose", entries] => {
            return Some(match r.propose(number(entries)) {
                Ok(first) => format!("append {first}.."),
                Err(why) => why.to_string(),
            });
        }
        ["insync"] => return r.check_insync().err().map(|why| why.to_string()),
        ["transfer", to] => return r.transfer_leadership(parse_id(to)).err().map(|why| why.to_string()),
        ["config", voters, ref rest @ ..] => {
            let config = Config::new(ids(voters), ids(option(rest, "learners").unwrap_or("")));
            return r.propose_config(&config.expect("valid")).err().map(|why| why.to_string());
        }
        _ => panic!("not an event: {event}"),
    }
    None
}

fn start(id: &str, voters: &str, rest: &[&str]) -> Replica {
    let config = Config::new(ids(voters), ids(option(rest, "learners").unwrap_or(""))).expect("valid");
    let term = LeaderEpoch(option(rest, "term").map_or(0, number) as i32);
    let restored = Restored {
        hard: HardState { term, vote: option(rest, "vote").map(parse_id), lost_in: None },
        start: LogEnd::EMPTY,
        runs: runs(option(rest, "runs").unwrap_or("")),
        end: index(option(rest, "end").unwrap_or("0")),
        durable_end: index(option(rest, "durable").or(option(rest, "end")).unwrap_or("0")),
        commit_end: index(option(rest, "commit").unwrap_or("0")),
        configs: vec![ConfigEntry { index: index(option(rest, "config-at").unwrap_or("0")), config }],
        end_lost: rest.contains(&"lost"),
    };
    Replica::new(parse_id(id), restored, option(rest, "min").map_or(1, number) as usize)
}

fn parse_message(words: &[&str]) -> Message {
    let yes = |word: &str| word == "yes";
    match *words {
        ["append", term, range, "after", prev, ref rest @ ..] => Message::Append(Append {
            term: epoch(term),
            from: span(range).0,
            prev_epoch: (prev != "?").then(|| epoch(prev)),
            end: span(range).1,
            runs: runs(option(rest, "runs").unwrap_or("")),
            commit_end: index(option(rest, "commit").unwrap_or("0")),
        }),
        ["vote", term, "last", last, ref rest @ ..] => {
            Message::Vote { term: epoch(term), last: point(last), transfer: rest.contains(&"transfer") }
        }
        ["voted", term, granted] => Message::Voted { term: epoch(term), granted: yes(granted) },
        ["pre-vote", term, "last", last] => Message::PreVote { term: epoch(term), last: point(last) },
        ["pre-voted", term, "asked", asked, granted] => {
            Message::PreVoted { term: epoch(term), asked: epoch(asked), granted: yes(granted) }
        }
        ["appended", term, end] => Message::Appended { term: epoch(term), durable_end: index(end) },
        ["rejected", term, hint] => Message::Rejected { term: epoch(term), hint: point(hint) },
        ["timeout-now", term] => Message::TimeoutNow { term: epoch(term) },
        ["stepped-down", term] => Message::SteppedDown { term: epoch(term) },
        ["lost-end", term] => Message::LostEnd { term: epoch(term) },
        ["fetch", term, range] => {
            Message::Fetch { term: epoch(term), from: span(range).0, until: span(range).1 }
        }
        ["start", term, start, "config", voters] => {
            let config = Config::new(ids(voters), []).expect("valid");
            let config = ConfigEntry { index: LogIndex(1), config };
            Message::StartAt { term: epoch(term), start: point(start), config }
        }
        _ => panic!("not a message: {words:?}"),
    }
}

fn option<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    let at = words.iter().position(|word| *word == name)?;
    words.get(at + 1).copied()
}

fn number(word: &str) -> u64 {
    word.parse().unwrap_or_else(|_| panic!("not a number: {word}"))
}

fn index(word: &str) -> LogIndex {
    LogIndex(number(word))
}

fn epoch(word: &str) -> LeaderEpoch {
    LeaderEpoch(number(word) as i32)
}

/// `1`, or `1'2`: incarnation 2 of the replica on node 1.
fn parse_id(word: &str) -> ReplicaId {
    let (node, incarnation) = word.split_once('\'').unwrap_or((word, "0"));
    replica(number(node) as u32, number(incarnation) as u32)
}

fn ids(words: &str) -> Vec<ReplicaId> {
    words.split(',').filter(|word| !word.is_empty()).map(parse_id).collect()
}

fn span(word: &str) -> (LogIndex, LogIndex) {
    let (from, end) = word.split_once("..").expect("FROM..END");
    (index(from), index(end))
}

fn point(word: &str) -> LogEnd {
    let (end, of) = word.split_once('@').expect("END@EPOCH");
    LogEnd { end: index(end), epoch: epoch(of) }
}

fn runs(words: &str) -> Vec<Run> {
    let pairs = words.split(',').filter_map(|word| word.split_once(':'));
    pairs.map(|(start, of)| Run { start: index(start), epoch: epoch(of) }).collect()
}

fn show_action(action: &Action) -> Option<String> {
    Some(match action {
        Action::Persist(HardState { term, vote, lost_in }) => {
            let vote = vote.map_or(String::new(), |vote| format!(", vote for {vote}"));
            let lost = lost_in.map_or(String::new(), |lost| format!(", end lost in {lost}"));
            format!("persist term {term}{vote}{lost}")
        }
        Action::AppendEpochStart { index, epoch } => format!("append epoch start {epoch} at {index}"),
        Action::AppendConfig { entry, epoch } => {
            format!("append config {} at {}, epoch {epoch}", show_config(&entry.config), entry.index)
        }
        Action::Truncate { from } => format!("truncate at {from}"),
        Action::StartAt { start, .. } => format!("restart the log at {}", show_point(*start)),
        Action::Send(envelope) => format!("to {}: {}", envelope.to, show_message(&envelope.message)),
        Action::SendCommitted { to, from, until } => format!("to {to}: committed entries {from}..{until}"),
        Action::Committed | Action::RoleChanged => return None,
    })
}

fn show_config(config: &Config) -> String {
    let show = |Member { id, part }: &Member| match part {
        Part::Voter => format!("{id}"),
        other => format!("{id} ({other:?})"),
    };
    config.members().iter().map(show).collect::<Vec<_>>().join(", ")
}

fn show_point(LogEnd { end, epoch }: LogEnd) -> String {
    format!("{end}@{epoch}")
}

fn show_message(message: &Message) -> String {
    let yes = |granted: &bool| if *granted { "yes" } else { "no" };
    match message {
        Message::PreVote { term, last } => format!("pre-vote {term} last {}", show_point(*last)),
        Message::PreVoted { term, asked, granted } => {
            format!("pre-voted {term} asked {asked} {}", yes(granted))
        }
        Message::Vote { term, last, transfer } => {
            let transfer = if *transfer { " transfer" } else { "" };
            format!("vote {term} last {}{transfer}", show_point(*last))
        }
        Message::Voted { term, granted } => format!("voted {term} {}", yes(granted)),
        Message::Append(Append { term, from, prev_epoch, end, runs, commit_end }) => {
            let prev = prev_epoch.map_or("?".to_owned(), |epoch| epoch.to_string());
            let runs = runs.iter().map(|run| format!("{}:{}", run.start, run.epoch)).collect::<Vec<_>>();
            let runs = if runs.is_empty() { String::new() } else { format!(" runs {}", runs.join(",")) };
            format!("append {term} {from}..{end} after {prev}{runs} commit {commit_end}")
        }
        Message::Appended { term, durable_end } => format!("appended {term} {durable_end}"),
        Message::Rejected { term, hint } => format!("rejected {term} {}", show_point(*hint)),
        Message::StartAt { term, start, config } => {
            format!("start {term} {} config {}", show_point(*start), show_config(&config.config))
        }
        Message::TimeoutNow { term } => format!("timeout-now {term}"),
        Message::SteppedDown { term } => format!("stepped-down {term}"),
        Message::LostEnd { term } => format!("lost-end {term}"),
        Message::Fetch { term, from, until } => format!("fetch {term} {from}..{until}"),
    }
}
