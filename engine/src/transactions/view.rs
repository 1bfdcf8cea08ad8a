//! As of when a read sees its partition: as it is, or as a transaction saw it when it began.

use bytes::Bytes;

use super::history::{Before, History, Overlay, Position};
use super::{Transaction, Transactions};
use crate::catalog::Catalog;
use crate::ids::{PartitionId, Seq, TransactionId, WallMs};
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
    /// A record on the drive.
    Stored(Location),
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
                    Located::Unknown => index.get(&catalog.arena, key),
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
            Some(Before::Absent) => None,
            None => partition.expiry_of(key),
        }
    }

    /// What a scan of a range finds changed.
    pub fn overlay(&self, range: &KeyRange<'_>, reverse: bool) -> Overlay<'a> {
        let changes = self.past.and_then(|(history, at)| history.versions_in(range, at));
        Overlay::new(changes, reverse)
    }

    /// How many more records a range held than it holds now: of the keys that were changed since, those
    /// that were there, and those that `is_there` now.
    pub fn count_change(&self, range: &KeyRange<'_>, is_there: impl Fn(&[u8]) -> bool) -> i64 {
        let changes = self.past.and_then(|(history, at)| history.versions_in(range, at));
        let change =
            |(key, before): (&[u8], &Before)| i64::from(before.is_there(self.now)) - i64::from(is_there(key));
        changes.map_or(0, |changes| changes.map(change).sum())
    }
}
