//! Output on stdout and messages on stderr. A closed stdout ends the command quietly.

use std::borrow::Cow;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;

use serde::Serialize;

use crate::failure::Failure;
use crate::progress;

/// Prints text unchanged.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// Prints bytes unchanged.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|e| Failure::stdout(&e))
}

/// Prints a message on stderr, prefixed with the program's name.
pub(crate) fn print_stderr(message: &impl std::fmt::Display) {
    // Errors are ignored: if stderr is closed, the exit code still reports the failure.
    let message = message.to_string();
    let lines: Vec<Cow<'_, str>> = message.split('\n').map(printable).collect();
    progress::with_progress_hidden(|| {
        let _ = writeln!(std::io::stderr(), "highwater: {}", lines.join("\n"));
    });
}

/// Prints a value as one line of JSON.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let mut line = serde_json::to_vec(value).expect("output types serialize to JSON");
    line.push(b'\n');
    print_bytes(&line)
}

/// Printer for a sequence of descriptions: as lines of JSON, or as text separated by empty lines.
pub(crate) struct Descriptions {
    json: bool,
    has_printed: bool,
}

impl Descriptions {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, has_printed: false }
    }

    /// Prints the next description.
    pub(crate) fn print(
        &mut self,
        described: &impl Serialize,
        to_text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if self.json {
            return print_json(described);
        }
        print(if self.has_printed { "\n" } else { "" })?;
        self.has_printed = true;
        print(&to_text())
    }
}

/// Stdout without `std`'s buffer, for callers that have their own.
pub(crate) struct RawStdout(File);

impl RawStdout {
    pub(crate) fn new() -> Result<Self, Failure> {
        let stdout = std::io::stdout().as_fd().try_clone_to_owned();
        stdout.map(|fd| Self(File::from(fd))).map_err(|e| Failure::stdout(&e))
    }

    /// Writes all bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.0.write_all(bytes).map_err(|e| Failure::stdout(&e))
    }
}

/// Replaces control characters by escapes, so that untrusted text cannot control the terminal.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Formats rows as a table. Columns are as wide as their widest cell, the last one is not padded, and cells are [`printable`] and never
/// truncated.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<Cow<'_, str>>> =
        rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|i| rows.iter().filter_map(|row| row.get(i)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for row in &rows {
        for (i, cell) in row.iter().enumerate() {
            out.push_str(cell);
            if i + 1 < row.len() {
                let gap = widths.get(i).copied().unwrap_or(0) - cell.chars().count() + 2;
                out.extend(std::iter::repeat_n(' ', gap));
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_the_last_one_has_no_trailing_spaces() {
        let rows = [vec!["NAME".to_owned(), "N".to_owned()], vec!["a".to_owned(), "10".to_owned()]];
        assert_eq!(table(&rows), "NAME  N\na     10\n");
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn control_characters_in_names_are_escaped() {
        assert_eq!(printable("orders-ü"), "orders-ü");
        assert_eq!(
            table(&[vec!["a\x1b[2J\n".to_owned(), "b\t\u{9b}".to_owned()]]),
            "a\\u{1b}[2J\\n  b\\t\\u{9b}\n"
        );
    }
}
