//! SLOWLOG: the commands of Redis clients that took long, from when each was taken in until its reply was there.
//!
//! The node itself keeps what it was asked for them, with where the time went; here are the commands as their clients know
//! them. Values are never kept, and of a key only its hash and its length.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use lode_net::resp::Reply;

use super::commands::Command;
use super::door::{Door, Peer};
use super::refusal::Refusal;
use super::server::unknown_subcommand;
use super::session::{Begun, Task, Work};
use crate::slow::KeyMark;

/// Commands that are kept, as by Redis unless it is told otherwise.
const MAX_KEPT: usize = 128;
/// Told where nobody says how many, as by Redis.
const TOLD: usize = 10;

/// One that took long.
struct SlowCommand {
    id: u64,
    at_s: u64,
    took: Duration,
    words: Vec<String>,
    addr: SocketAddr,
    name: String,
}

/// Those that are kept, the oldest first.
pub struct SlowCommands {
    /// `None`: nothing is slow.
    threshold: Option<Duration>,
    kept: RefCell<VecDeque<SlowCommand>>,
    noted: std::cell::Cell<u64>,
}

/// A command on its way, as it would be told.
struct Asked {
    command: &'static Command,
    words: usize,
    key: Option<KeyMark>,
    since: Instant,
}

impl Asked {
    /// Its name, its first key, and how many words there are besides.
    fn told(&self) -> Vec<String> {
        let mut told = vec![self.command.name.to_ascii_uppercase()];
        if let Some(KeyMark { hash, len }) = self.key {
            told.push(format!("(key {hash:08x} of {len} bytes)"));
        }
        match self.words - told.len() {
            0 => {}
            more => told.push(format!("... ({more} more arguments)")),
        }
        told
    }
}

impl SlowCommands {
    /// Of commands that take this long; of none where it is zero.
    pub fn new(threshold: Duration) -> SlowCommands {
        let threshold = (!threshold.is_zero()).then_some(threshold);
        SlowCommands { threshold, kept: RefCell::default(), noted: std::cell::Cell::new(0) }
    }

    fn note(&self, asked: &Asked, peer: &Peer) {
        let took = asked.since.elapsed();
        if self.threshold.is_none_or(|threshold| took < threshold) {
            return;
        }
        let id = self.noted.get();
        self.noted.set(id + 1);
        let at_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (words, name) = (asked.told(), peer.name.borrow().clone());
        let mut kept = self.kept.borrow_mut();
        if kept.len() == MAX_KEPT {
            kept.pop_front();
        }
        kept.push_back(SlowCommand { id, at_s, took, words, addr: peer.addr, name });
    }

    fn told(&self, most: usize) -> Reply {
        let of = |one: &SlowCommand| {
            Reply::Array(vec![
                Reply::Integer(one.id as i64),
                Reply::Integer(one.at_s as i64),
                Reply::Integer(one.took.as_micros() as i64),
                Reply::Array(one.words.iter().map(|word| Reply::text(word.clone())).collect()),
                Reply::text(one.addr.to_string()),
                Reply::text(one.name.clone()),
            ])
        };
        Reply::Array(self.kept.borrow().iter().rev().take(most).map(of).collect())
    }
}

/// What a request came to, watched until its reply is there.
pub fn watched(door: &Rc<Door>, peer: &Rc<Peer>, command: &'static Command, args: &[Bytes]) -> Watch {
    let key = command.key_places(args.len()).first().map(|place| KeyMark::of(&args[*place]));
    let asked = Asked { command, words: args.len(), key, since: Instant::now() };
    Watch { door: Rc::clone(door), peer: Rc::clone(peer), asked }
}

/// See [`watched`].
pub struct Watch {
    door: Rc<Door>,
    peer: Rc<Peer>,
    asked: Asked,
}

impl Watch {
    /// Lets the request go on.
    pub fn over(self, begun: Begun) -> Begun {
        match begun {
            Begun::Work(Task { order, reply_bytes, may_be_left, work }) => {
                Begun::Work(Task { order, reply_bytes, may_be_left, work: self.until_done(work) })
            }
            Begun::Settles(work) => Begun::Settles(self.until_done(work)),
            // It was answered at once.
            told => told,
        }
    }

    fn until_done(self, work: Work) -> Work {
        if self.door.slow.threshold.is_none() {
            return work;
        }
        Box::pin(async move {
            let reply = work.await;
            self.door.slow.note(&self.asked, &self.peer);
            reply
        })
    }
}

/// SLOWLOG.
pub fn slowlog(door: &Door, args: &[Bytes]) -> Result<Reply, Refusal> {
    let words = args[1].to_ascii_lowercase();
    match (words.as_slice(), &args[2..]) {
        (b"get", []) => Ok(door.slow.told(TOLD)),
        (b"get", [count]) => {
            let count = std::str::from_utf8(count).ok().and_then(|text| text.parse::<i64>().ok());
            let refused = || Refusal::new("count should be greater than or equal to -1");
            match count {
                Some(-1) => Ok(door.slow.told(MAX_KEPT)),
                count => {
                    let count = count.and_then(|count| usize::try_from(count).ok());
                    Ok(door.slow.told(count.ok_or_else(refused)?))
                }
            }
        }
        (b"len", []) => Ok(Reply::Integer(door.slow.kept.borrow().len() as i64)),
        (b"reset", []) => {
            door.slow.kept.borrow_mut().clear();
            Ok(Reply::OK)
        }
        (b"get", _) => {
            Err(Refusal::new("unknown subcommand or wrong number of arguments for 'GET'. Try SLOWLOG HELP."))
        }
        (b"len" | b"reset", _) => {
            Err(Refusal::arity(&format!("slowlog|{}", String::from_utf8_lossy(&words))))
        }
        _ => Err(unknown_subcommand("SLOWLOG", args)),
    }
}
