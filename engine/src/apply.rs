//! The one door to the index: the effect of what is durable, and the journal's note of it. The same code for a running
//! log and for recovery. Of a partition that is not loaded, changes are kept until it is; the journal has them already.

use crate::cache::ReadCache;
use crate::catalog::Catalog;
use crate::format::catalog::CatalogChange;
use crate::format::frame::PartitionSet;
use crate::format::journal::JournalEntry;
use crate::format::record::{Record, RecordKind};
use crate::ids::{PartitionId, Seq, WallMs};
use crate::journal::Journal;
use crate::loading::kept::Change;
use crate::location::Location;
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
    /// Records that expire by then are no more. During recovery nothing is: it all comes to light then.
    pub now: WallMs,
}

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
                let Some(old) = self.set(partition, key, location, expires) else {
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
                self.remove(partition, key)
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
    /// such yet; none is known of a partition that is not loaded. `None` where there is no such partition.
    fn set(
        &mut self,
        partition: PartitionId,
        key: &[u8],
        location: Location,
        expires: Option<WallMs>,
    ) -> Option<Option<Location>> {
        let old = if self.catalog.keep(partition, Change::Put { key, location, expires }) {
            None
        } else {
            self.insert(partition, key, location, expires)?
        };
        self.note(&JournalEntry::Set { partition, key, location, expires });
        Some(old)
    }

    fn insert(
        &mut self,
        partition: PartitionId,
        key: &[u8],
        location: Location,
        expires: Option<WallMs>,
    ) -> Option<Option<Location>> {
        let old = self.catalog.with_index(partition, |index, bytes| {
            let old = index.insert(key, location);
            *bytes = *bytes + u64::from(location.room()) - old.map_or(0, |old| u64::from(old.room()));
            old
        })?;
        self.catalog.set_expiry(partition, key, expires);
        self.space.add_live(location);
        Some(old)
    }

    /// Makes a change that was kept until the partition's index was there. It is noted already: in the journal that was
    /// replayed, or of a user frame that is there until the journal covers it.
    pub fn kept(&mut self, partition: PartitionId, change: &Change<'_>) {
        assert!(self.journal.is_none(), "what was kept is in the journal");
        match *change {
            Change::Put { key, location, expires } => {
                let old = self.insert(partition, key, location, expires);
                self.died(old.flatten());
            }
            Change::Delete { key } => {
                let old = self.take_out(partition, key);
                self.died(old);
            }
            // The image may say so of a record that was gone when its leaf was written.
            Change::Expires { key, at } => {
                if self.catalog.locate(partition, key).is_some() {
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
            JournalEntry::Set { partition, key, location, expires } => {
                let old = self.set(partition, key, location, expires);
                self.died(old.flatten());
            }
            JournalEntry::Remove { partition, key } => {
                self.remove(partition, key);
            }
            JournalEntry::Catalog(change) => self.change_catalog(change),
            JournalEntry::Quarantine(partitions, below) => self.quarantine(partitions, below),
            JournalEntry::Freed(segment, generation) => self.space.replay_freed(segment, generation),
        }
    }

    fn remove(&mut self, partition: PartitionId, key: &[u8]) -> bool {
        // Whether there is anything to remove is not known of a partition that is not loaded.
        let is_kept = self.catalog.keep(partition, Change::Delete { key });
        let old = if is_kept { None } else { self.take_out(partition, key) };
        // What is missing in quarantine may be found by another start: it is to be removed then.
        let may_come_back = self.catalog.quarantine_of(partition).is_some();
        if is_kept || old.is_some() || may_come_back {
            self.note(&JournalEntry::Remove { partition, key });
        }
        self.died(old)
    }

    /// Takes a record out of its index. It is dead now, but not counted as such yet.
    fn take_out(&mut self, partition: PartitionId, key: &[u8]) -> Option<Location> {
        let remove = self.catalog.with_index(partition, |index, bytes| {
            let old = index.remove(key);
            *bytes -= old.map_or(0, |old| u64::from(old.room()));
            old
        });
        self.catalog.set_expiry(partition, key, None);
        remove.flatten()
    }

    /// Takes a record out whose time is over, of a durable or of a memory table.
    pub fn expired(&mut self, partition: PartitionId, key: &[u8]) {
        assert!(self.catalog.is_expired(partition, key, self.now), "only what is due is taken out");
        self.catalog.remove_from_memory(partition, key);
        if self.remove(partition, key)
            && let Some(journal) = &mut self.journal
        {
            journal.note_expired();
        }
    }

    /// Applies a record that cleaning copied: only if the index still points to where it came from.
    pub fn relocated(&mut self, record: &Record<'_>, from: Location, to: Location) {
        if self.catalog.locate(record.partition, record.key) != Some(from) {
            return;
        }
        let old = self.set(record.partition, record.key, to, record.expires);
        let written_at = self.space.clock.at(record.seq.wall_ns);
        self.space.note_written(to, written_at);
        self.died(old.flatten());
    }

    fn died(&mut self, old: Option<Location>) -> bool {
        let Some(old) = old else { return false };
        let generation = self.space.of(old).1.generation;
        self.cache.remove(old, generation);
        if self.journal.is_some() {
            self.space.remove_live(old);
        } else {
            self.space.remove_live_of_before(old);
        }
        true
    }
}
