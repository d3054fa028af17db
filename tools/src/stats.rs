//! `stats`: a broker's counters as rates, one line per interval.

use std::time::Instant;

use highwater_client::{BrokerStats, Client};
use highwater_protocol::text::grouped;
use serde_json::{Map, Value};

use crate::cli::StatsArgs;
use crate::failure::Failure;
use crate::output;
use crate::session::with_client;
use crate::units::readable_bytes;

/// Number of lines after which the heading is repeated.
const LINES_PER_HEADING: u64 = 20;

/// Suffix of the names of gauges, which can decrease.
const GAUGE_SUFFIX: &str = ".now";

/// Heading, width and content of each column.
const COLUMNS: [(&str, usize, Column); 10] = [
    ("RECORDS/s", 11, Column::Rate("records.appended")),
    ("BATCHES/s", 10, Column::Rate("batches.appended")),
    ("REQUESTS/s", 10, Column::Rate("requests")),
    ("FAILED/s", 9, Column::Rate("requests.failed")),
    ("IN/s", 9, Column::Bytes("bytes.received")),
    ("OUT/s", 9, Column::Bytes("bytes.sent")),
    ("WRITE/s", 9, Column::Bytes("disk.bytes.written")),
    ("READ/s", 9, Column::Bytes("disk.bytes.read")),
    ("SYNCS/s", 9, Column::Rate("disk.syncs")),
    ("CONNECTIONS", 11, Column::Now("connections.now")),
];

/// Content of a column, with the name of its counter.
#[derive(Clone, Copy)]
enum Column {
    /// Increase per second.
    Rate(&'static str),
    /// Increase per second, in bytes.
    Bytes(&'static str),
    /// Current value.
    Now(&'static str),
}

/// Prints a line per interval until Ctrl-C or `--limit`.
pub(crate) fn run(args: &StatsArgs) -> Result<(), Failure> {
    with_client(&args.server, |client| async move {
        let mut lines = 0;
        let mut last = fetch_sample(&client).await?;
        while args.limit.is_none_or(|limit| lines < limit) {
            tokio::time::sleep(args.every).await;
            let now = fetch_sample(&client).await?;
            if args.json {
                output::print_json(&json(&last, &now))?;
            } else {
                let heading = if lines % LINES_PER_HEADING == 0 { headings() } else { String::new() };
                output::print(&(heading + &line(&last, &now)))?;
            }
            last = now;
            lines += 1;
        }
        Ok(())
    })
}

/// Counters and when they were read.
type Sample = (Instant, BrokerStats);

async fn fetch_sample(client: &Client) -> Result<Sample, Failure> {
    let reply = client.stats().await.map_err(Failure::general)?;
    Ok((Instant::now(), reply))
}

fn headings() -> String {
    COLUMNS.map(|(heading, width, _)| format!("{heading:>width$}")).join(" ") + "\n"
}

fn line((before, then): &Sample, (after, now): &Sample) -> String {
    let seconds = (*after - *before).as_secs_f64().max(0.001);
    let rate = |name: &str| (increase(then, now, name) as f64 / seconds).round() as u64;
    let cells = COLUMNS.map(|(_, width, column)| {
        let text = match column {
            Column::Rate(name) => grouped(rate(name)),
            Column::Bytes(name) => readable_bytes(rate(name)),
            Column::Now(name) => grouped(now.total(name).unwrap_or(0)),
        };
        format!("{text:>width$}")
    });
    cells.join(" ") + "\n"
}

/// Returns the increase of a counter. A counter that decreased belongs to a restarted broker and counts from zero.
fn increase(then: &BrokerStats, now: &BrokerStats, name: &str) -> u64 {
    let (then, now) = (then.total(name).unwrap_or(0), now.total(name).unwrap_or(0));
    now.checked_sub(then).unwrap_or(now)
}

fn json((before, then): &Sample, (after, now): &Sample) -> Value {
    let mut fields = Map::new();
    fields.insert("seconds".to_owned(), (*after - *before).as_secs_f64().into());
    for (name, _) in now.shards.iter().flat_map(|shard| &shard.counters) {
        let is_gauge = name.ends_with(GAUGE_SUFFIX);
        let value = if is_gauge { now.total(name).unwrap_or(0) } else { increase(then, now, name) };
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
        (at, BrokerStats { shards: vec![shard(0), shard(1)] })
    }

    #[test]
    fn counters_are_shown_as_rates_over_all_cores_and_gauges_as_current_values() {
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
    fn counters_of_a_restarted_broker_count_from_zero() {
        let (then, now) = (sample(Instant::now(), 1_000, 1), sample(Instant::now(), 10, 1));
        assert_eq!(increase(&then.1, &now.1, "records.appended"), 20);
    }
}
