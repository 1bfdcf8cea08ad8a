//! Where scans go on. A cursor of Redis is a number and a key is none, so the door remembers which is which.
//!
//! Of each scan two places are kept: the one that it was given last, and the one before, which is asked for again where an
//! answer was lost. So a scan takes the same room however many pages it has, and is not forgotten because another is quicker.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;
use lode_net::wire::server::Principal;

use super::limits::MAX_CURSORS;

/// Whose a scan is: where there are too many, who has most of them makes way.
pub type Owner = (IpAddr, Option<Principal>);

/// Scans that may go on.
pub struct Cursors {
    next: u64,
    /// When each was used last, for forgetting the oldest.
    clock: u64,
    by_number: HashMap<u64, Place>,
    by_owner: HashMap<Owner, BTreeMap<u64, u64>>,
}

struct Place {
    owner: Owner,
    table: Rc<str>,
    key: Bytes,
    used: u64,
    /// The place that this one was come to from.
    before: Option<u64>,
    /// The one that was come to from here.
    behind: Option<u64>,
}

impl Cursors {
    /// None yet; numbers go up from `first`, so that those of an earlier run mean nothing.
    pub fn new(first: u64) -> Cursors {
        // Clients keep cursors in signed numbers; zero is no cursor.
        let next = (first >> 2) | 1;
        Cursors { next, clock: 0, by_number: HashMap::new(), by_owner: HashMap::new() }
    }

    /// Remembers a place of a scan that was at `from` until now, 0 where it has just begun.
    pub fn keep(&mut self, owner: Owner, table: &Rc<str>, key: Bytes, from: u64) -> u64 {
        let known = self.by_number.get(&from).and_then(|place| place.behind);
        if let Some(known) = known.filter(|known| self.by_number.get(known).is_some_and(|of| of.key == key)) {
            // The same page was asked for again.
            return known;
        }
        while self.by_number.len() >= MAX_CURSORS && self.forget_one() {}
        let number = self.next;
        self.next += 1;
        self.clock += 1;
        let before = self.by_number.get_mut(&from).map(|place| {
            place.behind = Some(number);
            from
        });
        self.by_owner.entry(owner).or_default().insert(self.clock, number);
        let place = Place { owner, table: table.clone(), key, used: self.clock, before, behind: None };
        self.by_number.insert(number, place);
        number
    }

    /// Where the scan goes on. It may be asked for again, until the scan has gone on twice.
    pub fn resume(&mut self, number: u64, table: &str) -> Option<Bytes> {
        let place = self.by_number.get_mut(&number).filter(|place| &*place.table == table)?;
        self.clock += 1;
        let of_owner = self.by_owner.get_mut(&place.owner).expect("whoever has a place is known");
        of_owner.remove(&place.used);
        of_owner.insert(self.clock, number);
        place.used = self.clock;
        let (key, before) = (place.key.clone(), place.before.take());
        before.into_iter().for_each(|before| self.forget(before));
        Some(key)
    }

    /// Takes the oldest of whoever has most. False: there is none.
    fn forget_one(&mut self) -> bool {
        let most = self.by_owner.values().max_by_key(|places| places.len());
        let oldest = most.and_then(|places| places.first_key_value()).map(|(_, number)| *number);
        oldest.is_some_and(|oldest| {
            self.forget(oldest);
            true
        })
    }

    fn forget(&mut self, number: u64) {
        let Some(place) = self.by_number.remove(&number) else { return };
        let Some(of_owner) = self.by_owner.get_mut(&place.owner) else { return };
        of_owner.remove(&place.used);
        if of_owner.is_empty() {
            self.by_owner.remove(&place.owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn owner(n: u8) -> Owner {
        (IpAddr::V4(Ipv4Addr::new(10, 0, 0, n)), None)
    }

    #[test]
    fn where_there_are_too_many_whoever_has_most_loses_the_one_not_used_for_longest() {
        let table: Rc<str> = "t".into();
        let mut cursors = Cursors::new(u64::MAX);
        let one = cursors.keep(owner(2), &table, Bytes::from_static(b"of another"), 0);
        let numbers: Vec<u64> = (0..MAX_CURSORS - 1)
            .map(|n| cursors.keep(owner(1), &table, Bytes::from(n.to_string()), 0))
            .collect();
        assert!(numbers.iter().all(|number| (1..i64::MAX as u64).contains(number)));
        assert_eq!(cursors.resume(numbers[0], "t").as_deref(), Some(&b"0"[..]));
        assert_eq!(cursors.resume(numbers[0], "other"), None);
        cursors.keep(owner(3), &table, Bytes::new(), 0);
        assert_eq!(cursors.resume(numbers[1], "t"), None, "the oldest, as the first was used");
        assert_eq!(cursors.resume(numbers[0], "t").as_deref(), Some(&b"0"[..]));
        assert_eq!(cursors.resume(numbers[2], "t").as_deref(), Some(&b"2"[..]));
        assert!(cursors.resume(one, "t").is_some(), "older than all, and of somebody who has no more");
        let kept: usize = cursors.by_owner.values().map(BTreeMap::len).sum();
        assert_eq!((cursors.by_number.len(), kept), (MAX_CURSORS, MAX_CURSORS));
        assert_eq!(cursors.resume(0, "t"), None);
    }

    #[test]
    fn a_scan_takes_two_places_however_long_it_is_and_a_page_may_be_asked_for_again() {
        let table: Rc<str> = "t".into();
        let mut cursors = Cursors::new(1);
        let slow = cursors.keep(owner(1), &table, Bytes::from_static(b"slow"), 0);
        let mut at = cursors.keep(owner(1), &table, Bytes::from_static(b"quick"), 0);
        for n in 0..10 * MAX_CURSORS {
            assert!(cursors.resume(at, "t").is_some(), "{n}");
            let next = cursors.keep(owner(1), &table, Bytes::from(n.to_string()), at);
            // An answer was lost: the same is asked for again, and gives the same.
            assert!(cursors.resume(at, "t").is_some(), "{n}");
            assert_eq!(cursors.keep(owner(1), &table, Bytes::from(n.to_string()), at), next);
            at = next;
        }
        assert_eq!(cursors.by_number.len(), 3);
        assert_eq!(cursors.resume(slow, "t").as_deref(), Some(&b"slow"[..]));
    }
}
