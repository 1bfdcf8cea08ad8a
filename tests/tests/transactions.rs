//! Transactions on a real node: through both clients, across shards, over lost connections.

use std::thread;
use std::time::Duration;

use lode_net::client::blocking::Client;
use lode_net::client::{
    Client as AsyncClient, ClientOptions, Placement, Quota, Store, TableOptions, TransactionError,
    TransactionOptions, TransactionRange,
};
use lode_net::wire::limits::{MAX_BATCH_BYTES, MAX_BATCH_WRITES};
use lode_net::wire::{
    BatchBuilder, BatchWrite, RangeView, ReadView, RequestView, ScanView, Status, TransactionId,
};
use lode_tests::node::Home;
use lode_tests::wire::Wire;

const ACCOUNTS: u64 = 8;
const STEPS: u64 = 60;
const READ_ONLY: TransactionOptions = TransactionOptions { read_only: true, lifetime: None };

/// Small: nothing here needs room.
fn home() -> Home {
    Home::with(&["--size", "256MiB", "--shards", "2", "--memory", "128MiB"])
}

fn table(name: &str, store: Store) -> TableOptions {
    let placement = Placement::Range { splits: vec![b"m".to_vec()] };
    TableOptions { name: name.to_owned(), store, placement, ttl: None, quota: Quota::default() }
}

fn options() -> TransactionOptions {
    TransactionOptions::default()
}

fn number(value: Option<&[u8]>) -> u64 {
    value.map_or(0, |value| std::str::from_utf8(value).expect("text").parse().expect("a number"))
}

fn account(i: u64) -> Vec<u8> {
    format!("a{i}").into_bytes()
}

fn pairs(records: &[(impl AsRef<[u8]>, impl AsRef<[u8]>)]) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    records.iter().map(|(key, value)| (text(key.as_ref()), text(value.as_ref()))).collect()
}

#[test]
fn a_transaction_sees_one_instant_and_its_own_writes() {
    let home = home();
    let node = home.start();
    for store in [Store::Durable, Store::Memory] {
        let (mut client, mut other) = (node.client(), node.client());
        let name = format!("{store:?}").to_lowercase();
        client.create_table(table(&name, store)).expect("a table");
        for key in ["a", "c", "e"] {
            client.put(&name, key.as_bytes(), b"old").expect("a put");
        }
        let mut transaction = client.transaction(&name, b"a", options()).expect("begins");
        other.put(&name, b"c", b"new").expect("a put");
        other.delete(&name, b"e").expect("a delete");
        other.put(&name, b"b", b"new").expect("a put");
        transaction.put(b"d", b"own").expect("its partition");
        transaction.delete(b"a").expect("its partition");
        let refused = transaction.put(b"z", b"elsewhere");
        assert_eq!(refused, Err(TransactionError::OtherPartition { table: name.clone() }));
        let all = TransactionRange::default();
        let expected = [("c", "old"), ("d", "own"), ("e", "old")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(pairs(&transaction.scan(all).expect("a scan")), expected);
        let last_two = TransactionRange { reverse: true, limit: Some(2), ..all };
        let found = pairs(&transaction.scan(last_two).expect("a scan"));
        assert_eq!(found, [expected[2].clone(), expected[1].clone()]);
        assert_eq!(transaction.count(b"", None), Ok(3));
        assert_eq!(transaction.get(b"e").expect("a get").as_deref(), Some(&b"old"[..]));
        assert!(matches!(transaction.commit(), Err(TransactionError::Conflict { .. })));
        assert_eq!(client.get(&name, b"d"), Ok(None), "nothing of it was written");
    }
}

#[test]
fn transfers_keep_their_sum_and_readers_always_see_it() {
    let home = home();
    let node = home.start();
    let mut client = node.client();
    for store in [Store::Durable, Store::Memory] {
        let name = format!("{store:?}").to_lowercase();
        client.create_table(table(&name, store)).expect("a table");
        for i in 0..ACCOUNTS {
            client.put(&name, &account(i), b"100").expect("a put");
        }
        thread::scope(|scope| {
            for worker in 0..3 {
                let (name, mut client) = (name.clone(), node.client());
                scope.spawn(move || transfer(&mut client, &name, worker));
            }
            let (name, mut client) = (name.clone(), node.client());
            scope.spawn(move || {
                for _ in 0..STEPS {
                    let mut transaction = client.transaction(&name, b"a", READ_ONLY).expect("begins");
                    let mut sum = 0;
                    for i in 0..ACCOUNTS {
                        sum += number(transaction.get(&account(i)).expect("a get").as_deref());
                    }
                    assert_eq!(sum, ACCOUNTS * 100);
                    transaction.commit().expect("what only reads never conflicts");
                }
            });
        });
        let sum = (0..ACCOUNTS).map(|i| {
            let found = client.get(&name, &account(i)).expect("a get").expect("an account");
            number(Some(&found.value))
        });
        assert_eq!(sum.sum::<u64>(), ACCOUNTS * 100);
    }
}

fn transfer(client: &mut Client, name: &str, worker: u64) {
    for step in 0..STEPS {
        let (from, to) =
            (account((step * 3 + worker) % ACCOUNTS), account((step * 5 + worker * 2 + 1) % ACCOUNTS));
        if from == to {
            continue;
        }
        let moved = client.transact(name, b"a", |transaction| {
            let (has, had) = (transaction.get(&from)?, transaction.get(&to)?);
            let (has, had) = (number(has.as_deref()), number(had.as_deref()));
            let amount = has.min(7);
            transaction.put(&from, (has - amount).to_string().as_bytes())?;
            transaction.put(&to, (had + amount).to_string().as_bytes())
        });
        moved.expect("a transfer");
    }
}

#[test]
fn a_transaction_ends_with_its_connection_its_time_and_its_table() {
    let home = home();
    let node = home.start();
    let mut client = node.client();
    client.create_table(table("t", Store::Durable)).expect("a table");
    let longest = TransactionOptions { lifetime: Some(Duration::from_secs(60)), ..options() };
    for key in [b"a", b"z"] {
        let mut other = node.client();
        drop(other.transaction("t", key, longest).expect("begins"));
        assert_eq!(node.total("transactions_open"), 1, "dropped, it is open until its connection ends");
        drop(other);
        while node.total("transactions_open") > 0 {
            thread::sleep(Duration::from_millis(5));
        }
    }
    assert_eq!(node.total("transactions_ended"), 0, "their time was not over");
    let short = TransactionOptions { lifetime: Some(Duration::from_millis(1)), ..options() };
    let mut transaction = client.transaction("t", b"a", short).expect("begins");
    while transaction.get(b"a").is_ok() {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(transaction.get(b"a"), Err(TransactionError::Ended));
    let long = TransactionOptions { lifetime: Some(Duration::from_secs(61)), ..options() };
    let refused = client.transaction("t", b"a", long).map(drop);
    assert_eq!(refused, Err(TransactionError::Lifetime { lifetime_ms: 61_000 }));
    let mut transaction = client.transaction("t", b"a", READ_ONLY).expect("begins");
    assert_eq!(transaction.put(b"a", b"v"), Err(TransactionError::ReadOnly));
    let mut other = node.client();
    other.drop_table("t").expect("a drop");
    assert!(transaction.get(b"a").is_err());
    assert_eq!(node.total("transactions_open"), 0);
}

#[test]
fn a_transaction_is_its_connections_alone() {
    let home = home();
    let node = home.start();
    node.client().create_table(table("t", Store::Durable)).expect("a table");
    for key in [&b"a"[..], b"z"] {
        for at in 0..2 {
            let (mut wire, mut here, mut there) = (
                Wire::open_shard(node.addr, at),
                Wire::open_shard(node.addr, at),
                Wire::open_shard(node.addr, 1 - at),
            );
            let target = wire.map().table("t").unwrap().route(key).unwrap().target;
            let begun = wire.ask(&RequestView::Begin { target, read_only: false, lifetime_ms: 60_000 });
            assert_eq!(begun.status(), Status::Ok);
            let transaction = TransactionId(begun.header.aux);
            let get = RequestView::Within { target, transaction, read: ReadView::Get { key } };
            let scan = ScanView {
                range: RangeView::default(),
                reverse: false,
                keys_only: false,
                ttls: false,
                limit: 1,
                byte_budget: 1,
            };
            let scan = RequestView::Within { target, transaction, read: ReadView::Scan(scan) };
            let range = RangeView::default();
            let count = RequestView::Within { target, transaction, read: ReadView::Count { range } };
            let mut writes = BatchBuilder::new();
            writes.push(BatchWrite::Put { key, value: b"v" });
            let commit = RequestView::Commit { target, transaction, batch: writes.view() };
            let rollback = RequestView::Rollback { target, transaction };
            for foreign in [&mut here, &mut there] {
                for request in [&get, &scan, &count, &commit] {
                    assert_eq!(foreign.ask(request).status(), Status::TransactionEnded, "{request:?}");
                }
                assert_eq!(foreign.ask(&rollback).status(), Status::Ok, "as of one that has ended");
            }
            assert_eq!(wire.ask(&get).status(), Status::NotFound, "it goes on");
            assert_eq!(wire.ask(&commit).status(), Status::Ok);
            assert_eq!(node.client().delete("t", key).map(|deleted| deleted.existed), Ok(true));
        }
    }
    // Of many that a connection leaves behind, on both shards, none is left; those of others are.
    let (mut wire, mut other) = (Wire::open_shard(node.addr, 0), Wire::open_shard(node.addr, 0));
    let begin = |wire: &mut Wire, key: &[u8]| {
        let target = wire.map().table("t").unwrap().route(key).unwrap().target;
        let begun = wire.ask(&RequestView::Begin { target, read_only: true, lifetime_ms: 60_000 });
        assert_eq!(begun.status(), Status::Ok);
    };
    begin(&mut other, b"a");
    begin(&mut other, b"z");
    for _ in 0..100 {
        begin(&mut wire, b"a");
        begin(&mut wire, b"z");
    }
    assert_eq!(node.total("transactions_open"), 202);
    drop(wire);
    while node.total("transactions_open") > 2 {
        thread::sleep(Duration::from_millis(5));
    }
    thread::sleep(Duration::from_millis(20));
    assert_eq!((node.total("transactions_open"), node.total("transactions_ended")), (2, 0));
}

#[tokio::test]
async fn a_transaction_stays_on_its_connection() {
    let home = home();
    let node = home.start();
    let options = ClientOptions { connections_per_shard: 3, ..ClientOptions::default() };
    let client = AsyncClient::connect(&node.addr.to_string(), options).await.expect("a node");
    client.create_table(table("t", Store::Durable)).await.expect("a table");
    for round in 0..12u8 {
        let key = if round % 2 == 0 { b"a" } else { b"z" };
        let mut transaction =
            client.transaction("t", key, TransactionOptions::default()).await.expect("begins");
        for _ in 0..4 {
            client.get("t", key).await.expect("others take their turns meanwhile");
            transaction.get(key).await.expect("it is found");
        }
        transaction.put(key, &[round]).expect("its partition");
        transaction.commit().await.expect("nobody else writes");
    }
}

#[tokio::test]
async fn the_async_client_retries_what_conflicts() {
    let home = home();
    let node = home.start();
    let client =
        AsyncClient::connect(&node.addr.to_string(), ClientOptions::default()).await.expect("a node");
    client.create_table(table("t", Store::Durable)).await.expect("a table");
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let client = client.clone();
        workers.spawn(async move {
            for _ in 0..25 {
                let counted = client.transact("t", b"n", async |transaction| {
                    let sum = number(transaction.get(b"n").await?.as_deref()) + 1;
                    transaction.put(b"n", sum.to_string().as_bytes())
                });
                counted.await.expect("it is counted at last");
            }
        });
    }
    while let Some(done) = workers.join_next().await {
        done.expect("no worker panics");
    }
    let found = client.get("t", b"n").await.expect("a get").expect("a number");
    assert_eq!(number(Some(&found.value)), 100);
    let transaction = client.transaction("t", b"n", READ_ONLY).await.expect("begins");
    client.put("t", b"n", b"0").await.expect("a put");
    assert_eq!(transaction.count(b"", None).await, Ok(1));
    assert_eq!(number(transaction.get(b"n").await.expect("a get").as_deref()), 100);
    transaction.rollback().await.expect("an end");
}

#[test]
fn writes_that_no_commit_takes_are_refused_when_they_are_made() {
    let home = home();
    let node = home.start();
    let mut client = node.client();
    client.create_table(table("t", Store::Durable)).expect("made");
    let mut transaction = client.transaction("t", b"a", options()).expect("begun");
    let half = vec![1; MAX_BATCH_BYTES / 2 + 1];
    transaction.put(b"a1", &half).expect("it fits");
    let refused = transaction.put(b"a2", &half);
    assert!(matches!(refused, Err(TransactionError::Size { writes: 2, .. })), "{refused:?}");
    // What is written anew takes the place of what was, and what was refused none.
    transaction.put(b"a1", &half).expect("it fits again");
    transaction.put(b"a1", b"small").expect("and is small");
    transaction.put(b"a2", &half).expect("so that there is room");
    transaction.commit().expect("committed");
    assert_eq!(client.get("t", b"a1").expect("got").expect("there").value, b"small"[..]);
    let mut transaction = client.transaction("t", b"a", options()).expect("begun");
    for n in 0..MAX_BATCH_WRITES as u32 {
        transaction.delete(&[b"a", &n.to_be_bytes()[..]].concat()).expect("as many as a commit takes");
    }
    let refused = transaction.delete(b"b");
    assert!(matches!(refused, Err(TransactionError::Size { .. })), "{refused:?}");
    transaction.commit().expect("all but that one");
}
