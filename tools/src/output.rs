//! Small output on stdout, with a closed pipe understood.

use std::borrow::Cow;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;

use serde::Serialize;

use crate::failure::Failure;
use crate::progress;

/// Prints text as it is.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// Prints bytes as they are.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|e| Failure::stdout(&e))
}

/// Says on stderr what went wrong.
pub(crate) fn complain(what: &impl std::fmt::Display) {
    // If stderr is gone too, the exit code still says it.
    let what = what.to_string();
    let lines: Vec<Cow<'_, str>> = what.split('\n').map(printable).collect();
    progress::beside(|| {
        let _ = writeln!(std::io::stderr(), "highwater: {}", lines.join("\n"));
    });
}

/// Prints one line of JSON.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let mut line = serde_json::to_vec(value).expect("what is printed has a JSON form");
    line.push(b'\n');
    print_bytes(&line)
}

/// Prints descriptions one after the other: as lines of JSON, or as text with an empty line between them.
pub(crate) struct Descriptions {
    json: bool,
    has_printed: bool,
}

impl Descriptions {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, has_printed: false }
    }

    /// Prints the next one.
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

/// Stdout without the buffer that `std` puts in front of it, for those who bring their own.
pub(crate) struct RawStdout(File);

impl RawStdout {
    pub(crate) fn new() -> Result<Self, Failure> {
        let stdout = std::io::stdout().as_fd().try_clone_to_owned();
        stdout.map(|fd| Self(File::from(fd))).map_err(|e| Failure::stdout(&e))
    }

    /// Writes all of it.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.0.write_all(bytes).map_err(|e| Failure::stdout(&e))
    }
}

/// Text that others have chosen, for a terminal: a control character in it is shown as an escape and does nothing.
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

/// Lines of columns, each as wide as its widest cell, the last one not padded. No cell is cut, and all are [`printable`].
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
    fn columns_line_up_and_the_last_one_has_no_spaces_behind_it() {
        let rows = [vec!["NAME".to_owned(), "N".to_owned()], vec!["a".to_owned(), "10".to_owned()]];
        assert_eq!(table(&rows), "NAME  N\na     10\n");
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn control_characters_in_names_of_others_do_nothing_to_the_terminal() {
        assert_eq!(printable("orders-ü"), "orders-ü");
        assert_eq!(
            table(&[vec!["a\x1b[2J\n".to_owned(), "b\t\u{9b}".to_owned()]]),
            "a\\u{1b}[2J\\n  b\\t\\u{9b}\n"
        );
    }
}
