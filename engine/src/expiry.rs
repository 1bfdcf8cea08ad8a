//! Records that expire: when, in which order, and what happens then.
//!
//! The truth is in the records themselves: one that expires says when. The engine keeps, per partition and
//! only of such records, an ordered set by time and key. So counts and scans of keys are exact, and what is
//! due is found without a search. When a record expires, the journal notes that it is gone, as it notes every
//! change of the index.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::apply::Effects;
use crate::facts::Perhaps;
use crate::ids::{PartitionId, WallMs};
use crate::index::Need;
use crate::io::Io;
use crate::limits::MAX_TTL_MS;
use crate::location::Location;
use crate::partition::{bounds, is_void};
use crate::reply::TimeLeft;
use crate::request::{KeyRange, Ttl};
use crate::shard::Shard;
use crate::transactions::history::Write;

/// Most records that expire in one step, so that no step is long.
const EXPIRIES_PER_STEP: usize = 256;
/// Most records that are read at once to know which have expired.
const READS_FOR_EXPIRIES: usize = 64;
/// A shard with nothing else to do wakes no more often than this for records that expire; reads look at the
/// time themselves.
const PACE_NS: u64 = 20_000_000;
/// A clock that was set back by no more than this is waited for; one set back further is followed.
const MOST_HELD_MS: u64 = 60_000;
const NS_PER_MS: u64 = 1_000_000;

/// Bytes of memory that a record with an expiry costs beside its key: the key's own allocation, an entry by key
/// and one by time, with the slack of their trees. Measured by `examples/expiry_bench.rs`.
pub const EXPIRY_OVERHEAD_BYTES: u64 = 112;

/// The time by which records expire.
///
/// It follows the wall clock and does not go back with it by up to a minute: what was seen to be gone stays
/// gone. A clock that was set back further was wrong before, and is followed.
#[derive(Debug, Default)]
pub struct ExpiryClock {
    now: WallMs,
}

impl ExpiryClock {
    /// The present time.
    pub fn now(&self) -> WallMs {
        self.now
    }

    /// The wall clock says so many nanoseconds.
    pub fn advance(&mut self, wall_ns: u64) {
        let wall = WallMs(wall_ns / NS_PER_MS);
        if wall >= self.now || self.now.0 - wall.0 > MOST_HELD_MS {
            self.now = wall;
        }
    }

    /// A version of this time was found on the drive.
    pub fn observe(&mut self, wall_ns: u64) {
        let seen = WallMs(wall_ns / NS_PER_MS);
        if seen > self.now && seen.0 - self.now.0 <= MOST_HELD_MS {
            self.now = seen;
        }
    }

    /// When a record written now with this time to live expires.
    pub fn expiry(&self, ttl: Ttl, table_ttl_ms: Option<u64>) -> Option<WallMs> {
        let after = |ttl_ms: u64| WallMs(self.now.0 + ttl_ms);
        match ttl {
            Ttl::Never => None,
            Ttl::Table => table_ttl_ms.map(after),
            Ttl::After { ttl_ms } => Some(after(ttl_ms)),
        }
    }

    /// What a record has left that expires then, if ever; at least a millisecond, for it was there when it
    /// was looked for.
    pub fn time_left(&self, expires: Option<WallMs>) -> TimeLeft {
        let left = |at: WallMs| TimeLeft::Ms(at.0.saturating_sub(self.now.0).max(1));
        expires.map_or(TimeLeft::Forever, left)
    }
}

/// Whether a time to live is one that a record may have.
pub fn is_ttl(ttl_ms: u64) -> bool {
    (1..=MAX_TTL_MS).contains(&ttl_ms)
}

/// The records of a partition that expire. An `Arc` holds each key once for both orders.
#[derive(Debug, Default)]
pub struct Expiries {
    by_key: BTreeMap<Arc<[u8]>, WallMs>,
    by_time: BTreeSet<(WallMs, Arc<[u8]>)>,
    key_bytes: u64,
}

impl Expiries {
    /// How many there are.
    pub fn len(&self) -> u64 {
        self.by_key.len() as u64
    }

    /// Bytes of memory they take, by estimate of the allocator's overhead.
    pub fn memory_bytes(&self) -> u64 {
        self.key_bytes + self.len() * EXPIRY_OVERHEAD_BYTES
    }

    /// When the first one expires.
    pub fn first(&self) -> Option<WallMs> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Those behind a key, in the order of keys.
    pub fn after(&self, key: &[u8]) -> impl Iterator<Item = (&[u8], WallMs)> {
        let from = if key.is_empty() { Bound::Unbounded } else { Bound::Excluded(key) };
        self.by_key.range::<[u8], _>((from, Bound::Unbounded)).map(|(key, at)| (&**key, *at))
    }

    /// When a record expires; `None` where it never does.
    pub fn of(&self, key: &[u8]) -> Option<WallMs> {
        self.by_key.get(key).copied()
    }

    /// A record was written that expires then, or never does, or is gone.
    pub fn set(&mut self, key: &[u8], expires: Option<WallMs>) {
        let known = self.by_key.get_key_value(key).map(|(key, at)| (key.clone(), *at));
        let key: Arc<[u8]> = match known {
            Some((_, at)) if Some(at) == expires => return,
            Some((key, at)) => {
                let taken = self.by_time.remove(&(at, key.clone()));
                assert!(taken, "both orders hold the same records");
                key
            }
            None if expires.is_none() => return,
            None => {
                self.key_bytes += key.len() as u64;
                key.into()
            }
        };
        match expires {
            Some(at) => {
                self.by_key.insert(key.clone(), at);
                self.by_time.insert((at, key));
            }
            None => {
                self.key_bytes -= key.len() as u64;
                self.by_key.remove(&key);
            }
        }
    }

    /// How many records of a range are due and not yet taken out.
    pub fn due_in(&self, range: &KeyRange<'_>, now: WallMs) -> u64 {
        if is_void(range) {
            return 0;
        }
        let (from, to) = bounds(range);
        let range: (std::ops::Bound<&[u8]>, std::ops::Bound<&[u8]>) = (from, to);
        let due = self.by_time.iter().take_while(|(at, _)| *at <= now);
        due.filter(|(_, key)| std::ops::RangeBounds::<[u8]>::contains(&range, &**key)).count() as u64
    }

    /// The keys whose records expire after one time and until another.
    pub fn due_between(&self, after: WallMs, until: WallMs) -> impl Iterator<Item = &[u8]> {
        // The empty key comes before all others of a time.
        let from = (WallMs(after.0.saturating_add(1)), Arc::from(&[][..]));
        let due = self.by_time.range(from..).take_while(move |(at, _)| *at <= until);
        due.map(|(_, key)| &**key)
    }

    /// The first one, if it is due.
    pub fn first_due(&self, now: WallMs) -> Option<Arc<[u8]>> {
        self.by_time.first().filter(|(at, _)| *at <= now).map(|(_, key)| key.clone())
    }

    /// Gives the memory of up to so many records back. `true` when nothing is left.
    pub fn drain_some(&mut self, most: usize) -> bool {
        for _ in 0..most {
            let Some((_, key)) = self.by_time.pop_first() else { return true };
            self.key_bytes -= key.len() as u64;
            self.by_key.remove(&key);
        }
        self.by_time.is_empty()
    }
}

impl Shard {
    /// Takes out some of the records whose time has come.
    pub(crate) fn expire_due(&mut self, io: &mut Io<'_>) {
        let now = self.clock.now();
        for _ in 0..EXPIRIES_PER_STEP {
            // Of a partition whose kept changes are still being made, it may not be the last word; the journal has that.
            let may_go = |id| self.journal.has_room() && self.is_loaded(id);
            let due = self.catalog.first_due(now).filter(|(id, _)| may_go(*id));
            let Some((partition, key)) = due else { return };
            if self.expire(partition, &key).is_err() {
                return self.ask_for_due(partition, now, io);
            }
        }
        self.has_more |= self.catalog.first_due(now).is_some();
    }

    /// Learns which the records are whose time has come, of a partition with a compact index.
    fn ask_for_due(&mut self, partition: PartitionId, now: WallMs, io: &mut Io<'_>) {
        let Some(of) = self.catalog.get(partition) else { return };
        let keys = self.known_keys(partition);
        let due = of.due_between(WallMs(0), now).take(READS_FOR_EXPIRIES);
        let needs: Vec<_> = due.filter_map(|key| self.catalog.find(partition, key, &keys).err()).collect();
        needs.iter().for_each(|need| self.ask(partition, need, io));
        // What is in the cache is known at once.
        self.has_more |= !self.facts.is_reading();
    }

    /// Takes a record out whose time has come.
    pub(crate) fn expire(&mut self, partition: PartitionId, key: &[u8]) -> Result<(), Need> {
        let now = self.clock.now();
        let Shard { catalog, space, cache, journal, transactions, facts, .. } = self;
        let mut effects = Effects { catalog, space, cache, journal: Some(journal), facts, own: None, now };
        let location = effects.find(partition, key)?.map_or(Perhaps::Nothing, Perhaps::At);
        let Effects { catalog, space, .. } = &mut effects;
        transactions.before_change(catalog, space, (partition, key), Write::Delete, |_, _| location);
        effects.expired(partition, key)?;
        self.stats.expired += 1;
        self.space_may_have_changed();
        Ok(())
    }

    /// Takes out a record that was read at this place of the index, and says itself that its time is over. The catalog may say
    /// otherwise of the key: damage leaves records in a compact index that were replaced.
    pub(crate) fn expire_at(&mut self, partition: PartitionId, key: &[u8], location: Location) {
        self.facts.note_key(self.place_of(location), partition, key);
        let now = self.clock.now();
        let Shard { catalog, space, cache, journal, transactions, facts, .. } = self;
        let mut effects = Effects { catalog, space, cache, journal: Some(journal), facts, own: None, now };
        if effects.find(partition, key).is_ok_and(|found| found == Some(location)) {
            let Effects { catalog, space, .. } = &mut effects;
            let present = Perhaps::At(location);
            transactions.before_change(catalog, space, (partition, key), Write::Delete, |_, _| present);
            effects.present_expired(partition, key);
            self.stats.expired += 1;
        } else {
            effects.replaced_expired(partition, key, location);
        }
        self.space_may_have_changed();
    }

    /// When the next record expires, in nanoseconds of the monotonic clock; set at the end of each step.
    pub(crate) fn set_expiry_wake(&mut self, io: &Io<'_>) {
        self.expiry_wake_ns = self.catalog.first_expiry().map(|at| {
            let wait_ns = at.0.saturating_mul(NS_PER_MS).saturating_sub(io.now.wall_ns);
            io.now.monotonic_ns.saturating_add(wait_ns.max(PACE_NS))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Option<WallMs> {
        Some(WallMs(ms))
    }

    #[test]
    fn the_clock_waits_for_a_small_step_back_and_follows_a_large_one() {
        let mut clock = ExpiryClock::default();
        clock.advance(100_000 * NS_PER_MS);
        clock.advance(99_000 * NS_PER_MS);
        assert_eq!(clock.now(), WallMs(100_000), "a second back");
        clock.advance(100_001 * NS_PER_MS);
        assert_eq!(clock.now(), WallMs(100_001));
        clock.advance(40_000 * NS_PER_MS);
        assert_eq!(clock.now(), WallMs(40_000), "more than a minute back");
        clock.observe(90_000 * NS_PER_MS);
        assert_eq!(clock.now(), WallMs(90_000), "a version of a while ahead");
        clock.observe(900_000 * NS_PER_MS);
        assert_eq!(clock.now(), WallMs(90_000), "a version of a wrong clock");
        assert_eq!(clock.expiry(Ttl::Table, None), None);
        assert_eq!(clock.expiry(Ttl::Table, Some(5)), at(90_005));
        assert_eq!(clock.expiry(Ttl::Never, Some(5)), None);
        assert_eq!(clock.expiry(Ttl::After { ttl_ms: 7 }, Some(5)), at(90_007));
        let left = [at(90_009), at(3), None].map(|at| clock.time_left(at));
        assert_eq!(left, [TimeLeft::Ms(9), TimeLeft::Ms(1), TimeLeft::Forever]);
        assert!(is_ttl(1) && is_ttl(MAX_TTL_MS) && !is_ttl(0) && !is_ttl(MAX_TTL_MS + 1));
    }

    #[test]
    fn both_orders_agree_with_a_plain_map() {
        let mut expiries = Expiries::default();
        let mut plain: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        let mut random = 7u64;
        for _ in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let key = format!("{:03}", (random >> 33) % 200).into_bytes();
            let ms = (random >> 20) % 50;
            let expires = if ms < 10 { None } else { at(ms) };
            expiries.set(&key, expires);
            match expires {
                Some(at) => drop(plain.insert(key, at.0)),
                None => drop(plain.remove(&key)),
            }
            if random.is_multiple_of(97) {
                let now = WallMs((random >> 40) % 60);
                let range = KeyRange { start: b"050", end: Some(b"150") };
                let inside = |(key, at): &(&Vec<u8>, &u64)| {
                    **at <= now.0 && (&b"050"[..]..&b"150"[..]).contains(&&key[..])
                };
                assert_eq!(expiries.due_in(&range, now), plain.iter().filter(inside).count() as u64);
                assert_eq!(expiries.first(), plain.values().min().map(|ms| WallMs(*ms)));
            }
        }
        assert_eq!(expiries.len(), plain.len() as u64);
        for (key, ms) in &plain {
            assert_eq!(expiries.of(key), at(*ms));
        }
        assert!(!expiries.drain_some(10));
        assert!(expiries.drain_some(1000));
        assert_eq!((expiries.len(), expiries.memory_bytes()), (0, 0));
    }
}
