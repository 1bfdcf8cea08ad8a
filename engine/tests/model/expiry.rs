//! Time passes, and records expire: some are given another expiry before that.

use lode_engine::{Change, Condition, ReplyBody, RequestBody, Ttl, WriteError};

use crate::state::{State, Time};
use crate::support::ask::target;
use crate::{Model, Sent, Win};

const NS_PER_MS: u64 = 1_000_000;
/// A look at the whole shard is over in that time.
const LOOK_MS: u64 = 100;
/// After a crash so much time passes. No run sets its clock back so far until the next: what was found gone
/// stays gone.
pub(crate) const MOST_SET_BACK_MS: u64 = 200;

impl Model {
    /// The time as the shard may see it.
    pub(crate) fn time(&self) -> Time {
        let wall_ms = self.sim.wall_ns / NS_PER_MS;
        let highest_ms = self.sim.highest_wall_ns.max(self.sim.wall_ns) / NS_PER_MS;
        Time { wall_ms, highest_ms }
    }

    /// Mostly none; now and then a short life, so that many expire while the test runs.
    pub(crate) fn ttl(&mut self) -> Ttl {
        let random = &mut self.sim.random;
        match random.below(10) {
            0 => Ttl::Never,
            1 => Ttl::After { ttl_ms: 3_600_000 },
            2 | 3 => Ttl::After { ttl_ms: 1 + random.below(300) },
            _ => Ttl::Table,
        }
    }

    /// In milliseconds.
    pub(crate) fn ttl_in(&self, partition: u32, ttl: Ttl) -> Option<u64> {
        match ttl {
            Ttl::Never => None,
            Ttl::After { ttl_ms } => Some(ttl_ms),
            Ttl::Table => self.churn_ttl_ms().filter(|_| self.churn_partitions().contains(&partition)),
        }
    }

    pub(crate) fn pass_time(&mut self, ms: u64) {
        self.sim.wall_ns += ms * NS_PER_MS;
        self.sim.poke();
    }

    /// Waits until it is certain of every record whether its time is over, and will be for a while.
    pub(crate) fn await_certainty(&mut self) -> Time {
        loop {
            let now = self.time();
            let now = Time { highest_ms: now.highest_ms + LOOK_MS, ..now };
            let states = self.keys.values().filter_map(|key| key.acknowledged.last());
            let uncertain = states.filter(|state| state.is_uncertain(now));
            let Some(latest) = uncertain.filter_map(|state| state.expires).map(|(_, latest)| latest).max()
            else {
                return now;
            };
            self.pass_time(latest.max(now.highest_ms) + 1 - now.wall_ms);
        }
    }

    /// Another expiry for a record of which nothing else is under way.
    pub(crate) fn expire(&mut self) {
        let ((partition, key), ttl) = (self.key(), self.ttl());
        let name = (partition, key.clone());
        let ttl_ms = self.ttl_in(partition, ttl);
        let since = self.time();
        let known = self.keys.entry(name.clone()).or_default();
        if !known.pending.is_empty() {
            return;
        }
        let before = known.acknowledged.last().cloned().unwrap_or_default();
        let id = self.sim.next_id();
        self.sent.insert(id, Sent::Other);
        known.pending.push((id, State::sent(before.value.clone(), ttl_ms, since), ttl_ms));
        let change = Change::Expire { ttl };
        let body = RequestBody::Modify { target: target(partition), key: &key, change };
        self.sim.step(&mut vec![lode_engine::Request { id, body }]);
        let ReplyBody::Write(result) = self.sim.reply_to(id) else { panic!("no answer to a write") };
        self.sent.remove(&id);
        let now = self.time();
        let Some(known) = self.keys.get_mut(&name) else { return };
        match result {
            // It may survive or not, as if the process had died.
            Err(WriteError::Poisoned) if self.sim.drive.fail_writes.is_some() => return,
            Err(WriteError::Full { .. } | WriteError::Busy) => self.tally.full += 1,
            Err(WriteError::UnknownPartition(gone)) => assert!(gone.0 >= 1000),
            Err(error) => panic!("expire: {error}"),
            Ok(written) if written.existed => {
                assert!(before.allows(before.value.as_deref(), since, now) && before.value.is_some());
                let (_, mut state, _) = known.pending.pop().expect("it is pending");
                state.settle(ttl_ms, now);
                let condition = Condition::Always;
                known.wins.push(Win { seq: written.seq, state: state.clone(), condition });
                known.acknowledged.push(state);
                known.seq = Some(written.seq);
                self.tally.expiry_changes += 1;
            }
            Ok(_) => assert!(before.allows(None, since, now), "{before:?} was there at {now:?}"),
        }
        known.pending.clear();
    }
}
