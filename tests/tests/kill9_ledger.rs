//! SIGKILL under mixed load, with a ledger of what was acknowledged. Nothing acknowledged may be lost,
//! nothing half-written may be seen, and a batch, or a transaction's commit, must be there as a whole or not at all.
//!
//! `LODE_KILL_ROUNDS` says how many rounds (5 by default), `LODE_SEED` from which seed.

use std::collections::BTreeMap;
use std::time::Duration;

use lode_net::client::{
    Batch, BatchError, Client, ClientOptions, Placement, Quota, ScanOptions, Seq, Store, TableOptions,
    TransactionError, TransactionOptions, WriteError, Written,
};
use lode_tests::node::{Home, Node};
use lode_tests::value::{self, Dice};

const TABLE: &str = "ledger";
/// Writers, each with its own partition: so many requests are in flight.
const WRITERS: u64 = 32;
/// Keys of one writer.
const KEYS: u64 = 150;
/// Most writes of a batch.
const MOST_BATCH: u64 = 12;

/// What a key holds: a version and its `Seq`, or nothing.
type State = Option<(u64, Seq)>;

/// What one writer knows of its own keys. Only it writes them, one request at a time.
struct Writer {
    prefix: Vec<u8>,
    keys: BTreeMap<Vec<u8>, State>,
    /// The request that was sent and not answered: what each of its keys would hold.
    unknown: BTreeMap<Vec<u8>, Option<u64>>,
    next_version: u64,
    dice: Dice,
    acknowledged: u64,
}

/// How a request ended.
enum Ended {
    /// It took place, and gave this version.
    Done(Seq),
    /// It did not take place, and the node goes on.
    Not,
    /// It did not take place, and the node is gone.
    Gone,
    /// It may have taken place; the node is gone.
    Perhaps,
}

impl Writer {
    fn new(number: u64, seed: u64) -> Writer {
        Writer {
            prefix: prefix(number),
            keys: BTreeMap::new(),
            unknown: BTreeMap::new(),
            next_version: 1,
            dice: Dice::new(seed.wrapping_mul(1000) + number),
            acknowledged: 0,
        }
    }

    fn draw_key(&mut self) -> Vec<u8> {
        let number = self.dice.below(KEYS);
        [self.prefix.as_slice(), format!("{number:05}").as_bytes()].concat()
    }

    /// Mostly small values, now and then one of many blocks.
    fn draw_value(&mut self, key: &[u8]) -> (u64, Vec<u8>) {
        let len = match self.dice.below(100) {
            0 => 200_000,
            1..5 => 20_000,
            _ => self.dice.below(3000) as usize,
        };
        let version = self.next_version;
        self.next_version += 1;
        (version, value::make(key, version, len))
    }

    /// Writes until the node is gone.
    async fn run(mut self, client: Client) -> Writer {
        loop {
            let (changes, ended) = match self.dice.below(10) {
                0..4 => self.put(&client).await,
                4..6 => self.delete(&client).await,
                6..8 => self.compare_and_set(&client).await,
                8 => self.batch(&client).await,
                _ => self.transaction(&client).await,
            };
            match ended {
                Ended::Done(seq) => {
                    self.acknowledged += 1;
                    for (key, version) in changes {
                        self.keys.insert(key, version.map(|version| (version, seq)));
                    }
                }
                Ended::Not => {}
                Ended::Gone => return self,
                Ended::Perhaps => {
                    self.unknown = changes;
                    return self;
                }
            }
        }
    }

    async fn put(&mut self, client: &Client) -> (BTreeMap<Vec<u8>, Option<u64>>, Ended) {
        let key = self.draw_key();
        let (version, value) = self.draw_value(&key);
        let ended = ended(client.put(TABLE, &key, &value).await.map(|written| written.seq));
        (BTreeMap::from([(key, Some(version))]), ended)
    }

    async fn delete(&mut self, client: &Client) -> (BTreeMap<Vec<u8>, Option<u64>>, Ended) {
        let key = self.draw_key();
        let ended = ended(client.delete(TABLE, &key).await.map(|written| written.seq));
        (BTreeMap::from([(key, None)]), ended)
    }

    /// The condition is right or wrong by the ledger, and the node must see it the same way.
    async fn compare_and_set(&mut self, client: &Client) -> (BTreeMap<Vec<u8>, Option<u64>>, Ended) {
        let key = self.draw_key();
        let (version, value) = self.draw_value(&key);
        let present = self.keys.get(&key).copied().flatten();
        let ought_to_hold = self.dice.below(4) > 0;
        let result = match present {
            Some((_, seq)) if ought_to_hold => client.compare_and_set(TABLE, &key, &value, seq).await,
            None if ought_to_hold => client.put_if_absent(TABLE, &key, &value).await,
            Some(_) => client.put_if_absent(TABLE, &key, &value).await,
            None => client.compare_and_set(TABLE, &key, &value, Seq::default()).await,
        };
        if let Err(WriteError::ConditionFailed { current }) = &result {
            assert!(!ought_to_hold, "the ledger has {present:?}, the node {current:?}");
            assert_eq!(*current, present.map(|(_, seq)| seq), "of {}", show(&key));
        } else {
            assert!(ought_to_hold || result.is_err(), "a condition that does not hold was taken");
        }
        (BTreeMap::from([(key, Some(version))]), ended(result.map(|written| written.seq)))
    }

    /// Several writes: of each key its version, and its value; `None` deletes.
    fn draw_writes(&mut self) -> BTreeMap<Vec<u8>, Option<(u64, Vec<u8>)>> {
        let mut writes = BTreeMap::new();
        for _ in 0..2 + self.dice.below(MOST_BATCH - 1) {
            let key = self.draw_key();
            let write = if self.dice.below(4) == 0 { None } else { Some(self.draw_value(&key)) };
            writes.insert(key, write);
        }
        writes
    }

    async fn batch(&mut self, client: &Client) -> (BTreeMap<Vec<u8>, Option<u64>>, Ended) {
        let writes = self.draw_writes();
        let mut batch = Batch::new();
        for (key, write) in &writes {
            batch = match write {
                Some((_, value)) => batch.put(key, value),
                None => batch.delete(key),
            };
        }
        let ended = match client.batch(TABLE, batch).await {
            Ok(_) => Ended::Done(Seq::default()),
            Err(BatchError::Write(error)) => ended(Err(error)),
            Err(error) => panic!("a batch failed: {error}"),
        };
        self.all_or_nothing(client, writes, ended).await
    }

    /// Reads some of its keys, which are as the ledger says, and writes others. Nobody else writes its keys, so
    /// it never conflicts.
    async fn transaction(&mut self, client: &Client) -> (BTreeMap<Vec<u8>, Option<u64>>, Ended) {
        let writes = self.draw_writes();
        let ended = match self.commit(client, &writes).await {
            Ok(written) => Ended::Done(written.seq),
            Err(TransactionError::Write(error)) => ended(Err(error)),
            // Before the commit was sent: whether the node is gone, the next request finds out.
            Err(TransactionError::Read(_) | TransactionError::Ended) => Ended::Not,
            Err(error) => panic!("a transaction failed: {error}"),
        };
        self.all_or_nothing(client, writes, ended).await
    }

    async fn commit(
        &mut self,
        client: &Client,
        writes: &BTreeMap<Vec<u8>, Option<(u64, Vec<u8>)>>,
    ) -> Result<Written, TransactionError> {
        let options = TransactionOptions::default();
        let mut transaction = client.transaction(TABLE, &self.prefix, options).await?;
        for _ in 0..self.dice.below(4) {
            let key = self.draw_key();
            let seen = transaction.get(&key).await?.map(|value| known(&key, &value));
            let noted = self.keys.get(&key).copied().flatten().map(|(version, _)| version);
            assert_eq!(seen, noted, "{} in a transaction", show(&key));
        }
        for (key, write) in writes {
            match write {
                Some((_, value)) => transaction.put(key, value)?,
                None => transaction.delete(key)?,
            }
        }
        transaction.commit().await
    }

    /// What became of several writes that are there together or not at all.
    async fn all_or_nothing(
        &mut self,
        client: &Client,
        writes: BTreeMap<Vec<u8>, Option<(u64, Vec<u8>)>>,
        ended: Ended,
    ) -> (BTreeMap<Vec<u8>, Option<u64>>, Ended) {
        let version = |write: Option<(u64, Vec<u8>)>| write.map(|(version, _)| version);
        let changes: BTreeMap<_, _> = writes.into_iter().map(|(key, write)| (key, version(write))).collect();
        // A batch gives one Seq for all its writes; what each key has is read when it is needed.
        if let Ended::Done(_) = ended {
            let seqs = self.read_back(client, &changes).await;
            return seqs.map_or((changes, Ended::Done(Seq::default())), |seqs| {
                self.acknowledged += 1;
                self.keys.extend(seqs);
                (BTreeMap::new(), Ended::Not)
            });
        }
        (changes, ended)
    }

    /// What the keys of an acknowledged batch hold now; `None` where the node is gone.
    async fn read_back(
        &self,
        client: &Client,
        changes: &BTreeMap<Vec<u8>, Option<u64>>,
    ) -> Option<BTreeMap<Vec<u8>, State>> {
        let mut states = BTreeMap::new();
        for (key, version) in changes {
            let found = client.get(TABLE, key).await.ok()?;
            let state = found.map(|record| (known(key, &record.value), record.seq));
            assert_eq!(state.map(|(version, _)| version), *version, "{} after its batch", show(key));
            states.insert(key.clone(), state);
        }
        Some(states)
    }

    /// Compares everything the node has with the ledger, and takes over what an unknown request did.
    async fn verify(&mut self, client: &Client) {
        let (start, end) = (self.prefix.clone(), [self.prefix.as_slice(), b"~"].concat());
        let options = ScanOptions { start, end: Some(end), ..ScanOptions::default() };
        let records = client.scan(TABLE, options).collect().await.expect("a restarted node can be scanned");
        let found: BTreeMap<Vec<u8>, (u64, Seq)> = records
            .iter()
            .map(|record| (record.key.to_vec(), (known(&record.key, &record.value), record.seq)))
            .collect();
        let version_of = |key: &Vec<u8>| found.get(key).map(|(version, _)| *version);
        let took_place = self.unknown.iter().filter(|(key, version)| {
            let before = self.keys.get(*key).copied().flatten().map(|(version, _)| version);
            // A delete of nothing cannot be told from no delete: it agrees with both.
            version_of(key) == **version && before != **version
        });
        let took_place = took_place.count() > 0;
        if took_place {
            for (key, version) in std::mem::take(&mut self.unknown) {
                self.keys.insert(key, version.map(|version| (version, Seq::default())));
            }
        }
        self.unknown.clear();
        for (key, state) in &self.keys {
            let expected = state.map(|(version, _)| version);
            assert_eq!(version_of(key), expected, "{} (unknown took place: {took_place})", show(key));
            let seqs = state.zip(found.get(key)).map(|((_, noted), (_, read))| (noted, *read));
            let same = seqs.is_none_or(|(noted, read)| noted == Seq::default() || noted == read);
            assert!(same, "{} came back with another Seq: {seqs:?}", show(key));
        }
        for key in found.keys() {
            assert!(self.keys.contains_key(key), "{} was never written", show(key));
        }
        let states = self.keys.keys().map(|key| (key.clone(), found.get(key).copied()));
        self.keys = states.collect();
    }
}

fn ended(result: Result<Seq, WriteError>) -> Ended {
    match result {
        Ok(seq) => Ended::Done(seq),
        Err(WriteError::Unknown { .. }) => Ended::Perhaps,
        Err(WriteError::Unreachable(_) | WriteError::Timeout { .. }) => Ended::Gone,
        Err(WriteError::ConditionFailed { .. } | WriteError::Busy { .. } | WriteError::Full { .. }) => {
            Ended::Not
        }
        Err(error) => panic!("a write failed: {error}"),
    }
}

/// The version of a value; panics where it is half-written or another key's.
fn known(key: &[u8], bytes: &[u8]) -> u64 {
    value::version(key, bytes).unwrap_or_else(|| panic!("{} holds {} damaged bytes", show(key), bytes.len()))
}

fn show(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

fn prefix(writer: u64) -> Vec<u8> {
    format!("w{writer:03}/").into_bytes()
}

fn from_environment(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        Err(_) => otherwise,
    }
}

async fn connect(node: &Node) -> Client {
    let options =
        ClientOptions { retries: 0, request_timeout: Duration::from_secs(30), ..ClientOptions::default() };
    Client::connect(&node.addr.to_string(), options).await.expect("a node that listens takes clients")
}

#[test]
fn nothing_acknowledged_is_lost_to_sigkill() {
    kill_and_verify(Store::Durable);
}

#[test]
fn nothing_acknowledged_is_lost_to_sigkill_with_a_compact_index() {
    kill_and_verify(Store::Compact);
}

fn kill_and_verify(store: Store) {
    let rounds = from_environment("LODE_KILL_ROUNDS", 5);
    let seed = from_environment("LODE_SEED", 1);
    println!("LODE_KILL_ROUNDS={rounds} LODE_SEED={seed}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    // Small, so that the log goes round and is cleaned while the rounds go on.
    let home = Home::with(&["--size", "256MiB", "--shards", "2", "--memory", "128MiB"]);
    let mut node = home.start();
    let splits = (1..WRITERS).map(prefix).collect();
    node.client()
        .create_table(TableOptions {
            name: TABLE.to_owned(),
            store,
            placement: Placement::Range { splits },
            ttl: None,
            quota: Quota::default(),
        })
        .expect("the drive is empty");
    let mut writers: Vec<Writer> = (0..WRITERS).map(|number| Writer::new(number, seed)).collect();
    let mut dice = Dice::new(seed);
    for round in 1..=rounds {
        let load = Duration::from_millis(50 + dice.below(700));
        writers = runtime.block_on(async {
            let client = connect(&node).await;
            let running: Vec<_> =
                writers.into_iter().map(|writer| tokio::spawn(writer.run(client.clone()))).collect();
            tokio::time::sleep(load).await;
            node.kill();
            let mut stopped = Vec::new();
            for writer in running {
                stopped.push(writer.await.expect("a writer sees nothing it must not"));
            }
            stopped
        });
        node = home.start();
        runtime.block_on(async {
            let client = connect(&node).await;
            for writer in &mut writers {
                writer.verify(&client).await;
            }
        });
        let acknowledged: u64 = writers.iter().map(|writer| writer.acknowledged).sum();
        println!("round {round}: killed after {} ms, {acknowledged} acknowledged so far", load.as_millis());
    }
    let acknowledged: u64 = writers.iter().map(|writer| writer.acknowledged).sum();
    assert!(acknowledged > rounds * 10, "only {acknowledged} writes were acknowledged: nothing was tested");
}
