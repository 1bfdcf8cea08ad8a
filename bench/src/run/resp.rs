//! The protocol of Redis as a load needs it: GET and SET in a pipeline, whose answers come in order.
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>

use super::ask::{Answer, Outcome};
use super::pipeline::{Dialect, MOST_ANSWER_BYTES, PipelineError};

/// One answer as it travels.
#[derive(Debug, PartialEq, Eq)]
enum Item<'a> {
    /// `+OK`, or a number, as text.
    Line(&'a [u8]),
    /// `-ERR ...`.
    Error(&'a [u8]),
    /// A string, or none.
    Bulk(Option<&'a [u8]>),
}

impl<'a> Item<'a> {
    fn answer(&self) -> Answer<'a> {
        let plain = Answer { outcome: Outcome::Done, body: &[], number: 0, has_more: false, message: "" };
        match *self {
            Item::Line(_) => plain,
            Item::Bulk(Some(body)) => Answer { body, ..plain },
            Item::Bulk(None) => Answer { outcome: Outcome::NotFound, ..plain },
            Item::Error(text) => {
                let message = std::str::from_utf8(text).unwrap_or("an error that is no text");
                // What Redis and its kin say while they load, fail over, or have no memory left for now.
                let busy = ["BUSY", "LOADING", "TRYAGAIN"].iter().any(|word| message.starts_with(word));
                let outcome = if busy { Outcome::Busy } else { Outcome::Refused };
                Answer { outcome, message, ..plain }
            }
        }
    }
}

/// Appends one command.
pub fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// The first answer in `bytes`, and how long it is; `None` where it is not whole.
pub fn answer(bytes: &[u8]) -> Result<Option<(Answer<'_>, usize)>, PipelineError> {
    Ok(parse(bytes)?.map(|(item, length)| (item.answer(), length)))
}

/// The first answer in `bytes` as text, and how long it is; `None` where it is not whole.
pub fn text(bytes: &[u8]) -> Result<Option<(String, usize)>, PipelineError> {
    Ok(parse(bytes)?.map(|(item, length)| {
        let body = match item {
            Item::Line(body) | Item::Error(body) => body,
            Item::Bulk(body) => body.unwrap_or_default(),
        };
        (String::from_utf8_lossy(body).into_owned(), length)
    }))
}

/// The first answer in `bytes`, and how long it is; `None` where it is not whole.
fn parse(bytes: &[u8]) -> Result<Option<(Item<'_>, usize)>, PipelineError> {
    let Some((&kind, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else {
        return Ok(None);
    };
    let (line, after) = (&rest[..end], end + 3);
    match kind {
        b'+' | b':' => Ok(Some((Item::Line(line), after))),
        b'-' => Ok(Some((Item::Error(line), after))),
        b'_' => Ok(Some((Item::Bulk(None), after))),
        b'$' => {
            let number = std::str::from_utf8(line).ok().and_then(|text| text.parse::<i64>().ok());
            let length = match number {
                Some(-1) => return Ok(Some((Item::Bulk(None), after))),
                Some(length) if (0..=MOST_ANSWER_BYTES as i64).contains(&length) => length as usize,
                _ => return Err(PipelineError::Violation(Dialect::Resp, "a length that is none")),
            };
            match bytes.get(after..after + length + 2) {
                None => Ok(None),
                Some(whole) if whole.ends_with(b"\r\n") => {
                    Ok(Some((Item::Bulk(Some(&whole[..length])), after + length + 2)))
                }
                Some(_) => Err(PipelineError::Violation(Dialect::Resp, "a string without its end")),
            }
        }
        _ => Err(PipelineError::Violation(Dialect::Resp, "an answer of a kind that was not asked for")),
    }
}
