//! Partitions are cheap: no file, no thread, and little memory for each.

use lode_tests::node::Home;
use lode_tests::{table, value};

const PARTITIONS: u32 = 1500;
/// Partitions that nobody writes to, to weigh one.
const IDLE_PARTITIONS: u32 = 12_000;
/// What an idle partition may weigh.
const MOST_BYTES_EACH: u64 = 4096;

fn key(number: u32) -> Vec<u8> {
    format!("tenant {number:06}").into_bytes()
}

#[test]
fn a_thousand_and_a_half_partitions_take_no_file_and_no_thread() {
    let home = Home::new();
    let node = home.start();
    let mut client = node.client();
    client.create_table(table::durable("first", 1)).unwrap();
    client.put("first", b"k", b"v").unwrap();
    let (files, threads) = (node.open_files(), node.threads());

    client.create_table(table::durable("many", PARTITIONS)).unwrap();
    // So many keys that nearly every partition has some.
    for number in 0..PARTITIONS * 6 {
        client.put("many", &key(number), &value::make(&key(number), u64::from(number), 100)).unwrap();
    }
    assert_eq!((node.open_files(), node.threads()), (files, threads));
    assert_eq!(node.total("partitions"), u64::from(PARTITIONS) + 1);
    assert!(node.stop().success());

    let node = home.start();
    let mut client = node.client();
    assert_eq!(client.count("many", &[], None).unwrap(), u64::from(PARTITIONS) * 6);
    for number in (0..PARTITIONS * 6).step_by(7) {
        let record = client.get("many", &key(number)).unwrap().expect("the record was written");
        assert_eq!(value::version(&key(number), &record.value), Some(u64::from(number)));
    }
    assert_eq!((node.open_files(), node.threads()), (files, threads));
}

#[test]
fn an_idle_partition_weighs_little() {
    let home = Home::new();
    let node = home.start();
    let mut client = node.client();
    // The first large table also grows buffers that stay; the second shows what partitions weigh.
    client.create_table(table::durable("warm", IDLE_PARTITIONS)).unwrap();
    let (resident, index) = (node.resident_bytes(), node.total("index_bytes"));
    client.create_table(table::durable("idle", IDLE_PARTITIONS)).unwrap();
    let each = |before: u64, after: u64| after.saturating_sub(before) / u64::from(IDLE_PARTITIONS);
    let resident_each = each(resident, node.resident_bytes());
    let index_each = each(index, node.total("index_bytes"));
    println!("an idle partition: {resident_each} bytes resident, {index_each} of index");
    assert!(resident_each < MOST_BYTES_EACH, "{resident_each} bytes resident for each partition");
    assert!(index_each < MOST_BYTES_EACH, "{index_each} bytes of index for each partition");
}
