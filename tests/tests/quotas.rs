//! What a partition may take of its node, over real sockets: refused above, told how long to wait, changed while the
//! node serves, kept over its death.
//!
//! Rates are so low that no machine is slow enough to let a second request pass, or so high that none is held back.

use std::time::Duration;

use lode_net::client::blocking::{Client, patiently};
use lode_net::client::{
    Batch, BatchError, Client as AsyncClient, ClientOptions, CountError, GetError, IncrementError, Quota,
    RetryAfter, ScanError, ScanOptions, TableError, TransactionError, TransactionOptions, WriteError,
};
use lode_net::wire::limits::{MAX_BURST_MS, MAX_QUOTA_PER_S, MAX_WEIGHT};
use lode_tests::node::Home;
use lode_tests::table;

/// A byte a second: a thousand bytes take a quarter of an hour.
const SLOW: u64 = 1;

fn writes(write_bytes_per_s: u64) -> Quota {
    Quota { write_bytes_per_s, ..Quota::default() }
}

fn reads(read_bytes_per_s: u64) -> Quota {
    Quota { read_bytes_per_s, ..Quota::default() }
}

fn requests(requests_per_s: u64) -> Quota {
    Quota { requests_per_s, ..Quota::default() }
}

/// A table of one partition with this quota, and one record in it.
fn table_with(client: &mut Client, name: &str, quota: Quota) {
    client.create_table(table::durable(name, 1)).expect("the table is new");
    client.put(name, b"k", &[7; 1000]).expect("there is no quota yet");
    client.set_quota(name, Some(quota)).expect("set");
}

fn throttled_for<E: RetryAfter + std::fmt::Debug>(error: &E) -> Duration {
    error.retry_after().unwrap_or_else(|| panic!("{error:?} says when to come again"))
}

#[test]
fn what_is_above_a_quota_is_refused_with_a_time_and_other_tables_are_not() {
    let home = Home::new();
    let node = home.start();
    let mut client = node.client();
    table_with(&mut client, "w", writes(SLOW));
    table_with(&mut client, "free", Quota::default());
    client.put("w", b"k", &[8; 1000]).expect("nothing is spent yet");
    let error = client.put("w", b"k", &[9; 1000]).expect_err("a quarter of an hour is spent");
    let wait = throttled_for(&error);
    assert!(wait > Duration::from_secs(60) && wait <= Duration::from_secs(1010), "{wait:?}");
    assert!(matches!(error, WriteError::Throttled { .. }));
    assert!(error.to_string().contains("quota of 1 bytes written a second"), "{error}");
    assert!(throttled_for(&client.delete("w", b"k").expect_err("a write")) > Duration::ZERO);
    let batch = client.batch("w", Batch::new().put(b"a", b"b")).expect_err("a write");
    assert!(matches!(batch, BatchError::Write(WriteError::Throttled { .. })));
    let counted = client.increment("w", b"n", 1).expect_err("a write");
    assert!(matches!(counted, IncrementError::Write(WriteError::Throttled { .. })));
    // Nothing of it was done, reads are not limited, and others do not feel it.
    assert_eq!(client.get("w", b"k").expect("read").expect("there").value[0], 8);
    for _ in 0..50 {
        client.put("free", b"k", &[1; 1000]).expect("no quota");
    }
    assert!(node.total("throttled") >= 4);
}

#[test]
fn reads_and_requests_have_rates_of_their_own() {
    let home = Home::new();
    let node = home.start();
    let mut client = node.client();
    table_with(&mut client, "r", reads(SLOW));
    // What a read takes is known afterwards: the first passes, and is paid for by those that follow.
    assert!(client.get("r", b"k").expect("nothing is spent yet").is_some());
    assert!(matches!(client.get("r", b"k"), Err(GetError::Throttled { .. })));
    assert!(matches!(client.count("r", b"", None), Err(CountError::Throttled { .. })));
    let page = client.scan("r", ScanOptions::default()).next();
    assert!(matches!(page, Some(Err(ScanError::Throttled { .. }))), "{page:?}");
    client.put("r", b"k", &[1; 1000]).expect("writes are not limited");

    table_with(&mut client, "q", requests(1));
    let mut batch = Batch::new();
    (0..4000u32)
        .for_each(|n| batch.push(lode_net::client::BatchWrite::Put { key: &n.to_be_bytes(), value: b"" }));
    client.batch("q", batch).expect("nothing is spent yet");
    let error = client.get("q", b"k").expect_err("each write of the batch counted");
    assert!(throttled_for(&error) > Duration::from_secs(600), "{error:?}");
}

#[test]
fn a_quota_changed_while_the_node_serves_counts_at_once() {
    let home = Home::new();
    let node = home.start();
    let mut client = node.client();
    table_with(&mut client, "t", writes(SLOW));
    client.put("t", b"k", &[8; 1000]).expect("nothing is spent yet");
    client.put("t", b"k", &[8; 1000]).expect_err("spent");
    // A thousand bytes are nothing at a higher rate.
    client.set_quota("t", Some(writes(1 << 30))).expect("raised");
    client.put("t", b"k", &[8; 1000]).expect("there is room");
    client.set_quota("t", Some(writes(SLOW))).expect("lowered");
    let _ = client.put("t", b"k", &[8; 1000]);
    client.put("t", b"k", &[8; 1000]).expect_err("spent again");
    client.set_quota("t", None).expect("taken back");
    for _ in 0..100 {
        client.put("t", b"k", &[8; 1000]).expect("no quota");
    }
    // What is told to wait may, and passes: a tenth of a second here.
    client.set_quota("t", Some(Quota { burst_ms: 1, ..writes(10_000) })).expect("set");
    for _ in 0..3 {
        let put = |client: &mut Client| client.put("t", b"k", &[8; 1000]);
        patiently(&mut client, Duration::from_secs(3600), put).expect("it passes in the end");
    }
    // Impatience gets the refusal.
    client.set_quota("t", Some(writes(SLOW))).expect("set");
    let put = |client: &mut Client| client.put("t", b"k", &[8; 1000]);
    let _ = patiently(&mut client, Duration::ZERO, put);
    assert!(matches!(patiently(&mut client, Duration::ZERO, put), Err(WriteError::Throttled { .. })));
}

#[test]
fn one_partition_may_have_a_quota_of_its_own() {
    let home = Home::new();
    let node = home.start();
    let mut client = node.client();
    client.create_table(table::durable("t", 16)).expect("the table is new");
    client.set_partition_quota("t", b"tight", Some(writes(SLOW))).expect("set");
    let home_of = |client: &Client, key: &[u8]| {
        let map = client.map();
        map.table("t")
            .and_then(|table| table.partition_of(key))
            .map(|partition| partition.id)
            .expect("no gaps")
    };
    let tight = home_of(&client, b"tight");
    client.put("t", b"tight", &[1; 1000]).expect("nothing is spent yet");
    let mut others = 0;
    for n in 0..200u32 {
        let key = n.to_be_bytes();
        let written = client.put("t", &key, &[1; 100]);
        match home_of(&client, &key) == tight {
            true => assert!(matches!(written, Err(WriteError::Throttled { .. })), "{written:?}"),
            false => {
                others += 1;
                written.expect("its partition has no quota");
            }
        }
    }
    assert!(others > 100);
    let rows = client.quotas().expect("told");
    assert_eq!(
        rows.iter().map(|row| (row.partition, row.quota)).collect::<Vec<_>>(),
        [(Some(tight), writes(SLOW))]
    );
    client.set_partition_quota("t", b"tight", None).expect("taken back");
    client.put("t", b"tight", &[1; 1000]).expect("as its table says");
    assert_eq!(client.quotas(), Ok(vec![]));
    let unknown = client.set_quota("none", Some(Quota::default()));
    assert_eq!(unknown, Err(TableError::UnknownTable("none".into())));
}

#[test]
fn quotas_are_kept_when_the_node_is_killed_and_in_a_checkpoint() {
    let home = Home::new();
    let mut expected = Vec::new();
    for round in 0..3 {
        let node = home.start();
        let mut client = node.client();
        let mut rows = client.quotas().expect("told");
        rows.sort_by_key(|row| (row.table, row.partition));
        assert_eq!(rows, expected, "round {round}");
        let name = format!("t{round}");
        let quota = Quota { weight: 5, burst_ms: 77, ..writes(1 << 30) };
        client
            .create_table(lode_net::client::TableOptions { quota, ..table::durable(&name, 4) })
            .expect("new");
        client.set_partition_quota(&name, b"k", Some(reads(1 << 20))).expect("set");
        client.create_table(table::durable(&format!("later{round}"), 2)).expect("new");
        client.set_quota(&format!("later{round}"), Some(requests(MAX_QUOTA_PER_S))).expect("set");
        client
            .create_table(lode_net::client::TableOptions { quota, ..table::durable("gone", 1) })
            .expect("new");
        client.drop_table("gone").expect("dropped");
        if round == 1 {
            client.checkpoint().expect("there is room");
        }
        expected = client.quotas().expect("told");
        expected.sort_by_key(|row| (row.table, row.partition));
        assert_eq!(expected.len(), 3 * (round + 1));
        drop(client);
        node.kill();
    }
}

#[test]
fn numbers_that_cannot_be_are_refused_and_those_that_just_can_are_not() {
    let home = Home::new();
    let node = home.start();
    let mut client = node.client();
    client.create_table(table::durable("t", 2)).expect("the table is new");
    let plain = Quota::default();
    let good = [
        Quota { weight: 1, burst_ms: 1, ..plain },
        Quota { weight: MAX_WEIGHT, burst_ms: MAX_BURST_MS, ..requests(MAX_QUOTA_PER_S) },
        Quota { read_bytes_per_s: MAX_QUOTA_PER_S, ..writes(MAX_QUOTA_PER_S) },
    ];
    for quota in good {
        client.set_quota("t", Some(quota)).unwrap_or_else(|error| panic!("{quota:?}: {error}"));
        client.put("t", b"k", b"v").expect("within it");
    }
    let bad = [
        Quota { weight: 0, ..plain },
        Quota { weight: MAX_WEIGHT + 1, ..plain },
        Quota { burst_ms: 0, ..plain },
        Quota { burst_ms: MAX_BURST_MS + 1, ..plain },
        requests(MAX_QUOTA_PER_S + 1),
        reads(MAX_QUOTA_PER_S + 1),
        writes(MAX_QUOTA_PER_S + 1),
    ];
    for quota in bad {
        let refused = client.set_quota("t", Some(quota));
        assert!(matches!(refused, Err(TableError::BadQuota(_))), "{quota:?}: {refused:?}");
        let refused = client.set_partition_quota("t", b"k", Some(quota));
        assert!(matches!(refused, Err(TableError::BadQuota(_))), "{quota:?}: {refused:?}");
        let made = client.create_table(lode_net::client::TableOptions { quota, ..table::durable("u", 1) });
        assert!(matches!(made, Err(TableError::BadQuota(_))), "{quota:?}: {made:?}");
    }
}

#[tokio::test]
async fn the_async_client_and_transactions_know_it_too() {
    let home = Home::new();
    let node = home.start();
    let mut blocking = node.client();
    table_with(&mut blocking, "t", writes(SLOW));
    let client =
        AsyncClient::connect(&node.addr.to_string(), ClientOptions::default()).await.expect("it runs");
    client.put("t", b"k", &[1; 1000]).await.expect("nothing is spent yet");
    let refused = client.put("t", b"k", &[1; 1000]).await;
    assert!(matches!(refused, Err(WriteError::Throttled { .. })));
    let ask = || client.put("t", b"k", &[1; 1000]);
    let refused = lode_net::client::patiently(Duration::from_millis(1), ask).await;
    assert!(matches!(refused, Err(WriteError::Throttled { .. })));
    let mut transaction = client.transaction("t", b"k", TransactionOptions::default()).await.expect("free");
    transaction.put(b"k", b"v").expect("kept here");
    let refused = transaction.commit().await;
    assert!(matches!(refused, Err(TransactionError::Write(WriteError::Throttled { .. }))), "{refused:?}");
    client.set_quota("t", None).await.expect("taken back");
    client.put("t", b"k", b"v").await.expect("no quota");
    assert_eq!(client.quotas().await, Ok(vec![]));
}
