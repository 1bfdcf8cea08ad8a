//! What the clients can do, in the order of `docs/client.md`, which quotes it: `cargo run -p lode-net --example tour`
//! against a node that runs at 127.0.0.1:7411. It makes the tables `people` and `orders`, and drops them.

use std::error::Error;
use std::time::Duration;

use lode_net::client::blocking::{self, Answer};
use lode_net::client::{
    Batch, Client, ClientOptions, Lifetime, Placement, PutOptions, Quota, ScanOptions, Store, TableOptions,
    TransactionRange, WriteError, patiently,
};

type Outcome = Result<(), Box<dyn Error>>;

#[tokio::main]
async fn main() -> Outcome {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7411".to_owned());
    tour(&addr).await?;
    tokio::task::spawn_blocking(move || blocking_tour(&addr).map_err(|error| error.to_string())).await??;
    println!("done");
    Ok(())
}

/// The client for tokio.
pub async fn tour(addr: &str) -> Outcome {
    let client = Client::connect(addr, ClientOptions::default()).await?;
    tables(&client).await?;
    records(&client).await?;
    conditions(&client).await?;
    times(&client).await?;
    several(&client).await?;
    order(&client).await?;
    transfer(&client, b"alice:purse", b"alice:savings", 30).await?;
    patience(&client).await?;
    client.drop_table("people").await?;
    client.drop_table("orders").await?;
    Ok(())
}

async fn tables(client: &Client) -> Outcome {
    client
        .create_table(TableOptions {
            name: "people".to_owned(),
            store: Store::Durable,
            placement: Placement::Hash { partitions: 64 },
            ttl: None,
            quota: Quota::default(),
        })
        .await?;
    client
        .create_table(TableOptions {
            name: "orders".to_owned(),
            store: Store::Compact,
            placement: Placement::Range { splits: vec![b"2026-07".to_vec()] },
            ttl: Some(Duration::from_secs(90 * 24 * 3600)),
            quota: Quota { requests_per_s: 10_000, ..Quota::default() },
        })
        .await?;
    Ok(())
}

async fn records(client: &Client) -> Outcome {
    let written = client.put("people", b"alice", b"{\"age\": 34}").await?;
    assert!(!written.existed);
    let record = client.get("people", b"alice").await?.expect("it was just written");
    assert_eq!(record.value, "{\"age\": 34}");
    assert_eq!(record.seq, written.seq);
    assert!(client.delete("people", b"alice").await?.existed);
    assert!(client.get("people", b"alice").await?.is_none());
    Ok(())
}

async fn conditions(client: &Client) -> Outcome {
    let first = client.put_if_absent("people", b"bob", b"1").await?;
    let second = client.compare_and_set("people", b"bob", b"2", first.seq).await?;
    match client.compare_and_set("people", b"bob", b"3", first.seq).await {
        Err(WriteError::ConditionFailed { current }) => assert_eq!(current, Some(second.seq)),
        other => panic!("somebody was there before: {other:?}"),
    }
    assert_eq!(client.increment("people", b"visits", 1).await?.number, 1);
    assert_eq!(client.increment("people", b"visits", 41).await?.number, 42);
    Ok(())
}

async fn times(client: &Client) -> Outcome {
    let hour = PutOptions { lifetime: Lifetime::For(Duration::from_secs(3600)), ..PutOptions::default() };
    client.put_with("people", b"token", b"secret", hour).await?;
    let left = client.time_left("people", b"token").await?.expect("it is there");
    assert!(left.duration() <= Some(Duration::from_secs(3600)));
    client.persist("people", b"token").await?;
    Ok(())
}

async fn several(client: &Client) -> Outcome {
    // All or none of it; keys of one partition, as these of a table by range.
    let batch =
        Batch::new().put(b"2026-01-05#17", b"tea").put(b"2026-01-05#18", b"milk").delete(b"2026-01-05#16");
    client.batch("orders", batch).await?;
    // These have nothing to do with each other: they are in flight together, and each is answered when it is durable.
    let puts = (0..100).map(|n| {
        let client = client.clone();
        tokio::spawn(async move { client.put("orders", format!("2026-08-{n:03}").as_bytes(), b"rice").await })
    });
    for put in puts.collect::<Vec<_>>() {
        put.await??;
    }
    Ok(())
}

async fn order(client: &Client) -> Outcome {
    let january =
        ScanOptions { start: b"2026-01".to_vec(), end: Some(b"2026-02".to_vec()), ..ScanOptions::default() };
    let mut found = client.scan("orders", january);
    while let Some(record) = found.next().await {
        let record = record?;
        println!("{} {}", record.key.escape_ascii(), record.value.escape_ascii());
    }
    let latest = ScanOptions { reverse: true, limit: Some(3), ..ScanOptions::default() };
    assert_eq!(client.scan("orders", latest).collect().await?.len(), 3);
    assert_eq!(client.count("orders", b"2026-08", None).await?, 100);
    assert_eq!(client.min("orders").await?.expect("there are orders").key, "2026-01-05#17");
    Ok(())
}

fn number(value: Option<impl AsRef<[u8]>>) -> u64 {
    value.and_then(|value| std::str::from_utf8(value.as_ref()).ok()?.parse().ok()).unwrap_or(0)
}

/// Moves an amount from one record to another, or does nothing where there is too little.
async fn transfer(client: &Client, from: &[u8], to: &[u8], amount: u64) -> Outcome {
    let orders = "orders";
    client.put(orders, from, b"100").await?;
    let moved = client
        .transact(orders, from, async |t| {
            let (has, other) = (number(t.get(from).await?), number(t.get(to).await?));
            if has < amount {
                return Ok(false);
            }
            t.put(from, (has - amount).to_string().as_bytes())?;
            t.put(to, (other + amount).to_string().as_bytes())?;
            Ok(true)
        })
        .await?;
    assert!(moved);
    let range = TransactionRange { start: b"alice:", end: Some(b"alice;"), ..TransactionRange::default() };
    let both = client.transact(orders, from, async |t| t.scan(range).await).await?;
    assert_eq!(both.len(), 2);
    Ok(())
}

async fn patience(client: &Client) -> Outcome {
    // A quota says how long to wait; this waits, and asks again.
    patiently(Duration::from_secs(5), || client.put("orders", b"2026-09-001", b"salt")).await?;
    Ok(())
}

/// The client for threads.
pub fn blocking_tour(addr: &str) -> Outcome {
    let mut client = blocking::Client::connect(addr, ClientOptions::default())?;
    client.create_table(TableOptions {
        name: "people".to_owned(),
        store: Store::Memory,
        placement: Placement::Hash { partitions: 8 },
        ttl: None,
        quota: Quota::default(),
    })?;
    let answers = client.pipeline().put("people", b"carol", b"1").put("people", b"dave", b"2").run();
    assert!(answers.iter().all(|answer| matches!(answer, Answer::Write(Ok(_)))));
    assert_eq!(client.get("people", b"carol")?.expect("it was just written").value, "1");
    client.drop_table("people")?;
    Ok(())
}
