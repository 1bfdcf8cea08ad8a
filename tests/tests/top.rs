//! `lode top` and `lode slow`: what a person on a terminal, and a script, see of a node through its admin port.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use lode_tests::node::{Home, Node, binary, until};
use lode_tests::table;
use serde_json::Value;

/// A name that would clear the screen and turn what follows around.
const HOSTILE: &str = "a\u{1b}[2Jb\u{202e}c";

fn node() -> (Home, Node) {
    let home = Home::observed(&["--slow-request", "1us"]);
    let node = home.start();
    let mut client = node.client();
    client.create_table(table::durable("users", 4)).expect("made");
    client.create_table(table::durable(HOSTILE, 1)).expect("made");
    for n in 0..50u32 {
        client.put("users", &n.to_be_bytes(), b"v").expect("put");
        client.put(HOSTILE, &n.to_be_bytes(), b"v").expect("put");
    }
    (home, node)
}

fn lode(words: &[&str], admin: SocketAddr) -> Output {
    let mut command = Command::new(binary());
    command.args(words).args(["--admin", &admin.to_string()]).env_remove("LODE_ADMIN").stdin(Stdio::null());
    command.output().expect("lode can be run")
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[test]
fn scripts_get_a_picture_or_objects() {
    let (_home, node) = node();
    let addr = node.admin_addr();
    let once = until("a picture with the slow requests", || {
        let once = stdout(&lode(&["top", "--once"], addr));
        (once.contains("green") && once.contains("put          users")).then_some(once)
    });
    for words in [
        "seen  lode ",
        "serving, up ",
        "requests",
        "p99.9",
        "drive",
        "memory",
        "shards   2, ",
        "since the start took 1 us or longer",
    ] {
        assert!(once.contains(words), "{words:?} is missing in\n{once}");
    }
    assert!(!once.contains(['\u{1b}', '\u{202e}']) && once.contains("a\\u{1b}[2Jb\\u{202e}c"), "{once}");
    // The picture is of a second ago.
    let told = until("an object with what was written", || {
        let told: Value =
            serde_json::from_str(&stdout(&lode(&["top", "--once", "--json"], addr))).expect("JSON");
        (told["node"]["totals"]["puts"] == 100).then_some(told)
    });
    assert_eq!(
        (told["node"]["name"].as_str(), told["slow"]["threshold_us"].as_u64()),
        (Some("seen"), Some(1))
    );
    assert!(told["partitions"].is_array(), "{told}");

    // A line for each look, until nobody reads them any more.
    let mut command = Command::new(binary());
    command.args(["top", "--json", "--interval", "100ms", "--admin", &addr.to_string()]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("run");
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("piped")));
    let looks: Vec<Value> =
        lines.take(3).map(|line| serde_json::from_str(&line.expect("read")).expect("JSON")).collect();
    assert!(looks.iter().all(|look| look["node"]["name"] == "seen"));
    until("it ends with its reader", || child.try_wait().expect("asked"));

    let no_terminal = lode(&["top"], addr);
    assert_eq!(no_terminal.status.code(), Some(2), "{no_terminal:?}");
    assert!(String::from_utf8_lossy(&no_terminal.stderr).contains("--once"), "{no_terminal:?}");
    node.kill();
    let dead = lode(&["top", "--once"], addr);
    assert_eq!(dead.status.code(), Some(3), "{dead:?}");
    let told = String::from_utf8_lossy(&dead.stderr).into_owned();
    assert!(told.contains("no answer from the admin port") && told.contains("--admin"), "{told}");
}

#[test]
fn slow_requests_are_printed_and_found_by_their_key() {
    let (_home, node) = node();
    let addr = node.admin_addr();
    node.client().put("users", b"one key", b"v").expect("put");
    let told = stdout(&lode(&["slow", "--key", "one key"], addr));
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.contains(" put users (partition ") && told.contains(" of 7 B; Ok by 127.0.0.1:"), "{told}");
    let told = stdout(&lode(&["slow", "-n", "7", "--json"], addr));
    let lines: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 7);
    assert!(stdout(&lode(&["slow", "--partition", "4000000"], addr)).starts_with("no such request"));
    // What is no admin port of a node is told as that.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let other = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("asked");
        let _ = stream.read(&mut [0; 4096]);
        stream.write_all(b"-ERR unknown command\r\n").expect("told");
    });
    let output = lode(&["slow"], other);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("is no admin port of lode"), "{output:?}");
}

/// `lode top` on a terminal of its own.
struct Screen {
    child: Child,
    shown: Arc<Mutex<Vec<u8>>>,
    tty: String,
}

impl Screen {
    fn open(admin: SocketAddr, directory: &Path) -> Option<Screen> {
        let name = directory.join("tty");
        let top = format!(
            "stty cols 100 rows 30; tty > '{}'; exec '{}' top --interval 100ms --admin {admin}",
            name.display(),
            binary().display()
        );
        let mut command = Command::new("script");
        command.args(["-qefc", &top, "/dev/null"]).env("TERM", "xterm").env_remove("NO_COLOR");
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                eprintln!("left out: there is no `script` of util-linux to make a terminal: {error}");
                return None;
            }
        };
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut output, seen) = (child.stdout.take().expect("piped"), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut bytes = [0; 65536];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                seen.lock().expect("nobody panics").extend_from_slice(&bytes[..count]);
            }
        });
        let tty = until("the terminal's name", || {
            std::fs::read_to_string(&name).ok().filter(|name| name.ends_with('\n'))
        });
        Some(Screen { child, shown, tty: tty.trim().to_owned() })
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().expect("nobody panics")).into_owned()
    }

    /// The last picture that was drawn whole, without what makes it coloured.
    fn picture(&self) -> Vec<String> {
        let shown = self.shown();
        let pictures: Vec<&str> = shown.split("\u{1b}[H").collect();
        let whole = pictures.iter().rev().find_map(|picture| picture.split_once("\u{1b}[J"));
        let Some((picture, _)) = whole else { return Vec::new() };
        picture.split("\r\n").map(without_colours).collect()
    }

    #[track_caller]
    fn until(&self, what: &str, is: impl Fn(&[String]) -> bool) {
        until(what, || is(&self.picture()).then_some(()));
    }
}

fn without_colours(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + part.split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |(_, rest)| rest)
    })
}

#[test]
fn a_person_sees_it_live_on_a_terminal_of_any_size_and_quits() {
    let (_home, node) = node();
    let directory = tempfile::tempdir().expect("a directory");
    let Some(mut screen) = Screen::open(node.admin_addr(), directory.path()) else { return };
    screen.until("the node's name and health", |lines| {
        lines.first().is_some_and(|line| line.starts_with("seen  lode ") && line.contains("  green  serving"))
    });
    screen.until("the slow requests", |lines| lines.iter().any(|line| line.contains(" put ")));
    assert!(screen.shown().starts_with("\u{1b}[?1049h\u{1b}[?25l"), "another screen, and no cursor");
    let lines = screen.picture();
    assert!(lines.len() <= 30 && lines.iter().all(|line| line.chars().count() <= 100), "{lines:#?}");
    assert_eq!(lines.last().map(String::as_str), Some("q quits"));
    // What is written is seen without doing anything.
    let mut client = node.client();
    until("requests are counted", || {
        for n in 0..20u32 {
            client.put("users", &n.to_be_bytes(), b"v").expect("put");
        }
        let lines = screen.picture();
        let write = lines.iter().find_map(|line| line.strip_prefix(" write"))?;
        (write.split_whitespace().next() != Some("0")).then_some(())
    });

    // A smaller window has what fits.
    let sized = Command::new("stty").args(["-F", &screen.tty, "cols", "44", "rows", "9"]).status();
    assert!(sized.expect("stty is there").success());
    screen.until("a smaller picture", |lines| {
        lines.len() == 9 && lines.iter().all(|line| line.chars().count() <= 44)
    });
    assert_eq!(screen.picture().last().map(String::as_str), Some("q quits"));
    let sized = Command::new("stty").args(["-F", &screen.tty, "cols", "120", "rows", "50"]).status();
    assert!(sized.expect("stty is there").success());

    node.kill();
    screen.until("that the node is dead", |lines| {
        lines.first().is_some_and(|line| line.contains("DEAD: no answer from 127.0.0.1:"))
            && lines.iter().any(|line| line.contains("what it told last"))
    });
    screen.child.stdin.as_mut().expect("piped").write_all(b"xq").expect("pressed");
    let ended = until("it ends", || screen.child.try_wait().expect("asked"));
    assert!(ended.success(), "{ended:?}");
    until("the terminal is given back", || {
        screen.shown().ends_with("\u{1b}[?7h\u{1b}[?25h\u{1b}[?1049l").then_some(())
    });
}
