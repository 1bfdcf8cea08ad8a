//! Commands as a person types them: words apart by spaces, with quotes.

use bytes::Bytes;

/// The words of a line; `None` where its quotes are not balanced.
///
/// In double quotes `\n \r \t \b \a \xHH` and a backslash before any other character mean what they do in C; in
/// single quotes only `\'`. A quote that closes must be followed by a space or the end.
pub fn split(line: &[u8]) -> Option<Vec<Bytes>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        let begin = rest.iter().position(|byte| !is_space(*byte));
        let Some(begin) = begin else { return Some(words) };
        rest = &rest[begin..];
        let mut word = Vec::new();
        while let Some(byte) = rest.first().copied().filter(|byte| !is_space(*byte)) {
            rest = match byte {
                b'"' => double_quoted(&rest[1..], &mut word)?,
                b'\'' => single_quoted(&rest[1..], &mut word)?,
                _ => {
                    word.push(byte);
                    &rest[1..]
                }
            };
        }
        words.push(Bytes::from(word));
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | 0)
}

/// What is behind the closing quote.
fn closed(rest: &[u8]) -> Option<&[u8]> {
    rest.first().is_none_or(|byte| is_space(*byte)).then_some(rest)
}

fn double_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match *rest {
            [b'"', ref behind @ ..] => return closed(behind),
            [b'\\', b'x', high, low, ref behind @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                word.push(hex(high) * 16 + hex(low));
                rest = behind;
            }
            [b'\\', byte, ref behind @ ..] => {
                word.push(match byte {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => other,
                });
                rest = behind;
            }
            [byte, ref behind @ ..] => {
                word.push(byte);
                rest = behind;
            }
            [] => return None,
        }
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match *rest {
            [b'\'', ref behind @ ..] => return closed(behind),
            [b'\\', b'\'', ref behind @ ..] => {
                word.push(b'\'');
                rest = behind;
            }
            [byte, ref behind @ ..] => {
                word.push(byte);
                rest = behind;
            }
            [] => return None,
        }
    }
}

/// The value of a hexadecimal digit.
fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}
