use std::time::Duration;

use super::*;
use crate::client::fake::{FakeNode, Trick};
use crate::client::{BatchWrite, Placement, Store};
use crate::wire::Opcode;

fn quick() -> ClientOptions {
    ClientOptions { request_timeout: Duration::from_secs(20), ..ClientOptions::default() }
}

/// For calls that are meant to time out.
fn impatient() -> ClientOptions {
    ClientOptions { request_timeout: Duration::from_millis(100), ..ClientOptions::default() }
}

fn client_of(node: &FakeNode, options: ClientOptions) -> Client {
    Client::connect(&node.addr.to_string(), options).expect("the node is up")
}

fn hash_table(node: &FakeNode, partitions: u32) {
    node.state().create("t", &Placement::Hash { partitions }, Store::Durable);
}

#[test]
fn records_are_written_read_and_deleted() {
    let node = FakeNode::start(2);
    hash_table(&node, 5);
    let mut client = client_of(&node, quick());
    assert_eq!(client.get("t", b"k"), Ok(None));
    let first = client.put("t", b"k", b"one").expect("written");
    assert_eq!(
        client.get("t", b"k"),
        Ok(Some(Record { seq: first.seq, value: "one".into(), left: TimeLeft::Forever }))
    );
    let second = client.compare_and_set("t", b"k", b"two", first.seq).expect("the version matches");
    let lost = client.put_if_absent("t", b"k", b"three");
    assert_eq!(lost, Err(WriteError::ConditionFailed { current: Some(second.seq) }));
    let lost = client.delete_if("t", b"k", first.seq);
    assert_eq!(lost, Err(WriteError::ConditionFailed { current: Some(second.seq) }));
    assert!(client.delete("t", b"k").expect("deleted").existed);
    client.batch("t", Batch::new().put(b"b", b"1").put(b"b", b"2")).expect("one partition");
    assert_eq!(client.get("t", b"b").expect("read").expect("there").value, "2");
    let mut many = Batch::new();
    (0..4097u32).for_each(|_| many.push(BatchWrite::Delete { key: b"b" }));
    assert!(matches!(client.batch("t", many), Err(BatchError::Size { writes: 4097, .. })));
}

#[test]
fn a_pipeline_keeps_the_order_of_its_answers() {
    let node = FakeNode::start(2);
    hash_table(&node, 8);
    let mut client = client_of(&node, ClientOptions { max_in_flight_per_connection: 16, ..quick() });
    for _ in 0..300 {
        node.state().trick(Opcode::Get, Trick::AnswerLate);
        node.state().trick(Opcode::Get, Trick::Serve);
        node.state().trick(Opcode::Get, Trick::Busy);
    }
    let mut pipeline = client.pipeline();
    for i in 0..600u32 {
        pipeline.put("t", &i.to_le_bytes(), &vec![i as u8; (i as usize * 53) % 20_000]);
    }
    assert_eq!(pipeline.len(), 600);
    let written = pipeline.run();
    assert!(pipeline.is_empty() && written.iter().all(|a| matches!(a, Answer::Write(Ok(_)))));
    for i in 0..600u32 {
        pipeline.get("t", &i.to_le_bytes());
        pipeline.get("none", b"k");
        pipeline.put("t", b"", b"");
    }
    for (i, three) in pipeline.run().chunks(3).enumerate() {
        let Answer::Get(Ok(Some(record))) = &three[0] else { panic!("{i}: {:?}", three[0]) };
        assert_eq!(record.value, vec![i as u8; (i * 53) % 20_000]);
        assert_eq!(three[1], Answer::Get(Err(GetError::UnknownTable("none".into()))));
        assert_eq!(three[2], Answer::Write(Err(WriteError::KeyLength { len: 0 })));
    }
}

#[test]
fn increments_count_once_each_and_are_told_apart_when_they_cannot() {
    let node = FakeNode::start(2);
    hash_table(&node, 5);
    let mut client = client_of(&node, quick());
    assert_eq!(client.increment("t", b"n", 5).expect("counted").number, 5);
    assert_eq!(client.increment_from("t", b"m", -1, 43).expect("counted").number, 42);
    let mut pipeline = client.pipeline();
    for _ in 0..100 {
        pipeline.increment("t", b"n", 1);
    }
    let numbers = pipeline.run().into_iter().map(|answer| match answer {
        Answer::Increment(Ok(counted)) => counted.number,
        other => panic!("{other:?}"),
    });
    assert_eq!(numbers.collect::<Vec<_>>(), (6..106).collect::<Vec<_>>());
    client.put("t", b"text", b"x").expect("written");
    assert_eq!(client.increment("t", b"text", 1), Err(IncrementError::NotANumber));
    let present = i64::MAX;
    client.put("t", b"most", present.to_string().as_bytes()).expect("written");
    assert_eq!(client.increment("t", b"most", 1), Err(IncrementError::Overflow { present }));
    let short = Err(IncrementError::Write(WriteError::KeyLength { len: 0 }));
    assert_eq!(client.increment("t", b"", 1), short);
    node.state().trick(Opcode::Increment, Trick::ServeAndHangUp);
    let lost = client.increment("t", b"n", 1);
    assert!(matches!(lost, Err(IncrementError::Write(WriteError::Unknown { .. }))), "{lost:?}");
    assert_eq!(client.get("t", b"n").expect("read").expect("there").value, "106", "not sent again");
}

#[test]
fn large_values_go_both_ways_at_once() {
    let node = FakeNode::start(1);
    hash_table(&node, 1);
    let mut client = client_of(&node, quick());
    let value = vec![7u8; 1024 * 1024];
    client.put("t", b"k", &value).expect("written");
    let mut pipeline = client.pipeline();
    for _ in 0..30 {
        // More in each direction than the sockets hold: who only wrote, or only read, would wait for ever.
        pipeline.get("t", b"k").put("t", b"l", &value);
    }
    for answer in pipeline.run() {
        match answer {
            Answer::Get(read) => assert_eq!(read.expect("read").expect("there").value, value),
            Answer::Write(written) => drop(written.expect("written")),
            Answer::Increment(counted) => panic!("{counted:?} is no answer to what was asked"),
        }
    }
}

#[test]
fn a_stale_map_is_renewed_and_the_call_goes_on() {
    let node = FakeNode::start(2);
    hash_table(&node, 4);
    let mut client = client_of(&node, quick());
    client.put("t", b"k", b"v").expect("written");
    let before = client.map().version();
    node.state().bump_epochs();
    assert_eq!(client.get("t", b"k").expect("read").expect("there").value, "v");
    assert!(client.map().version() > before);
    node.state().create("new", &Placement::Hash { partitions: 3 }, Store::Memory);
    assert!(client.put("new", b"k", b"v").is_ok());
}

#[test]
fn losses_timeouts_and_busy_end_as_they_should() {
    let node = FakeNode::start(1);
    hash_table(&node, 1);
    let mut client = client_of(&node, quick());
    client.put("t", b"k", b"v").expect("written");
    (0..5).for_each(|_| node.state().trick(Opcode::Put, Trick::Busy));
    client.put("t", b"k", b"v").expect("not busy for ever");
    node.state().trick(Opcode::Get, Trick::HangUp);
    assert!(client.get("t", b"k").expect("asked again").is_some());
    node.state().trick(Opcode::Put, Trick::ServeAndHangUp);
    assert!(matches!(client.put("t", b"b", b"v"), Err(WriteError::Unknown { .. })));
    assert!(client.get("t", b"b").expect("read").is_some());
    let mut client = client_of(&node, impatient());
    node.state().trick(Opcode::Get, Trick::Swallow);
    assert!(matches!(client.get("t", b"k"), Err(GetError::Timeout { .. })));
    node.state().trick(Opcode::Put, Trick::Swallow);
    assert!(matches!(client.put("t", b"c", b"v"), Err(WriteError::Unknown { .. })));
    (0..10_000).for_each(|_| node.state().trick(Opcode::Delete, Trick::Busy));
    assert!(matches!(client.delete("t", b"k"), Err(WriteError::Busy { .. })));
    assert!(client.get("t", b"k").expect("the connection is still good").is_some());
}

#[test]
fn a_node_that_was_started_again_is_found_again() {
    let node = FakeNode::start(2);
    hash_table(&node, 4);
    let mut client = client_of(&node, quick());
    for i in 0..8u8 {
        client.put("t", &[i], b"v").expect("written");
    }
    node.hang_up_on_all();
    let node = node.restart();
    for i in 0..8u8 {
        client.put("t", &[i], b"w").expect("an idle connection's end is seen before a write");
        assert_eq!(client.get("t", &[i]).expect("read").expect("there").value, "w");
    }
    drop(node);
    assert!(matches!(client.get("t", b"\0"), Err(GetError::Unreachable(_))));
}

#[test]
fn who_is_not_there_or_not_ready_is_told_apart() {
    let node = FakeNode::start(1);
    let addr = node.addr.to_string();
    node.state().not_ready = 2;
    assert!(Client::connect(&addr, quick()).is_ok());
    node.state().not_ready = u32::MAX;
    let options = ClientOptions { connect_timeout: Duration::from_millis(100), ..quick() };
    assert!(matches!(Client::connect(&addr, options), Err(ConnectError::Timeout { .. })));
    drop(node);
    assert!(matches!(Client::connect(&addr, quick()), Err(ConnectError::Io { .. })));
    let Err(error @ ConnectError::Address { .. }) = Client::connect("no address", quick()) else { panic!() };
    assert!(error.to_string().contains("invalid socket address"), "what the resolver said: {error}");
}

#[test]
fn whole_tables_are_made_scanned_counted_and_dropped() {
    let node = FakeNode::start(2);
    let mut client = client_of(&node, quick());
    let placements =
        [Placement::Range { splits: vec![b"c".to_vec(), b"x".to_vec()] }, Placement::Hash { partitions: 70 }];
    let keys: Vec<Vec<u8>> = (b'b'..=b'w').flat_map(|a| [vec![a], vec![a, b'5']]).collect();
    for placement in placements {
        let options = TableOptions {
            name: "u".into(),
            store: Store::Durable,
            placement,
            ttl: None,
            quota: Quota::default(),
        };
        client.create_table(options.clone()).expect("made");
        assert_eq!(client.create_table(options), Err(TableError::TableExists("u".into())));
        assert_eq!((client.min("u"), client.max("u")), (Ok(None), Ok(None)));
        let mut pipeline = client.pipeline();
        for key in &keys {
            pipeline.put("u", key, b"v");
        }
        assert!(pipeline.run().iter().all(|a| matches!(a, Answer::Write(Ok(_)))));
        for reverse in [false, true] {
            let options = ScanOptions { reverse, page_records: 3, ..ScanOptions::default() };
            let got: Result<Vec<_>, _> =
                client.scan("u", options).map(|r| r.map(|r| r.key.to_vec())).collect();
            let mut got = got.expect("scanned");
            if reverse {
                got.reverse();
            }
            assert_eq!(got, keys);
        }
        assert_eq!(client.count("u", b"", None), Ok(keys.len() as u64));
        assert_eq!(client.count("u", b"d", Some(b"f")), Ok(4));
        assert_eq!(client.min("u").expect("read").expect("there").key, "b");
        assert_eq!(client.max("u").expect("read").expect("there").key, "w5");
        assert_eq!(client.list_tables().expect("listed").len(), 1);
        client.drop_table("u").expect("dropped");
    }
    let mut scanner = client.scan("none", ScanOptions::default());
    assert_eq!(scanner.next(), Some(Err(ScanError::UnknownTable("none".into()))));
    assert_eq!(scanner.next(), None);
    assert_eq!(client.stats().expect("stats")["shards"], 2);
    assert_eq!(client.checkpoint(), Err(CheckpointError::NoSpace));
    assert_eq!(client.scrub(), Ok(()));
}
