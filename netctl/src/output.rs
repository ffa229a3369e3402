//! How answers look: columns that line up, colours on a terminal and nowhere else.

use std::env;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

/// What a cell says about the thing it describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Nothing in particular.
    Plain,
    /// All is well.
    Good,
    /// It is not.
    Bad,
}

/// One cell of a table.
pub(crate) type Cell = (String, Tone);

/// A cell that says nothing in particular.
pub(crate) fn plain(text: impl ToString) -> Cell {
    (text.to_string(), Tone::Plain)
}

/// Prints `rows` in columns, each as wide as its widest cell.
pub(crate) fn table(rows: &[Vec<Cell>]) -> io::Result<()> {
    let coloured = io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none();
    io::stdout().write_all(lay_out(rows, coloured).as_bytes())
}

/// Prints `value` as JSON: all at once, for standard output is written line by line.
pub(crate) fn json(value: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    io::stdout().write_all(text.as_bytes())
}

fn lay_out(rows: &[Vec<Cell>], coloured: bool) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.0.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        for (column, (cell, tone)) in row.iter().enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            let (on, off) = match tone {
                Tone::Good if coloured => ("\x1b[32m", "\x1b[0m"),
                Tone::Bad if coloured => ("\x1b[31m", "\x1b[0m"),
                _ => ("", ""),
            };
            let fill = if column + 1 == row.len() { 0 } else { widths[column] - cell.chars().count() };
            // Writing to a string cannot fail.
            let _ = write!(text, "{gap}{on}{cell}{off}{:fill$}", "");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_the_letters_and_colours_do_not_count() {
        let rows = [
            vec![plain("web"), plain("80 → 10.0.0.2"), ("missing".to_owned(), Tone::Bad)],
            vec![plain("a"), plain("x"), plain("y")],
        ];
        assert_eq!(lay_out(&rows, false), "web  80 → 10.0.0.2  missing\na    x              y\n");
        assert!(lay_out(&rows, true).contains("\x1b[31mmissing\x1b[0m\n"));
    }
}
