//! Strays: what an index says of records that lie in free segments.
//!
//! A segment is free when the journal says durably that nothing in it is of use. An index that still points there when
//! all changes have been made lacks one of a key, which was lost in a damaged frame of the journal, and the partition is in
//! quarantine: there, a key without a record answers an error, as one does with a record that may have been replaced. So
//! strays go. Each would hold a whole segment of those that are free, and journal and checkpoints need them to go on.

use std::collections::VecDeque;
use std::ops::Bound;

use smallvec::smallvec;

use crate::apply::Effects;
use crate::ids::PartitionId;
use crate::index::{KeyOf, Keys, Need};
use crate::io::Io;
use crate::location::Location;
use crate::partition::Store;
use crate::shard::Shard;

/// Records of an index that are looked at in one step: more than can be tied, so that each step gets on.
const RECORDS_PER_STEP: usize = 4_000;

/// The search for strays, partition by partition.
#[derive(Debug, Default)]
pub struct StrayHunt {
    is_begun: bool,
    left: VecDeque<PartitionId>,
    /// Of the first, what is known of the key that was looked at last.
    last_key: Vec<u8>,
}

/// One of them.
struct Stray {
    /// What the index has of its key.
    known: Vec<u8>,
    is_whole: bool,
    location: Location,
}

/// What was found in a part of an index.
struct Page {
    strays: Vec<Stray>,
    /// The last key that was looked at; none where there are no more.
    last_key: Option<Vec<u8>>,
}

impl Shard {
    /// Takes strays out of the indexes of partitions in quarantine. Says whether all was done that can be.
    pub(super) fn drop_strays(&mut self, io: &mut Io<'_>) -> bool {
        if !self.space.has_strays() {
            return true;
        }
        if !std::mem::replace(&mut self.loader.strays.is_begun, true) {
            let ids = self.catalog.partition_ids().into_iter();
            let is_doubtful = |id: &PartitionId| self.catalog.quarantine_of(*id).is_some();
            self.loader.strays.left = ids.filter(is_doubtful).collect();
        }
        let mut left = RECORDS_PER_STEP;
        while let Some(&id) = self.loader.strays.left.front() {
            if left == 0 {
                self.has_more = true;
                return false;
            }
            let page = self.page_of_strays(id, &mut left);
            let needs: Vec<_> =
                page.strays.iter().filter_map(|stray| self.drop_stray(id, stray).err()).collect();
            if !needs.is_empty() {
                needs.iter().for_each(|need| self.ask(id, need, io));
                // What is being read brings a step.
                self.has_more |= !self.facts.is_reading();
                return false;
            }
            let hunt = &mut self.loader.strays;
            if page.last_key.is_none() {
                hunt.left.pop_front();
            }
            hunt.last_key = page.last_key.unwrap_or_default();
        }
        true
    }

    /// Looks at so many records behind those that were looked at, at most.
    fn page_of_strays(&self, id: PartitionId, left: &mut usize) -> Page {
        let mut page = Page { strays: Vec::new(), last_key: None };
        let Some(Store::Durable(index)) = self.catalog.get(id).map(|partition| &partition.store) else {
            return page;
        };
        let last_key = self.loader.strays.last_key.as_slice();
        let start = if last_key.is_empty() { Bound::Unbounded } else { Bound::Excluded(last_key) };
        let mut records = index.iter(&self.catalog.arena, start, Bound::Unbounded);
        while let Some((known, is_whole, location)) = records.next_known() {
            if self.space.is_stray(location) {
                page.strays.push(Stray { known: known.to_vec(), is_whole, location });
            }
            *left -= 1;
            if *left == 0 {
                page.last_key = Some(known.to_vec());
                break;
            }
        }
        page
    }

    /// Takes it out, and notes that. A key that the index does not hold is read: nothing was written there since.
    fn drop_stray(&mut self, id: PartitionId, stray: &Stray) -> Result<(), Need> {
        let Stray { ref known, is_whole, location } = *stray;
        let key = match self.known_keys(id).key_of(location) {
            _ if is_whole => Some(known.clone()),
            KeyOf::Key(key) => Some(key.to_vec()),
            KeyOf::Unknown => return Err(Need(smallvec![location])),
            KeyOf::Unreadable => None,
        };
        if !self.journal.has_room_at_start() {
            // Nothing that it would say is relied on before it has begun anew.
            self.journal.break_off();
        }
        let now = self.clock.now();
        let Shard { catalog, space, cache, journal, facts, .. } = self;
        let mut effects = Effects { catalog, space, cache, journal: Some(journal), facts, own: None, now };
        match key {
            Some(key) => effects.stray(id, &key, location),
            // It was discarded. What is known of its key leads to its place, if not always.
            None if !known.is_empty() => {
                effects.leave_stray(id, known, location);
                Ok(())
            }
            None => Ok(()),
        }
    }
}
