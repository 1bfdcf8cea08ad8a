//! A request that comes to the wrong shard is served all the same, and one by an old map is told so.

use lode_net::wire::{Condition, Epoch, PartitionId, PartitionMap, RequestView, Status, Target, Ttl};
use lode_tests::node::Home;
use lode_tests::table;
use lode_tests::wire::Wire;

fn make_table(client: &mut lode_net::client::blocking::Client, name: &str) {
    client.create_table(table::durable(name, 16)).expect("the table is new");
}

#[test]
fn every_shard_serves_the_records_of_every_other() {
    let home = Home::new();
    let node = home.start();
    make_table(&mut node.client(), "t");
    let shards = Wire::open(node.addr).hello.shards.len() as u16;
    assert_eq!(shards, 2);
    let hops_before = node.total("hops_out");
    let mut foreign = 0;
    for at in 0..shards {
        let mut wire = Wire::open_shard(node.addr, at);
        let map = wire.map();
        let table = map.table("t").expect("the map has the table");
        for number in 0..200u32 {
            let key = format!("{at} {number}");
            let route = table.route(key.as_bytes()).expect("a hashed table holds every key");
            foreign += u64::from(route.shard.0 != at);
            let (target, key, value) = (route.target, key.as_bytes(), key.as_bytes());
            let put = RequestView::Put { target, key, value, condition: Condition::Always, ttl: Ttl::Table };
            assert_eq!(wire.ask(&put).status(), Status::Ok);
            let got = wire.ask(&RequestView::Get { target, key });
            assert_eq!((got.status(), got.view().body), (Status::Ok, value));
        }
    }
    assert!(foreign > 0, "no request was for another shard");
    assert_eq!(node.total("hops_out") - hops_before, 2 * foreign, "each of those hopped, and no other");
}

#[test]
fn a_large_value_hops_whole() {
    let home = Home::new();
    let node = home.start();
    make_table(&mut node.client(), "t");
    let value: Vec<u8> = (0..1 << 20).map(|i: u32| (i % 251) as u8).collect();
    for at in 0..2 {
        let mut wire = Wire::open_shard(node.addr, at);
        let map = wire.map();
        for number in 0..8u32 {
            let key = format!("large {number}");
            let target = map.table("t").unwrap().route(key.as_bytes()).unwrap().target;
            let put = RequestView::Put {
                target,
                key: key.as_bytes(),
                value: &value,
                condition: Condition::Always,
                ttl: Ttl::Table,
            };
            assert_eq!(wire.ask(&put).status(), Status::Ok);
            let got = wire.ask(&RequestView::Get { target, key: key.as_bytes() });
            assert_eq!((got.status(), got.body.as_ref() == value), (Status::Ok, true));
        }
    }
}

#[test]
fn an_old_map_is_answered_with_the_new_one() {
    let home = Home::new();
    let node = home.start();
    let mut client = node.client();
    make_table(&mut client, "first");
    let mut wire = Wire::open(node.addr);
    let old = wire.map();
    let route = old.table("first").unwrap().route(b"k").unwrap();
    client.drop_table("first").unwrap();
    make_table(&mut client, "second");

    let stale = wire.ask(&RequestView::Get { target: route.target, key: b"k" });
    assert_eq!(stale.status(), Status::StaleMap);
    let new = stale.view().map_body().expect("the first stale answer carries the map");
    let new = lode_net::wire::control::MapBody::from_bytes(new).expect("the map can be read");
    let new = PartitionMap::new(new).expect("the map is sound");
    assert!(new.table("first").is_none());
    let target = new.table("second").unwrap().route(b"k").unwrap().target;
    assert_eq!(wire.ask(&RequestView::Get { target, key: b"k" }).status(), Status::NotFound);

    let wrong_epoch = Target { epoch: Epoch(target.epoch.0 + 1), ..target };
    assert_eq!(wire.ask(&RequestView::Get { target: wrong_epoch, key: b"k" }).status(), Status::StaleMap);
    let nowhere = Target { partition: PartitionId(u32::MAX), ..target };
    assert_eq!(wire.ask(&RequestView::Get { target: nowhere, key: b"k" }).status(), Status::StaleMap);
}
