//! Lines with what stands out in them, cut to what a terminal shows.

use std::fmt::Write;

use lode_node::escape::harmless;

/// How text stands out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Not at all.
    #[default]
    Plain,
    /// It is a heading.
    Bold,
    /// It matters less.
    Dim,
    /// All is well.
    Good,
    /// Somebody should look.
    Odd,
    /// Something is broken.
    Bad,
}

/// What the terminal can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing: it is a file or a pipe.
    Plain,
    /// No colours are wanted.
    Bold,
    /// Colours.
    Colours,
}

impl Tone {
    fn code(self, look: Look) -> Option<&'static str> {
        match (look, self) {
            (Look::Plain, _) | (_, Tone::Plain) => None,
            (_, Tone::Bold) => Some("1"),
            (_, Tone::Dim) => Some("2"),
            (Look::Bold, _) => Some("1"),
            (Look::Colours, Tone::Good) => Some("1;32"),
            (Look::Colours, Tone::Odd) => Some("1;33"),
            (Look::Colours, Tone::Bad) => Some("1;31"),
        }
    }
}

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(Vec<(Tone, String)>);

impl Line {
    /// A line that begins with this.
    pub fn of(tone: Tone, text: impl Into<String>) -> Line {
        Line::default().and(tone, text)
    }

    /// The same with more behind it. What would move the cursor is told in letters.
    pub fn and(mut self, tone: Tone, text: impl Into<String>) -> Line {
        self.0.push((tone, harmless(&text.into(), "").into_owned()));
        self
    }

    /// In at most so many columns.
    pub fn render(&self, columns: usize, look: Look) -> String {
        let mut left = columns;
        let mut line = String::new();
        for (tone, text) in &self.0 {
            let shown: String = text.chars().take(left).collect();
            left -= shown.chars().count();
            // A string takes whatever is written to it.
            let _ = match tone.code(look) {
                Some(code) => write!(line, "\x1b[{code}m{shown}\x1b[0m"),
                None => write!(line, "{shown}"),
            };
        }
        line
    }
}

/// As many lines as there is room for, the last room for the last line.
pub fn fitted(lines: &[Line], (columns, rows): (usize, usize), look: Look) -> Vec<String> {
    let [first @ .., last] = lines else { return Vec::new() };
    let shown = first.iter().take(rows.saturating_sub(1));
    shown.chain([last]).map(|line| line.render(columns, look)).collect()
}

/// A table: the first column to the left and as wide as it may be, the others to the right.
pub struct Table {
    widths: Vec<usize>,
}

impl Table {
    /// With columns of these widths.
    pub fn new(widths: &[usize]) -> Table {
        Table { widths: widths.to_vec() }
    }

    /// One row.
    pub fn row(&self, cells: &[&str]) -> String {
        let mut row = String::new();
        for (number, (cell, width)) in cells.iter().zip(&self.widths).enumerate() {
            let cell: String = match cell.chars().count() > *width {
                true => cell.chars().take(width.saturating_sub(1)).chain(['~']).collect(),
                false => (*cell).to_owned(),
            };
            // A string takes whatever is written to it.
            let _ = match number {
                0 => write!(row, " {cell:<width$}"),
                _ => write!(row, " {cell:>width$}"),
            };
        }
        row
    }
}

/// A bar of so many columns, a part of it full.
pub fn bar(part: f64, columns: usize) -> String {
    let full = (part.clamp(0.0, 1.0) * columns as f64).round() as usize;
    format!("[{}{}]", "#".repeat(full), ".".repeat(columns - full))
}

/// Numbers as heights, the largest as high as can be.
pub fn heights(numbers: &[f64]) -> String {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = numbers.iter().copied().fold(0.0, f64::max).max(1.0);
    let height = |number: &f64| HEIGHTS[((number / most * 7.0).round().clamp(0.0, 7.0)) as usize];
    numbers.iter().map(height).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_where_the_terminal_ends_and_cannot_move_it() {
        let line = Line::of(Tone::Bad, "red").and(Tone::Plain, " and long");
        assert_eq!(line.render(5, Look::Colours), "\x1b[1;31mred\x1b[0m a");
        assert_eq!(line.render(100, Look::Plain), "red and long");
        let hostile = Line::of(Tone::Plain, "a\x1b[2J\u{202e}b\n").render(100, Look::Colours);
        assert_eq!(hostile, "a\\u{1b}[2J\\u{202e}b\\n");
        let lines: Vec<Line> = (0..9).map(|n| Line::of(Tone::Plain, n.to_string())).collect();
        assert_eq!(fitted(&lines, (80, 3), Look::Plain), ["0", "1", "8"]);
        assert_eq!(fitted(&lines, (80, 0), Look::Plain), ["8"]);
    }

    #[test]
    fn bars_heights_and_tables_keep_their_widths() {
        assert_eq!((bar(0.5, 4), bar(7.0, 2), bar(-1.0, 2)), ("[##..]".into(), "[##]".into(), "[..]".into()));
        assert_eq!(heights(&[0.0, 50.0, 100.0]), "▁▅█");
        assert_eq!(heights(&[0.0]), "▁");
        assert_eq!(Table::new(&[4, 3]).row(&["long name", "7"]), " lon~   7");
    }
}
