//! Kept changes are made when a partition's index is in memory.
//!
//! A full index takes them one by one, as they came. A compact index would have to read whom they are about, and many
//! of those records are long gone, and their segments written anew. So of each location only what was said last
//! counts. First all leave that the changes say are no more, found by their locations. What is in the index then, and
//! what enters it next, is on the drive: an emptied segment is free when the journal says durably who left it, and
//! what it said was kept here. So whoever is tied with a key that enters can be read, and what turns out to be
//! an older record of the same key is superseded by it, which the journal notes.

use std::collections::HashMap;

use super::LoadState;
use super::kept::{Change, Changes, UnreadChanges};
use crate::apply::Effects;
use crate::ids::PartitionId;
use crate::index::{Need, PartitionIndex};
use crate::io::Io;
use crate::location::Location;
use crate::shard::Shard;

/// Kept changes that are made in one step.
const CHANGES_PER_STEP: usize = 2_000;
/// Kept changes for which records are read at once, where an index does not hold whole keys.
const CHANGES_READ_AHEAD: usize = 256;
/// In the place of a change: the last one said that nothing lies there any more.
const LEFT: usize = usize::MAX;

/// What is being done with the changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// What the image says of expiries.
    Expiries,
    /// A full index takes what was kept.
    Plain,
    /// Which change was the last to say something of each location.
    Learn,
    /// Those go that are no more.
    Leave,
    /// Those come that are there.
    Enter,
    Done,
}

/// A partition with its index in memory, and changes that are still to be made to it.
#[derive(Debug)]
pub struct Settling {
    partition: PartitionId,
    is_compact: bool,
    pass: Pass,
    expiries: UnreadChanges,
    kept: UnreadChanges,
    /// The position of the last change that said something of a location.
    last: HashMap<Location, usize, ahash::RandomState>,
}

impl Settling {
    /// Of what the image says of expiries, and of what was changed since.
    pub fn new(partition: PartitionId, is_compact: bool, expiries: Changes, kept: Changes) -> Settling {
        let last = HashMap::with_hasher(ahash::RandomState::with_seeds(51, 52, 53, 54));
        let (expiries, kept) = (expiries.into_unread(), kept.into_unread());
        Settling { partition, is_compact, pass: Pass::Expiries, expiries, kept, last }
    }

    fn changes(&mut self) -> &mut UnreadChanges {
        if self.pass == Pass::Expiries { &mut self.expiries } else { &mut self.kept }
    }

    fn next_pass(&mut self) {
        self.changes().rewind();
        self.pass = match self.pass {
            Pass::Expiries if self.is_compact => Pass::Learn,
            Pass::Expiries => Pass::Plain,
            Pass::Learn => Pass::Leave,
            Pass::Leave => Pass::Enter,
            Pass::Plain | Pass::Enter | Pass::Done => Pass::Done,
        };
    }

    /// Notes what the next change says of locations.
    fn learn(&mut self) {
        let position = self.kept.position();
        let last = &mut self.last;
        match self.kept.next() {
            Some(Change::Put { location, replaces, .. }) => {
                replaces.map(|replaced| last.insert(replaced, LEFT));
                last.insert(location, position);
            }
            Some(Change::Delete { replaces, .. }) => drop(replaces.map(|left| last.insert(left, LEFT))),
            Some(Change::Superseded { location, .. }) => drop(last.insert(location, LEFT)),
            Some(Change::Expires { .. }) | None => {}
        }
    }

    /// The next change makes a key's record enter or leave that has to be found first: the key.
    fn needs_key<'c>(&self, change: &Change<'c>, has_gaps: bool) -> Option<&'c [u8]> {
        match *change {
            Change::Put { key, .. } | Change::Delete { key, .. } if has_gaps => Some(key),
            Change::Put { key, location, .. } => (self.last.get(&location) != Some(&LEFT)).then_some(key),
            Change::Delete { key, replaces: None } => Some(key),
            Change::Delete { .. } | Change::Superseded { .. } | Change::Expires { .. } => None,
        }
    }
}

/// How far a partition has come.
enum Progress {
    Done,
    More,
    Needs(Vec<Need>),
}

impl Shard {
    /// Makes the kept changes of partitions whose indexes are there, and serves those who wait for them. Says
    /// whether none is left.
    pub(super) fn settle_partitions(&mut self, io: &mut Io<'_>) -> bool {
        let mut left = CHANGES_PER_STEP;
        while let Some(mut settling) = self.loader.settling.pop_front() {
            let id = settling.partition;
            let progress = self.settle_one(&mut settling, &mut left);
            if !self.journal.has_room_at_start() {
                // Nothing that it would say is relied on before it has begun anew.
                self.journal.break_off();
            }
            match progress {
                Progress::Done => {
                    self.catalog.set_load_state(id, LoadState::Loaded);
                    self.serve_waiting(id, io);
                    continue;
                }
                Progress::More => self.has_more = true,
                Progress::Needs(needs) => {
                    needs.iter().for_each(|need| self.ask(id, need, io));
                    // What is being read brings a step.
                    self.has_more |= !self.facts.is_reading();
                }
            }
            self.loader.settling.push_front(settling);
            return false;
        }
        true
    }

    fn settle_one(&mut self, settling: &mut Settling, left: &mut usize) -> Progress {
        while settling.pass != Pass::Done {
            if *left == 0 {
                return Progress::More;
            }
            match self.settle_next(settling) {
                Ok(true) => *left -= 1,
                Ok(false) => settling.next_pass(),
                Err(needs) => return Progress::Needs(needs),
            }
        }
        Progress::Done
    }

    /// Deals with the next change. Says whether there was one.
    fn settle_next(&mut self, settling: &mut Settling) -> Result<bool, Vec<Need>> {
        let (id, pass) = (settling.partition, settling.pass);
        let now = self.clock.now();
        let Shard { catalog, space, cache, facts, journal, .. } = self;
        let journal = Some(journal).filter(|_| matches!(pass, Pass::Leave | Pass::Enter));
        let mut effects = Effects { catalog, space, cache, journal, facts, own: None, now };
        if pass == Pass::Enter {
            return self.enter_next(settling);
        }
        if pass == Pass::Learn {
            let is_one = settling.kept.ahead().next().is_some();
            settling.learn();
            return Ok(is_one);
        }
        let Some(change) = settling.changes().next() else { return Ok(false) };
        if pass != Pass::Leave {
            effects.kept(id, &change);
            return Ok(true);
        }
        match change {
            Change::Put { key, replaces: Some(location), .. }
            | Change::Delete { key, replaces: Some(location) }
            | Change::Superseded { key, location } => effects.leave(id, key, location),
            Change::Put { .. } | Change::Delete { .. } | Change::Expires { .. } => {}
        }
        Ok(true)
    }

    fn enter_next(&mut self, settling: &mut Settling) -> Result<bool, Vec<Need>> {
        let (id, now) = (settling.partition, self.clock.now());
        let Shard { catalog, space, cache, facts, journal, .. } = self;
        let mut effects = Effects { catalog, space, cache, journal: Some(journal), facts, own: None, now };
        let position = settling.kept.position();
        // Where a frame of the journal was damaged, what a change says that it replaced need not be all that it did: the
        // entry may be lost by which a record left that the one before had.
        let has_gaps = effects.catalog.quarantine_of(id).is_some();
        let Some(change) = settling.kept.ahead().next() else { return Ok(false) };
        // What an image has that was written ahead of the journal may be what a later change says.
        let is_later =
            |at: Location| settling.last.get(&at).is_some_and(|last| *last != LEFT && *last > position);
        let mut entered = None;
        let done = match change {
            Change::Put { key, location, expires, .. } => {
                if settling.last.get(&location) == Some(&position) {
                    entered = Some((key, location));
                    effects.enter(id, key, (location, expires), is_later)
                } else {
                    let left = if has_gaps { effects.leave_unsaid(id, key, is_later) } else { Ok(()) };
                    left.map(|()| effects.catalog.set_expiry(id, key, expires))
                }
            }
            Change::Delete { key, replaces } if has_gaps || replaces.is_none() => {
                effects.leave_unsaid(id, key, is_later)
            }
            Change::Delete { key, .. } => {
                effects.catalog.set_expiry(id, key, None);
                Ok(())
            }
            Change::Superseded { .. } | Change::Expires { .. } => Ok(()),
        };
        if done.is_err() {
            let ahead = settling.kept.ahead().take(CHANGES_READ_AHEAD);
            let needed = |change: Change<'_>| effects.find(id, settling.needs_key(&change, has_gaps)?).err();
            return Err(ahead.filter_map(needed).collect());
        }
        if let Some((key, location)) = entered
            && catalog.candidates(id, key).locations.len() > 1
            && !facts.is_full()
        {
            // Whoever comes next and is tied with it need not read it.
            let generation = space.of(location).1.generation;
            facts.note_key((location, generation), id, key);
        }
        settling.kept.next();
        Ok(true)
    }

    /// The log was replayed: what is in no image, and was changed all the same, has nothing to be loaded.
    pub(crate) fn settle_what_is_in_no_image(&mut self) {
        self.catalog.is_replaying = false;
        for id in self.catalog.partition_ids() {
            let image = self.catalog.get(id).and_then(|partition| partition.image.as_ref());
            if !image.is_some_and(|image| image.is_of_nothing()) {
                continue;
            }
            self.catalog.set_load_state(id, LoadState::Loading);
            let Some(kept) = self.catalog.install(id, PartitionIndex::compact(), 0) else { continue };
            self.loader.is_done = false;
            self.loader.settling.push_back(Settling::new(id, true, Changes::default(), kept));
        }
    }

    /// Whether all that is in a partition's index is on the drive.
    pub(crate) fn may_read_all(&self, id: PartitionId) -> bool {
        let settling = self.loader.settling.iter().find(|settling| settling.partition == id);
        settling.map_or(self.is_loaded(id), |settling| settling.pass == Pass::Enter)
    }
}
