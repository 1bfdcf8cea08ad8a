//! The RESP door of a real node: pipelines, transactions, hostile bytes, limits, crashes and stops. Real clients are
//! in `redis_clients.rs`, replies one by one in `redis_replies.rs`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lode_net::client::Placement;
use lode_net::resp::limits::MAX_LINE_BYTES;
use lode_node::redis::limits::{
    KEPT_ARGUMENT_BYTES, MAX_QUEUED_BYTES, MAX_QUEUED_COMMANDS, MAX_REPLY_BYTES, MAX_REQUEST_BYTES,
    MAX_SCAN_COUNT,
};
use lode_tests::node::{Home, Node};
use lode_tests::resp::{Resp, Value, request, requests};
use lode_tests::table;

fn home(more: &[&str]) -> Home {
    let options = ["--size", "192MiB", "--shards", "2", "--memory", "128MiB", "--redis", "127.0.0.1:0"];
    Home::with(&[&options[..], more].concat())
}

fn open(node: &Node) -> Resp {
    Resp::open(node.redis_addr())
}

fn bulk(text: &str) -> Value {
    Value::Bulk(text.as_bytes().to_vec())
}

fn ok() -> Value {
    Value::Simple("OK".into())
}

#[track_caller]
fn assert_error(value: &Value, begins: &str) {
    assert!(matches!(value, Value::Error(text) if text.starts_with(begins)), "{value:?} is not -{begins}");
}

#[test]
fn a_pipeline_is_answered_in_order_and_sees_what_it_wrote() {
    let home = home(&[]);
    let node = home.start();
    let mut resp = open(&node);
    let mut bytes = Vec::new();
    for n in 0..500 {
        let (key, value) = (format!("k{}", n % 50), format!("v{n}"));
        bytes.extend(request(&["SET", &key, &value]));
        bytes.extend(request(&["GET", &key]));
        bytes.extend(request(&["INCR", "counter"]));
        bytes.extend_from_slice(b"PING\r\n");
    }
    bytes.extend(requests(&["DBSIZE", "DEL k0 k1", "EXISTS k0 k1 k2", "FLUSHDB", "DBSIZE"]));
    // In pieces of no sense.
    for piece in bytes.chunks(997) {
        resp.send(piece);
    }
    for n in 0..500 {
        assert_eq!(resp.reply(), ok(), "{n}");
        assert_eq!(resp.reply(), bulk(&format!("v{n}")));
        assert_eq!(resp.reply(), Value::Integer(n + 1));
        assert_eq!(resp.reply(), Value::Simple("PONG".into()));
    }
    for number in [51, 2, 1] {
        assert_eq!(resp.reply(), Value::Integer(number));
    }
    assert_eq!((resp.reply(), resp.reply()), (ok(), Value::Integer(0)));
}

#[test]
fn a_client_may_send_all_before_it_reads_anything() {
    let home = home(&[]);
    let node = home.start();
    let mut resp = open(&node);
    assert_eq!(resp.ask(&["SET", "k", &"v".repeat(100)]), ok());
    const MANY: usize = 60_000;
    resp.send(&request(&["GET", "k"]).repeat(MANY));
    for _ in 0..MANY {
        assert!(matches!(resp.reply(), Value::Bulk(value) if value.len() == 100));
    }
}

#[test]
fn what_was_sent_before_the_end_is_done_and_answered() {
    let home = home(&[]);
    let node = home.start();
    let mut resp = open(&node);
    const MANY: usize = 1000;
    resp.send(&(0..MANY).flat_map(|n| request(&["SET", &format!("k{n}"), "v"])).collect::<Vec<u8>>());
    // What is not whole is nothing.
    resp.send(b"*3\r\n$3\r\nSET\r\n$4\r\nhalf");
    resp.stream.shutdown(std::net::Shutdown::Write).expect("it is open");
    (0..MANY).for_each(|n| assert_eq!(resp.try_reply(), Some(ok()), "{n}"));
    assert!(resp.has_ended());
    assert_eq!(open(&node).say("DBSIZE"), Value::Integer(MANY as i64));
}

#[test]
fn hostile_bytes_cost_their_own_connection_and_no_other() {
    let home = home(&[]);
    let node = home.start();
    let mut good = open(&node);
    let long = vec![b'a'; MAX_LINE_BYTES + 1];
    for (bytes, told) in [
        (&b"*1\r\n:1\r\n"[..], "ERR Protocol error: expected '$', got ':'"),
        (b"*1048577\r\n", "ERR Protocol error: invalid multibulk length"),
        (b"*2\r\n$3\r\nGET\r\n$-5\r\n", "ERR Protocol error: invalid bulk length"),
        (b"*1\r\n$536870913\r\n", "ERR Protocol error: invalid bulk length"),
        (b"GET \"a\r\n", "ERR Protocol error: unbalanced quotes in request"),
        (&long, "ERR Protocol error: too big inline request"),
        (&[b"*", &long[..]].concat(), "ERR Protocol error: too big mbulk count string"),
        (&[b"*1\r\n$", &long[..]].concat(), "ERR Protocol error: too big bulk count string"),
    ] {
        let mut bad = open(&node);
        bad.send(b"PING\r\n");
        bad.send(bytes);
        assert_eq!(bad.reply(), Value::Simple("PONG".into()), "what came before is answered");
        assert_eq!(bad.reply(), Value::Error(told.into()));
        assert!(bad.has_ended());
    }
    for http in [&b"POST / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"Host: x\r\n"] {
        let mut bad = open(&node);
        bad.send(http);
        assert!(bad.has_ended(), "a browser is told nothing");
    }
    // Begun, and left: many who promise much.
    let idle: Vec<Resp> = (0..50)
        .map(|_| {
            let mut resp = open(&node);
            resp.send(b"*1000000\r\n$500000000\r\nabc");
            resp
        })
        .collect();
    assert_eq!(good.say("SET still here"), ok());
    assert!(node.resident_bytes() < 1 << 30, "{} bytes", node.resident_bytes());
    drop(idle);
    assert_eq!(good.say("GET still"), bulk("here"));
}

#[test]
fn what_is_too_large_is_refused_and_the_connection_goes_on() {
    let home = home(&[]);
    let node = home.start();
    let mut resp = open(&node);
    for (bytes, good) in [((1 << 20) - 1, true), (1 << 20, true), ((1 << 20) + 1, false), (8 << 20, false)] {
        let value = vec![b'v'; bytes];
        let answer = resp.ask(&[&b"SET"[..], b"k", &value]);
        match good {
            true => {
                assert_eq!(answer, ok(), "{bytes}");
                assert_eq!(resp.ask(&["GET", "k"]), Value::Bulk(value));
            }
            false => assert_error(&answer, "ERR string exceeds maximum allowed size (1048576 bytes)"),
        }
    }
    let huge = vec![b'v'; MAX_REQUEST_BYTES];
    assert_error(&resp.ask(&[&b"SET"[..], b"k", &huge]), "ERR the request is larger than");
    let key = "k".repeat(4096);
    assert_eq!(resp.ask(&["SET", &key, "v"]), ok());
    assert_error(
        &resp.ask(&["SET", &format!("{key}k"), "v"]),
        "ERR a key has 1 to 4096 bytes, this one has 4097",
    );
    assert_error(&resp.say("APPEND k x"), "ERR string exceeds maximum allowed size");
    assert_eq!(resp.say("STRLEN k"), Value::Integer(1 << 20));
    // More than one reply may be.
    let value = vec![b'v'; 1 << 20];
    for n in 0..=MAX_REPLY_BYTES >> 20 {
        resp.send(&request(&[b"SET", format!("big{n:02}").as_bytes(), &value]));
    }
    (0..=MAX_REPLY_BYTES >> 20).for_each(|_| assert_eq!(resp.reply(), ok()));
    assert_error(&resp.say("LODE.RANGE big +"), "ERR the reply would be longer");
    let fitting = resp.say("LODE.RANGE big + LIMIT 15");
    assert_eq!(fitting.items().len(), 30);
    let names: Vec<String> = (0..=MAX_REPLY_BYTES >> 20).map(|n| format!("big{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let of = |count: usize| [&["MGET"], &names[..count]].concat();
    assert_error(&resp.ask(&of(names.len())), "ERR the reply would be longer");
    assert_eq!(resp.ask(&of(15)).items().len(), 15);
    for count in [15, names.len()] {
        resp.send(&requests(&["MULTI", "SET small 1"]));
        names[..count].iter().for_each(|name| resp.send(&request(&["GET", name])));
        (0..count + 2).for_each(|_| assert!(matches!(resp.reply(), Value::Simple(_))));
        let done = resp.say("EXEC");
        match count {
            15 => assert_eq!(done.items().len(), count + 1),
            _ => assert_error(&done, "ERR the reply would be longer"),
        }
        assert_eq!(resp.say("DEL small"), Value::Integer(i64::from(count == 15)), "all of it, or nothing");
    }
    // What was long is given back when it is over.
    let told = |resp: &mut Resp| {
        let told = resp.say("INFO memory").shown();
        let (_, held) = told.split_once("mem_clients_normal:").expect("it is told");
        held.split('\\').next().and_then(|held| held.parse::<usize>().ok()).expect("a number")
    };
    assert!(told(&mut resp) < 1 << 20, "{}", told(&mut resp));
}

#[test]
fn connections_are_counted_at_the_limit_and_above() {
    let home = home(&["--max-connections", "8"]);
    let node = home.start();
    let mut open_ones: Vec<Resp> = (0..8).map(|_| open(&node)).collect();
    assert!(open_ones.iter_mut().all(|resp| resp.say("PING") == Value::Simple("PONG".into())));
    let mut above = open(&node);
    assert_error(&above.reply(), "ERR max number of clients reached");
    assert!(above.has_ended());
    drop(open_ones.pop());
    let from = Instant::now();
    loop {
        let mut again = open(&node);
        again.send(b"PING\r\n");
        if again.try_reply() == Some(Value::Simple("PONG".into())) {
            break;
        }
        assert!(from.elapsed() < Duration::from_secs(20), "a place that is free is given away");
    }
}

#[test]
fn a_watched_key_that_was_written_ends_the_transaction() {
    let home = home(&[]);
    let node = home.start();
    let (mut one, mut other) = (open(&node), open(&node));
    one.say("SET k 1");
    for change in ["SET k 2", "DEL k", "INCR k", "EXPIRE k 100", "PERSIST k", "FLUSHDB"] {
        assert_eq!(one.say("WATCH k"), ok());
        other.say(change);
        assert_eq!((one.say("MULTI"), one.say("SET k 9").shown()), (ok(), "+QUEUED".into()));
        assert_eq!(one.say("EXEC"), Value::Nothing("*-1"), "{change}");
    }
    assert_eq!(one.say("WATCH k"), ok());
    other.say("SET else 1");
    one.say("MULTI");
    one.say("SET k 9");
    assert_eq!(one.say("EXEC"), Value::Array(vec![ok()]));
    // Without WATCH none is in another's way: everything is counted.
    let addr = node.redis_addr();
    let count = move |_| std::thread::spawn(move || count_in_transactions(addr, 25));
    let counting: Vec<_> = (0..4).map(count).collect();
    counting.into_iter().for_each(|thread| thread.join().expect("no client panics"));
    assert_eq!(one.say("MGET a b"), Value::Array(vec![bulk("100"), bulk("100")]));
}

fn count_in_transactions(addr: SocketAddr, times: usize) {
    let mut resp = Resp::open(addr);
    for _ in 0..times {
        resp.send(&requests(&["MULTI", "INCR a", "INCR b", "MGET a b", "EXEC"]));
        (0..4).for_each(|_| assert!(matches!(resp.reply(), Value::Simple(_))));
        let done = resp.reply();
        let [Value::Integer(a), Value::Integer(b), seen] = done.items() else { panic!("{done:?}") };
        assert_eq!(a, b);
        assert_eq!(*seen, Value::Array(vec![bulk(&a.to_string()), bulk(&b.to_string())]));
    }
}

#[test]
fn what_a_transaction_cannot_carry_is_refused_as_a_whole() {
    let home = home(&[]);
    let node = home.start();
    node.client().create_table(table::durable("wide", 16)).expect("made");
    let mut resp = open(&node);
    assert_eq!(resp.say("SET expiring 1 EX 100"), ok());
    for command in ["INCR expiring", "APPEND expiring x", "RENAME expiring other"] {
        resp.send(&requests(&["MULTI", "SET plain 1", command, "EXEC"]));
        let replies: Vec<Value> = (0..4).map(|_| resp.reply()).collect();
        assert_error(&replies[3], "ERR the key 'expiring' has a time to live");
        assert_eq!(resp.say("EXISTS plain"), Value::Integer(0), "nothing of it was done");
    }
    resp.send(&requests(&["MULTI", "SET plain 1", "SETEX plain 10 v", "EXEC"]));
    let replies: Vec<Value> = (0..4).map(|_| resp.reply()).collect();
    assert_error(&replies[2], "ERR 'SETEX' as it is asked here sets a time to live");
    assert_error(&replies[3], "EXECABORT");
    for (commands, bytes) in [(MAX_QUEUED_COMMANDS, 1), (8, MAX_QUEUED_BYTES / 8)] {
        for more in [0, 1] {
            resp.say("MULTI");
            let echo = "x".repeat(bytes - ("ECHO".len() + 2 * KEPT_ARGUMENT_BYTES).min(bytes - 1));
            resp.send(&request(&["ECHO", &echo]).repeat(commands + more));
            let last = (0..commands + more).map(|_| resp.reply()).last().expect("some");
            match more {
                0 => assert_eq!(last.shown(), "+QUEUED"),
                _ => assert_error(&last, "ERR MULTI takes at most"),
            }
            let done = resp.say("EXEC");
            if more == 0 {
                assert_eq!(done.items().len(), commands)
            } else {
                assert_error(&done, "EXECABORT")
            }
        }
    }
    assert_eq!(resp.say("SELECT wide"), ok());
    assert_error(&resp.say("MSETNX a 1 b 2 c 3 d 4 e 5"), "CROSSSLOT");
    assert_error(&resp.say("MSET a 1 b 2 c 3 d 4 e 5"), "CROSSSLOT");
    (b'a'..=b'h').for_each(|key| assert_eq!(resp.say(&format!("SET {} 1", char::from(key))), ok()));
    assert_eq!(resp.say("MGET a b c d nosuch").items().len(), 5);
    assert_eq!(resp.say("DEL a b c d nosuch"), Value::Integer(4));
    resp.send(&requests(&["MULTI", "SET e 2", "SET f 2", "SET g 2", "SET h 2", "EXEC"]));
    let last = (0..6).map(|_| resp.reply()).last().expect("some");
    assert_error(&last, "CROSSSLOT");
    assert_eq!(resp.say("GET e"), bulk("1"));
}

#[test]
fn a_select_within_a_pipeline_counts_for_what_follows_it() {
    let home = home(&[]);
    let node = home.start();
    for name in ["words", "7"] {
        node.client().create_table(table::durable(name, 4)).expect("made");
    }
    let mut resp = open(&node);
    // In one pipeline, each means the table that was chosen before it.
    resp.send(&requests(&[
        "SET in 0",
        "SELECT words",
        "SET in words",
        "SELECT 7",
        "SET in 7",
        "SELECT 0",
        "GET in",
    ]));
    let replies: Vec<Value> = (0..7).map(|_| resp.reply()).collect();
    assert_eq!(replies.last(), Some(&bulk("0")), "{replies:?}");
    for table in ["words", "7"] {
        resp.send(&requests(&[&format!("SELECT {table}"), "GETDEL in", "RESET"]));
        let replies: Vec<Value> = (0..3).map(|_| resp.reply()).collect();
        assert_eq!(replies[1], bulk(table));
    }
    let keys: Vec<String> = (0..2000).map(|n| format!("many{n}")).collect();
    let words: Vec<&str> = keys.iter().map(String::as_str).collect();
    resp.ask(&[&["MSET"], &words[..]].concat());
    assert_eq!(
        resp.ask(&[&["DEL"], &words[..]].concat()),
        Value::Integer(1000),
        "more than one instant takes"
    );
}

#[test]
fn tables_are_chosen_and_scanned_in_order() {
    let home = home(&[]);
    let node = home.start();
    let mut client = node.client();
    let mut ranges = table::durable("words", 1);
    ranges.placement = Placement::Range { splits: vec![b"m".to_vec()] };
    client.create_table(ranges).expect("made");
    client.create_table(table::durable("7", 8)).expect("made");
    let mut resp = open(&node);
    assert_error(&resp.say("SELECT nosuch"), "ERR DB index is out of range");
    for table in ["words", "7"] {
        assert_eq!(resp.say(&format!("SELECT {table}")), ok());
        for n in 0..300 {
            resp.send(&request(&["SET", &format!("k{n:03}"), &n.to_string()]));
        }
        (0..300).for_each(|_| assert_eq!(resp.reply(), ok()));
        assert_eq!(resp.say("DBSIZE"), Value::Integer(300));
        assert_eq!(client.count(table, b"", None).expect("counted"), 300, "it is lode's own table");
        let (mut cursor, mut seen) = ("0".to_owned(), Vec::new());
        // Each call by another connection, as a pool does it.
        while seen.is_empty() || cursor != "0" {
            let mut resp = open(&node);
            resp.say(&format!("SELECT {table}"));
            let page = resp.say(&format!("SCAN {cursor} COUNT 70 MATCH k*5"));
            let [Value::Bulk(next), Value::Array(keys)] = page.items() else { panic!("{page:?}") };
            cursor = String::from_utf8(next.clone()).expect("a number");
            seen.extend(keys.iter().map(Value::shown));
        }
        assert_eq!(seen, (0..30).map(|n| format!("\"k{n:02}5\"")).collect::<Vec<_>>());
        assert_error(&resp.say("SCAN 12345"), "ERR invalid cursor");
        let all = resp.say(&format!("SCAN 0 COUNT {}", MAX_SCAN_COUNT + 1));
        assert_eq!(all.items()[1].items().len(), 300);
        let range = resp.say("LODE.RANGE k010 k013");
        assert_eq!(range.shown(), r#"["k010", "10", "k011", "11", "k012", "12"]"#);
        let range = resp.say("LODE.REVRANGE k010 + LIMIT 2 KEYS");
        assert_eq!(range.shown(), r#"["k299", "k298"]"#);
        assert_eq!(resp.say("LODE.MIN").shown(), r#"["k000", "0"]"#);
        assert_eq!(resp.say("LODE.MAX").shown(), r#"["k299", "299"]"#);
        assert!(matches!(resp.say("RANDOMKEY"), Value::Bulk(key) if key.starts_with(b"k")));
        assert_eq!(resp.say("LODE.CAS k000 1 x"), Value::Integer(0));
        assert_eq!(resp.say("LODE.CAS k000 0 x"), Value::Integer(1));
        assert_eq!(resp.say("LODE.CAS nosuch 0 x"), Value::Integer(0));
        assert_eq!(resp.say("FLUSHDB"), ok());
        assert_eq!((resp.say("DBSIZE"), resp.say("LODE.MAX")), (Value::Integer(0), Value::Nothing("*-1")));
    }
}

#[test]
fn times_to_live_end_by_themselves_and_are_kept_by_what_keeps_them() {
    let home = home(&[]);
    let node = home.start();
    let mut resp = open(&node);
    resp.say("SET soon v PX 120");
    for (set, change) in
        [("a", "APPEND"), ("b", "SETRANGE"), ("c", "INCRBYFLOAT"), ("d", "SET"), ("e", "INCRBY")]
    {
        resp.say(&format!("SET {set} 5 EX 50"));
        let rest = match change {
            "SETRANGE" => "0 7",
            "SET" => "7 KEEPTTL",
            _ => "7",
        };
        let answer = resp.say(&format!("{change} {set} {rest}"));
        assert!(!matches!(answer, Value::Error(_)), "{change}: {answer:?}");
        let Value::Integer(left_ms) = resp.say(&format!("PTTL {set}")) else { panic!("{change}") };
        assert!((40_000..=50_000).contains(&left_ms), "{change}: {left_ms}");
    }
    assert_eq!(resp.say("GETSET a 1"), bulk("57"));
    assert_eq!(resp.say("TTL a"), Value::Integer(-1), "a new value lives for ever");
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!((resp.say("GET soon"), resp.say("TTL soon")), (Value::Nothing("$-1"), Value::Integer(-2)));
}

#[test]
fn what_lives_for_ever_in_a_table_with_a_time_to_live_goes_on_to() {
    let home = home(&[]);
    let node = home.start();
    let mut expiring = table::durable("expiring", 1);
    expiring.ttl = Some(Duration::from_secs(1000));
    node.client().create_table(expiring).expect("made");
    let mut resp = open(&node);
    assert_eq!(resp.say("SELECT expiring"), ok());
    assert_eq!((resp.say("SET kept 5"), resp.say("PERSIST kept")), (ok(), Value::Integer(1)));
    for command in ["INCR kept", "APPEND kept 6", "RENAME kept other"] {
        resp.send(&requests(&["MULTI", "SET plain 1", command, "EXEC"]));
        let replies: Vec<Value> = (0..4).map(|_| resp.reply()).collect();
        assert_error(&replies[3], "ERR the key 'kept' lives for ever");
        assert_eq!(resp.say("EXISTS plain"), Value::Integer(0), "nothing of it was done");
    }
    assert_eq!((resp.say("GET kept"), resp.say("TTL kept")), (bulk("5"), Value::Integer(-1)));
    assert_eq!(resp.say("RENAME kept other"), ok());
    assert_eq!((resp.say("EXISTS kept"), resp.say("TTL other")), (Value::Integer(0), Value::Integer(-1)));
    // What the transaction has written itself lives as the table says, and may be written again.
    resp.send(&requests(&["MULTI", "SET plain 1", "INCR plain", "RENAME plain fresh", "EXEC"]));
    let done = (0..5).map(|_| resp.reply()).last().expect("some");
    assert_eq!(done, Value::Array(vec![ok(), Value::Integer(2), ok()]));
    assert!(matches!(resp.say("TTL fresh"), Value::Integer(1..=1000)));
}

#[test]
fn the_longest_keys_are_found_as_others_are() {
    let home = home(&[]);
    let node = home.start();
    let mut resp = open(&node);
    let key = |last: u8| [&[b'k'; 4095][..], &[last]].concat();
    let keys = [key(b'k'), key(b'l'), key(0xff), vec![0xff; 4096]];
    for (place, key) in keys.iter().enumerate() {
        assert_eq!(resp.ask(&[&b"SET"[..], key, b"v"]), ok());
        assert!(matches!(resp.say("RANDOMKEY"), Value::Bulk(found) if keys[..=place].contains(&found)));
    }
    assert_eq!(resp.ask(&[&b"EXISTS"[..], &keys[0], &keys[3], b"nosuch"]), Value::Integer(2));
    let (mut cursor, mut seen) = ("0".to_owned(), Vec::new());
    while seen.is_empty() || cursor != "0" {
        let page = resp.say(&format!("SCAN {cursor} COUNT 1"));
        let [Value::Bulk(next), Value::Array(keys)] = page.items() else { panic!("{page:?}") };
        cursor = String::from_utf8(next.clone()).expect("a number");
        seen.extend(keys.clone());
    }
    assert_eq!(seen, keys.map(Value::Bulk));
    let long = "p".repeat(5000);
    for pattern in [&long, &format!("{long}*")] {
        assert_eq!(resp.ask(&["KEYS", pattern]), Value::Array(Vec::new()));
        let page = resp.ask(&["SCAN", "0", "MATCH", pattern]);
        assert_eq!(page, Value::Array(vec![bulk("0"), Value::Array(Vec::new())]));
    }
}

#[test]
fn acknowledged_writes_survive_sigkill() {
    let home = home(&[]);
    let mut acknowledged = Vec::new();
    for round in 0..2 {
        let node = home.start();
        let addr = node.redis_addr();
        let write = move |client| std::thread::spawn(move || write_until_gone(addr, round, client));
        let writing: Vec<_> = (0..3).map(write).collect();
        std::thread::sleep(Duration::from_millis(250));
        node.kill();
        acknowledged.extend(writing.into_iter().map(|thread| thread.join().expect("no client panics")));
    }
    let node = home.start();
    let mut resp = open(&node);
    assert!(acknowledged.iter().all(|(_, count)| *count > 0), "{acknowledged:?}");
    for (name, count) in acknowledged {
        for n in 0..count {
            resp.send(&request(&["GET", &format!("{name}:{n}")]));
        }
        (0..count).for_each(|n| assert_eq!(resp.reply(), bulk(&n.to_string()), "{name}:{n} is lost"));
    }
}

/// Writes pipelines until the node is gone; the keys' name, and how many were acknowledged, from the first on.
fn write_until_gone(addr: SocketAddr, round: usize, client: usize) -> (String, usize) {
    use std::io::Write;
    let name = format!("{round}:{client}");
    let (mut resp, mut acknowledged) = (Resp::open(addr), 0);
    loop {
        let set = |n: usize| request(&["SET", &format!("{name}:{n}"), &n.to_string()]);
        let pipeline: Vec<u8> = (acknowledged..acknowledged + 20).flat_map(set).collect();
        if resp.stream.write_all(&pipeline).is_err() {
            return (name, acknowledged);
        }
        for _ in 0..20 {
            match resp.try_reply() {
                Some(Value::Simple(_)) => acknowledged += 1,
                _ => return (name, acknowledged),
            }
        }
    }
}

#[test]
fn a_stop_answers_what_has_begun_and_ends_connections() {
    let home = home(&[]);
    let node = home.start();
    let mut idle = open(&node);
    assert_eq!(idle.say("SET k 1"), ok());
    let mut busy = open(&node);
    busy.send(&request(&["INCR", "k"]).repeat(50));
    assert_eq!(busy.reply(), Value::Integer(2));
    let from = Instant::now();
    assert!(node.stop().success());
    assert!(from.elapsed() < Duration::from_secs(20), "{:?}", from.elapsed());
    assert!(idle.has_ended());
    let mut last = 2;
    while let Some(reply) = busy.try_reply() {
        last += 1;
        assert_eq!(reply, Value::Integer(last));
    }
    let node = home.start();
    let Value::Bulk(counted) = open(&node).say("GET k") else { panic!("the counter is gone") };
    let counted: i64 = String::from_utf8(counted).expect("a number").parse().expect("a number");
    assert!(counted >= last, "{counted} are counted, {last} were told");
}

#[test]
fn a_door_that_cannot_open_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let addr = taken.local_addr().expect("it has an address").to_string();
    let home = Home::with(&["--size", "192MiB", "--shards", "1", "--memory", "64MiB", "--redis", &addr]);
    let output = home.command().output().expect("the node can be started");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains(&format!("{addr} is in use")), "{told}");
    assert!(told.contains("--redis"), "{told}");
    assert!(!home.drive().exists(), "no drive is made for a node that does not start");
}
