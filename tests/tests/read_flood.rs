//! Many clients ask for much at once, and go away: the drive is kept free for those who stay.

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use lode_net::client::connection::ConnectionError;
use lode_net::client::{ClientOptions, ScanOptions};
use lode_net::wire::{PartitionMap, RangeView, RequestView, ScanView, Status};
use lode_tests::node::{Home, Node, total};
use lode_tests::table;
use lode_tests::wire::Wire;
use serde_json::Value;

const CLIENTS: usize = 120;
/// Large reads of each client: so many a connection may have in flight when buffers are short.
const READS: usize = 8;
const VALUE_BYTES: usize = 1 << 20;
const VALUES: u8 = 64;
/// Most bytes of a page.
const PAGE_BYTES: u32 = 4 << 20;

/// Clients whose requests are sent, and whose answers nobody reads.
fn flood(node: &Node, with: Asking) -> Vec<Wire> {
    let keys: Vec<_> = (0..VALUES).collect();
    ask_all(crowd(CLIENTS, || Wire::try_open(node.addr)), &keys, with)
}

/// What a flood asks for.
#[derive(Clone, Copy)]
enum Asking {
    Values,
    Pages,
}

/// Those of so many clients who are let in: a crowded node puts off who comes new, which is the only reason it may have.
fn crowd(clients: usize, open: impl Fn() -> Result<Wire, ConnectionError>) -> Vec<Wire> {
    let come = (0..clients).filter_map(|_| match open() {
        Ok(wire) => Some(wire),
        Err(ConnectionError::Refused { status: Status::NotReady, .. }) => None,
        Err(other) => panic!("a client is put off for another reason than the crowd: {other}"),
    });
    come.collect()
}

fn ask_all(wires: Vec<Wire>, keys: &[u8], with: Asking) -> Vec<Wire> {
    let ask = |(number, mut wire): (usize, Wire)| {
        let map: PartitionMap = wire.map();
        let mut asked = Vec::new();
        for turn in 0..READS {
            let key = [keys[(number * READS + turn) % keys.len()]];
            let target = map.table("t").expect("there is the table").route(&key).expect("covered").target;
            let range = RangeView { start: &[], end: None };
            let (limit, byte_budget) = (100, PAGE_BYTES);
            let scan = ScanView { range, reverse: false, keys_only: false, ttls: false, limit, byte_budget };
            asked.extend(wire.encode(&match with {
                Asking::Values => RequestView::Get { target, key: &key },
                Asking::Pages => RequestView::Scan { target, scan },
            }));
        }
        wire.stream.write_all(&asked).expect("the node takes requests");
        wire
    };
    wires.into_iter().enumerate().map(ask).collect()
}

#[test]
fn a_flood_of_large_reads_is_put_off_and_forgotten_when_its_clients_go() {
    let home = Home::with(&["--size", "1GiB", "--shards", "2", "--memory", "128MiB"]);
    let node = home.start();
    let patient = ClientOptions { request_timeout: Duration::from_secs(60), ..ClientOptions::default() };
    let mut client = node.client_with(patient);
    client.create_table(table::durable("t", 16)).unwrap();
    for number in 0..VALUES {
        client.put("t", &[number], &vec![number; VALUE_BYTES]).unwrap();
    }
    client.put("t", b"small", b"v").unwrap();

    let before = node.stats();
    let wires = flood(&node, Asking::Values);
    assert!(
        wires.len() > CLIENTS / 2,
        "{} of {CLIENTS} clients were let in by a node that was idle",
        wires.len()
    );
    let longest = (0..200).map(|_| {
        let begun = Instant::now();
        assert_eq!(client.get("t", b"small").unwrap().expect("it was written").value, b"v"[..]);
        begun.elapsed()
    });
    println!("the longest small read under the flood: {:?}", longest.max().unwrap_or_default());
    let gone = flood(&node, Asking::Values);
    for wire in wires.iter().chain(&gone) {
        // Some have been closed by the node, as they take nothing.
        wire.stream.shutdown(Shutdown::Both).ok();
    }
    drop((wires, gone));
    for number in 0..VALUES {
        assert_eq!(client.get("t", &[number]).unwrap().expect("written").value.len(), VALUE_BYTES);
    }
    let until = Instant::now() + Duration::from_secs(60);
    while node.total("requests_parked") > 0 {
        assert!(Instant::now() < until, "something waits for those who have gone");
    }
    let after = node.stats();
    let grown = |name| total(&after, name) - total(&before, name);
    println!("{} read, {} busy", grown("get_device_reads"), grown("busy"));
    assert!(grown("busy") + grown("answers_given_up") > 0, "nothing was put off");
}

/// Clients ask for large values and read none: what has no room on its way to them is refused, and not read first.
#[test]
fn large_values_whose_readers_take_nothing_are_not_read_to_be_thrown_away() {
    let home = Home::with(&["--size", "1GiB", "--shards", "2", "--memory", "128MiB"]);
    let node = home.start();
    let mut client = node.client();
    client.create_table(table::durable("t", 16)).expect("the node is empty");
    for number in 0..VALUES {
        client.put("t", &[number], &vec![number; VALUE_BYTES]).expect("there is room");
    }
    // How large they are is known before the flood.
    for number in (0..VALUES).chain(0..VALUES) {
        client.get("t", &[number]).expect("it is read").expect("it was written");
    }
    for _ in 0..4 {
        assert_eq!(client.scan("t", ScanOptions::default()).count(), usize::from(VALUES));
    }
    for (with, done) in [(Asking::Values, "gets"), (Asking::Pages, "scans")] {
        let before = node.stats();
        let wires = flood(&node, with);
        let asked = (wires.len() * READS) as u64;
        let after = settled(&node);
        let grown = |name| total(&after, name) - total(&before, name);
        let (read, given_up) = (grown(done), grown("answers_given_up"));
        println!("{asked} {done} asked, {read} done, {given_up} given up");
        assert!(given_up > asked / 4, "{given_up} of {asked} {done} given up: the test wants a flood");
        // A few of each shard were on their way when the room was taken.
        assert!(
            read + given_up < asked + asked / 8,
            "{asked} {done} asked, {read} done, {given_up} given up"
        );
    }
}

/// The node's counters when all that it was asked for is answered.
fn settled(node: &Node) -> Value {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let stats = node.stats();
        // Of those that are not answered one is this question.
        if total(&stats, "pending") <= 1 {
            return stats;
        }
        assert!(Instant::now() < until, "large reads wait for ever: {stats:#}");
    }
}

/// All ask shard 0 for what lies on shard 1, which reads nothing for those who go meanwhile: it is told of them.
#[test]
fn reads_of_another_shard_are_given_up_when_their_clients_go() {
    let home = Home::with(&["--size", "1GiB", "--shards", "2", "--memory", "128MiB"]);
    let node = home.start();
    let mut client = node.client();
    client.create_table(table::durable("t", 16)).expect("the node is empty");
    for number in 0..VALUES {
        client.put("t", &[number], &vec![number; VALUE_BYTES]).expect("there is room");
    }
    let map = Wire::open(node.addr).map();
    let shard_of = |key: u8| map.table("t").expect("it was made").route(&[key]).expect("covered").shard;
    let keys: Vec<u8> = (0..VALUES).filter(|key| shard_of(*key).0 == 1).collect();
    assert!(keys.len() > 10, "{} keys on shard 1", keys.len());
    // Before the engine or within it.
    let given_up = || {
        let stats = node.stats();
        let of = |name: &str| stats["shards"][1][name].as_u64().expect("a counter");
        of("requests_given_up") + of("reads_given_up")
    };
    // Shard 1 may be done with its queue before it is told; not every time.
    let told = (0..20).any(|_| {
        let wires = ask_all(crowd(CLIENTS / 2, || Wire::try_open_shard(node.addr, 0)), &keys, Asking::Values);
        wires.iter().for_each(|wire| drop(wire.stream.shutdown(Shutdown::Both)));
        drop(wires);
        client.get("t", &[keys[0]]).expect("others are served").expect("it was written");
        given_up() > 0
    });
    assert!(told, "shard 1 has read all that nobody wants");
}
