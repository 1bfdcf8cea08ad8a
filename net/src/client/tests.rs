use std::time::Duration;

use super::fake::{FakeNode, Trick};
use super::*;
use crate::wire::Opcode;

fn quick() -> ClientOptions {
    ClientOptions { request_timeout: Duration::from_secs(20), ..ClientOptions::default() }
}

/// For calls that are meant to time out.
fn impatient() -> ClientOptions {
    ClientOptions { request_timeout: Duration::from_millis(100), ..ClientOptions::default() }
}

async fn client_of(node: &FakeNode, options: ClientOptions) -> Client {
    Client::connect(&node.addr.to_string(), options).await.expect("the node is up")
}

fn hash_table(node: &FakeNode, partitions: u32) {
    node.state().create("t", &Placement::Hash { partitions }, Store::Durable);
}

#[tokio::test]
async fn records_are_written_read_and_deleted() {
    let node = FakeNode::start(2);
    hash_table(&node, 5);
    let client = client_of(&node, quick()).await;
    assert_eq!(client.get("t", b"k").await, Ok(None));
    let first = client.put("t", b"k", b"one").await.expect("written");
    assert!(!first.existed);
    assert_eq!(
        client.get("t", b"k").await,
        Ok(Some(Record { seq: first.seq, value: "one".into(), left: TimeLeft::Forever }))
    );
    let second = client.compare_and_set("t", b"k", b"two", first.seq).await.expect("the version matches");
    assert!(second.existed && second.seq > first.seq);
    let lost = client.compare_and_set("t", b"k", b"three", first.seq).await;
    assert_eq!(lost, Err(WriteError::ConditionFailed { current: Some(second.seq) }));
    let lost = client.put_if_absent("t", b"k", b"three").await;
    assert_eq!(lost, Err(WriteError::ConditionFailed { current: Some(second.seq) }));
    let lost = client.delete_if("t", b"none", first.seq).await;
    assert_eq!(lost, Err(WriteError::ConditionFailed { current: None }));
    assert!(client.delete_if("t", b"k", second.seq).await.expect("the version matches").existed);
    assert!(!client.delete("t", b"k").await.expect("deleted").existed);
    assert!(client.put_if_absent("t", b"k", b"").await.is_ok());
    assert_eq!(client.get("t", b"k").await.expect("read").expect("there").value.len(), 0);
}

#[tokio::test]
async fn calls_run_at_once_and_find_their_answers_out_of_order() {
    let node = FakeNode::start(2);
    hash_table(&node, 8);
    let client = client_of(&node, ClientOptions { connections_per_shard: 2, ..quick() }).await;
    for _ in 0..200 {
        node.state().trick(Opcode::Get, Trick::AnswerLate);
        node.state().trick(Opcode::Get, Trick::Serve);
    }
    let mut running = tokio::task::JoinSet::new();
    for i in 0..400u32 {
        let client = client.clone();
        running.spawn(async move {
            let key = i.to_le_bytes();
            let value = vec![i as u8; (i as usize * 37) % 30_000];
            client.put("t", &key, &value).await.expect("written");
            let read = client.get("t", &key).await;
            assert_eq!(read.expect("read").expect("there").value, value);
        });
    }
    while let Some(done) = running.join_next().await {
        done.expect("no task panics");
    }
    let accepted = node.state().accepted.clone();
    assert!(accepted.iter().all(|count| *count >= 2), "connections to every shard: {accepted:?}");
}

#[tokio::test]
async fn a_stale_map_is_renewed_and_the_call_goes_on() {
    let node = FakeNode::start(2);
    hash_table(&node, 4);
    let client = client_of(&node, quick()).await;
    client.put("t", b"k", b"v").await.expect("written");
    let before = client.map().version();
    node.state().bump_epochs();
    assert_eq!(client.get("t", b"k").await.expect("read").expect("there").value, "v");
    assert!(client.map().version() > before);
    // A table made by somebody else, after this client fetched its map.
    node.state().create("new", &Placement::Hash { partitions: 3 }, Store::Memory);
    assert!(client.put("new", b"k", b"v").await.is_ok());
    assert_eq!(client.get("none", b"k").await, Err(GetError::UnknownTable("none".into())));
    assert_eq!(client.put("none", b"k", b"v").await, Err(WriteError::UnknownTable("none".into())));
}

#[tokio::test]
async fn busy_is_retried_until_it_is_not_or_the_time_is_over() {
    let node = FakeNode::start(1);
    hash_table(&node, 1);
    let client = client_of(&node, quick()).await;
    (0..5).for_each(|_| node.state().trick(Opcode::Put, Trick::Busy));
    client.put("t", b"k", b"v").await.expect("not busy for ever");
    assert_eq!(node.state().served(Opcode::Put), 6);
    let client = client_of(&node, impatient()).await;
    (0..10_000).for_each(|_| node.state().trick(Opcode::Get, Trick::Busy));
    assert!(matches!(client.get("t", b"k").await, Err(GetError::Busy { .. })));
}

#[tokio::test]
async fn a_lost_read_is_asked_again_and_a_lost_write_is_unknown() {
    let node = FakeNode::start(1);
    hash_table(&node, 1);
    let client = client_of(&node, quick()).await;
    client.put("t", b"k", b"v").await.expect("written");
    node.state().trick(Opcode::Get, Trick::HangUp);
    node.state().trick(Opcode::Get, Trick::HangUp);
    assert!(client.get("t", b"k").await.expect("asked again").is_some());
    node.state().trick(Opcode::Put, Trick::HangUp);
    assert!(matches!(client.put("t", b"a", b"v").await, Err(WriteError::Unknown { .. })));
    node.state().trick(Opcode::Put, Trick::ServeAndHangUp);
    assert!(matches!(client.put("t", b"b", b"v").await, Err(WriteError::Unknown { .. })));
    assert_eq!(client.get("t", b"a").await, Ok(None));
    assert!(client.get("t", b"b").await.expect("read").is_some());
    (0..10).for_each(|_| node.state().trick(Opcode::Get, Trick::HangUp));
    assert!(matches!(client.get("t", b"k").await, Err(GetError::Unreachable(_))));
}

#[tokio::test]
async fn no_answer_is_a_timeout_of_a_read_and_an_unknown_write() {
    let node = FakeNode::start(1);
    hash_table(&node, 1);
    let client = client_of(&node, impatient()).await;
    node.state().trick(Opcode::Get, Trick::Swallow);
    assert!(matches!(client.get("t", b"k").await, Err(GetError::Timeout { .. })));
    node.state().trick(Opcode::Put, Trick::Swallow);
    assert!(matches!(client.put("t", b"k", b"v").await, Err(WriteError::Unknown { .. })));
    node.state().trick(Opcode::CreateTable, Trick::Swallow);
    let options = TableOptions {
        name: "u".into(),
        store: Store::Durable,
        placement: Placement::Hash { partitions: 1 },
        ttl: None,
        quota: Quota::default(),
    };
    assert!(matches!(client.create_table(options).await, Err(TableError::Unknown(_))));
    assert_eq!(client.get("t", b"k").await, Ok(None), "the connection is still good");
}

#[tokio::test]
async fn a_node_that_was_started_again_is_found_again() {
    let node = FakeNode::start(2);
    hash_table(&node, 4);
    let client = client_of(&node, quick()).await;
    for i in 0..8u8 {
        client.put("t", &[i], b"v").await.expect("written");
    }
    node.hang_up_on_all();
    assert!(client.get("t", b"\0").await.expect("read").is_some());
    let node = node.restart();
    for i in 0..8u8 {
        assert!(client.get("t", &[i]).await.expect("read").is_some(), "{i}");
        client.put("t", &[i], b"w").await.expect("an idle connection's end is seen before a write");
    }
    drop(node);
    assert!(matches!(client.get("t", b"\0").await, Err(GetError::Unreachable(_))));
}

#[tokio::test]
async fn a_node_that_recovers_is_waited_for() {
    let node = FakeNode::start(1);
    hash_table(&node, 1);
    node.state().not_ready = 2;
    let client = client_of(&node, quick()).await;
    assert_eq!(client.get("t", b"k").await, Ok(None));
    node.state().not_ready = u32::MAX;
    let options = ClientOptions { connect_timeout: Duration::from_millis(100), ..quick() };
    let refused = Client::connect(&node.addr.to_string(), options).await;
    assert!(matches!(refused, Err(ConnectError::Timeout { .. })));
}

#[tokio::test]
async fn who_is_not_there_or_no_node_is_told_apart() {
    let node = FakeNode::start(1);
    let addr = node.addr.to_string();
    drop(node);
    assert!(matches!(Client::connect(&addr, quick()).await, Err(ConnectError::Io { .. })));
    assert!(matches!(Client::connect("no address", quick()).await, Err(ConnectError::Address { .. })));
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let addr = other.local_addr().expect("bound").to_string();
    let server = std::thread::spawn(move || {
        use std::io::Write;
        let (mut stream, _) = other.accept().expect("the client comes");
        let _ = stream.write_all(&[b'x'; 200]);
        stream
    });
    assert!(matches!(Client::connect(&addr, quick()).await, Err(ConnectError::Refused { .. })));
    drop(server.join());
}

#[tokio::test]
async fn limits_are_told_before_anything_is_sent() {
    let node = FakeNode::start(1);
    hash_table(&node, 1);
    let client = client_of(&node, quick()).await;
    let key = vec![b'k'; 4097];
    let value = vec![0u8; 1024 * 1024 + 1];
    assert_eq!(client.get("t", b"").await, Err(GetError::KeyLength { len: 0 }));
    assert_eq!(client.put("t", &key, b"").await, Err(WriteError::KeyLength { len: 4097 }));
    let too_long = client.put("t", b"k", &value).await;
    assert_eq!(too_long, Err(WriteError::ValueLength { len: value.len(), limit: value.len() - 1 }));
    assert_eq!(node.state().served(Opcode::Put), 0);
    client.put("t", &key[1..], &value[1..]).await.expect("at the limit");
    let read = client.get("t", &key[1..]).await.expect("read").expect("there");
    assert_eq!(read.value, &value[1..]);
}

#[tokio::test]
async fn a_batch_is_of_one_partition() {
    let node = FakeNode::start(2);
    let placement = Placement::Range { splits: vec![b"m".to_vec()] };
    node.state().create("r", &placement, Store::Durable);
    let client = client_of(&node, quick()).await;
    client
        .batch("r", Batch::new().put(b"a", b"1").put(b"b", b"2").delete(b"a"))
        .await
        .expect("one partition");
    assert_eq!(client.get("r", b"a").await, Ok(None));
    assert!(client.get("r", b"b").await.expect("read").is_some());
    let spans = client.batch("r", Batch::new().put(b"a", b"1").put(b"z", b"2")).await;
    assert_eq!(spans, Err(BatchError::SpansPartitions { table: "r".into() }));
    assert!(matches!(client.batch("r", Batch::new()).await, Err(BatchError::Size { writes: 0, .. })));
    let mut many = Batch::new();
    (0..4097u32).for_each(|i| many.push(BatchWrite::Delete { key: &i.to_le_bytes() }));
    assert!(matches!(client.batch("r", many).await, Err(BatchError::Size { writes: 4097, .. })));
    let huge = Batch::new().put(&[b'k'; 70_000], b"");
    let refused = client.batch("r", huge).await;
    assert_eq!(refused, Err(BatchError::Write(WriteError::KeyLength { len: 70_000 })));
    let unknown = client.batch("none", Batch::new().delete(b"a")).await;
    assert_eq!(unknown, Err(BatchError::Write(WriteError::UnknownTable("none".into()))));
}

#[tokio::test]
async fn whole_tables_are_scanned_counted_and_measured() {
    let node = FakeNode::start(2);
    let splits = vec![b"c".to_vec(), b"g".to_vec(), b"x".to_vec()];
    node.state().create("r", &Placement::Range { splits }, Store::Durable);
    node.state().create("h", &Placement::Hash { partitions: 7 }, Store::Durable);
    let client = client_of(&node, quick()).await;
    let keys: Vec<Vec<u8>> = (b'b'..=b'w').flat_map(|a| [vec![a], vec![a, b'5']]).collect();
    for table in ["r", "h"] {
        assert_eq!(client.min(table).await, Ok(None));
        for key in &keys {
            client.put(table, key, b"v").await.expect("written");
        }
        for reverse in [false, true] {
            let options = ScanOptions { reverse, page_records: 3, ..ScanOptions::default() };
            let got = client.scan(table, options).collect().await.expect("scanned");
            let mut got: Vec<_> = got.into_iter().map(|r| r.key.to_vec()).collect();
            if reverse {
                got.reverse();
            }
            assert_eq!(got, keys, "{table} {reverse}");
        }
        let some = ScanOptions {
            start: b"d".to_vec(),
            end: Some(b"h".to_vec()),
            limit: Some(5),
            keys_only: true,
            ..ScanOptions::default()
        };
        let got = client.scan(table, some).collect().await.expect("scanned");
        let got: Vec<_> = got.iter().map(|r| (&r.key[..], r.value.len())).collect();
        assert_eq!(got, [(&b"d"[..], 0), (b"d5", 0), (b"e", 0), (b"e5", 0), (b"f", 0)]);
        assert_eq!(client.count(table, b"", None).await, Ok(keys.len() as u64));
        assert_eq!(client.count(table, b"d", Some(b"f")).await, Ok(4));
        assert_eq!(client.min(table).await.expect("read").expect("there").key, "b");
        assert_eq!(client.max(table).await.expect("read").expect("there").key, "w5");
    }
    let mut scanner = client.scan("none", ScanOptions::default());
    assert_eq!(scanner.next().await, Some(Err(ScanError::UnknownTable("none".into()))));
    assert_eq!(scanner.next().await, None);
}

#[tokio::test]
async fn tables_come_and_go() {
    let node = FakeNode::start(2);
    let client = client_of(&node, quick()).await;
    let options = |name: &str, placement| TableOptions {
        name: name.into(),
        store: Store::Memory,
        placement,
        ttl: None,
        quota: Quota::default(),
    };
    let placement = Placement::Hash { partitions: 3 };
    let made = client.create_table(options("t", placement.clone())).await.expect("made");
    assert_eq!((made.name.as_str(), made.partitions, made.store), ("t", 3, Store::Memory));
    assert!(client.map().table("t").is_some(), "the map has it at once");
    let again = client.create_table(options("t", placement.clone())).await;
    assert_eq!(again, Err(TableError::TableExists("t".into())));
    let long = "n".repeat(129);
    assert!(matches!(client.create_table(options(&long, placement)).await, Err(TableError::NameLength(_))));
    let none = Placement::Hash { partitions: 0 };
    assert!(matches!(client.create_table(options("u", none)).await, Err(TableError::Placement(_))));
    client.put("t", b"k", b"v").await.expect("written");
    let list = client.list_tables().await.expect("listed");
    assert_eq!(list.iter().map(|t| (t.name.as_str(), t.records)).collect::<Vec<_>>(), [("t", 1)]);
    client.drop_table("t").await.expect("dropped");
    assert!(client.map().table("t").is_none());
    assert_eq!(client.drop_table("t").await, Err(TableError::UnknownTable("t".into())));
    assert_eq!(client.get("t", b"k").await, Err(GetError::UnknownTable("t".into())));
    assert_eq!(client.stats().await.expect("stats")["shards"], 2);
    assert_eq!(client.checkpoint().await, Err(CheckpointError::NoSpace));
    assert_eq!(client.scrub().await, Ok(()));
}

#[tokio::test]
async fn one_connection_carries_no_more_than_it_may() {
    let node = FakeNode::start(1);
    hash_table(&node, 1);
    let options = ClientOptions { max_in_flight_per_connection: 1, ..impatient() };
    let client = client_of(&node, options).await;
    node.state().trick(Opcode::Put, Trick::Swallow);
    let (stuck, waiting) = tokio::join!(client.put("t", b"a", b"v"), client.put("t", b"b", b"v"));
    assert!(matches!(stuck, Err(WriteError::Unknown { .. })));
    assert!(
        matches!(waiting, Err(WriteError::Timeout { .. })),
        "never sent, and so not unknown: {waiting:?}"
    );
}
