//! Scans, counts, least and greatest: the same as of a plain ordered map, for every store and placement.

use std::collections::BTreeMap;

use lode_net::client::blocking::Client;
use lode_net::client::{Placement, Quota, ScanOptions, Store, TableOptions};
use lode_tests::node::Home;
use lode_tests::value::{self, Dice};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Short, long, binary, and with much in common.
fn draw_key(dice: &mut Dice) -> Vec<u8> {
    let number = dice.below(250);
    match dice.below(4) {
        0 => number.to_be_bytes()[6..].to_vec(),
        1 => format!("user/{number:04}/profile").into_bytes(),
        2 => format!("{}{number}", "long ".repeat(50)).into_bytes(),
        _ => vec![0xff; number as usize % 7 + 1],
    }
}

fn fill(client: &mut Client, table: &str, seed: u64) -> Model {
    let mut dice = Dice::new(seed);
    let mut model = Model::new();
    for version in 0..900 {
        let key = draw_key(&mut dice);
        if dice.below(5) == 0 {
            let existed = client.delete(table, &key).expect("a delete is taken").existed;
            assert_eq!(existed, model.remove(&key).is_some());
        } else {
            let value = value::make(&key, version, dice.below(600) as usize);
            let existed = client.put(table, &key, &value).expect("a put is taken").existed;
            assert_eq!(existed, model.insert(key, value).is_some());
        }
    }
    model
}

fn expected(model: &Model, options: &ScanOptions) -> Vec<(Vec<u8>, Vec<u8>)> {
    let inside = |key: &Vec<u8>| *key >= options.start && options.end.as_ref().is_none_or(|end| key < end);
    let records = model
        .iter()
        .filter(|(key, _)| inside(key))
        .map(|(key, value)| (key.clone(), if options.keys_only { Vec::new() } else { value.clone() }));
    let mut records: Vec<_> = records.collect();
    if options.reverse {
        records.reverse();
    }
    records.truncate(options.limit.unwrap_or(u64::MAX) as usize);
    records
}

fn compare(client: &mut Client, table: &str, model: &Model, seed: u64) {
    let mut dice = Dice::new(seed);
    for round in 0..24 {
        let bounded = round % 3 > 0;
        let options = ScanOptions {
            start: if bounded { draw_key(&mut dice) } else { Vec::new() },
            end: (round % 2 == 0 && bounded).then(|| draw_key(&mut dice)),
            reverse: dice.below(2) == 0,
            limit: (dice.below(3) == 0).then(|| 1 + dice.below(50)),
            keys_only: dice.below(4) == 0,
            times: dice.below(2) == 0,
            // Pages from one record or one byte up.
            page_records: [1, 7, 512][dice.below(3) as usize],
            page_bytes: [1, 2000, 1 << 20][dice.below(3) as usize],
        };
        let found = client.scan(table, options.clone()).map(|record| {
            let record = record.expect("a scan goes to its end");
            (record.key.to_vec(), record.value.to_vec())
        });
        let found: Vec<_> = found.collect();
        assert_eq!(found, expected(model, &options), "{table}: {options:?}");
        let all = ScanOptions { limit: None, ..options };
        let count = client.count(table, &all.start, all.end.as_deref()).expect("a count is given");
        assert_eq!(count as usize, expected(model, &all).len(), "{table}: {all:?}");
    }
    let key_of = |record: Option<lode_net::client::ScanRecord>| record.map(|record| record.key.to_vec());
    assert_eq!(key_of(client.min(table).expect("a least is given")), model.keys().next().cloned());
    assert_eq!(key_of(client.max(table).expect("a greatest is given")), model.keys().next_back().cloned());
}

#[test]
fn every_store_and_placement_is_an_ordered_map() {
    let home = Home::new();
    let node = home.start();
    let mut client = node.client();
    let splits = || [b"l".to_vec(), b"user/0100".to_vec(), b"user/0200".to_vec(), vec![0xff, 0xff]].to_vec();
    let placements = [
        ("one", Placement::Hash { partitions: 1 }),
        ("hashed", Placement::Hash { partitions: 13 }),
        ("ranged", Placement::Range { splits: splits() }),
    ];
    let mut models = Vec::new();
    for (name, placement) in placements {
        for store in [Store::Durable, Store::Memory] {
            let name = format!("{name} {store:?}");
            let placement = placement.clone();
            client
                .create_table(TableOptions {
                    name: name.clone(),
                    store,
                    placement,
                    ttl: None,
                    quota: Quota::default(),
                })
                .unwrap();
            assert_eq!(client.min(&name).unwrap(), None);
            let model = fill(&mut client, &name, models.len() as u64);
            compare(&mut client, &name, &model, 7);
            models.push((name, store, model));
        }
    }
    node.kill();
    let node = home.start();
    let mut client = node.client();
    for (name, store, model) in &models {
        let model = if *store == Store::Durable { model.clone() } else { Model::new() };
        compare(&mut client, name, &model, 8);
    }
}
