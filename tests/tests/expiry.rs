//! Records that expire, on a real node: by the record's own time and by its table's, through every client.

use std::time::Duration;

use lode_net::client::blocking::{Answer, Client};
use lode_net::client::{
    Batch, BatchError, Condition, Lifetime, Placement, PutOptions, Quota, ScanOptions, Store, TableError,
    TableOptions, TimeLeft, TransactionOptions, WriteError,
};
use lode_tests::node::Home;

/// So long that no test machine is slow enough for it.
const LONG: Lifetime = Lifetime::For(Duration::from_secs(3600));
/// So short that a test may wait for it.
const SHORT: Lifetime = Lifetime::For(Duration::from_millis(1));

fn table(name: &str, store: Store, ttl: Option<Duration>) -> TableOptions {
    TableOptions {
        name: name.to_owned(),
        store,
        placement: Placement::Hash { partitions: 3 },
        ttl,
        quota: Quota::default(),
    }
}

fn put(lifetime: Lifetime) -> PutOptions {
    PutOptions { lifetime, ..PutOptions::default() }
}

/// Waits until a record is gone, however long that takes.
fn await_gone(client: &mut Client, table: &str, key: &[u8]) {
    while client.get(table, key).expect("a get works").is_some() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_within_an_hour(left: TimeLeft) -> bool {
    left.duration().is_some_and(|left| left > Duration::ZERO && left <= Duration::from_secs(3600))
}

#[test]
fn a_record_lives_as_long_as_it_was_told() {
    let home = Home::new();
    let node = home.start();
    for store in [Store::Durable, Store::Memory] {
        let mut client = node.client();
        client.create_table(table("t", store, None)).expect("the table is new");
        client.put_with("t", b"short", b"v", put(SHORT)).expect("written");
        client.put_with("t", b"long", b"v", put(LONG)).expect("written");
        client.put("t", b"plain", b"v").expect("written");
        await_gone(&mut client, "t", b"short");
        assert_eq!(client.time_left("t", b"short"), Ok(None));
        assert_eq!(client.count("t", b"", None), Ok(2));
        let again = PutOptions { condition: Condition::IfAbsent, lifetime: LONG };
        client.put_with("t", b"short", b"w", again).expect("an expired record is absent");
        let record = client.get("t", b"long").expect("read").expect("there");
        assert!(is_within_an_hour(record.left), "{record:?}");
        assert_eq!(client.get("t", b"plain").expect("read").expect("there").left, TimeLeft::Forever);
        let mut seen = Vec::new();
        for record in client.scan("t", ScanOptions { times: true, ..ScanOptions::default() }) {
            let record = record.expect("a good page");
            seen.push((record.key.to_vec(), is_within_an_hour(record.left)));
        }
        assert_eq!(seen, [(b"long".to_vec(), true), (b"plain".to_vec(), false), (b"short".to_vec(), true)]);
        assert!(client.expire("t", b"plain", LONG).expect("changed").existed);
        assert!(client.persist("t", b"long").expect("changed").existed);
        assert!(!client.persist("t", b"none").expect("answered").existed);
        assert_eq!(client.time_left("t", b"long"), Ok(Some(TimeLeft::Forever)));
        assert!(client.time_left("t", b"plain").expect("answered").is_some_and(is_within_an_hour));
        assert_eq!(client.get("t", b"plain").expect("read").expect("there").value, "v");
        client.drop_table("t").expect("the table is there");
    }
}

#[test]
fn batches_and_transactions_say_how_long_each_record_lives() {
    let home = Home::new();
    let node = home.start();
    let mut client = node.client();
    for store in [Store::Durable, Store::Memory] {
        let hour = Some(Duration::from_secs(3600));
        let options =
            TableOptions { placement: Placement::Hash { partitions: 1 }, ..table("t", store, hour) };
        client.create_table(options).expect("the table is new");
        let batch = Batch::new().put_for(b"short", b"v", SHORT).put_for(b"ever", b"v", Lifetime::Forever);
        client.batch("t", batch.put_for(b"long", b"v", LONG).put(b"plain", b"v")).expect("written");
        let mut transaction = client.transaction("t", b"a", TransactionOptions::default()).expect("begun");
        transaction.put_for(b"in short", b"v", SHORT).expect("kept");
        transaction.put_for(b"in ever", b"v", LONG).expect("kept");
        transaction.put_for(b"in ever", b"w", Lifetime::Forever).expect("the last counts");
        transaction.put(b"ever", b"w").expect("kept");
        transaction.commit().expect("nobody else writes");
        await_gone(&mut client, "t", b"short");
        await_gone(&mut client, "t", b"in short");
        let mut left = |key: &[u8]| client.time_left("t", key).expect("answered").expect("there");
        assert_eq!(left(b"in ever"), TimeLeft::Forever);
        for key in [&b"long"[..], b"plain", b"ever"] {
            assert!(is_within_an_hour(left(key)), "as its table says, or as was asked for");
        }
        let bad = Batch::new().put(b"x", b"v").put_for(b"y", b"v", Lifetime::For(Duration::from_micros(1)));
        let error = client.batch("t", bad).expect_err("no record lives for less than a millisecond");
        assert_eq!(error, BatchError::Write(WriteError::BadTtl { ttl_ms: 0 }));
        assert_eq!(client.get("t", b"x").expect("read"), None, "all or none");
        client.drop_table("t").expect("the table is there");
    }
}

#[test]
fn a_tables_default_survives_and_holds_for_what_says_nothing_else() {
    let home = Home::new();
    let hour = Some(Duration::from_secs(3600));
    {
        let node = home.start();
        let mut client = node.client();
        client.create_table(table("t", Store::Durable, hour)).expect("the table is new");
        client.create_table(table("plain", Store::Durable, None)).expect("the table is new");
        client.put_with("t", b"never", b"v", put(Lifetime::Forever)).expect("written");
        client.put("t", b"hour", b"v").expect("written");
        node.kill();
    }
    let node = home.start();
    let mut client = node.client();
    let id =
        client.list_tables().expect("listed").iter().find(|table| table.name == "t").map(|table| table.id);
    assert_eq!(client.table_ttls(), Ok(vec![(id.expect("it is listed"), Duration::from_secs(3600))]));
    assert_eq!(client.time_left("t", b"never"), Ok(Some(TimeLeft::Forever)));
    let mut pipeline = client.pipeline();
    pipeline.increment("t", b"counter", 1).put_with("t", b"short", b"v", put(SHORT));
    pipeline.expire("t", b"never", LONG);
    let answers = pipeline.run();
    assert!(matches!(answers[..], [Answer::Increment(Ok(_)), Answer::Write(Ok(_)), Answer::Write(Ok(_))]));
    client.batch("t", Batch::new().put(b"batch", b"v")).expect("written");
    for key in [&b"hour"[..], b"counter", b"never", b"batch"] {
        assert!(client.time_left("t", key).expect("answered").is_some_and(is_within_an_hour), "{key:?}");
    }
    await_gone(&mut client, "t", b"short");
    // What expired before a restart does not come back, and what did not expire still does.
    let expired = node.total("expired");
    assert!(expired <= 1, "{expired}");
    drop(client);
    node.kill();
    let node = home.start();
    let mut client = node.client();
    assert_eq!(client.get("t", b"short"), Ok(None));
    assert!(client.time_left("t", b"hour").expect("answered").is_some_and(is_within_an_hour));
}

#[test]
fn times_that_no_record_can_have_are_refused() {
    let home = Home::new();
    let node = home.start();
    let mut client = node.client();
    client.create_table(table("t", Store::Durable, None)).expect("the table is new");
    client.put("t", b"k", b"v").expect("written");
    let most_ms = lode_net::wire::limits::MAX_TTL_MS;
    for (time, ttl_ms) in [
        (Duration::ZERO, 0),
        (Duration::from_micros(999), 0),
        (Duration::from_millis(most_ms + 1), most_ms + 1),
        (Duration::MAX, u64::MAX),
    ] {
        let lifetime = Lifetime::For(time);
        assert_eq!(client.put_with("t", b"k", b"w", put(lifetime)), Err(WriteError::BadTtl { ttl_ms }));
        assert_eq!(client.expire("t", b"k", lifetime), Err(WriteError::BadTtl { ttl_ms }));
        let refused = client.create_table(table("u", Store::Durable, Some(time)));
        assert_eq!(refused, Err(TableError::BadTtl { ttl_ms }));
    }
    assert_eq!(client.get("t", b"k").expect("read").expect("there").value, "v");
    client.put_with("t", b"k", b"w", put(Lifetime::For(Duration::from_millis(most_ms)))).expect("the most");
}
