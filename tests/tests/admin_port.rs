//! The admin port of a real node: health, metrics, what a real Prometheus makes of them, and what hostile and slow clients
//! can do to it.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lode_node::admin::limits::{MAX_CONNECTIONS, MAX_HEAD_BYTES, TOP_PARTITIONS};
use lode_node::admin::metrics::{Kind, MAX_SERIES, OTHERS, ROWS};
use lode_tests::http::{connect, get, get_with, send};
use lode_tests::node::{Home, binary, until};
use lode_tests::{source, table};

const PATIENCE: Duration = Duration::from_secs(60);

/// One sample of a scrape, by its name and labels.
fn sample(scrape: &str, name: &str) -> Option<f64> {
    scrape.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn series(scrape: &str) -> usize {
    scrape.lines().filter(|line| !line.starts_with('#')).count()
}

#[test]
fn a_node_tells_that_it_lives_whether_it_is_ready_and_what_it_counts() {
    let home = Home::observed(&[]);
    let node = home.start();
    let addr = node.admin_addr();
    assert!(addr.ip().is_loopback(), "a port alone is one of loopback: {addr}");
    let health = get(addr, "/healthz");
    assert_eq!((health.status, health.text().as_str()), (200, "alive\n"));
    assert_eq!(health.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(get(addr, "/readyz").status, 200);
    let mut client = node.client();
    client.create_table(table::durable("users", 4)).expect("made");
    // Its sizes are told before what is asked of it counts.
    until("partitions are known", || {
        (sample(&get(addr, "/metrics").text(), "lode_partitions")? == 4.0).then_some(())
    });
    for n in 0..200u32 {
        client.put("users", &n.to_be_bytes(), &[7; 100]).expect("put");
        client.get("users", &n.to_be_bytes()).expect("got");
    }
    let scrape = until("what was asked is counted", || {
        let scrape = get(addr, "/metrics");
        assert_eq!(
            scrape.header("content-type"),
            Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
        );
        (sample(&scrape.text(), "lode_puts_total")? == 200.0).then(|| scrape.text())
    });
    assert_eq!(sample(&scrape, "lode_gets_total"), Some(200.0));
    assert_eq!(sample(&scrape, "lode_records"), Some(200.0));
    assert_eq!(sample(&scrape, "lode_ready"), Some(1.0));
    assert_eq!(sample(&scrape, r#"lode_request_duration_seconds_count{kind="write"}"#), Some(200.0));
    let waited = sample(&scrape, r#"lode_request_duration_seconds_sum{kind="write"}"#).expect("told");
    assert!(waited > 0.001 && waited < 100.0, "200 durable puts took {waited} s");
    assert!(
        scrape.contains(r#"lode_node_info{name="seen",version=""#) && scrape.ends_with("# EOF\n"),
        "{scrape}"
    );
    let told = until("health is told", || {
        let told = get(addr, "/api/node").json();
        (told["totals"]["puts"] == 200).then_some(told)
    });
    assert_eq!((told["ready"].as_bool(), told["name"].as_str()), (Some(true), Some("seen")));
    assert_eq!(told["health"]["colour"], "green", "{}", told["health"]);
    assert_eq!(told["settings"]["limits"]["key_bytes"], 4096);
}

/// What `/readyz` says (whether it is a yes, and the words) and whether `/healthz` is a yes, as often as can be asked, from
/// when the port opens until it closes.
fn watch(addr: SocketAddr) -> BTreeSet<(bool, String, bool)> {
    let ask = |path: &str| -> Option<String> {
        let mut stream = std::net::TcpStream::connect(addr).ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    };
    let from = Instant::now();
    while ask("/healthz").is_none() && from.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut told = BTreeSet::new();
    while let Some(answer) = ask("/readyz") {
        let alive = ask("/healthz").unwrap_or_default();
        let said = answer.rsplit("\r\n").next().unwrap_or_default().to_owned();
        told.insert((answer.starts_with("HTTP/1.1 200"), said, alive.starts_with("HTTP/1.1 200")));
    }
    told
}

#[test]
fn a_node_is_alive_and_not_ready_while_it_starts_and_while_it_stops() {
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let admin = addr.to_string();
    let home = Home::with(&["--size", "512MiB", "--shards", "2", "--memory", "160MiB", "--admin", &admin]);
    // Built first, if it has to be: that may take longer than anybody watches.
    binary();
    let watching = std::thread::spawn(move || watch(addr));
    // It makes its drive first, which takes a while.
    let node = home.start();
    assert_eq!(node.admin_addr(), addr);
    let mut client = node.client();
    client.create_table(table::durable("t", 4)).expect("made");
    client.put("t", b"k", b"v").expect("put");
    std::thread::sleep(Duration::from_millis(100));
    assert!(node.stop().success());
    let told = watching.join().expect("asked");
    for (is_ready, said) in [
        (false, "the node is starting: it opens its drive\n"),
        (true, "ready\n"),
        (false, "the node is stopping\n"),
    ] {
        assert!(told.contains(&(is_ready, said.to_owned(), true)), "{said}: {told:?}");
    }
}

#[test]
fn series_stay_below_their_bound_with_more_than_a_thousand_busy_partitions_and_hostile_names() {
    let home = Home::observed(&[]);
    let node = home.start();
    let addr = node.admin_addr();
    let mut client = node.client();
    let hostile = "a\"b\\c\nd{} <script>";
    client.create_table(table::durable(hostile, 1200)).expect("made");
    until("partitions are known", || {
        let told = get(addr, "/metrics").text();
        (sample(&told, "lode_partitions")? == 1200.0).then_some(())
    });
    let scrape = until("partitions at the top", || {
        for n in 0..3000u32 {
            client.get(hostile, &n.to_be_bytes()).expect("got");
        }
        let scrape = get(addr, "/metrics").text();
        scrape.contains("lode_top_partition_requests_per_second{").then_some(scrape)
    });
    assert!(series(&scrape) < MAX_SERIES, "{} series", series(&scrape));
    let top =
        scrape.lines().filter(|line| line.starts_with("lode_top_partition_requests_per_second{")).count();
    assert_eq!(top, TOP_PARTITIONS, "{scrape}");
    assert!(scrape.contains(r#"table="a\"b\\c\nd{} <script>",partition=""#), "{scrape}");
    check(&scrape);
}

/// What promtool thinks of a scrape, where it is installed.
fn check(scrape: &str) {
    let Some(promtool) = find("promtool") else { return };
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool can be run");
    // It reads the older text format, which has no end mark, and counters under the names of their samples.
    let older: String =
        scrape.lines().filter(|line| *line != "# EOF").map(|line| older_line(line, scrape) + "\n").collect();
    child.stdin.take().expect("piped").write_all(older.as_bytes()).expect("taken");
    let output = child.wait_with_output().expect("it ends");
    let told =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "promtool: {told}");
}

/// A line of OpenMetrics in the older format: there, a counter's type is told of the name with `_total`.
fn older_line(line: &str, scrape: &str) -> String {
    let mut words = line.splitn(4, ' ');
    let (Some("#"), Some(what), Some(name), Some(rest)) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return line.to_owned();
    };
    let is = |kind: &str| scrape.contains(&format!("# TYPE {name} {kind}\n"));
    match (is("counter"), is("info")) {
        (true, _) => format!("# {what} {name}_total {rest}"),
        (_, true) => format!("# {what} {name}_info {}", rest.replace("info", "gauge")),
        _ => line.to_owned(),
    }
}

fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.exists())
}

/// A process that ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

/// A Prometheus that scrapes this address.
fn prometheus(
    program: &std::path::Path,
    directory: &std::path::Path,
    scraped: SocketAddr,
) -> (Ends, SocketAddr) {
    let config = directory.join("prometheus.yml");
    let text = format!(
        "global:\n  scrape_interval: 1s\nscrape_configs:\n  - job_name: lode\n    static_configs:\n      - targets: ['{scraped}']\n"
    );
    std::fs::write(&config, text).expect("written");
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let child = Command::new(program)
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", directory.join("tsdb").display()))
        .arg(format!("--web.listen-address={addr}"))
        .args(["--enable-feature=native-histograms", "--log.level=error"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("prometheus can be run");
    (Ends(child), addr)
}

fn query(addr: SocketAddr, expression: &str) -> Option<f64> {
    std::net::TcpStream::connect(addr).ok()?;
    let answer = get(addr, &format!("/api/v1/query?query={expression}"));
    // It listens a little before it answers questions.
    let told = (answer.status == 200).then(|| answer.json())?;
    let value = told["data"]["result"].get(0)?["value"].get(1)?.as_str()?.parse().ok()?;
    Some(value)
}

#[test]
fn a_real_prometheus_scrapes_it_native_histograms_too() {
    let Some(program) = find("prometheus") else {
        eprintln!("left out: there is no prometheus to scrape the node");
        return;
    };
    let home = Home::observed(&[]);
    let node = home.start();
    let directory = tempfile::tempdir().expect("a directory");
    let mut client = node.client();
    client.create_table(table::durable("t", 4)).expect("made");
    for n in 0..500u32 {
        client.put("t", &n.to_be_bytes(), &[7; 100]).expect("put");
    }
    check(&get(node.admin_addr(), "/metrics").text());
    let (_prometheus, addr) = prometheus(&program, directory.path(), node.admin_addr());
    until("Prometheus has scraped what was counted", || {
        (query(addr, "lode_puts_total")? == 500.0).then_some(())
    });
    assert_eq!(query(addr, "up{job=\"lode\"}"), Some(1.0));
    // Of a native histogram, without any series of its buckets.
    let count = query(addr, "histogram_count(lode_request_duration_seconds{kind=\"write\"})");
    assert_eq!(count, Some(500.0), "the histogram came as a native one");
    let p99 = query(addr, "histogram_quantile(0.99,lode_request_duration_seconds{kind=\"write\"})");
    assert!(p99.is_some_and(|p99| p99 > 10e-6 && p99 < 10.0), "{p99:?}");
}

#[test]
fn the_page_about_metrics_tells_of_those_that_there_are_and_of_no_others() {
    let home = Home::observed(&[]);
    let node = home.start();
    let scrape = get(node.admin_addr(), "/metrics").text();
    let exposed: BTreeSet<(String, String, String)> = scrape
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| {
            let help = format!("# HELP {name} ");
            let help =
                scrape.lines().find_map(|line| line.strip_prefix(help.as_str())).expect("each has its words");
            (name.to_owned(), kind.to_owned(), help.to_owned())
        })
        .collect();
    assert_eq!(exposed.len(), ROWS.len() + OTHERS.len(), "each once");
    for name in exposed.iter().map(|(name, ..)| name) {
        assert!(name.starts_with("lode_") && !name.ends_with("_total"), "{name}");
        assert!(!["_ms", "_us", "_ns", "_kib", "_mib"].iter().any(|unit| name.ends_with(unit)), "{name}");
    }
    let page = std::fs::read_to_string(source::root().join("docs/metrics.md")).expect("the page is there");
    let told: BTreeSet<(String, String, String)> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `lode_")?.strip_suffix(" |"))
        .map(|row| {
            let mut cells = row.split(" | ");
            let mut next = || cells.next().expect("a row has a name, a kind and words");
            (format!("lode_{}", next().trim_end_matches('`')), next().to_owned(), next().to_owned())
        })
        .collect();
    let differ: Vec<_> = exposed.symmetric_difference(&told).collect();
    assert!(differ.is_empty(), "the page and the node differ about {differ:#?}");
    assert!(ROWS.iter().any(|row| row.kind == Kind::Gauge && row.scale == 1.0));
}

#[test]
fn slow_many_and_oversize_clients_are_bounded_and_the_node_goes_on() {
    let home = Home::observed(&[]);
    let node = home.start();
    let addr = node.admin_addr();
    let long = "x".repeat(MAX_HEAD_BYTES + 1000);
    for (request, status) in [
        (format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"), 414),
        (format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: {long}\r\n\r\n"), 431),
        (format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "a: b\r\n".repeat(200)), 431),
        (
            "POST /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"
                .into(),
            405,
        ),
        ("GET /nothing/../here HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".into(), 404),
        ("nonsense\r\n\r\n".into(), 400),
    ] {
        let answer = send(addr, request.as_bytes());
        let begin: String = request.chars().take(30).collect();
        let statuses = if status == 414 { vec![414, 431] } else { vec![status] };
        assert!(statuses.contains(&answer.status), "{begin}: {}", answer.head);
    }
    assert_eq!(get_with(addr, "/metrics", "Accept: application/vnd.google.protobuf\r\n").status, 200);
    // Connections that say nothing take all the room there is, but not for ever.
    let idle: Vec<_> = (0..MAX_CONNECTIONS).map(|_| connect(addr)).collect();
    let refused = until("one more is refused", || {
        let mut stream = connect(addr);
        stream.set_read_timeout(Some(Duration::from_millis(500))).expect("set");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        (!answer.is_empty()).then_some(answer)
    });
    assert!(refused.starts_with("HTTP/1.1 503") && refused.ends_with("too many connections\n"), "{refused}");
    drop(idle);
    until("there is room again", || {
        let mut stream = connect(addr);
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(())
    });
    let told = get(addr, "/metrics").text();
    assert!(sample(&told, "lode_admin_refused_connections_total").is_some_and(|count| count >= 1.0));
    node.client().stats().expect("the node serves");
}

#[test]
fn an_address_in_use_is_told() {
    let home = Home::with(&["--size", "256MiB", "--shards", "2", "--memory", "160MiB"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("bound").to_string();
    let mut command = home.command();
    command.args(["--admin", &addr]);
    let output = command.output().expect("run");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains(&addr) && told.contains("--admin"), "{told}");
    assert!(!home.drive().exists(), "no drive is made by a node that cannot start");
}

/// The lines of a stream that are arrays, by partition.
fn rows(stream: &str) -> Vec<Vec<f64>> {
    stream.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn every_partition_is_told_of_by_the_stream_and_by_the_history() {
    let home = Home::observed(&[]);
    let node = home.start();
    let addr = node.admin_addr();
    let mut client = node.client();
    client.create_table(table::durable("many", 1100)).expect("made");
    until("all are told of", || (rows(&get(addr, "/partitions/stream").text()).len() == 1100).then_some(()));
    let (mut puts, mut seen) = (0u64, 0.0);
    let busy = until("what was asked is told of its partition", || {
        for n in 0..200u32 {
            client.put("many", b"one key", &n.to_be_bytes()).expect("put");
            puts += 1;
        }
        let stream = get(addr, "/partitions/stream");
        assert_eq!(stream.header("content-type"), Some("application/x-ndjson"));
        let heading: serde_json::Value = serde_json::from_str(stream.text().lines().next()?).expect("JSON");
        assert_eq!(heading["series"].as_array().map(Vec::len), Some(10));
        let rows = rows(&stream.text());
        assert!(rows.iter().all(|row| row.len() == 13), "id, table, shard and ten figures");
        let busy: Vec<_> = rows.iter().filter(|row| row[4] > 0.0).collect();
        assert!(busy.len() <= 1, "one key is in one partition: {busy:?}");
        seen = busy.first()?[4];
        Some(busy[0][0] as u32)
    });
    assert!(seen > 1.0, "{seen} writes a second");
    let one = get(addr, &format!("/partitions?id={busy}")).json();
    assert_eq!((one["table"].as_str(), one["placement"].as_str()), (Some("many"), Some("hash")));
    assert_eq!(one["figures"]["records"], 1);
    let history = until("the history has them", || {
        let history = get(addr, &format!("/history?partition={busy}&series=writes_per_s,records"));
        let history = (history.status == 200).then(|| history.json())?;
        let written = history["series"]["writes_per_s"].as_array()?.iter().filter_map(|rate| rate.as_f64());
        (written.sum::<f64>() > 0.0).then_some(history)
    });
    assert_eq!(history["step_s"], 10);
    assert!(history["series"].get("bytes").is_none(), "only what was asked for: {history}");
    let node_history = get(addr, "/history?every=1&series=writes_per_s,get_p99_s").json();
    let rates = node_history["series"]["writes_per_s"].as_array().expect("told");
    let total: f64 = rates.iter().filter_map(|rate| rate.as_f64()).sum();
    assert!((total - puts as f64).abs() < 0.3 * puts as f64 + 250.0, "{total} of {puts} puts: {rates:?}");
    for (path, status) in [
        ("/partitions?id=x", 400),
        ("/partitions?id=999999", 404),
        ("/history?partition=999999", 404),
        ("/history?partition=-1", 400),
        ("/history?series=no_such", 400),
        ("/history?every=7", 400),
        ("/history?last=x", 400),
        ("/partitions/stream?follow=x", 400),
    ] {
        assert_eq!(get(addr, path).status, status, "{path}");
    }
}

#[test]
fn who_follows_the_stream_gets_it_again_and_a_drop_is_seen() {
    let home = Home::observed(&[]);
    let node = home.start();
    let addr = node.admin_addr();
    let mut client = node.client();
    client.create_table(table::durable("gone", 40)).expect("made");
    client.create_table(table::durable("stays", 2)).expect("made");
    let mut stream = connect(addr);
    stream
        .write_all(b"GET /partitions/stream?follow=true HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("sent");
    let mut told = String::new();
    let mut read_until = |what: &str, is: &dyn Fn(&str) -> bool| {
        let mut bytes = [0; 65536];
        let from = Instant::now();
        told.clear();
        while !is(&told) {
            assert!(from.elapsed() < PATIENCE, "{what}: {told}");
            let count = stream.read(&mut bytes).expect("more");
            told.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    };
    let is_row = |line: &str| line.starts_with('[');
    read_until("all partitions", &|told| told.lines().filter(|line| is_row(line)).count() >= 42);
    client.drop_table("gone").expect("dropped");
    // A picture in whole, from one heading to the next, has the two that stay and no other.
    read_until("those that stay", &|told| {
        told.split("{\"at_ms\"").any(|picture| {
            let last = picture.lines().filter(|line| is_row(line)).count();
            picture.contains("\"stays\"") && !picture.contains("\"gone\"") && last == 2
        })
    });
}
