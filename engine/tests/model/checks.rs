//! What a shard must be at rest and after a crash, as far as the plain map knows.

use lode_engine::{Condition, KeyRange, ReplyBody, RequestBody, TimeLeft};

use crate::counters::is_counter;
use crate::expiry::MOST_SET_BACK_MS;
use crate::state::State;
use crate::support::ask::{room, target};
use crate::{Churn, GROUP_KEYS, GROUPS, Key, MEMORY, Model, PARTITIONS};

impl Model {
    pub(crate) fn check_churn(&mut self) {
        let listed = self.sim.tables();
        let found = listed.iter().find(|(table, _)| *table >= 10);
        let all: Vec<u32> = self.churn_partitions().collect();
        if let Some((table, partitions)) = found {
            assert_eq!((*table, partitions), (self.churn_table, &all), "a part of a table");
        }
        match (self.churn, found.is_some()) {
            (Churn::Absent, false) | (Churn::Live, true) => {}
            (Churn::Absent, true) => panic!("a dropped table is back"),
            (Churn::Live, false) => panic!("a table is lost"),
            (Churn::Creating | Churn::Dropping, true) => self.churn = Churn::Live,
            (Churn::Creating, false) => self.churned(true),
            (Churn::Dropping, false) => self.churned(false),
        }
    }

    /// In the order of their versions, each conditional write of a key that took place follows the very
    /// write that its condition names.
    pub(crate) fn check_conditions(&mut self) {
        let now = self.time();
        for ((partition, name), key) in &mut self.keys {
            key.wins.sort_by_key(|win| win.seq);
            for pair in key.wins.windows(2) {
                let (before, after) = (&pair[0], &pair[1]);
                let was_put = before.state.value.is_some();
                let held = match after.condition {
                    Condition::Always => true,
                    Condition::IfAbsent => !was_put || before.state.may_be_over(now),
                    Condition::IfSeq(seq) => was_put && seq == before.seq,
                };
                let name = String::from_utf8_lossy(name);
                let (condition, before, after) = (after.condition, before.seq, after.seq);
                assert!(held, "{name} of {partition}: {condition:?} won at {after}, after {before}");
            }
            key.wins.clear();
        }
    }

    /// Every key has its last acknowledged value, or that of a write that was on its way; from now on,
    /// what it has is what it has.
    pub(crate) fn check_after_crash(&mut self) {
        self.sent.clear();
        self.open.clear();
        self.floor = self.highest;
        self.check_churn();
        for ((partition, name), key) in std::mem::take(&mut self.keys) {
            let since = self.time();
            let (value, left) = self.read(partition, &name);
            let now = self.time();
            if partition == MEMORY {
                self.counters.remove(&(partition, name));
                assert_eq!(value, None, "memory does not survive");
                continue;
            }
            if is_counter(&name) {
                let name = (partition, name);
                self.check_counter_after_crash(&name, value.as_deref());
                let state = State { value, expires: None };
                self.keys.insert(name, Key { acknowledged: vec![state], ..Key::default() });
                continue;
            }
            let pending = key.pending.iter().cloned().map(|(_, mut state, ttl_ms)| {
                state.settle(ttl_ms, now);
                state
            });
            let allows = |state: &State| state.allows(value.as_deref(), since, now);
            let fits = |state: &State| left.is_none_or(|left| state.fits(left, since, now));
            let may_be: Vec<State> = [key.last()].into_iter().chain(pending).collect();
            let found = may_be.iter().find(|state| allows(state) && fits(state)).cloned();
            let name_text = String::from_utf8_lossy(&name);
            assert!(
                found.is_some(),
                "{name_text} of partition {partition} after a crash: {value:?} with {left:?} left, and not one of {may_be:?}; since \
                 {since:?}, now {now:?}"
            );
            let state = found.filter(|_| value.is_some()).unwrap_or_default();
            let kept = Key { acknowledged: vec![state], ..Key::default() };
            self.keys.insert((partition, name), kept);
        }
        self.pass_time(MOST_SET_BACK_MS);
        for group in 0..GROUPS {
            let value = |i: u64| {
                self.keys
                    .get(&(1, format!("group/{group}/{i}").into_bytes()))
                    .and_then(|key| key.last().value)
            };
            let first = value(0);
            assert!((1..GROUP_KEYS).all(|i| value(i) == first), "half of a batch in group {group}");
        }
    }

    /// With nothing under way, the shard is what it was after a start: requests go on at once, while
    /// partitions are loaded, and some start finds the one before in the middle of that.
    pub(crate) fn restart_at_rest(&mut self) {
        self.quiesce();
        for _ in 0..=self.sim.random.below(3) {
            self.sim.reopen();
            self.tally.crashes += 1;
            for _ in 0..self.sim.random.below(8) {
                self.sim.step(&mut Vec::new());
            }
        }
        self.open.clear();
        self.floor = self.highest;
        self.check_churn();
        self.keys.retain(|(partition, _), _| *partition != MEMORY);
        self.counters.retain(|(partition, _), _| *partition != MEMORY);
        self.tally.unloaded += self.sim.shard.stats().partitions_unloaded;
        for _ in 0..60 {
            self.act();
        }
    }

    fn read(&mut self, partition: u32, key: &[u8]) -> (Option<Vec<u8>>, Option<TimeLeft>) {
        match self.sim.ask(RequestBody::Get { target: target(partition), key }) {
            ReplyBody::Get(Ok(Some(found))) => (Some(self.sim.value(found.value)), Some(found.left)),
            ReplyBody::Get(Ok(None)) => (None, None),
            other => panic!("{} of {partition}: {other:?}", String::from_utf8_lossy(key)),
        }
    }

    /// With nothing under way, the shard is the map.
    pub(crate) fn check_whole(&mut self) {
        self.quiesce();
        let now = self.await_certainty();
        let churn = if self.churn == Churn::Live { self.churn_partitions() } else { 0..0 };
        for partition in (1..=PARTITIONS).chain([MEMORY]).chain(churn) {
            let expected: Vec<_> = self
                .keys
                .range((partition, Vec::new())..(partition + 1, Vec::new()))
                .filter_map(|((_, name), key)| key.last().at(now).map(|value| (name.clone(), value.to_vec())))
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
        self.sim.poke();
        self.sim.settle();
        let bytes = |((partition, name), key): (&(u32, Vec<u8>), &Key)| {
            let state = key.last();
            let value = state.at(now).filter(|_| *partition != MEMORY)?;
            let expiry = if state.expires.is_some() { 8 } else { 0 };
            Some(room(30 + expiry + name.len() as u64 + value.len() as u64))
        };
        let live: u64 = self.keys.iter().filter_map(bytes).sum();
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
            let body = RequestBody::Scan {
                target,
                range,
                reverse,
                limit: 37,
                byte_budget: 32 << 10,
                keys_only: false,
            };
            let ReplyBody::Scan(Ok(page)) = self.sim.ask(body) else { panic!("scan of {partition}") };
            seen.extend(page.records.iter().map(|record| (record.key.to_vec(), record.value.to_vec())));
            if !page.more {
                return seen;
            }
        }
    }
}
