//! Deliberate faults of the product, each of which some test must find: the test of the tests.
//!
//! A fault is a file in `tests/mutations`: a line that says what is wrong, the test that finds it, and what is written
//! instead of what. It is made in a copy of the tree, never in the tree itself.

mod run;

use std::fmt;
use std::path::Path;

pub use run::{Runner, Verdict};

/// Where the faults are.
pub const FOLDER: &str = "tests/mutations";
const CAUGHT_BY: &str = "caught by: ";
const OLD: &str = "<<<<";
const NEW: &str = "====";
const END: &str = ">>>>";

/// Of one file, what is written instead of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The file, from the root of the tree.
    pub path: String,
    /// Whole lines that are in it once.
    pub old: String,
    /// What is there instead.
    pub new: String,
}

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// The name of its file, without its ending.
    pub name: String,
    /// What is wrong, in one line.
    pub what: String,
    /// What cargo is told to run: it fails where the fault is found. `NAME=VALUE` before it are for the environment.
    pub caught_by: String,
    /// How it is made.
    pub edits: Vec<Edit>,
}

/// Why a fault cannot be made.
#[derive(Debug, PartialEq, Eq)]
pub enum Unfit {
    /// The file of the fault is not written as such files are: at this line.
    Syntax(usize),
    /// What is to be changed is in the file so many times, and not once.
    Found(String, usize),
    /// There is no such file.
    NoFile(String),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::Syntax(line) => write!(f, "line {line} is not as it must be: see {FOLDER}/README.md"),
            Unfit::Found(path, times) => {
                write!(f, "{path} holds what is to be changed {times} times: write it as it is there now")
            }
            Unfit::NoFile(path) => write!(f, "there is no {path}: say which file it is in now"),
        }
    }
}

impl Mutation {
    /// What a file says.
    pub fn parse(name: &str, text: &str) -> Result<Mutation, Unfit> {
        let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line));
        let mut next = |last: usize| lines.next().ok_or(Unfit::Syntax(last + 1));
        let (_, what) = next(0)?;
        let (at, caught_by) = next(1)?;
        let caught_by = caught_by.strip_prefix(CAUGHT_BY).ok_or(Unfit::Syntax(at))?.to_owned();
        let mut edits = Vec::new();
        while let Ok((at, path)) = next(at) {
            let (at, old) = next(at)?;
            if old != OLD {
                return Err(Unfit::Syntax(at));
            }
            let mut until = |end: &str| {
                let mut block = String::new();
                loop {
                    let (_, line) = next(at)?;
                    if line == end {
                        return Ok(block);
                    }
                    block.push_str(line);
                    block.push('\n');
                }
            };
            let (old, new) = (until(NEW)?, until(END)?);
            edits.push(Edit { path: path.to_owned(), old, new });
        }
        if edits.is_empty() {
            return Err(Unfit::Syntax(3));
        }
        Ok(Mutation { name: name.to_owned(), what: what.to_owned(), caught_by, edits })
    }

    /// The files as they are with the fault, where `read` gives them as they are without.
    pub fn made(&self, read: impl Fn(&str) -> Option<String>) -> Result<Vec<(String, String)>, Unfit> {
        let mut files: Vec<(String, String)> = Vec::new();
        for Edit { path, old, new } in &self.edits {
            let place = match files.iter().position(|(made, _)| made == path) {
                Some(place) => place,
                None => {
                    let text = read(path).ok_or_else(|| Unfit::NoFile(path.clone()))?;
                    files.push((path.clone(), text));
                    files.len() - 1
                }
            };
            let text = &mut files[place].1;
            let times = text.matches(old.as_str()).count();
            if times != 1 {
                return Err(Unfit::Found(path.clone(), times));
            }
            *text = text.replacen(old.as_str(), new, 1);
        }
        Ok(files)
    }
}

/// All faults of a tree, in order, or which file is not one, and why.
pub fn all(root: &Path) -> Result<Vec<Mutation>, String> {
    let folder = root.join(FOLDER);
    let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut mutations = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| format!("{}: {error}", folder.display()))?.path();
        if path.extension().is_none_or(|ending| ending != "mutation") {
            continue;
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{name}: {error}"))?;
        mutations.push(Mutation::parse(&name, &text).map_err(|error| format!("{name}: {error}"))?);
    }
    mutations.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(mutations)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "It counts wrong.\ncaught by: test -p x\na.rs\n<<<<\n1\n====\n2\n>>>>\n";

    #[test]
    fn a_fault_is_made_where_it_fits_and_nowhere_else() {
        let mutation = Mutation::parse("01-count", TEXT).expect("it is well written");
        assert_eq!((mutation.what.as_str(), mutation.caught_by.as_str()), ("It counts wrong.", "test -p x"));
        let made = |text: &'static str| mutation.made(|_| Some(text.to_owned()));
        assert_eq!(made("0\n1\n3\n"), Ok(vec![("a.rs".to_owned(), "0\n2\n3\n".to_owned())]));
        assert_eq!(made("0\n"), Err(Unfit::Found("a.rs".to_owned(), 0)));
        assert_eq!(made("1\n1\n"), Err(Unfit::Found("a.rs".to_owned(), 2)));
        assert_eq!(mutation.made(|_| None), Err(Unfit::NoFile("a.rs".to_owned())));
    }

    #[test]
    fn what_is_not_written_as_a_fault_is_none() {
        for (from, to) in [("caught by: ", ""), ("<<<<", "<<<"), ("====", "==="), (">>>>\n", "")] {
            assert!(Mutation::parse("x", &TEXT.replace(from, to)).is_err(), "{from:?}");
        }
        assert!(Mutation::parse("x", "It counts wrong.\ncaught by: test\n").is_err());
    }
}
