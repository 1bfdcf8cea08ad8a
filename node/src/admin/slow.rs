//! `/slow`: the requests that took long, as one object or as lines.

use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde_json::{Value, json};

use super::State;
use super::answers::{asked, refused};
use super::service::{Body, object, whole};
use crate::slow::SlowEntry;

/// Lines for whoever asks for them.
const LINES: &str = "application/x-ndjson";

/// What is wanted of them.
struct Wish<'q> {
    partition: Option<u32>,
    key_hash: Option<&'q str>,
    most: usize,
}

impl Wish<'_> {
    fn is_for(&self, entry: &SlowEntry) -> bool {
        self.partition.is_none_or(|partition| entry.partition == partition)
            && self.key_hash.is_none_or(|hash| entry.key_hash.as_deref() == Some(hash))
    }
}

/// `/slow`: all that are kept, the latest first; `n=N` so many of them, `partition=ID` those of a partition,
/// `key=HASH` those of a key; `format=ndjson` a line for each.
pub fn requests<B>(state: &State, request: &Request<B>) -> Response<Body> {
    let query = request.uri().query();
    let number = |name| asked(query, name).map(str::parse::<u32>).transpose();
    let (Ok(partition), Ok(most)) = (number("partition"), number("n")) else {
        return refused("partition and n are numbers\n");
    };
    let accept = request.headers().get(header::ACCEPT);
    let in_lines = match asked(query, "format") {
        None => accept.is_some_and(|accept| *accept == HeaderValue::from_static(LINES)),
        Some("ndjson") => true,
        Some("json") => false,
        Some(_) => return refused("format is json or ndjson\n"),
    };
    let wish =
        Wish { partition, key_hash: asked(query, "key"), most: most.map_or(usize::MAX, |n| n as usize) };
    let slow = state.slow.get();
    let entries = slow.map_or_else(Vec::new, |slow| slow.entries());
    let entries = entries.iter().filter(|entry| wish.is_for(entry)).take(wish.most).map(SlowEntry::to_json);
    if in_lines {
        let lines: String = entries.map(|entry| entry.to_string() + "\n").collect();
        return whole(StatusCode::OK, LINES, lines.into());
    }
    object(
        StatusCode::OK,
        &json!({
            "threshold_us": slow.and_then(|slow| slow.threshold_us()),
            "noted": slow.map_or(0, |slow| slow.noted()),
            "requests": entries.collect::<Vec<Value>>(),
        }),
    )
}
