//! Requests that take long: a real node keeps them with where their time went, and tells of them without telling keys or values.

use std::io::Write;
use std::time::{Duration, Instant};

use lode_net::wire::map::hash_of;
use lode_net::wire::{PartitionMap, RequestView};
use lode_node::slow::MAX_KEPT;
use lode_tests::http::{get, get_with};
use lode_tests::node::{Home, Node};
use lode_tests::table;
use lode_tests::wire::Wire;
use serde_json::Value;

const STAGES: [&str; 6] = ["queue_us", "hop_us", "shard_us", "drive_us", "commit_us", "send_us"];
const PATIENCE: Duration = Duration::from_secs(60);

fn home(slow_request: &str) -> Home {
    let options = ["--size", "256MiB", "--shards", "2", "--memory", "160MiB", "--admin", "0"];
    Home::with(&[&options[..], &["--slow-request", slow_request]].concat())
}

fn requests(node: &Node, query: &str) -> Vec<Value> {
    let told = get(node.admin_addr(), &format!("/slow{query}")).json();
    told["requests"].as_array().expect("told").clone()
}

fn number(of: &Value, name: &str) -> u64 {
    of[name].as_u64().unwrap_or_else(|| panic!("no {name} in {of}"))
}

#[test]
fn what_is_slow_is_told_with_its_stages_and_without_its_key_and_value() {
    let home = home("1us");
    let node = home.start();
    let mut client = node.client();
    client.create_table(table::durable("orders", 8)).expect("made");
    for n in 0..300u32 {
        client.put("orders", format!("a key of mine {n}").as_bytes(), b"a value of mine").expect("put");
    }
    client.get("orders", b"a key of mine 7").expect("got");
    let all = requests(&node, "");
    assert!(all.len() > MAX_KEPT && all.len() <= 2 * MAX_KEPT, "{} are kept", all.len());
    for one in &all {
        let stages: u64 = STAGES.iter().map(|stage| number(&one["stages"], stage)).sum();
        assert_eq!((number(one, "total_us"), one["table"].as_str()), (stages, Some("orders")), "{one}");
        let client = one["client"].as_str().expect("told");
        assert!(client.starts_with("127.0.0.1:") && one["status"] == "Ok", "{one}");
        if one["verb"] == "put" {
            assert!(number(&one["stages"], "drive_us") > 0, "a put waits for the drive: {one}");
            assert!(number(one, "request_bytes") > 15 && number(one, "key_bytes") >= 15, "{one}");
        }
    }
    let at: Vec<u64> = all.iter().map(|one| number(one, "at_ms")).collect();
    assert!(at.is_sorted_by(|a, b| a >= b), "the latest come first");
    let hash = format!("{:08x}", u32::from_be_bytes(hash_of(b"a key of mine 7")));
    let of_key = requests(&node, &format!("?key={hash}"));
    assert_eq!(of_key[0]["verb"], "get");
    assert_eq!(number(&of_key[0], "key_bytes"), 15);
    let partition = number(&of_key[0], "partition");
    let of_partition = requests(&node, &format!("?partition={partition}&n=3"));
    assert!((1..=3).contains(&of_partition.len()));
    assert!(of_partition.iter().all(|one| number(one, "partition") == partition));

    let lines = get_with(node.admin_addr(), "/slow?n=5", "Accept: application/x-ndjson\r\n");
    assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(lines.text().lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).count(), 5);
    for bad in ["?n=x", "?partition=-1", "?format=xml"] {
        assert_eq!(get(node.admin_addr(), &format!("/slow{bad}")).status, 400, "{bad}");
    }
    let whole = get(node.admin_addr(), "/slow").text();
    assert!(!whole.contains("of mine"), "neither keys nor values are told");
    assert_eq!(node.total("slow_requests"), 301, "each is counted, and those about no record are none");
}

#[test]
fn the_log_has_a_line_a_second_at_most_with_how_many_there_were() {
    let home = home("1us");
    let node = home.start();
    let mut client = node.client();
    client.create_table(table::durable("t", 2)).expect("made");
    let begun = Instant::now();
    let lines = |node: &Node| -> Vec<String> {
        node.log().into_iter().filter(|line| line.contains("a put of table t")).collect()
    };
    while lines(&node).len() < 2 {
        client.put("t", b"a secret key", b"v").expect("put");
        assert!(begun.elapsed() < PATIENCE, "{:#?}", node.log());
    }
    let (lines, seconds) = (lines(&node), begun.elapsed().as_secs_f64());
    assert!(lines.len() as f64 <= seconds + 1.0, "{} lines in {seconds} s", lines.len());
    assert!(lines.iter().all(|line| line.contains("drive") && !line.contains("secret")), "{lines:#?}");
    assert!(lines[1].contains("others were slow, this was the slowest"), "{lines:#?}");
}

#[test]
fn a_client_that_is_slow_to_read_is_told_by_the_time_of_sending() {
    let home = home("600ms");
    let node = home.start();
    let mut client = node.client();
    client.create_table(table::durable("large", 1)).expect("made");
    client.put("large", b"k", &vec![7; 1 << 20]).expect("put");
    let mut wire = Wire::open(node.addr);
    let map = PartitionMap::new(wire.hello.map.clone().expect("a map")).expect("sound");
    let target = map.table("large").expect("there").route(b"k").expect("placed").target;
    // More than the sockets' buffers hold.
    let asked: Vec<u8> = (0..24).flat_map(|_| wire.encode(&RequestView::Get { target, key: b"k" })).collect();
    wire.stream.write_all(&asked).expect("sent");
    std::thread::sleep(Duration::from_millis(900));
    // As long as more comes: where memory is short, some are told to ask again.
    wire.stream.set_read_timeout(Some(Duration::from_millis(500))).expect("set");
    let mut bytes = vec![0; 1 << 20];
    while std::io::Read::read(&mut wire.stream, &mut bytes).is_ok_and(|count| count > 0) {}
    let from = Instant::now();
    let slow = loop {
        let slow = requests(&node, "");
        if !slow.is_empty() || from.elapsed() > PATIENCE {
            break slow;
        }
    };
    assert!(slow.iter().any(|one| one["status"] == "Ok"), "an answer that waited for its reader is slow");
    for one in slow.iter().filter(|one| one["status"] == "Ok") {
        assert_eq!((one["verb"].as_str(), one["longest"].as_str()), (Some("get"), Some("send")), "{one}");
        assert_eq!(number(one, "answer_bytes"), 1 << 20);
    }
}

#[test]
fn where_no_time_is_slow_nothing_is() {
    let home = home("0s");
    let node = home.start();
    let mut client = node.client();
    client.create_table(table::durable("t", 2)).expect("made");
    client.put("t", b"k", b"v").expect("put");
    let told = get(node.admin_addr(), "/slow").json();
    assert_eq!((told["threshold_us"].is_null(), told["noted"].as_u64()), (true, Some(0)));
    assert_eq!(node.total("slow_requests"), 0);
}
