//! A node that wants tokens: who may do what, by lode's own protocol, by RESP and by the command line; what is refused,
//! and that nothing of it is dear.

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use lode_net::client::connection::ConnectionError;
use lode_net::client::{ConnectError, GetError, IncrementError, TableError, Token, WriteError};
use lode_net::wire::limits::{MAX_SECRET_BYTES, MAX_UNKNOWN_BODY_BYTES};
use lode_net::wire::{MapVersion, RequestId, RequestView, Secret, Status};
use lode_tests::guarded::{Guarded, connect, eventually, hang_up};
use lode_tests::node::{Home, Node, binary};
use lode_tests::resp::{Resp, Value};
use lode_tests::table;
use lode_tests::wire::{Wire, is_closed_by_node, socket};

fn refused_with(error: &ConnectError) -> Option<Status> {
    match error {
        ConnectError::Refused { source: ConnectionError::Refused { status, .. }, .. } => Some(*status),
        _ => None,
    }
}

/// A connection by hand, or why there is none.
fn handshake(node: &Node, secret: &str) -> Result<Wire, Status> {
    let token = Token::new(secret).expect("a secret");
    Wire::try_open_as(node.addr, Some(&token)).map_err(|error| match error {
        ConnectionError::Refused { status, .. } => status,
        error => panic!("{error}"),
    })
}

#[test]
fn tokens_may_do_what_their_rights_say_and_nothing_else() {
    let guarded = Guarded::new(&[]);
    let reader = guarded.make("reader", &["--read", "mine"]);
    let writer = guarded.make("writer", &["--write", "mi*"]);
    let stats = guarded.make("stats", &["--stats"]);
    let node = guarded.start();
    for secret in ["", "lode_0000", &reader[..reader.len() - 1], &format!("{reader}0")] {
        let refused = connect(&node, secret).err().expect("nobody knows it");
        assert_eq!(refused_with(&refused), Some(Status::Unauthenticated), "{refused}");
    }

    let mut client = connect(&node, &reader).expect("known");
    assert!(client.get("mine", b"k").unwrap().is_some());
    assert_eq!(client.count("mine", b"", None).unwrap(), 1);
    let is_forbidden = |status: Status| status == Status::Forbidden;
    assert!(
        matches!(client.get("other", b"k"), Err(GetError::Refused { status, .. }) if is_forbidden(status))
    );
    assert!(
        matches!(client.put("mine", b"k", b"w"), Err(WriteError::Refused { status, .. }) if is_forbidden(status))
    );
    assert!(client.delete("mine", b"k").is_err() && client.increment("mine", b"n", 1).is_err());
    let dropped = client.drop_table("mine");
    assert!(
        matches!(dropped, Err(TableError::Refused { status, .. }) if is_forbidden(status)),
        "{dropped:?}"
    );
    assert!(client.create_table(table::durable("new", 1)).is_err() && client.stats().is_err());
    assert!(client.checkpoint().is_err() && client.scrub().is_err());

    let mut client = connect(&node, &writer).expect("known");
    client.put("mine", b"w", b"1").unwrap();
    client.delete("mine", b"w").unwrap();
    assert!(
        matches!(client.get("mine", b"k"), Err(GetError::Refused { status, .. }) if is_forbidden(status))
    );
    // It would tell the number.
    let told = client.increment("mine", b"n", 1);
    assert!(
        matches!(told, Err(IncrementError::Write(WriteError::Refused { status, .. })) if is_forbidden(status))
    );
    assert!(client.put("other", b"k", b"w").is_err());

    let mut client = connect(&node, &stats).expect("known");
    assert!(client.stats().is_ok() && client.get("mine", b"k").is_err() && client.checkpoint().is_err());
    let mut client = connect(&node, &guarded.admin).expect("known");
    assert_eq!(client.get("mine", b"k").unwrap().unwrap().value, &b"v"[..], "nobody has changed it");
    client.checkpoint().unwrap();
    assert!(client.get("mine", b"n").unwrap().is_none());
    // No secret in anything that the node has said.
    for line in node.log() {
        assert!(
            ![&reader, &writer, &stats, &guarded.admin].iter().any(|secret| line.contains(&secret[5..])),
            "{line}"
        );
    }
    assert!(node.stop().success());
}

#[test]
fn redis_clients_say_who_they_are_and_are_held_to_it() {
    let guarded = Guarded::new(&[]);
    let reader = guarded.make("reader", &["--read", "0", "--read", "mine"]);
    let node = guarded.start();
    let mut resp = Resp::open(node.redis_addr());
    let error = |value: Value, begins: &str| {
        assert!(
            matches!(&value, Value::Error(text) if text.starts_with(begins)),
            "{value:?} is not -{begins}"
        );
    };
    for words in
        [&["GET", "k"][..], &["PING"], &["SELECT", "mine"], &["MULTI"], &["INFO"], &["CLIENT", "LIST"]]
    {
        error(resp.ask(words), "NOAUTH ");
    }
    error(resp.ask(&["HELLO", "3"]), "NOAUTH ");
    error(resp.ask(&["AUTH", "lode_nonsense"]), "WRONGPASS ");
    error(resp.ask(&["AUTH", "writer", &reader]), "WRONGPASS ");
    error(resp.ask(&["HELLO", "3", "AUTH", "default", "wrong"]), "WRONGPASS ");
    // What it cannot speak it does not begin to, whoever asks.
    error(resp.ask(&["HELLO", "9", "AUTH", "reader", &reader]), "NOPROTO ");
    // Nor is anybody let in by a request that is wrong.
    error(resp.ask(&["HELLO", "3", "AUTH", "reader", &reader, "NONSENSE"]), "ERR Syntax error in HELLO");
    error(resp.ask(&["GET", "k"]), "NOAUTH ");
    assert_eq!(resp.ask(&["AUTH", &reader]), Value::Simple("OK".into()));
    assert_eq!(resp.ask(&["PING"]), Value::Simple("PONG".into()));
    error(resp.ask(&["SET", "k", "v"]), "NOPERM ");
    error(resp.ask(&["FLUSHDB"]), "NOPERM ");
    error(resp.ask(&["SELECT", "other"]), "NOPERM ");
    error(resp.ask(&["CLIENT", "LIST"]), "NOPERM ");
    assert_eq!(resp.ask(&["SELECT", "mine"]), Value::Simple("OK".into()));
    assert_eq!(resp.ask(&["GET", "k"]), Value::Bulk(b"v".to_vec()));
    error(resp.ask(&["GETDEL", "k"]), "NOPERM ");
    // Within a transaction, too: and then none of it is done.
    assert_eq!(resp.ask(&["MULTI"]), Value::Simple("OK".into()));
    error(resp.ask(&["SET", "k", "w"]), "NOPERM ");
    error(resp.ask(&["EXEC"]), "EXECABORT ");
    assert_eq!(resp.ask(&["RESET"]), Value::Simple("RESET".into()));
    error(resp.ask(&["GET", "k"]), "NOAUTH ");

    let mut root = Resp::open(node.redis_addr());
    let hello = root.ask(&["HELLO", "2", "AUTH", "root", &guarded.admin]);
    assert!(matches!(hello, Value::Array(_)), "{hello:?}");
    assert_eq!(root.ask(&["SET", "a", "1"]), Value::Simple("OK".into()));
    assert_eq!(root.ask(&["INCR", "a"]), Value::Integer(2));

    // Before it is known who asks, little is taken; and nobody waits for ever.
    let mut stranger = Resp::open(node.redis_addr());
    let long = "x".repeat(8 << 10);
    error(stranger.ask(&["AUTH", &long]), "ERR the request is larger");
    stranger.send(b"PING\r\n");
    error(stranger.reply(), "NOAUTH ");
    let from = Instant::now();
    assert!(is_closed_by_node(&mut stranger.stream), "a stranger is sent away");
    assert!(from.elapsed() < Duration::from_secs(15));
    assert!(node.stop().success());
}

#[test]
fn tokens_are_read_again_on_sighup_and_withdrawn_ones_end() {
    let guarded = Guarded::new(&[]);
    let first = guarded.make("first", &["--read", "mine"]);
    let node = guarded.start();
    let mut client = connect(&node, &first).expect("known");
    let mut resp = Resp::open(node.redis_addr());
    assert_eq!(resp.ask(&["AUTH", &first]), Value::Simple("OK".into()));
    assert!(client.get("mine", b"k").is_ok() && client.get("other", b"k").is_err());

    let tokens = guarded.home.drive().with_file_name("tokens.toml");
    let text = fs::read_to_string(&tokens).unwrap();
    // What is no file of tokens changes nothing.
    fs::write(&tokens, "[[token]]\nname = 5").unwrap();
    hang_up(&node);
    eventually("the node says that it cannot", || {
        node.log().iter().any(|line| line.contains("the tokens stay as they were"))
    });
    assert!(client.get("mine", b"k").is_ok());
    // Another right for the same secret: at once, for connections that are open.
    fs::write(&tokens, text.replace("read = [\"mine\"]", "read = [\"other\"]")).unwrap();
    hang_up(&node);
    eventually("the right is another", || client.get("mine", b"k").is_err());
    assert!(client.get("other", b"k").is_ok());
    // Withdrawn, and one made that was not there.
    fs::write(&tokens, &text[..text.rfind("[[token]]").unwrap()]).unwrap();
    let second = guarded.make("second", &["--read", "*"]);
    hang_up(&node);
    eventually("the first is withdrawn", || client.get("other", b"k").is_err());
    let refused = client.get("other", b"k");
    assert!(matches!(refused, Err(GetError::Refused { status: Status::Unauthenticated, .. })), "{refused:?}");
    let told = resp.ask(&["PING"]);
    assert!(matches!(&told, Value::Error(text) if text.starts_with("NOAUTH")), "{told:?}");
    assert!(connect(&node, &first).is_err());
    assert!(connect(&node, &second).expect("known").get("mine", b"k").is_ok());
    assert!(node.stop().success());
}

#[test]
fn what_a_token_and_an_address_may_take_is_kept() {
    let guarded = Guarded::new(&["--client-connections", "12"]);
    let few = guarded
        .make("few", &["--read", "*", "--connections", "2", "--request-bytes", "2048", "--write", "*"]);
    let slow = guarded.make("slow", &["--read", "*", "--requests-per-s", "20"]);
    let node = guarded.start();

    // Of a token: connections at the limit, and above; a request at the limit, and above.
    let wire = |secret: &str| handshake(&node, secret);
    let (one, two) = (wire(&few), wire(&few));
    assert!(one.is_ok() && two.is_ok());
    assert_eq!(wire(&few).err(), Some(Status::TooManyConnections));
    drop(two);
    eventually("there is room again", || wire(&few).is_ok());
    drop(one);
    // A Put's body is its key and its value. Connections that have ended may still count for a moment.
    let put = |len: usize| -> Result<(), String> {
        let mut client = connect(&node, &few).map_err(|error| error.to_string())?;
        client.put("mine", b"k", &vec![b'v'; len]).map(drop).map_err(|error| error.to_string())
    };
    eventually("a request at the limit passes", || put(2047).is_ok());
    eventually("one above it does not", || {
        put(2048).expect_err("too long").contains("longer than the node takes")
    });

    // A rate: what a second saves up, and then as it comes.
    let mut client = connect(&node, &slow).expect("known");
    let from = Instant::now();
    let mut passed = 0;
    let mut throttled = None;
    while from.elapsed() < Duration::from_secs(2) {
        match client.get("mine", b"k") {
            Ok(_) => passed += 1,
            Err(error) => throttled = Some(error),
        }
    }
    let seconds = from.elapsed().as_secs_f64();
    let most = (20.0 * (seconds + 1.0)).ceil() as u32;
    assert!((40..=most).contains(&passed), "{passed} in {seconds} s");
    assert!(
        matches!(throttled, Some(GetError::Throttled { ref message, .. }) if message.contains("this token may make 20")),
        "{throttled:?}"
    );
    drop(client);

    // Of an address, which the tests all share: the node's own connections count, too.
    let mut open = Vec::new();
    eventually("the address has all that it may", || match handshake(&node, &guarded.admin) {
        Ok(more) => {
            open.push(more);
            false
        }
        Err(status) => {
            assert_eq!(status, Status::TooManyConnections);
            true
        }
    });
    assert!((4..=12).contains(&open.len()), "{}", open.len());
    open.clear();
    eventually("there is room again", || handshake(&node, &guarded.admin).is_ok());
    assert!(node.stop().success());
}

#[test]
fn hostile_handshakes_are_cut_short() {
    let guarded = Guarded::new(&[]);
    let node = guarded.start();
    let frame = |request: &RequestView<'_>| {
        let mut bytes = Vec::new();
        request.encode(RequestId(1), MapVersion(0), &mut bytes).expect("it fits");
        bytes
    };
    let answer = |bytes: &[u8]| {
        let mut stream = socket(node.addr);
        stream.write_all(bytes).expect("sent");
        let mut buffer = vec![0; 4 << 10];
        let count = stream.read(&mut buffer).expect("an answer");
        let status = u16::from_le_bytes([buffer[16], buffer[17]]);
        (count, Status::from_u16(status).expect("a status"), is_closed_by_node(&mut stream))
    };
    let long = vec![b's'; MAX_SECRET_BYTES + 1];
    // At the limit: unknown. Above: no secret at all, and the connection may try again.
    let (_, status, closed) = answer(&frame(&RequestView::Authenticate(Secret(&long[1..]))));
    assert_eq!((status, closed), (Status::Unauthenticated, true));
    let (_, status, closed) = answer(&frame(&RequestView::Authenticate(Secret(&long))));
    assert_eq!((status, closed), (Status::Malformed, true), "closed when the time for a Hello is over");
    // Before anybody is known nothing long is taken in.
    for (len, told) in
        [(MAX_UNKNOWN_BODY_BYTES, Status::HelloFirst), (MAX_UNKNOWN_BODY_BYTES + 1, Status::FrameTooLarge)]
    {
        let (_, status, closed) = answer(&frame(&RequestView::Ping { payload: &vec![0; len] }));
        assert_eq!((status, closed), (told, true), "{len}");
    }
    let (_, status, closed) = answer(&frame(&RequestView::Stats));
    assert_eq!((status, closed), (Status::HelloFirst, true));
    // Whoever is known is served all the while.
    assert!(connect(&node, &guarded.admin).expect("known").get("mine", b"k").is_ok());
    assert!(node.stop().success());
}

#[test]
fn the_command_line_shows_its_token_and_a_node_without_tokens_takes_any() {
    let guarded = Guarded::new(&[]);
    let node = guarded.start();
    let file = guarded.home.drive().with_file_name("secret");
    fs::write(&file, format!("{}\n", guarded.admin)).unwrap();
    let file = file.to_str().expect("text");
    let lode = |node: &Node, words: &[&str], token: Option<&str>| -> Output {
        let mut command = Command::new(binary());
        command
            .args(["--node", &node.addr.to_string()])
            .args(words)
            .env_remove("LODE_TOKEN")
            .env_remove("LODE_TOKEN_FILE");
        token.map(|token| command.env("LODE_TOKEN", token));
        command.output().expect("the binary runs")
    };
    assert_eq!(lode(&node, &["get", "mine", "k", "--token-file", file], None).stdout, b"v");
    assert_eq!(lode(&node, &["get", "mine", "k"], Some(&guarded.admin)).stdout, b"v");
    for output in
        [lode(&node, &["get", "mine", "k"], None), lode(&node, &["get", "mine", "k"], Some("lode_none"))]
    {
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{told}");
        assert!(
            told.contains("token") && told.contains("--token-file") && !told.contains("lode_none"),
            "{told}"
        );
    }
    assert_eq!(lode(&node, &["ping", "--token-file", "/nowhere"], None).status.code(), Some(2));
    assert!(node.stop().success());

    // The token is there before the node wants it.
    let home = Home::with(&["--size", "128MiB", "--shards", "1", "--memory", "64MiB"]);
    let node = home.start();
    assert!(lode(&node, &["table", "create", "t"], Some("lode_any")).status.success());
    assert!(node.stop().success());
}

#[test]
fn a_node_that_everybody_can_reach_warns_where_it_asks_for_no_tokens() {
    let started = |more: &[&str]| {
        let home = Home::with(&["--size", "128MiB", "--shards", "1", "--memory", "64MiB"]);
        let mut command = home.command();
        command.args(more);
        let node = home.start_with(command);
        let warned =
            node.log().iter().any(|line| line.contains("WARN") && line.contains("there are no tokens"));
        assert!(node.stop().success());
        warned
    };
    assert!(!started(&[]), "the loopback is everybody's who is on the machine");
    assert!(started(&["--redis", "0.0.0.0:0"]));
}

#[test]
fn what_was_queued_takes_the_rights_of_the_moment_it_is_done() {
    let guarded = Guarded::new(&[]);
    let writer = guarded.make("writer", &["--read", "mine", "--write", "mine"]);
    let node = guarded.start();
    let mut resp = Resp::open(node.redis_addr());
    let is_error =
        |value: &Value, begins: &str| matches!(value, Value::Error(text) if text.starts_with(begins));
    assert_eq!(resp.ask(&["AUTH", &writer]), Value::Simple("OK".into()));
    assert_eq!(resp.ask(&["SELECT", "mine"]), Value::Simple("OK".into()));
    assert_eq!(resp.ask(&["MULTI"]), Value::Simple("OK".into()));
    assert_eq!(resp.ask(&["SET", "k", "late"]), Value::Simple("QUEUED".into()));
    let text = fs::read_to_string(guarded.tokens()).unwrap();
    let (before, writers) = text.split_at(text.rfind("[[token]]").unwrap());
    fs::write(guarded.tokens(), format!("{before}{}", writers.replace("write = [\"mine\"]", ""))).unwrap();
    hang_up(&node);
    eventually("the tokens were read again", || {
        node.log().iter().any(|line| line.contains("the tokens were read again"))
    });
    let told = resp.ask(&["EXEC"]);
    assert!(is_error(&told, "NOPERM"), "{told:?}");
    assert_eq!(resp.ask(&["GET", "k"]), Value::Bulk(b"v".to_vec()), "nothing of it was done");
    let told = resp.ask(&["EXEC"]);
    assert!(is_error(&told, "ERR EXEC without MULTI"), "it is over: {told:?}");
    // Reading is allowed still.
    assert_eq!(resp.ask(&["MULTI"]), Value::Simple("OK".into()));
    assert_eq!(resp.ask(&["GET", "k"]), Value::Simple("QUEUED".into()));
    assert_eq!(resp.ask(&["EXEC"]), Value::Array(vec![Value::Bulk(b"v".to_vec())]));
    assert!(node.stop().success());
}

#[test]
fn a_file_of_tokens_that_is_none_or_anybodys_is_told_and_keeps_nobody() {
    let guarded = Guarded::new(&[]);
    let node = guarded.start();
    // A pipe: reading it would wait for whoever writes, and nobody could stop the node in order.
    let (tokens, aside) = (guarded.tokens(), guarded.tokens().with_extension("aside"));
    fs::rename(&tokens, &aside).unwrap();
    let made = Command::new("mkfifo").arg(&tokens).status().expect("mkfifo runs");
    assert!(made.success());
    hang_up(&node);
    eventually("the node says that it is none", || {
        node.log().iter().any(|line| line.contains("it is no file") && line.contains("stay as they were"))
    });
    assert!(connect(&node, &guarded.admin).is_ok());
    fs::remove_file(&tokens).unwrap();
    fs::rename(&aside, &tokens).unwrap();
    // Whoever may write it may do everything.
    fs::set_permissions(&tokens, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    hang_up(&node);
    eventually("the node warns of it", || {
        node.log().iter().any(|line| line.contains("WARN") && line.contains("every right"))
    });
    assert!(connect(&node, &guarded.admin).is_ok());
    assert!(node.stop().success());
}
