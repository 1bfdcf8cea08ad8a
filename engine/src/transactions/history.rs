//! What has changed in a partition while transactions of it are open: for each key, the versions that were
//! overwritten, so that a snapshot still finds what it saw, and a commit learns what it missed.

use std::collections::{BTreeMap, VecDeque};
use std::iter::Peekable;

use bytes::Bytes;

use crate::ids::{FrameNumber, Seq, WallMs};
use crate::location::Location;
use crate::partition::{bounds, is_void};
use crate::request::KeyRange;

/// Bytes of memory that an overwritten version costs beside its key (and its value, of a memory table): an
/// entry of the tree, the list of the key's versions and an entry of the queue, with the slack of each.
pub const CHANGE_OVERHEAD_BYTES: usize = 224;

/// How many changes of a partition there were, since its history began. A snapshot is one such number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(u64);

/// What a write leaves of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// A record.
    Put,
    /// Nothing.
    Delete,
}

/// What a key had before it was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Before {
    /// Nothing.
    Absent,
    /// Nothing that can be read: what lies here is in a compact index, is damaged, and may be the key's.
    Damaged(Location),
    /// A record on the drive, in a segment that is pinned for it.
    Stored {
        /// Where.
        location: Location,
        /// When it expires.
        expires: Option<WallMs>,
    },
    /// A record of a memory table.
    Held {
        /// Its version.
        seq: Seq,
        /// Its value.
        value: Bytes,
        /// When it expires.
        expires: Option<WallMs>,
    },
}

impl Before {
    /// Whether it was a record whose time was not over then.
    pub fn is_there(&self, now: WallMs) -> bool {
        match self {
            Before::Absent | Before::Damaged(_) => false,
            Before::Stored { expires, .. } | Before::Held { expires, .. } => {
                expires.is_none_or(|at| at > now)
            }
        }
    }

    fn held_bytes(&self) -> usize {
        if let Before::Held { value, .. } = self { value.len() } else { 0 }
    }

    /// Where it is on the drive.
    pub fn location(&self) -> Option<Location> {
        if let Before::Stored { location, .. } = self { Some(*location) } else { None }
    }
}

/// The versions of a key, and at which change each was overwritten, in that order.
type Versions = Vec<(Position, Before)>;

/// The changes of one partition that an open transaction may ask about.
#[derive(Debug)]
pub struct History {
    position: Position,
    changes: BTreeMap<Bytes, Versions>,
    /// All changes that are kept, oldest first.
    order: VecDeque<(Position, Bytes)>,
    /// How many open transactions see the partition as of each position.
    snapshots: BTreeMap<Position, u32>,
    /// Keys written to the log and not yet applied: the last frame that writes them, and what it leaves.
    pending: BTreeMap<Box<[u8]>, (FrameNumber, Write)>,
    /// Of frames up to this one the pending keys are not known: they were open before the history began.
    pub known_after: FrameNumber,
    /// Bytes of what the changes hold.
    pub bytes: usize,
    /// Of those, in segments that are pinned.
    pub pinned: usize,
    /// Bytes of what its open transactions have read.
    pub read_set_bytes: usize,
    /// Whether it waits to be trimmed.
    pub is_trimming: bool,
}

impl History {
    /// Begins now: what is in frames up to `known_after` is on its way already.
    pub fn new(known_after: FrameNumber) -> History {
        History {
            position: Position::default(),
            changes: BTreeMap::new(),
            order: VecDeque::new(),
            snapshots: BTreeMap::new(),
            pending: BTreeMap::new(),
            known_after,
            bytes: 0,
            pinned: 0,
            read_set_bytes: 0,
            is_trimming: false,
        }
    }

    /// A transaction begins: what it sees is the partition as it is now.
    pub fn open(&mut self) -> Position {
        *self.snapshots.entry(self.position).or_default() += 1;
        self.position
    }

    /// A transaction has ended.
    pub fn close(&mut self, at: Position) {
        let count = self.snapshots.get_mut(&at).expect("an open transaction has its snapshot");
        *count -= 1;
        if *count == 0 {
            self.snapshots.remove(&at);
        }
    }

    /// How many transactions are open.
    pub fn open_count(&self) -> usize {
        self.snapshots.values().map(|count| *count as usize).sum()
    }

    /// Whether a change of the key must be kept: a transaction is open that does not know of any.
    pub fn wants(&self, key: &[u8]) -> bool {
        let Some((newest, _)) = self.snapshots.last_key_value() else { return false };
        self.last_change(key).is_none_or(|at| at <= *newest)
    }

    /// The key is changed; this is what it had. Gives the bytes that this costs.
    pub fn push(&mut self, key: &[u8], before: Before) -> usize {
        self.position.0 += 1;
        let shared = self.changes.get_key_value(key).map(|(key, _)| key.clone());
        let key = shared.unwrap_or_else(|| Bytes::copy_from_slice(key));
        let bytes = cost(&key, &before);
        self.bytes += bytes;
        self.pinned += usize::from(before.location().is_some());
        self.order.push_back((self.position, key.clone()));
        self.changes.entry(key).or_default().push((self.position, before));
        bytes
    }

    /// Takes out the oldest change, if no open transaction needs it. Gives what the key had, and its bytes.
    pub fn trim_one(&mut self) -> Option<(Before, usize)> {
        let oldest = self.snapshots.first_key_value().map(|(at, _)| *at);
        let (at, _) = self.order.front()?;
        if oldest.is_some_and(|oldest| *at > oldest) {
            return None;
        }
        let (at, key) = self.order.pop_front()?;
        let versions = self.changes.get_mut(&key).expect("a change in order is a change of its key");
        let (changed_at, before) = versions.remove(0);
        assert_eq!(changed_at, at, "changes of a key are taken out in order");
        if versions.is_empty() {
            self.changes.remove(&key);
        }
        let bytes = cost(&key, &before);
        self.bytes -= bytes;
        self.pinned -= usize::from(before.location().is_some());
        Some((before, bytes))
    }

    /// Whether nothing is left of it that anyone needs.
    pub fn is_over(&self) -> bool {
        self.snapshots.is_empty() && self.order.is_empty()
    }

    fn last_change(&self, key: &[u8]) -> Option<Position> {
        self.changes.get(key)?.last().map(|(at, _)| *at)
    }

    /// The keys of a range that were written since, or are about to be.
    pub fn written_in<'a>(
        &'a self,
        range: &KeyRange<'_>,
        since: Position,
    ) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let is_new = move |versions: &Versions| versions.last().is_some_and(|(at, _)| *at > since);
        let of = (!is_void(range)).then(|| bounds(range));
        let changes = of.map(|of| self.changes.range::<[u8], _>(of));
        let pending = of.map(|of| self.pending.range::<[u8], _>(of));
        let changed = changes.into_iter().flatten().filter(move |(_, versions)| is_new(versions));
        let pending = pending.into_iter().flatten().map(|(key, _)| &**key);
        changed.map(|(key, _)| &**key).chain(pending)
    }

    /// What the last write of a key that is not applied yet leaves of it, of those that are known.
    pub fn pending(&self, key: &[u8]) -> Option<Write> {
        self.pending.get(key).map(|(_, write)| *write)
    }

    /// What a key had at a position, if it was changed since.
    pub fn version_at(&self, key: &[u8], at: Position) -> Option<&Before> {
        version_at(self.changes.get(key)?, at)
    }

    /// What the keys of a range had at a position that were changed since.
    pub fn versions_in<'a>(
        &'a self,
        range: &KeyRange<'_>,
        at: Position,
    ) -> Option<impl DoubleEndedIterator<Item = (&'a [u8], &'a Before)> + use<'a>> {
        if is_void(range) {
            return None;
        }
        let changes = self.changes.range::<[u8], _>(bounds(range));
        Some(changes.filter_map(move |(key, versions)| Some((&**key, version_at(versions, at)?))))
    }

    /// A record of the key was appended to a frame.
    pub fn appended(&mut self, key: &[u8], frame: FrameNumber, write: Write) {
        self.pending.insert(key.into(), (frame, write));
    }

    /// A record of the key was applied.
    pub fn applied(&mut self, key: &[u8], frame: FrameNumber) {
        if self.pending.get(key).is_some_and(|(last, _)| *last <= frame) {
            self.pending.remove(key);
        }
    }
}

fn version_at(versions: &Versions, at: Position) -> Option<&Before> {
    versions.iter().find(|(changed_at, _)| *changed_at > at).map(|(_, before)| before)
}

fn cost(key: &[u8], before: &Before) -> usize {
    key.len() + before.held_bytes() + CHANGE_OVERHEAD_BYTES
}

/// Older versions on their way.
type Versioned<'a> = Box<dyn Iterator<Item = (&'a [u8], &'a Before)> + 'a>;

/// What a scan of a snapshot finds changed, in the order of the scan.
pub struct Overlay<'a> {
    changes: Peekable<Versioned<'a>>,
    reverse: bool,
}

/// What a scan does about a key of the present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The page is full.
    Stop,
    /// The snapshot saw something else of it, or nothing.
    Skip,
    /// Shows it.
    Show,
}

impl<'a> Overlay<'a> {
    /// Of these changes, ascending.
    pub fn new<I>(changes: Option<I>, reverse: bool) -> Overlay<'a>
    where
        I: DoubleEndedIterator<Item = (&'a [u8], &'a Before)> + 'a,
    {
        let changes: Versioned<'a> = match changes {
            None => Box::new(std::iter::empty()),
            Some(changes) if reverse => Box::new(changes.rev()),
            Some(changes) => Box::new(changes),
        };
        Overlay { changes: changes.peekable(), reverse }
    }

    /// Whether nothing has changed.
    pub fn is_empty(&mut self) -> bool {
        self.changes.peek().is_none()
    }

    /// Hands over the older versions that come before a key of the present, or its own; all that are left
    /// where there is no such key. `each` says whether to go on.
    pub fn up_to(&mut self, key: Option<&[u8]>, each: &mut dyn FnMut(&[u8], &Before) -> bool) -> Step {
        let reverse = self.reverse;
        let is_due = |(changed, _): &(&[u8], &Before)| {
            key.is_none_or(|key| if reverse { *changed >= key } else { *changed <= key })
        };
        while let Some((changed, before)) = self.changes.next_if(is_due) {
            if !each(changed, before) {
                return Step::Stop;
            }
            if key == Some(changed) {
                return Step::Skip;
            }
        }
        Step::Show
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> Before {
        Before::Stored { location: Location::new(offset, 64), expires: None }
    }

    fn written<'a>(history: &'a History, range: &KeyRange<'_>, since: Position) -> Vec<&'a [u8]> {
        history.written_in(range, since).collect()
    }

    fn everything<'a>() -> KeyRange<'a> {
        KeyRange::default()
    }

    #[test]
    fn each_snapshot_finds_what_it_saw() {
        let mut history = History::new(FrameNumber(0));
        assert!(!history.wants(b"k"), "nobody is interested");
        let first = history.open();
        assert!(history.wants(b"k"));
        history.push(b"k", at(0));
        assert!(!history.wants(b"k") && history.wants(b"l"), "one change tells the first all that it needs");
        let second = history.open();
        assert!(history.wants(b"k"));
        history.push(b"k", at(64));
        history.push(b"l", Before::Absent);
        assert_eq!(history.version_at(b"k", first), Some(&at(0)));
        assert_eq!(history.version_at(b"k", second), Some(&at(64)));
        assert_eq!(history.version_at(b"m", first), None);
        assert_eq!(written(&history, &everything(), second), [b"k", b"l"]);
        assert_eq!(history.written_in(&KeyRange { start: b"l", end: None }, second).count(), 1);
        history.close(first);
        assert_eq!(history.trim_one().map(|(before, _)| before), Some(at(0)));
        assert_eq!(history.trim_one(), None, "the second still needs the rest");
        assert_eq!(history.version_at(b"k", second), Some(&at(64)));
        history.close(second);
        assert!(history.trim_one().is_some() && history.trim_one().is_some() && history.is_over());
        assert_eq!((history.bytes, history.pinned), (0, 0));
    }

    #[test]
    fn what_is_on_its_way_is_known_until_it_is_applied() {
        let mut history = History::new(FrameNumber(0));
        let snapshot = history.open();
        history.appended(b"k", FrameNumber(1), Write::Put);
        history.appended(b"k", FrameNumber(2), Write::Delete);
        history.applied(b"k", FrameNumber(1));
        assert_eq!(history.pending(b"k"), Some(Write::Delete));
        assert_eq!(written(&history, &everything(), snapshot), [b"k"]);
        assert_eq!(history.written_in(&KeyRange { start: b"l", end: None }, snapshot).count(), 0);
        history.applied(b"k", FrameNumber(2));
        assert_eq!((written(&history, &everything(), snapshot).len(), history.pending(b"k")), (0, None));
    }

    #[test]
    fn an_overlay_comes_between_the_keys_of_the_present_in_both_directions() {
        let mut history = History::new(FrameNumber(0));
        let snapshot = history.open();
        for key in [b"b", b"d", b"f"] {
            history.push(key, Before::Absent);
        }
        for reverse in [false, true] {
            let mut overlay = Overlay::new(history.versions_in(&everything(), snapshot), reverse);
            let mut present = [&b"a"[..], b"d", b"e"];
            if reverse {
                present.reverse();
            }
            let mut seen = Vec::new();
            let steps = present.iter().map(|key| {
                overlay.up_to(Some(key), &mut |key, _| {
                    seen.push(key.to_vec());
                    true
                })
            });
            let steps: Vec<_> = steps.collect();
            overlay.up_to(None, &mut |key, _| {
                seen.push(key.to_vec());
                true
            });
            assert_eq!(seen.len(), 3, "{seen:?}");
            assert!(seen.is_sorted_by(|a, b| (a < b) != reverse));
            assert_eq!(steps.iter().filter(|step| **step == Step::Skip).count(), 1);
        }
    }
}
