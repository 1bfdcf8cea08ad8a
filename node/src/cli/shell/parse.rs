//! A line of the shell as words, quoted as redis-cli has it: double quotes take escapes (`\n`, `\x00`, `\"`),
//! single quotes take everything as it is but `\'`, and a quoted word ends at a blank.

use thiserror::Error;

use lode_node::escape::{EscapeError, unescape_one};

/// Why a line is not a list of words.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LineError {
    /// A quote that does not end.
    #[error("a {0} is not closed")]
    Unclosed(char),
    /// Something other than a blank behind a closing quote.
    #[error("a blank is missing behind a closing {0}")]
    NoBlankBehind(char),
    /// An escape within double quotes that is none.
    #[error("{0}")]
    Escape(#[from] EscapeError),
}

/// The words of a line, as bytes.
pub fn words(line: &str) -> Result<Vec<Vec<u8>>, LineError> {
    let line = line.as_bytes();
    let mut words = Vec::new();
    let mut at = 0;
    loop {
        while line.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        let Some(first) = line.get(at) else { return Ok(words) };
        let (word, end) = match first {
            b'"' => double_quoted(line, at + 1)?,
            b'\'' => single_quoted(line, at + 1)?,
            _ => {
                let len = line[at..].iter().position(u8::is_ascii_whitespace).unwrap_or(line.len() - at);
                (line[at..at + len].to_vec(), at + len)
            }
        };
        if matches!(first, b'"' | b'\'') && line.get(end).is_some_and(|b| !b.is_ascii_whitespace()) {
            return Err(LineError::NoBlankBehind(char::from(*first)));
        }
        words.push(word);
        at = end;
    }
}

/// The word from behind its opening quote, and where the line goes on.
fn double_quoted(line: &[u8], mut at: usize) -> Result<(Vec<u8>, usize), LineError> {
    let mut word = Vec::new();
    loop {
        match line.get(at) {
            None => return Err(LineError::Unclosed('"')),
            Some(b'"') => return Ok((word, at + 1)),
            Some(b'\\') if at + 1 == line.len() => return Err(LineError::Unclosed('"')),
            Some(b'\\') => {
                let (byte, taken) = unescape_one(&line[at + 1..])?;
                word.push(byte);
                at += 1 + taken;
            }
            Some(byte) => {
                word.push(*byte);
                at += 1;
            }
        }
    }
}

fn single_quoted(line: &[u8], mut at: usize) -> Result<(Vec<u8>, usize), LineError> {
    let mut word = Vec::new();
    loop {
        match (line.get(at), line.get(at + 1)) {
            (None, _) => return Err(LineError::Unclosed('\'')),
            (Some(b'\''), _) => return Ok((word, at + 1)),
            (Some(b'\\'), Some(b'\'')) => {
                word.push(b'\'');
                at += 2;
            }
            (Some(byte), _) => {
                word.push(*byte);
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Vec<String>, LineError> {
        words(line).map(|words| words.iter().map(|word| word.escape_ascii().to_string()).collect())
    }

    #[test]
    fn words_and_quotes() {
        for (line, expected) in [
            ("", &[][..]),
            ("   ", &[]),
            ("get t k", &["get", "t", "k"]),
            ("  put\tt  k v ", &["put", "t", "k", "v"]),
            (r#"put t "a b" 'c d'"#, &["put", "t", "a b", "c d"]),
            (r#"put t "" ''"#, &["put", "t", "", ""]),
            (r#"put t "\x00\xff\n\"" 'a\'b\n'"#, &["put", "t", r#"\x00\xff\n\""#, r"a\'b\\n"]),
            (r"put t a\x00 it's", &["put", "t", r"a\\x00", r"it\'s"]),
        ] {
            assert_eq!(
                parsed(line).as_deref(),
                Ok(expected.iter().map(|w| w.to_string()).collect::<Vec<_>>().as_slice()),
                "{line}"
            );
        }
    }

    #[test]
    fn broken_lines_are_named() {
        assert_eq!(words("get \"a"), Err(LineError::Unclosed('"')));
        assert_eq!(words("get \"a\\"), Err(LineError::Unclosed('"')));
        assert_eq!(words("get 'a"), Err(LineError::Unclosed('\'')));
        assert_eq!(words("get \"a\"b"), Err(LineError::NoBlankBehind('"')));
        assert_eq!(words(r#"get "\q""#), Err(LineError::Escape(EscapeError::Unknown('q'))));
    }
}
