//! Increments: every acknowledged one counts once, one that was not answered at most once.

use lode_engine::{Change, RequestBody, RequestId, Seq, WriteError, Written};

use crate::state::State;
use crate::support::ask::target;
use crate::{MEMORY, Model, PARTITIONS, Sent};

/// Counters of each partition.
const COUNTERS: u64 = 2;
/// Increments of one counter that may be under way: each adds another power of two, so that their sum tells
/// which of them took place.
const MOST_PENDING: usize = 30;
/// Where a counter begins.
const INITIAL: i64 = -1_000;

/// What is known of one counter.
#[derive(Default)]
pub(crate) struct Counter {
    /// Its number when the shard was last at rest.
    base: Option<i64>,
    /// Acknowledged since: version, what was added, what came of it.
    acknowledged: Vec<(Seq, i64, i64)>,
    /// Sent and not answered.
    pending: Vec<(RequestId, i64)>,
}

pub(crate) fn is_counter(key: &[u8]) -> bool {
    key.starts_with(b"counter/")
}

impl Model {
    /// Several increments of a counter at once.
    pub(crate) fn increment(&mut self) {
        let random = &mut self.sim.random;
        let partition =
            if random.percent(15) { MEMORY } else { 1 + random.below(u64::from(PARTITIONS)) as u32 };
        let key = format!("counter/{}", random.below(COUNTERS)).into_bytes();
        for _ in 0..1 + random.below(5) {
            let id = self.sim.next_id();
            let name = (partition, key.clone());
            let counter = self.counters.entry(name.clone()).or_default();
            let is_free = |by: &i64| counter.pending.iter().all(|(_, pending)| pending != by);
            let Some(by) = (0..MOST_PENDING).map(|bit| 1 << bit).find(is_free) else { return };
            counter.pending.push((id, by));
            self.keys.entry(name.clone()).or_default();
            self.sent.insert(id, Sent::Increment { name, by });
            let change = Change::Increment { by, initial: INITIAL };
            let body = RequestBody::Modify { target: target(partition), key: &key, change };
            self.step(&mut vec![lode_engine::Request { id, body }]);
        }
    }

    pub(crate) fn incremented(
        &mut self,
        id: RequestId,
        name: &(u32, Vec<u8>),
        by: i64,
        result: Result<Written, WriteError>,
    ) {
        let counter = self.counters.get_mut(name).expect("it was sent");
        match result {
            // It may survive or not, as if the process had died.
            Err(WriteError::Poisoned) if self.sim.drive.fail_writes.is_some() => return,
            Err(WriteError::Full { .. } | WriteError::Busy) => self.tally.full += 1,
            Err(error) => panic!("increment: {error}"),
            Ok(written) => {
                let number = written.number.expect("an increment tells its number");
                counter.acknowledged.push((written.seq, by, number));
                self.tally.increments += 1;
            }
        }
        counter.pending.retain(|(pending, _)| *pending != id);
    }

    /// With nothing under way: in the order of their versions, each increment went on from the one before.
    pub(crate) fn check_counters(&mut self) {
        for (name, counter) in &mut self.counters {
            if !counter.pending.is_empty() {
                // Writes fail, and these may or may not survive.
                continue;
            }
            counter.acknowledged.sort_by_key(|(seq, ..)| *seq);
            for (seq, by, number) in counter.acknowledged.drain(..) {
                let before = counter.base.unwrap_or(INITIAL);
                assert_eq!(number, before + by, "{} of {} at {seq}", name.1.escape_ascii(), name.0);
                counter.base = Some(number);
            }
            if let Some(number) = counter.base {
                let key = self.keys.get_mut(name).expect("it was sent");
                key.acknowledged.push(State { value: Some(number.to_string().into_bytes()), expires: None });
            }
        }
    }

    /// After a crash: all that was acknowledged, and any of what was under way, each once.
    pub(crate) fn check_counter_after_crash(&mut self, name: &(u32, Vec<u8>), value: Option<&[u8]>) {
        let counter = self.counters.entry(name.clone()).or_default();
        let found = value.map(|value| {
            let text = std::str::from_utf8(value).expect("a counter is text");
            text.parse::<i64>().expect("a counter is a number")
        });
        let acknowledged: i64 = counter.acknowledged.iter().map(|(_, by, _)| by).sum();
        let least = counter.base.unwrap_or(INITIAL) + acknowledged;
        let possible: i64 = counter.pending.iter().map(|(_, by)| by).sum();
        let is_known = counter.base.is_some() || !counter.acknowledged.is_empty();
        match found {
            None => assert!(!is_known, "{} of {} is lost", name.1.escape_ascii(), name.0),
            Some(number) => {
                let more = number - least;
                assert!(
                    more & !possible == 0,
                    "{} of {}: {more} of {possible}",
                    name.1.escape_ascii(),
                    name.0
                );
            }
        }
        *counter = Counter { base: found, ..Counter::default() };
    }
}
