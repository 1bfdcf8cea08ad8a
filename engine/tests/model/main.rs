//! A shard against a plain ordered map: random operations, crashes and restarts on a simulated drive,
//! everything from one printed seed.
//!
//! `LODE_SEEDS=1000 LODE_SEED_START=1 cargo test --release -p lode-engine --test model` runs more.
#![allow(missing_docs)]

mod checks;
mod counters;
mod expiry;
mod state;
#[path = "../support/mod.rs"]
mod support;
mod tally;
mod transactions;

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};

use lode_engine::{
    BatchWrite, CatalogError, Condition, Geometry, IndexKind, KeyRange, ReadError, Reply, ReplyBody, Request,
    RequestBody, RequestId, Seq, StoreKind, TableId, TransactionId, Ttl, WriteError,
};
use state::{State, Time};
use support::Sim;
use support::ask::{partition_spec, table_spec, target, use_index};
use tally::Tally;

/// Partitions of the durable table that is there all the time.
const PARTITIONS: u32 = 5;
/// The partition of the memory table.
const MEMORY: u32 = 9;
/// Partitions of a table that comes and goes.
const CHURN_PARTITIONS: u32 = 40;
/// How long records of every second such table live.
const CHURN_TTL_MS: u64 = 250;
const GROUPS: u64 = 6;
const GROUP_KEYS: u64 = 8;

/// What is known of one key.
#[derive(Default, Clone)]
struct Key {
    /// Every state that was ever acknowledged, in order. Starts absent.
    acknowledged: Vec<State>,
    /// Version of the last acknowledged write, where known.
    seq: Option<Seq>,
    /// Writes sent and not answered, and the time to live that they give.
    pending: Vec<(RequestId, State, Option<u64>)>,
    /// Writes that took place since the last look.
    wins: Vec<Win>,
}

/// A write that took place.
#[derive(Clone)]
struct Win {
    seq: Seq,
    state: State,
    condition: Condition,
}

impl Key {
    fn last(&self) -> State {
        self.acknowledged.last().cloned().unwrap_or_default()
    }
}

enum Sent {
    Write { keys: Vec<(u32, Vec<u8>)>, condition: Condition, is_commit: bool },
    Get { partition: u32, key: Vec<u8>, known: usize, might: Vec<State>, since: Time },
    Scan { partition: u32 },
    Increment { name: (u32, Vec<u8>), by: i64 },
    Begin { read_only: bool },
    Within { transaction: TransactionId, group: u64, i: u64 },
    ScanWithin { transaction: TransactionId, group: u64 },
    Create,
    Drop,
    Other,
}

/// The table that comes and goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Churn {
    Absent,
    Creating,
    Live,
    Dropping,
}

struct Model {
    sim: Sim,
    keys: BTreeMap<(u32, Vec<u8>), Key>,
    counters: BTreeMap<(u32, Vec<u8>), counters::Counter>,
    sent: BTreeMap<RequestId, Sent>,
    /// The open transactions.
    open: Vec<transactions::Open>,
    groups: u64,
    seed: u64,
    longest: u64,
    churn: Churn,
    churn_table: u32,
    /// The highest version acknowledged of a durable record, and that before the last crash.
    highest: Seq,
    floor: Seq,
    tally: Tally,
}

/// Drive, segment and longest value in KiB: from the smallest that there is.
const DRIVES_KIB: [(u64, u32, u64); 4] = [(6 << 10, 64, 12), (1280, 64, 12), (768, 32, 1), (2304, 128, 30)];

impl Model {
    fn new(seed: u64) -> Model {
        let (drive_kib, segment_kib, longest_kib) = DRIVES_KIB[(seed / 2 % 4) as usize];
        let longest = longest_kib << 10;
        let geometry = Geometry::plan(drive_kib << 10, 1, Some(segment_kib << 10), longest as u32);
        let geometry = geometry.expect("the drives are large enough");
        let mut sim = Sim::format(seed, geometry, |config| {
            config.cache_bytes = [0, 64 << 10, 4 << 20][(seed % 3) as usize];
            config.frame_bytes = [8 << 10, 32 << 10][(seed / 3 % 2) as usize];
            config.frames_in_flight = 1 + (seed / 6 % 4) as usize;
            config.commit_window_ns = [0, 50_000, 1_000_000][(seed / 5 % 3) as usize];
            config.discard = seed.is_multiple_of(2);
            config.scrub_bytes_per_s = [0, 1 << 30][(seed / 2 % 2) as usize];
            if drive_kib > 6000 {
                config.lanes = 1 + (seed % 3) as u32;
            }
            if seed.is_multiple_of(7) {
                config.checkpoint_interval_bytes = 64 << 10;
            }
        });
        let is_compact = seed % 4 >= 2;
        use_index(if is_compact { IndexKind::Compact } else { IndexKind::Full });
        sim.create(1, StoreKind::Durable, &[1, 2, 3, 4, 5]).expect("the drive is empty");
        sim.create(2, StoreKind::Memory, &[MEMORY]).expect("the drive is empty");
        Model {
            sim,
            keys: BTreeMap::new(),
            counters: BTreeMap::new(),
            sent: BTreeMap::new(),
            open: Vec::new(),
            groups: 0,
            seed,
            longest,
            churn: Churn::Absent,
            churn_table: 10,
            highest: Seq::default(),
            floor: Seq::default(),
            tally: Tally::default(),
        }
    }

    /// Of lengths that often recur: a record that took the place of one of the same length is the
    /// hardest to tell from it.
    fn value(&mut self) -> Vec<u8> {
        self.tally.values += 1;
        let random = &mut self.sim.random;
        let len = match random.below(20) {
            0 => random.below(self.longest + 1),
            1 => self.longest,
            2..=4 => self.longest / 3,
            _ => 200,
        };
        let mut value = self.tally.values.to_le_bytes().to_vec();
        value.resize(len.max(8) as usize, self.tally.values as u8);
        value
    }

    /// How long records of the churning table live: of every second one not long.
    fn churn_ttl_ms(&self) -> Option<u64> {
        self.churn_table.is_multiple_of(2).then_some(CHURN_TTL_MS)
    }

    /// Partitions of the churning table: never the same again.
    fn churn_partitions(&self) -> std::ops::Range<u32> {
        self.churn_table * 100..self.churn_table * 100 + CHURN_PARTITIONS
    }

    fn key(&mut self) -> (u32, Vec<u8>) {
        let churn = self.churn_partitions();
        let random = &mut self.sim.random;
        let partition = match random.below(10) {
            0 => MEMORY,
            1 | 2 if self.churn == Churn::Live => churn.start + random.below(4) as u32,
            _ => 1 + random.below(u64::from(PARTITIONS)) as u32,
        };
        let i = random.below(random_space(self.seed));
        // A compact index knows little of keys that are long, and nothing of their ends.
        let key = match self.seed % 4 {
            2 => format!("key/{:04}{:0>300}/{}", i / 2 * (i / 2) % 9_973, i % 3 / 2, i % 2),
            3 => format!("{:0>150}/{:05}{:0>90}", i % 5, i * i % 99_991, i % 7),
            _ => format!("key/{:05}", i * i % 99_991),
        };
        (partition, key.into_bytes())
    }

    /// A few requests at once, and a step.
    fn act(&mut self) {
        for _ in 0..self.sim.random.below(6) {
            match self.sim.random.below(100) {
                0..=39 => self.put(),
                40..=49 => self.delete(),
                50..=54 => self.batch(),
                55..=64 => self.conditional(),
                65..=69 => self.increment(),
                70..=71 => self.expire(),
                72 => {
                    let ms = self.sim.random.below(50);
                    self.pass_time(ms);
                }
                73..=83 => self.get(),
                84..=93 => self.transact(),
                94..=96 => self.scan(),
                97 => self.checkpoint(),
                _ => self.churn(),
            }
        }
        self.step(&mut Vec::new());
    }

    /// Makes the table that comes and goes, or drops it.
    fn churn(&mut self) {
        let id = self.sim.next_id();
        let body = match self.churn {
            Churn::Absent => {
                self.churn = Churn::Creating;
                self.sent.insert(id, Sent::Create);
                let mut table = table_spec(self.churn_table, StoreKind::Durable);
                table.ttl_ms = self.churn_ttl_ms();
                let partitions =
                    self.churn_partitions().map(|p| partition_spec(self.churn_table, p)).collect();
                RequestBody::CreateTable { table, partitions }
            }
            Churn::Live => {
                self.churn = Churn::Dropping;
                self.sent.insert(id, Sent::Drop);
                RequestBody::DropTable { table: TableId(self.churn_table) }
            }
            Churn::Creating | Churn::Dropping => return,
        };
        self.step(&mut vec![Request { id, body }]);
    }

    /// The table is gone, or never was. Mostly the next has another id; a table that never came to be may
    /// well be tried again.
    fn churned(&mut self, again: bool) {
        let gone = self.churn_partitions();
        self.keys.retain(|(partition, _), _| !gone.contains(partition));
        self.churn = Churn::Absent;
        self.churn_table += u32::from(!again);
        self.tally.churned += 1;
    }

    fn step(&mut self, requests: &mut Vec<Request<'_>>) {
        self.sim.step(requests);
        for reply in std::mem::take(&mut self.sim.replies) {
            self.take(reply);
        }
    }

    fn send_write(
        &mut self,
        body: RequestBody<'_>,
        keys: Vec<(u32, Vec<u8>, Option<Vec<u8>>)>,
        condition: Condition,
        ttl: Ttl,
    ) {
        let id = self.sim.next_id();
        let now = self.time();
        let mut names = Vec::new();
        for (partition, key, value) in keys {
            let ttl_ms = self.ttl_in(partition, ttl);
            let state = State::sent(value, ttl_ms, now);
            self.keys.entry((partition, key.clone())).or_default().pending.push((id, state, ttl_ms));
            names.push((partition, key));
        }
        let is_commit = matches!(body, RequestBody::Commit { .. });
        self.sent.insert(id, Sent::Write { keys: names, condition, is_commit });
        self.step(&mut vec![Request { id, body }]);
    }

    fn put(&mut self) {
        let ((partition, key), value, ttl) = (self.key(), self.value(), self.ttl());
        let (target, condition) = (target(partition), Condition::Always);
        let body = match self.sim.random.percent(25) {
            true => {
                let writes = vec![BatchWrite::PutFor { key: &key, value: &value, ttl }];
                RequestBody::Batch { target, writes }
            }
            false => RequestBody::Put { target, key: &key, value: &value, condition, ttl },
        };
        self.send_write(body, vec![(partition, key.clone(), Some(value.clone()))], condition, ttl);
    }

    fn delete(&mut self) {
        let (partition, key) = self.key();
        let body = RequestBody::Delete { target: target(partition), key: &key, condition: Condition::Always };
        self.send_write(body, vec![(partition, key.clone(), None)], Condition::Always, Ttl::Never);
    }

    /// All keys of a group get the same value, so that half a batch shows.
    fn batch(&mut self) {
        self.groups += 1;
        let group = self.sim.random.below(GROUPS);
        let value = format!("batch {} of seed {}", self.groups, self.seed).into_bytes();
        let names: Vec<_> = (0..GROUP_KEYS).map(|i| format!("group/{group}/{i}").into_bytes()).collect();
        let put = |key| BatchWrite::Put { key, value: &value };
        let writes = names.iter().map(|key| put(key.as_slice())).collect();
        let keys = names.iter().map(|key| (1, key.clone(), Some(value.clone()))).collect();
        let body = RequestBody::Batch { target: target(1), writes };
        self.send_write(body, keys, Condition::Always, Ttl::Table);
    }

    /// Conditional writes of one key, of which at most one can win, while others of it may be under way.
    fn conditional(&mut self) {
        let (partition, key) = self.key();
        for _ in 0..1 + self.sim.random.below(3) {
            let (value, ttl, now) = (self.value(), self.ttl(), self.time());
            let known = self.keys.get(&(partition, key.clone())).cloned().unwrap_or_default();
            let last = known.last();
            let condition = match known.seq {
                _ if last.value.is_none() || last.may_be_over(now) => Condition::IfAbsent,
                Some(seq) if self.sim.random.percent(80) => Condition::IfSeq(seq),
                _ => Condition::IfSeq(Seq { wall_ns: 1, ..Seq::default() }),
            };
            let target = target(partition);
            let body = RequestBody::Put { target, key: &key, value: &value, condition, ttl };
            self.send_write(body, vec![(partition, key.clone(), Some(value.clone()))], condition, ttl);
        }
    }

    fn get(&mut self) {
        let ((partition, key), since) = (self.key(), self.time());
        let known = self.keys.entry((partition, key.clone())).or_default();
        let might = known.pending.iter().map(|(_, state, _)| state.clone()).collect();
        let id = self.sim.next_id();
        let sent = Sent::Get { partition, key: key.clone(), known: known.acknowledged.len(), might, since };
        self.sent.insert(id, sent);
        self.step(&mut vec![Request { id, body: RequestBody::Get { target: target(partition), key: &key } }]);
    }

    fn scan(&mut self) {
        let id = self.sim.next_id();
        let partition = 1 + self.sim.random.below(u64::from(PARTITIONS)) as u32;
        let reverse = self.sim.random.percent(50);
        let limit = 1 + self.sim.random.below(60) as u32;
        let (_, start) = self.key();
        let range = KeyRange { start: &start, end: None };
        let target = target(partition);
        let body =
            RequestBody::Scan { target, range, reverse, limit, byte_budget: 64 << 10, keys_only: false };
        self.sent.insert(id, Sent::Scan { partition });
        self.step(&mut vec![Request { id, body }]);
    }

    fn checkpoint(&mut self) {
        let id = self.sim.next_id();
        self.sent.insert(id, Sent::Other);
        self.step(&mut vec![Request { id, body: RequestBody::Checkpoint }]);
    }

    fn take(&mut self, reply: Reply) {
        let sent = self.sent.remove(&reply.id).expect("one reply per request");
        match (sent, reply.body) {
            (Sent::Write { keys, condition, is_commit }, ReplyBody::Write(result)) => {
                self.written(reply.id, &keys, (condition, is_commit), result);
            }
            (Sent::Begin { read_only }, ReplyBody::Begin(result)) => self.begun(read_only, result),
            (Sent::Within { transaction, group, i }, ReplyBody::Get(result)) => {
                self.got_within((transaction, group, i), result);
            }
            (Sent::ScanWithin { transaction, group }, ReplyBody::Scan(result)) => {
                self.scanned_within((transaction, group), result);
            }
            (Sent::Increment { name, by }, ReplyBody::Write(result)) => {
                self.incremented(reply.id, &name, by, result);
            }
            (Sent::Get { partition, key, known, might, since }, ReplyBody::Get(result)) => {
                if matches!(result, Err(ReadError::UnknownPartition(_))) {
                    assert!(partition >= 1000, "partition {partition} is gone");
                    return;
                }
                let found = result.unwrap_or_else(|error| panic!("get {key:?}: {error}"));
                let left = found.as_ref().map(|found| found.left);
                let value = found.map(|found| self.sim.value(found.value));
                let now = self.time();
                let Some(history) = self.keys.get(&(partition, key.clone())) else { return };
                let before = known.checked_sub(1).map(|i| history.acknowledged[i].clone());
                let since_then = history.acknowledged[known..].iter();
                let pending = history.pending.iter().map(|(_, state, _)| state);
                let before = before.unwrap_or_default();
                let possible = [&before].into_iter().chain(since_then).chain(&might).chain(pending);
                let mut seen = possible.filter(|state| state.allows(value.as_deref(), since, now)).peekable();
                let name = String::from_utf8_lossy(&key);
                assert!(seen.peek().is_some(), "get of {name} saw a value it cannot");
                if let Some(left) = left {
                    let mut fits = seen.filter(|state| state.fits(left, since, now));
                    assert!(fits.next().is_some(), "get of {name} says {left:?}");
                }
            }
            (Sent::Scan { partition }, ReplyBody::Scan(result)) => {
                let page = result.unwrap_or_else(|error| panic!("scan: {error}"));
                assert!(page.records.is_sorted_by(|a, b| a.key != b.key), "a scan shows a key twice");
                for record in &page.records {
                    let known = self.keys.contains_key(&(partition, record.key.to_vec()));
                    assert!(known, "scan shows a key that was never written");
                }
            }
            (Sent::Create, ReplyBody::Catalog(result)) => match result {
                Ok(()) => self.churn = Churn::Live,
                Err(CatalogError::Poisoned) => {}
                Err(CatalogError::Full | CatalogError::Busy) => self.churned(true),
                Err(error) => panic!("create: {error}"),
            },
            (Sent::Drop, ReplyBody::Catalog(result)) => match result {
                Ok(()) => self.churned(false),
                Err(CatalogError::Poisoned) => {}
                Err(CatalogError::Full | CatalogError::Busy) => self.churn = Churn::Live,
                Err(error) => panic!("drop: {error}"),
            },
            (Sent::Other, _) => {}
            (_, body) => panic!("{body:?} is no answer to what was asked"),
        }
    }

    fn written(
        &mut self,
        id: RequestId,
        keys: &[(u32, Vec<u8>)],
        (condition, is_commit): (Condition, bool),
        result: Result<lode_engine::Written, WriteError>,
    ) {
        let now = self.time();
        if let Err(error) = &result {
            match error {
                WriteError::Full { .. } | WriteError::Busy => self.tally.full += 1,
                WriteError::ConditionFailed { .. } => assert_ne!(condition, Condition::Always),
                WriteError::Conflict { .. } if is_commit => self.tally.conflicts += 1,
                WriteError::TransactionEnded if is_commit => self.tally.transactions_ended += 1,
                // It may survive or not, as if the process had died.
                WriteError::Poisoned if self.sim.drive.fail_writes.is_some() => return,
                WriteError::UnknownPartition(partition) => assert!(partition.0 >= 1000),
                other => panic!("write: {other}"),
            }
        }
        self.tally.commits += u64::from(is_commit && result.is_ok());
        for name in keys {
            // The partition may be gone.
            let Some(key) = self.keys.get_mut(name) else { continue };
            let at = key.pending.iter().position(|(pending, ..)| *pending == id).expect("it is pending");
            let (_, mut state, ttl_ms) = key.pending.remove(at);
            let Ok(written) = &result else { continue };
            if written.seq == Seq::default() {
                // The delete of an absent key writes nothing, and has no version.
                assert!(key.last().allows(None, now, now), "a delete of what is there wrote nothing");
                continue;
            }
            if name.0 != MEMORY {
                assert!(written.seq > self.floor, "a version from before the crash");
                self.highest = self.highest.max(written.seq);
            }
            state.settle(ttl_ms, now);
            key.seq = state.value.is_some().then_some(written.seq);
            key.wins.push(Win { seq: written.seq, state: state.clone(), condition });
            key.acknowledged.push(state);
        }
    }

    fn quiesce(&mut self) {
        for _ in 0..200_000 {
            if self.sent.is_empty() {
                self.check_counters();
                return self.check_conditions();
            }
            assert!(!self.sim.is_stuck(), "{} requests wait for nothing", self.sent.len());
            self.step(&mut Vec::new());
        }
        panic!("{} requests are never answered", self.sent.len());
    }

    fn crash(&mut self) {
        for _ in 0..=self.sim.random.below(3) {
            self.tally.crashes += 1;
            if self.sim.random.percent(40) {
                // The process alone, and then the power while the next one reads or has begun to serve.
                self.sim.kill();
            } else {
                self.sim.crash();
            }
            for _ in 0..self.sim.random.below(60) {
                self.sim.step(&mut Vec::new());
            }
        }
        self.sim.run_until_serving();
        self.check_after_crash();
    }

    /// From some moment on, all writes fail: all requests end, and reads go on.
    fn fail_writes(&mut self) {
        self.tally.poisoned += 1;
        self.sim.drive.fail_writes = Some(5);
        for _ in 0..self.sim.random.below(60) {
            self.act();
        }
        self.quiesce();
        self.crash();
    }
}

fn random_space(seed: u64) -> u64 {
    [40, 300, 1500][(seed % 3) as usize]
}

/// However full the drive was: once all is deleted, writes go on.
fn empty_and_fill(model: &mut Model) {
    model.quiesce();
    for (partition, name) in model.keys.keys() {
        let deleted = model.sim.delete(*partition, name);
        assert!(deleted.is_ok(), "a delete on a drive that may be full: {deleted:?}");
    }
    let value = vec![1; model.longest as usize];
    for i in 0..8u32 {
        let put = model.sim.put(1, &i.to_be_bytes(), &value);
        assert!(put.is_ok(), "an empty drive takes writes: {put:?} {:?}", model.sim.shard.stats());
    }
}

fn run(seed: u64) -> Tally {
    let mut model = Model::new(seed);
    for round in 0..12 {
        for _ in 0..model.sim.random.below(400) {
            model.act();
        }
        let stats = model.sim.shard.stats();
        model.tally.cleaned += stats.segments_cleaned;
        model.tally.checkpoints += stats.checkpoints;
        model.tally.expired += stats.expired;
        model.tally.scrubbed += stats.scrub.rounds_finished;
        let found =
            (stats.scrub.damaged_records, stats.scrub.repaired_superblocks, stats.scrub.repaired_images);
        assert_eq!(found, (0, 0, 0), "nothing is damaged by crashes");
        match model.sim.random.below(10) {
            0 => model.check_whole(),
            1 => model.restart_at_rest(),
            2 | 3 => {
                model.quiesce();
                model.sim.reopen();
                model.check_after_crash();
            }
            4 => model.fail_writes(),
            _ => model.crash(),
        }
        if round == 11 {
            model.check_whole();
        }
    }
    empty_and_fill(&mut model);
    model.tally
}

/// Takes seed after seed, until there are no more or one failed.
fn run_all(next: &AtomicU64, end: u64) -> Tally {
    let mut all = Tally::default();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return all;
        }
        match std::panic::catch_unwind(|| run(seed)) {
            Ok(tally) => all.add(&tally),
            Err(_) => {
                next.store(end, Ordering::Relaxed);
                panic!("seed {seed} failed: LODE_SEEDS=1 LODE_SEED_START={seed} replays it");
            }
        }
    }
}

#[test]
fn random_operations_crashes_and_restarts_agree_with_a_plain_map() {
    let number =
        |name: &str, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (seeds, start): (u64, u64) = (number("LODE_SEEDS", 120), number("LODE_SEED_START", 1));
    let (next, end) = (AtomicU64::new(start), start + seeds);
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut all = Tally::default();
    std::thread::scope(|scope| {
        let at_once: Vec<_> = (0..threads).map(|_| scope.spawn(|| run_all(&next, end))).collect();
        at_once.into_iter().for_each(|one| all.add(&one.join().expect("no seed failed")));
    });
    println!("{seeds} seeds from {start}: {all:?}");
}
