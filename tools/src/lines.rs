//! Fast reading of lines: large reads, passed on as blocks of whole lines.
//!
//! A block is passed on as soon as a read completes a line, so slow or interactive input is not delayed.

use std::io::{self, Read};

use bytes::{Bytes, BytesMut};
use memchr::{memchr, memrchr};

/// Size of a read, in bytes.
const READ_BYTES: usize = 256 << 10;

/// Maximum length of a line, in bytes. No broker accepts a larger record.
pub(crate) const LINE_BYTES_MAX: usize = highwater_protocol::limits::BATCH_BYTES_MAX;

/// Reads `input` to its end and passes it to `block` in blocks of whole lines. The last line may lack its newline. Stops early when `block`
/// returns false.
pub(crate) fn read_blocks(mut input: impl Read, mut block: impl FnMut(Bytes) -> bool) -> io::Result<()> {
    let mut pending = BytesMut::new();
    loop {
        let filled = pending.len();
        pending.resize(filled + READ_BYTES, 0);
        let n = loop {
            match input.read(&mut pending[filled..]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        pending.truncate(filled + n);
        if n == 0 {
            if !pending.is_empty() {
                block(pending.freeze());
            }
            return Ok(());
        }
        if let Some(newline) = memrchr(b'\n', &pending[filled..]) {
            let whole = pending.split_to(filled + newline + 1).freeze();
            if !block(whole) {
                return Ok(());
            }
        } else if pending.len() > LINE_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a line is longer than {LINE_BYTES_MAX} bytes, the maximum size of a record"),
            ));
        }
    }
}

/// Returns the lines of a block without their newlines, as slices of its memory.
pub(crate) fn lines(mut block: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        if block.is_empty() {
            return None;
        }
        Some(match memchr(b'\n', &block) {
            Some(end) => {
                let line = block.split_to(end);
                bytes::Buf::advance(&mut block, 1);
                line
            }
            None => std::mem::take(&mut block),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that returns its text in pieces of a given size.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(buffer.len());
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn all_lines(text: &[u8], piece: usize) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        read_blocks(Pieces(text, piece), |block| {
            found.extend(lines(block).map(|line| line.to_vec()));
            true
        })
        .expect("reading from memory does not fail");
        found
    }

    #[test]
    fn lines_are_complete_and_in_order_whatever_the_read_sizes() {
        let text = b"one\n\n\0two\xff\r\nthree\n\nlast";
        let expect: Vec<Vec<u8>> = text.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
        for piece in [1, 2, 3, 7, 1000] {
            assert_eq!(all_lines(text, piece), expect, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_newline_at_the_end_does_not_start_another_line() {
        assert_eq!(all_lines(b"a\n", 10), [b"a"]);
        assert_eq!(all_lines(b"\n", 10), [b""]);
        assert!(all_lines(b"", 10).is_empty());
    }

    #[test]
    fn a_line_above_the_maximum_length_is_an_error() {
        let endless = io::repeat(b'x');
        let error = read_blocks(endless, |_| true).expect_err("the line never ends");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn reading_stops_when_the_blocks_are_no_longer_wanted() {
        let endless = io::repeat(b'\n');
        let mut blocks = 0;
        read_blocks(endless, |_| {
            blocks += 1;
            blocks < 3
        })
        .expect("reading from memory does not fail");
        assert_eq!(blocks, 3);
    }
}
