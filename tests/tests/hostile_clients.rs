//! A client that misbehaves loses its own connection, and nobody else notices.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lode_net::client::blocking::Client;
use lode_net::client::connection::{Connection, ConnectionError};
use lode_net::wire::limits::{FRAME_TIMEOUT_MS, HELLO_TIMEOUT_MS};
use lode_net::wire::{Condition, MapVersion, RequestView, Status, Ttl};
use lode_tests::node::{Home, Node, allow_many_files, total, until};
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
        Bystander::start_as(0, node)
    }

    /// Each of several has keys of its own.
    fn start_as(who: usize, node: &Node) -> Bystander {
        let mut client = node.client();
        let (stop, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&requests));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let number = counted.load(Ordering::Relaxed);
                put_and_get(&mut client, who, number);
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

fn put_and_get(client: &mut Client, who: usize, number: u64) {
    let key = format!("bystander {who} {}", number % 100).into_bytes();
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

/// How long a slow loris waits between two bytes.
const BETWEEN_BYTES: Duration = Duration::from_millis(250);
/// How long after its time a connection may be there, on a machine that does other things.
const LENIENCE: Duration = Duration::from_secs(15);

/// Sends these bytes one by one, and again from the first, and tells how long the node bore it.
fn slow_loris(mut stream: TcpStream, bytes: Vec<u8>) -> JoinHandle<Duration> {
    thread::spawn(move || {
        let from = Instant::now();
        stream.set_nonblocking(true).expect("a socket");
        for byte in bytes.iter().cycle() {
            let is_sent = stream.write_all(&[*byte]).is_ok();
            let ended = stream.read(&mut [0; 64 << 10]);
            let is_open = ended.map_or_else(|error| error.kind() == ErrorKind::WouldBlock, |count| count > 0);
            if !is_sent || !is_open || from.elapsed() > Duration::from_secs(75) {
                break;
            }
            thread::sleep(BETWEEN_BYTES);
        }
        from.elapsed()
    })
}

/// One test for five kinds of it: each takes as long as the protocol gives a silent peer, or one that sends byte by byte.
#[test]
fn whoever_stalls_loses_its_own_connection_and_holds_nothing() {
    let home = Home::new();
    let node = node_with_table(&home);
    put_all(&node, "large", 1 << 20);
    let bystander = Bystander::start(&node);
    let mut patient = Wire::open(node.addr);
    let mut waits: Vec<JoinHandle<bool>> = (0..4).map(|_| deaf_client(node.addr, "large")).collect();
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
    // Some are never silent for long, and never done: each byte comes in time, the whole does not.
    let hello = Connection::<()>::new("a client with a name that takes long to tell", 0, MapVersion(0))
        .output()
        .to_vec();
    assert!(BETWEEN_BYTES * hello.len() as u32 > Duration::from_millis(HELLO_TIMEOUT_MS) + LENIENCE);
    let before_hello: Vec<_> = (0..8).map(|_| slow_loris(socket(node.addr), hello.clone())).collect();
    let within_a_frame: Vec<_> =
        (0..8).map(|_| slow_loris(Wire::open(node.addr).stream, frame.clone())).collect();
    for wait in waits {
        assert!(wait.join().unwrap(), "the node goes on waiting");
    }
    for (slow, least_ms) in [(before_hello, HELLO_TIMEOUT_MS), (within_a_frame, FRAME_TIMEOUT_MS)] {
        let least = Duration::from_millis(least_ms);
        for borne in slow.into_iter().map(|slow| slow.join().unwrap()) {
            assert!(borne > least - BETWEEN_BYTES && borne < least + LENIENCE, "{borne:?} of {least:?}");
        }
    }
    assert!(node.total("closed_silent") >= 18, "{} were told to be too slow", node.total("closed_silent"));
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

#[test]
fn half_sent_requests_of_many_make_way_for_whole_ones() {
    let home = Home::with(&["--size", "1GiB", "--shards", "2", "--memory", "128MiB"]);
    let node = node_with_table(&home);
    let mut client = node.client();
    // More than there is memory for such, on each shard: each is whole but for its last bytes.
    let value = vec![7; 1_000_000];
    let halfway: Vec<_> = (0..24)
        .map(|number| {
            let mut wire = Wire::open(node.addr);
            let key = format!("half {number}").into_bytes();
            let target = wire.map().table(TABLE).expect("made").route(&key).expect("hashed").target;
            let (condition, ttl) = (Condition::Always, Ttl::Table);
            let put = RequestView::Put { target, key: &key, value: &value, condition, ttl };
            let frame = wire.encode(&put);
            // What the node does not read stays in the sockets' own buffers, as far as those go.
            wire.stream.set_nonblocking(true).expect("a socket");
            let _ = wire.stream.write(&frame[..frame.len() - 10]);
            wire.stream.set_nonblocking(false).expect("a socket");
            wire.stream
        })
        .collect();
    let mut unlucky = node.client();
    let honest = thread::spawn(move || {
        for number in 0..20 {
            let key = format!("whole {number}").into_bytes();
            unlucky.put(TABLE, &key, &vec![number; 200_000]).expect("a whole request is served");
        }
    });
    honest.join().expect("nobody else notices");
    for number in 0..20 {
        let key = format!("whole {number}").into_bytes();
        let record = client.get(TABLE, &key).expect("served").expect("written");
        assert_eq!(*record.value, vec![number; 200_000]);
    }
    drop(halfway);
}

/// Values to ask for.
fn put_all(node: &Node, name: &str, bytes: usize) {
    let mut client = node.client();
    for number in 0..16 {
        client.put(TABLE, format!("{name} {number}").as_bytes(), &vec![9; bytes]).expect("there is room");
    }
}

/// So many, or as many as the environment says.
fn how_many(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).map_or(otherwise, |number| number.parse().expect("a number"))
}

/// `LODE_FLOODERS=300 LODE_BYSTANDERS=20` for the whole flood.
#[test]
fn a_flood_of_clients_that_never_read_is_cut_off_and_what_it_held_comes_back() {
    let home = Home::with(&["--size", "1GiB", "--shards", "2", "--memory", "192MiB"]);
    let node = node_with_table(&home);
    let (flooders, bystanders) = (how_many("LODE_FLOODERS", 40), how_many("LODE_BYSTANDERS", 4));
    put_all(&node, "large", 1 << 20);
    put_all(&node, "small", 2000);
    let good: Vec<_> = (0..bystanders).map(|who| Bystander::start_as(who, &node)).collect();
    let name = |number| if number % 2 == 0 { "small" } else { "large" };
    let floods: Vec<_> = (0..flooders).map(|number| deaf_client(node.addr, name(number))).collect();
    for flood in floods {
        assert!(flood.join().unwrap(), "the node goes on waiting");
    }
    let resident = node.most_resident_bytes();
    good.into_iter().for_each(Bystander::finish);
    // What it was told that it may take, the program itself and all.
    assert!(resident < 192 << 20, "{resident} bytes resident at most");
    // The last to go may still be on their way out.
    let mut held = String::new();
    let came_back = (0..600).any(|_| {
        thread::sleep(std::time::Duration::from_millis(50));
        let stats = node.stats();
        let of = |name| total(&stats, name);
        held = format!("{} of {} bytes free", of("buffer_bytes_free"), of("buffer_bytes"));
        let is_free = of("buffer_bytes_free") == of("buffer_bytes") && of("reply_bytes") == 0;
        is_free && of("connections") < 10 && of("requests_parked") == 0
    });
    assert!(came_back, "{held}: {}", node.stats()["totals"]);
    let stats = node.stats();
    let cut_off = ["closed_deaf", "closed_overload"].map(|name| total(&stats, name));
    println!("cut off: {cut_off:?}, {resident} bytes resident, busy {}", total(&stats, "busy"));
    assert!(cut_off.iter().sum::<u64>() >= flooders as u64, "{cut_off:?}");
}

/// A crowded node puts those off who come new.
fn open_patiently(addr: SocketAddr) -> Wire {
    let tries = (0..1200).find_map(|_| {
        Wire::try_open(addr).ok().or_else(|| {
            thread::sleep(std::time::Duration::from_millis(50));
            None
        })
    });
    tries.expect("a node is not crowded for ever")
}

/// Asks for 256 values, again and again, and reads nothing until the node has given up.
fn deaf_client(addr: SocketAddr, name: &str) -> JoinHandle<bool> {
    let mut wire = open_patiently(addr);
    let table = wire.map().table(TABLE).expect("the map has the table").clone();
    let mut requests = Vec::new();
    for number in 0..256 {
        let key = format!("{name} {}", number % 16).into_bytes();
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

/// What of a node's connections may be those of the test's own clients.
const OWN_CONNECTIONS: usize = 16;

#[test]
fn a_node_serves_as_many_connections_as_it_may_have_and_refuses_more() {
    // Both ends are of one machine; its limit may be low.
    let most = allow_many_files().saturating_sub(500).min(3000) as usize;
    let home = Home::with(&["--size", "256MiB", "--shards", "2", "--memory", "160MiB"]);
    let mut command = home.command();
    command.args(["--max-connections", &most.to_string()]);
    let node = home.start_with(command);
    node.client().create_table(table::durable(TABLE, 8)).expect("the table is new");
    let bystander = Bystander::start(&node);
    let mut observer = node.client();
    let mut held = Vec::new();
    while let Ok(wire) = Wire::try_open(node.addr) {
        held.push(wire);
        assert!(held.len() <= most, "{} connections of {most}", held.len());
    }
    assert!(held.len() + OWN_CONNECTIONS >= most, "{} connections of {most}", held.len());
    // Whoever is in is served; whoever comes is told why he is not.
    for _ in 0..300 {
        let Err(ConnectionError::Refused { status, .. }) = Wire::try_open(node.addr) else {
            panic!("a connection was let in where there are {} of {most}", held.len());
        };
        assert_eq!(status, Status::TooManyConnections);
    }
    for wire in held.iter_mut().step_by(7) {
        assert_eq!(wire.ask(&RequestView::Ping { payload: b"in" }).status(), Status::Ok);
    }
    assert!(node.resident_bytes() < 160 << 20, "{} bytes resident", node.resident_bytes());
    drop(held);
    // They are on their way out.
    until("all who have gone are gone", || {
        let open = observer.stats().expect("it is in")["totals"]["connections"].as_u64()?;
        (open <= OWN_CONNECTIONS as u64).then_some(())
    });
    Wire::open(node.addr);
    bystander.finish();
}
