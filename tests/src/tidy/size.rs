//! Files and functions that a reader can hold in mind.

use super::Broken;
use crate::source::Source;

/// Most lines of a file.
pub const MAX_FILE_LINES: usize = 600;
/// Most lines of a function, from its name to its closing brace.
pub const MAX_FUNCTION_LINES: usize = 70;

/// Files with too many lines.
pub fn file_lines(source: &Source) -> Vec<Broken> {
    let lines = source.text.lines().count();
    let what = format!("{lines} lines, {MAX_FILE_LINES} are the most; split it by idea");
    if lines > MAX_FILE_LINES { vec![Broken::new(&source.path, 1, what)] } else { vec![] }
}

/// Functions with too many lines.
pub fn function_lines(source: &Source) -> Vec<Broken> {
    let long = source.functions().into_iter().filter(|(_, _, lines)| *lines > MAX_FUNCTION_LINES);
    long.map(|(name, first, lines)| {
        let what = format!("fn {name} has {lines} lines, {MAX_FUNCTION_LINES} are the most; split it");
        Broken::new(&source.path, first, what)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_measured_at_the_limit_and_above() {
        let at = Source::new("x/src/a.rs", &"\n".repeat(MAX_FILE_LINES));
        let above = Source::new("x/src/a.rs", &"\n".repeat(MAX_FILE_LINES + 1));
        assert_eq!((file_lines(&at).len(), file_lines(&above).len()), (0, 1));
    }

    #[test]
    fn a_function_is_measured_at_the_limit_and_above() {
        let function = |lines: usize| format!("fn f() {{{}}}", "\n".repeat(lines - 1));
        let at = Source::new("x/src/a.rs", &function(MAX_FUNCTION_LINES));
        let above = Source::new("x/src/a.rs", &function(MAX_FUNCTION_LINES + 1));
        assert_eq!((function_lines(&at).len(), function_lines(&above).len()), (0, 1));
    }
}
