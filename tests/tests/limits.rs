//! Limits at, below and above: what is above gets a typed error, and loses nothing.

use lode_engine::limits::MAX_PARTITIONS;
use lode_net::client::blocking::Client;
use lode_net::client::connection::ConnectionError;
use lode_net::client::{Batch, BatchError, GetError, ScanOptions, Store, TableError, WriteError};
use lode_net::wire::batch::{BATCH_PREFIX_BYTES, BATCH_WRITE_HEADER_BYTES};
use lode_net::wire::limits::{
    MAX_BATCH_BYTES, MAX_BATCH_WRITES, MAX_KEY_BYTES, MAX_SCAN_BYTES, MAX_SCAN_RECORDS, MAX_TABLE_NAME_BYTES,
    MAX_VALUE_BYTES,
};
use lode_net::wire::{RangeView, RequestView, ScanView, Status};
use lode_tests::node::{Home, allow_many_files};
use lode_tests::wire::Wire;
use lode_tests::{table, value};

/// A table of one partition, so that any batch fits in one.
fn single(client: &mut Client) {
    client.create_table(table::durable("t", 1)).expect("the table is new");
    client.put("t", b"witness", b"untouched").expect("an empty drive takes a record");
}

fn assert_untouched(client: &mut Client) {
    let witness = client.get("t", b"witness").expect("a get works").expect("the witness is there");
    assert_eq!(witness.value.as_ref(), b"untouched");
}

#[test]
fn keys() {
    let home = Home::new();
    let node = home.start();
    let mut client = node.client();
    single(&mut client);
    for len in [1, MAX_KEY_BYTES - 1, MAX_KEY_BYTES] {
        let key = vec![b'k'; len];
        client.put("t", &key, &value::make(&key, 1, 100)).unwrap();
        let record = client.get("t", &key).unwrap().expect("the record was written");
        assert_eq!(value::version(&key, &record.value), Some(1));
        assert!(client.delete("t", &key).unwrap().existed);
    }
    for len in [0, MAX_KEY_BYTES + 1, 60_000, 100_000] {
        let key = vec![b'k'; len];
        assert!(matches!(client.put("t", &key, b"v"), Err(WriteError::KeyLength { len: l }) if l == len));
        assert!(matches!(client.delete("t", &key), Err(WriteError::KeyLength { len: l }) if l == len));
        assert!(matches!(client.get("t", &key), Err(GetError::KeyLength { len: l }) if l == len));
        assert_untouched(&mut client);
    }
    assert_eq!(client.count("t", &[], None).unwrap(), 1);
}

#[test]
fn values() {
    let home = Home::new();
    let node = home.start();
    let mut client = node.client();
    single(&mut client);
    for len in [0, 1, MAX_VALUE_BYTES - 1, MAX_VALUE_BYTES] {
        let sent = vec![7; len];
        client.put("t", b"k", &sent).unwrap();
        assert_eq!(client.get("t", b"k").unwrap().expect("written").value, sent, "{len} bytes");
    }
    for len in [MAX_VALUE_BYTES + 1, MAX_VALUE_BYTES + 50_000, 3 * MAX_VALUE_BYTES] {
        let result = client.put("t", b"k", &vec![8; len]);
        assert!(matches!(result, Err(WriteError::ValueLength { len: l, .. }) if l == len), "{result:?}");
        assert_eq!(client.get("t", b"k").unwrap().expect("still there").value, vec![7; MAX_VALUE_BYTES]);
        assert_untouched(&mut client);
    }
}

/// A batch of so many writes and of the most bytes, and `more`.
fn full_batch(writes: usize, more: usize) -> Batch {
    let room =
        MAX_BATCH_BYTES + more - BATCH_PREFIX_BYTES - writes * BATCH_WRITE_HEADER_BYTES - b"last".len() - 5;
    let numbers = 0..writes - 1;
    let each = room / numbers.len() - 5;
    let first = room - numbers.len() * (each + 5) + each;
    let batch = numbers.fold(Batch::new(), |batch, number| {
        let len = if number == 0 { first } else { each };
        batch.put(format!("k{number:04}").as_bytes(), &vec![7; len])
    });
    batch.put(b"last", &[5; 5])
}

#[test]
fn batches() {
    let home = Home::new();
    let node = home.start();
    let mut client = node.client();
    single(&mut client);
    let batch_of = |writes: usize, value: &[u8]| {
        (0..writes).fold(Batch::new(), |batch, number| batch.put(format!("k{number}").as_bytes(), value))
    };
    for writes in [1, MAX_BATCH_WRITES - 1, MAX_BATCH_WRITES] {
        client.batch("t", batch_of(writes, b"v")).unwrap();
        assert_eq!(client.count("t", &[], None).unwrap(), 1 + writes as u64);
    }
    // As many bytes as a batch may have, in few writes and in many.
    for writes in [3, MAX_BATCH_WRITES] {
        let batch = full_batch(writes, 0);
        assert_eq!(batch.encoded_len(), MAX_BATCH_BYTES);
        client.batch("t", batch).unwrap();
        assert_eq!(client.get("t", b"last").unwrap().expect("written").value.as_ref(), [5; 5]);
        assert!(client.delete("t", b"last").unwrap().existed);
    }
    let before = client.count("t", &[], None).unwrap();
    for batch in [
        Batch::new(),
        batch_of(MAX_BATCH_WRITES + 1, b"w"),
        batch_of(300, &[0; 4000]),
        full_batch(3, 1),
        full_batch(MAX_BATCH_WRITES, 1),
        Batch::new().put(b"a", b"w").put(b"b", &vec![0; MAX_VALUE_BYTES + 1]),
        Batch::new().put(b"a", b"w").put(&[b'k'; MAX_KEY_BYTES + 1], b"w"),
    ] {
        let (writes, bytes) = (batch.len(), batch.encoded_len());
        let result = client.batch("t", batch);
        let typed = matches!(
            result,
            Err(BatchError::Size { .. }
                | BatchError::Write(WriteError::ValueLength { .. } | WriteError::KeyLength { .. }))
        );
        assert!(typed, "{writes} writes, {bytes} bytes: {result:?}");
        assert_eq!(client.count("t", &[], None).unwrap(), before);
        assert_eq!(client.get("t", b"a").unwrap(), None, "a part of a refused batch was written");
        assert_untouched(&mut client);
    }
}

#[test]
fn pages_of_a_scan() {
    let home = Home::new();
    let node = home.start();
    let mut client = node.client();
    single(&mut client);
    let mut wire = Wire::open(node.addr);
    let target = wire.map().table("t").unwrap().route(b"witness").unwrap().target;
    let mut ask = |limit, byte_budget| {
        let scan = ScanView {
            range: RangeView::default(),
            reverse: false,
            keys_only: false,
            ttls: false,
            limit,
            byte_budget,
        };
        wire.ask(&RequestView::Scan { target, scan }).status()
    };
    for (limit, bytes) in [(1, 1), (MAX_SCAN_RECORDS, MAX_SCAN_BYTES)] {
        assert_eq!(ask(limit, bytes), Status::Ok);
    }
    for (limit, bytes) in [(0, 1), (1, 0), (MAX_SCAN_RECORDS + 1, 1), (1, MAX_SCAN_BYTES + 1)] {
        assert_eq!(ask(limit, bytes), Status::ScanLimits, "{limit} records, {bytes} bytes");
    }
    let all = client.scan("t", ScanOptions::default()).collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(all.len(), 1);
}

#[test]
fn tables_and_partitions() {
    let home = Home::with(&["--size", "1GiB", "--shards", "1", "--memory", "512MiB"]);
    let node = home.start();
    let mut client = node.client();
    single(&mut client);
    for len in [1, MAX_TABLE_NAME_BYTES] {
        client.create_table(table::durable(&"n".repeat(len), 1)).unwrap();
    }
    for len in [0, MAX_TABLE_NAME_BYTES + 1] {
        let result = client.create_table(table::durable(&"n".repeat(len), 1));
        assert!(matches!(result, Err(TableError::NameLength(_))), "{result:?}");
    }
    let result = client.create_table(table::durable("t", 1));
    assert!(matches!(result, Err(TableError::TableExists(_))), "{result:?}");
    let result = client.create_table(table::durable("none", 0));
    assert!(result.is_err(), "a table without partitions was made");
    let result = client.drop_table("nobody");
    assert!(matches!(result, Err(TableError::UnknownTable(_))), "{result:?}");
    assert_untouched(&mut client);
}

#[test]
fn partitions_of_a_shard() {
    let home = Home::with(&["--size", "1GiB", "--shards", "1", "--memory", "512MiB"]);
    let node = home.start();
    let mut client = node.client();
    single(&mut client);
    let most = MAX_PARTITIONS as u32;
    // One is there already.
    for (has, wants) in [(1, most), (most, 1)] {
        let refused = client.create_table(table::durable("above", wants)).unwrap_err();
        assert!(matches!(refused, TableError::TooManyPartitions(_)), "{refused:?}");
        let told = format!(
            "the node has {has} partitions, and takes {most} in all: {wants} more are too many; take fewer, or drop a table"
        );
        assert!(refused.to_string().ends_with(&told), "{refused}");
        if has == 1 {
            client.create_table(table::durable("at", most - 1)).unwrap();
        }
    }
    for number in 0..100u32 {
        let key = number.to_le_bytes();
        client.put("at", &key, b"v").unwrap();
        assert_eq!(client.get("at", &key).unwrap().expect("written").value.as_ref(), b"v");
    }
    assert_untouched(&mut client);
    client.drop_table("at").unwrap();
    client.create_table(table::durable("one more", 1)).unwrap();
    assert_untouched(&mut client);
}

#[test]
fn connections() {
    let home = Home::new();
    let node = home.start();
    single(&mut node.client());
    let most = lode_node::serve::ServeConfig::default().max_connections;
    assert!(allow_many_files() > most as u64 + 100, "this machine does not allow as many open files");
    let mut wires = Vec::new();
    // The client above may still be on its way out, so the last few may have to be tried again.
    for _ in 0..most + 1000 {
        match Wire::try_open(node.addr) {
            Ok(wire) => wires.push(wire),
            Err(error) => assert!(most - wires.len() < 10, "refused after {}: {error}", wires.len()),
        }
        if wires.len() == most {
            break;
        }
    }
    assert_eq!(wires.len(), most, "the node refuses too early");
    for _ in 0..20 {
        let refused = Wire::try_open(node.addr).err();
        let status = match refused {
            Some(ConnectionError::Refused { status, .. }) => status,
            other => panic!("connection {} was not refused: {other:?}", most + 1),
        };
        assert_eq!(status, Status::TooManyConnections);
    }
    let ping = RequestView::Ping { payload: b"still served" };
    for wire in wires.iter_mut().step_by(97) {
        assert_eq!(wire.ask(&ping).status(), Status::Ok);
    }
    drop(wires);
    let again = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        Wire::try_open(node.addr).is_ok()
    });
    assert!(again, "the node goes on refusing after all have gone");
    assert_untouched(&mut node.client());
}

#[test]
fn memory() {
    let home = Home::with(&["--size", "1GiB", "--shards", "1", "--memory", "64MiB"]);
    let node = home.start();
    let mut client = node.client();
    single(&mut client);
    client.create_table(table::of_store("m", Store::Memory, 4)).unwrap();
    let key = |number: u64| format!("{number:08}").into_bytes();
    let mut full_at = 0;
    for number in 0..100_000 {
        match client.put("m", &key(number), &value::make(&key(number), number, 10_000)) {
            Ok(_) => full_at = number + 1,
            Err(WriteError::MemoryFull { used_bytes }) => {
                assert!(used_bytes > 0);
                break;
            }
            Err(error) => panic!("record {number}: {error}"),
        }
    }
    assert!(full_at > 100 && full_at < 100_000, "full after {full_at} records of 10 kB in 64 MiB");
    assert!(node.resident_bytes() < 2 * (64 << 20), "{} bytes resident", node.resident_bytes());
    for number in 0..full_at {
        let record = client.get("m", &key(number)).unwrap().expect("the record was written");
        assert_eq!(value::version(&key(number), &record.value), Some(number));
    }
    assert_untouched(&mut client);
    for number in 0..full_at / 2 {
        assert!(client.delete("m", &key(number)).unwrap().existed);
    }
    for number in 0..full_at / 4 {
        client.put("m", &key(number), &value::make(&key(number), number, 10_000)).unwrap();
    }
}
