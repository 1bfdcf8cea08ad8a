//! The one door to the index: the effect of what is durable, and the journal's note of it. The same code for a running
//! log and for recovery. Of a partition that is not loaded, changes are kept until it is; the journal has them already.

use crate::cache::ReadCache;
use crate::catalog::Catalog;
use crate::facts::{Facts, KnownKeys};
use crate::format::catalog::CatalogChange;
use crate::format::frame::PartitionSet;
use crate::format::journal::JournalEntry;
use crate::format::record::{Record, RecordKind};
use crate::frame_builder::FrameBuilder;
use crate::ids::{PartitionId, Seq, WallMs};
use crate::index::{Need, Set};
use crate::journal::Journal;
use crate::loading::kept::Change;
use crate::location::Location;
use crate::seam::Buffers;
use crate::space::Space;

/// What records act on.
pub struct Effects<'a> {
    /// The partitions and their indexes.
    pub catalog: &'a mut Catalog,
    /// The segments' live bytes.
    pub space: &'a mut Space,
    /// Forgets what died.
    pub cache: &'a mut ReadCache,
    /// Notes every change. There is none for changes that it, or a user frame that it does not cover, has already.
    pub journal: Option<&'a mut Journal>,
    /// What is known of keys that compact indexes do not hold.
    pub facts: &'a mut Facts,
    /// The frame whose records are applied: it tells their keys.
    pub own: Option<(&'a FrameBuilder, &'a dyn Buffers)>,
    /// Records that expire by then are no more. During recovery nothing is: it all comes to light then.
    pub now: WallMs,
}

/// Of full indexes nothing has to be read.
const FULL: &str = "a full index knows its keys";
/// All that a frame needs is known before it is applied, and what may need more during recovery is kept.
const KNOWN: &str = "what is needed is known before records are applied";

impl Effects<'_> {
    /// Applies a user's record that lies at `location`. Says whether the key had a record before.
    /// A record of a partition that is no more has no effect.
    pub fn user(&mut self, record: &Record<'_>, location: Location) -> bool {
        let was_expired = self.catalog.is_expired(record.partition, record.key, self.now);
        if let Some(journal) = &mut self.journal {
            journal.saw(record.seq);
        }
        self.put_or_delete(record, location) && !was_expired
    }

    fn put_or_delete(&mut self, record: &Record<'_>, location: Location) -> bool {
        let Record { partition, key, expires, .. } = *record;
        match record.kind {
            RecordKind::Put => {
                let Some(old) = self.set((partition, key), location, expires, None).expect(KNOWN) else {
                    self.space.note_replaced(location, None);
                    return false;
                };
                let replaced = old.map(|old| self.space.written_at(self.space.of(old).0));
                self.space.note_written(location, self.space.clock.now());
                self.space.note_replaced(location, replaced);
                self.died(old)
            }
            RecordKind::Delete => {
                self.space.note_replaced(location, None);
                self.remove(partition, key, None).expect(KNOWN)
            }
            RecordKind::Catalog => {
                self.space.note_replaced(location, None);
                // A whole record with a change that does not decode was written by no version of ours.
                self.change_catalog(record.value);
                false
            }
        }
    }

    /// Sets where the record of a key lies. Gives the place of the one before, which is dead now, but not counted as
    /// such yet; none is known of a partition that is not loaded, but for what the journal `said`. `None` where there
    /// is no such partition.
    fn set(
        &mut self,
        (partition, key): (PartitionId, &[u8]),
        location: Location,
        expires: Option<WallMs>,
        said: Option<Location>,
    ) -> Result<Option<Option<Location>>, Need> {
        let kept = Change::Put { key, location, expires, replaces: said };
        let old = if self.catalog.keep(partition, kept) {
            None
        } else {
            let Some(old) = self.insert(partition, key, location, expires)? else { return Ok(None) };
            old
        };
        let replaces = old.filter(|_| self.catalog.is_compact(partition));
        self.note(&JournalEntry::Set { partition, key, location, expires, replaces });
        Ok(Some(old))
    }

    fn insert(
        &mut self,
        partition: PartitionId,
        key: &[u8],
        location: Location,
        expires: Option<WallMs>,
    ) -> Result<Option<Option<Location>>, Need> {
        let Effects { catalog, space, facts, own, .. } = self;
        let keys = KnownKeys { facts, space, partition, own: *own };
        let set = catalog.with_index(partition, |index, bytes| {
            let set = index.set(key, location, &keys)?;
            *bytes = *bytes + u64::from(location.room()) - set.old.map_or(0, |old| u64::from(old.room()));
            Ok(set)
        });
        let Some(Set { old, crowded }) = set.transpose()? else { return Ok(None) };
        if let Some(crowded) = crowded {
            self.catalog.crowded.push((partition, crowded));
        }
        self.catalog.set_expiry(partition, key, expires);
        self.space.add_live(location);
        Ok(Some(old))
    }

    /// Where the present record of a key lies.
    pub fn find(&self, partition: PartitionId, key: &[u8]) -> Result<Option<Location>, Need> {
        let Effects { catalog, space, facts, own, .. } = self;
        catalog.find(partition, key, &KnownKeys { facts, space, partition, own: *own })
    }

    /// Makes a change that was kept until the partition's index was there. It is noted already: in the journal that was
    /// replayed, or of a user frame that is there until the journal covers it.
    pub fn kept(&mut self, partition: PartitionId, change: &Change<'_>) {
        assert!(self.journal.is_none(), "what was kept is in the journal");
        match *change {
            Change::Put { key, location, expires, .. } => {
                let old = self.insert(partition, key, location, expires).expect(FULL);
                self.died(old.flatten());
            }
            Change::Delete { key, .. } => {
                let old = self.take_out(partition, key).expect(FULL);
                self.died(old);
            }
            Change::Superseded { .. } => {}
            // The image may say so of a record that was gone when its leaf was written.
            Change::Expires { key, at } => {
                if !self.catalog.candidates(partition, key).locations.is_empty() {
                    self.catalog.set_expiry(partition, key, Some(at));
                }
            }
        }
    }

    /// A partition's writes may have been lost up to below this version: so it stays at later starts, though they may read what
    /// could not be read now. What cleaning moves meanwhile may be what was replaced.
    pub fn quarantine_one(&mut self, partition: PartitionId, below: Seq) {
        self.change_catalog(&CatalogChange::Quarantine(partition, below).encode());
    }

    /// A kept change said that a key's record no longer lies there.
    pub fn leave(&mut self, partition: PartitionId, key: &[u8], location: Location) {
        let left = self.catalog.with_index(partition, |index, bytes| {
            let left = index.unset_at(key, location);
            *bytes -= if left { u64::from(location.room()) } else { 0 };
            left
        });
        self.died(left.filter(|left| *left).map(|_| location));
    }

    /// A kept change was the last to say something of this location: that the key's record lies there. Where the image
    /// has what a later change says of the key, that stays: another start would take it for what this one replaced.
    pub fn enter(
        &mut self,
        partition: PartitionId,
        key: &[u8],
        (location, expires): (Location, Option<WallMs>),
        is_later: impl Fn(Location) -> bool,
    ) -> Result<(), Need> {
        if self.catalog.holds(partition, key, location) {
            self.catalog.set_expiry(partition, key, expires);
            return Ok(());
        }
        if self.find(partition, key)?.is_some_and(is_later) {
            self.space.add_live(location);
            self.superseded(partition, key, Some(location));
            return Ok(());
        }
        let old = self.insert(partition, key, location, expires)?;
        self.superseded(partition, key, old.flatten());
        Ok(())
    }

    /// A kept change said that a key has no record any more, and not where that was. What a later change says stays, likewise.
    pub fn leave_unsaid(
        &mut self,
        partition: PartitionId,
        key: &[u8],
        is_later: impl Fn(Location) -> bool,
    ) -> Result<(), Need> {
        if self.find(partition, key)?.is_some_and(is_later) {
            return Ok(());
        }
        let old = self.take_out(partition, key)?;
        self.superseded(partition, key, old);
        Ok(())
    }

    /// Kept changes did not say where this record lay that is no more: another start is told, for its segment may be
    /// free by then.
    fn superseded(&mut self, partition: PartitionId, key: &[u8], old: Option<Location>) {
        if let Some(location) = old {
            self.note(&JournalEntry::Superseded { partition, key, location });
        }
        self.died(old);
    }

    /// Of a partition in quarantine: the record of a key lies where nothing is of use any more. There is none, then, that this
    /// start knows.
    pub fn stray(&mut self, partition: PartitionId, key: &[u8], location: Location) -> Result<(), Need> {
        if self.find(partition, key)? == Some(location) {
            self.remove(partition, key, None)?;
        } else {
            self.leave_stray(partition, key, location);
        }
        Ok(())
    }

    /// The same where another record is found for the key, or it is not all known.
    pub fn leave_stray(&mut self, partition: PartitionId, key: &[u8], location: Location) {
        self.leave(partition, key, location);
        self.note(&JournalEntry::Superseded { partition, key, location });
    }

    fn change_catalog(&mut self, change: &[u8]) {
        if let Some(decoded) = CatalogChange::decode(change) {
            self.catalog.apply(decoded);
            self.note(&JournalEntry::Catalog(change));
        }
    }

    fn note(&mut self, entry: &JournalEntry<'_>) {
        if let Some(journal) = &mut self.journal {
            journal.push(entry);
            self.space.journal_position = journal.position();
        }
    }

    /// Writes of these partitions may have been lost up to below this version.
    pub fn quarantine(&mut self, partitions: PartitionSet, below: Seq) {
        for id in self.catalog.partition_ids() {
            if partitions.may_contain(id) {
                self.catalog.apply(CatalogChange::Quarantine(id, below));
            }
        }
        self.note(&JournalEntry::Quarantine(partitions, below));
    }

    /// Does what an entry of the journal says was done. What it is about may be in the image already, or have been
    /// undone by later ones: then those follow.
    pub fn replayed(&mut self, entry: &JournalEntry<'_>) {
        assert!(self.journal.is_none(), "what is replayed is in the journal");
        match *entry {
            JournalEntry::Set { partition, key, location, expires, replaces } => {
                let old = self.set((partition, key), location, expires, replaces).expect(KNOWN);
                self.died(old.flatten());
            }
            JournalEntry::Remove { partition, key, replaces } => {
                self.remove(partition, key, replaces).expect(KNOWN);
            }
            JournalEntry::Superseded { partition, key, location } => {
                self.catalog.keep(partition, Change::Superseded { key, location });
            }
            JournalEntry::Catalog(change) => self.change_catalog(change),
            JournalEntry::Quarantine(partitions, below) => self.quarantine(partitions, below),
            JournalEntry::Freed(segment, generation) => self.space.replay_freed(segment, generation),
        }
    }

    fn remove(&mut self, partition: PartitionId, key: &[u8], said: Option<Location>) -> Result<bool, Need> {
        // Whether there is anything to remove is not known of a partition that is not loaded.
        let is_kept = self.catalog.keep(partition, Change::Delete { key, replaces: said });
        let old = if is_kept { None } else { self.take_out(partition, key)? };
        // What is missing in quarantine may be found by another start: it is to be removed then.
        let may_come_back = self.catalog.quarantine_of(partition).is_some();
        if is_kept || old.is_some() || may_come_back {
            let replaces = old.filter(|_| self.catalog.is_compact(partition));
            self.note(&JournalEntry::Remove { partition, key, replaces });
        }
        Ok(self.died(old))
    }

    /// Takes a record out of its index. It is dead now, but not counted as such yet.
    fn take_out(&mut self, partition: PartitionId, key: &[u8]) -> Result<Option<Location>, Need> {
        let Effects { catalog, space, facts, own, .. } = self;
        let keys = KnownKeys { facts, space, partition, own: *own };
        let removed = catalog.with_index(partition, |index, bytes| {
            let old = index.unset(key, &keys)?;
            *bytes -= old.map_or(0, |old| u64::from(old.room()));
            Ok(old)
        });
        let old = removed.transpose()?.flatten();
        self.catalog.set_expiry(partition, key, None);
        Ok(old)
    }

    /// Takes a record out whose time is over, of a durable or of a memory table.
    pub fn expired(&mut self, partition: PartitionId, key: &[u8]) -> Result<(), Need> {
        assert!(self.catalog.is_expired(partition, key, self.now), "only what is due is taken out");
        self.catalog.remove_from_memory(partition, key);
        if self.remove(partition, key, None)?
            && let Some(journal) = &mut self.journal
        {
            journal.note_expired();
        }
        Ok(())
    }

    /// Takes out the record that was found to be the key's, and that says itself that its time is over.
    pub fn present_expired(&mut self, partition: PartitionId, key: &[u8]) {
        self.remove(partition, key, None).expect("the key's record was just found");
        if let Some(journal) = &mut self.journal {
            journal.note_expired();
        }
    }

    /// Takes out a record, by its place, whose time is over, and that is not the one that is found for the key. What is known of
    /// the key is about the other one, and stays.
    pub fn replaced_expired(&mut self, partition: PartitionId, key: &[u8], location: Location) {
        self.leave(partition, key, location);
        self.note(&JournalEntry::Superseded { partition, key, location });
        if let Some(journal) = &mut self.journal {
            journal.note_expired();
        }
    }

    /// Applies a record that cleaning copied: only if the index still points to where it came from.
    pub fn relocated(&mut self, record: &Record<'_>, from: Location, to: Location) {
        let Record { partition, key, expires, .. } = *record;
        let moved = self.catalog.with_index(partition, |index, bytes| {
            let moved = index.relocate(key, from, to);
            *bytes = if moved { *bytes + u64::from(to.room()) - u64::from(from.room()) } else { *bytes };
            moved
        });
        if moved != Some(true) {
            return;
        }
        self.space.add_live(to);
        let replaces = Some(from).filter(|_| self.catalog.is_compact(partition));
        self.note(&JournalEntry::Set { partition, key, location: to, expires, replaces });
        let written_at = self.space.clock.at(record.seq.wall_ns);
        self.space.note_written(to, written_at);
        self.died(Some(from));
    }

    fn died(&mut self, old: Option<Location>) -> bool {
        let Some(old) = old else { return false };
        let generation = self.space.of(old).1.generation;
        self.cache.remove(old, generation);
        self.facts.forget((old, generation));
        if self.journal.is_some() {
            self.space.remove_live(old);
        } else {
            self.space.remove_live_of_before(old);
        }
        true
    }
}
