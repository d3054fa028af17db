//! Parses lines into records.

use bytes::Bytes;
use highwater_client::{Record, Timestamp};
use memchr::memmem::Finder;

use crate::cli::{PartitionArg, ProduceArgs};
use crate::encoding::Encoding;
use crate::json_input::{RecordInput, read_json};

/// Parser for the input format chosen on the command line.
pub(super) struct RecordParser<'a> {
    key: Option<Bytes>,
    separator: Option<Finder<'a>>,
    key_encoding: Encoding,
    value_encoding: Encoding,
    tombstone: bool,
    headers: Vec<(Bytes, Bytes)>,
    json: bool,
    partition: Option<PartitionArg>,
}

impl<'a> RecordParser<'a> {
    pub(super) fn new(args: &'a ProduceArgs) -> Result<Self, String> {
        let bytes = |text: &String| Bytes::copy_from_slice(text.as_bytes());
        let key = args.key.as_ref().map(|key| decode(args.key_encoding, "key", bytes(key)));
        Ok(Self {
            key: key.transpose()?,
            separator: args.key_separator.as_ref().map(|separator| Finder::new(&separator.0)),
            key_encoding: args.key_encoding,
            value_encoding: args.value_encoding,
            tombstone: args.tombstone,
            headers: args.header.iter().map(|(name, value)| (bytes(name), bytes(value))).collect(),
            json: args.json,
            partition: args.partition,
        })
    }

    /// Parses a line. Returns `None` for a blank line between JSON lines.
    pub(super) fn parse(&self, line: Bytes) -> Result<Option<Record>, String> {
        let mut record = if self.json {
            if line.iter().all(u8::is_ascii_whitespace) {
                return Ok(None);
            }
            self.json_record(read_json(&line)?)
        } else {
            self.text_record(line)?
        };
        for (name, value) in &self.headers {
            record = record.header(name.clone(), value.clone());
        }
        Ok(Some(match self.partition {
            Some(PartitionArg::Number(partition)) => record.partition(partition),
            Some(PartitionArg::Any) | None => record,
        }))
    }

    fn text_record(&self, mut line: Bytes) -> Result<Record, String> {
        let mut key = self.key.clone();
        if let Some(separator) = &self.separator
            && let Some(at) = separator.find(&line)
        {
            key = Some(decode(self.key_encoding, "key", line.split_to(at))?);
            bytes::Buf::advance(&mut line, separator.needle().len());
        }
        let record = match decode(self.value_encoding, "value", line)? {
            value if value.is_empty() && self.tombstone => Record::tombstone(),
            value => Record::new(value),
        };
        Ok(match key {
            Some(key) => record.key(key),
            None => record,
        })
    }

    fn json_record(&self, input: RecordInput) -> Record {
        let mut record = match input.value {
            Some(value) => Record::new(value),
            None => Record::tombstone(),
        };
        if let Some(key) = input.key {
            record = record.key(key);
        }
        if let Some(millis) = input.timestamp_ms {
            record = record.timestamp(Timestamp(millis));
        }
        if let (Some(partition), None) = (input.partition, self.partition) {
            record = record.partition(partition);
        }
        for (name, value) in input.headers {
            record = match value {
                Some(value) => record.header(name, value),
                None => record.null_header(name),
            };
        }
        record
    }
}

fn decode(encoding: Encoding, part: &str, text: Bytes) -> Result<Bytes, String> {
    Ok(encoding.decode(part, &text)?.map_or(text, Bytes::from))
}
