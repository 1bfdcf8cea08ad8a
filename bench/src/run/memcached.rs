//! The protocol of memcached as a load needs it: `mg` and `ms` in a pipeline, whose answers come in order.
//! <https://github.com/memcached/memcached/blob/master/doc/protocol.txt>, "Meta Commands"

use super::ask::{Answer, Outcome};
use super::pipeline::{Dialect, MOST_ANSWER_BYTES, PipelineError};

/// Appends the read of a value.
pub fn get(out: &mut Vec<u8>, key: &[u8]) {
    out.extend_from_slice(b"mg ");
    out.extend_from_slice(key);
    out.extend_from_slice(b" v\r\n");
}

/// Appends the write of a value.
pub fn set(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    out.extend_from_slice(b"ms ");
    out.extend_from_slice(key);
    out.extend_from_slice(format!(" {}\r\n", value.len()).as_bytes());
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The first answer in `bytes`, and how long it is; `None` where it is not whole.
pub fn answer(bytes: &[u8]) -> Result<Option<(Answer<'_>, usize)>, PipelineError> {
    let violation = |what| Err(PipelineError::Violation(Dialect::Memcached, what));
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
        return Ok(None);
    };
    let line = std::str::from_utf8(&bytes[..end]).unwrap_or_default();
    let (after, mut words) = (end + 2, line.split(' '));
    let plain = Answer { outcome: Outcome::Done, body: &[], number: 0, has_more: false, message: "" };
    let answer = match words.next().unwrap_or_default() {
        "HD" => plain,
        "EN" => Answer { outcome: Outcome::NotFound, ..plain },
        "NS" | "SERVER_ERROR" | "CLIENT_ERROR" => {
            Answer { outcome: Outcome::Refused, message: line, ..plain }
        }
        "VA" => {
            let length = match words.next().and_then(|text| text.parse::<usize>().ok()) {
                Some(length) if length <= MOST_ANSWER_BYTES => length,
                _ => return violation("a length that is none"),
            };
            return match bytes.get(after..after + length + 2) {
                None => Ok(None),
                Some(whole) if whole.ends_with(b"\r\n") => {
                    Ok(Some((Answer { body: &whole[..length], ..plain }, after + length + 2)))
                }
                Some(_) => violation("a value without its end"),
            };
        }
        _ => return violation("an answer of a kind that was not asked for"),
    };
    Ok(Some((answer, after)))
}
