//! The node is killed while it is being written to, and what its writers know is held against what is left.

use std::sync::Arc;
use std::time::Duration;

use lode_net::client::{Client, ClientOptions, Placement, Quota, Store, TableOptions};
use tokio::task::JoinSet;

use super::ledger::Ledger;
use super::node::Node;
use crate::cli::exit::{Exit, Failure};

/// The writers' table; each writer has a partition of it.
const TABLE: &str = "quickstart-crash";
/// Writers at the time of the kill.
const WRITERS: u32 = 32;
/// Keys of each writer: the first ones for batches, the others for puts.
const KEYS: u32 = 64;
/// Keys of each writer that are written in batches.
const BATCH_KEYS: usize = 16;
/// Writes of one batch.
const BATCH: usize = 4;
/// Of so many rounds one is a batch.
const BATCH_EVERY: usize = 5;
const LONGEST_VALUE_BYTES: usize = 8 * 1024;
/// Writing goes on for so long before the kill.
const WRITE_FOR: Duration = Duration::from_secs(2);
/// A writer whose node is gone should find out soon.
const WRITER_TIMEOUT: Duration = Duration::from_secs(5);

/// The ledger of the writers.
pub fn ledger(salt: u64) -> Ledger {
    Ledger::new(TABLE, WRITERS, KEYS, LONGEST_VALUE_BYTES, salt)
}

/// Runs of keys that are written together only.
pub fn batches() -> impl Iterator<Item = (usize, usize)> {
    (0..WRITERS as usize)
        .flat_map(|writer| (0..BATCH_KEYS / BATCH).map(move |run| (first_key(writer) + run * BATCH, BATCH)))
}

fn first_key(writer: usize) -> usize {
    writer * KEYS as usize
}

/// Makes the writers' table.
pub async fn make_table(client: &Client) -> Result<(), Failure> {
    let placement = Placement::Range { splits: Ledger::splits(WRITERS) };
    let options = TableOptions {
        name: TABLE.to_owned(),
        store: Store::Durable,
        placement,
        ttl: None,
        quota: Quota::default(),
    };
    client.create_table(options).await?;
    Ok(())
}

/// Writes with all writers, and kills the node in the middle of it.
pub async fn write_and_kill(node: Node, ledger: Arc<Ledger>) -> Result<(), Failure> {
    let addr = node.addr.to_string();
    let options = ClientOptions {
        request_timeout: WRITER_TIMEOUT,
        connect_timeout: WRITER_TIMEOUT,
        retries: 0,
        name: "lode-quickstart-writer".to_owned(),
        ..ClientOptions::default()
    };
    let client = Client::connect(&addr, options).await?;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS as usize {
        let (client, ledger) = (client.clone(), Arc::clone(&ledger));
        writers.spawn(async move {
            for round in 0.. {
                if let Err(error) = write(&client, &ledger, writer, round).await {
                    return error;
                }
            }
            String::new()
        });
    }
    tokio::time::sleep(WRITE_FOR).await;
    let early = writers.try_join_next();
    if let Some(Ok(error)) = early {
        return Err(node.failure(&format!("a write failed before the node was killed ({error})")));
    }
    node.kill()?;
    while writers.join_next().await.is_some() {}
    if ledger.acknowledged() == 0 {
        return Err(Failure::new(Exit::VerificationFailed, "nothing was acknowledged before the kill"));
    }
    Ok(())
}

async fn write(client: &Client, ledger: &Ledger, writer: usize, round: usize) -> Result<(), String> {
    let first = first_key(writer);
    if round.is_multiple_of(BATCH_EVERY) {
        let run = round / BATCH_EVERY % (BATCH_KEYS / BATCH);
        return ledger.batch(client, first + run * BATCH, BATCH).await.map_err(|error| error.to_string());
    }
    let single = BATCH_KEYS + round % (KEYS as usize - BATCH_KEYS);
    ledger.put(client, first + single).await.map_err(|error| error.to_string())
}
