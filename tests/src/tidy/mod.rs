//! The rules of the house. Each takes source and gives the lines that break it.

mod documents;
mod floors;
mod forbidden;
mod size;

pub use documents::{broken_links, missing_names};
pub use floors::{CARGO_FLOORS, manifest_floors, source_floors};
pub use forbidden::{engine_calls, left_over, unsafe_rooms, unwraps};
pub use size::{MAX_FILE_LINES, MAX_FUNCTION_LINES, file_lines, function_lines};

/// One broken rule: where, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// File, from the checkout's root.
    pub path: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong, and what to do.
    pub what: String,
}

impl Broken {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Broken {
        Broken { path: path.to_owned(), line, what: what.into() }
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}
