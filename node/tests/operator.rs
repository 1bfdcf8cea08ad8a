//! What an operator meets: the log, signals, the configuration as it counts, completions and manual.

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// A drive of one shard.
const ONE: [&str; 4] = ["--shards", "1", "--memory", "64MiB"];
const LODE: &str = env!("CARGO_BIN_EXE_lode");

struct Node {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    said: Vec<String>,
}

impl Node {
    /// Starts a node, and waits for its line with this in it.
    fn start(drive: &Path, options: &[&str], until: &str) -> Node {
        let mut child = Command::new(LODE)
            .args(["serve", "--listen", "127.0.0.1:0", "--size", "128MiB"])
            .args(["--no-pin", "--end-with-parent", "--data"])
            .arg(drive)
            .args(options)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let mut node = Node { child, lines, said: Vec::new() };
        node.wait_for(until);
        node
    }

    fn wait_for(&mut self, until: &str) {
        for line in self.lines.by_ref().map_while(Result::ok) {
            let is_it = line.contains(until);
            self.said.push(line);
            if is_it {
                return;
            }
        }
        panic!("it never said {until}: {:#?}", self.said);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Everything that it has said, and how it ended.
    fn end(mut self) -> (Vec<String>, Option<i32>) {
        self.said.extend(self.lines.by_ref().map_while(Result::ok));
        let status = self.child.wait().expect("it ends");
        (std::mem::take(&mut self.said), status.code())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lode(words: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(LODE).args(words).envs(environment.iter().copied()).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn a_log_in_json_is_an_object_a_line_from_start_to_checkpoint_and_stop() {
    let dir = TempDir::new().expect("a directory");
    let node =
        Node::start(&dir.path().join("drive.lode"), &[&ONE[..], &["--log", "json"]].concat(), "listening at");
    let listening: Value = serde_json::from_str(node.said.last().expect("a line")).expect("JSON");
    let addr = listening["addr"].as_str().expect("an address").to_owned();
    for words in
        [&["table", "create", "t", "--partitions", "3"][..], &["put", "t", "a", "b"], &["table", "drop", "t"]]
    {
        assert!(lode(&[&["--node", &addr], words].concat(), &[]).status.success(), "{words:?}");
    }
    node.signal(Signal::TERM);
    let (lines, code) = node.end();
    assert_eq!(code, Some(0));
    let objects: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect();
    let events: Vec<&str> =
        objects.iter().map(|object| object["event"].as_str().expect("an event")).collect();
    for event in [
        "start",
        "format",
        "recovered",
        "listening",
        "table_created",
        "table_dropped",
        "stopping",
        "checkpoint",
        "stopped",
    ] {
        assert_eq!(events.iter().filter(|found| **found == event).count(), 1, "{event} in {events:?}");
    }
    let place = |event: &str| events.iter().position(|found| *found == event);
    assert!(place("stopping") < place("checkpoint") && place("checkpoint") < place("stopped"), "{events:?}");
    for object in &objects {
        assert!(object["timestamp"].is_string() && object["message"].is_string(), "{object}");
    }
}

/// Runs a program that is forbidden io_uring_setup (425), as the seccomp profiles of containers do.
const WITHOUT_RINGS: &str = "
import ctypes, os, struct, sys
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *step) for step in steps))
class Program(ctypes.Structure):
    _fields_ = [('len', ctypes.c_ushort), ('filter', ctypes.c_void_p)]
program = Program(len(steps), ctypes.addressof(code))
kernel = ctypes.CDLL(None)
if kernel.prctl(38, 1, 0, 0, 0) or kernel.prctl(22, 2, ctypes.byref(program), 0, 0):
    sys.exit(99)
os.execv(sys.argv[1], sys.argv[1:])
";

#[test]
fn a_node_that_may_have_no_rings_says_so_and_writes_nothing() {
    let dir = TempDir::new().expect("a directory");
    let drive = dir.path().join("drive.lode");
    let mut command = Command::new("python3");
    command.args(["-c", WITHOUT_RINGS, LODE, "serve", "--listen", "127.0.0.1:0", "--size", "128MiB"]);
    let Ok(output) = command.args(ONE).arg("--data").arg(&drive).output() else {
        return eprintln!("left out: there is no python3, which forbids a node its rings");
    };
    if output.status.code() == Some(99) {
        return eprintln!("left out: this kernel takes no seccomp filter");
    }
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(8), "{told}");
    assert!(told.contains("io_uring cannot be set up") && told.contains("seccomp"), "{told}");
    assert!(!drive.exists(), "a drive was made for a node that cannot run: {told}");
}

#[test]
fn the_level_says_what_is_logged() {
    let dir = TempDir::new().expect("a directory");
    let drive = dir.path().join("drive.lode");
    let node = Node::start(&drive, &ONE, "listening at");
    assert!(node.said.iter().any(|line| line.contains(" INFO  recovered: in ")), "{:?}", node.said);
    node.signal(Signal::TERM);
    assert_eq!(node.end().1, Some(0));
    // A warning comes, for the drive has one shard; nothing else does.
    let node = Node::start(
        &drive,
        &["--shards", "2", "--memory=128MiB", "--log-level", "warn"],
        "1 shards, and keeps",
    );
    assert!(node.said.iter().all(|line| line.contains(" WARN ")), "{:?}", node.said);
}

#[test]
fn a_second_signal_ends_the_node_at_once() {
    let dir = TempDir::new().expect("a directory");
    let mut node = Node::start(&dir.path().join("drive.lode"), &ONE, "listening at");
    node.signal(Signal::TERM);
    node.wait_for("stopping");
    node.signal(Signal::INT);
    let (lines, code) = node.end();
    assert_eq!(code, Some(130), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("checkpoint")), "{lines:?}");
}

#[test]
fn the_configuration_is_told_with_its_origins_and_reads_back() {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("node.toml");
    fs::write(&file, "name = 'from-file'\nmemory = '2GiB'\n").expect("written");
    let file = file.to_str().expect("text");
    let words = ["config", "--config", file, "--max-connections", "9"];
    let environment = [("LODE_MEMORY", "3GiB"), ("LODE_NO_PIN", "true")];
    let plain = lode(&words, &environment);
    assert!(plain.status.success(), "{plain:?}");
    let plain = text(&plain.stdout);
    let line =
        |name: &str| plain.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{plain}"));
    assert!(line("name = ").ends_with(&format!("# file {file}, line 1")), "{plain}");
    assert!(line("memory = 3221225472 ").ends_with("# environment, LODE_MEMORY"), "{plain}");
    assert!(line("max-connections = 9 ").ends_with("# flag"), "{plain}");
    assert!(line("listen = \"127.0.0.1:7411\" ").ends_with("# default"), "{plain}");
    assert!(line("# shards: as the node finds best").ends_with("# default"), "{plain}");

    let again = dir.path().join("again.toml");
    fs::write(&again, &plain).expect("written");
    let again = lode(&["config", "--json", "--config", again.to_str().expect("text")], &[]);
    let again: Value = serde_json::from_str(&text(&again.stdout)).expect("JSON");
    let first = lode(&["config", "--json", "--config", file, "--max-connections", "9"], &environment);
    let first: Value = serde_json::from_str(&text(&first.stdout)).expect("JSON");
    for (name, told) in first.as_object().expect("an object") {
        assert_eq!(told["value"], again[name]["value"], "{name}");
    }
    assert_eq!(
        (&first["memory"]["from"], &first["memory"]["variable"]),
        (&"environment".into(), &"LODE_MEMORY".into())
    );
    assert_eq!((&first["name"]["from"], &first["name"]["line"]), (&"file".into(), &1.into()));
}

#[test]
fn a_node_that_is_told_nonsense_names_all_of_it_and_does_not_start() {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("node.toml");
    fs::write(&file, "shrads = 2\nmemory = -1\n[table-defaults]\nstor = 'x'\n").expect("written");
    for command in ["serve", "config"] {
        let output = lode(&[command, "--config", file.to_str().expect("text")], &[("LODE_LISTEN", "here")]);
        assert_eq!(output.status.code(), Some(2));
        let told = text(&output.stderr);
        assert!(told.contains("4 things are wrong"), "{told}");
        for word in
            ["option shrads", "memory cannot be -1", "table-defaults.stor", "LODE_LISTEN cannot be \"here\""]
        {
            assert!(told.contains(word), "{word} is missing in {told}");
        }
    }
}

#[test]
fn completions_and_manual_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = lode(&["completions", shell], &[]);
        let script = text(&script.stdout);
        for word in ["quickstart", "log-level", "checkpoint"] {
            assert!(script.contains(word), "{word} in {shell}");
        }
    }
    assert_eq!(lode(&["completions", "cmd"], &[]).status.code(), Some(2));
    let dir = TempDir::new().expect("a directory");
    let pages = dir.path().join("man");
    assert!(lode(&["man", pages.to_str().expect("text")], &[]).status.success());
    for page in ["lode.1", "lode-serve.1", "lode-table-create.1", "lode-config.1"] {
        let page = fs::read_to_string(pages.join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(page.contains(".TH"), "{page}");
    }
    let serve = fs::read_to_string(pages.join("lode-serve.1")).expect("a page");
    assert!(serve.contains("commit\\-window"), "{serve}");
}
