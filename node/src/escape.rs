//! Bytes as text and back: backslash escapes for people, base64 for JSON.

use std::borrow::Cow;

use serde_json::{Map, Value};
use thiserror::Error;

/// Why a text with backslash escapes does not say which bytes are meant.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EscapeError {
    /// Nothing behind the last backslash.
    #[error("the text ends with a lone backslash; write \\\\ for a backslash")]
    LoneBackslash,
    /// `\x` without two hex digits.
    #[error("\\x takes two hex digits, as in \\x0a")]
    BadHex,
    /// A letter that is no escape.
    #[error("\\{0} is no escape; there are \\\\ \\\" \\' \\n \\r \\t \\0 and \\xNN")]
    Unknown(char),
}

/// The byte that the escape at the start of `rest` (just behind the backslash) means, and how many bytes of
/// `rest` it took.
pub fn unescape_one(rest: &[u8]) -> Result<(u8, usize), EscapeError> {
    let first = *rest.first().ok_or(EscapeError::LoneBackslash)?;
    let byte = match first {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'0' => 0,
        b'\\' | b'"' | b'\'' => first,
        b'x' => {
            let digit = |at: usize| rest.get(at).and_then(|b| char::from(*b).to_digit(16));
            return match (digit(1), digit(2)) {
                (Some(high), Some(low)) => Ok(((high * 16 + low) as u8, 3)),
                _ => Err(EscapeError::BadHex),
            };
        }
        _ => {
            let shown = String::from_utf8_lossy(rest).chars().next().unwrap_or(char::REPLACEMENT_CHARACTER);
            return Err(EscapeError::Unknown(shown));
        }
    };
    Ok((byte, 1))
}

/// The bytes that a text with backslash escapes means.
pub fn unescape(text: &[u8]) -> Result<Vec<u8>, EscapeError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        if text[at] == b'\\' {
            let (byte, taken) = unescape_one(&text[at + 1..])?;
            bytes.push(byte);
            at += 1 + taken;
        } else {
            bytes.push(text[at]);
            at += 1;
        }
    }
    Ok(bytes)
}

/// Text that shows the bytes on one line and that [`unescape`] takes back: printable UTF-8 as it is, `quote` and
/// everything else escaped.
pub fn escape(bytes: &[u8], quote: Option<char>) -> String {
    let mut text = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                _ if Some(c) == quote => {
                    text.push('\\');
                    text.push(c);
                }
                _ if c.is_control() => {
                    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                        push_hex(&mut text, byte);
                    }
                }
                _ => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            push_hex(&mut text, *byte);
        }
    }
    text
}

/// A text for a terminal that holds what others have named: what would move the cursor, or turn the order of letters
/// around, is told in letters. The characters of `layout` stay.
pub fn harmless<'a>(text: &'a str, layout: &str) -> Cow<'a, str> {
    let is_harmless = |c: char| {
        let turns = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        layout.contains(c) || !c.is_control() && !turns
    };
    if text.chars().all(is_harmless) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match is_harmless(c) {
            true => shown.push(c),
            false => shown.extend(c.escape_debug()),
        }
    }
    Cow::Owned(shown)
}

/// In double quotes, as the shell shows strings.
pub fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", escape(bytes, Some('"')))
}

fn push_hex(text: &mut String, byte: u8) {
    use std::fmt::Write as _;
    write!(text, "\\x{byte:02x}").expect("a String takes every write");
}

/// Standard base64 with padding (RFC 4648, section 4).
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word =
            group.iter().fold(0u32, |word, byte| (word << 8) | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            if place <= group.len() {
                let sextet = (word >> (18 - 6 * place)) & 63;
                text.push(char::from(ALPHABET[sextet as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

/// Adds `NAME_text` where the bytes are UTF-8, else `NAME_base64`.
pub fn insert_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(format!("{name}_text"), text.into()),
        Err(_) => object.insert(format!("{name}_base64"), base64(bytes).into()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_a_cursor_is_told_in_letters() {
        assert_eq!(
            harmless("a\x1b[2J\u{9b}1m\u{202e}b\n\tc \"q\" \\", "\n\t"),
            "a\\u{1b}[2J\\u{9b}1m\\u{202e}b\n\tc \"q\" \\"
        );
        assert_eq!(harmless("a\nb\tgrün", ""), "a\\nb\\tgrün");
        assert!(matches!(harmless("grün", ""), Cow::Borrowed("grün")));
    }

    #[test]
    fn escapes_go_both_ways() {
        let all: Vec<u8> = (0..=255).collect();
        for bytes in [&all[..], b"", b"plain", "grün \u{85}".as_bytes(), b"a\\x41", b"tab\tnl\n\"q\""] {
            assert_eq!(unescape(escape(bytes, None).as_bytes()).as_deref(), Ok(bytes));
            assert_eq!(unescape(escape(bytes, Some('"')).as_bytes()).as_deref(), Ok(bytes));
            assert!(!escape(bytes, None).contains('\n'));
        }
        assert_eq!(escape(b"\x00\xff\n", None), "\\x00\\xff\\n");
        assert_eq!(quoted(b"say \"hi\""), "\"say \\\"hi\\\"\"");
    }

    #[test]
    fn bad_escapes_are_named() {
        assert_eq!(unescape(b"end\\"), Err(EscapeError::LoneBackslash));
        assert_eq!(unescape(b"\\x4"), Err(EscapeError::BadHex));
        assert_eq!(unescape(b"\\xg0"), Err(EscapeError::BadHex));
        assert_eq!(unescape("\\ü".as_bytes()), Err(EscapeError::Unknown('ü')));
    }

    #[test]
    fn base64_of_the_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }
}
