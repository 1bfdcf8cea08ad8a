//! A GET that misses memory costs one device read, and its value is never copied on the way out.

use lode_tests::node::{Home, total};
use lode_tests::{table, value};

const RECORDS: u64 = 3000;

fn key(number: u64) -> Vec<u8> {
    format!("key {number:06}").into_bytes()
}

/// Small, odd, about a block, and many blocks.
fn value_of(number: u64) -> Vec<u8> {
    let len = match number % 10 {
        0 => 40,
        1 => 4096,
        2 => 9999,
        3 if number < 100 => 1 << 20,
        _ => 1024,
    };
    value::make(&key(number), number, len)
}

#[test]
fn a_cold_get_is_one_device_read_and_no_copy() {
    let home = Home::new();
    let node = home.start();
    let mut client = node.client();
    client.create_table(table::durable("t", 16)).unwrap();
    for number in 0..RECORDS {
        client.put("t", &key(number), &value_of(number)).unwrap();
    }
    assert!(node.stop().success());

    // A new process has nothing in its cache.
    let node = home.start();
    let mut client = node.client();
    let before = node.stats();
    for number in 0..RECORDS {
        let record = client.get("t", &key(number)).unwrap().expect("the record was written");
        assert_eq!(record.value, value_of(number));
    }
    let after = node.stats();
    let grown = |name: &str| total(&after, name) - total(&before, name);
    assert_eq!(grown("gets"), RECORDS);
    assert_eq!(grown("get_cache_hits"), 0, "nothing was read twice");
    assert_eq!(grown("get_device_reads"), RECORDS, "one device read for each");
    assert_eq!(grown("values_sent_from_device_buffer"), RECORDS);
    assert_eq!(grown("values_from_drive_buffers"), RECORDS);
    assert_eq!((grown("value_bytes_copied_to_reply"), grown("value_bytes_copied")), (0, 0));

    // What is read again comes from memory.
    for number in 0..100 {
        assert!(client.get("t", &key(number)).unwrap().is_some());
    }
    let again = node.stats();
    assert!(total(&again, "get_device_reads") - total(&after, "get_device_reads") <= 100);
}
