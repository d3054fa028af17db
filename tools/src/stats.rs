//! `stats`: what a broker does, a line for each interval.

use std::time::Instant;

use highwater_client::{Client, StatsReply};
use highwater_protocol::text::grouped;
use serde_json::{Map, Value};

use crate::cli::StatsArgs;
use crate::failure::Failure;
use crate::output;
use crate::session::with_client;
use crate::units::readable_bytes;

/// Lines after which the headings are repeated.
const LINES_A_HEADING: u64 = 20;

/// A counter that goes up and down ends so.
const NOW: &str = ".now";

/// Headings, the widest values under each, and what is under it.
const COLUMNS: [(&str, usize, Shown); 10] = [
    ("RECORDS/s", 11, Shown::Rate("records.appended")),
    ("BATCHES/s", 10, Shown::Rate("batches.appended")),
    ("REQUESTS/s", 10, Shown::Rate("requests")),
    ("REFUSED/s", 9, Shown::Rate("requests.refused")),
    ("IN/s", 9, Shown::Bytes("bytes.received")),
    ("OUT/s", 9, Shown::Bytes("bytes.sent")),
    ("WRITE/s", 9, Shown::Bytes("disk.bytes.written")),
    ("READ/s", 9, Shown::Bytes("disk.bytes.read")),
    ("SYNCS/s", 9, Shown::Rate("disk.syncs")),
    ("CONNECTIONS", 11, Shown::Now("connections.now")),
];

/// How a counter is shown.
#[derive(Clone, Copy)]
enum Shown {
    Rate(&'static str),
    Bytes(&'static str),
    Now(&'static str),
}

/// Prints lines until Ctrl-C, or as many as were asked for.
pub(crate) fn run(args: &StatsArgs) -> Result<(), Failure> {
    with_client(&args.server, |client| async move {
        let mut lines = 0;
        let mut last = ask(&client).await?;
        while args.limit.is_none_or(|limit| lines < limit) {
            tokio::time::sleep(args.every).await;
            let now = ask(&client).await?;
            if args.json {
                output::print_json(&json(&last, &now))?;
            } else {
                let heading = if lines % LINES_A_HEADING == 0 { headings() } else { String::new() };
                output::print(&(heading + &line(&last, &now)))?;
            }
            last = now;
            lines += 1;
        }
        Ok(())
    })
}

type Sample = (Instant, StatsReply);

async fn ask(client: &Client) -> Result<Sample, Failure> {
    let reply = client.stats().await.map_err(Failure::general)?;
    Ok((Instant::now(), reply))
}

fn headings() -> String {
    COLUMNS.map(|(heading, width, _)| format!("{heading:>width$}")).join(" ") + "\n"
}

fn line((before, then): &Sample, (after, now): &Sample) -> String {
    let seconds = (*after - *before).as_secs_f64().max(0.001);
    let rate = |name: &str| (grown(then, now, name) as f64 / seconds).round() as u64;
    let cells = COLUMNS.map(|(_, width, shown)| {
        let text = match shown {
            Shown::Rate(name) => grouped(rate(name)),
            Shown::Bytes(name) => readable_bytes(rate(name)),
            Shown::Now(name) => grouped(now.total(name).unwrap_or(0)),
        };
        format!("{text:>width$}")
    });
    cells.join(" ") + "\n"
}

/// What a counter grew by. One that fell is that of a broker that was started anew.
fn grown(then: &StatsReply, now: &StatsReply, name: &str) -> u64 {
    let (then, now) = (then.total(name).unwrap_or(0), now.total(name).unwrap_or(0));
    now.checked_sub(then).unwrap_or(now)
}

fn json((before, then): &Sample, (after, now): &Sample) -> Value {
    let mut fields = Map::new();
    fields.insert("seconds".to_owned(), (*after - *before).as_secs_f64().into());
    for (name, _) in now.shards.iter().flat_map(|shard| &shard.counters) {
        let value = if name.ends_with(NOW) { now.total(name).unwrap_or(0) } else { grown(then, now, name) };
        fields.insert(name.clone(), value.into());
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use highwater_client::{ShardId, ShardStats};

    use super::*;

    fn sample(at: Instant, records: u64, connections: u64) -> Sample {
        let counters =
            vec![("records.appended".to_owned(), records), ("connections.now".to_owned(), connections)];
        let shard = |n| ShardStats { shard: ShardId(n), counters: counters.clone() };
        (at, StatsReply { shards: vec![shard(0), shard(1)] })
    }

    #[test]
    fn counters_are_rates_of_all_cores_and_those_of_now_are_as_they_are() {
        let began = Instant::now();
        let (then, now) = (sample(began, 1_000, 5), sample(began + Duration::from_secs(2), 6_000, 2));
        let line = line(&then, &now);
        let cells: Vec<&str> = line.split_whitespace().collect();
        assert_eq!((cells[0], cells.last()), ("5,000", Some(&"4")), "{line}");
        let json = json(&then, &now);
        assert_eq!((&json["records.appended"], &json["connections.now"]), (&10_000.into(), &4.into()));
        assert_eq!(json["seconds"], 2.0);
    }

    #[test]
    fn a_broker_that_was_started_anew_counts_from_nothing() {
        let (then, now) = (sample(Instant::now(), 1_000, 1), sample(Instant::now(), 10, 1));
        assert_eq!(grown(&then.1, &now.1, "records.appended"), 20);
    }
}
