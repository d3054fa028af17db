//! The flags of `produce`.

use std::str::FromStr;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};

use super::{ServerArgs, setting};
use crate::encoding::Encoding;

/// How a producer compresses its batches.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum CompressionArg {
    /// As they are
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
    /// Records to send instead of the lines of stdin, understood as lines are. Example: highwater produce orders first second
    #[arg(value_name = "RECORD")]
    pub records: Vec<String>,
    /// The key of every record. Example: -k customer-7
    #[arg(long, short, value_name = "KEY", conflicts_with_all = ["key_separator", "json"])]
    pub key: Option<String>,
    /// What separates key and value in a line, at its first occurrence; a line without it has no key. Escapes as in --format. Example: -K '\t'
    #[arg(long, short = 'K', value_name = "TEXT", value_parser = separator, conflicts_with = "json")]
    pub key_separator: Option<Separator>,
    /// How keys are written. Example: --key-encoding hex
    #[arg(long, value_name = "ENCODING", default_value = "text", conflicts_with = "json")]
    pub key_encoding: Encoding,
    /// How values are written. Example: --value-encoding base64
    #[arg(long, value_name = "ENCODING", default_value = "text", conflicts_with = "json")]
    pub value_encoding: Encoding,
    /// Send an empty value as none at all: a tombstone, which deletes its key in a compacted topic
    #[arg(long, short = 'Z', conflicts_with = "json")]
    pub tombstone: bool,
    /// A header for every record; may be given more than once. Example: -H trace=4bf92f35
    #[arg(long, short = 'H', value_name = "NAME=VALUE", value_parser = setting)]
    pub header: Vec<(String, String)>,
    /// Read JSON lines as `consume --json` prints them: value (null for a tombstone), key, headers (a list of key and value, or an object),
    /// timestamp, partition; topic and offset have no effect. Example: {"key":"k","value":"v","headers":{"trace":"4bf92f35"}}
    #[arg(long)]
    pub json: bool,
    /// Compression of batches. Example: -z zstd
    #[arg(long, short = 'z', value_name = "CODEC", default_value = "none")]
    pub compression: CompressionArg,
    /// Send everything to this partition; `any`: the key decides, whatever JSON lines say. Otherwise JSON lines decide, then the key.
    /// Example: -p 3
    #[arg(long, short, value_name = "N|any")]
    pub partition: Option<PartitionArg>,
    /// How long to try for the acknowledgement of a record, reconnecting as needed, before giving up. Example: --timeout 10s
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = patience)]
    pub timeout: Duration,
    /// Print topic, partition and offset of each record on stdout when it is acknowledged
    #[arg(long, short)]
    pub verbose: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Bytes between key and value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Separator(pub Vec<u8>);

/// Which partition records go to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PartitionArg {
    /// The one that the key decides.
    Any,
    /// This one.
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
                .map_err(|_| "expected is the number of a partition, from 0, or `any`".to_owned()),
        }
    }
}

fn patience(text: &str) -> Result<Duration, String> {
    Duration::try_from(crate::units::duration(text)?).map_err(|_| format!("`{text}` is before now"))
}

fn separator(text: &str) -> Result<Separator, String> {
    let bytes = crate::escape::unescape(text)?;
    match bytes.as_slice() {
        [] => Err("an empty separator separates nothing".into()),
        bytes if bytes.contains(&b'\n') => {
            Err("a record is a line: a newline cannot separate key and value".into())
        }
        _ => Ok(Separator(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_separator_is_at_least_one_byte_and_no_newline() {
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
