//! What clients ask for and never read stays within the node's memory, and others are served meanwhile.

use std::io::Write;
use std::time::{Duration, Instant};

use lode_net::client::ClientOptions;
use lode_net::wire::{PartitionMap, RangeView, RequestView, ScanView};
use lode_tests::node::Home;
use lode_tests::table;
use lode_tests::wire::Wire;

const MEMORY: u64 = 192 << 20;
const DEAF: usize = 24;
const ASKED: usize = 400;

#[test]
fn answers_that_nobody_reads_stay_within_the_memory() {
    let home = Home::with(&["--size", "1GiB", "--shards", "2", "--memory", "192MiB"]);
    let node = home.start();
    let mut client = node
        .client_with(ClientOptions { request_timeout: Duration::from_secs(30), ..ClientOptions::default() });
    client.create_table(table::durable("t", 2)).unwrap();
    for number in 0..64u8 {
        client.put("t", &[number], &vec![number; 1 << 20]).unwrap();
    }
    let mut deaf = Vec::new();
    for number in 0..DEAF {
        // A crowded node may put a new connection off; then there is one less.
        let Ok(mut wire) = Wire::try_open(node.addr) else { continue };
        let Some(map) = wire.hello.map.clone() else { continue };
        let map = PartitionMap::new(map).unwrap();
        let target = map.table("t").unwrap().route(b"k").unwrap().target;
        let mut asked = Vec::new();
        for turn in 0..ASKED {
            let range = RangeView { start: &[(turn % 64) as u8], end: None };
            let scan = ScanView {
                range,
                reverse: false,
                keys_only: false,
                ttls: false,
                limit: 4096,
                byte_budget: 4 << 20,
            };
            let request = match number % 3 {
                0 => RequestView::Get { target, key: &[(turn % 64) as u8] },
                1 => RequestView::Scan { target, scan },
                _ => RequestView::Map,
            };
            asked.extend(wire.encode(&request));
        }
        wire.stream.write_all(&asked).ok();
        deaf.push(wire);
    }
    let mut turn = 0;
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        turn = (turn + 1) % 64;
        assert_eq!(client.get("t", &[turn]).unwrap().expect("it was written").value.len(), 1 << 20);
    }
    assert!(deaf.len() > 2, "{} were let in", deaf.len());
    let most = node.most_resident_bytes();
    // The program itself and all.
    assert!(most < MEMORY, "{most} bytes resident of {MEMORY}");
}
