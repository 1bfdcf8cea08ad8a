//! Partitions at full cardinality: all of them as a stream of lines, one with its part of the keys, and the last hour of each.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame};
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Map, json};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::State;
use super::history::{NODE_SERIES, Resolution};
use super::limits::{LIVE_TICKS, PIECE_BYTES, STEP_S, TICK};
use super::partitions::{Live, RATES, SERIES, described, figure_json};
use super::service::{Body, object, text};
use super::view::View;

/// The value of a name in a query. Names and values here are plain words: nothing of them is escaped.
pub(super) fn asked<'q>(query: Option<&'q str>, name: &str) -> Option<&'q str> {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(found, _)| *found == name).map(|(_, value)| value)
}

pub(super) fn refused(told: &str) -> Response<Body> {
    text(StatusCode::BAD_REQUEST, told)
}

/// `/partitions?id=N`: one partition with its table, its shard and its range of keys.
pub fn partition(state: &State, query: Option<&str>) -> Response<Body> {
    let Some(id) = asked(query, "id").and_then(|id| id.parse().ok()) else {
        return refused("say which partition: /partitions?id=NUMBER\n");
    };
    let view = state.view();
    let Some(of) = described(&view.map, id) else {
        return text(StatusCode::NOT_FOUND, "there is no such partition\n");
    };
    let live = view.live.binary_search_by_key(&id, |live| live.partition).ok().map(|place| &view.live[place]);
    let figures = live.map(|live| {
        let figures = live.figures.iter().enumerate();
        let pairs = figures.map(|(n, figure)| (SERIES[n].to_owned(), figure_json(n, *figure, view.live_s)));
        pairs.collect::<Map<_, _>>()
    });
    object(
        StatusCode::OK,
        &json!({
            "partition": id,
            "table": of.table,
            "shard": live.map(|live| live.shard),
            "placement": if of.is_hashed { "hash" } else { "range" },
            "start": key_text(&of.start, of.is_hashed),
            "end": of.end.map(|end| key_text(&end, of.is_hashed)),
            "figures": figures,
        }),
    )
}

/// A key as text where it is that, else its bytes in hexadecimal digits, as a hash always.
fn key_text(key: &[u8], is_hashed: bool) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !is_hashed => text.to_owned(),
        _ => key.iter().fold(String::from("0x"), |mut text, byte| {
            // A string takes whatever is written to it.
            let _ = write!(text, "{byte:02x}");
            text
        }),
    }
}

/// `/partitions/stream`: a line that names the series, one for each table, and one for each partition; with `follow=true` the
/// partitions again, every two seconds, for as long as the reader stays.
pub fn stream(state: &Arc<State>, query: Option<&str>) -> Response<Body> {
    let follow = match asked(query, "follow") {
        None | Some("false") => None,
        Some("true") => {
            let mut interval = interval(TICK * LIVE_TICKS as u32);
            // A slow reader gets less often what is then new, and never what is old.
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            Some(interval)
        }
        Some(_) => return refused("follow is true or false\n"),
    };
    let mut lines =
        Lines { state: Arc::clone(state), view: state.view(), next: 0, ahead: VecDeque::new(), follow };
    lines.ahead.push_back(heading(&lines.view));
    let mut answer = Response::new(lines.boxed());
    let kind = HeaderValue::from_static("application/x-ndjson");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

/// The lines in front of those of the partitions.
fn heading(view: &View) -> String {
    let mut lines =
        json!({ "at_ms": view.at_ms, "seconds": view.live_s, "series": SERIES }).to_string() + "\n";
    for (id, name) in view.tables.iter() {
        lines += &json!({ "table": id, "name": &**name }).to_string();
        lines.push('\n');
    }
    lines
}

/// One partition: its id, its table's, its shard's, and its figures.
fn line(live: &Live, seconds: f64, into: &mut String) {
    // A string takes whatever is written to it.
    let _ = write!(into, "[{},{},{}", live.partition, live.table, live.shard);
    for (series, figure) in live.figures.iter().enumerate() {
        let _ = match series < RATES && *figure > 0 {
            true => write!(into, ",{:.1}", *figure as f64 / seconds),
            false => write!(into, ",{figure}"),
        };
    }
    into.push_str("]\n");
}

/// Lines of partitions, made as they are taken: a reader has at most a piece of them in memory.
struct Lines {
    state: Arc<State>,
    view: Arc<View>,
    next: usize,
    ahead: VecDeque<String>,
    follow: Option<Interval>,
}

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let mut piece = this.ahead.pop_front().unwrap_or_default();
        loop {
            while let Some(live) = this.view.live.get(this.next).filter(|_| piece.len() < PIECE_BYTES) {
                line(live, this.view.live_s, &mut piece);
                this.next += 1;
            }
            if !piece.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(piece.into()))));
            }
            let Some(interval) = &mut this.follow else { return Poll::Ready(None) };
            ready!(interval.poll_tick(context));
            let view = this.state.view();
            if !Arc::ptr_eq(&view.live, &this.view.live) {
                this.next = 0;
                piece = heading(&view);
                this.view = view;
            }
        }
    }
}

/// `/history`: series of a partition (`partition=ID`), or of the node, over the last hour or as long as `last=SECONDS`.
/// `series=NAME,NAME` takes some of them; of the node, `every=1` has every second of the last ten minutes.
pub fn history(state: &State, query: Option<&str>) -> Response<Body> {
    let Ok(last_s) = asked(query, "last").unwrap_or("3600").parse::<u64>() else {
        return refused("last is a number of seconds\n");
    };
    let partition = asked(query, "partition");
    let known: &[&str] = if partition.is_some() { &SERIES } else { &NODE_SERIES };
    let names = asked(query, "series").map_or_else(|| known.to_vec(), |names| names.split(',').collect());
    let place = |name: &&str| known.iter().position(|series| series == name);
    let Some(places) = names.iter().map(place).collect::<Option<Vec<_>>>() else {
        return refused(&format!("there are the series {}\n", known.join(", ")));
    };
    // A series may be asked for once: who asks for more gets no more than there is.
    if places.len() > known.len() {
        return refused("each series may be asked for once\n");
    }
    let since_s = (state.view().at_ms / 1000).saturating_sub(last_s);
    match partition.map(str::parse::<u32>) {
        Some(Ok(id)) => of_partition(state, id, &places, since_s),
        Some(Err(_)) => refused("partition is a number\n"),
        None => of_node(state, query, &places, since_s),
    }
}

fn of_partition(state: &State, id: u32, places: &[usize], since_s: u64) -> Response<Body> {
    let (points, left_out) = {
        let history = state.history.lock().expect("nobody panics while holding it");
        (history.of(id, places, since_s), history.left_out())
    };
    if points.columns.iter().flatten().flatten().next().is_none() && !points.times.is_empty() {
        let why = if left_out > 0 { "; only the busiest are kept" } else { "" };
        return text(StatusCode::NOT_FOUND, &format!("there is no history of partition {id}{why}\n"));
    }
    let column = |(series, column): (&usize, &Vec<Option<u64>>)| {
        let values =
            column.iter().map(|figure| figure.map(|figure| figure_json(*series, figure, STEP_S as f64)));
        (SERIES[*series].to_owned(), json!(values.collect::<Vec<_>>()))
    };
    let columns: Map<_, _> = places.iter().zip(&points.columns).map(column).collect();
    object(
        StatusCode::OK,
        &json!({ "partition": id, "step_s": STEP_S, "times_s": points.times, "series": columns }),
    )
}

fn of_node(state: &State, query: Option<&str>, places: &[usize], since_s: u64) -> Response<Body> {
    let (resolution, step_s) = match asked(query, "every") {
        None | Some("10") => (Resolution::Step, STEP_S),
        Some("1") => (Resolution::Second, 1),
        Some(_) => return refused("every is 1 or 10 seconds\n"),
    };
    let history = state.node_history.lock().expect("nobody panics while holding it");
    let (times, columns) = history.of(resolution, places, since_s);
    drop(history);
    // What is not a number is null in JSON.
    let column = |(series, column): (&usize, &Vec<f32>)| (NODE_SERIES[*series].to_owned(), json!(column));
    let columns: Map<_, _> = places.iter().zip(&columns).map(column).collect();
    object(StatusCode::OK, &json!({ "step_s": step_s, "times_s": times, "series": columns }))
}
