//! Every command of the RESP door, asked of lode and compared with what a real Redis has answered.
//!
//! `LODE_WRITE_REPLIES=1 cargo test -p lode-tests --test redis_replies` asks a redis-server anew, which it starts at a
//! port of its own, and writes `tests/redis/replies.txt` and the table of `docs/redis.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use lode_tests::node::Home;
use lode_tests::redis::Redis;
use lode_tests::resp::{Resp, Value};
use lode_tests::source;

const BEGIN: &str = "<!-- table: made by tests/tests/redis_replies.rs -->";
const END: &str = "<!-- end of the table -->";

/// One command of the script.
struct Asked {
    group: String,
    line: String,
    words: Vec<Vec<u8>>,
}

fn path(name: &str) -> PathBuf {
    source::root().join("tests/redis").join(name)
}

fn script() -> Vec<Asked> {
    let text = fs::read_to_string(path("commands.txt")).expect("tests/redis/commands.txt");
    let (mut group, mut asked) = (String::new(), Vec::new());
    for line in text.lines().filter(|line| !line.is_empty()) {
        match line.strip_prefix("## ") {
            Some(name) => group = name.to_owned(),
            None if line.starts_with("# ") => {}
            None => {
                let words = words_of(line);
                asked.push(Asked { group: group.clone(), line: line.to_owned(), words });
            }
        }
    }
    asked
}

/// Words of a line; in double quotes `\xHH`, `\r` and `\n` are bytes.
fn words_of(line: &str) -> Vec<Vec<u8>> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<Vec<u8>>, false);
    let mut rest = line.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            b' ' if !quoted => words.extend(word.take()),
            b'\\' if quoted => {
                let byte = match rest.next().expect("something is escaped") {
                    b'x' => {
                        let digits = [rest.next(), rest.next()].map(|digit| digit.expect("two digits"));
                        let digits = String::from_utf8(digits.to_vec()).expect("digits are ASCII");
                        u8::from_str_radix(&digits, 16).expect("hexadecimal digits")
                    }
                    b'r' => b'\r',
                    b'n' => b'\n',
                    other => other,
                };
                word.get_or_insert_default().push(byte);
            }
            byte => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    words
}

/// What a server answers to the whole script, a line each.
fn replies(addr: SocketAddr) -> Vec<String> {
    let mut resp = Resp::open(addr);
    let answer = |asked: &Asked| {
        let value = without_names(resp.ask(&asked.words));
        let has_order = !["KEYS", "SCAN"].contains(&asked.group.as_str());
        if has_order { value.shown() } else { value.sorted().shown() }
    };
    script().iter().map(answer).collect()
}

/// Without the connection's number and the server's version, which are others every time.
fn without_names(value: Value) -> Value {
    let is_name = |value: &Value| matches!(value, Value::Bulk(name) if *name == b"id" || *name == b"version");
    let masked = || Value::Bulk(b"...".to_vec());
    match value {
        Value::Map(pairs) => {
            let mask = |(key, value)| if is_name(&key) { (key, masked()) } else { (key, value) };
            Value::Map(pairs.into_iter().map(mask).collect())
        }
        Value::Array(mut items) => {
            for at in 1..items.len() {
                if is_name(&items[at - 1]) {
                    items[at] = masked();
                }
            }
            Value::Array(items)
        }
        other => other,
    }
}

/// Lode's replies that are others than Redis's, and why, by command.
fn differences() -> BTreeMap<String, (String, String)> {
    let text = fs::read_to_string(path("differences.txt")).expect("tests/redis/differences.txt");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with("# "));
    let split = |line: &str| {
        let parts: Vec<&str> = line.split('\t').collect();
        let [command, reply, why] = parts[..] else { panic!("{line:?} is not command, reply and reason") };
        (command.to_owned(), (reply.to_owned(), why.to_owned()))
    };
    lines.map(split).collect()
}

fn wants_writing() -> bool {
    std::env::var_os("LODE_WRITE_REPLIES").is_some()
}

/// What Redis has answered, a line for each command.
fn redis_replies() -> Vec<String> {
    if wants_writing() {
        let version = Redis::version();
        let answered = replies(Redis::start().addr);
        let lines: String = script()
            .iter()
            .zip(&answered)
            .map(|(asked, reply)| format!("{}\t{reply}\n", asked.line))
            .collect();
        let head =
            format!("# What Redis {version} answers to commands.txt; made with LODE_WRITE_REPLIES=1.\n");
        fs::write(path("replies.txt"), head + &lines).expect("tests/redis/replies.txt can be written");
    }
    let text = fs::read_to_string(path("replies.txt")).expect("tests/redis/replies.txt");
    let lines = text.lines().filter(|line| !line.starts_with("# "));
    let lines: Vec<(&str, &str)> =
        lines.map(|line| line.split_once('\t').expect("command and reply")).collect();
    let script = script();
    assert_eq!(lines.len(), script.len(), "commands.txt was changed: make replies.txt anew");
    for (asked, (line, _)) in script.iter().zip(&lines) {
        assert_eq!(asked.line, *line, "commands.txt was changed: make replies.txt anew");
    }
    lines.into_iter().map(|(_, reply)| reply.to_owned()).collect()
}

/// The table of the document: a row for each group.
fn table(script: &[Asked], redis: &[String], lode: &[String]) -> String {
    let known = differences();
    let mut groups: Vec<(&str, usize, usize, BTreeSet<&str>)> = Vec::new();
    for ((asked, redis), lode) in script.iter().zip(redis).zip(lode) {
        if groups.last().is_none_or(|(group, ..)| *group != asked.group) {
            groups.push((&asked.group, 0, 0, BTreeSet::new()));
        }
        let (_, asked_of, alike, notes) = groups.last_mut().expect("one was pushed");
        *asked_of += 1;
        *alike += usize::from(redis == lode);
        if redis != lode {
            notes.extend(known.get(&asked.line).map(|(_, why)| why.as_str()));
        }
    }
    let rows = groups.into_iter().map(|(group, asked, alike, notes)| {
        let notes: Vec<&str> = notes.into_iter().collect();
        format!("| {group} | {alike} of {asked} | {} |\n", notes.join("; "))
    });
    let head =
        "| command | replies that are Redis's, byte for byte | what differs |\n|---|---|---|\n".to_owned();
    rows.fold(head, |table, row| table + &row)
}

#[test]
fn replies_are_those_of_redis_but_for_the_differences_that_are_stated() {
    let home =
        Home::with(&["--size", "192MiB", "--shards", "2", "--memory", "128MiB", "--redis", "127.0.0.1:0"]);
    let node = home.start();
    let (script, redis, lode) = (script(), redis_replies(), replies(node.redis_addr()));
    let mut stated = differences();
    let mut wrong = Vec::new();
    for ((asked, redis), lode) in script.iter().zip(&redis).zip(&lode) {
        let wanted = stated.remove(&asked.line).map_or(redis.clone(), |(reply, _)| reply);
        if *lode != wanted {
            wrong.push(format!("{}\n  lode:   {lode}\n  wanted: {wanted}\n  Redis:  {redis}", asked.line));
        }
        if *lode == wanted && wanted != *redis && redis == lode {
            wrong.push(format!("{}: this is no difference", asked.line));
        }
    }
    wrong.extend(stated.keys().map(|line| format!("{line}: a difference of nothing that is asked")));
    assert!(wrong.is_empty(), "{} replies are not as they should be:\n{}", wrong.len(), wrong.join("\n"));

    let document = source::root().join("docs/redis.md");
    let text = fs::read_to_string(&document).expect("docs/redis.md");
    let (before, rest) = text.split_once(BEGIN).expect("docs/redis.md has the table's beginning");
    let (present, after) = rest.split_once(END).expect("docs/redis.md has the table's end");
    let table = format!("\n{}", table(&script, &redis, &lode));
    if wants_writing() {
        fs::write(&document, format!("{before}{BEGIN}{table}{END}{after}"))
            .expect("docs/redis.md can be written");
    } else {
        assert_eq!(present, table, "the table of docs/redis.md is another one: make it anew");
    }
}

#[test]
fn every_command_is_asked_of_both() {
    let home =
        Home::with(&["--size", "192MiB", "--shards", "1", "--memory", "64MiB", "--redis", "127.0.0.1:0"]);
    let node = home.start();
    let mut resp = Resp::open(node.redis_addr());
    let asked: BTreeSet<String> =
        script().iter().map(|asked| String::from_utf8_lossy(&asked.words[0]).to_lowercase()).collect();
    let known = resp.say("COMMAND LIST");
    for command in known.items() {
        let Value::Bulk(name) = command else { panic!("{command:?} is no name") };
        let name = String::from_utf8_lossy(name).into_owned();
        // What Redis has not, or tells of itself alone.
        if !name.starts_with("lode.") && name != "info" {
            assert!(asked.contains(&name), "{name} is asked nowhere in tests/redis/commands.txt");
        }
    }
}
