//! Stores or compares chunks, many records at a time. Records go to lanes by a hash of their key and each lane
//! works in order, so of two rows with one key the later one wins, as it would without any parallelism.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use lode_net::client::{Client, WriteError, patiently};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::chunks::Chunk;
use super::fingerprint::Fingerprint;
use crate::cli::exit::{Exit, Failure};
use lode_node::escape::escape;
use lode_node::input::{InputError, InputRecord, Position};

/// Requests in flight at most.
const LANES: usize = 128;
/// A put whose outcome is unknown is sent again so often; a put of the same bytes may take place twice.
const PUT_ATTEMPTS: u32 = 5;
const PUT_RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How long a record may wait for its partition's quota.
const QUOTA_PATIENCE: Duration = Duration::from_secs(600);
/// Differing keys that are kept by name; beyond it something is wrong with everything.
const MAX_DIFFERENCES: usize = 10_000;

/// What is done with each record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Put it.
    Store,
    /// Get its key, and hold the value against the record's.
    Compare,
}

/// Chunks that are done, in order of the input.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Done {
    /// Records stored or compared.
    pub records: u64,
    /// Of those, how many had a new key (on storing) or the right value (on comparing).
    pub fresh: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Bytes of the input.
    pub input_bytes: u64,
    /// Records left out.
    pub skipped: u64,
    /// The cap was met.
    pub capped: bool,
    /// Everything before it is done.
    pub position: Position,
    /// Keys whose value is another, or that are not there; ascending.
    pub differing: Vec<Vec<u8>>,
}

struct ChunkState {
    number: u64,
    left: AtomicUsize,
    fresh: AtomicU64,
    summary: Done,
    /// What was left out, as messages.
    skipped: Vec<String>,
}

struct Item {
    record: InputRecord,
    chunk: Arc<ChunkState>,
}

/// Called after each chunk, in the order of the input: what is done of everything up to it, and what was left out
/// in it.
pub type EachChunk<'a> = dyn FnMut(&Done, &[String]) -> Result<(), Failure> + 'a;

/// How [`run`] works.
pub struct LaneOptions {
    /// The table.
    pub table: String,
    /// What to do.
    pub work: Work,
    /// Chunks in flight; bounds the memory together with a chunk's size.
    pub parallel: usize,
    /// Takes note of every record, where somebody wants to know whether the input stays the same.
    pub fingerprint: Option<Arc<Fingerprint>>,
}

/// Works through all chunks.
pub async fn run(
    client: &Client,
    options: &LaneOptions,
    mut chunks: mpsc::Receiver<Result<Chunk, InputError>>,
    each: &mut EachChunk<'_>,
) -> Result<Done, Failure> {
    let (done_sender, mut done) = mpsc::unbounded_channel();
    let mut workers = JoinSet::new();
    let lanes: Vec<mpsc::UnboundedSender<Item>> = (0..LANES)
        .map(|_| {
            let (sender, receiver) = mpsc::unbounded_channel();
            workers.spawn(lane(
                client.clone(),
                options.table.clone(),
                options.work,
                receiver,
                done_sender.clone(),
            ));
            sender
        })
        .collect();
    drop(done_sender);

    let hasher = RandomState::new();
    let mut order = InOrder::default();
    let mut reading = true;
    while reading || order.in_flight() > 0 {
        tokio::select! {
            chunk = chunks.recv(), if reading && order.in_flight() < options.parallel as u64 => {
                let Some(chunk) = chunk else { reading = false; continue };
                let chunk = chunk.map_err(|error| unusable(&error))?;
                if let Some(fingerprint) = &options.fingerprint {
                    chunk.records.iter().for_each(|record| fingerprint.add(record));
                }
                send(chunk, &mut order, &lanes, &hasher, each)?;
            }
            finished = done.recv(), if order.in_flight() > 0 => {
                let chunk: Arc<ChunkState> = finished.expect("lanes live until their senders are dropped")?;
                order.finish(&chunk, each)?;
            }
        }
    }
    drop(lanes);
    let mut differing = Vec::new();
    while let Some(lane) = workers.join_next().await {
        differing.extend(lane.map_err(|error| Failure::new(Exit::Unknown, error))?);
    }
    let mut total = order.total;
    differing.sort_unstable();
    total.differing = differing;
    Ok(total)
}

fn send(
    chunk: Chunk,
    order: &mut InOrder,
    lanes: &[mpsc::UnboundedSender<Item>],
    hasher: &RandomState,
    each: &mut EachChunk<'_>,
) -> Result<(), Failure> {
    let (number, skipped) = order.begin(&chunk);
    let bytes = |record: &InputRecord| (record.key.len() + record.value.len()) as u64;
    let state = Arc::new(ChunkState {
        number,
        left: AtomicUsize::new(chunk.records.len()),
        fresh: AtomicU64::new(0),
        summary: Done {
            records: chunk.records.len() as u64,
            fresh: 0,
            bytes: chunk.records.iter().map(bytes).sum(),
            input_bytes: chunk.records.iter().map(|record| record.input_bytes).sum(),
            skipped,
            capped: chunk.capped,
            position: chunk.end,
            differing: Vec::new(),
        },
        skipped: chunk.skipped,
    });
    if chunk.records.is_empty() {
        return order.finish(&state, each);
    }
    for record in chunk.records {
        let lane = hasher.hash_one(&record.key) as usize % lanes.len();
        // A lane that has gone has told its failure, which ends everything.
        let _ = lanes[lane].send(Item { record, chunk: Arc::clone(&state) });
    }
    Ok(())
}

fn unusable(error: &InputError) -> Failure {
    let hint = match error {
        InputError::Bad { .. } => "; correct it, or leave such records out with --skip-bad",
        _ => "",
    };
    Failure::new(Exit::Input, format_args!("{error}{hint}"))
}

/// Puts finished chunks back into the order of the input.
#[derive(Default)]
struct InOrder {
    begun: u64,
    told: u64,
    waiting: Vec<Arc<ChunkState>>,
    total: Done,
}

impl InOrder {
    fn begin(&mut self, chunk: &Chunk) -> (u64, u64) {
        self.begun += 1;
        (self.begun - 1, chunk.skipped.len() as u64)
    }

    fn in_flight(&self) -> u64 {
        self.begun - self.told - self.waiting.len() as u64
    }

    fn finish(&mut self, chunk: &Arc<ChunkState>, each: &mut EachChunk<'_>) -> Result<(), Failure> {
        self.waiting.push(Arc::clone(chunk));
        while let Some(at) = self.waiting.iter().position(|chunk| chunk.number == self.told) {
            let chunk = self.waiting.swap_remove(at);
            self.told += 1;
            let one = &chunk.summary;
            self.total.records += one.records;
            self.total.fresh += chunk.fresh.load(Ordering::Acquire);
            self.total.bytes += one.bytes;
            self.total.input_bytes += one.input_bytes;
            self.total.skipped += one.skipped;
            self.total.capped |= one.capped;
            self.total.position = one.position.clone();
            each(&self.total, &chunk.skipped)?;
        }
        Ok(())
    }
}

/// Works through one lane in order; gives back the keys that differ.
async fn lane(
    client: Client,
    table: String,
    work: Work,
    mut items: mpsc::UnboundedReceiver<Item>,
    done: mpsc::UnboundedSender<Result<Arc<ChunkState>, Failure>>,
) -> HashSet<Vec<u8>> {
    let mut differing = HashSet::new();
    while let Some(Item { record, chunk }) = items.recv().await {
        let outcome = match work {
            Work::Store => store(&client, &table, &record).await,
            Work::Compare => compare(&client, &table, &record).await,
        };
        match outcome {
            Ok(true) => {
                chunk.fresh.fetch_add(1, Ordering::Release);
                // The key was in the input before, with a value that this one replaced.
                differing.remove(&record.key);
            }
            Ok(false) if work == Work::Compare && differing.len() < MAX_DIFFERENCES => {
                differing.insert(record.key);
            }
            Ok(false) => {}
            Err(failure) => {
                // The receiver is gone only when another failure came first.
                let _ = done.send(Err(failure.context(format_args!("key {:?}", escape(&record.key, None)))));
                return differing;
            }
        }
        if chunk.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            // As above.
            let _ = done.send(Ok(chunk));
        }
    }
    differing
}

/// Whether the key was new.
async fn store(client: &Client, table: &str, record: &InputRecord) -> Result<bool, Failure> {
    let mut attempt = 1;
    loop {
        match patiently(QUOTA_PATIENCE, || client.put(table, &record.key, &record.value)).await {
            Ok(written) => return Ok(!written.existed),
            Err(
                WriteError::Unknown { .. }
                | WriteError::Unreachable(_)
                | WriteError::Busy { .. }
                | WriteError::Timeout { .. },
            ) if attempt < PUT_ATTEMPTS => {
                attempt += 1;
                tokio::time::sleep(PUT_RETRY_PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether the value is the record's.
async fn compare(client: &Client, table: &str, record: &InputRecord) -> Result<bool, Failure> {
    let found = patiently(QUOTA_PATIENCE, || client.get(table, &record.key)).await?;
    Ok(found.is_some_and(|found| found.value == record.value))
}
