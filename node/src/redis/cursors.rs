//! Where scans go on. A cursor of Redis is a number and a key is none, so the door remembers which is which.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use bytes::Bytes;

use super::limits::MAX_CURSORS;

/// Scans that may go on.
pub struct Cursors {
    next: u64,
    /// When each was used last, for forgetting the oldest.
    clock: u64,
    by_number: HashMap<u64, Place>,
    by_use: BTreeMap<u64, u64>,
}

struct Place {
    table: Rc<str>,
    key: Bytes,
    used: u64,
}

impl Cursors {
    /// None yet; numbers go up from `first`, so that those of an earlier run mean nothing.
    pub fn new(first: u64) -> Cursors {
        // Clients keep cursors in signed numbers; zero is no cursor.
        let next = (first >> 2) | 1;
        Cursors { next, clock: 0, by_number: HashMap::new(), by_use: BTreeMap::new() }
    }

    /// Remembers a place.
    pub fn keep(&mut self, table: &Rc<str>, key: Bytes) -> u64 {
        if self.by_number.len() >= MAX_CURSORS
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.by_number.remove(&oldest);
        }
        let number = self.next;
        self.next += 1;
        self.clock += 1;
        self.by_use.insert(self.clock, number);
        self.by_number.insert(number, Place { table: table.clone(), key, used: self.clock });
        number
    }

    /// Where the scan goes on. It may be asked for again, until it is forgotten.
    pub fn resume(&mut self, number: u64, table: &str) -> Option<Bytes> {
        let place = self.by_number.get_mut(&number).filter(|place| &*place.table == table)?;
        self.clock += 1;
        self.by_use.remove(&place.used);
        self.by_use.insert(self.clock, number);
        place.used = self.clock;
        Some(place.key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_not_used_for_longest_is_forgotten_at_the_limit() {
        let table: Rc<str> = "t".into();
        let mut cursors = Cursors::new(u64::MAX);
        let numbers: Vec<u64> =
            (0..MAX_CURSORS).map(|n| cursors.keep(&table, Bytes::from(n.to_string()))).collect();
        assert!(numbers.iter().all(|number| (1..i64::MAX as u64).contains(number)));
        assert_eq!(cursors.resume(numbers[0], "t").as_deref(), Some(&b"0"[..]));
        assert_eq!(cursors.resume(numbers[0], "other"), None);
        cursors.keep(&table, Bytes::new());
        assert_eq!(cursors.resume(numbers[1], "t"), None, "the oldest, as the first was used");
        assert_eq!(cursors.resume(numbers[0], "t").as_deref(), Some(&b"0"[..]));
        assert_eq!(cursors.resume(numbers[2], "t").as_deref(), Some(&b"2"[..]));
        assert_eq!((cursors.by_number.len(), cursors.by_use.len()), (MAX_CURSORS, MAX_CURSORS));
        assert_eq!(cursors.resume(0, "t"), None);
    }
}
