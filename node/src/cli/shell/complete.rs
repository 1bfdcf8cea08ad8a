//! Completion of commands, options and table names.

use rustyline::completion::{Completer, Pair};
use rustyline::{Context, Helper, Highlighter, Hinter, Validator};

/// The commands of the shell, in the order in which they are offered.
pub const COMMANDS: &[&str] = &[
    "batch",
    "begin",
    "checkpoint",
    "commit",
    "count",
    "del",
    "exit",
    "expire",
    "get",
    "help",
    "incr",
    "max",
    "min",
    "persist",
    "ping",
    "put",
    "quit",
    "rollback",
    "scan",
    "scrub",
    "stats",
    "table",
    "ttl",
    "use",
];

/// What the line editor asks for completions.
#[derive(Helper, Highlighter, Hinter, Validator)]
pub struct Completions {
    /// The node's tables, as the client knows them.
    pub tables: Vec<String>,
    /// Whether a table is in use, so that commands do not name one.
    pub table_in_use: bool,
}

impl Completions {
    /// What may stand at the end of `line`: the place where the last word begins, and its candidates.
    pub fn candidates(&self, line: &str) -> (usize, Vec<String>) {
        let start = line.rfind(char::is_whitespace).map_or(0, |blank| blank + 1);
        let (before, word) = line.split_at(start);
        let before: Vec<&str> = before.split_whitespace().collect();
        let pool: Vec<String> = match before.as_slice() {
            [] => owned(COMMANDS),
            [command, ..] if word.starts_with('-') => owned(options_of(command)),
            ["help"] => owned(COMMANDS),
            ["table"] => owned(&["create", "drop", "list", "set", "show"]),
            ["use"] | ["table", "drop" | "set" | "show"] => self.tables.clone(),
            [command] if takes_table(command) && !self.table_in_use => self.tables.clone(),
            _ => Vec::new(),
        };
        (start, pool.into_iter().filter(|candidate| candidate.starts_with(word)).collect())
    }
}

/// Whether the command's first word is a table.
pub fn takes_table(command: &str) -> bool {
    matches!(
        command,
        "get"
            | "put"
            | "del"
            | "incr"
            | "ttl"
            | "expire"
            | "persist"
            | "scan"
            | "min"
            | "max"
            | "count"
            | "batch"
            | "begin"
    )
}

fn options_of(command: &str) -> &'static [&'static str] {
    match command {
        "put" => &["--file", "--if-absent", "--if-seq", "--no-ttl", "--ttl"],
        "del" => &["--if-seq"],
        "begin" => &["--read-only"],
        "incr" => &["--initial"],
        "scan" => &["--keys-only", "--limit", "--prefix", "--reverse"],
        "count" => &["--prefix"],
        "table" => &[
            "--burst",
            "--key",
            "--partitions",
            "--placement",
            "--read-bytes-per-s",
            "--requests-per-s",
            "--reset",
            "--split",
            "--store",
            "--ttl",
            "--weight",
            "--write-bytes-per-s",
        ],
        _ => &[],
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

impl Completer for Completions {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, candidates) = self.candidates(&line[..at]);
        let pair = |word: String| Pair { replacement: format!("{word} "), display: word };
        Ok((start, candidates.into_iter().map(pair).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_decides_what_is_offered() {
        let mut completions = Completions { tables: owned(&["users", "urls"]), table_in_use: false };
        for (line, start, expected) in [
            ("ge", 0, &["get"][..]),
            ("", 0, COMMANDS),
            ("get u", 4, &["users", "urls"]),
            ("get us", 4, &["users"]),
            ("get users k", 10, &[]),
            ("use ", 4, &["users", "urls"]),
            ("table ", 6, &["create", "drop", "list", "set", "show"]),
            ("table drop ur", 11, &["urls"]),
            ("scan users --k", 11, &["--keys-only"]),
        ] {
            assert_eq!(completions.candidates(line), (start, owned(expected)), "{line}");
        }
        completions.table_in_use = true;
        assert_eq!(completions.candidates("get u"), (4, Vec::new()));
    }
}
