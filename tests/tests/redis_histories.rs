//! Short histories of three connections, drawn from a seed: transactions, watched keys, keys that expire. What a real Redis has
//! answered to each step is in `tests/redis/histories.txt`; lode is to answer the same, but for one difference that is stated.
//!
//! `LODE_WRITE_REPLIES=1 cargo test -p lode-tests --test redis_histories` asks a redis-server anew; `LODE_HISTORIES=SEED,COUNT`
//! compares others with one.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lode_tests::node::Home;
use lode_tests::redis::Redis;
use lode_tests::resp::{Resp, Value};
use lode_tests::source;
use lode_tests::value::Dice;

/// Histories that are kept with what Redis answered.
const KEPT: usize = 120;
/// From this seed on: in 3423 somebody gives a watched key its own name, which changes nothing.
const FIRST_SEED: u64 = 3330;
/// How long a key lives that expires within a history.
const LIFE: Duration = Duration::from_millis(300);
/// What is asked while it lives is answered so soon, or the history is begun again.
const ALIVE: Duration = Duration::from_millis(200);
/// When it has gone: what keeps a time to live may make it longer by the time that it took.
const GONE: Duration = Duration::from_millis(540);
/// How often, on a machine that is that slow.
const MOST_TRIES: usize = 20;
/// Histories that are under way together, on keys of their own.
const AT_ONCE: usize = 8;
/// Whoever only looks: he is never within a transaction.
const OBSERVER: usize = 2;

/// One step of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// A connection asks; words that begin with `@` are keys.
    Ask(usize, Vec<String>),
    /// The key that expires has gone behind it.
    Expire,
}

impl Step {
    fn shown(&self) -> String {
        match self {
            Step::Ask(connection, words) => {
                let word = |word: &String| if word.is_empty() { "\"\"".to_owned() } else { word.clone() };
                format!("{connection} {}", words.iter().map(word).collect::<Vec<_>>().join(" "))
            }
            Step::Expire => "expire".to_owned(),
        }
    }
}

/// Keys that may get a time to live; none of them is written within a transaction in a way that keeps it, which is refused.
const MORTAL: &str = "@m";
const KEYS: [&str; 4] = ["@a", "@b", "@c", MORTAL];

/// What may be asked: K is a key, O another of those that live for ever, N a number, and - an argument without a byte.
const PLAIN: &[&str] = &[
    "SET K N",
    "SET K text",
    "SET K N NX",
    "SET K N XX",
    "SET K N GET",
    "SET K v BAD",
    "SETNX K N",
    "GET K",
    "GETSET K N",
    "GETDEL K",
    "GETEX K",
    "APPEND K N",
    "APPEND K -",
    "STRLEN K",
    "GETRANGE K 0 1",
    "SETRANGE K 1 z",
    "SETRANGE K 0 -",
    "INCR K",
    "INCRBY K 0",
    "DECRBY K N",
    "INCRBYFLOAT K 0.5",
    "INCRBYFLOAT K 0",
    "DEL K",
    "UNLINK K O",
    "EXISTS K O",
    "MSET K N O m",
    "MSETNX K N O m",
    "MGET K O",
    "RENAME K O",
    "RENAME K K",
    "TYPE K",
    "TTL K",
];
/// Of the mortal one: what leaves it as it is.
const LOOKS: &[&str] = &["GET K", "EXISTS K", "STRLEN K", "TYPE K", "MGET K O", "GETRANGE K 0 2"];
/// What takes its time to live with it.
const ENDS: &[&str] = &["SET K N", "DEL K", "GETDEL K", "GETSET K N", "SETNX K N", "UNLINK K O"];
/// What is of its time, and what keeps it.
const TIMES: &[&str] = &[
    "EXPIRE K 1000",
    "EXPIRE K -1",
    "EXPIRE K 1000 NX",
    "EXPIRE K 1000 XX",
    "PERSIST K",
    "GETEX K",
    "GETEX K PERSIST",
    "GETEX K EX 1000",
    "SET K N EX 1000",
    "SET K N KEEPTTL",
    "TTL K",
    "INCR K",
    "APPEND K N",
    "SETRANGE K 0 -",
];
/// What keeps it, where another time would be waited for in vain.
const KEEPS: &[&str] = &["APPEND K N", "SET K N KEEPTTL", "GETEX K"];

/// Draws a history.
struct Maker {
    dice: Dice,
    steps: Vec<Step>,
    /// What each of the two who write has said: whether it is within MULTI, and what it watches.
    within: [bool; 2],
    watched: [BTreeSet<&'static str>; 2],
}

impl Maker {
    fn history(seed: u64) -> Vec<Step> {
        let dice = Dice::new(seed.wrapping_mul(0x5851_f42d_4c95_7f2d));
        let mut maker = Maker { dice, steps: Vec::new(), within: [false; 2], watched: Default::default() };
        let count = 10 + maker.dice.below(16);
        // In every third one a key expires at some step, and from that on is gone.
        let expires = maker.dice.below(3) == 0;
        let (begin, end) = (maker.dice.below(count / 2), count / 2 + maker.dice.below(count / 2));
        for at in 0..count {
            if expires && at == begin {
                let ms = LIFE.as_millis().to_string();
                maker.ask(OBSERVER, &["SET", MORTAL, "mortal", "PX", &ms]);
            }
            if expires && at == end {
                maker.steps.push(Step::Expire);
            }
            let lives = expires && (begin..end).contains(&at);
            maker.step(lives);
        }
        for connection in 0..2 {
            if maker.within[connection] {
                maker.exec(connection);
            }
        }
        for key in KEYS {
            maker.ask(OBSERVER, &["GET", key]);
        }
        maker.steps
    }

    fn ask(&mut self, connection: usize, words: &[&str]) {
        self.steps.push(Step::Ask(connection, words.iter().map(|word| (*word).to_owned()).collect()));
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.dice.below(all.len() as u64) as usize]
    }

    /// One of a connection. While a key lives that is to expire, nobody gives it another time.
    fn step(&mut self, lives: bool) {
        let connection = self.dice.below(2) as usize;
        match (self.within[connection], self.dice.below(100)) {
            (false, 0..22) => self.watch(connection),
            (false, 22..44) => {
                self.ask(connection, &["MULTI"]);
                self.within[connection] = true;
            }
            (false, 44..49) => {
                self.ask(connection, &["UNWATCH"]);
                self.watched[connection].clear();
            }
            (false, 49..52) => {
                let word = self.one_of(&["EXEC", "DISCARD", "RESET"]);
                self.ask(connection, &[word]);
                if word == "RESET" {
                    self.watched[connection].clear();
                }
            }
            (true, 0..30) => self.exec(connection),
            (true, 30..36) => {
                self.ask(connection, &["DISCARD"]);
                self.ends(connection);
            }
            (true, 36..42) => {
                let words: &[&str] = match self.dice.below(6) {
                    0 => &["MULTI"],
                    1 => &["WATCH", "@a"],
                    2 => &["NOSUCH"],
                    3 => &["GET"],
                    4 => &["EXEC", "now"],
                    _ => &["UNWATCH"],
                };
                self.ask(connection, words);
                if words == ["EXEC", "now"] {
                    self.ends(connection);
                }
            }
            (within, _) => self.command(connection, within, lives),
        }
    }

    fn ends(&mut self, connection: usize) {
        self.within[connection] = false;
        self.watched[connection].clear();
    }

    fn watch(&mut self, connection: usize) {
        let first = self.one_of(&KEYS);
        let mut keys = vec![first];
        if self.dice.below(3) == 0 {
            keys.push(self.one_of(&KEYS));
        }
        for key in &keys {
            self.ask(OBSERVER, &["EXISTS", key]);
        }
        self.watched[connection].extend(&keys);
        self.ask(connection, &[&["WATCH"], &keys[..]].concat());
    }

    fn exec(&mut self, connection: usize) {
        for key in self.watched[connection].clone() {
            self.ask(OBSERVER, &["EXISTS", key]);
        }
        self.ask(connection, &["EXEC"]);
        self.ends(connection);
    }

    /// Something of keys.
    fn command(&mut self, connection: usize, within: bool, lives: bool) {
        let (key, other) = (self.one_of(&KEYS), self.one_of(&KEYS[..3]));
        let kinds: &[&[&str]] = match (key == MORTAL, within, lives) {
            (true, true, _) => &[LOOKS, ENDS],
            (true, false, true) => &[LOOKS, LOOKS, KEEPS],
            (true, false, false) => &[LOOKS, ENDS, TIMES, TIMES],
            (false, ..) => &[PLAIN],
        };
        let kind = self.one_of(kinds);
        let number = self.dice.below(9).to_string();
        let word = |word: &'static str| match word {
            "K" => key.to_owned(),
            "O" => other.to_owned(),
            "N" => number.clone(),
            "-" => String::new(),
            word => word.to_owned(),
        };
        let words = self.one_of(kind).split(' ').map(word).collect();
        self.steps.push(Step::Ask(connection, words));
    }
}

/// What a server answers to each step of a history; nothing where it was too slow for the key that expires.
fn try_history(addr: SocketAddr, steps: &[Step], prefix: &str) -> Option<Vec<String>> {
    let mut connections: Vec<Resp> = (0..3).map(|_| Resp::open(addr)).collect();
    let mut lives_from = None;
    let mut replies = Vec::new();
    for step in steps {
        let Step::Ask(connection, words) = step else {
            let from: Instant = lives_from.take().expect("it was written");
            if from.elapsed() > ALIVE {
                return None;
            }
            std::thread::sleep(GONE.saturating_sub(from.elapsed()));
            replies.push(String::new());
            continue;
        };
        let words: Vec<String> = words
            .iter()
            .map(|word| word.strip_prefix('@').map_or(word.clone(), |key| format!("{prefix}{key}")))
            .collect();
        if words.contains(&"PX".to_owned()) {
            lives_from = Some(Instant::now());
        }
        let reply = connections[*connection].ask(&words);
        // Seconds go by.
        let is_time = words[0] == "TTL" && matches!(reply, Value::Integer(1..));
        replies.push(if is_time { ":TTL".to_owned() } else { without_times(reply).shown() });
    }
    Some(replies)
}

/// A time to live within an answer of EXEC would be another one a second later.
fn without_times(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(without_times).collect()),
        Value::Integer(900..=1000) => Value::Other(":TTL".to_owned()),
        other => other,
    }
}

/// The answers to all histories, some of them at once; nothing for one that the machine was too slow for.
fn answers(addr: SocketAddr, histories: &[Vec<Step>]) -> Vec<Option<Vec<String>>> {
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(vec![None; histories.len()]);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(steps) = histories.get(at) else { return };
                    let mut tries = (0..MOST_TRIES).map(|tries| format!("{at}.{tries}:"));
                    let answer = tries.find_map(|prefix| try_history(addr, steps, &prefix));
                    answers.lock().expect("nobody panics while holding it")[at] = answer;
                }
            });
        }
    });
    answers.into_inner().expect("nobody panics while holding it")
}

/// What comes of a comparison.
enum Compared {
    Same,
    /// A key that was not there when it was watched, nor at EXEC, has come and gone: docs/redis.md tells it.
    CameAndWent,
    Different(String),
}

fn compare(steps: &[Step], redis: &[String], lode: &[String]) -> Compared {
    let Some(at) = (0..steps.len()).find(|at| redis[*at] != lode[*at]) else { return Compared::Same };
    let is_exec = matches!(&steps[at], Step::Ask(_, words) if words[..] == ["EXEC"]);
    if is_exec && redis[at] == "*-1" && lode[at].starts_with('[') && was_never_seen(&steps[..at], &lode[..at])
    {
        return Compared::CameAndWent;
    }
    let lines = (0..=at).map(|n| match redis[n] == lode[n] {
        true => format!("  {} -> {}\n", steps[n].shown(), redis[n]),
        false => format!("  {} -> Redis: {}, lode: {}\n", steps[n].shown(), redis[n], lode[n]),
    });
    Compared::Different(lines.collect())
}

/// Whether one of the keys that were looked for before this EXEC was not there, and not when it was watched either.
fn was_never_seen(steps: &[Step], replies: &[String]) -> bool {
    let looked = |at: usize| match &steps[at] {
        Step::Ask(OBSERVER, words) if words[0] == "EXISTS" => Some((words[1].clone(), replies[at] == ":0")),
        _ => None,
    };
    let before: Vec<(String, bool)> = (0..steps.len()).rev().map_while(looked).collect();
    let earlier = steps.len() - before.len();
    before.into_iter().filter(|(_, is_absent)| *is_absent).any(|(key, _)| {
        (0..earlier).rev().filter_map(looked).any(|(other, is_absent)| other == key && is_absent)
    })
}

fn path() -> PathBuf {
    source::root().join("tests/redis/histories.txt")
}

fn histories(first: u64, count: usize) -> Vec<Vec<Step>> {
    (first..).take(count).map(Maker::history).collect()
}

/// What Redis has answered to those that are kept.
fn kept_replies(histories: &[Vec<Step>]) -> Vec<Vec<String>> {
    if std::env::var_os("LODE_WRITE_REPLIES").is_some() {
        let mut text = format!(
            "# What Redis {} answers to the histories of redis_histories.rs; made with LODE_WRITE_REPLIES=1.\n",
            Redis::version()
        );
        for (n, (steps, replies)) in histories.iter().zip(answers(Redis::start().addr, histories)).enumerate()
        {
            let replies = replies.expect("the machine is quick enough to ask a Redis");
            text += &format!("## {n}\n");
            let lines = steps.iter().zip(&replies);
            lines.for_each(|(step, reply)| text += &format!("{}\t{reply}\n", step.shown()));
        }
        fs::write(path(), text).expect("tests/redis/histories.txt can be written");
    }
    let text = fs::read_to_string(path()).expect("tests/redis/histories.txt");
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    let replies = histories.iter().map(|steps| {
        let mut reply = |step: &Step| {
            let (asked, reply) = lines.next().and_then(|line| line.split_once('\t')).unwrap_or_default();
            assert_eq!(asked, step.shown(), "the histories are others: make histories.txt anew");
            reply.to_owned()
        };
        steps.iter().map(&mut reply).collect()
    });
    let replies = replies.collect();
    assert_eq!(lines.next(), None, "the histories are others: make histories.txt anew");
    replies
}

#[test]
fn transactions_of_any_history_end_as_in_redis() {
    let asked = std::env::var("LODE_HISTORIES").ok();
    let asked = asked.as_ref().map(|asked| asked.split_once(',').expect("LODE_HISTORIES is SEED,COUNT"));
    let number = |text: &str| text.parse::<u64>().expect("LODE_HISTORIES is SEED,COUNT");
    let (first, count) =
        asked.map_or((FIRST_SEED, KEPT), |(seed, count)| (number(seed), number(count) as usize));
    let histories = histories(first, count);
    let redis: Vec<Option<Vec<String>>> = match asked {
        Some(_) => answers(Redis::start().addr, &histories),
        None => kept_replies(&histories).into_iter().map(Some).collect(),
    };
    let home =
        Home::with(&["--size", "192MiB", "--shards", "2", "--memory", "128MiB", "--redis", "127.0.0.1:0"]);
    let node = home.start();
    let lode = answers(node.redis_addr(), &histories);
    let (mut same, mut came_and_went, mut different) = (0, 0, Vec::new());
    for (n, steps) in histories.iter().enumerate() {
        let (Some(redis), Some(lode)) = (&redis[n], &lode[n]) else { continue };
        match compare(steps, redis, lode) {
            Compared::Same => same += 1,
            Compared::CameAndWent => came_and_went += 1,
            Compared::Different(lines) => different.push(format!("seed {}:\n{lines}", first + n as u64)),
        }
    }
    println!("{same} of {count} are the same; in {came_and_went} a key came and went");
    assert!(different.is_empty(), "{} of {count} differ:\n{}", different.len(), different.join("\n"));
    let least = count - count / 4;
    assert!(
        same >= least,
        "{same} of {count} could be compared to their end, and {came_and_went} as far as is stated"
    );
}
