//! As of when a read sees its partition: as it is, or as a transaction saw it when it began.

use bytes::Bytes;

use super::history::{Before, History, Overlay, Position};
use super::{Transaction, Transactions};
use crate::catalog::Catalog;
use crate::ids::{PartitionId, Seq, TransactionId, WallMs};
use crate::index::{Candidates, Need};
use crate::location::Location;
use crate::lookups::Located;
use crate::partition::{Partition, Store};
use crate::reply::ReadError;
use crate::request::KeyRange;

/// A point in time of a partition.
#[derive(Clone, Copy)]
pub struct View<'a> {
    past: Option<(&'a History, Position)>,
    /// The time by which records have expired.
    pub now: WallMs,
}

/// What a key has in a view.
#[derive(Debug)]
pub enum Version {
    /// Nothing.
    Absent,
    /// Perhaps what is damaged here.
    Damaged(Location),
    /// A record on the drive.
    Stored(Location),
    /// Perhaps a record on the drive: which one, their keys tell.
    Perhaps(Candidates),
    /// A record of a memory table, and when it expires.
    Held(Seq, Bytes, Option<WallMs>),
}

impl Transactions {
    /// What a transaction sees of its partition; without one, the present.
    pub fn view(
        &self,
        id: Option<TransactionId>,
        partition: PartitionId,
        now: WallMs,
    ) -> Result<View<'_>, ReadError> {
        let Some(id) = id else { return Ok(View { past: None, now }) };
        let Transaction { position, now, .. } = self.get(id, partition).ok_or(ReadError::TransactionEnded)?;
        let history = self.histories.get(&partition);
        let history = history.expect("the partition of an open transaction has a history");
        Ok(View { past: Some((history, *position)), now: *now })
    }
}

impl<'a> View<'a> {
    /// What a key has; `located` is what is known of it in the index of the present.
    pub fn version(&self, catalog: &Catalog, partition: &Partition, key: &[u8], located: Located) -> Version {
        if let Some(before) = self.past.and_then(|(history, at)| history.version_at(key, at)) {
            return match before {
                Before::Damaged(location) => Version::Damaged(*location),
                before if !before.is_there(self.now) => Version::Absent,
                Before::Absent => Version::Absent,
                Before::Stored { location, .. } => Version::Stored(*location),
                Before::Held { seq, value, expires } => Version::Held(*seq, value.clone(), *expires),
            };
        }
        if partition.is_expired(key, self.now) {
            return Version::Absent;
        }
        match &partition.store {
            Store::Durable(index) => {
                let location = match located {
                    Located::At(location) => location,
                    Located::Unknown => {
                        let found = index.candidates(&catalog.arena, key);
                        if !found.is_certain {
                            return Version::Perhaps(found);
                        }
                        found.locations.first().copied()
                    }
                };
                location.map_or(Version::Absent, Version::Stored)
            }
            Store::Memory(memory) => memory.get(key).map_or(Version::Absent, |(seq, value)| {
                Version::Held(*seq, value.clone(), partition.expiry_of(key))
            }),
        }
    }

    /// When a key's record expires.
    pub fn expiry_of(&self, partition: &Partition, key: &[u8]) -> Option<WallMs> {
        match self.past.and_then(|(history, at)| history.version_at(key, at)) {
            Some(Before::Stored { expires, .. } | Before::Held { expires, .. }) => *expires,
            Some(Before::Absent | Before::Damaged(_)) => None,
            None => partition.expiry_of(key),
        }
    }

    /// What a scan of a range finds changed.
    pub fn overlay(&self, range: &KeyRange<'_>, reverse: bool) -> Overlay<'a> {
        let changes = self.past.and_then(|(history, at)| history.versions_in(range, at));
        Overlay::new(changes, reverse)
    }

    /// Whether a key was changed since that begins with these bytes, or would if it were padded with zeros.
    pub fn has_changed_key(&self, known: &[u8]) -> bool {
        let Some((history, at)) = self.past else { return false };
        // What is padded begins with what is left without the zeros.
        let last = known.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let range = KeyRange { start: &known[..last], end: None };
        let changes = history.versions_in(&range, at).into_iter().flatten();
        let padded = |key: &[u8], i: usize| key.get(i).copied().unwrap_or(0);
        let agrees = |key: &[u8]| known.iter().enumerate().all(|(i, byte)| padded(key, i) == *byte);
        let may_agree = |key: &[u8]| key.len() < known.len() || key[..known.len()] <= *known;
        changes.map(|(key, _)| key).take_while(|key| may_agree(key)).any(agrees)
    }

    /// How many more records a range held than it holds now: of the keys that were changed since, those
    /// that were there, and those that `is_there` now.
    pub fn count_change(
        &self,
        range: &KeyRange<'_>,
        is_there: impl Fn(&[u8]) -> Result<bool, Need>,
    ) -> Result<i64, Need> {
        let changes = self.past.and_then(|(history, at)| history.versions_in(range, at));
        let (mut change, mut needs) = (0, Need::default());
        for (key, before) in changes.into_iter().flatten() {
            match is_there(key) {
                Ok(is_there) => change += i64::from(before.is_there(self.now)) - i64::from(is_there),
                Err(Need(locations)) => needs.0.extend(locations),
            }
        }
        if needs.0.is_empty() { Ok(change) } else { Err(needs) }
    }
}
