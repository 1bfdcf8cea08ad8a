//! The admin port of a node that wants tokens: what is told to whom, and how often.

use std::fs;
use std::io::{Read, Write};

use lode_net::client::Token;
use lode_net::wire::limits::MAX_SECRET_BYTES;
use lode_node::admin::limits::MAX_CONNECTIONS_OF_ADDRESS;
use lode_tests::browser::{self, BROWSERS, Browser};
use lode_tests::guarded::{Guarded, eventually, hang_up};
use lode_tests::http::{self, Answer, get, get_with};
use lode_tests::node::{Home, Node};
use lode_tests::wire::Wire;

/// What is not for everybody, and one that is not there.
const GUARDED: [&str; 6] =
    ["/metrics", "/api/node", "/partitions?id=1", "/partitions/stream", "/history", "/nothing"];

fn ask(node: &Node, path: &str, secret: &str) -> Answer {
    get_with(node.admin_addr(), path, &format!("Authorization: Bearer {secret}\r\n"))
}

#[test]
fn statistics_take_a_token_and_probes_take_none() {
    let guarded = Guarded::new(&["--admin", "0"]);
    let watcher = guarded.make("watcher", &["--stats"]);
    let reader = guarded.make("reader", &["--read", "*", "--write", "*", "--admin", "mine"]);
    let node = guarded.start();
    let admin = node.admin_addr();
    for path in ["/healthz", "/readyz", "/", "/console.js", "/console.css"] {
        assert_eq!(get(admin, path).status, 200, "{path}");
    }
    for path in GUARDED {
        let refused = get(admin, path);
        assert_eq!(refused.status, 401, "{path}");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"lode\""), "{path}");
        let long = "s".repeat(MAX_SECRET_BYTES);
        for unknown in ["lode_0000", &watcher[..watcher.len() - 1], &format!("{watcher}0"), &long] {
            let refused = ask(&node, path, unknown);
            let told = (refused.status, refused.header("www-authenticate").unwrap_or_default().to_owned());
            assert_eq!(told, (401, "Bearer realm=\"lode\", error=\"invalid_token\"".to_owned()), "{path}");
            assert!(!refused.text().contains(unknown), "{}", refused.text());
        }
        assert_eq!(ask(&node, path, &reader).status, 403, "{path}");
        // Whoever may not see it does not learn whether it is there.
        let status = if path == "/nothing" { 404 } else { 200 };
        assert_eq!(ask(&node, path, &watcher).status, status, "{path}");
        assert_eq!(ask(&node, path, &guarded.admin).status, status, "{path}");
        // Nothing in the address is a token, and of two headers neither counts.
        let joint = if path.contains('?') { '&' } else { '?' };
        assert_eq!(get(admin, &format!("{path}{joint}token={watcher}&access_token={watcher}")).status, 401);
        let twice = format!("Authorization: Bearer {watcher}\r\n").repeat(2);
        assert_eq!(get_with(admin, path, &twice).status, 401, "{path}");
        assert_eq!(get_with(admin, path, &format!("Authorization: Basic {watcher}\r\n")).status, 401);
        let head = format!(
            "HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {reader}\r\n\r\n"
        );
        let head = http::send(admin, head.as_bytes());
        assert_eq!((head.status, head.body.len()), (403, 0), "{path}");
    }
    // Another token on the same connection is another's.
    let mut stream = http::connect(admin);
    let mut statuses = Vec::new();
    for secret in [&watcher, &reader, &guarded.admin] {
        let request = format!("HEAD /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut head = [0; 4096];
        let count = stream.read(&mut head).expect("an answer");
        statuses.push(String::from_utf8_lossy(&head[..count]).split(' ').nth(1).map(str::to_owned));
    }
    assert_eq!(statuses, ["200", "403", "200"].map(|status| Some(status.to_owned())));
    for line in node.log() {
        assert!(![&watcher, &reader].iter().any(|secret| line.contains(&secret[5..])), "{line}");
    }
    assert!(node.stop().success());
}

#[test]
fn a_withdrawn_token_sees_nothing_more_and_limits_are_kept() {
    let guarded = Guarded::new(&["--admin", "0"]);
    let slow = guarded.make("slow", &["--stats", "--requests-per-s", "2", "--connections", "2"]);
    let gone = guarded.make("gone", &["--stats"]);
    let node = guarded.start();
    let admin = node.admin_addr();
    // A busy machine may take long for an answer, and longer to forget its connection.
    let too_often = "this token may make 2 requests a second";
    let refused =
        (0..40).map(|_| ask(&node, "/history", &slow)).find(|answer| answer.text().contains(too_often));
    let refused = refused.expect("above the rate");
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    // Connections of the token, on this port and on others together.
    let token = Token::new(&slow).expect("a secret");
    let mut held = Vec::new();
    eventually("those of the answers are gone, and there are two to be had", || {
        held.extend(Wire::try_open_as(node.addr, Some(&token)));
        held.len() == 2
    });
    eventually("it has no connection left for this port", || {
        let refused = ask(&node, "/history", &slow);
        refused.status == 429 && refused.text().contains("as many connections as it may")
    });
    drop(held);
    // Of an address: half of the port's, whoever it is; probes of others still get in.
    let idle: Vec<_> = (0..MAX_CONNECTIONS_OF_ADDRESS).map(|_| http::connect(admin)).collect();
    eventually("one more is refused", || {
        let mut told = String::new();
        let _ = http::connect(admin).read_to_string(&mut told);
        told.contains(" 503 ")
    });
    drop(idle);
    eventually("there is room again", || {
        let mut stream = http::connect(admin);
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let mut told = String::new();
        let _ = stream.read_to_string(&mut told);
        told.contains(" 200 ")
    });

    eventually("it is known", || ask(&node, "/metrics", &gone).status == 200);
    let text = fs::read_to_string(guarded.tokens()).expect("there");
    fs::write(guarded.tokens(), &text[..text.rfind("[[token]]").expect("a token")]).expect("written");
    hang_up(&node);
    eventually("it is withdrawn", || ask(&node, "/metrics", &gone).status == 401);
    assert_eq!(ask(&node, "/metrics", &guarded.admin).status, 200);
    assert!(node.stop().success());
}

#[test]
fn an_admin_port_that_everybody_can_reach_is_warned_of_by_what_it_tells() {
    let home = Home::with(&["--size", "128MiB", "--shards", "1", "--memory", "64MiB"]);
    let mut command = home.command();
    command.args(["--admin", "0.0.0.0:0"]);
    let node = home.start_with(command);
    let log = node.log();
    let warned: Vec<_> = log.iter().filter(|line| line.contains("WARN")).collect();
    assert!(warned.iter().any(|line| line.contains("sees statistics")), "{log:#?}");
    assert!(!warned.iter().any(|line| line.contains("may read, write and drop")), "{log:#?}");
    assert!(node.stop().success());
}

#[test]
fn the_console_asks_for_a_token_and_shows_it_to_nobody_else() {
    let Some(program) = browser::find() else {
        eprintln!("left out: no browser of {BROWSERS:?} is on this machine");
        return;
    };
    let guarded = Guarded::new(&["--admin", "0", "--name", "seen"]);
    let watcher = guarded.make("watcher", &["--stats"]);
    let reader = guarded.make("reader", &["--read", "*"]);
    let node = guarded.start();
    let origin = format!("http://{}/", node.admin_addr());
    let mut page = Browser::start(&program);
    page.open(&origin);
    page.until("document.querySelector('#gate')?.checkVisibility() && document.querySelector('#health').textContent === 'locked'");
    assert_eq!(page.value("document.querySelector('main').checkVisibility()"), false, "nothing to see");
    page.picture("gate");
    for (secret, told) in [
        ("not a secret", "That is no secret of a token."),
        ("lode_unknown", "this node knows no such token"),
        (reader.as_str(), "this token may not see the node's statistics"),
    ] {
        page.click("#secret", None);
        page.type_text(secret);
        page.press("Enter", 13);
        page.until(&format!("document.querySelector('#gate-told').innerText.startsWith({told:?})"));
    }
    page.click("#secret", None);
    page.type_text(&watcher);
    page.press("Enter", 13);
    page.until("document.querySelector('#health').textContent === 'green'");
    page.until("Number(document.querySelector('#partition-count').textContent) >= 8");
    assert_eq!(page.value("document.querySelector('#gate').checkVisibility()"), false);
    assert_eq!(page.text("#name"), "seen");
    // It outlives a reload of this tab, and is in no address, no cookie, and nothing that outlives the tab.
    page.value("void (window.isBefore = true, location.reload())");
    page.until("!window.isBefore && document.querySelector('#health')?.textContent === 'green'");
    assert_eq!(page.value("document.cookie + JSON.stringify(localStorage)"), "{}");
    let asked = page.asked();
    assert!(asked.iter().all(|url| !url.contains("lode_") && !url.contains("oken")), "{asked:#?}");
    page.click("#forget", None);
    page.until("document.querySelector('#gate')?.checkVisibility() && sessionStorage.length === 0");
    node.kill();
}
