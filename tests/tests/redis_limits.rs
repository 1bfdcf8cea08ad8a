//! What a Redis client that means ill, or has bad luck, may take of the RESP door: memory that is kept between commands, scans,
//! patterns, commands of connections that are gone, and rates.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use lode_node::redis::limits::{
    KEPT_ARGUMENT_BYTES, LEAST_HELD_BYTES, MAX_HELD_BYTES, MAX_PATTERN_BYTES, MAX_QUEUED_BYTES,
    MAX_WATCHED_BYTES,
};
use lode_tests::guarded::{Guarded, eventually, hang_up};
use lode_tests::http::get;
use lode_tests::node::{Home, Node};
use lode_tests::resp::{Resp, Value, request};

fn home(more: &[&str]) -> Home {
    let options = ["--size", "192MiB", "--shards", "2", "--memory", "128MiB", "--redis", "127.0.0.1:0"];
    Home::with(&[&options[..], more].concat())
}

fn open(node: &Node) -> Resp {
    Resp::open(node.redis_addr())
}

fn ok() -> Value {
    Value::Simple("OK".into())
}

#[track_caller]
fn assert_error(value: &Value, begins: &str) {
    assert!(matches!(value, Value::Error(text) if text.starts_with(begins)), "{value:?} is not -{begins}");
}

/// Keys of so many digits, in batches.
fn write_keys(resp: &mut Resp, count: usize, key: impl Fn(usize) -> String) {
    let keys: Vec<String> = (0..count).map(key).collect();
    for some in keys.chunks(1000) {
        let words: Vec<&str> = some.iter().flat_map(|key| [key.as_str(), "v"]).collect();
        resp.send(&request(&[&["MSET"], &words[..]].concat()));
    }
    keys.chunks(1000).for_each(|_| assert_eq!(resp.reply(), ok()));
}

#[test]
fn what_is_kept_between_commands_is_counted_even_where_it_has_no_bytes() {
    let home = home(&[]);
    let node = home.start();
    let mut resp = open(&node);
    // A hundred thousand arguments without a byte, again and again: they take their places in memory all the same.
    assert_eq!(resp.say("MULTI"), ok());
    let empty = [vec!["DEL"], vec![""; MAX_QUEUED_BYTES / KEPT_ARGUMENT_BYTES]].concat();
    assert_error(&resp.ask(&empty), "ERR MULTI takes at most");
    assert_error(&resp.say("EXEC"), "EXECABORT");
    // Keys that are watched, long ones.
    let key = |n: usize| format!("{n:04096}");
    let most = MAX_WATCHED_BYTES / (4096 + KEPT_ARGUMENT_BYTES);
    let held = |resp: &mut Resp| {
        let told = resp.say("INFO memory").shown();
        let (_, held) = told.split_once("mem_clients_normal:").expect("it is told");
        held.split('\\').next().and_then(|held| held.parse::<usize>().ok()).expect("a number")
    };
    for n in 0..most {
        assert_eq!(resp.ask(&["WATCH", &key(n)]), ok(), "{n}");
    }
    assert_error(&resp.ask(&["WATCH", &key(most)]), "ERR a connection watches at most");
    assert_eq!(resp.ask(&["WATCH", &key(0)]), ok(), "which it watches already");
    let with = held(&mut resp);
    assert!(with > MAX_WATCHED_BYTES / 2, "{with} bytes are counted");
    resp.say("MULTI");
    resp.say("SET a 1");
    assert_eq!(resp.say("EXEC"), Value::Array(vec![ok()]));
    assert!(held(&mut resp) < with / 2, "they are given back");
}

#[test]
fn where_many_keep_much_each_is_held_to_his_share() {
    let home = home(&[]);
    let node = home.start();
    // Piece by piece: none of them is large.
    let (piece, pieces) = (32 << 10, 60);
    let text = "x".repeat(piece);
    let mut keep: Vec<Resp> = (0..192).map(|_| open(&node)).collect();
    let mut refused = 0;
    for resp in &mut keep {
        assert_eq!(resp.say("MULTI"), ok());
        resp.send(&request(&["ECHO", &text]).repeat(pieces));
        let is_refused =
            |told: &Value| matches!(told, Value::Error(why) if why.starts_with("BUSY memory is short"));
        refused += (0..pieces).filter(|_| is_refused(&resp.reply())).count();
    }
    // A third of them has what he wants; then half of the memory is taken, and the others share the other half.
    assert!((3000..8000).contains(&refused), "{refused} of {} are refused", 192 * pieces);
    assert!(node.resident_bytes() < 500 << 20, "{} bytes", node.resident_bytes());
    // And whoever wants little has it.
    let mut other = open(&node);
    assert_eq!(other.say("SET k v"), ok());
    drop(keep);
    eventually("there is room again", || {
        let mut resp = open(&node);
        resp.say("MULTI");
        resp.ask(&["ECHO", &text]) == Value::Simple("QUEUED".into())
    });
}

#[test]
fn a_scan_that_takes_its_time_goes_on_beside_one_that_does_not() {
    let home = home(&[]);
    let node = home.start();
    let (mut slow, mut quick) = (open(&node), open(&node));
    write_keys(&mut slow, 5000, |n| format!("k{n:05}"));
    let first = slow.say("SCAN 0 COUNT 10");
    let [Value::Bulk(at), Value::Array(keys)] = first.items() else { panic!("{first:?}") };
    assert_eq!(keys.len(), 10);
    let at = String::from_utf8(at.clone()).expect("a number");
    // As many pages as once were all that is remembered.
    let (mut cursor, mut pages) = ("0".to_owned(), 0);
    while pages == 0 || cursor != "0" {
        let page = quick.say(&format!("SCAN {cursor} COUNT 1"));
        let [Value::Bulk(next), _] = page.items() else { panic!("{page:?}") };
        cursor = String::from_utf8(next.clone()).expect("a number");
        pages += 1;
    }
    assert_eq!(pages, 5001);
    let second = slow.say(&format!("SCAN {at} COUNT 10"));
    assert_eq!(second.items()[1].items()[0].shown(), "\"k00010\"", "it goes on where it was");
    let again = slow.say(&format!("SCAN {at} COUNT 10"));
    assert_eq!(again, second, "whoever has not heard the answer asks again, and is told the same");
}

#[test]
fn any_key_is_as_likely_as_any_other() {
    let home = home(&[]);
    let node = home.start();
    let mut resp = open(&node);
    assert_eq!(resp.say("RANDOMKEY"), Value::Nothing("$-1"));
    assert_eq!(resp.say("SET only 1"), ok());
    assert_eq!(resp.say("RANDOMKEY").shown(), "\"only\"");
    // Most lie close together, and some far from them: below, above, and within what they begin with.
    write_keys(&mut resp, 3000, |n| format!("tenant:17:order:{n:08}"));
    for far in ["\x01", "tenant:17:order", "tenant:17:order:00000001x", "zzz"] {
        assert_eq!(resp.ask(&["SET", far, "v"]), ok());
    }
    resp.send(&request(&["RANDOMKEY"]).repeat(400));
    let given: Vec<String> = (0..400).map(|_| resp.reply().shown()).collect();
    let of_many = given.iter().filter(|key| key.starts_with("\"tenant:17:order:0")).count();
    assert!(of_many > 390, "{of_many} of 400 are those of the many");
    let different: std::collections::BTreeSet<&String> = given.iter().collect();
    // By chance: 3005 (1 - exp(-400 / 3005)) = 375.
    assert!(different.len() > 345, "{} different ones of 400", different.len());
    let upper = given.iter().filter(|key| key.as_str() >= "\"tenant:17:order:00001500").count();
    assert!((140..260).contains(&upper), "{upper} of 400 are of the upper half");
}

#[test]
fn what_goes_through_a_table_ends_with_the_connection_that_asked() {
    let home = home(&["--admin", "0"]);
    let node = home.start();
    write_keys(&mut open(&node), 40_000, |n| format!("k{n:06}"));
    for _ in 0..100 {
        let mut resp = open(&node);
        // What has come and is not read makes its end a reset.
        resp.send(&request(&["PING"]));
        assert_eq!(resp.stream.peek(&mut [0]).expect("an answer"), 1);
        resp.send(&request(&["KEYS", "*nobody"]));
        std::thread::sleep(Duration::from_millis(3));
    }
    // Each would read 79 pages, which takes longer than this all together.
    std::thread::sleep(Duration::from_millis(300));
    let before = node.total("scans");
    std::thread::sleep(Duration::from_millis(400));
    let pages = node.total("scans") - before;
    assert!(pages <= 4, "{pages} pages are read for nobody");
}

/// Keys of which a look at one may take millions of steps.
fn set_long_keys(resp: &mut Resp, many: usize) {
    let long = "a".repeat(4000);
    (0..many).for_each(|n| resp.send(&request(&["SET", &format!("{long}{n:03}"), "v"])));
    (0..many).for_each(|_| assert_eq!(resp.reply(), ok()));
}

/// How often one is answered before another, who waits, is told.
fn answered_until_told(one: &mut Resp, waiting: &mut Resp) -> usize {
    let mut answered = 0;
    waiting.stream.set_nonblocking(true).expect("a socket can be set so");
    while waiting.stream.peek(&mut [0]).is_err() {
        assert_eq!(one.say("PING"), Value::Simple("PONG".into()));
        answered += 1;
    }
    waiting.stream.set_nonblocking(false).expect("and back");
    answered
}

#[test]
fn a_pattern_that_takes_long_keeps_nobody_waiting() {
    const MANY: usize = 40;
    let home = home(&[]);
    let node = home.start();
    let (mut evil, mut other) = (open(&node), open(&node));
    assert_error(
        &evil.ask(&["KEYS", &"*".repeat(MAX_PATTERN_BYTES + 1)]),
        "ERR the patterns of a command have at most",
    );
    set_long_keys(&mut evil, MANY);
    // Each key is looked at from each of its bytes on, as far as two thousand of them: millions of steps.
    let pattern = format!("*{}b", "a".repeat(2000));
    evil.send(&request(&["KEYS", &pattern]));
    // One may come before the work begins, and another as it ends.
    let meanwhile = answered_until_told(&mut other, &mut evil);
    assert_eq!(evil.reply(), Value::Array(vec![]));
    assert!(meanwhile > 4, "another was answered {meanwhile} times while {MANY} keys were looked at");
}

/// What long classes and many who ask for patterns take once held everybody up for a quarter of a minute.
#[test]
fn patterns_of_many_that_take_long_keep_nobody_waiting() {
    const EVIL: usize = 20;
    let home = home(&[]);
    let node = home.start();
    let (mut setter, mut other) = (open(&node), open(&node));
    set_long_keys(&mut setter, EVIL);
    let class = "b".repeat(16_000);
    let patterns = [format!("*[{class}a][{}]", "b".repeat(300)), format!("*{}b", "a".repeat(2000))];
    let mut evil: Vec<Resp> = (0..EVIL).map(|_| open(&node)).collect();
    for (n, evil) in evil.iter_mut().enumerate() {
        evil.send(&request(&["KEYS", &patterns[n % 2]]));
    }
    // Each of them looks at each key; others are answered between any two looks.
    let meanwhile = answered_until_told(&mut other, &mut evil[EVIL - 1]);
    evil.iter_mut().for_each(|evil| assert_eq!(evil.reply(), Value::Array(vec![])));
    assert!(meanwhile > EVIL, "another was answered {meanwhile} times meanwhile");
    let too_long = format!("*[{}]z", "b".repeat(MAX_PATTERN_BYTES));
    assert_error(&other.ask(&["CONFIG", "GET", &too_long]), "ERR the patterns of a command have at most");
    let two = ["x".repeat(MAX_PATTERN_BYTES / 2), "x".repeat(MAX_PATTERN_BYTES - MAX_PATTERN_BYTES / 2)];
    assert_eq!(other.ask(&["CONFIG", "GET", &two[0], &two[1]]), Value::Array(vec![]));
    let told = other.ask(&["CONFIG", "GET", &two[0], &two[1], "x"]);
    assert_error(&told, "ERR the patterns of a command have at most");
    let Value::Array(asked) = other.ask(&["CONFIG", "GET", "SAV[E]", "p*t"]) else { panic!("a list") };
    assert_eq!(asked.len(), 4, "two names and what they say: {asked:?}");
}

#[test]
fn what_is_no_command_counts_for_the_rate_and_an_exec_above_it_ends_its_transaction() {
    let home = home(&["--client-requests-per-s", "50"]);
    let node = home.start();
    let mut resp = open(&node);
    let throttled = |value: &Value| matches!(value, Value::Error(text) if text.starts_with("THROTTLED"));
    // All at once, so that a slow machine is above the rate, too.
    let burst = |resp: &mut Resp, words: &[&str], last: &[&str]| -> Vec<Value> {
        (0..200).for_each(|_| resp.send(&request(words)));
        resp.send(&request(last));
        (0..201).map(|_| resp.reply()).collect()
    };
    let told = burst(&mut resp, &["NOSUCH", "x"], &["PING"]);
    assert!(told.iter().filter(|told| throttled(told)).count() >= 20, "{:?}", told.last());
    // Nothing is left of a transaction whose EXEC was refused.
    eventually("a transaction begins", || resp.say("MULTI") == ok());
    let told = burst(&mut resp, &["SET", "k", "v"], &["EXEC"]);
    assert!(told.last().is_some_and(throttled), "{:?}", told.last());
    eventually("a command is done, and not queued", || {
        let told = resp.say("SET k v");
        assert_ne!(told, Value::Simple("QUEUED".into()));
        told == ok()
    });
}

#[test]
fn limits_of_a_token_that_are_read_again_hold_on_connections_that_are_open() {
    let guarded = Guarded::new(&[]);
    let secret = guarded.make("app", &["--read", "mine"]);
    let node = guarded.start();
    let mut resp = open(&node);
    assert_eq!(resp.ask(&["AUTH", &secret]), ok());
    let burst = |resp: &mut Resp| {
        (0..60)
            .filter(|_| matches!(resp.say("PING"), Value::Error(text) if text.starts_with("THROTTLED")))
            .count()
    };
    assert_eq!(burst(&mut resp), 0);
    let text = fs::read_to_string(guarded.tokens()).expect("the tokens");
    let limited = text.replace("name = \"app\"", "name = \"app\"\nrequests-per-s = 10");
    fs::write(guarded.tokens(), limited).expect("written");
    hang_up(&node);
    eventually("the limit holds", || burst(&mut resp) > 10);
    fs::write(guarded.tokens(), text).expect("written");
    hang_up(&node);
    eventually("it is lifted", || burst(&mut resp) == 0);
}

#[test]
fn an_operator_sees_what_redis_clients_do() {
    let home = home(&["--admin", "0", "--max-connections", "6"]);
    let node = home.start();
    let sample = |name: &str| -> u64 {
        let scrape = get(node.admin_addr(), "/metrics").text();
        let found =
            scrape.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<f64>().ok());
        found.unwrap_or_else(|| panic!("no {name} in {scrape}")) as u64
    };
    let mut open_ones: Vec<Resp> = (0..6).map(|_| open(&node)).collect();
    open_ones.iter_mut().for_each(|resp| assert_eq!(resp.say("SET k v"), ok()));
    assert_error(&open_ones[0].say("NOSUCH"), "ERR unknown command");
    assert_error(&open(&node).reply(), "ERR max number of clients");
    assert_eq!((sample("lode_resp_connections"), sample("lode_resp_connections_accepted_total")), (6, 6));
    assert_eq!((sample("lode_resp_connections_refused_total"), sample("lode_resp_errors_total")), (1, 1));
    assert_eq!(sample("lode_resp_commands_total"), 7);
    assert!(sample("lode_resp_held_bytes") > 0);
}

/// A connection that takes next to nothing of what it is sent, in its socket neither.
fn deaf(node: &Node) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    sockopt::set_socket_recv_buffer_size(&socket, 4096).expect("set");
    connect(&socket, &node.redis_addr()).expect("connected");
    TcpStream::from(socket)
}

#[test]
fn long_replies_are_given_up_to_the_limit_and_refused_above_it() {
    const LONG: usize = 1 << 20;
    let home = home(&["--admin", "0"]);
    let node = home.start();
    let mut resp = open(&node);
    assert_eq!(resp.ask(&["SET", "long", &"x".repeat(LONG)]), ok());
    assert_eq!(resp.ask(&["SET", "short", &"x".repeat(LEAST_HELD_BYTES / 2)]), ok());
    let held = || -> usize {
        let scrape = get(node.admin_addr(), "/metrics").text();
        let told = scrape.lines().find_map(|line| line.strip_prefix("lode_resp_held_bytes "));
        told.and_then(|told| told.parse::<f64>().ok()).expect("it is told") as usize
    };
    // Long lists, and then what fits beside them; some of each lies in the sockets.
    let list = request(&[vec!["MGET"], vec!["long"; 12]].concat());
    let single = request(&["GET", "long"]).repeat(6);
    let is_full = |resp: &mut Resp| matches!(resp.say("GET long"), Value::Error(why) if why.starts_with("BUSY memory is short"));
    let mut all: Vec<TcpStream> = Vec::new();
    // Sockets go on taking a little for a while, the longer the busier the machine is: until they take no more.
    let (mut before, mut same) = (0, 0);
    while same < 10 {
        while !is_full(&mut resp) {
            assert!(all.len() < 200, "{} connections are told all that they ask for", all.len());
            let mut stream = deaf(&node);
            stream.write_all(if all.len() < 30 { &list } else { &single }).expect("sent");
            all.push(stream);
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(20));
        let now = held();
        same = if now == before { same + 1 } else { 0 };
        before = now;
    }
    let (full, most) = (held(), MAX_HELD_BYTES + all.len() * LEAST_HELD_BYTES);
    assert!((MAX_HELD_BYTES - 16 * LONG..=most).contains(&full), "{full} bytes are held of {most}");
    // What is long is refused, also where it would be written first; what is short is not.
    assert_error(&resp.say("GETDEL long"), "BUSY memory is short");
    assert_error(&resp.say("KEYS *"), "BUSY memory is short");
    assert_eq!(resp.say("EXISTS long"), Value::Integer(1), "nothing was done");
    assert_eq!(resp.say("STRLEN long"), Value::Integer(LONG as i64));
    assert_eq!(resp.say("GETRANGE long 5 8"), Value::Bulk(b"xxxx".to_vec()));
    assert!(matches!(resp.say("GET short"), Value::Bulk(_)));
    assert_eq!(resp.say("SET other v"), ok());
    drop(all);
    eventually("there is room again", || matches!(resp.say("GET long"), Value::Bulk(_)));
}

#[test]
fn a_transaction_keeps_no_more_in_memory_than_it_may_write_or_tell() {
    const MANY: usize = 300;
    let home = home(&[]);
    let node = home.start();
    let mut resp = open(&node);
    assert_eq!(resp.ask(&["SET", "long", &"x".repeat(1 << 20)]), ok());
    resp.say("GET long");
    let before = node.most_resident_bytes();
    // Forty bytes each, and each a value of 1 MiB, which no commit would take.
    assert_eq!(resp.say("MULTI"), ok());
    (0..MANY).for_each(|n| resp.send(&request(&["SETRANGE", &format!("k{n}"), "1048575", "x"])));
    (0..MANY).for_each(|_| assert_eq!(resp.reply(), Value::Simple("QUEUED".into())));
    assert_error(&resp.say("EXEC"), "ERR a transaction has at most");
    assert_eq!(resp.say("DBSIZE"), Value::Integer(1));
    // A byte each, of a value that is long.
    assert_eq!(resp.say("MULTI"), ok());
    (0..MANY).for_each(|_| resp.send(&request(&["GETRANGE", "long", "0", "0"])));
    (0..MANY).for_each(|_| assert_eq!(resp.reply(), Value::Simple("QUEUED".into())));
    assert_eq!(resp.say("EXEC"), Value::Array(vec![Value::Bulk(b"x".to_vec()); MANY]));
    let grown = node.most_resident_bytes() - before;
    assert!(grown < 100 << 20, "the node has taken {grown} bytes more");
}
