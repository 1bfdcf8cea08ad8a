//! The steps of quickstart, and what each has found.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lode_net::client::{Client, ClientOptions, Placement, Quota, ScanOptions, Store, TableOptions};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::crash;
use super::ledger::{Ledger, LedgerReport};
use super::node::Node;
use super::open_loop::{self, Measured, Mix};
use super::source::Source;
use crate::cli::drive;
use crate::cli::exit::{Exit, Failure};
use crate::cli::load::chunks::{self, ChunkOptions};
use crate::cli::load::fingerprint::Fingerprint;
use crate::cli::load::lanes::{self, Done, LaneOptions, Work};
use crate::cli::load::{TOLD_IN_FULL, first_of, names_of};
use crate::cli::output::say;
use crate::cli::progress::Progress;

/// The table that the data goes into.
const TABLE: &str = "quickstart";
/// The table that the open loop writes to, and its partitions.
const LOAD_TABLE: &str = "quickstart-load";
const LOAD_PARTITIONS: u32 = 16;
/// Keys that the open loop writes, and their longest value.
const LOAD_KEYS: u32 = 20_000;
const LOAD_VALUE_BYTES: usize = 1024;
/// Keys that the open loop reads.
const READ_KEYS: usize = 100_000;
/// Chunks in flight, and their size.
const PARALLEL: usize = 6;
const CHUNK_BYTES: u64 = 2 << 20;

/// What has been done and found so far.
pub struct Job<'a> {
    runtime: &'a Runtime,
    salt: u64,
    keys: Vec<Vec<u8>>,
    /// The input as it was loaded.
    as_loaded: Arc<Fingerprint>,
    /// What is loaded.
    pub source: Source,
    /// What was loaded.
    pub loaded: Done,
    /// How long that took.
    pub load_time: Duration,
    /// How long reading it back took.
    pub read_time: Duration,
    /// Partitions of the node.
    pub partitions: u64,
    /// Shards of the node.
    pub shards: u64,
    /// Bytes written to the device per byte of keys and values.
    pub write_amplification: f64,
    /// Reads of the device per GET that missed the cache.
    pub device_reads_per_cold_get: f64,
    /// Acknowledged writes that are not there.
    pub lost: u64,
    /// What is wrong, in words.
    faults: Vec<String>,
    /// The input was another when it was read again; in words.
    input_changed: Option<String>,
}

impl<'a> Job<'a> {
    /// Nothing done yet.
    pub fn new(runtime: &'a Runtime, source: Source) -> Job<'a> {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Job {
            runtime,
            salt: since_epoch.as_nanos() as u64,
            keys: Vec::new(),
            as_loaded: Arc::new(Fingerprint::new()),
            source,
            loaded: Done::default(),
            load_time: Duration::ZERO,
            read_time: Duration::ZERO,
            partitions: 0,
            shards: 0,
            write_amplification: 0.0,
            device_reads_per_cold_get: 0.0,
            lost: 0,
            faults: Vec::new(),
            input_changed: None,
        }
    }

    /// Everything that keeps this run from having verified what it should, in words.
    pub fn complaints(&self) -> Vec<String> {
        self.faults.iter().chain(&self.input_changed).cloned().collect()
    }

    /// How the run failed, if it did. That somebody else has changed the input is no fault of the node.
    pub fn failure(&self) -> Option<Failure> {
        let exit = match (self.faults.is_empty(), &self.input_changed) {
            (true, None) => return None,
            (true, Some(_)) => Exit::Input,
            (false, _) => Exit::VerificationFailed,
        };
        Some(Failure::new(exit, self.complaints().join("; ")))
    }

    fn connect(&self, node: &Node) -> Result<Client, Failure> {
        let options = ClientOptions {
            request_timeout: Duration::from_secs(60),
            name: "lode-quickstart".to_owned(),
            ..ClientOptions::default()
        };
        Ok(self.runtime.block_on(Client::connect(&node.addr.to_string(), options))?)
    }

    /// Loads everything, reads every byte back, and walks the keys.
    pub fn load(&mut self, node: &Node, partitions: u32) -> Result<(), Failure> {
        let client = self.connect(node)?;
        let table = |name: &str, partitions| TableOptions {
            name: name.to_owned(),
            store: Store::Durable,
            placement: Placement::Hash { partitions },
            ttl: None,
            quota: Quota::default(),
        };
        self.runtime.block_on(async {
            client.create_table(table(TABLE, partitions)).await?;
            client.create_table(table(LOAD_TABLE, LOAD_PARTITIONS)).await?;
            crash::make_table(&client).await
        })?;
        self.partitions = client.map().partition_count() as u64;

        let started = Instant::now();
        self.loaded = self.work(&client, "load", Work::Store, &self.as_loaded)?;
        self.load_time = started.elapsed();
        if self.loaded.records == 0 {
            let message = format!("there is nothing to load in {}", self.source.about);
            return Err(Failure::new(Exit::Input, message));
        }
        if self.loaded.capped {
            self.source.about.push_str(" (a part of it: there is more than quickstart takes)");
        }
        let started = Instant::now();
        let seen = Arc::new(Fingerprint::new());
        let read = self.work(&client, "read back", Work::Compare, &seen)?;
        self.read_time = started.elapsed();
        self.hold_against_input(&read, &seen, "after loading");
        self.walk(&client)?;
        let stats = self.runtime.block_on(client.stats())?;
        self.shards = stats.get("shards").and_then(Value::as_array).map_or(0, |shards| shards.len() as u64);
        Ok(())
    }

    /// Stores or compares the whole input; `seen` takes note of what it holds.
    fn work(
        &self,
        client: &Client,
        name: &'static str,
        work: Work,
        seen: &Arc<Fingerprint>,
    ) -> Result<Done, Failure> {
        // What has become bad since it was loaded shows as a change of the input.
        let skip_bad = self.source.skip_bad || work == Work::Compare;
        let cut = ChunkOptions { chunk_bytes: CHUNK_BYTES, skip_bad, cap: self.source.cap };
        let chunks = chunks::read(&self.source.input, &Default::default(), cut)
            .map_err(|error| Failure::new(Exit::Input, error))?;
        let options = LaneOptions {
            table: TABLE.to_owned(),
            work,
            parallel: PARALLEL,
            fingerprint: Some(Arc::clone(seen)),
        };
        let mut progress = Progress::new(name, self.source.input_bytes, 0);
        let (mut told, mut last) = (0, Done::default());
        let done = self.runtime.block_on(lanes::run(client, &options, chunks, &mut |done, skipped| {
            if work == Work::Store {
                let left = TOLD_IN_FULL.saturating_sub(told);
                skipped.iter().take(left).for_each(|message| say(format_args!("left out: {message}")));
                told += skipped.len();
            }
            progress.add(done.input_bytes - last.input_bytes, done.records - last.records);
            last = done.clone();
            Ok(())
        }));
        progress.finish();
        done
    }

    /// Notes what a comparison with the input has found; gives back how many records are wrong on the node. A key whose
    /// value in the input is another than when it was loaded says nothing of the node.
    fn hold_against_input(&mut self, read: &Done, seen: &Fingerprint, when: &str) -> u64 {
        let (wrong, changed): (Vec<_>, Vec<_>) =
            read.differing.iter().cloned().partition(|key| self.as_loaded.agrees_on(seen, key));
        if !self.as_loaded.agrees(seen) && self.input_changed.is_none() {
            let keys = match changed.as_slice() {
                [] => String::new(),
                keys => format!(" (among them {})", first_of(&names_of(keys))),
            };
            self.input_changed = Some(format!(
                "the input was changed while quickstart ran{keys}: {} records and {} bytes when it was loaded, {} and {} \
                 {when}, so not all of it could be compared; run it again on an input that stays as it is",
                self.loaded.records, self.loaded.bytes, read.records, read.bytes
            ));
        }
        if !wrong.is_empty() {
            let keys = first_of(&names_of(&wrong));
            self.faults.push(format!("{when} {} keys do not have their value: {keys}", wrong.len()));
        }
        wrong.len() as u64
    }

    /// Walks all keys in order: there must be as many as have been loaded, ascending, none twice.
    fn walk(&mut self, client: &Client) -> Result<(), Failure> {
        let (keys, walked, ordered) = self.runtime.block_on(async {
            let options = ScanOptions { keys_only: true, ..ScanOptions::default() };
            let mut scanner = client.scan(TABLE, options);
            let (mut keys, mut walked, mut ordered) = (Vec::new(), 0u64, true);
            let mut last = bytes::Bytes::new();
            while let Some(record) = scanner.next().await {
                let record = record?;
                ordered &= walked == 0 || last < record.key;
                walked += 1;
                if keys.len() < READ_KEYS {
                    keys.push(record.key.to_vec());
                }
                last = record.key;
            }
            Ok::<_, Failure>((keys, walked, ordered))
        })?;
        let count = self.runtime.block_on(client.count(TABLE, b"", None))?;
        if walked != self.loaded.fresh || count != walked || !ordered {
            self.faults.push(format!(
                "{} keys were loaded, a scan gives {walked} ({}), a count {count}",
                self.loaded.fresh,
                if ordered { "in order" } else { "out of order" }
            ));
        }
        self.keys = keys;
        Ok(())
    }

    /// The open-loop load. What it has written must be there after the crash, too.
    pub fn open_loop(&mut self, node: &Node, duration: Duration) -> Result<(Measured, Arc<Mix>), Failure> {
        let client = self.connect(node)?;
        let ledger = Ledger::new(LOAD_TABLE, 1, LOAD_KEYS, LOAD_VALUE_BYTES, self.salt);
        let keys = std::mem::take(&mut self.keys);
        let mix = Arc::new(Mix { client: client.clone(), table: TABLE.to_owned(), keys, ledger });
        say(format_args!("open-loop load for {} s", duration.as_secs_f64()));
        let measured = open_loop::run(self.runtime.handle(), &mix, duration)?;
        if measured.errors > 0 {
            let first = measured.first_error.as_deref().unwrap_or("?");
            self.faults
                .push(format!("{} operations of the load failed, the first: {first}", measured.errors));
        }
        // Counters start anew with the node, so they are read before it is killed.
        let stats = self.runtime.block_on(client.stats())?;
        self.write_amplification = total(&stats, "write_amplification");
        Ok((measured, mix))
    }

    /// Writes, and kills the node in the middle of it.
    pub fn crash(&mut self, node: Node) -> Result<Arc<Ledger>, Failure> {
        say(format_args!("writing, and then kill -9 in the middle of it"));
        let ledger = Arc::new(crash::ledger(self.salt));
        self.runtime.block_on(crash::write_and_kill(node, Arc::clone(&ledger)))?;
        say(format_args!(
            "killed with {} of its writes acknowledged; starting it again",
            ledger.acknowledged()
        ));
        Ok(ledger)
    }

    /// Holds everything that was ever acknowledged against what the restarted node has.
    pub fn after_crash(&mut self, node: &Node, crash_ledger: &Ledger, load: &Mix) -> Result<(), Failure> {
        let client = self.connect(node)?;
        let before = self.runtime.block_on(client.stats())?;
        let seen = Arc::new(Fingerprint::new());
        let read = self.work(&client, "re-read", Work::Compare, &seen)?;
        let after = self.runtime.block_on(client.stats())?;
        self.lost += self.hold_against_input(&read, &seen, "after the crash");
        // The cache was empty, so (nearly) each of these GETs was a cold one.
        let grown = |name: &str| total(&after, name) - total(&before, name);
        let cold_gets = grown("gets") - grown("get_cache_hits") - grown("get_misses");
        self.device_reads_per_cold_get =
            if cold_gets > 0.0 { grown("get_device_reads") / cold_gets } else { 0.0 };

        let crashed = self.runtime.block_on(crash_ledger.verify(&client, crash::batches()))?;
        self.hold_against_ledger(&crashed);
        let loaded = self.runtime.block_on(load.ledger.verify(&client, std::iter::empty()))?;
        self.hold_against_ledger(&loaded);
        self.walk(&client)
    }

    fn hold_against_ledger(&mut self, report: &LedgerReport) {
        self.lost += report.lost.len() as u64;
        for (what, keys) in [
            ("acknowledged writes are lost", &report.lost),
            ("keys hold what was never written", &report.wrong),
            ("batches are there in part", &report.torn_batches),
        ] {
            if !keys.is_empty() {
                self.faults.push(format!("after the crash {} {what}: {}", keys.len(), first_of(keys)));
            }
        }
    }

    /// Reads every checksum of the drive, with the node stopped.
    pub fn check_drive(&mut self, path: &Path) -> Result<(), Failure> {
        let report = drive::check_with_progress(path)?;
        self.faults.extend(drive::faults(&report));
        Ok(())
    }
}

/// A number of the node's totals.
fn total(stats: &Value, name: &str) -> f64 {
    stats.get("totals").and_then(|totals| totals.get(name)).and_then(Value::as_f64).unwrap_or(0.0)
}
