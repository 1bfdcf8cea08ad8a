//! The HTTP service: connections are taken in here, and requests answered. A connection is any stream of bytes, of TCP or of
//! TLS; what every request but those for everybody must pass is its connection's [`Guest`].

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::State;
use super::guard::Guest;
use super::health::{Health, Stage};
use super::limits::{
    HEAD_PATIENCE, MAX_CONNECTIONS, MAX_HEAD_BYTES, MAX_HEADERS, SEND_PATIENCE, STOP_PATIENCE,
};
use super::metrics::{self, Format};
use super::{answers, console, slow};
use crate::patient::Patient;

/// After accepting has failed, for want of descriptors most likely, until it is tried again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The body of an answer: whole, or made piece by piece.
pub type Body = BoxBody<Bytes, Infallible>;

/// Accepts until it is told to stop, and then waits a little for answers to end.
pub async fn serve(listener: TcpListener, state: Arc<State>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    while !*stop.borrow() {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let has_room = connections.len() < MAX_CONNECTIONS;
                    match has_room.then(|| state.guard.let_in(peer.ip())).flatten() {
                        Some(guest) => {
                            connections.spawn(open(stream, peer.ip(), guest, Arc::clone(&state), stop.clone()));
                        }
                        None => {
                            state.refused.fetch_add(1, Ordering::Relaxed);
                            turn_away(&state, stream);
                        }
                    }
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
            _ = stop.changed() => {}
        }
        state.connections.store(connections.len() as u64, Ordering::Relaxed);
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    // Those who do not take their answers now never will.
    let _ = tokio::time::timeout(STOP_PATIENCE, ended).await;
}

/// Says in passing why a connection is not taken in; whoever does not hear it at once is closed all the same.
fn turn_away(state: &State, stream: TcpStream) {
    if state.tls.is_some() {
        return;
    }
    const TOLD: &[u8] =
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 21\r\nconnection: close\r\n\r\ntoo many connections\n";
    let _ = stream.try_write(TOLD);
}

/// One connection, with its handshake where the port speaks TLS.
async fn open(stream: TcpStream, ip: IpAddr, guest: Guest, state: Arc<State>, stop: watch::Receiver<bool>) {
    const IN_THE_CLEAR: &[u8] =
        b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 32\r\n\
        connection: close\r\n\r\nthis port speaks TLS: use https\n";
    let Some(tls) = state.tls.clone() else { return connection(stream, guest, state, stop).await };
    if let Some(secured) = tls.shake(stream, ip, IN_THE_CLEAR).await {
        connection(secured, guest, state, stop).await;
    }
}

/// One connection, from its first request to its end.
async fn connection<S>(stream: S, guest: Guest, state: Arc<State>, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stream = TokioIo::new(Patient::new(stream, SEND_PATIENCE));
    let service = service_fn(|request| {
        let answer = answer(&state, &guest, &request);
        async { Ok::<_, Infallible>(answer) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE);
    builder.max_buf_size(MAX_HEAD_BYTES).max_headers(MAX_HEADERS);
    let mut serving = std::pin::pin!(builder.serve_connection(stream, service));
    // An error is the peer's: there is nobody to tell.
    tokio::select! {
        _ = serving.as_mut() => return,
        _ = stop.wait_for(|stop| *stop) => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}

/// What a request is answered.
fn answer(state: &Arc<State>, guest: &Guest, request: &Request<Incoming>) -> Response<Body> {
    let mut answer = match *request.method() {
        Method::GET | Method::HEAD => probed(state, request.uri().path())
            .or_else(|| refused(state, guest.misdirected(request.uri(), request.headers())))
            .or_else(|| console::file(request.uri().path()))
            .or_else(|| refused(state, guest.refuse(request.headers())))
            .unwrap_or_else(|| routed(state, request)),
        _ => text(StatusCode::METHOD_NOT_ALLOWED, "this port takes GET and HEAD\n"),
    };
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// What is told whoever asks, by whatever name: probes have no token, and learn nothing of what is stored.
fn probed(state: &State, path: &str) -> Option<Response<Body>> {
    match path {
        "/healthz" => Some(text(StatusCode::OK, "alive\n")),
        "/readyz" => Some(ready(state)),
        _ => None,
    }
}

/// A refusal, counted.
fn refused(state: &State, refusal: Option<Response<Body>>) -> Option<Response<Body>> {
    state.refused_requests.fetch_add(u64::from(refusal.is_some()), Ordering::Relaxed);
    refusal
}

fn routed(state: &Arc<State>, request: &Request<Incoming>) -> Response<Body> {
    match request.uri().path() {
        "/metrics" => scraped(state, request),
        "/api/node" => node(state),
        "/partitions" => answers::partition(state, request.uri().query()),
        "/partitions/stream" => answers::stream(state, request.uri().query()),
        "/slow" => slow::requests(state, request),
        "/history" => answers::history(state, request.uri().query()),
        path => {
            let shown: String = path.chars().take(100).collect();
            text(StatusCode::NOT_FOUND, &format!("there is no {shown}\n"))
        }
    }
}

fn ready(state: &State) -> Response<Body> {
    let stage = state.stage();
    let reasons: Vec<String> = match &stage {
        Stage::Starting(at) => vec![format!("the node is starting: {at}")],
        Stage::Stopping => vec!["the node is stopping".to_owned()],
        Stage::Serving => {
            let view = state.view();
            let silent = view.shards.iter().filter_map(|shard| Some((shard.id, shard.silent_s?)));
            silent.map(|(id, s)| format!("shard {id} has not answered for {s} s")).collect()
        }
    };
    match reasons.is_empty() {
        true => text(StatusCode::OK, "ready\n"),
        false => text(StatusCode::SERVICE_UNAVAILABLE, &(reasons.join("\n") + "\n")),
    }
}

fn scraped(state: &Arc<State>, request: &Request<Incoming>) -> Response<Body> {
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = Format::of(accept.unwrap_or_default());
    match metrics::encode(state, format) {
        Ok(told) => whole(StatusCode::OK, format.content_type(), told.into()),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be encoded\n"),
    }
}

/// Everything but the partitions, for the console.
fn node(state: &State) -> Response<Body> {
    let mut told = state.view().to_json();
    let stage = state.stage();
    if let Some(health) = Health::of_stage(&stage) {
        told["health"] = health.to_json();
    }
    told["name"] = json!(state.name);
    told["version"] = json!(env!("CARGO_PKG_VERSION"));
    told["ready"] = json!(stage == Stage::Serving);
    told["settings"] = Value::clone(&state.settings());
    object(StatusCode::OK, &told)
}

/// An answer of plain text.
pub fn text(status: StatusCode, told: &str) -> Response<Body> {
    whole(status, "text/plain; charset=utf-8", Bytes::copy_from_slice(told.as_bytes()))
}

/// An answer of one JSON object.
pub fn object(status: StatusCode, told: &Value) -> Response<Body> {
    whole(status, "application/json", told.to_string().into())
}

/// An answer that is there as a whole.
pub fn whole(status: StatusCode, kind: &'static str, told: Bytes) -> Response<Body> {
    let mut answer = Response::new(Full::new(told).boxed());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
