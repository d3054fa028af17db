//! `start`: runs a broker in this process until a signal stops it.

use std::path::absolute;

use highwater_engine::{Broker, ReadyInfo, StartError};

use crate::failure::Failure;
use crate::output;
use crate::settings::Settings;
use crate::units::ByteSize;

/// Runs a broker until SIGTERM, SIGINT or SIGHUP.
pub(crate) fn run(settings: &Settings) -> Result<(), Failure> {
    let broker = match Broker::start(settings.to_broker_config()) {
        Ok(broker) => broker,
        Err(e @ StartError::Stopped) => {
            tracing::info!("{e}");
            return Ok(());
        }
        Err(e) => return Err(Failure::Message { code: e.exit_code(), message: e.to_string() }),
    };
    for warning in &broker.ready().warnings {
        tracing::warn!("{warning}");
    }
    let ready = ready_line(broker.ready());
    tracing::info!("{ready}");
    // A closed stdout does not stop the broker.
    if output::print(&format!("{ready}\n")).is_err() {
        tracing::warn!("cannot print the `ready` line: stdout is closed");
    }
    match broker.wait() {
        0 => Ok(()),
        code => Err(Failure::Quiet(code)),
    }
}

/// Formats the line that reports readiness: `ready` and fields of the form `name=value`. A value with spaces is quoted.
fn ready_line(ready: &ReadyInfo) -> String {
    let native = ready.native.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let kafka = match &ready.kafka[..] {
        [] => "none".to_owned(),
        addresses => addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    };
    let data = absolute(&ready.data_dir).unwrap_or_else(|_| ready.data_dir.clone());
    let peers = ready.peers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let node = if peers.is_empty() { String::new() } else { format!(" node={} peers={peers}", ready.node) };
    format!(
        "ready native={native} kafka={kafka}{node} data={} cores={} memory={} durability={} topics={} partitions={} took_ms={}",
        quoted(&data.to_string_lossy()),
        ready.cores,
        ByteSize(ready.memory_bytes),
        quoted(&ready.durability),
        ready.topics,
        ready.partitions,
        ready.took.as_millis(),
    )
}

fn quoted(value: &str) -> String {
    let plain =
        !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"');
    if plain { value.to_owned() } else { format!("{value:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_empty_values_and_those_with_spaces_or_control_characters_are_quoted() {
        assert_eq!(quoted("/var/lib/highwater"), "/var/lib/highwater");
        assert_eq!(quoted("/my data"), "\"/my data\"");
        assert_eq!(quoted("a\nb"), "\"a\\nb\"");
        assert_eq!(quoted(""), "\"\"");
    }
}
