//! Requests in flight, found by their id without hashing.

use crate::wire::RequestId;

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// A slab: an id is the slot's place and how often the slot was used, so an id never comes twice
/// (in four billion uses of its slot), and a late or invented reply finds nothing.
pub(crate) struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Slots<T> {
        Slots { slots: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Ids are at least 2^32: 0 and the handshake's id are never among them.
    pub(crate) fn insert(&mut self, value: T) -> RequestId {
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, value: None });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[place as usize];
        assert!(slot.value.is_none(), "a free slot is empty");
        slot.generation = slot.generation.checked_add(1).unwrap_or(1);
        slot.value = Some(value);
        RequestId(u64::from(slot.generation) << 32 | u64::from(place))
    }

    pub(crate) fn remove(&mut self, id: RequestId) -> Option<T> {
        let place = id.0 as u32;
        let slot = self.slots.get_mut(place as usize)?;
        if u64::from(slot.generation) != id.0 >> 32 {
            return None;
        }
        let value = slot.value.take()?;
        self.free.push(place);
        Some(value)
    }

    /// Takes everything out, in no order.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        self.free.clear();
        std::mem::take(&mut self.slots).into_iter().filter_map(|slot| slot.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_good_once() {
        let mut slots = Slots::new();
        let a = slots.insert('a');
        let b = slots.insert('b');
        assert_eq!((slots.len(), slots.remove(a), slots.remove(a)), (2, Some('a'), None));
        let c = slots.insert('c');
        assert_ne!(a, c);
        assert_eq!((slots.remove(a), slots.remove(c), slots.remove(RequestId(0))), (None, Some('c'), None));
        assert_eq!(slots.remove(b), Some('b'));
        assert_eq!(slots.len(), 0);
    }
}
