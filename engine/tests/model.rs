//! A shard against a plain ordered map: random operations, crashes and restarts on a simulated drive,
//! everything from one printed seed.
//!
//! `LODE_SEEDS=1000 LODE_SEED_START=1 cargo test --release -p lode-engine --test model` runs more.
#![allow(missing_docs)]

mod support;

use std::collections::BTreeMap;

use lode_engine::{
    BatchWrite, Condition, Epoch, Geometry, KeyRange, PartitionId, PartitionSpec, Placement, Reply, ReplyBody,
    Request, RequestBody, RequestId, Seq, StoreKind, TableId, TableSpec, Target, WriteError,
};
use support::Sim;

const PARTITIONS: u32 = 5;
const GROUPS: u64 = 6;
const GROUP_KEYS: u64 = 8;

/// What is known of one key.
#[derive(Default, Clone)]
struct Key {
    /// Every state that was ever acknowledged, in order; `None` is absence. Starts absent.
    acknowledged: Vec<Option<Vec<u8>>>,
    /// Version of the last acknowledged write, where known.
    seq: Option<Seq>,
    /// Writes sent and not answered.
    pending: Vec<(RequestId, Option<Vec<u8>>)>,
}

impl Key {
    fn last(&self) -> Option<Vec<u8>> {
        self.acknowledged.last().cloned().flatten()
    }
}

enum Sent {
    Write { keys: Vec<(u32, Vec<u8>)>, conditional: bool },
    Get { partition: u32, key: Vec<u8>, known: usize, might: Vec<Option<Vec<u8>>> },
    Scan { partition: u32 },
    Other,
}

struct Model {
    sim: Sim,
    keys: BTreeMap<(u32, Vec<u8>), Key>,
    sent: BTreeMap<RequestId, Sent>,
    groups: u64,
    values: u64,
    full: u64,
    seed: u64,
}

fn target(partition: u32) -> Target {
    Target { partition: PartitionId(partition), epoch: Epoch(1) }
}

impl Model {
    fn new(seed: u64) -> Model {
        let geometry = Geometry::plan(6 << 20, 1, Some(64 << 10), 12 << 10).unwrap();
        let mut sim = Sim::format(seed, geometry, |config| {
            config.cache_bytes = [0, 64 << 10, 4 << 20][(seed % 3) as usize];
            config.frame_bytes = [8 << 10, 32 << 10][(seed / 3 % 2) as usize];
            config.frames_in_flight = 1 + (seed / 6 % 4) as usize;
            config.commit_window_ns = [0, 50_000, 1_000_000][(seed / 5 % 3) as usize];
            config.discard = seed.is_multiple_of(2);
            if seed.is_multiple_of(7) {
                config.checkpoint_interval_bytes = 64 << 10;
            }
        });
        let partitions = (1..=PARTITIONS)
            .map(|p| PartitionSpec {
                id: PartitionId(p),
                table: TableId(1),
                epoch: Epoch(1),
                start: Vec::new(),
                end: None,
            })
            .collect();
        let table = TableSpec {
            id: TableId(1),
            name: "model".into(),
            store: StoreKind::Durable,
            placement: Placement::Range,
        };
        let reply = sim.ask(RequestBody::CreateTable { table, partitions });
        assert!(matches!(reply, ReplyBody::Catalog(Ok(()))), "{reply:?}");
        Model { sim, keys: BTreeMap::new(), sent: BTreeMap::new(), groups: 0, values: 0, full: 0, seed }
    }

    fn value(&mut self) -> Vec<u8> {
        self.values += 1;
        let random = &mut self.sim.random;
        let len = match random.below(20) {
            0 => random.below(12 << 10),
            1..=4 => random.below(4 << 10),
            _ => random.below(300),
        };
        let mut value = self.values.to_le_bytes().to_vec();
        value.resize(8 + len as usize, self.values as u8);
        value.truncate(12 << 10);
        value
    }

    fn key(&mut self) -> (u32, Vec<u8>) {
        let random = &mut self.sim.random;
        let partition = 1 + random.below(u64::from(PARTITIONS)) as u32;
        let i = random.below(random_space(self.seed));
        (partition, format!("key/{:05}", i * i % 99_991).into_bytes())
    }

    /// A few requests at once, and a step.
    fn act(&mut self) {
        for _ in 0..self.sim.random.below(6) {
            match self.sim.random.below(100) {
                0..=39 => self.put(),
                40..=49 => self.delete(),
                50..=54 => self.batch(),
                55..=64 => self.conditional(),
                65..=93 => self.get(),
                94..=98 => self.scan(),
                _ => self.checkpoint(),
            }
        }
        self.step(&mut Vec::new());
    }

    fn step(&mut self, requests: &mut Vec<Request<'_>>) {
        self.sim.step(requests);
        for reply in std::mem::take(&mut self.sim.replies) {
            self.take(reply);
        }
    }

    fn send_write(&mut self, body: RequestBody<'_>, keys: Vec<(u32, Vec<u8>, Option<Vec<u8>>)>, conditional: bool) {
        let id = self.sim.next_id();
        let mut names = Vec::new();
        for (partition, key, value) in keys {
            self.keys.entry((partition, key.clone())).or_default().pending.push((id, value));
            names.push((partition, key));
        }
        self.sent.insert(id, Sent::Write { keys: names, conditional });
        self.step(&mut vec![Request { id, body }]);
    }

    fn put(&mut self) {
        let ((partition, key), value) = (self.key(), self.value());
        let body =
            RequestBody::Put { target: target(partition), key: &key, value: &value, condition: Condition::Always };
        self.send_write(body, vec![(partition, key.clone(), Some(value.clone()))], false);
    }

    fn delete(&mut self) {
        let (partition, key) = self.key();
        let body = RequestBody::Delete { target: target(partition), key: &key, condition: Condition::Always };
        self.send_write(body, vec![(partition, key.clone(), None)], false);
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
        self.send_write(RequestBody::Batch { target: target(1), writes }, keys, false);
    }

    /// A conditional write of a key that has no other write under way.
    fn conditional(&mut self) {
        let ((partition, key), value) = (self.key(), self.value());
        let known = self.keys.get(&(partition, key.clone())).cloned().unwrap_or_default();
        let condition = match (known.last(), known.seq) {
            (None, _) => Condition::IfAbsent,
            (Some(_), Some(seq)) if self.sim.random.percent(80) => Condition::IfSeq(seq),
            (Some(_), _) => Condition::IfSeq(Seq { wall_ns: 1, ..Seq::default() }),
        };
        let body = RequestBody::Put { target: target(partition), key: &key, value: &value, condition };
        self.send_write(body, vec![(partition, key.clone(), Some(value.clone()))], true);
    }

    fn get(&mut self) {
        let (partition, key) = self.key();
        let known = self.keys.entry((partition, key.clone())).or_default();
        let might = known.pending.iter().map(|(_, value)| value.clone()).collect();
        let id = self.sim.next_id();
        let sent = Sent::Get { partition, key: key.clone(), known: known.acknowledged.len(), might };
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
            (Sent::Write { keys, conditional }, ReplyBody::Write(result)) => {
                self.written(reply.id, &keys, conditional, result);
            }
            (Sent::Get { partition, key, known, might }, ReplyBody::Get(result)) => {
                let found = result.unwrap_or_else(|error| panic!("get {key:?}: {error}"));
                let value = found.map(|found| self.sim.value(found.value));
                let history = &self.keys[&(partition, key.clone())];
                let before = known.checked_sub(1).and_then(|i| history.acknowledged[i].clone());
                let legal = before == value
                    || history.acknowledged[known..].contains(&value)
                    || might.contains(&value)
                    || history.pending.iter().any(|(_, pending)| *pending == value);
                assert!(legal, "get of {} saw a value it cannot", String::from_utf8_lossy(&key));
            }
            (Sent::Scan { partition }, ReplyBody::Scan(result)) => {
                let page = result.unwrap_or_else(|error| panic!("scan: {error}"));
                for record in &page.records {
                    let known = self.keys.contains_key(&(partition, record.key.to_vec()));
                    assert!(known, "scan shows a key that was never written");
                }
            }
            (Sent::Other, _) => {}
            (_, body) => panic!("{body:?} is no answer to what was asked"),
        }
    }

    fn written(
        &mut self,
        id: RequestId,
        keys: &[(u32, Vec<u8>)],
        conditional: bool,
        result: Result<lode_engine::Written, WriteError>,
    ) {
        if let Err(error) = &result {
            match error {
                WriteError::Full { .. } | WriteError::Busy => self.full += 1,
                WriteError::ConditionFailed { .. } => assert!(conditional),
                other => panic!("write: {other}"),
            }
        }
        for name in keys {
            let key = self.keys.get_mut(name).expect("the key was entered when it was sent");
            let at = key.pending.iter().position(|(pending, _)| *pending == id).expect("it is pending");
            let (_, value) = key.pending.remove(at);
            if let Ok(written) = &result {
                key.seq = value.is_some().then_some(written.seq);
                key.acknowledged.push(value);
            }
        }
    }

    fn quiesce(&mut self) {
        for _ in 0..200_000 {
            if self.sent.is_empty() {
                return;
            }
            self.step(&mut Vec::new());
        }
        panic!("{} requests are never answered", self.sent.len());
    }

    fn crash(&mut self) {
        self.sim.crash();
        if self.sim.random.percent(30) {
            // Again, in the middle of recovery.
            for _ in 0..self.sim.random.below(40) {
                self.sim.step(&mut Vec::new());
            }
            self.sim.crash();
        }
        self.sim.run_until_serving();
        self.sent.clear();
        self.check_after_crash();
    }

    /// Every key has its last acknowledged value, or that of a write that was on its way; from now on,
    /// what it has is what it has.
    fn check_after_crash(&mut self) {
        for ((partition, name), key) in std::mem::take(&mut self.keys) {
            let value = self.read(partition, &name);
            let legal = value == key.last() || key.pending.iter().any(|(_, pending)| *pending == value);
            assert!(legal, "{} of partition {partition} after a crash", String::from_utf8_lossy(&name));
            let kept = Key { acknowledged: vec![value], ..Key::default() };
            self.keys.insert((partition, name), kept);
        }
        for group in 0..GROUPS {
            let value = |i: u64| {
                self.keys.get(&(1, format!("group/{group}/{i}").into_bytes())).and_then(Key::last)
            };
            let first = value(0);
            assert!((1..GROUP_KEYS).all(|i| value(i) == first), "half of a batch in group {group}");
        }
    }

    fn read(&mut self, partition: u32, key: &[u8]) -> Option<Vec<u8>> {
        match self.sim.ask(RequestBody::Get { target: target(partition), key }) {
            ReplyBody::Get(Ok(found)) => found.map(|found| self.sim.value(found.value)),
            other => panic!("{} of {partition}: {other:?}", String::from_utf8_lossy(key)),
        }
    }

    /// With nothing under way, the shard is the map.
    fn check_whole(&mut self) {
        self.quiesce();
        for partition in 1..=PARTITIONS {
            let expected: Vec<_> = self
                .keys
                .range((partition, Vec::new())..(partition + 1, Vec::new()))
                .filter_map(|((_, name), key)| key.last().map(|value| (name.clone(), value)))
                .collect();
            let mut seen = self.scan_all(partition, false);
            assert_eq!(seen, expected, "scan of partition {partition}");
            seen = self.scan_all(partition, true);
            seen.reverse();
            assert_eq!(seen, expected, "reverse scan of partition {partition}");
            let body = RequestBody::Count { target: target(partition), range: KeyRange::default() };
            let count = self.sim.ask(body);
            assert!(matches!(count, ReplyBody::Count(Ok(n)) if n == expected.len() as u64), "{count:?}");
        }
        self.sim.settle();
        let live: u64 = self.keys.iter().filter_map(|((_, name), key)| {
            key.last().map(|value| 30 + name.len() as u64 + value.len() as u64)
        }).sum();
        let stats = self.sim.shard.stats();
        assert_eq!(stats.live_bytes, live, "live bytes are those of the live records");
        assert_eq!(self.sim.buffers.in_use(), 0, "every buffer was given back");
        assert_eq!((stats.corrupt_records, stats.quarantined_frames), (0, 0));
    }

    fn scan_all(&mut self, partition: u32, reverse: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut seen: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        loop {
            let last = seen.last().map(|(key, _)| key.clone());
            let after = last.clone().map(|mut key| {
                key.push(0);
                key
            });
            let range = if reverse {
                KeyRange { start: b"", end: last.as_deref() }
            } else {
                KeyRange { start: after.as_deref().unwrap_or(b""), end: None }
            };
            let target = target(partition);
            let body = RequestBody::Scan { target, range, reverse, limit: 37, byte_budget: 32 << 10, keys_only: false };
            let ReplyBody::Scan(Ok(page)) = self.sim.ask(body) else { panic!("scan") };
            seen.extend(page.records.iter().map(|record| (record.key.to_vec(), record.value.to_vec())));
            if !page.more {
                return seen;
            }
        }
    }
}

fn random_space(seed: u64) -> u64 {
    [40, 300, 1500][(seed % 3) as usize]
}

fn run(seed: u64) -> (u64, u64) {
    let mut model = Model::new(seed);
    for round in 0..12 {
        for _ in 0..model.sim.random.below(400) {
            model.act();
        }
        match model.sim.random.below(3) {
            0 => model.check_whole(),
            1 => {
                model.quiesce();
                model.sim.reopen();
                model.check_after_crash();
            }
            _ => model.crash(),
        }
        if round == 11 {
            model.check_whole();
        }
    }
    let stats = model.sim.shard.stats();
    (model.values, stats.segments_cleaned)
}

#[test]
fn random_operations_crashes_and_restarts_agree_with_a_plain_map() {
    let number = |name: &str, default| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (seeds, start): (u64, u64) = (number("LODE_SEEDS", 40), number("LODE_SEED_START", 1));
    let (mut values, mut cleaned) = (0, 0);
    for seed in start..start + seeds {
        let outcome = std::panic::catch_unwind(|| run(seed));
        let Ok((wrote, segments)) = outcome else {
            panic!("seed {seed} failed: LODE_SEEDS=1 LODE_SEED_START={seed} replays it");
        };
        values += wrote;
        cleaned += segments;
    }
    println!("{seeds} seeds from {start}: {values} values written, {cleaned} segments cleaned");
}
