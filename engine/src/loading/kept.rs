//! Changes of a partition that is not loaded, packed one behind the other, to be made when it is.

use crate::format::{ByteReader, ByteWriter};
use crate::ids::WallMs;
use crate::location::Location;

/// One change of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// A record was written.
    Put {
        /// Its key.
        key: &'a [u8],
        /// Where it lies. Cleaning may have copied it there.
        location: Location,
        /// When it expires, if ever.
        expires: Option<WallMs>,
        /// Where the record lay that it took the place of, if that is known, of a compact index.
        replaces: Option<Location>,
    },
    /// A record was deleted.
    Delete {
        /// Its key.
        key: &'a [u8],
        /// Where it lay, if that is known, of a compact index.
        replaces: Option<Location>,
    },
    /// A change before did not say where the record lay that is no more: here, in a compact index.
    Superseded {
        /// Its key.
        key: &'a [u8],
        /// Where it lay.
        location: Location,
    },
    /// The record of a key expires, if there is one: the image says so beside the leaves.
    Expires {
        /// The key.
        key: &'a [u8],
        /// When.
        at: WallMs,
    },
}

const PUT: u8 = 1;
const DELETE: u8 = 2;
const EXPIRES: u8 = 3;
const SUPERSEDED: u8 = 4;
/// Flags: a time, and a location that was replaced, come behind.
const EXPIRING: u8 = 0x10;
const REPLACES: u8 = 0x20;

/// Changes in their order.
#[derive(Debug, Default)]
pub struct Changes {
    packed: ByteWriter,
}

impl Changes {
    /// One more.
    pub fn push(&mut self, change: Change<'_>) {
        let out = &mut self.packed;
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let key = match change {
            Change::Put { key, location, expires, replaces } => {
                out.u8(PUT | flag(expires.is_some(), EXPIRING) | flag(replaces.is_some(), REPLACES));
                out.u64(location.to_raw());
                push_some(out, expires.map(|at| at.0));
                push_some(out, replaces.map(Location::to_raw));
                key
            }
            Change::Delete { key, replaces } => {
                out.u8(DELETE | flag(replaces.is_some(), REPLACES));
                push_some(out, replaces.map(Location::to_raw));
                key
            }
            Change::Superseded { key, location } => {
                out.u8(SUPERSEDED).u64(location.to_raw());
                key
            }
            Change::Expires { key, at } => {
                out.u8(EXPIRES).u64(at.0);
                key
            }
        };
        out.short(key);
    }

    /// To be gone through.
    pub fn into_unread(self) -> UnreadChanges {
        UnreadChanges { packed: self.packed.into_bytes(), at: 0 }
    }
}

fn push_some(out: &mut ByteWriter, number: Option<u64>) {
    if let Some(number) = number {
        out.u64(number);
    }
}

/// Changes that are being gone through.
#[derive(Debug)]
pub struct UnreadChanges {
    packed: Vec<u8>,
    at: usize,
}

impl UnreadChanges {
    /// The one that comes next, and those behind it.
    pub fn ahead(&self) -> UnreadAhead<'_> {
        UnreadAhead { reader: ByteReader::new(&self.packed[self.at..]) }
    }

    /// Which one comes next: later ones are further.
    pub fn position(&self) -> usize {
        self.at
    }

    /// From the first on again.
    pub fn rewind(&mut self) {
        self.at = 0;
    }

    /// The next one.
    pub fn next(&mut self) -> Option<Change<'_>> {
        let mut reader = ByteReader::new(&self.packed[self.at..]);
        if reader.remaining() == 0 {
            return None;
        }
        let change = decode(&mut reader).expect("changes are read as they were packed");
        self.at = self.packed.len() - reader.remaining();
        Some(change)
    }
}

/// Changes that are looked at before they are made.
pub struct UnreadAhead<'a> {
    reader: ByteReader<'a>,
}

impl<'a> Iterator for UnreadAhead<'a> {
    type Item = Change<'a>;

    fn next(&mut self) -> Option<Change<'a>> {
        let is_left = self.reader.remaining() > 0;
        is_left.then(|| decode(&mut self.reader).expect("changes are read as they were packed"))
    }
}

fn decode<'a>(reader: &mut ByteReader<'a>) -> Option<Change<'a>> {
    let first = reader.u8()?;
    let is_set = |flag: u8| first & flag != 0;
    Some(match first & !(EXPIRING | REPLACES) {
        PUT => {
            let location = Location::from_raw(reader.u64()?)?;
            let expires = if is_set(EXPIRING) { Some(WallMs(reader.u64()?)) } else { None };
            let replaces = if is_set(REPLACES) { Some(Location::from_raw(reader.u64()?)?) } else { None };
            Change::Put { location, expires, replaces, key: reader.short()? }
        }
        DELETE => {
            let replaces = if is_set(REPLACES) { Some(Location::from_raw(reader.u64()?)?) } else { None };
            Change::Delete { replaces, key: reader.short()? }
        }
        SUPERSEDED => {
            let location = Location::from_raw(reader.u64()?)?;
            Change::Superseded { location, key: reader.short()? }
        }
        EXPIRES => Change::Expires { at: WallMs(reader.u64()?), key: reader.short()? },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_as_they_were_kept() {
        let (location, expires) = (Location::new((1 << 40) - 8, 99), Some(WallMs(u64::MAX)));
        let long = [7; 4096];
        let all = [
            Change::Put { key: b"a", location, expires: None, replaces: None },
            Change::Put { key: &long, location, expires, replaces: None },
            Change::Put { key: &long, location, expires, replaces: Some(location) },
            Change::Put { key: b"c", location, expires: None, replaces: Some(location) },
            Change::Delete { key: b"b", replaces: None },
            Change::Delete { key: b"b", replaces: Some(location) },
            Change::Superseded { key: b"e", location },
            Change::Expires { key: b"d", at: WallMs(3) },
        ];
        let mut kept = Changes::default();
        all.iter().for_each(|change| kept.push(*change));
        let mut unread = kept.into_unread();
        for change in all {
            assert_eq!(unread.ahead().next(), Some(change));
            assert_eq!(unread.next(), Some(change));
        }
        assert_eq!(unread.next(), None);
    }
}
