//! A client that misbehaves loses its own connection, and nobody else notices.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use lode_net::client::blocking::Client;
use lode_net::wire::{Condition, RequestView, Status, Ttl};
use lode_tests::node::{Home, Node};
use lode_tests::table;
use lode_tests::value::{self, Dice};
use lode_tests::wire::{Wire, is_closed_by_node, socket};

const TABLE: &str = "t";

fn node_with_table(home: &Home) -> Node {
    let node = home.start();
    node.client().create_table(table::durable(TABLE, 8)).expect("the table is new");
    node
}

/// A good client that reads and writes all the while, and must not see a single error.
struct Bystander {
    stop: Arc<AtomicBool>,
    requests: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Bystander {
    fn start(node: &Node) -> Bystander {
        let mut client = node.client();
        let (stop, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&requests));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let number = counted.load(Ordering::Relaxed);
                put_and_get(&mut client, number);
                counted.store(number + 1, Ordering::Relaxed);
            }
        });
        Bystander { stop, requests, thread }
    }

    /// Ends it, once it has been served again after all that misbehaviour.
    fn finish(self) {
        let seen = self.requests.load(Ordering::Relaxed);
        while self.requests.load(Ordering::Relaxed) < seen + 20 && !self.thread.is_finished() {
            thread::yield_now();
        }
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a bystander notices nothing");
    }
}

fn put_and_get(client: &mut Client, number: u64) {
    let key = format!("bystander {}", number % 100).into_bytes();
    client.put(TABLE, &key, &value::make(&key, number, 500)).expect("a bystander's put");
    let record = client.get(TABLE, &key).expect("a bystander's get").expect("it was just written");
    assert_eq!(value::version(&key, &record.value), Some(number));
}

/// Sends bytes on a socket; the node may have closed it before all are taken.
fn send(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes);
}

fn garbage(seed: u64, len: usize) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    (0..len).map(|_| dice.roll() as u8).collect()
}

#[test]
fn garbage_ends_its_own_connection() {
    let home = Home::new();
    let node = node_with_table(&home);
    let bystander = Bystander::start(&node);
    for seed in 0..50 {
        let mut stranger = socket(node.addr);
        send(&mut stranger, &garbage(seed, 1 << (seed % 18)));
        // What may still be the beginning of a frame is waited for; a stranger that closes is forgotten.
        stranger.shutdown(std::net::Shutdown::Write).ok();
        assert!(is_closed_by_node(&mut stranger), "garbage of seed {seed}");
        let mut insider = Wire::open(node.addr);
        send(&mut insider.stream, &garbage(seed, 64 << 10));
        assert!(is_closed_by_node(&mut insider.stream), "garbage of seed {seed} after Hello");
    }
    bystander.finish();
}

#[test]
fn a_damaged_or_oversize_frame_ends_its_own_connection() {
    let home = Home::new();
    let node = node_with_table(&home);
    let bystander = Bystander::start(&node);
    let mut good = Wire::open(node.addr);
    let target = good.map().table(TABLE).unwrap().route(b"k").unwrap().target;
    let put = RequestView::Put {
        target,
        key: b"k",
        value: b"value",
        condition: Condition::Always,
        ttl: Ttl::Table,
    };
    let frame = good.encode(&put);
    for at in 0..frame.len() {
        // Each byte wrong in turn: a length that is now too long is one of them.
        let mut bad = frame.clone();
        bad[at] ^= 0x80;
        let mut wire = Wire::open(node.addr);
        send(&mut wire.stream, &bad);
        wire.stream.shutdown(std::net::Shutdown::Write).ok();
        assert!(is_closed_by_node(&mut wire.stream), "byte {at}");
    }
    let mut wire = Wire::open(node.addr);
    let mut oversize = frame.clone();
    oversize[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    send(&mut wire.stream, &oversize);
    assert!(is_closed_by_node(&mut wire.stream), "the node waits for 4 GiB");
    let mut early = socket(node.addr);
    send(&mut early, &frame);
    assert!(is_closed_by_node(&mut early), "a request before Hello was let through");
    assert_eq!(good.ask(&RequestView::Get { target, key: b"k" }).status(), Status::NotFound);
    bystander.finish();
}

/// One test for three kinds of it: each takes as long as the protocol gives a silent peer.
#[test]
fn whoever_stalls_loses_its_own_connection_and_holds_nothing() {
    let home = Home::new();
    let node = node_with_table(&home);
    let large = vec![9; 1 << 20];
    for number in 0..16 {
        node.client().put(TABLE, format!("large {number}").as_bytes(), &large).unwrap();
    }
    let bystander = Bystander::start(&node);
    let mut patient = Wire::open(node.addr);
    let mut waits: Vec<JoinHandle<bool>> = (0..4).map(|_| deaf_client(node.addr)).collect();
    // Nothing at all, and half of a large request.
    let mut halfway = Wire::open(node.addr);
    let target = halfway.map().table(TABLE).unwrap().route(b"k").unwrap().target;
    let value = vec![0; 100_000];
    let put =
        RequestView::Put { target, key: b"k", value: &value, condition: Condition::Always, ttl: Ttl::Table };
    let frame = halfway.encode(&put);
    send(&mut halfway.stream, &frame[..frame.len() / 2]);
    for mut stream in [socket(node.addr), halfway.stream] {
        waits.push(thread::spawn(move || is_closed_by_node(&mut stream)));
    }
    for wait in waits {
        assert!(wait.join().unwrap(), "the node goes on waiting");
    }
    // What the unread replies held is free again: large values can be read by others, many at once.
    let mut client = node.client();
    for number in 0..64 {
        let record = client.get(TABLE, format!("large {}", number % 16).as_bytes()).unwrap();
        assert_eq!(record.expect("written").value.len(), 1 << 20);
    }
    assert!(client.get(TABLE, b"k").unwrap().is_none(), "half a request was carried out");
    // Silence between requests is nobody's fault.
    assert_eq!(patient.ask(&RequestView::Ping { payload: b"still here" }).status(), Status::Ok);
    bystander.finish();
}

/// Asks for 256 MiB, again and again, and reads nothing until the node has given up.
fn deaf_client(addr: SocketAddr) -> JoinHandle<bool> {
    let mut wire = Wire::open(addr);
    let table = wire.map().table(TABLE).expect("the map has the table").clone();
    let mut requests = Vec::new();
    for number in 0..256 {
        let key = format!("large {}", number % 16).into_bytes();
        let target = table.route(&key).expect("a hashed table holds every key").target;
        requests.extend(wire.encode(&RequestView::Get { target, key: &key }));
    }
    thread::spawn(move || {
        // The node's end is gone when a send fails: only then is anything read. What is refused as too much
        // is asked for again, or the sockets' own buffers might take all that is answered.
        for _ in 0..600 {
            if wire.stream.write_all(&requests).is_err() {
                return true;
            }
            thread::sleep(std::time::Duration::from_millis(100));
        }
        false
    })
}

#[test]
fn thousands_of_connections_come_and_go() {
    let home = Home::new();
    let node = node_with_table(&home);
    let bystander = Bystander::start(&node);
    let files = node.open_files();
    for wave in 0..3 {
        // Half of them say nothing, half shake hands, and all go without a word.
        let mut open = Vec::new();
        for number in 0..700 {
            let stream = if number % 2 == 0 { socket(node.addr) } else { Wire::open(node.addr).stream };
            open.push(stream);
        }
        drop(open);
        assert!(node.client().get(TABLE, b"nobody").unwrap().is_none(), "after wave {wave}");
    }
    // The last to go may still be on their way out.
    let gone = (0..200).any(|_| {
        thread::sleep(std::time::Duration::from_millis(50));
        node.open_files() <= files + 2
    });
    assert!(gone, "{} files are open, {files} were before", node.open_files());
    bystander.finish();
}
