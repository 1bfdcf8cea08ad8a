//! The binary as scripts use it: what it prints, and its exit codes.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

const LODE: &str = env!("CARGO_BIN_EXE_lode");

/// A node that is killed with the test.
struct Node {
    child: Child,
    addr: String,
}

impl Node {
    fn start(drive: &Path) -> Node {
        let mut child = Command::new(LODE)
            .args(["serve", "--listen", "127.0.0.1:0", "--shards", "1", "--size", "128MiB"])
            .args(["--memory", "64MiB", "--table-defaults", "partitions=3", "--end-with-parent", "--data"])
            .arg(drive)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        for line in lines.map_while(Result::ok) {
            if let Some((_, rest)) = line.split_once("listening at ") {
                let addr = rest.split(',').next().expect("an address").to_owned();
                return Node { child, addr };
            }
        }
        panic!("the node ended: {:?}", child.wait());
    }

    fn run(&self, words: &[&str]) -> Output {
        self.run_with_input(words, b"")
    }

    fn run_with_input(&self, words: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(LODE)
            .args(["--node", &self.addr])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        child.stdin.take().expect("piped").write_all(input).expect("it reads its input");
        child.wait_with_output().expect("it ends")
    }

    /// Standard output of a command that must succeed.
    fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    fn code(&self, words: &[&str]) -> Option<i32> {
        self.run(words).status.code()
    }

    /// SIGTERM, and until it is gone.
    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        assert!(self.child.wait().expect("it ends").success());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("one JSON object")
}

fn lode(words: &[&str]) -> Output {
    Command::new(LODE).args(words).env_remove("LODE_NODE").output().expect("the binary runs")
}

#[test]
fn data_commands_answer_and_tell_by_exit_code() {
    let dir = TempDir::new().expect("a directory");
    let node = Node::start(&dir.path().join("drive.lode"));
    node.ok(&["ping"]);
    assert!(node.ok(&["table", "create", "t"]).contains("3 partitions"), "as --table-defaults say");
    assert_eq!(node.code(&["table", "create", "t"]), Some(4));
    node.ok(&["table", "create", "r", "--split", "m"]);

    let binary = b"\x00\xff\nraw";
    assert_eq!(node.run_with_input(&["put", "t", "k", "-"], binary).status.code(), Some(0));
    assert_eq!(node.run(&["get", "t", "k"]).stdout, binary);
    assert_eq!(json(&node.ok(&["get", "t", "k", "--json"]))["value_base64"], "AP8KcmF3");
    node.ok(&["put", "-e", "t", "\\x00key", "text"]);
    let found = json(&node.ok(&["--json", "-e", "get", "t", "\\x00key"]));
    assert_eq!((&found["key_text"], &found["value_text"]), (&"\0key".into(), &"text".into()));

    let seq = found["seq"].as_str().expect("a version").to_owned();
    assert_eq!(node.code(&["put", "t", "k", "v", "--if-absent"]), Some(1));
    assert_eq!(node.code(&["put", "t", "k", "v", "--if-seq", &seq]), Some(1));
    assert_eq!(node.code(&["del", "-e", "t", "\\x00key", "--if-seq", &seq]), Some(0));
    assert_eq!(node.code(&["del", "-e", "t", "\\x00key"]), Some(1));
    assert_eq!(node.code(&["get", "t", "nothing"]), Some(1));
    assert_eq!(node.code(&["get", "nothing", "k"]), Some(4));
    assert_eq!(node.code(&["put", "t", &"k".repeat(4097), "v"]), Some(4));
    assert_eq!(node.code(&["put", "t"]), Some(2));

    let batch = b"# three writes\nput a 1\nput b 'two words'\ndel c\n";
    assert_eq!(node.run_with_input(&["batch", "r"], batch).status.code(), Some(0));
    assert_eq!(node.run_with_input(&["batch", "r"], b"put a 1\nput z 2\n").status.code(), Some(4));
    assert_eq!(node.run_with_input(&["batch", "r"], b"put a\n").status.code(), Some(6));
    assert_eq!(node.ok(&["scan", "r"]), "a\t1\nb\ttwo words\n");
    assert_eq!(node.ok(&["scan", "r", "--reverse", "--keys-only", "--limit", "1"]), "b\n");
    assert_eq!(node.ok(&["count", "r", "b"]), "1\n");
    assert_eq!(node.ok(&["min", "r"]), "a\t1\n");
    assert_eq!(json(&node.ok(&["max", "r", "--json"]))["key_text"], "b");
    assert_eq!(node.ok(&["stats", "totals.tables"]), "2\n");
    let shell = node.run_with_input(&["shell"], b"use r\nget b\nget \"\\x62\"\nget nothing\n");
    assert_eq!(String::from_utf8_lossy(&shell.stdout), "\"two words\"\n\"two words\"\n(nil)\n");
    let shell = node.run_with_input(
        &["shell"],
        b"use r\nbegin b\nput b new\nget b\ncount\nincr n\nrollback\nget b\nbegin b\nput b newer\ncommit\nget b\ncommit\n",
    );
    let said = String::from_utf8_lossy(&shell.stdout);
    let lines: Vec<&str> =
        said.lines().map(|line| line.split_once(' ').map_or(line, |(first, _)| first)).collect();
    let expected = [
        "OK",
        "OK",
        "\"new\"",
        "(integer)",
        "(error)",
        "OK",
        "\"two",
        "OK",
        "OK",
        "OK",
        "\"newer\"",
        "(error)",
    ];
    assert_eq!(lines, expected, "{said}");
    node.ok(&["table", "drop", "r"]);
    assert_eq!(node.code(&["scan", "r"]), Some(4));
    let addr = node.addr.clone();
    node.stop();
    assert_eq!(lode(&["--node", &addr, "--timeout", "1s", "ping"]).status.code(), Some(3));
}

#[test]
fn a_table_with_a_compact_index_serves_like_any_other() {
    let dir = TempDir::new().expect("a directory");
    let node = Node::start(&dir.path().join("drive.lode"));
    node.ok(&["table", "create", "c", "--store", "compact", "--split", "m"]);
    assert!(node.ok(&["table", "list"]).contains("compact"), "what it is like is told");
    // Enough for a leaf that does not hold whole keys.
    let batch: String = (0..300).map(|i| format!("put key/{i:03} value-{i}\n")).collect();
    assert_eq!(node.run_with_input(&["batch", "c"], batch.as_bytes()).status.code(), Some(0));
    node.ok(&["put", "c", "key/007", "another"]);
    assert_eq!(node.run(&["get", "c", "key/007"]).stdout, b"another");
    assert_eq!(node.run(&["get", "c", "key/299"]).stdout, b"value-299");
    assert_eq!(node.code(&["get", "c", "key/0077"]), Some(1));
    assert_eq!(node.ok(&["scan", "c", "key/006", "--limit", "2"]), "key/006\tvalue-6\nkey/007\tanother\n");
    assert_eq!(node.ok(&["count", "c", "key/100"]), "200\n");
    assert_eq!(node.code(&["del", "c", "key/007"]), Some(0));
    assert_eq!(node.code(&["del", "c", "key/007"]), Some(1));
    assert_eq!(node.ok(&["count", "c"]), "299\n");
}

#[test]
fn a_shell_tells_its_failures_and_its_help_in_json_too() {
    let dir = TempDir::new().expect("a directory");
    let node = Node::start(&dir.path().join("drive.lode"));
    node.ok(&["table", "create", "r", "--split", "m"]);
    node.ok(&["put", "r", "b", "1"]);
    let shell = node.run_with_input(&["shell", "--json"], b"use nothing\nget r\nfly\nhelp\nget r b\n");
    let said = String::from_utf8_lossy(&shell.stdout);
    let objects: Vec<Value> = said.lines().map(json).collect();
    let kinds = objects.iter().map(|object| object["error"]["kind"].as_str());
    assert_eq!(
        kinds.collect::<Vec<_>>(),
        [Some("refused"), Some("usage"), Some("usage"), None, None],
        "{said}"
    );
    assert_eq!(shell.status.code(), Some(2));
    assert!(objects[3]["help"].is_string() && objects[4]["found"] == true, "{said}");
}

#[test]
fn counters_and_times_to_live() {
    let dir = TempDir::new().expect("a directory");
    let node = Node::start(&dir.path().join("drive.lode"));
    node.ok(&["table", "create", "t"]);
    node.ok(&["put", "t", "k", "text"]);
    assert_eq!(node.ok(&["incr", "t", "hits"]), "1\n");
    assert_eq!(node.ok(&["incr", "t", "hits", "-12"]), "-11\n");
    assert_eq!(json(&node.ok(&["incr", "t", "hits", "--json"]))["number"], -10);
    assert_eq!(node.ok(&["get", "t", "hits"]), "-10");
    assert_eq!(node.ok(&["incr", "t", "from", "1", "--initial", "41"]), "42\n");
    assert_eq!(node.code(&["incr", "t", "k"]), Some(4), "no number");
    assert_eq!(node.code(&["incr", "t", "hits", "9223372036854775807"]), Some(0));
    assert_eq!(node.code(&["incr", "t", "hits", "11"]), Some(4), "beyond 64 bits");
    assert_eq!(node.code(&["incr", "t", "hits", "x"]), Some(2));

    node.ok(&["put", "t", "soon", "v", "--ttl", "12h"]);
    let left = json(&node.ok(&["get", "t", "soon", "--json"]))["ttl_ms"].as_u64().expect("it expires");
    assert!((43_000_000..=43_200_000).contains(&left), "{left}");
    assert!(node.ok(&["ttl", "t", "soon"]).ends_with(" ms\n"));
    assert_eq!(node.ok(&["ttl", "t", "hits"]), "forever\n");
    assert_eq!(json(&node.ok(&["ttl", "t", "hits", "--json"]))["ttl_ms"], Value::Null);
    assert_eq!(node.code(&["ttl", "t", "nothing"]), Some(1));
    node.ok(&["expire", "t", "soon", "30d"]);
    let left = json(&node.ok(&["ttl", "t", "soon", "--json"]))["ttl_ms"].as_u64().expect("it expires");
    assert!(left > 2_500_000_000, "{left}");
    node.ok(&["persist", "t", "soon"]);
    assert_eq!(node.ok(&["ttl", "t", "soon"]), "forever\n");
    assert_eq!(node.code(&["expire", "t", "nothing", "1s"]), Some(1));
    assert_eq!(node.code(&["put", "t", "soon", "v", "--ttl", "0s"]), Some(4));
    for (ttl, told) in [("0s", "not 0ms"), ("36501d", "not 36501d"), ("101y", "not 36865d")] {
        let refused = node.run(&["expire", "t", "soon", ttl]);
        let words = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(4), "{refused:?}");
        assert!(words.contains("lives from 1ms to 100y (36500d), ") && words.contains(told), "{words}");
    }
    for longest in ["100y", "36500d"] {
        node.ok(&["expire", "t", "soon", longest]);
    }
    assert_eq!(node.code(&["table", "create", "u", "--ttl", "0s"]), Some(4));
    node.ok(&["table", "create", "u", "--ttl", "1h"]);
    node.ok(&["put", "u", "k", "v"]);
    node.ok(&["put", "u", "l", "v", "--no-ttl"]);
    assert_eq!(node.ok(&["ttl", "u", "l"]), "forever\n");
    let row = node.ok(&["scan", "u", "--json", "--prefix", "k"]);
    assert!((3_500_000..=3_600_000).contains(&json(&row)["ttl_ms"].as_u64().expect("it expires")), "{row}");
    let tables: Value = serde_json::from_str(&node.ok(&["table", "list", "--json"])).expect("a list");
    let ttls =
        tables.as_array().expect("a list").iter().map(|table| (&table["name"], table["ttl_ms"].as_u64()));
    assert_eq!(ttls.filter(|(_, ttl)| ttl.is_some()).collect::<Vec<_>>(), [(&"u".into(), Some(3_600_000))]);
}

#[test]
fn a_load_goes_on_where_it_was_and_is_verified() {
    let dir = TempDir::new().expect("a directory");
    let node = Node::start(&dir.path().join("drive.lode"));
    let rows = dir.path().join("rows.csv");
    let mut text = String::from("id,n\n");
    (0..3000).for_each(|n| text.push_str(&format!("{n},{}\n", n * 7)));
    fs::write(&rows, format!("{text}bad\n")).expect("written");
    let path = rows.to_str().expect("text");
    let load = ["load", path, "-t", "t", "--key", "id", "--chunk", "1K", "--json"];
    assert_eq!(node.code(&load), Some(4), "no table, and none asked for");
    let stopped = node.run(&[&load[..], &["--partitions", "5"]].concat());
    assert_eq!(stopped.status.code(), Some(6));
    assert!(
        json(&String::from_utf8_lossy(&stopped.stdout))["error"]["message"]
            .as_str()
            .is_some_and(|message| message.contains("line 3002") && message.contains("--skip-bad"))
    );
    let whole = json(&node.ok(&[&load[..], &["--skip-bad", "--verify"]].concat()));
    assert_eq!((&whole["records"], &whole["skipped"]), (&3000.into(), &1.into()));
    assert!(whole["resumed_at_record"].as_u64().is_some_and(|records| records > 0), "{whole}");
    assert_eq!(whole["verified"], true);
    assert_eq!(node.ok(&["count", "t"]), "3000\n");
    assert_eq!(node.ok(&["get", "t", "5"]), "{\"id\":\"5\",\"n\":\"35\"}");
    assert!(!dir.path().join("rows.csv.lode-load").exists());
}

#[test]
fn check_tells_a_good_drive_from_a_damaged_one() {
    let dir = TempDir::new().expect("a directory");
    let drive = dir.path().join("drive.lode");
    let path = drive.to_str().expect("text");
    let node = Node::start(&drive);
    node.ok(&["table", "create", "t"]);
    node.ok(&["put", "t", "k", "a value that is easy to find"]);
    assert_eq!(lode(&["check", path]).status.code(), Some(6), "the node has it");
    node.stop();
    let clean = lode(&["check", path, "--json"]);
    assert_eq!(clean.status.code(), Some(0), "{clean:?}");
    assert_eq!(json(&String::from_utf8_lossy(&clean.stdout))["records"], 1);

    // A killed node may hold the drive for a moment longer.
    let held = fs::File::open(&drive).expect("opened");
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).expect("locked");
    let check = Command::new(LODE).args(["check", path]).stdout(Stdio::null()).spawn();
    std::thread::sleep(std::time::Duration::from_millis(300));
    drop(held);
    assert!(check.and_then(|mut check| check.wait()).expect("it ends").success());

    let mut bytes = fs::read(&drive).expect("read");
    let needle = b"easy to find";
    let at = bytes.windows(needle.len()).position(|window| window == needle).expect("it is on the drive");
    bytes[at] ^= 1;
    fs::write(&drive, bytes).expect("written");
    let damaged = lode(&["check", path]);
    assert_eq!(damaged.status.code(), Some(5), "{damaged:?}");
    assert!(String::from_utf8_lossy(&damaged.stdout).contains("key k"), "{damaged:?}");
    let found = json(&String::from_utf8_lossy(&lode(&["check", path, "--json"]).stdout));
    assert_eq!((&found["clean"], &found["error"]["kind"]), (&false.into(), &"verification_failed".into()));
}

#[test]
fn quickstart_verifies_a_small_input_and_starts_over() {
    let dir = TempDir::new().expect("a directory");
    let input = dir.path().join("input");
    fs::create_dir(&input).expect("made");
    for n in 0..300 {
        fs::write(input.join(format!("file-{n}")), vec![n as u8; n * 50]).expect("written");
    }
    let drive = dir.path().join("drive.lode");
    let words = ["quickstart", "--json", "--duration", "500ms", "--shards", "2", "--size", "256MiB"];
    for round in 0..2 {
        let output = Command::new(LODE)
            .args(words)
            .args(["--memory", "128MiB", "--partitions", "1001", "--input"])
            .arg(&input)
            .arg("--data")
            .arg(&drive)
            .output()
            .expect("the binary runs");
        assert_eq!(output.status.code(), Some(0), "round {round}: {output:?}");
        let found = json(&String::from_utf8_lossy(&output.stdout));
        assert_eq!((&found["records"], &found["verified"]), (&300.into(), &true.into()), "{found}");
        assert_eq!((&found["acknowledged_lost"], &found["shards"]), (&0.into(), &2.into()), "{found}");
        assert!(found["partitions"].as_u64().is_some_and(|partitions| partitions > 1000), "{found}");
        assert_eq!(found["device_reads_per_cold_get"], 1.0, "{found}");
    }
}

#[test]
fn a_wrong_command_line_is_told_in_json_too() {
    let run = |words: &[&str]| Command::new(LODE).args(words).output().expect("the binary runs");
    for words in [
        &["--json", "get", "t"][..],
        &["fly", "--json"],
        &["serve", "--shards", "many", "--json"],
        &["serve", "--json", "--max-connections", "0"],
    ] {
        let output = run(words);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {output:?}");
        let told: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        assert_eq!((&told["error"]["kind"], &told["error"]["exit_code"]), (&"usage".into(), &2.into()));
        assert!(told["error"]["message"].as_str().is_some_and(|text| text.len() > 10), "{told}");
    }
    let plain = run(&["fly", "--", "--json"]);
    assert_eq!((plain.status.code(), plain.stdout.len()), (Some(2), 0), "a word behind -- is no option");
    let help = run(&["--json", "--help"]);
    assert_eq!(help.status.code(), Some(0), "help is no error");
}

/// What happened, to what, and what to do: in words of the command line.
#[test]
fn messages_say_what_to_do() {
    let dir = TempDir::new().expect("a directory");
    let at = |name: &str| dir.path().join(name).to_str().expect("text").to_owned();
    let refused = |words: &[&str], exit: i32, told: &[&str]| {
        let output = lode(words);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(exit), "{words:?}: {text}");
        for part in told {
            assert!(text.contains(part), "{words:?}: {part:?} is not in {text}");
        }
        for leak in ["invalid digit", "struct", "0 B in"] {
            assert!(!text.contains(leak), "{words:?}: {text}");
        }
    };
    fs::write(at("rows.csv"), "").expect("written");
    fs::write(at("node.toml"), "shards = 'two'").expect("written");
    let nobody = ["--node", "127.0.0.1:1", "--timeout", "1s"];
    let asked = |words: &[&'static str]| [&nobody[..], words].concat();
    refused(
        &asked(&["ping"]),
        3,
        &["127.0.0.1:1: Connection refused", "is the node running, and is this its"],
    );
    refused(&["--node", "no port", "ping"], 3, &["`no port` leads to no address (", "give host:port"]);
    refused(&asked(&["scan", "t", "--limit", "x"]), 2, &["--limit", "a whole number"]);
    refused(&asked(&["incr", "t", "k", "1.5"]), 2, &["'1.5'", "a whole number"]);
    refused(&["check", &at("rows.csv")], 5, &["rows.csv", "not a lode drive; check the path", "destroys"]);
    refused(&["check", &at("")], 6, &["cannot read ", "directory"]);
    refused(&["format", &at(""), "--size", "1GiB"], 6, &["directory; give the path of a file"]);
    refused(
        &["format", &at("rows.csv"), "--size", "1GiB"],
        6,
        &["exists already; overwrite it with lode format --force"],
    );
    let small = ["format", &at("new.lode"), "--size", "1MiB", "--shards", "2"];
    refused(&small, 6, &["at least 129 MiB, not 1048576 bytes; raise --size"]);
    refused(&["serve", "--data", &at("d"), "--listen", "here"], 2, &["--listen", "an IP address and a port"]);
    refused(
        &["serve", "--config", &at("node.toml")],
        2,
        &["node.toml, line 1: shards cannot be 'two'; it is"],
    );
    let little = ["serve", "--data", &at("d"), "--shards", "2", "--memory", "127MiB"];
    refused(&little, 2, &["at least 128 MiB of memory", "raise --memory"]);

    let node = Node::start(&dir.path().join("drive.lode"));
    node.ok(&["table", "create", "t"]);
    let loaded = node.run(&["load", &at("rows.csv"), "-t", "t", "--key", "a"]);
    assert!(
        String::from_utf8_lossy(&loaded.stderr).contains("has no column \"a\"; it has none"),
        "{loaded:?}"
    );
    fs::write(at("rows.jsonl"), "{\"a\": 1}\n{bad\n").expect("written");
    let loaded = node.run(&["load", &at("rows.jsonl"), "-t", "t", "--key", "a"]);
    let text = String::from_utf8_lossy(&loaded.stderr).into_owned();
    assert!(
        text.contains("line 2: not JSON") && text.contains("at column 2") && !text.contains("line 1"),
        "{text}"
    );
    let empty = node.run(&["batch", "t"]);
    assert!(String::from_utf8_lossy(&empty.stderr).contains("has 0 writes and 4 bytes"), "{empty:?}");
}

#[test]
fn a_load_whose_node_is_killed_says_that_it_goes_on() {
    let dir = TempDir::new().expect("a directory");
    let mut node = Node::start(&dir.path().join("drive.lode"));
    let rows = dir.path().join("rows.csv");
    let lines: String = (0..400_000).map(|n| format!("{n},{n}\n")).collect();
    fs::write(&rows, format!("id,n\n{lines}")).expect("written");
    let path = rows.to_str().expect("text");
    let words =
        ["--timeout", "3s", "load", path, "-t", "t", "--key", "id", "--partitions", "5", "--chunk", "1K"];
    let load = Command::new(LODE).args(["--node", &node.addr]).args(words).stderr(Stdio::piped()).spawn();
    let load = load.expect("the binary runs");
    let state = dir.path().join("rows.csv.lode-load");
    while !state.exists() {
        std::thread::yield_now();
    }
    node.child.kill().expect("it runs");
    let ended = load.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(matches!(ended.status.code(), Some(3 | 7)), "{text}");
    assert!(text.contains("; when that is mended, the same command goes on behind "), "{text}");
}

#[test]
fn quotas_are_set_shown_and_told_in_words() {
    let dir = TempDir::new().expect("a directory");
    let node = Node::start(&dir.path().join("drive.lode"));
    node.ok(&["table", "create", "t", "--requests-per-s", "500", "--burst", "2s"]);
    let shown = json(&node.ok(&["table", "show", "t", "--json"]));
    assert_eq!(shown["quota"]["requests_per_s"], 500);
    assert_eq!((&shown["quota"]["burst_ms"], &shown["quota"]["weight"]), (&2000.into(), &100.into()));
    node.ok(&["put", "t", "k", "value"]);
    node.ok(&["table", "set", "t", "--write-bytes-per-s", "1", "--weight", "7"]);
    let listed = json(&node.ok(&["table", "list", "--json"]));
    assert_eq!(listed[0]["quota"]["requests_per_s"], 500, "what is not named stays");
    assert_eq!(listed[0]["quota"]["write_bytes_per_s"], 1);
    assert!(
        node.ok(&["table", "show", "t"]).contains("weight 7, 500 requests/s, 1 B/s written, bursts of 2s")
    );
    let long = "v".repeat(2000);
    node.ok(&["put", "t", "k", &long]);
    let refused = node.run(&["put", "t", "k", &long]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(4), "{words}");
    assert!(words.contains("above its quota of 1 bytes written a second"), "{words}");
    node.ok(&["table", "set", "t", "--key", "k", "--write-bytes-per-s", "0"]);
    node.ok(&["put", "t", "k", &long]);
    assert_eq!(
        json(&node.ok(&["table", "show", "t", "--json"]))["partition_quotas"][0]["quota"]["weight"],
        7
    );
    node.ok(&["table", "set", "t", "--key", "k", "--reset"]);
    node.ok(&["table", "set", "t", "--reset"]);
    assert!(node.ok(&["table", "show", "t"]).contains("each partition: weight 100, no limits"));
    assert_eq!(node.code(&["table", "set", "t", "--weight", "0"]), Some(2));
    assert_eq!(node.code(&["table", "set", "none", "--weight", "5"]), Some(4));
}
