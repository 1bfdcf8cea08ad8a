//! The checkout's own source, read so that rules can be held against it.
//!
//! Not a parser: comments, strings and character literals are blanked, so that what is left can be
//! searched for words without finding them in prose.

use std::fs;
use std::path::{Path, PathBuf};

/// One file of Rust.
#[derive(Debug)]
pub struct Source {
    /// From the checkout's root, with `/`.
    pub path: String,
    /// As it is on disk.
    pub text: String,
    /// Comments, strings and character literals blanked; the same length and lines as `text`.
    pub code: String,
    /// For each line, whether it is only compiled for tests.
    pub test_lines: Vec<bool>,
}

impl Source {
    /// A file with this text.
    pub fn new(path: &str, text: &str) -> Source {
        let code = blank_prose(text);
        let whole = is_test_path(path);
        let mut test_lines = vec![whole; text.lines().count()];
        if !whole {
            mark_test_items(&code, &mut test_lines);
        }
        Source { path: path.to_owned(), text: text.to_owned(), code, test_lines }
    }

    /// The crate's folder: the first part of the path.
    pub fn room(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }

    /// Lines of code, counted from 1, with whether each is only for tests.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str, bool)> {
        self.code.lines().zip(&self.test_lines).enumerate().map(|(i, (line, test))| (i + 1, line, *test))
    }

    /// Name, first line and number of lines of every function with a body.
    pub fn functions(&self) -> Vec<(String, usize, usize)> {
        let bytes = self.code.as_bytes();
        let mut found = Vec::new();
        for at in words(&self.code, "fn") {
            let rest = self.code[at + 2..].trim_start();
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if name.is_empty() {
                continue; // a type: fn(u8) -> u8
            }
            if let Some((_, close)) = body_after(bytes, at) {
                let first = line_of(&self.code, at);
                found.push((name, first, line_of(&self.code, close) - first + 1));
            }
        }
        found
    }
}

/// The checkout's root.
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("tests/ lies in the checkout").to_path_buf()
}

/// Every file of the checkout whose name ends in `.extension`: path from the root, and text.
pub fn files(extension: &str) -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("the checkout is readable").flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && !["target", "lode-data"].contains(&name.as_str()) {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|e| e == extension) {
                let inside = path.strip_prefix(&root).expect("found under the root");
                let text = fs::read_to_string(&path).expect("source is UTF-8");
                found.push((inside.to_string_lossy().into_owned(), text));
            }
        }
    }
    found.sort();
    found
}

/// Every Rust file of the checkout.
pub fn rust() -> Vec<Source> {
    files("rs").iter().map(|(path, text)| Source::new(path, text)).collect()
}

/// Byte positions where `word` stands alone in `code`.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    let bytes = code.as_bytes();
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = at == 0 || !part(bytes[at - 1]);
        let after = bytes.get(at + word.len()).is_none_or(|c| !part(*c));
        before && after
    })
}

/// The line, counted from 1, of a byte position.
pub fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1
}

fn is_test_path(path: &str) -> bool {
    path.starts_with("tests/")
        || path.ends_with("/tests.rs")
        || path.contains("/tests/")
        || path.contains("/examples/")
        || path.contains("/benches/")
}

/// Marks the lines of every item under `#[cfg(test)]`.
fn mark_test_items(code: &str, lines: &mut [bool]) {
    for (at, attribute) in code.match_indices("#[cfg(test)]") {
        let from = at + attribute.len();
        let last = match body_after(code.as_bytes(), from) {
            Some((_, close)) => close,
            None => code[from..].find(';').map_or(code.len(), |n| from + n),
        };
        let first = line_of(code, at);
        let end = line_of(code, last).min(lines.len());
        lines[first - 1..end].fill(true);
    }
}

/// The braces of the body that begins after `from`, unless a `;` comes first.
fn body_after(code: &[u8], from: usize) -> Option<(usize, usize)> {
    let mut nesting = 0i32;
    let mut open = None;
    for (at, byte) in code.iter().enumerate().skip(from) {
        match byte {
            b'(' | b'[' if open.is_none() => nesting += 1,
            b')' | b']' if open.is_none() => nesting -= 1,
            b';' if open.is_none() && nesting == 0 => return None,
            b'{' => {
                if open.is_none() {
                    open = Some(at);
                    nesting = 0;
                }
                nesting += 1;
            }
            b'}' if open.is_some() => {
                nesting -= 1;
                if nesting == 0 {
                    return Some((open?, at));
                }
            }
            _ => {}
        }
    }
    None
}

/// Blanks comments, strings and character literals, keeping every line break.
fn blank_prose(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match &bytes[at..] {
            [b'/', b'/', ..] => find(bytes, at, b"\n"),
            [b'/', b'*', ..] => block_comment_end(bytes, at),
            [b'"', ..] => string_end(bytes, at + 1),
            [b'r', b'"' | b'#', ..] if !is_word_before(bytes, at) => raw_string_end(bytes, at),
            [b'b', b'r', b'"' | b'#', ..] if !is_word_before(bytes, at) => raw_string_end(bytes, at + 1),
            [b'\'', ..] => character_end(bytes, at),
            _ => at,
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(out).expect("only whole literals and comments are blanked")
}

fn is_word_before(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    bytes[from..].windows(what.len()).position(|w| w == what).map_or(bytes.len(), |n| from + n)
}

fn block_comment_end(bytes: &[u8], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The end of `r##"..."##`, or `at` where it is a raw identifier.
fn raw_string_end(bytes: &[u8], at: usize) -> usize {
    let hashes = bytes[at + 1..].iter().take_while(|b| **b == b'#').count();
    let quote = at + 1 + hashes;
    if bytes.get(quote) != Some(&b'"') {
        return at;
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    (find(bytes, quote + 1, &close) + close.len()).min(bytes.len())
}

/// The end of a character literal, or `at` where it is a lifetime.
fn character_end(bytes: &[u8], at: usize) -> usize {
    if bytes.get(at + 1) == Some(&b'\\') {
        return (find(bytes, at + 3, b"'") + 1).min(bytes.len());
    }
    // One character, of one to four bytes, and the quote.
    let rest = &bytes[at + 1..];
    let length = match rest.first() {
        Some(b) if *b < 0x80 => 1,
        Some(b) if *b >= 0xf0 => 4,
        Some(b) if *b >= 0xe0 => 3,
        Some(_) => 2,
        None => return at,
    };
    if rest.get(length) == Some(&b'\'') { at + length + 2 } else { at }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_blanked_and_code_is_not() {
        let text = "let a = \"unsafe \\\" {\"; // unsafe\nlet b = 'x'; /* un /* saf */ e */ unsafe\nlet c = r#\"a\"b\"# + b'\\'';";
        let code = blank_prose(text);
        assert_eq!(code.len(), text.len());
        assert_eq!(words(&code, "unsafe").map(|at| line_of(&code, at)).collect::<Vec<_>>(), [2]);
        assert!(code.contains("let c =") && !code.contains('"') && !code.contains('\''), "{code}");
    }

    #[test]
    fn lifetimes_and_raw_identifiers_are_code() {
        let text = "fn f<'a>(r: &'a str) -> &'static str { r#type }";
        assert_eq!(blank_prose(text), text);
    }

    #[test]
    fn functions_are_measured_from_their_name_to_their_brace() {
        let text =
            "trait T { fn none(&self) -> [u8; 2]; }\nfn one(f: fn(u8) -> u8)\nwhere\n{\n  if true { 1 }\n}\n";
        assert_eq!(Source::new("x/src/a.rs", text).functions(), [("one".to_owned(), 2, 5)]);
    }

    #[test]
    fn lines_under_cfg_test_are_marked() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\nfn c() {}\n#[cfg(test)]\nmod other;\nfn d() {}\n";
        let source = Source::new("x/src/a.rs", text);
        assert_eq!(source.test_lines, [false, true, true, true, true, false, true, true, false]);
        assert!(Source::new("x/src/a/tests.rs", text).test_lines.iter().all(|t| *t));
    }
}
