//! A full drive says so, keeps what it has, and takes writes again once there is room.

use lode_net::client::blocking::Client;
use lode_net::client::{Batch, BatchError, WriteError};
use lode_tests::node::Home;
use lode_tests::{table, value};

const VALUE_BYTES: usize = 200_000;

fn key(number: u64) -> Vec<u8> {
    format!("{number:08}").into_bytes()
}

fn make_table(client: &mut Client, name: &str) {
    client.create_table(table::durable(name, 8)).expect("the table is new, and the catalog has room");
}

/// Writes records from `first` on until the drive is full; gives the first that was refused.
fn fill(client: &mut Client, table: &str, first: u64) -> u64 {
    for number in first.. {
        let value = value::make(&key(number), number, VALUE_BYTES);
        match client.put(table, &key(number), &value) {
            Ok(_) => {}
            Err(WriteError::Full { live_bytes }) => {
                assert!(live_bytes > 0);
                return number;
            }
            Err(error) => panic!("record {number}: {error}"),
        }
        assert!(number < first + 20_000, "the drive never fills");
    }
    unreachable!("the numbers do not end")
}

#[test]
fn a_full_drive_takes_deletes_and_drops_and_then_writes_again() {
    let home = Home::with(&["--size", "192MiB", "--shards", "1", "--memory", "128MiB"]);
    let node = home.start();
    let mut client = node.client();
    make_table(&mut client, "t");
    let full_at = fill(&mut client, "t", 0);
    let drive_bytes = 192u64 << 20;
    let live = full_at * VALUE_BYTES as u64;
    assert!(live > drive_bytes / 2, "full with {live} bytes on a drive of {drive_bytes}");

    // Everything else still works on a full drive.
    let batch = Batch::new().put(&key(0), &vec![0; VALUE_BYTES * 2]);
    assert!(matches!(client.batch("t", batch), Err(BatchError::Write(WriteError::Full { .. }))));
    for number in (0..full_at).step_by(20) {
        let record = client.get("t", &key(number)).unwrap().expect("the record was written");
        assert_eq!(value::version(&key(number), &record.value), Some(number));
    }
    for number in 0..full_at / 2 {
        assert!(client.delete("t", &key(number)).expect("a full drive takes deletes").existed);
    }
    let full_again_at = fill(&mut client, "t", full_at);
    assert!(full_again_at > full_at + full_at / 4, "the room of deleted records came back: {full_again_at}");

    // A drop frees space too, and the drive fills for ever without wearing out.
    client.drop_table("t").expect("a full drive takes drops");
    for round in 0..3 {
        let name = format!("t{round}");
        make_table(&mut client, &name);
        let full_at_again = fill_with_patience(&mut client, &name, full_at * 3 / 4);
        assert!(
            full_at_again >= full_at * 3 / 4,
            "round {round}: full at {full_at_again}, at first {full_at}"
        );
        client.drop_table(&name).unwrap();
    }

    // Nothing of it is lost or confused by a restart.
    make_table(&mut client, "last");
    for number in 0..100 {
        put_with_patience(&mut client, "last", number);
    }
    node.kill();
    let node = home.start();
    let mut client = node.client();
    assert_eq!(client.count("last", &[], None).unwrap(), 100);
    assert_eq!(client.list_tables().unwrap().len(), 1);
}

/// Space comes back lazily after a drop: a write that is refused for now is tried again.
fn put_with_patience(client: &mut Client, table: &str, number: u64) {
    for _ in 0..2000 {
        match client.put(table, &key(number), &value::make(&key(number), number, VALUE_BYTES)) {
            Ok(_) => return,
            Err(WriteError::Full { .. } | WriteError::Busy { .. }) => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            Err(error) => panic!("record {number}: {error}"),
        }
    }
    panic!("record {number}: the room of a dropped table does not come back");
}

fn fill_with_patience(client: &mut Client, table: &str, records: u64) -> u64 {
    for number in 0..records {
        put_with_patience(client, table, number);
    }
    records
}

#[test]
fn overwriting_goes_on_for_ever() {
    let home = Home::with(&["--size", "192MiB", "--shards", "1", "--memory", "128MiB"]);
    let node = home.start();
    let mut client = node.client();
    make_table(&mut client, "t");
    // 60 % live, then three times the drive in overwrites: only cleaning can make room for them.
    let records = (192 << 20) * 6 / 10 / VALUE_BYTES as u64;
    let mut dice = value::Dice::new(1);
    let mut versions = vec![0; records as usize];
    for number in 0..records {
        client.put("t", &key(number), &value::make(&key(number), 0, VALUE_BYTES)).unwrap();
    }
    for version in 1..=(3 * (192 << 20) / VALUE_BYTES as u64) {
        let number = dice.below(records);
        client.put("t", &key(number), &value::make(&key(number), version, VALUE_BYTES)).unwrap();
        versions[number as usize] = version;
    }
    for number in 0..records {
        let record = client.get("t", &key(number)).unwrap().expect("the record was written");
        assert_eq!(value::version(&key(number), &record.value), Some(versions[number as usize]));
    }
    assert!(node.total("segments_cleaned") > 0);
}
