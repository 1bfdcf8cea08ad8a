//! A node with a certificate: all its doors speak TLS, tokens go over it, and whoever speaks something else, slowly, or to somebody
//! else is told and closed.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use lode_net::client::blocking::Client;
use lode_net::client::connection::ConnectionError;
use lode_net::client::stream::Stream;
use lode_net::client::{self, ClientOptions, ClientTls, ConnectError, ScanOptions, Token};
use lode_net::wire::Status;
use lode_node::tls::MAX_HANDSHAKES_OF_ADDRESS;
use lode_tests::guarded::{Guarded, eventually, hang_up};
use lode_tests::node::{Home, Node, binary};
use lode_tests::wire::is_closed_by_node;
use lode_tests::{http, table};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};

const PATIENCE: Duration = Duration::from_secs(30);

/// Where a node's certificate and key are, and the certificate of their authority.
struct Certified {
    cert: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

impl Certified {
    /// A new authority and a certificate of it for these names, in the directory of a node's drive.
    fn make(home: &Home, name: &str, names: &[&str], last_year: i32) -> Certified {
        let path = |what: &str| home.drive().with_file_name(format!("{name}-{what}.pem"));
        let certified = Certified { cert: path("cert"), key: path("key"), ca: path("ca") };
        let mut of_ca = CertificateParams::new(Vec::<String>::new()).expect("names");
        of_ca.distinguished_name.push(DnType::CommonName, format!("authority of {name}"));
        of_ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(of_ca, KeyPair::generate().expect("a key")).expect("signed");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(last_year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &ca).expect("signed");
        fs::write(&certified.ca, ca.pem()).expect("written");
        fs::write(&certified.cert, cert.pem()).expect("written");
        fs::write(&certified.key, key.serialize_pem()).expect("written");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&certified.key, private).expect("set");
        certified
    }

    fn trusted(&self) -> ClientTls {
        ClientTls::trusting(&self.ca).expect("a certificate")
    }
}

/// A node with tokens and a certificate for 127.0.0.1.
fn secured(more: &[&str]) -> (Guarded, Certified) {
    let files = ["--tls-cert", "node-cert.pem", "--tls-key", "node-key.pem", "--admin", "0"];
    let guarded = Guarded::new(&[&files[..], more].concat());
    let certified = Certified::make(&guarded.home, "node", &["127.0.0.1", "localhost"], 2099);
    (guarded, certified)
}

fn options(secret: &str, tls: Option<ClientTls>) -> ClientOptions {
    let token = (!secret.is_empty()).then(|| Token::new(secret).expect("a secret"));
    ClientOptions { token, tls, retries: 0, ..ClientOptions::default() }
}

fn connect(node: &Node, secret: &str, tls: Option<ClientTls>) -> Result<Client, ConnectError> {
    Client::connect(&node.addr.to_string(), options(secret, tls))
}

fn stream(addr: SocketAddr, tls: &ClientTls) -> Stream {
    let stream = Stream::connect(addr, PATIENCE, Some(tls)).expect("TLS");
    stream.set_read_timeout(PATIENCE).expect("set");
    stream
}

/// Sends, and reads until what comes ends like this, or at all.
fn ask(stream: &mut Stream, bytes: &[u8], end: &str) -> String {
    stream.write_all(bytes).and_then(|()| stream.flush()).expect("sent");
    let mut told = String::new();
    let mut buffer = [0; 4096];
    while !told.ends_with(end) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => told += &String::from_utf8_lossy(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
            Err(error) => panic!("{error} after {told}"),
        }
    }
    told
}

#[test]
fn all_doors_speak_tls_and_tokens_go_over_it() {
    let (guarded, certified) = secured(&[]);
    let reader = guarded.make("reader", &["--read", "mine"]);
    let node = guarded.home.start();
    let tls = certified.trusted();

    let mut client = connect(&node, &guarded.admin, Some(tls.clone())).expect("known");
    client.create_table(table::durable("mine", 8)).expect("made");
    let large: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 251) as u8).collect();
    client.put("mine", b"large", &large).expect("put");
    assert_eq!(client.get("mine", b"large").expect("got").expect("there").value, large);
    for n in 0..300u32 {
        client.put("mine", &n.to_be_bytes(), &[n as u8; 5000]).expect("put");
    }
    let scanned: Result<Vec<_>, _> = client.scan("mine", ScanOptions::default()).collect();
    assert_eq!(scanned.expect("scanned").len(), 301);
    let refused = connect(&node, &reader, Some(tls.clone())).expect("known").put("mine", b"k", b"v");
    assert!(refused.is_err_and(|error| error.to_string().contains("token")), "no right to write");
    for secret in ["", "lode_wrong"] {
        let refused = connect(&node, secret, Some(tls.clone())).err().expect("unknown");
        assert!(matches!(refused, ConnectError::Refused { .. }), "{refused}");
    }
    many_at_once(&node, &guarded.admin, tls.clone());

    // A Redis client, whose records are those of lode's own.
    let mut resp = stream(node.redis_addr(), &tls);
    assert!(ask(&mut resp, b"PING\r\n", "\r\n").starts_with("-NOAUTH"));
    assert_eq!(ask(&mut resp, format!("AUTH {}\r\n", guarded.admin).as_bytes(), "\r\n"), "+OK\r\n");
    assert_eq!(ask(&mut resp, b"SET greeting hello\r\n", "\r\n"), "+OK\r\n");
    assert_eq!(client.get("0", b"greeting").expect("got").expect("there").value, &b"hello"[..]);

    // Whoever asks by HTTP.
    let request = |path: &str, secret: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {secret}\r\n\r\n"
        )
    };
    let admin = |path: &str, secret: &str| {
        let told = ask(&mut stream(node.admin_addr(), &tls), request(path, secret).as_bytes(), "# EOF\n");
        told.split(' ').nth(1).map(str::to_owned)
    };
    assert_eq!(admin("/metrics", &guarded.admin).as_deref(), Some("200"));
    assert_eq!(admin("/metrics", &reader).as_deref(), Some("403"));
    assert_eq!(admin("/healthz", "").as_deref(), Some("200"));

    // The command line.
    let lode = |words: &[&str]| {
        let mut command = Command::new(binary());
        command.args(["--node", &format!("localhost:{}", node.addr.port())]).args(words);
        command.env_remove("LODE_TOKEN_FILE").env("LODE_TOKEN", &guarded.admin).output().expect("it runs")
    };
    let ca = certified.ca.to_str().expect("text");
    assert_eq!(lode(&["--tls-ca", ca, "get", "0", "greeting"]).stdout, b"hello");
    let told = String::from_utf8_lossy(&lode(&["get", "0", "greeting"]).stderr).into_owned();
    assert!(told.contains("speaks TLS") && told.contains("--tls-ca"), "{told}");
    let unreadable = lode(&["--tls-ca", "/nowhere", "get", "0", "greeting"]);
    assert_eq!(unreadable.status.code(), Some(2), "{unreadable:?}");
    for line in node.log() {
        assert!(!line.contains(&guarded.admin[5..]) && !line.contains("PRIVATE"), "{line}");
    }
    drop((client, resp));
    let begun = Instant::now();
    assert!(node.stop().success());
    assert!(begun.elapsed() < Duration::from_secs(20), "nothing keeps it from its end");
}

/// Calls of many tasks on the client for tokio, side by side.
fn many_at_once(node: &Node, secret: &str, tls: ClientTls) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let addr = node.addr.to_string();
        let client = client::Client::connect(&addr, options(secret, Some(tls))).await.expect("connected");
        let tasks: Vec<_> = (0..400u32)
            .map(|n| {
                let client = client.clone();
                tokio::spawn(async move {
                    let (key, value) = (n.to_le_bytes(), vec![n as u8; 20_000]);
                    client.put("mine", &key, &value).await.expect("put");
                    let found = client.get("mine", &key).await.expect("got").expect("there");
                    assert_eq!(found.value, value);
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic");
        }
    });
}

#[test]
fn whoever_trusts_another_or_means_another_does_not_connect() {
    let (guarded, certified) = secured(&[]);
    let other = Certified::make(&guarded.home, "other", &["127.0.0.1"], 2099);
    let node = guarded.home.start();
    let failed = |tls: ClientTls| match connect(&node, &guarded.admin, Some(tls)).err() {
        Some(ConnectError::Tls { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    assert!(failed(other.trusted()).contains("UnknownIssuer"));
    let told = failed(certified.trusted().named("elsewhere.example"));
    assert!(told.contains("elsewhere.example") || told.contains("NotValidForName"), "{told}");
    assert!(connect(&node, &guarded.admin, Some(certified.trusted().named("localhost"))).is_ok());
    assert!(node.stop().success());
}

#[test]
fn a_node_that_shows_an_authoritys_certificate_is_told_apart() {
    let (guarded, certified) = secured(&[]);
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("names");
    for (is_ca, told) in
        [(IsCa::Ca(BasicConstraints::Unconstrained), Some("CA:FALSE")), (IsCa::ExplicitNoCa, None)]
    {
        params.is_ca = is_ca;
        let key = KeyPair::generate().expect("a key");
        let cert = params.self_signed(&key).expect("signed");
        fs::write(&certified.cert, cert.pem()).expect("written");
        fs::write(&certified.key, key.serialize_pem()).expect("written");
        let node = guarded.home.start();
        let tls = ClientTls::trusting(&certified.cert).expect("a certificate");
        match (connect(&node, &guarded.admin, Some(tls)), told) {
            (Ok(_), None) => {}
            (Err(error), Some(told)) => assert!(error.to_string().contains(told), "{error}"),
            (result, told) => panic!("{:?}, not {told:?}", result.err()),
        }
    }
}

#[test]
fn whoever_speaks_the_other_language_is_told() {
    let (guarded, certified) = secured(&[]);
    let node = guarded.home.start();
    let refused = connect(&node, &guarded.admin, None).err().expect("TLS is asked for").to_string();
    assert!(refused.contains("this port speaks TLS"), "{refused}");
    let said = |addr: SocketAddr, bytes: &[u8]| {
        let mut stream = http::connect(addr);
        stream.write_all(bytes).expect("sent");
        let mut told = String::new();
        stream.read_to_string(&mut told).expect("told, and closed in order");
        told
    };
    assert_eq!(said(node.redis_addr(), b"PING\r\n"), "-ERR this port speaks TLS\r\n");
    let answer = said(node.admin_addr(), b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("\r\n\r\nthis port speaks TLS: use https\n"),
        "{answer}"
    );
    assert!(node.stop().success());

    // And TLS where nobody speaks it: each door closes, and the client says what it may be.
    let plain = Home::with(&[
        "--size",
        "128MiB",
        "--shards",
        "1",
        "--memory",
        "64MiB",
        "--redis",
        "127.0.0.1:0",
        "--admin",
        "0",
    ]);
    let node = plain.start();
    let refused = connect(&node, "", Some(certified.trusted())).err().expect("it speaks no TLS").to_string();
    assert!(refused.contains("does it speak TLS at this address?"), "{refused}");
    for addr in [node.redis_addr(), node.admin_addr()] {
        let begun = Instant::now();
        assert!(Stream::connect(addr, PATIENCE, Some(&certified.trusted())).is_err());
        assert!(begun.elapsed() < Duration::from_secs(20), "{addr}");
    }
    assert!(node.client().get("none", b"k").is_err(), "it serves");
    assert!(node.stop().success());
}

#[test]
fn slow_handshakes_are_ended_and_have_no_more_than_their_part() {
    let (guarded, certified) = secured(&[]);
    let node = guarded.home.start();
    // Twice as many as may be: half of them are refused at once, the others have their time.
    let mut slow: Vec<TcpStream> = (0..2 * MAX_HANDSHAKES_OF_ADDRESS)
        .map(|n| {
            let mut stream = http::connect(node.addr);
            // Some say nothing at all, some a byte of what would be a handshake.
            let said = if n % 2 == 0 { &[][..] } else { &[0x16] };
            stream.write_all(said).expect("sent");
            stream
        })
        .collect();
    let begun = Instant::now();
    assert!(slow.iter_mut().all(is_closed_by_node), "all of them are closed");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    eventually("there is room again", || connect(&node, &guarded.admin, Some(certified.trusted())).is_ok());
    // What is no handshake of TLS behind its first byte.
    let mut hostile = http::connect(node.addr);
    hostile.write_all(&[&[0x16, 3, 1, 0x40, 0][..], &[7; 9000]].concat()).expect("sent");
    assert!(is_closed_by_node(&mut hostile));
    // One who has shaken hands and says nothing more loses his connection as he would in the clear.
    let mut silent = stream(node.addr, &certified.trusted());
    let told = ask(&mut silent, b"", "until it is closed");
    assert!(told.len() < 4096, "the last words of the node, and its end");
    assert!(connect(&node, &guarded.admin, Some(certified.trusted())).is_ok());
    assert!(node.stop().success());
}

#[test]
fn limits_of_an_address_count_the_clients_own() {
    let home = Home::with(&[
        "--size",
        "128MiB",
        "--shards",
        "1",
        "--memory",
        "64MiB",
        "--client-connections",
        "2",
        "--tls-cert",
        "node-cert.pem",
        "--tls-key",
        "node-key.pem",
    ]);
    let certified = Certified::make(&home, "node", &["127.0.0.1"], 2099);
    let node = home.start();
    let open = || connect(&node, "", Some(certified.trusted()));
    let held = [open().expect("the first"), open().expect("the second")];
    let refused = open().err().expect("one more");
    let is_too_many = matches!(
        refused,
        ConnectError::Refused {
            source: ConnectionError::Refused { status: Status::TooManyConnections, .. },
            ..
        }
    );
    assert!(is_too_many, "{refused}");
    drop(held);
    eventually("there is room again", || open().is_ok());
    assert!(node.stop().success());
}

#[test]
fn a_new_certificate_counts_from_the_next_handshake_and_a_bad_one_not_at_all() {
    let (guarded, first) = secured(&[]);
    let second = Certified::make(&guarded.home, "second", &["127.0.0.1"], 2021);
    let node = guarded.home.start();
    let (old, new) = (first.trusted(), second.trusted());
    let mut open = stream(node.redis_addr(), &old);
    assert_eq!(ask(&mut open, format!("AUTH {}\r\n", guarded.admin).as_bytes(), "\r\n"), "+OK\r\n");
    let good = fs::read(&first.key).expect("there");

    fs::copy(&second.key, &first.key).expect("copied");
    hang_up(&node);
    eventually("the node says that the two do not belong together", || {
        node.log()
            .iter()
            .any(|line| line.contains("is not that of the certificate") && line.contains("stays as it was"))
    });
    assert!(connect(&node, &guarded.admin, Some(old.clone())).is_ok(), "as before");
    fs::write(&first.key, good).expect("written");

    fs::copy(&second.key, &first.key).expect("copied");
    fs::copy(&second.cert, &first.cert).expect("copied");
    hang_up(&node);
    eventually("it shows the new one", || match connect(&node, &guarded.admin, Some(new.clone())).err() {
        Some(ConnectError::Tls { reason, .. }) => reason.contains("xpired"),
        other => panic!("it ended long ago: {other:?}"),
    });
    assert!(connect(&node, &guarded.admin, Some(old)).is_err());
    assert!(node.log().iter().any(|line| line.contains("WARN") && line.contains("has ended")));
    assert_eq!(ask(&mut open, b"PING\r\n", "\r\n"), "+PONG\r\n", "connections that are open go on");
    assert!(node.stop().success());
}

#[test]
fn what_cannot_be_used_is_told_before_anything_is_made() {
    let home = Home::with(&["--size", "128MiB", "--shards", "1", "--memory", "64MiB"]);
    let (one, other) = (
        Certified::make(&home, "one", &["127.0.0.1"], 2099),
        Certified::make(&home, "other", &["127.0.0.1"], 2099),
    );
    let empty = home.drive().with_file_name("empty.pem");
    fs::write(&empty, "").expect("written");
    let nowhere = PathBuf::from("nowhere.pem");
    let started = |cert: &PathBuf, key: &PathBuf| {
        let output =
            home.command().arg("--tls-cert").arg(cert).arg("--tls-key").arg(key).output().expect("run");
        assert!(!output.status.success() && !home.drive().exists());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for (cert, key, told) in [
        (&nowhere, &one.key, "cannot read the certificate nowhere.pem"),
        (&one.cert, &nowhere, "cannot read the private key nowhere.pem"),
        (&empty, &one.key, "there is no certificate in "),
        (&one.cert, &one.cert, "there is no private key in "),
        (&one.cert, &other.key, "is not that of the certificate"),
    ] {
        let error = started(cert, key);
        assert!(error.contains(told), "{told}: {error}");
    }
    let mut command = home.command();
    let output = command.arg("--tls-cert").arg(&one.cert).output().expect("run");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("--tls-cert needs its private key"),
        "{output:?}"
    );
    // Open to everybody: told, and the node goes on.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(&one.key, open).expect("set");
    let mut command = home.command();
    command.arg("--tls-cert").arg(&one.cert).arg("--tls-key").arg(&one.key);
    let node = home.start_with(command);
    assert!(node.log().iter().any(|line| line.contains("WARN") && line.contains("open to everybody")));
    assert!(node.stop().success());
}
