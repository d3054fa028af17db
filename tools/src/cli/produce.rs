//! The flags of `produce`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{ServerArgs, setting};

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

/// `produce`.
#[derive(Args, Debug)]
pub(crate) struct ProduceArgs {
    /// Topic to send to
    pub topic: String,
    /// What separates key and value in a line, at its first occurrence; a line without it has no key. Escapes as in --format
    #[arg(long, short = 'K', value_name = "TEXT", value_parser = separator, conflicts_with = "json")]
    pub key_separator: Option<Separator>,
    /// A header for every record; may be given more than once
    #[arg(long, short = 'H', value_name = "NAME=VALUE", value_parser = setting)]
    pub header: Vec<(String, String)>,
    /// Read JSON lines as `consume --json` prints them: key, value, headers, timestamp
    #[arg(long)]
    pub json: bool,
    /// Compression of batches
    #[arg(long, short = 'z', value_name = "CODEC", default_value = "none")]
    pub compression: CompressionArg,
    /// Send everything to this partition; otherwise the key decides
    #[arg(long, short, value_name = "N")]
    pub partition: Option<u32>,
    /// How long to try for the acknowledgement of a record, reconnecting as needed, before giving up
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = patience)]
    pub timeout: Duration,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Bytes between key and value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Separator(pub Vec<u8>);

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
}
