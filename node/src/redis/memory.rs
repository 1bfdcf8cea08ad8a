//! What the connections of the door hold in memory: counted where it is held, so that who holds the most is kept from
//! more before anybody else is.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use lode_net::resp::Reply;

use super::limits::{LEAST_HELD_BYTES, MAX_HELD_BYTES, MAX_PENDING_REPLY_BYTES, MAX_REPLY_BYTES};
use super::refusal::Refusal;

/// Bytes of all connections together.
#[derive(Default)]
pub struct Memory {
    held: Cell<usize>,
    /// What commands on their way may come to hold.
    promised: Cell<usize>,
}

impl Memory {
    /// Bytes that are held.
    pub fn held_bytes(&self) -> usize {
        self.held.get()
    }

    /// Whoever held so many bytes holds another number now.
    pub fn hold(&self, before: usize, now: usize) {
        let left = (self.held.get() + now).checked_sub(before);
        self.held.set(left.expect("nobody gives back what he did not hold"));
    }

    /// Whether each connection is kept to its share.
    pub fn is_short(&self) -> bool {
        self.held.get() > MAX_HELD_BYTES / 2
    }

    /// What each of so many connections may hold before it is kept from more. While memory is short, the shares of all
    /// fill the half of it that is left.
    pub fn share(&self, connections: usize) -> usize {
        match self.is_short() {
            false => MAX_PENDING_REPLY_BYTES,
            true => {
                (MAX_HELD_BYTES / 2 / connections.max(1)).clamp(LEAST_HELD_BYTES, MAX_PENDING_REPLY_BYTES)
            }
        }
    }

    /// Whether a command may begin that may come to hold so much, beside all that have begun.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.held.get() + self.promised.get() + bytes <= MAX_HELD_BYTES
    }
}

/// What was read and is not told yet, counted until this is dropped.
pub struct Taken {
    memory: Rc<Memory>,
    bytes: usize,
}

impl Taken {
    /// Of a value that is here: it is counted where there is room for it, and where it is short.
    pub fn value(memory: &Rc<Memory>, bytes: usize) -> Result<Taken, Refusal> {
        match bytes > LEAST_HELD_BYTES && memory.held_bytes() + bytes > MAX_HELD_BYTES {
            true => Err(Refusal::short_of_memory()),
            false => Ok(Taken::new(memory, bytes)),
        }
    }

    /// Of what a command that goes through a table has read ahead: scans never take more than half of it all.
    pub fn pages(memory: &Rc<Memory>, bytes: usize) -> Result<Taken, Refusal> {
        match memory.is_short() {
            true => Err(Refusal::short_of_memory()),
            false => Ok(Taken::new(memory, bytes)),
        }
    }

    fn new(memory: &Rc<Memory>, bytes: usize) -> Taken {
        memory.hold(0, bytes);
        Taken { memory: memory.clone(), bytes }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.memory.hold(self.bytes, 0);
    }
}

/// What one command holds, or may come to; given back when this is dropped.
pub struct Held {
    memory: Rc<Memory>,
    /// What answered commands of its connection hold.
    own: Rc<Cell<usize>>,
    bytes: usize,
    promised: usize,
}

impl Held {
    /// Nothing yet.
    pub fn new(memory: &Rc<Memory>, own: &Rc<Cell<usize>>, promised: usize) -> Held {
        memory.promised.set(memory.promised.get() + promised);
        Held { memory: memory.clone(), own: own.clone(), bytes: 0, promised }
    }

    /// It holds so much now, and will hold no more.
    pub fn settle(&mut self, bytes: usize) {
        self.memory.promised.set(self.memory.promised.get() - self.promised);
        self.promised = 0;
        self.memory.hold(self.bytes, bytes);
        self.own.set(self.own.get() + bytes - self.bytes);
        self.bytes = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.settle(0);
    }
}

/// A reply that grows to its limit.
pub struct List {
    items: Vec<Reply>,
    bytes: usize,
    memory: Rc<Memory>,
}

impl List {
    /// An empty one.
    pub fn new(memory: &Rc<Memory>) -> List {
        List { items: Vec::new(), bytes: 0, memory: memory.clone() }
    }

    /// One item more.
    pub fn push(&mut self, item: Reply) -> Result<(), Refusal> {
        let bytes = item.size_bytes();
        self.memory.hold(0, bytes);
        self.bytes += bytes;
        if self.bytes > MAX_REPLY_BYTES {
            return Err(Refusal::new(format_args!(
                "the reply would be longer than {MAX_REPLY_BYTES} bytes; ask for fewer keys, or use SCAN, a narrower \
                 pattern, or LIMIT"
            )));
        }
        if self.bytes > LEAST_HELD_BYTES && self.memory.held_bytes() > MAX_HELD_BYTES {
            return Err(Refusal::short_of_memory());
        }
        self.items.push(item);
        Ok(())
    }

    /// One more, of bytes.
    pub fn push_bytes(&mut self, bytes: Bytes) -> Result<(), Refusal> {
        self.push(Reply::Bulk(bytes))
    }

    /// What the reply may still grow by, in bytes.
    pub fn room_bytes(&self) -> usize {
        MAX_REPLY_BYTES.saturating_sub(self.bytes)
    }

    /// All of them.
    pub fn into_items(mut self) -> Vec<Reply> {
        std::mem::take(&mut self.items)
    }
}

impl Drop for List {
    fn drop(&mut self) {
        self.memory.hold(self.bytes, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_ends_at_its_limit() {
        let memory = Rc::new(Memory::default());
        let mut list = List::new(&memory);
        let item = Bytes::from(vec![0; (1 << 20) - Reply::text("").size_bytes()]);
        for _ in 0..MAX_REPLY_BYTES >> 20 {
            assert_eq!(list.push_bytes(item.clone()), Ok(()));
        }
        assert_eq!(memory.held_bytes(), MAX_REPLY_BYTES, "it is counted while it grows");
        assert!(list.push_bytes(Bytes::new()).is_err());
        drop(list);
        assert_eq!(memory.held_bytes(), 0);
        // Where others hold everything, a short reply is still given.
        memory.hold(0, MAX_HELD_BYTES);
        let mut list = List::new(&memory);
        assert_eq!(list.push_bytes(Bytes::from(vec![0; LEAST_HELD_BYTES / 2])), Ok(()));
        assert_eq!(list.push_bytes(item), Err(Refusal::short_of_memory()));
    }

    #[test]
    fn what_is_held_and_promised_is_given_back() {
        let (memory, own) = (Rc::new(Memory::default()), Rc::new(Cell::new(0)));
        let mut one = Held::new(&memory, &own, MAX_HELD_BYTES - 10);
        assert!(memory.has_room(10) && !memory.has_room(11));
        one.settle(7);
        assert_eq!((memory.held_bytes(), own.get()), (7, 7));
        assert!(memory.has_room(MAX_HELD_BYTES - 7) && !memory.has_room(MAX_HELD_BYTES - 6));
        let unfinished = Held::new(&memory, &own, 1);
        drop((one, unfinished));
        assert_eq!((memory.held_bytes(), own.get()), (0, 0));
        assert!(memory.has_room(MAX_HELD_BYTES));
    }

    #[test]
    fn a_value_is_taken_up_to_the_limit_and_scans_up_to_half_of_it() {
        let memory = Rc::new(Memory::default());
        let large = 1 << 20;
        memory.hold(0, MAX_HELD_BYTES - large - 1);
        let below = Taken::value(&memory, large).expect("there is room, and one byte more");
        assert_eq!(memory.held_bytes(), MAX_HELD_BYTES - 1);
        drop(below);
        memory.hold(0, 1);
        let at = Taken::value(&memory, large).expect("there is just room");
        assert_eq!(memory.held_bytes(), MAX_HELD_BYTES);
        assert_eq!(Taken::value(&memory, large).err(), Some(Refusal::short_of_memory()));
        let least = Taken::value(&memory, LEAST_HELD_BYTES).expect("so much is always had");
        assert!(Taken::value(&memory, LEAST_HELD_BYTES + 1).is_err());
        drop((at, least));
        memory.hold(0, 1);
        assert_eq!(Taken::value(&memory, large).err(), Some(Refusal::short_of_memory()), "one byte above it");

        let memory = Rc::new(Memory::default());
        let scans: Vec<Taken> = std::iter::from_fn(|| Taken::pages(&memory, large).ok()).collect();
        assert_eq!(scans.len(), MAX_HELD_BYTES / 2 / large + 1);
        assert!(Taken::value(&memory, large).is_ok(), "they leave room for values");
        drop(scans);
        assert_eq!(memory.held_bytes(), 0);
    }

    #[test]
    fn who_holds_the_most_is_kept_short_first() {
        let memory = Memory::default();
        memory.hold(0, MAX_HELD_BYTES / 2);
        assert_eq!(memory.share(1000), MAX_PENDING_REPLY_BYTES);
        memory.hold(0, 1);
        for connections in [1, 30, 1000] {
            assert!(memory.share(connections) * connections <= MAX_HELD_BYTES / 2, "{connections}");
        }
        assert!(memory.share(30) > 4 << 20, "a newcomer may still ask for something large");
        assert_eq!(memory.share(1_000_000), LEAST_HELD_BYTES);
    }
}
