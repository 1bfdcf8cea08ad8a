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
    },
    /// A record was deleted.
    Delete {
        /// Its key.
        key: &'a [u8],
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
const PUT_EXPIRING: u8 = 2;
const DELETE: u8 = 3;
const EXPIRES: u8 = 4;

/// Changes in their order.
#[derive(Debug, Default)]
pub struct Changes {
    packed: ByteWriter,
}

impl Changes {
    /// One more.
    pub fn push(&mut self, change: Change<'_>) {
        let out = &mut self.packed;
        let key = match change {
            Change::Put { key, location, expires: None } => {
                out.u8(PUT).u64(location.to_raw());
                key
            }
            Change::Put { key, location, expires: Some(at) } => {
                out.u8(PUT_EXPIRING).u64(location.to_raw()).u64(at.0);
                key
            }
            Change::Delete { key } => {
                out.u8(DELETE);
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

/// Changes that are being gone through.
#[derive(Debug)]
pub struct UnreadChanges {
    packed: Vec<u8>,
    at: usize,
}

impl UnreadChanges {
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

fn decode<'a>(reader: &mut ByteReader<'a>) -> Option<Change<'a>> {
    Some(match reader.u8()? {
        PUT => {
            let location = Location::from_raw(reader.u64()?)?;
            Change::Put { location, expires: None, key: reader.short()? }
        }
        PUT_EXPIRING => {
            let (location, at) = (Location::from_raw(reader.u64()?)?, WallMs(reader.u64()?));
            Change::Put { location, expires: Some(at), key: reader.short()? }
        }
        DELETE => Change::Delete { key: reader.short()? },
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
            Change::Put { key: b"a", location, expires: None },
            Change::Put { key: &long, location, expires },
            Change::Delete { key: b"b" },
            Change::Expires { key: b"d", at: WallMs(3) },
        ];
        let mut kept = Changes::default();
        all.iter().for_each(|change| kept.push(*change));
        let mut unread = kept.into_unread();
        for change in all {
            assert_eq!(unread.next(), Some(change));
        }
        assert_eq!(unread.next(), None);
    }
}
