//! What a node is after a stop and a start: the same.

use std::io::Read;

use lode_net::client::{Seq, Store};
use lode_tests::node::Home;
use lode_tests::{table, value};

fn key(number: u64) -> Vec<u8> {
    format!("{number:08}").into_bytes()
}

#[test]
fn records_tables_and_versions_come_back_after_a_stop() {
    let home = Home::new();
    let node = home.start();
    let mut client = node.client();
    client.create_table(table::durable("kept", 8)).unwrap();
    client.create_table(table::of_store("counters", Store::Memory, 2)).unwrap();
    client.create_table(table::durable("dropped", 4)).unwrap();
    let mut seqs: Vec<Seq> = Vec::new();
    for number in 0..500 {
        let value = value::make(&key(number), number, 700);
        seqs.push(client.put("kept", &key(number), &value).unwrap().seq);
    }
    for number in 0..100 {
        client.delete("kept", &key(number)).unwrap();
        client.put("counters", &key(number), b"1").unwrap();
        client.put("dropped", &key(number), b"gone").unwrap();
    }
    client.drop_table("dropped").unwrap();
    let before = client.list_tables().unwrap();
    drop(client);
    assert!(node.stop().success(), "SIGTERM is an orderly stop");

    let node = home.start();
    let mut client = node.client();
    for number in 0..500 {
        let record = client.get("kept", &key(number)).unwrap();
        if number < 100 {
            assert_eq!(record, None, "{number} was deleted");
        } else {
            let record = record.unwrap_or_else(|| panic!("{number} is lost"));
            assert_eq!(value::version(&key(number), &record.value), Some(number));
            assert_eq!(record.seq, seqs[number as usize]);
        }
    }
    assert_eq!(client.count("kept", &[], None).unwrap(), 400);
    assert_eq!(client.count("counters", &[], None).unwrap(), 0, "a memory table's records are not kept");
    let after = client.list_tables().unwrap();
    let names = |tables: &[lode_net::client::TableInfo]| -> Vec<(u32, String, u32)> {
        tables.iter().map(|t| (t.id, t.name.clone(), t.partitions)).collect()
    };
    assert_eq!(names(&after), names(&before));
    // Versions go on rising, and a table made anew is another table.
    let later = client.put("kept", &key(400), b"new").unwrap().seq;
    assert!(seqs.iter().all(|seq| *seq < later));
    let again = client.create_table(table::durable("dropped", 4)).unwrap();
    assert!(before.iter().all(|t| t.id != again.id), "an id is never used again");
    assert_eq!(client.count("dropped", &[], None).unwrap(), 0);
}

#[test]
fn a_node_takes_over_where_another_was_killed_again_and_again() {
    let home = Home::new();
    for round in 0..4u64 {
        let node = home.start();
        let mut client = node.client();
        if round == 0 {
            client.create_table(table::durable("t", 8)).unwrap();
        }
        assert_eq!(client.count("t", &[], None).unwrap(), round * 200);
        for number in round * 200..(round + 1) * 200 {
            client.put("t", &key(number), &value::make(&key(number), number, 1500)).unwrap();
        }
        node.kill();
    }
}

#[test]
fn two_nodes_never_open_one_drive() {
    let home = Home::new();
    let node = home.start();
    let mut second = home.command().spawn().unwrap();
    let mut words = String::new();
    second.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    let status = second.wait().unwrap();
    assert!(!status.success(), "a second node opened the drive:\n{words}");
    assert!(words.contains("in use") || words.contains("lock"), "it does not say why:\n{words}");
    node.client().create_table(table::durable("t", 1)).unwrap();
}
