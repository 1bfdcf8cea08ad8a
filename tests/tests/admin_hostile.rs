//! The admin port and whoever means it ill, or speaks HTTP as it was spoken long ago: it answers what is right, says no to the
//! rest, and goes on.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use lode_node::admin::metrics::MAX_SERIES;
use lode_tests::http::{connect, get, send};
use lode_tests::node::{Home, Node, allow_many_files};
use lode_tests::table;

const PATIENCE: Duration = Duration::from_secs(60);
/// What the node may take for readers that stop, in bytes.
const MAX_GROWTH: u64 = 24 << 20;

fn node() -> (Home, Node) {
    let options = ["--size", "512MiB", "--shards", "2", "--memory", "256MiB", "--admin", "0"];
    let home = Home::with(&options);
    let node = home.start();
    (home, node)
}

/// Sends these bytes and reads what comes until the other side ends.
fn exchange(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(addr);
    // The other side may have ended before all was sent.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn old_and_odd_requests_are_answered_as_they_should_be() {
    let (_home, node) = node();
    let addr = node.admin_addr();
    let old = exchange(addr, b"GET /healthz HTTP/1.0\r\n\r\n");
    assert!(old.starts_with("HTTP/1.0 200") && old.ends_with("alive\n"), "{old}");
    let head = send(addr, b"HEAD /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!((head.status, head.body.len()), (200, 0), "{}", head.head);
    assert!(
        head.header("content-length").is_some_and(|length| length.parse::<u64>().is_ok_and(|n| n > 1000))
    );
    let three = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2)
        + "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answers = exchange(addr, three.as_bytes());
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 3, "{answers}");
    assert!(answers.find("alive\n") < answers.find("ready\n") && answers.ends_with("ready\n"), "{answers}");
    for (line, statuses) in [
        ("GET http://elsewhere/healthz HTTP/1.1", &[200][..]),
        ("GET //etc/passwd HTTP/1.1", &[404]),
        ("GET /../../etc/passwd HTTP/1.1", &[404]),
        ("GET /%2e%2e/%00 HTTP/1.1", &[404]),
        ("GET /history?partition=1&partition=2&series=&last= HTTP/1.1", &[400]),
        ("GET /slow?n=99999999999999999999 HTTP/1.1", &[400]),
        ("GET /partitions?id=-1 HTTP/1.1", &[400]),
        ("OPTIONS * HTTP/1.1", &[405]),
        ("CONNECT elsewhere:443 HTTP/1.1", &[405]),
        ("TRACE /healthz HTTP/1.1", &[405]),
        ("GET /healthz HTTP/9.9", &[400, 505]),
        ("GET  /healthz  HTTP/1.1", &[400]),
        ("PRI * HTTP/2.0", &[400, 405, 505]),
    ] {
        let answer =
            exchange(addr, format!("{line}\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes());
        let status = answer.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
        assert!(status.is_some_and(|status| statuses.contains(&status)), "{line}: {answer}");
        assert!(!answer.contains("root:"), "{line}: {answer}");
    }
    // What is said to be long and is not, and what is said to be both.
    for request in [
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\nb\0c\r\n\r\n",
    ] {
        let mut stream = connect(addr);
        stream.set_read_timeout(Some(Duration::from_millis(300))).expect("set");
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.read(&mut [0; 4096]);
    }
    assert_eq!(get(addr, "/healthz").status, 200);
}

#[test]
fn readers_that_stop_and_thousands_of_connections_cost_little_and_keep_nobody_out_for_long() {
    allow_many_files();
    let (_home, node) = node();
    let addr = node.admin_addr();
    node.client().create_table(table::durable("many", 2000)).expect("made");
    let from = Instant::now();
    while get(addr, "/partitions/stream").text().lines().count() < 2000 {
        assert!(from.elapsed() < PATIENCE, "all partitions are told of");
        std::thread::sleep(Duration::from_millis(50));
    }
    let before = node.resident_bytes();
    let asks = |path: &str| {
        let mut stream = connect(addr);
        let _ =
            stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").repeat(20).as_bytes());
        stream
    };
    let deaf: Vec<TcpStream> =
        (0..12).flat_map(|_| ["/partitions/stream?follow=true", "/metrics"].map(asks)).collect();
    let crowd: Vec<TcpStream> = (0..2000).filter_map(|_| TcpStream::connect(addr).ok()).collect();
    assert!(crowd.len() > 500, "{} could connect", crowd.len());
    std::thread::sleep(Duration::from_secs(2));
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(grown < MAX_GROWTH, "the node has taken {grown} bytes more for readers that read nothing");
    // The node's own clients do not notice, and with the crowd gone there is room again.
    node.client().put("many", b"k", b"v").expect("put");
    drop(crowd);
    let from = Instant::now();
    let asked = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    while !exchange(addr, asked).starts_with("HTTP/1.1 200") {
        assert!(from.elapsed() < PATIENCE, "there is room again");
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(deaf);
}

#[test]
fn the_port_and_lode_stats_tell_the_same_figures() {
    let (_home, node) = node();
    let addr = node.admin_addr();
    let mut client = node.client();
    client.create_table(table::durable("t", 8)).expect("made");
    for n in 0..300u32 {
        client.put("t", &n.to_be_bytes(), &[1; 200]).expect("put");
        client.get("t", &n.to_be_bytes()).expect("got");
    }
    client.delete("t", &1u32.to_be_bytes()).expect("deleted");
    let names = [
        "gets",
        "get_cache_hits",
        "get_misses",
        "puts",
        "deletes",
        "user_bytes",
        "records",
        "live_bytes",
        "partitions",
        "user_frame_writes",
        "user_frame_bytes",
        "device_reads",
        "accepted",
        "slow_requests",
        "segments_free",
    ];
    let from = Instant::now();
    loop {
        let stats = node.stats();
        let told = get(addr, "/api/node").json();
        let differ: Vec<_> = names
            .iter()
            .filter(|name| told["totals"][**name] != stats["totals"][**name])
            .map(|name| (*name, told["totals"][*name].clone(), stats["totals"][*name].clone()))
            .collect();
        // Asking for statistics takes a connection: that one may be told a second later.
        if differ.iter().all(|(name, ..)| *name == "accepted") {
            break;
        }
        assert!(from.elapsed() < PATIENCE, "the two differ about {differ:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    let scrape = get(addr, "/metrics").text();
    assert!(scrape.lines().filter(|line| !line.starts_with('#')).count() < MAX_SERIES);
    assert!(
        scrape.contains("\nlode_puts_total 300.0\n") && scrape.contains("\nlode_slow_requests_total "),
        "{scrape}"
    );
}

#[test]
fn a_page_of_another_name_is_told_nothing_and_names_that_were_allowed_are() {
    let of = |more: &[&str]| {
        let home = Home::with(&[&["--size", "192MiB", "--shards", "1", "--memory", "128MiB"], more].concat());
        let node = home.start();
        (home, node)
    };
    let ask = |node: &Node, path: &str, host: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        send(node.admin_addr(), request.as_bytes())
    };
    let (_home, node) = of(&["--admin", "0"]);
    let own = node.admin_addr().to_string();
    for path in
        ["/", "/console.js", "/metrics", "/api/node", "/partitions/stream", "/history", "/slow", "/nothing"]
    {
        for stranger in ["rebound.example", "rebound.example:9411", "127.0.0.1.rebound.example", "node1"] {
            let refused = ask(&node, path, stranger);
            assert_eq!(refused.status, 421, "{path} as {stranger}");
            assert!(refused.text().contains("--admin-hosts"), "{}", refused.text());
            assert!(refused.body.len() < 300, "{}", refused.text());
        }
        for name in [own.as_str(), "localhost", "[::1]:9411"] {
            assert_eq!(
                ask(&node, path, name).status,
                if path == "/nothing" { 404 } else { 200 },
                "{path} as {name}"
            );
        }
    }
    // Probes go by whatever name their maker likes, and learn nothing.
    for path in ["/healthz", "/readyz"] {
        assert_eq!(ask(&node, path, "probe.example").status, 200, "{path}");
    }
    let (_home, named) = of(&["--admin", "0", "--admin-hosts", "lode.example.com,*.lode.svc"]);
    for (name, status) in [("lode.example.com:9411", 200), ("0.lode.svc", 200), ("rebound.example", 421)] {
        assert_eq!(ask(&named, "/metrics", name).status, status, "{name}");
    }
    let (_home, wide) = of(&["--admin", "0.0.0.0:0"]);
    for (name, status) in [("node1:9411", 200), ("rebound.example", 421)] {
        assert_eq!(ask(&wide, "/metrics", name).status, status, "{name}");
    }
}
