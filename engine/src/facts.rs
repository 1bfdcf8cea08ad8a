//! What is known of records' keys beside the index: what compact indexes need to tell tied keys apart.
//!
//! A place of the drive, in one life of its segment, holds one record for ever: what was read there once stays
//! true. So whoever needs a key asks for it, and does again what it was at when there is news; nothing else has to be
//! remembered. A frame of the log is applied when all that it needs is known.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use smallvec::SmallVec;

use crate::cache::ReadCache;
use crate::catalog::Catalog;
use crate::format::record::{Record, RecordKind};
use crate::frame_builder::FrameBuilder;
use crate::ids::{Generation, PartitionId};
use crate::index::{Candidates, KeyOf, Keys, Need};
use crate::io::Io;
use crate::location::Location;
use crate::reads::ReadFor;
use crate::reply::ReadError;
use crate::seam::Buffers;
use crate::shard::Shard;
use crate::space::Space;
use crate::transactions::Version;

/// Bytes of facts beyond which those before them are forgotten. What is forgotten and needed all the same is read again.
const MOST_BYTES: usize = 8 << 20;
/// The same while requests wait for keys: one may need those of all that a transaction has changed, at once.
const MOST_BYTES_ASKED: usize = 64 << 20;
/// What a fact costs beside its key, about.
const FACT_BYTES: usize = 64;
/// A record that could not be read so many times, one after the other, is damaged. A drive that errs once in a hundred reads, and
/// not for good, is believed wrongly once in 10^12 reads: what is written past a record that nobody can read does not hold if it
/// can be read later.
const MOST_TRIES: u8 = 6;
/// Most leaves that wait to be refined; those beyond ask again.
const MOST_CROWDED: usize = 256;

/// Most leaves that are refined in a step: those that need no reads; so much do inserts of a step fill at most, nearly always.
const REFINED_PER_STEP: usize = 16;

/// How often a record could not be read: what came was damaged, or the drive refused it, which says nothing of the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tries {
    damaged: u8,
    refused: u8,
}

#[derive(Debug)]
enum Fact {
    /// Being read; whether the next frame of the log waits for it, and how often it could not be read before.
    Reading { is_awaited: bool, tries: Tries },
    /// It could not be read so many times; it may be asked for again.
    Failed { tries: Tries },
    /// The record is of this partition, and has this key.
    Key(PartitionId, Box<[u8]>),
    /// The record is damaged.
    Unreadable,
}

/// Facts by the record's place, and in which life of its segment.
type ByPlace = HashMap<(Location, Generation), Fact, ahash::RandomState>;

/// The facts of a shard.
#[derive(Debug)]
pub struct Facts {
    known: ByPlace,
    /// Bytes of these.
    bytes: usize,
    /// What was known when there were too many: it goes when there are too many again.
    older: ByPlace,
    /// Reads under way.
    reading: usize,
    /// Those that the next frame of the log waits for.
    awaited: usize,
    /// Some were forgotten since the log's next frame waits. No more are until it is applied: a frame of keys that are tied with long ones
    /// needs more of them at once than are kept otherwise, and would be read for for ever.
    has_forgotten: bool,
    /// Something became known since the last look.
    has_news: bool,
}

impl Facts {
    /// None.
    pub fn new() -> Facts {
        let [known, older] =
            [(); 2].map(|()| HashMap::with_hasher(ahash::RandomState::with_seeds(41, 42, 43, 44)));
        Facts { known, bytes: 0, older, reading: 0, awaited: 0, has_forgotten: false, has_news: false }
    }

    fn get(&self, at: (Location, Generation)) -> Option<&Fact> {
        self.known.get(&at).or_else(|| self.older.get(&at))
    }

    /// Bytes of memory that all of them take, about.
    pub fn memory_bytes(&self) -> usize {
        self.bytes + self.older.values().map(bytes_of).sum::<usize>()
    }

    /// Whether the log's next frame waits for a read.
    pub fn is_awaited(&self) -> bool {
        self.awaited > 0
    }

    /// Whether any is being read: a step comes when one has been.
    pub fn is_reading(&self) -> bool {
        self.reading > 0
    }

    /// Whether there are so many that none is to be noted which nobody asked for.
    pub fn is_full(&self) -> bool {
        self.bytes > MOST_BYTES
    }

    /// Whether something became known since this was asked last.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// Those who wait are to look again.
    pub fn make_news(&mut self) {
        self.has_news = true;
    }

    fn note(&mut self, at: (Location, Generation), fact: Fact) {
        self.older.remove(&at);
        self.bytes += bytes_of(&fact);
        self.reading += usize::from(matches!(fact, Fact::Reading { .. }));
        if let Some(before) = self.known.insert(at, fact) {
            self.bytes -= bytes_of(&before);
            self.reading -= usize::from(matches!(before, Fact::Reading { .. }));
            self.awaited -= usize::from(matches!(before, Fact::Reading { is_awaited: true, .. }));
        }
        self.has_news = true;
    }

    /// The record there has this key.
    pub fn note_key(&mut self, at: (Location, Generation), partition: PartitionId, key: &[u8]) {
        self.note(at, Fact::Key(partition, key.into()));
    }

    /// The record there could not be read. It is damaged when that was so as often as it takes to believe it. Says whether it is
    /// only that the drive refuses it, again and again.
    pub fn note_unread(&mut self, at: (Location, Generation), is_refused: bool) -> bool {
        let mut tries = match self.get(at) {
            Some(Fact::Reading { tries, .. } | Fact::Failed { tries }) => *tries,
            _ => Tries::default(),
        };
        let count = if is_refused { &mut tries.refused } else { &mut tries.damaged };
        *count += 1;
        let is_last = *count >= MOST_TRIES;
        self.note(at, if is_last { Fact::Unreadable } else { Fact::Failed { tries } });
        is_last && is_refused
    }

    /// Whether the log does not wait for this read.
    pub fn may_be_given_up(&self, at: (Location, Generation)) -> bool {
        matches!(self.known.get(&at), Some(Fact::Reading { is_awaited: false, .. }))
    }

    /// It is not being read any more, though nothing became known.
    pub fn give_up(&mut self, at: (Location, Generation)) {
        let Some(Fact::Reading { is_awaited: false, tries }) = self.known.get(&at) else {
            panic!("what is given up is being read, and not for the log");
        };
        let tries = *tries;
        if tries == Tries::default() {
            self.known.remove(&at);
            (self.bytes, self.reading) = (self.bytes - FACT_BYTES, self.reading - 1);
        } else {
            self.note(at, Fact::Failed { tries });
        }
    }

    /// It may be read again: nothing is believed of what was damaged once.
    pub fn forget_unreadable(&mut self, at: (Location, Generation)) {
        if matches!(self.get(at), Some(Fact::Unreadable)) {
            self.forget(at);
        }
    }

    /// The record there is no more: nobody will ask for its key but by chance.
    pub fn forget(&mut self, at: (Location, Generation)) {
        // As where no table is compact: every write comes by here.
        if self.known.is_empty() && self.older.is_empty() {
            return;
        }
        self.older.remove(&at);
        if let Entry::Occupied(known) = self.known.entry(at)
            && !matches!(known.get(), Fact::Reading { .. })
        {
            self.bytes -= bytes_of(&known.remove());
        }
    }

    /// Where there are more bytes of them than this, forgets those that were too many before. What is being read stays, and what was
    /// read for a frame that waits is forgotten by none but the second time.
    fn forget_the_oldest(&mut self, most_bytes: usize) {
        if self.bytes <= most_bytes || (self.is_awaited() && self.has_forgotten) {
            return;
        }
        self.has_forgotten = self.is_awaited();
        let being_read = |_: &(Location, Generation), fact: &mut Fact| matches!(fact, Fact::Reading { .. });
        std::mem::swap(&mut self.known, &mut self.older);
        self.known.clear();
        self.known.extend(self.older.extract_if(being_read));
        self.bytes = self.known.len() * FACT_BYTES;
    }
}

/// Bytes of memory that a fact takes, about.
fn bytes_of(fact: &Fact) -> usize {
    FACT_BYTES + if let Fact::Key(_, key) = fact { key.len() } else { 0 }
}

/// What is known of the keys of a partition's records.
#[derive(Clone, Copy)]
pub struct KnownKeys<'a> {
    /// What was read.
    pub facts: &'a Facts,
    /// In which life their segments are.
    pub space: &'a Space,
    /// Whose records they are.
    pub partition: PartitionId,
    /// A frame that is being applied.
    pub own: Option<(&'a FrameBuilder, &'a dyn Buffers)>,
}

impl KnownKeys<'_> {
    /// Where the record of a key lies; where it has none that is known, whether one that cannot be read may be it.
    pub fn locate(&self, catalog: &Catalog, key: &[u8]) -> Result<Perhaps, Need> {
        if let Some(location) = catalog.find(self.partition, key, self)? {
            return Ok(Perhaps::At(location));
        }
        Ok(self.unreadable(catalog, key).map_or(Perhaps::Nothing, Perhaps::Damaged))
    }

    /// A record that cannot be read and may be one of this key, whether there is another that can or not.
    pub fn unreadable(&self, catalog: &Catalog, key: &[u8]) -> Option<Location> {
        let mut tied = self.tied(catalog, key).into_iter();
        tied.find(|location| matches!(self.key_of(*location), KeyOf::Unreadable))
    }

    /// Records of which it is not known whether they are of this key, though one that is may have been found: whoever deletes
    /// the key has to know of all of them.
    pub fn unread(&self, catalog: &Catalog, key: &[u8]) -> impl Iterator<Item = Location> {
        let tied = self.tied(catalog, key).into_iter();
        tied.filter(|location| matches!(self.key_of(*location), KeyOf::Unknown))
    }

    /// Records that a compact index alone cannot tell from the key's.
    fn tied(&self, catalog: &Catalog, key: &[u8]) -> SmallVec<[Location; 2]> {
        if !catalog.is_compact(self.partition) {
            return SmallVec::new();
        }
        let found = catalog.candidates(self.partition, key);
        if found.is_certain { SmallVec::new() } else { found.locations }
    }
}

impl Keys for KnownKeys<'_> {
    fn key_of(&self, location: Location) -> KeyOf<'_> {
        if let Some((builder, buffers)) = self.own
            && let Some(record) = builder.record_at(buffers, location)
        {
            return KeyOf::Key(record.key);
        }
        match self.facts.get((location, self.space.of(location).1.generation)) {
            None | Some(Fact::Reading { .. } | Fact::Failed { .. }) => KeyOf::Unknown,
            Some(Fact::Key(partition, key)) if *partition == self.partition => KeyOf::Key(key),
            Some(Fact::Key(..) | Fact::Unreadable) => KeyOf::Unreadable,
        }
    }
}

/// Where the record of a key may lie, as far as is known.
#[derive(Debug, PartialEq, Eq)]
pub enum Perhaps {
    /// There is none.
    Nothing,
    /// It lies here, or what lies here tells more.
    At(Location),
    /// It may be the one that is damaged here.
    Damaged(Location),
}

impl Shard {
    /// What is known of the keys of a partition's records.
    pub(crate) fn known_keys(&self, partition: PartitionId) -> KnownKeys<'_> {
        KnownKeys { facts: &self.facts, space: &self.space, partition, own: None }
    }

    /// The first of the candidates for a key that is not known to be another's. What was found damaged is told once,
    /// and read again when it is asked for again.
    pub(crate) fn locate_perhaps(
        &mut self,
        partition: PartitionId,
        found: &Candidates,
        key: &[u8],
    ) -> Perhaps {
        if found.is_certain {
            return found.locations.first().map_or(Perhaps::Nothing, |location| Perhaps::At(*location));
        }
        let mut damaged = None;
        for location in &found.locations {
            let at = self.place_of(*location);
            if let (None, Some(key)) = (self.facts.get(at), key_in_cache(&self.cache, at, partition)) {
                self.facts.note_key(at, partition, &key);
            }
            match self.known_keys(partition).key_of(*location) {
                KeyOf::Key(one) if one != key => {}
                KeyOf::Key(_) | KeyOf::Unknown => return Perhaps::At(*location),
                KeyOf::Unreadable => damaged = damaged.or(Some(*location)),
            }
        }
        let Some(location) = damaged else { return Perhaps::Nothing };
        let at = self.place_of(location);
        self.facts.forget_unreadable(at);
        Perhaps::Damaged(location)
    }

    /// A record that may be the key's and cannot be read, where no other is.
    pub(crate) fn damaged_perhaps(&mut self, partition: PartitionId, key: &[u8]) -> Option<Location> {
        if !self.catalog.is_compact(partition) {
            return None;
        }
        let found = self.catalog.candidates(partition, key);
        match self.locate_perhaps(partition, &found, key) {
            Perhaps::Damaged(location) => Some(location),
            Perhaps::Nothing | Perhaps::At(_) => None,
        }
    }

    /// What a key has, by a compact index too: where its record lies, and whether that is only perhaps so.
    pub(crate) fn narrowed(
        &mut self,
        version: Version,
        partition: PartitionId,
        key: &[u8],
    ) -> Result<(Version, bool), ReadError> {
        let perhaps = match version {
            Version::Perhaps(found) => self.locate_perhaps(partition, &found, key),
            Version::Damaged(location) => Perhaps::Damaged(location),
            version => return Ok((version, false)),
        };
        match perhaps {
            Perhaps::Nothing => Ok((Version::Absent, false)),
            Perhaps::At(location) => Ok((Version::Stored(location), true)),
            Perhaps::Damaged(location) => {
                Err(ReadError::Corrupt { at: self.place.area_at.0 + location.offset() })
            }
        }
    }

    /// A record's place, and in which life of its segment.
    pub(crate) fn place_of(&self, location: Location) -> (Location, Generation) {
        (location, self.space.of(location).1.generation)
    }

    /// Learns the keys of these records: from the cache at once, or by reading.
    pub(crate) fn ask(&mut self, partition: PartitionId, need: &Need, io: &mut Io<'_>) {
        for (place, location) in need.0.iter().enumerate() {
            // What there is no room for now is asked for again when the others are known.
            if place > 0 && !self.reads.has_room(*location, &self.config) {
                return;
            }
            self.ask_one(partition, *location, false, io);
        }
    }

    fn ask_one(&mut self, partition: PartitionId, location: Location, is_awaited: bool, io: &mut Io<'_>) {
        let at = self.place_of(location);
        let mut failed = Tries::default();
        if let Some(Fact::Reading { is_awaited: was_awaited, .. }) = self.facts.known.get_mut(&at) {
            self.facts.awaited += usize::from(is_awaited && !*was_awaited);
            *was_awaited |= is_awaited;
            return;
        }
        match self.facts.get(at) {
            Some(Fact::Failed { tries }) => failed = *tries,
            Some(Fact::Key(..) | Fact::Unreadable) => return,
            None | Some(Fact::Reading { .. }) => {}
        }
        if let Some(key) = key_in_cache(&self.cache, at, partition) {
            return self.facts.note_key(at, partition, &key);
        }
        self.facts.note(at, Fact::Reading { is_awaited, tries: failed });
        self.facts.awaited += usize::from(is_awaited);
        self.stats.key_reads += 1;
        self.start_read(ReadFor::Key { partition }, location, io);
    }

    /// Asks for what the record that was just appended will need when it is applied, so that it is known by then.
    pub(crate) fn ask_ahead(&mut self, partition: PartitionId, key: &[u8], io: &mut Io<'_>) {
        if !self.catalog.has_compact() {
            return;
        }
        let Err(need) = self.catalog.find(partition, key, &self.known_keys(partition)) else { return };
        if need.0.iter().all(|location| self.reads.has_room(*location, &self.config)) {
            self.ask(partition, &need, io);
        }
    }

    /// Whether the log's next frame is durable, and all is known that it takes to apply it.
    pub(crate) fn may_apply(&mut self, io: &mut Io<'_>) -> bool {
        while !self.facts.is_awaited() {
            let Some(frame) = self.log.next_durable() else { return false };
            if !self.catalog.has_compact() {
                return true;
            }
            let mut needs = Vec::new();
            frame.builder.for_each_record(&*io.buffers, |record, _| {
                let (id, keys) = (record.partition, self.known_keys(record.partition));
                if let Err(Need(locations)) = self.catalog.find(id, record.key, &keys) {
                    needs.extend(locations.into_iter().map(|location| (id, location)));
                } else if record.kind == RecordKind::Delete {
                    needs.extend(keys.unread(&self.catalog, record.key).map(|location| (id, location)));
                }
            });
            if needs.is_empty() {
                self.facts.has_forgotten = false;
                return true;
            }
            for (partition, location) in needs {
                self.ask_one(partition, location, true, io);
            }
        }
        false
    }

    /// A record was read, or is damaged: what its key is, is known from now on. Says whether the drive refuses it again and again.
    pub(crate) fn key_read(
        &mut self,
        partition: PartitionId,
        location: Location,
        outcome: &Result<Record<'_>, ReadError>,
    ) -> bool {
        let at = self.place_of(location);
        match outcome {
            Ok(record) if record.partition == partition => {
                self.facts.note_key(at, partition, record.key);
                false
            }
            outcome => self.facts.note_unread(at, matches!(outcome, Err(ReadError::Device { .. }))),
        }
    }

    /// Makes more known of the keys in leaves where too many are tied, and forgets what is known where it is too much.
    pub(crate) fn pump_facts(&mut self, io: &mut Io<'_>) {
        let most_bytes = if self.asking.is_empty() { MOST_BYTES } else { MOST_BYTES_ASKED };
        self.facts.forget_the_oldest(most_bytes);
        self.catalog.crowded.truncate(MOST_CROWDED);
        for _ in 0..REFINED_PER_STEP {
            if !self.refine_next(io) {
                return;
            }
        }
    }

    /// Refines the first leaf that waits for it, as far as what it takes is known. Says whether it is done.
    fn refine_next(&mut self, io: &mut Io<'_>) -> bool {
        let Some((partition, key)) = self.catalog.crowded.first().cloned() else { return false };
        assert!(
            self.may_read_all(partition),
            "a leaf of partition {partition} was filled before what is gone had left"
        );
        let Shard { catalog, facts, space, .. } = self;
        let keys = KnownKeys { facts, space, partition, own: None };
        let refined = catalog.with_index(partition, |index, _| index.refine(&key, &keys));
        match refined {
            Some(Err(need)) => {
                self.ask(partition, &need, io);
                false
            }
            Some(Ok(())) | None => {
                self.catalog.crowded.remove(0);
                self.has_more |= !self.catalog.crowded.is_empty();
                true
            }
        }
    }
}

fn key_in_cache(cache: &ReadCache, at: (Location, Generation), partition: PartitionId) -> Option<Vec<u8>> {
    let bytes = cache.get(at.0, at.1)?;
    let record = Record::decode_unchecked(bytes).ok()?;
    (record.partition == partition).then(|| record.key.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(i: u64) -> (Location, Generation) {
        (Location::new(i * 1000, 1000), Generation(1))
    }

    #[test]
    fn what_was_read_long_ago_is_forgotten_and_what_is_being_read_is_not() {
        let mut facts = Facts::new();
        facts.note(at(0), Fact::Reading { is_awaited: false, tries: Tries::default() });
        let last = 300_000;
        for i in 1..=last {
            facts.note_key(at(i), PartitionId(1), &[7; 200]);
            if i % 100 == 0 {
                facts.forget_the_oldest(MOST_BYTES);
                assert!(facts.memory_bytes() <= 2 * (MOST_BYTES + 100 * 264), "after {i}");
                assert!(facts.get(at(i)).is_some() && facts.get(at(0)).is_some(), "after {i}");
            }
        }
        let known = (1..=last).filter(|i| facts.get(at(*i)).is_some()).count();
        assert!(known >= MOST_BYTES / 264, "{known} of the last are known");
        assert!(facts.is_reading());
        facts.note_key(at(0), PartitionId(1), b"key");
        assert!(!facts.is_reading());
        facts.forget(at(0));
        facts.forget(at(last));
        assert!(facts.get(at(0)).is_none() && facts.get(at(last)).is_none());
    }

    #[test]
    fn what_is_read_for_a_frame_that_waits_is_kept_however_much_it_is() {
        let mut facts = Facts::new();
        facts.note(at(0), Fact::Reading { is_awaited: true, tries: Tries::default() });
        facts.awaited += 1;
        for i in 1..=20_000 {
            facts.note_key(at(i), PartitionId(1), &[7; 4_000]);
            facts.forget_the_oldest(MOST_BYTES);
        }
        assert!((1..=20_000).all(|i| facts.get(at(i)).is_some()), "80 MB that its frame may need at once");
        facts.note_key(at(0), PartitionId(1), b"key");
        facts.forget_the_oldest(MOST_BYTES);
        facts.note_key(at(20_001), PartitionId(1), &[7; 4_000]);
        assert!(facts.bytes < 2 * MOST_BYTES, "{} bytes when it is applied", facts.bytes);
    }
}
