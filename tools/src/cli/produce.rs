//! Flags of `produce`.

use std::str::FromStr;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};

use super::{ServerArgs, setting};
use crate::encoding::Encoding;

/// Compression codec of batches.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum CompressionArg {
    /// No compression
    #[default]
    None,
    /// gzip
    Gzip,
    /// Snappy
    Snappy,
    /// LZ4
    Lz4,
    /// Zstandard
    Zstd,
}

const EXAMPLES: &str = "\
Examples:
  highwater produce orders < orders.txt               each line is the value of a record
  highwater produce orders -K : < orders.txt          key and value, separated by a colon
  highwater produce orders -k customer-7 paid         one record from the command line
  highwater produce orders -k customer-7 --tombstone ''
  highwater produce orders -v --value-encoding hex 00ff
  highwater consume orders --json | highwater produce copy --json";

/// `produce`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ProduceArgs {
    /// Topic to send to
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub topic: String,
    /// Records to send instead of the lines of stdin, parsed as those lines would be. Example: highwater produce orders first second
    #[arg(value_name = "RECORD")]
    pub records: Vec<String>,
    /// The key of every record. Example: -k customer-7
    #[arg(long, short, value_name = "KEY", conflicts_with_all = ["key_separator", "json"])]
    pub key: Option<String>,
    /// Separator between key and value; lines are split at its first occurrence, and a line without it has no key. Escapes as for `consume
    /// --format`. Example: -K '\t'
    #[arg(long, short = 'K', value_name = "TEXT", value_parser = separator, conflicts_with = "json")]
    pub key_separator: Option<Separator>,
    /// Encoding of keys in the input. Example: --key-encoding hex
    #[arg(long, value_name = "ENCODING", default_value = "text", conflicts_with = "json")]
    pub key_encoding: Encoding,
    /// Encoding of values in the input. Example: --value-encoding base64
    #[arg(long, value_name = "ENCODING", default_value = "text", conflicts_with = "json")]
    pub value_encoding: Encoding,
    /// Send an empty value as a tombstone (a null value), which deletes its key in a compacted topic
    #[arg(long, short = 'Z', conflicts_with = "json")]
    pub tombstone: bool,
    /// Add this header to every record; may be repeated. Example: -H trace=4bf92f35
    #[arg(long, short = 'H', value_name = "NAME=VALUE", value_parser = setting)]
    pub header: Vec<(String, String)>,
    /// Read JSON lines as printed by `consume --json`: value (null for a tombstone), key, headers (a list of objects with key and value, or one
    /// object), timestamp, partition; topic and offset are ignored. Example: {"key":"k","value":"v","headers":{"trace":"4bf92f35"}}
    #[arg(long)]
    pub json: bool,
    /// Compression codec of batches. Example: -z zstd
    #[arg(long, short = 'z', value_name = "CODEC", default_value = "none")]
    pub compression: CompressionArg,
    /// Send all records to this partition; with `any`, choose the partition by key and ignore the partition in JSON lines [default: the
    /// partition in the JSON line, else by key]. Example: -p 3
    #[arg(long, short, value_name = "N|any")]
    pub partition: Option<PartitionArg>,
    /// How long to wait for the acknowledgement of a record, retrying and reconnecting as needed, before giving up. Example: --timeout 10s
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = timeout)]
    pub timeout: Duration,
    /// Print the topic, partition and offset of each acknowledged record on stdout
    #[arg(long, short)]
    pub verbose: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Separator between key and value; not empty, no newline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Separator(pub Vec<u8>);

/// Value of `--partition`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PartitionArg {
    /// Chosen by the record's key.
    Any,
    /// This partition.
    Number(u32),
}

impl FromStr for PartitionArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "any" => Ok(Self::Any),
            _ => text
                .parse()
                .map(Self::Number)
                .map_err(|_| "expected a partition number, from 0, or `any`".to_owned()),
        }
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    Duration::try_from(crate::units::duration(text)?).map_err(|_| format!("`{text}` is negative"))
}

fn separator(text: &str) -> Result<Separator, String> {
    let bytes = crate::escape::unescape(text)?;
    match bytes.as_slice() {
        [] => Err("the separator must not be empty".into()),
        bytes if bytes.contains(&b'\n') => {
            Err("the separator must not contain a newline, because each line is a record".into())
        }
        _ => Ok(Separator(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_separator_is_not_empty_and_has_no_newline() {
        assert_eq!(separator(r"\t"), Ok(Separator(b"\t".to_vec())));
        assert_eq!(separator("::"), Ok(Separator(b"::".to_vec())));
        assert!(separator("").is_err());
        assert!(separator(r"a\n").is_err());
    }

    #[test]
    fn a_partition_is_a_number_or_any() {
        assert_eq!("any".parse(), Ok(PartitionArg::Any));
        assert_eq!("12".parse(), Ok(PartitionArg::Number(12)));
        for text in ["-1", "", "all", "4294967296"] {
            assert!(text.parse::<PartitionArg>().is_err(), "{text}");
        }
    }
}
